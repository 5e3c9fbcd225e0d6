"""Any set with one or many tasks in an ``.npz`` file, such as features of your own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from bmtl.datasets.base import Kind, MultiTaskData, Scaling
from bmtl.datasets.files import Archive, own_path
from bmtl.datasets.many_tasks import assemble

SOURCE = "Write one with numpy.savez_compressed(PATH, X=..., y=..., task=...); a relative path is below `root`."


def read(
    path: str,
    root: str | Path | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
    task: str | None = None,
    names: str | None = None,
    classes: str | None = None,
    split: str | None = None,
    groups: str | None = None,
    unpack: bool = False,
    kind: Kind | None = None,
    drop: str | Sequence[str] = (),
    proportion: float | None = None,
    validation: float = 0.2,
    validation_from: Literal["train", "test"] = "train",
    seed: int = 0,
    scale: Scaling = "train",
    clip: float | None = None,
    units: str | Mapping[str, str] = "1",
) -> MultiTaskData:
    """A set from the arrays of one file.

    The options `x` to `groups` are names of arrays. By default inputs are ``X``, labels ``y`` or ``Y``, and the arrays
    ``task``, ``task_names``, ``classes``, ``groups`` and, if no `proportion` is given, ``split`` are used if the file has
    them.

    Args:
        path: Of the file: absolute, or below `root`; without `root`, below the working folder or ``BMTL_DATA``.
        root: Folder that a relative path starts from.
        x: Inputs ``(N, ...)``.
        y: Labels ``(N, K)``, a target a column; or ``(N,)``, with `task` telling whose label it is. Integers are classes,
            -1 where missing; floats are regressions, NaN where missing.
        task: Number or name of each row's task ``(N,)``.
        names: Names of the targets ``(K,)``.
        classes: Names of the classes ``(C,)``, the same for all targets.
        split: A fixed split ``(N,)``: 1 training, 0 test, -1 neither.
        groups: ``(N,)``: rows of one group, e.g. a molecule or a patient, are in one part.
        unpack: The inputs are bits, packed by ``numpy.packbits`` along axis 1.
        kind: ``"regression"`` makes a regression of integers; a number of classes makes classes of floats.
        drop: Targets to leave out.
        proportion: Of the training rows, validation included, where a split is drawn; see `many_tasks.assemble`.
        validation: Proportion of the rows named by `validation_from` that become the part ``"val"``; 0 for none.
        validation_from: ``"test"`` where there are too few training rows to spare any.
        seed: For what is drawn.
        scale: Rows to fit the scalers on.
        clip: Bound of the scaled inputs, in standard deviations.
        units: Of the regression targets, or a mapping target -> unit.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an array is missing, the arrays do not fit together, or an option is out of range.
    """
    archive = Archive(own_path(path, root, SOURCE))

    def array(name: str | None, *usual: str) -> np.ndarray | None:
        found = [name] if name is not None else [name for name in usual if name in archive]
        if len(found) > 1:
            raise ValueError(f"{archive.path} has the arrays {' and '.join(found)}. Say which is meant with `y`.")
        return archive.array(found[0]) if found else None

    inputs, labels = archive.array(x or "X"), array(y, "y", "Y")
    if labels is None:
        raise ValueError(
            f"{archive.path} has neither y nor Y; its arrays are: {', '.join(archive.names)}. Name one as `y`."
        )
    if unpack:
        if inputs.dtype != np.uint8 or inputs.ndim != 2:
            raise ValueError(f"Packed bits are uint8 of shape (N, bytes); got {inputs.dtype} of shape {inputs.shape}.")
        inputs = np.unpackbits(inputs, axis=1)
    task_names, class_names = array(names, "task_names"), array(classes, "classes")
    return assemble(
        Path(path).stem,
        inputs,
        labels,
        task=array(task, "task"),
        task_names=None if task_names is None else task_names.astype(str).tolist(),
        classes=None if class_names is None else class_names.astype(str).tolist(),
        kind=kind,
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
        citation=f"The file {archive.path.name}.",
    )
