"""Many tasks as a folder of CSV files, one a task."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from bmtl.datasets.base import MultiTaskData, Scaling
from bmtl.datasets.files import own_path
from bmtl.datasets.many_tasks import assemble

SOURCE = (
    "Write one file <task>.csv a task, each with the same columns in its first line; a relative path is below `root`."
)


def read(
    folder: str,
    root: str | Path | None = None,
    *,
    target: str = "y",
    split: str | None = None,
    groups: str | None = None,
    kind: Literal["regression", "classes"] | None = None,
    drop: str | Sequence[str] = (),
    proportion: float | None = None,
    validation: float = 0.2,
    validation_from: Literal["train", "test"] = "train",
    seed: int = 0,
    scale: Scaling = "train",
    clip: float | None = None,
    units: str | Mapping[str, str] = "1",
) -> MultiTaskData:
    """The files ``<task>.csv`` of a folder, in the order of their names.

    Args:
        folder: Absolute, or below `root`; without `root`, below the working folder or ``BMTL_DATA``.
        root: Folder that a relative path starts from.
        target: Column of the labels; an empty field is a missing one.
        split: Column of a fixed split: 1 training, 0 test, -1 neither.
        groups: Column of what must not be parted, e.g. a molecule or a patient. Every other column is a feature.
        kind: By default labels are regressions if all are numbers, and names of classes otherwise. Classes are common to
            all tasks, in the order of their names, or of their numbers.
        drop: Tasks to leave out.
        proportion: Of each task and class for training, validation included, where a split is drawn; 0.8 by default.
        validation: Proportion of the rows named by `validation_from` that become the part ``"val"``; 0 for none.
        validation_from: ``"test"`` where there are too few training rows to spare any.
        seed: For what is drawn.
        scale: Rows to fit the scalers on.
        clip: Bound of the scaled inputs, in standard deviations.
        units: Of the regression targets, or a mapping target -> unit.

    Raises:
        FileNotFoundError: If the folder has no CSV file.
        ValueError: If columns differ or are missing, a field is not a number, or an option is out of range.
    """
    if kind not in (None, "regression", "classes"):
        raise ValueError(f"kind is 'regression', 'classes' or None; got {kind!r}.")
    path = own_path(folder, root, SOURCE)
    files = sorted(path.glob("*.csv"))
    if not files:
        raise FileNotFoundError(f"There is no CSV file in {path}. {SOURCE}")
    tables = {file.stem: _columns(file) for file in files}
    columns = tables[files[0].stem]
    for file in files:
        table = tables[file.stem]
        if set(table) != set(columns):
            odd = sorted(set(table) ^ set(columns))
            raise ValueError(f"{file} and {files[0]} differ in the columns {', '.join(odd)}. Give all files the same.")
    for what, name in (("target", target), ("split", split), ("groups", groups)):
        if name is not None and name not in columns:
            raise ValueError(
                f"{files[0]} has no column {name!r} for `{what}`; its columns are: {', '.join(columns)}. Give the name of "
                f"one as `{what}`."
            )
    features = [name for name in columns if name not in (target, split, groups)]
    if not features:
        raise ValueError(f"{path} has no column of features; its columns are: {', '.join(columns)}.")

    def joined(name: str) -> list[str]:
        return [field for table in tables.values() for field in table[name]]

    labels, classes = _labels(joined(target), kind)
    sizes = [len(table[target]) for table in tables.values()]
    return assemble(
        path.name,
        np.stack([_numbers(joined(name), name) for name in features], axis=1),  # (N, D)
        labels,
        task=np.repeat(np.arange(len(tables)), sizes),
        task_names=list(tables),
        classes=classes,
        features=features,
        drop=drop,
        split=None if split is None else _numbers(joined(split), split),
        groups=None if groups is None else np.array(joined(groups)),
        proportion=proportion,
        validation=validation,
        validation_from=validation_from,
        seed=seed,
        scale=scale,
        clip=clip,
        units=units,
        citation=f"The CSV files of the folder {path.name}.",
    )


def _columns(file: Path) -> dict[str, list[str]]:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            header, *rows = reader
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{file} is not a CSV file with the columns' names in its first line.") from error
    ragged = [number for number, row in enumerate(rows, 2) if len(row) != len(header)]
    if ragged or not rows or len(set(header)) < len(header):
        fault = (
            f"row {ragged[0]} has another number" if ragged else "a name stands twice" if rows else "there are no rows"
        )
        raise ValueError(f"{file} must have one field for each of its columns {', '.join(header)}: {fault}.")
    return {name: list(fields) for name, fields in zip(header, zip(*rows, strict=True), strict=True)}


def _labels(fields: list[str], kind: str | None) -> tuple[np.ndarray, list[str] | None]:
    """Labels (N,), and the names of the classes if they are classes."""
    present = sorted({field for field in fields if field})
    try:
        numbers = {
            field: float(field) for field in present
        }  # rounds correctly everywhere: the fingerprint depends on it
    except ValueError:
        if kind == "regression":
            raise ValueError(f"Labels of a regression are numbers; got {present[-1]!r}.") from None
        kind = "classes"
    else:
        if kind != "classes":
            return np.array([numbers.get(field, np.nan) for field in fields]), None
        present.sort(key=numbers.__getitem__)
    number = {name: i for i, name in enumerate(present)}
    return np.array([number.get(field, -1) for field in fields]), present


def _numbers(fields: list[str], name: str) -> np.ndarray:
    try:
        return np.array([float(field) for field in fields])
    except ValueError as error:
        raise ValueError(f"The column {name!r} must hold numbers: {error}. Encode text first.") from error
