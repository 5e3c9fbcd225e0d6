"""Many tasks in one table: each row of one task, or labelled for several. What the readers of such sets have in common."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from bmtl.datasets import checks, splits
from bmtl.datasets.base import Kind, MultiTaskData, Scaling


def assemble(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    *,
    task: np.ndarray | None = None,
    task_names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    features: Sequence[str] = (),
    kind: Kind | None = None,
    drop: str | Sequence[str] = (),
    split: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    proportion: float | None = None,
    validation: float = 0.2,
    validation_from: Literal["train", "test"] = "train",
    seed: int = 0,
    scale: Scaling = "train",
    clip: float | None = None,
    units: str | Mapping[str, str] = "1",
    citation: str = "",
    licence: str = "",
) -> MultiTaskData:
    """A data set from its arrays. A row without a label for any target is in no part.

    Args:
        name: What reports call it.
        x: Inputs ``(N, ...)``.
        y: Labels ``(N, K)``, a target a column; or ``(N,)``, with `task` telling whose label it is. Integers are classes,
            -1 where missing; floats are regressions, NaN where missing.
        task: Numbers from 0, or names, ``(N,)``.
        task_names: Of the targets, by number; the default is task_0, task_1 and so on.
        classes: Names of the classes, the same for all targets.
        features: Names of the columns of x.
        kind: ``"regression"`` makes a regression of integers, in which -1 is then a value; a number of classes makes
            classes of floats. The default goes by the type of y.
        drop: Targets to leave out.
        split: ``(N,)``: 1 training, 0 test, -1 neither. Without it a split is drawn.
        groups: ``(N,)``: rows of one group, e.g. a molecule or a patient, are in one part.
        proportion: Of the training rows, validation included, where a split is drawn: of each task and class where a row
            has one label, of all rows otherwise, and of rows in whole groups where there are groups. 0.8 by default.
        validation: Proportion of the rows named by `validation_from` that become the part ``"val"``; 0 for none.
        validation_from: ``"test"`` where there are too few training rows to spare any.
        seed: For what is drawn.
        scale: Rows to fit the scalers on.
        clip: Bound of the scaled inputs, in standard deviations.
        units: Of the regression targets, or a mapping target -> unit.
        citation: Where the data come from.
        licence: Under which terms.

    Raises:
        ValueError: If the arrays do not fit together or an option is out of range.
    """
    y = np.asarray(y)
    if y.dtype.kind == "b":
        y = y.astype(np.int64)
    if y.dtype.kind not in "iuf":
        raise ValueError(
            f"Labels must be numbers; got dtype {y.dtype}. Number the classes from 0 and name them in classes."
        )
    for what, array in (("y", y), ("task", task), ("split", split), ("groups", groups)):
        if array is not None and (array.ndim == 0 or len(array) != len(x) or (array.ndim > 1 and what != "y")):
            raise ValueError(f"{what} must have one entry per row of x, which has {len(x)}; got {array.shape}.")
    if split is not None and proportion is not None:
        raise ValueError(
            f"Give either a split or the proportion of one to draw; got both, {proportion} being the latter."
        )
    if kind is None:
        kind = "regression" if y.dtype.kind == "f" else _number_of_classes(y, classes)
    targets = _columns(y, task, task_names, kind)
    left_out = [drop] if isinstance(drop, str) else list(drop)
    unknown = [target for target in left_out if target not in targets]
    if unknown:
        raise ValueError(f"Cannot drop {unknown[0]!r}: the targets are {', '.join(targets)}.")
    targets = {target: values for target, values in targets.items() if target not in left_out}
    kinds = dict.fromkeys(targets, kind)
    checked = [checks.target(target, values, kinds[target], len(x)) for target, values in targets.items()]
    if not checked:
        raise ValueError(f"No target is left of {name!r}. Drop fewer.")
    labelled = np.any([checks.labelled(values) for values in checked], axis=0)  # (N,)
    rows = splits.parts(
        np.flatnonzero(labelled),
        codes=split,
        proportion=0.8 if proportion is None else proportion,
        validation=validation,
        validation_from=validation_from,
        seed=seed,
        strata=_strata(checked),
        groups=groups,
    )
    regressions = list(targets) if kind == "regression" else []
    return MultiTaskData.from_arrays(
        name,
        x,
        targets,
        rows,
        kinds=kinds,
        units=dict.fromkeys(regressions, units) if isinstance(units, str) else units,
        clip=clip,
        classes=dict.fromkeys(targets, classes) if classes is not None and kind != "regression" else None,
        features=features,
        scaling=scale,
        citation=citation,
        licence=licence,
    )


def _number_of_classes(y: np.ndarray, classes: Sequence[str] | None) -> int:
    number = len(classes) if classes is not None else max(2, int(y.max(initial=0)) + 1)
    if number > len(y):
        raise ValueError(
            f"Whole labels are classes, and {number} are more than the {len(y)} rows. Number classes from 0, or give "
            "kind='regression'."
        )
    return number


def _columns(y: np.ndarray, task: np.ndarray | None, names: Sequence[str] | None, kind: Kind) -> dict[str, np.ndarray]:
    """Target -> labels (N,)."""
    if task is not None:
        if y.ndim != 1:
            raise ValueError(f"With task, y must hold one label a row, (N,); got {y.shape}.")
        return _by_row(y, task, names, kind)
    table = y[:, None] if y.ndim == 1 else y
    if table.ndim != 2:
        raise ValueError(f"Labels must have the shape (N,) or (N, K); got {y.shape}.")
    names = _names(names, table.shape[1])
    if len(names) != table.shape[1]:
        raise ValueError(f"There are {table.shape[1]} targets, but {len(names)} names: {', '.join(names)}.")
    return dict(zip(names, table.T, strict=True))


def _by_row(y: np.ndarray, task: np.ndarray, names: Sequence[str] | None, kind: Kind) -> dict[str, np.ndarray]:
    if task.dtype.kind == "U":
        found, task = np.unique(task, return_inverse=True)
        names = found.tolist() if names is None else names
    if task.dtype.kind not in "iu":
        raise ValueError(f"task must hold numbers from 0, or names; got dtype {task.dtype}.")
    names = _names(names, int(task.max()) + 1)
    if task.min() < 0 or task.max() >= len(names):
        raise ValueError(
            f"task must hold 0 to {len(names) - 1}, one number per name; got {task.min()} to {task.max()}."
        )
    missing = np.nan if kind == "regression" else -1
    labels = y.astype(np.float64) if kind == "regression" or y.dtype.kind == "f" else y.astype(np.int64)
    return {target: np.where(task == number, labels, missing) for number, target in enumerate(names)}


def _names(names: Sequence[str] | None, number: int) -> list[str]:
    found = [f"task_{k}" for k in range(number)] if names is None else list(names)
    if len(set(found)) < len(found):
        raise ValueError(f"The targets' names must differ; got {', '.join(found)}.")
    return found


def _strata(targets: Sequence[np.ndarray]) -> np.ndarray | None:
    """Task and class of each row, if every row has one label."""
    labelled = np.stack([checks.labelled(values) for values in targets])  # (K, N)
    if (labelled.sum(axis=0) > 1).any():
        return None
    strata = np.zeros(labelled.shape[1], dtype=np.int64)
    for number, (values, mine) in enumerate(zip(targets, labelled, strict=True)):
        label = values[mine] if values.dtype.kind == "i" else 0
        strata[mine] = number + len(targets) * label
    return strata
