"""Any set with one or many tasks in an ``.npz`` file, such as features of your own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from bmtl.datasets.files import Archive, own_path
from bmtl.datasets.many_tasks import assemble
from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.tables.kinds import KindLike
from bmtl.datasets.target_fitting import Scaling

SOURCE = "Write one with numpy.savez_compressed(PATH, X=..., y=..., task=...); a relative path is below `root`."


def read(
    path: str,
    root: str | Path | None = None,
    *,
    x: str | None = None,
    y: str | Sequence[str] | None = None,
    task: str | None = None,
    names: str | None = None,
    classes: str | None = None,
    features: str | None = None,
    split: str | None = None,
    groups: str | None = None,
    events: Mapping[str, str] | None = None,
    unpack: bool = False,
    kinds: KindLike | Mapping[str, KindLike] | None = None,
    drop: str | Sequence[str] = (),
    proportion: float | None = None,
    validation: float = 0.2,
    validation_from: Literal["train", "test"] = "train",
    seed: int = 0,
    scale: Scaling = "train",
    clip: float | None = None,
    units: str | Mapping[str, str] = "",
) -> MultiTaskData:
    """A set from the arrays of one file.

    The options `x` to `events` are names of arrays. By default inputs are ``X``, labels ``y`` or ``Y``, and the arrays
    ``task``, ``task_names``, ``classes``, ``features``, ``groups`` and, if no `proportion` is given, ``split`` are used
    if the file has them.

    Each target's kind follows from its own labels, if it is not given: numbers that are 0 and 1 are binary, as truth
    values are; other floats are real (NaN where missing), and other integers classes (-1 where missing). All columns of
    one array have its type: name several arrays as `y` for targets of several kinds.

    Args:
        path: Of the file: absolute, or below `root`; without `root`, below the working folder or ``BMTL_DATA``.
        root: Folder that a relative path starts from.
        x: Inputs ``(N, ...)``.
        y: Labels ``(N, K)``, a target per column; ``(N,)``, with `task` saying whose label it is; or several arrays, each
            a target by its own name (``(N, 2)`` intervals and ``(N, d)`` vectors where `kinds` says so).
        task: Number or name of each row's task ``(N,)``.
        names: Names of the targets ``(K,)``.
        classes: Names of the classes ``(C,)``, the same for all targets.
        features: Names of the columns of the inputs ``(D,)``: by them the columns of new tables are put in order.
        split: A fixed split ``(N,)``: 1 training, 0 test, -1 neither; or text: train, val, test, or empty.
        groups: ``(N,)``: rows of one group, e.g. a molecule or a patient, are in one part.
        events: Target of times -> array that is 1 where the event was observed at that time, 0 where it had not
            happened by then.
        unpack: The inputs are bits, packed by ``numpy.packbits`` along axis 1.
        kinds: A kind of all targets, or target:kind pairs: real, classes, binary, ordinal, count, time-to-event,
            vector, or a number of classes.
        drop: Targets to leave out.
        proportion: Of the training rows, validation included, where a split is drawn: of each task and class where a
            row has one label, of all rows otherwise, and of rows in whole groups where there are groups. 0.8 by
            default.
        validation: Proportion of the rows named by `validation_from` that become the part ``"val"``; 0 for none.
        validation_from: ``"test"`` where there are too few training rows to spare any.
        seed: For what is drawn.
        scale: Rows to fit the scalers on: ``train``, ``all``, or ``none`` for inputs and targets as they are.
        clip: Bound of the scaled inputs, in standard deviations.
        units: Of the targets without classes, or target:unit pairs.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an array is missing or damaged, the arrays do not fit together, or an option is out of range.
    """
    archive = Archive(own_path(path, root, SOURCE))

    def array(name: str | None, *usual: str) -> np.ndarray | None:
        found = [name] if name is not None else [name for name in usual if name in archive]
        if len(found) > 1:
            raise ValueError(f"{archive.path} has the arrays {' and '.join(found)}. Say which is meant with `y`.")
        return archive.array(found[0]) if found else None

    def texts(name: str | None, usual: str) -> list[str] | None:
        found = array(name, usual)
        return None if found is None else found.astype(str).tolist()

    inputs = archive.array(x or "X")
    if unpack:
        if inputs.dtype != np.uint8 or inputs.ndim != 2:
            raise ValueError(f"Packed bits are uint8 of shape (N, bytes); got {inputs.dtype} of shape {inputs.shape}.")
        inputs = np.unpackbits(inputs, axis=1)
    labels: np.ndarray | dict[str, np.ndarray] | None
    if events or (y is not None and not isinstance(y, str)):
        labels = {name: archive.array(name) for name in ([y] if isinstance(y, str) else y or events or ())}
    else:
        labels = array(y, "y", "Y")
    if labels is None:
        raise ValueError(
            f"{archive.path} has neither y nor Y; its arrays are: {', '.join(archive.names)}. Name one as `y`."
        )
    if events and isinstance(labels, dict):
        kinds = {**(kinds if isinstance(kinds, Mapping) else {}), **dict.fromkeys(events, "time-to-event")}
        for target, event in events.items():
            labels[target] = _intervals(target, labels.get(target, archive.array(target)), archive.array(event))
    of_columns = texts(features, "features")
    if features is None and of_columns is not None and inputs.shape[1:] != (len(of_columns),):
        of_columns = None  # an array of that name is of something else
    several = isinstance(labels, dict)
    return assemble(
        Path(path).stem,
        inputs,
        labels,
        task=None if several else array(task, "task"),
        task_names=None if several else texts(names, "task_names"),
        classes=texts(classes, "classes"),
        features=of_columns or (),
        kinds=kinds,
        drop=drop,
        split=array(split, *(["split"] if proportion is None else [])),
        groups=array(groups, "groups"),
        proportion=proportion,
        validation=validation,
        validation_from=validation_from,
        seed=seed,
        scale=scale,
        clip=clip,
        units=units,
        reading={"array": x or "X", "unpack": unpack},
        citation=f"The file {archive.path.name}.",
    )


def _intervals(target: str, times: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Times to an event ``(N, 2)``: equal ends where it was observed, an infinite upper end where not."""
    if times.ndim != 1 or times.shape != observed.shape:
        raise ValueError(
            f"The times of {target!r} and its events must have the shape (N,); got {times.shape} and {observed.shape}."
        )
    if not np.isin(observed[~np.isnan(times.astype(np.float64))], (0, 1)).all():
        raise ValueError(
            f"The events of {target!r} are 1 (observed) or 0 (not by that time); got {np.unique(observed)[:5]}."
        )
    times = times.astype(np.float64)
    return np.stack([times, np.where((observed == 1) | np.isnan(times), times, np.inf)], axis=1)
