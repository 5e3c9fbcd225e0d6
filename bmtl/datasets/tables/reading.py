"""One file as raw columns, by its name's ending."""

from collections.abc import Sequence
from pathlib import Path

from bmtl.datasets.tables.column import RawTable
from bmtl.datasets.tables.delimited import read_delimited
from bmtl.datasets.tables.frames import ARROW_FILES, read_arrow

ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", *ARROW_FILES)


def read_table(
    path: str | Path, *, encoding: str | None = None, delimiter: str | None = None, missing: Sequence[str] = ()
) -> RawTable:
    """The columns of a file: ``.parquet`` and ``.feather`` with the extra ``frames``, anything else as delimited text.

    Args:
        path: Of the file.
        encoding: Of a text file, where it is neither UTF-8 nor marked.
        delimiter: Between fields of a text file; found by default.
        missing: Further fields that are a missing value, such as ``-999``.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the extra is not installed.
        ValueError: If the file cannot be read; says where, and what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix.lower() in ARROW_FILES:
        return read_arrow(path, missing=missing)
    return read_delimited(path, encoding=encoding, delimiter=delimiter, missing=missing)
