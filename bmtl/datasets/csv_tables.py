"""Tables from files: one file whose columns are features and targets, or a folder of files, one per task."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bmtl.datasets import checks
from bmtl.datasets.files import own_path
from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.tables.column import RawTable, names_of, tokens_of
from bmtl.datasets.tables.date_fields import DateOrder
from bmtl.datasets.tables.kinds import KindLike
from bmtl.datasets.tables.labels import Labels, read_labels, with_common_classes
from bmtl.datasets.tables.number_fields import Decimal
from bmtl.datasets.tables.reading import ENDINGS, read_table
from bmtl.datasets.tables.roles import find_roles
from bmtl.datasets.tables.wide import TableOptions, decimals_of, labels_of, pieces_of_table
from bmtl.datasets.target_fitting import Scaling
from bmtl.targets.names import check_name

SOURCE = (
    "Give a file with the columns' names in its first row, or a folder with one file <task>.csv a task; a relative "
    "path is below `root`."
)


def read(
    path: str,
    root: str | Path | None = None,
    *,
    targets: str | Sequence[str] = (),
    ignore: str | Sequence[str] = (),
    split: str | None = None,
    groups: str | None = None,
    kinds: KindLike | Mapping[str, KindLike] | None = None,
    units: str | Mapping[str, str] = "",
    events: Mapping[str, str] | None = None,
    vectors: Mapping[str, str | Sequence[str]] | None = None,
    missing: str | float | Sequence[str | float] = (),
    decimal: Decimal | None = None,
    dates: DateOrder | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    drop: str | Sequence[str] = (),
    proportion: float | None = None,
    validation: float = 0.2,
    validation_from: Literal["train", "test"] = "train",
    seed: int = 0,
    scale: Scaling = "train",
    clip: float | None = 5.0,
) -> MultiTaskData:
    """A table from a file, or from a folder of files.

    Files are ``.csv`` and ``.tsv``, either as ``.gz`` too, and ``.parquet`` and ``.feather`` with the extra ``frames``.

    In a file each target is a column. In a folder each file is a task: ``rating.csv`` is the target ``rating``, whose
    labels are in the column `targets` (``y`` by default); all files have the same columns. Every column without another
    use is a feature.

    A target's kind, if it is not given: numbers are real, or binary if all are 0 or 1; text is binary if there are two,
    and classes if there are more. A field that is empty, NA, N/A, #N/A, nan, null, ? or - is missing; ``<3`` and
    ``>10`` are labels known up to an interval (censored). Any other text among numbers is an error that names file,
    row, column and value.

    A feature's kind, if it is not given: numbers are numbers (median of the training rows where missing, with an
    indicator), dates are days since 1970-01-01, other text is a category, with a place for what the training rows do
    not have.

    Medians, categories and scales are fitted on the training rows and kept with the model, so that predictions take
    files of the same form.

    Args:
        path: Of the file or folder: absolute, or below `root`; without `root`, below the working folder or
            ``BMTL_DATA``.
        root: Folder that a relative path starts from.
        targets: Columns of labels; of a folder the one in every file.
        ignore: Columns to leave out, such as names and notes.
        split: Column of a fixed split: train, val (valid, validation) and test in any case, or 1 training, 0 test, -1
            neither.
        groups: Column of what must not be parted, e.g. a molecule or a patient.
        kinds: A kind of all targets, or column:kind pairs. Of targets: real, classes, binary, ordinal, count,
            time-to-event, or a number of classes; with classes in their order as in ``ordinal(low,medium,high)``. Of
            features: number, date, category.
        units: Of the targets without classes, or target:unit pairs.
        events: Pairs target:column for times to an event; the column says whether the event was observed at that time
            (1, yes, true) or had not happened by then (0, no, false). Such a column is a target without being named there.
        vectors: Pairs name:column+column: several columns as one target under a joint distribution.
        missing: Further fields that are a missing value, such as ``-999``; ``-999.0`` then is one too.
        decimal: ``point`` or ``comma``, what separates decimals; found from the file where it is clear.
        dates: ``day-first`` or ``month-first``, for dates such as 04/03/2021 where no column says so.
        encoding: Of a text file that is neither UTF-8 nor marked, such as ``latin-1``.
        delimiter: Between fields: ``,``, ``;``, ``tab`` or ``|``; found from the file.
        drop: Tasks of a folder to leave out.
        proportion: Of the training rows, validation included, where a split is drawn: of each task and class where a
            row has one label, of all rows otherwise, and of rows in whole groups where there are groups. 0.8 by
            default.
        validation: Proportion of the rows named by `validation_from` that become the part ``"val"``, if the split has
            none; 0 for none.
        validation_from: ``"test"`` where there are too few training rows to spare any.
        seed: Seed of all random draws.
        scale: Rows to fit the scalers on: ``train``, ``all``, or ``none`` for features and targets as they are.
        clip: Bound of the scaled features, in standard deviations; ``inf`` for none.

    Raises:
        FileNotFoundError: If there is no such file, or the folder has none.
        ImportError: If a Parquet or Feather file is given without the extra.
        ValueError: If a file or field cannot be read, or an option is wrong; names file, row, column and value, and
            what to do.
    """
    found = own_path(path, root, SOURCE)
    reading: dict[str, Any] = {"encoding": encoding, "delimiter": delimiter, "missing": tokens_of(missing)}
    options = TableOptions(units, decimal, dates, proportion, validation, validation_from, seed, scale, clip, reading)
    if found.is_dir():
        if events or vectors:
            raise ValueError(
                f"events and vectors are of one file with several targets, and {found} is a folder. Put the targets in "
                "one file."
            )
        tables = _tables(found, names_of(drop), reading)
        return MultiTaskData(
            name=found.name,
            citation=f"The files of the folder {found.name}.",
            **_pieces_of_folder(tables, targets, ignore, split, groups, kinds, options),
        )
    if drop:
        raise ValueError(f"drop leaves out tasks of a folder, and {found} is a file. Leave columns out with ignore.")
    table = read_table(found, **reading)
    if not targets and not events and not vectors and "y" in table.columns:
        targets = "y"
    roles = find_roles(
        table,
        targets=targets,
        ignore=ignore,
        split=split,
        groups=groups,
        kinds=kinds,
        events=events,
        vectors=vectors,
    )
    decimals = decimals_of(table, roles, options)
    pieces = pieces_of_table(table, labels_of(table, roles, decimals), roles, decimals, options)
    return MultiTaskData(name=_stem(found), citation=f"The file {found.name}.", **pieces)


def _stem(file: Path) -> str:
    """The name of a file without its ending, ``.csv.gz`` being one."""
    return file.name[: -len(_ending(file))] if _ending(file) else file.stem


def _ending(file: Path) -> str:
    return next((e for e in sorted(ENDINGS, key=len, reverse=True) if file.name.lower().endswith(e)), "")


def _pieces_of_folder(
    tables: Mapping[str, RawTable],
    targets: str | Sequence[str],
    ignore: str | Sequence[str],
    split: str | None,
    groups: str | None,
    kinds: KindLike | Mapping[str, KindLike] | None,
    options: TableOptions,
) -> dict[str, Any]:
    """`pieces_of_table` of the files of a folder, each a target with its own rows."""
    label = names_of(targets) or ["y"]
    if len(label) > 1:
        raise ValueError(
            f"In a folder each file is a target, with labels in one column; got targets={','.join(label)}."
        )
    table = RawTable.joined(list(tables.values()))
    of_features: dict[str, KindLike] = {}
    if isinstance(kinds, Mapping):
        of_features = {name: kind for name, kind in kinds.items() if name in table.columns and name not in tables}
        checks.names_of_targets("kinds", [name for name in kinds if name not in of_features], tables)
    roles = find_roles(table, targets=label[0], ignore=ignore, split=split, groups=groups, kinds=of_features or None)
    ends = np.cumsum([len(own) for own in tables.values()]).tolist()
    places = {task: slice(end - len(own), end) for (task, own), end in zip(tables.items(), ends, strict=True)}
    # The other files' labels may be written in another way, so only this file's are evidence, with the features.
    decimals = decimals_of(table, replace(roles, targets={}), options)
    own: dict[str, Labels] = {}
    for task, rows in places.items():
        column = table.columns[label[0]].take(rows)
        kind = kinds.get(task) if isinstance(kinds, Mapping) else kinds
        own[task] = read_labels(task, column, kind, decimals.joined(column).style)
    labels = {task: _placed(found, places[task], len(table)) for task, found in with_common_classes(own).items()}
    return pieces_of_table(table, labels, roles, decimals, options)


def _placed(labels: Labels, rows: slice, num_rows: int) -> Labels:
    """Labels of some rows as those of all rows, missing in the others."""
    values = labels.values
    missing = -1 if values.dtype.kind == "i" else np.nan
    placed = np.full((num_rows, *values.shape[1:]), missing, dtype=values.dtype)
    placed[rows] = values
    return replace(labels, values=placed)


def _tables(folder: Path, drop: Sequence[str], reading: dict[str, Any]) -> dict[str, RawTable]:
    """Task -> its file, in the order of their names. Hidden files, such as macOS's ``._x.csv``, are not tasks."""
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if _ending(file) in ("", ".txt") or file.name.startswith(".") or not file.is_file():
            continue
        task = check_name("task", _stem(file))
        if task in files:
            raise ValueError(
                f"{folder} has two files for the task {task!r}: {files[task].name} and {file.name}. Keep one."
            )
        files[task] = file
    if not files:
        raise FileNotFoundError(f"There is no CSV file in {folder}. {SOURCE}")
    checks.names_of_targets("drop", drop, files)
    kept = {task: file for task, file in files.items() if task not in drop}
    if not kept:
        raise ValueError(f"No task of {folder} is left. Drop fewer.")
    return {task: read_table(file, **reading) for task, file in kept.items()}
