"""Data frames, and the files that pandas reads into one, as raw columns."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bmtl.datasets.tables.column import Column, MissingFields, Origin, RawTable, cleaned, spelled
from bmtl.targets.names import check_text

_EPOCH = pd.Timestamp("1970-01-01")
_DAY = pd.Timedelta(days=1)
_EXACT = 2**53
"""Beyond it, whole numbers that differ may be one float64."""


ARROW_FILES = (".parquet", ".pq", ".feather")


def read_arrow(path: Path, *, missing: Sequence[str] = ()) -> RawTable:
    """A Parquet or Feather file, by its name's ending; needs the extra ``frames``.

    Raises:
        ImportError: If pyarrow is not installed; names the extra.
        ValueError: If it is no such file, or a column cannot be used.
    """
    try:
        import pyarrow
        import pyarrow.feather
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs pyarrow: pip install 'bmtl[frames]', or save the table as CSV."
        ) from error
    kind, read = ("Parquet", pyarrow.parquet.read_table)
    if path.suffix.lower() == ".feather":
        kind, read = ("Feather", pyarrow.feather.read_table)
    try:
        table = read(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not an intact {kind} file ({error}). Fetch or write it again.") from error
    return raw_table(table.to_pandas(), source=path.name, missing=missing)


def raw_table(frame: pd.DataFrame, *, source: str = "the data frame", missing: Sequence[str] = ()) -> RawTable:
    """The columns of a data frame. Its index names rows in messages and is not a column.

    Args:
        frame: With one row per datum.
        source: What messages call it.
        missing: Further fields that are a missing value, such as ``-999``.

    Raises:
        ValueError: If there are no rows, names are repeated or nested, or a column holds values that are neither
            numbers, text, dates nor truth values.
    """
    if frame.columns.nlevels > 1:
        raise ValueError(f"{source} has columns with several levels of names. Flatten them: one name per column.")
    if not len(frame):
        raise ValueError(f"{source} has no rows.")
    origin = Origin(((source, [_label(label) for label in frame.index.tolist()]),))
    columns: dict[str, Column] = {}
    for place, given in enumerate(frame.columns):
        text = str(given) if isinstance(given, int) else given
        name = check_text("column", spelled(text) if isinstance(text, str) else text)
        if name in columns:
            raise ValueError(f"{source} has two columns {name!r}. Rename one.")
        columns[name] = _column(name, frame.iloc[:, place], origin, MissingFields(missing))
    return RawTable(columns, origin)


def _label(label: object) -> object:
    return repr(label) if isinstance(label, str) else label


def _column(name: str, series: "pd.Series[Any]", origin: Origin, missing: MissingFields) -> Column:
    kind = series.dtype
    if isinstance(kind, pd.CategoricalDtype):
        levels = tuple(map(_text, kind.categories)) if kind.ordered else ()
        texts = [None if pd.isna(value) else cleaned(_text(value), missing) for value in series]
        return Column(name, origin, texts, levels=levels)
    if pd.api.types.is_bool_dtype(kind):
        return Column(name, origin, [None if pd.isna(value) else str(bool(value)) for value in series])
    if pd.api.types.is_datetime64_any_dtype(kind):
        if getattr(kind, "tz", None) is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        return Column(name, origin, values=_numbers((series - _EPOCH) / _DAY), dates=True)
    if pd.api.types.is_timedelta64_dtype(kind):
        return Column(name, origin, values=_numbers(series / _DAY))
    if pd.api.types.is_complex_dtype(kind):
        raise ValueError(f"The column {name!r} of {origin.source} holds complex numbers. Split it in two.")
    if pd.api.types.is_integer_dtype(kind) and ((series > _EXACT) | (series < -_EXACT)).any():  # such as identifiers
        return Column(name, origin, [None if pd.isna(value) else cleaned(str(value), missing) for value in series])
    if pd.api.types.is_numeric_dtype(kind):
        values = _numbers(series)
        values[np.isin(values, list(missing.numbers))] = np.nan
        return Column(name, origin, values=values)
    return Column(name, origin, [_object(name, origin, row, value, missing) for row, value in enumerate(series)])


def _numbers(series: "pd.Series[Any]") -> np.ndarray:
    return np.array(series.to_numpy(dtype=np.float64, na_value=np.nan))


def _object(name: str, origin: Origin, row: int, value: object, missing: MissingFields) -> str | None:
    """One entry of a column of Python objects as text."""
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, str):
        return cleaned(value, missing)
    if isinstance(value, list | tuple | dict | set | bytes | np.ndarray):
        raise ValueError(
            f"{origin.at(row)}, column {name!r}: a {type(value).__name__}, and a table holds numbers, text, dates and "
            "truth values. Leave the column out, or spread it over several."
        )
    return cleaned(_text(value), missing)


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)  # a datetime is a date
