"""Many tasks in one table, each row of one task or labelled for several: what readers of arrays have in common."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from bmtl.datasets import checks
from bmtl.datasets.input_kind import Inputs
from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.tables.kinds import KindLike, labels_of_numbers
from bmtl.datasets.target_fitting import MOST_LABELS, Scaling, checked_targets, parts_of, units_of
from bmtl.targets import Family


def assemble(
    name: str,
    x: ArrayLike | Inputs,
    y: ArrayLike | Mapping[str, ArrayLike],
    *,
    task: np.ndarray | None = None,
    task_names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    features: Sequence[str] = (),
    kinds: KindLike | Mapping[str, KindLike] | None = None,
    drop: str | Sequence[str] = (),
    split: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    proportion: float | None = None,
    validation: float = 0.2,
    validation_from: Literal["train", "test"] = "train",
    seed: int = 0,
    scale: Scaling = "train",
    clip: float | None = None,
    units: str | Mapping[str, str] = "",
    reading: Mapping[str, Any] | None = None,
    citation: str = "",
    licence: str = "",
) -> MultiTaskData:
    """A data set from its arrays. A row without a label for any target is in no part.

    Args:
        name: What reports call it.
        x: Inputs ``(N, ...)``, or inputs of another kind.
        y: Labels ``(N, K)``, a target per column; ``(N,)``, with `task` saying whose label it is; or target -> labels,
            rows first.
        task: Name of each row's task, or its number, ``(N,)``; any numbers where there are no `task_names`.
        task_names: Of the targets, by number; the default is task_0, task_1 and so on.
        classes: Names of the classes by their number, the same for all targets.
        features: Names of the columns of x.
        kinds: A kind of all targets or target -> kind: a family, its name, or a number of classes. By default it follows
            from each target's own labels: numbers that are 0 and 1 are binary, as truth values are; other floats are
            real, NaN where missing; other integers are classes, -1 where missing. With `task`, all tasks have the same
            kind and classes.
        drop: Targets to leave out.
        split: ``(N,)``: 1 training, 0 test, -1 neither; or names of parts. Without it a split is drawn.
        groups: ``(N,)``: rows of one group, e.g. a molecule or a patient, are in one part.
        proportion: Of the training rows, validation included, where a split is drawn: of each task and class where a
            row has one label, of all rows otherwise, and of rows in whole groups where there are groups. 0.8 by
            default.
        validation: Proportion of the rows named by `validation_from` that become the part ``"val"``; 0 for none.
        validation_from: ``"test"`` where there are too few training rows to spare any.
        seed: For what is drawn.
        scale: Rows to fit the scalers on.
        clip: Bound of the scaled inputs, in standard deviations.
        units: Of the targets without classes, or a mapping target -> unit.
        reading: How files of new rows are read; see `Table`.
        citation: Where the data come from.
        licence: Under which terms.

    Raises:
        ValueError: If the arrays do not fit together or an option is out of range.
    """
    inputs = x if isinstance(x, Inputs) else checks.inputs(x)
    arrays = {name: np.asarray(values) for name, values in (y if isinstance(y, Mapping) else {"y": y}).items()}
    for what, array in (*arrays.items(), ("task", task), ("split", split), ("groups", groups)):
        if array is not None and (
            array.ndim == 0 or len(array) != len(inputs) or (array.ndim > 1 and what not in arrays)
        ):
            raise ValueError(f"{what} must have one entry per row of x, which has {len(inputs)}; got {array.shape}.")
    if isinstance(y, Mapping):
        labels = {t: labels_of_numbers(t, values, _kind_of(t, kinds), classes) for t, values in arrays.items()}
    elif task is None:
        labels = _by_column(arrays["y"], task_names, classes, kinds)
    else:
        labels = _by_row(arrays["y"], task, task_names, classes, kinds)
    left_out = [drop] if isinstance(drop, str) else list(drop)
    checks.names_of_targets("drop", left_out, labels)
    if isinstance(kinds, Mapping):
        checks.names_of_targets("kinds", kinds, labels)
    checked = checked_targets({t: own for t, own in labels.items() if t not in left_out}, len(inputs))
    rows = parts_of(
        checked,
        codes=split,
        proportion=proportion,
        validation=validation,
        validation_from=validation_from,
        seed=seed,
        groups=groups,
    )
    families = {target: family for target, (_, family) in checked.items()}
    return MultiTaskData.from_arrays(
        name,
        inputs,
        {target: values for target, (values, _) in checked.items()},
        rows,
        families=families,
        units=units_of(units, families),
        clip=clip,
        features=features,
        reading=reading,
        scaling=scale,
        citation=citation,
        licence=licence,
    )


Labels = dict[str, tuple[np.ndarray, Family]]


def _kind_of(target: str, kinds: KindLike | Mapping[str, KindLike] | None) -> KindLike | None:
    return kinds.get(target) if isinstance(kinds, Mapping) else kinds


def _by_column(
    y: np.ndarray,
    names: Sequence[str] | None,
    classes: Sequence[str] | None,
    kinds: KindLike | Mapping[str, KindLike] | None,
) -> Labels:
    """A target per column of ``y (N, K)``, each of its own kind."""
    table = y[:, None] if y.ndim == 1 else y
    if table.ndim != 2:
        raise ValueError(f"Labels must have the shape (N,) or (N, K); got {y.shape}.")
    names = _names(names, range(table.shape[1]))
    if len(names) != table.shape[1]:
        raise ValueError(f"There are {table.shape[1]} targets, but {len(names)} names: {', '.join(names)}.")
    return {
        target: labels_of_numbers(target, values, _kind_of(target, kinds), classes)
        for target, values in zip(names, table.T, strict=True)
    }


def _by_row(
    y: np.ndarray,
    task: np.ndarray,
    names: Sequence[str] | None,
    classes: Sequence[str] | None,
    kinds: KindLike | Mapping[str, KindLike] | None,
) -> Labels:
    """A target per task, with labels in the rows of that task alone."""
    if y.ndim != 1:
        raise ValueError(f"With task, y must hold one label a row, (N,); got {y.shape}.")
    if task.dtype.kind not in "iuU" or (task.dtype.kind == "i" and task.min() < 0):
        given = f"dtype {task.dtype}" if task.dtype.kind not in "iU" else f"{task.min()}"
        raise ValueError(f"task must hold numbers from 0, or names; got {given}.")
    found, number = np.unique(task, return_inverse=True)  # numbers need not be consecutive, such as schools' own
    if names is None:
        targets = [str(name) for name in found] if task.dtype.kind == "U" else _names(None, found.tolist())
    elif task.dtype.kind == "U":
        targets, number = _among(names, found, number)
    else:
        targets, number = _names(names, ()), task.astype(np.int64)
        if task.max() >= len(targets):
            raise ValueError(
                f"task must hold 0 to {len(targets) - 1}, one number per name; got {task.min()} to {task.max()}."
            )
    if len(targets) * len(y) > MOST_LABELS:
        raise ValueError(
            f"task has {len(targets):,} different values in {len(y):,} rows, and each would be a task. Is it the "
            "number of a row rather than of a task? Give another array as `task`."
        )
    labels: Labels = {}
    of_all = None if isinstance(kinds, Mapping) else labels_of_numbers(_name_of_all(targets), y, kinds, classes)
    for place, target in enumerate(targets):
        own = number == place
        if of_all is None:
            values, family = labels_of_numbers(target, y[own], _kind_of(target, kinds), classes)
        else:
            values, family = of_all[0][own], of_all[1]
        checked = family.check(target, values, int(own.sum()))
        placed = np.full((len(y), *checked.shape[1:]), -1 if checked.dtype.kind == "i" else np.nan, dtype=checked.dtype)
        placed[own] = checked
        labels[target] = placed, family
    return labels


def _name_of_all(targets: Sequence[str]) -> str:
    """How a message names labels that are those of every task."""
    return f"{targets[0]}, ..." if len(targets) > 1 else targets[0]


def _among(names: Sequence[str], found: np.ndarray, number: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Targets in the order of their names, where rows name their task."""
    targets = _names(names, ())
    unknown = [str(name) for name in found if str(name) not in targets]
    if unknown:
        raise ValueError(f"task names {unknown[0]!r}, which is not among the names {', '.join(targets)}.")
    return targets, np.array([targets.index(str(name)) for name in found])[number]


def _names(names: Sequence[str] | None, numbers: Sequence[int]) -> list[str]:
    found = [f"task_{number}" for number in numbers] if names is None else list(map(str, names))
    if len(set(found)) < len(found):
        raise ValueError(f"The targets' names must differ; got {', '.join(found)}.")
    return found
