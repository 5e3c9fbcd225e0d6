"""What a method is given of a data set: one table of inputs for all targets, or each target's own rows."""

from collections.abc import Mapping

from torch import Tensor

from bmtl.datasets import Batches, BatchesByTask, MultiTaskData
from bmtl.experiments.methods import MODELS_BY_ROWS, Method, Shape
from bmtl.inputs import PerTask

Inputs = Tensor | Mapping[str, Tensor]
WHOLE = 1024  # rows in a batch that is not trained on


def own_rows(data: MultiTaskData, method: Method) -> bool:
    """Whether the method is trained on each target's own rows: its model has a use for them, and no row has two labels."""
    return method.model in MODELS_BY_ROWS and data.one_label_a_row


def tensors(data: MultiTaskData, method: Method, part: str) -> tuple[Inputs, dict[str, Tensor]]:
    """Inputs and labels of a part, ``data.tensors`` or ``data.tensors_by_task``.

    A target without a label in the part has no rows of its own there; then all targets have the table.
    """
    if own_rows(data, method) and len(data.rows_by_task(part)) == len(data.tasks):
        x, y = data.tensors_by_task(part)
        return PerTask(x), y
    return data.tensors(part)


def shape_of(data: MultiTaskData, method: Method) -> Shape:
    """What the method's model must know of the data; where it looks up training rows, those too."""
    x, y = tensors(data, method, "train")
    common = isinstance(x, Tensor)
    return Shape(
        inputs=data.x.shape[1],
        kinds=data.kinds,
        n_data=len(x) if common else {task: len(labels) for task, labels in y.items()},
        support=(x, y) if method.model in MODELS_BY_ROWS else None,
    )


def batches(x: Inputs, y: Mapping[str, Tensor], batch_size: int, seed: int) -> Batches:
    """Shuffled batches of `batch_size` rows, of all targets together; an epoch is each row once.

    A target with rows of its own, and fewer of them than the epoch has batches, has one in every batch all the same: its
    rows come again, and batches are larger by them (on School, with 128 rows a batch, by a quarter).
    """
    if isinstance(x, Tensor):
        return Batches(x, y, batch_size, seed=seed)
    return BatchesByTask(x, y, total=batch_size, seed=seed)


def once(x: Inputs, y: Mapping[str, Tensor]) -> Batches:
    """Batches of 1,024 rows in which each row comes once, in order; larger ones, if a target has too few rows for all."""
    if isinstance(x, Tensor):
        return Batches(x, y, WHOLE, shuffle=False)
    sizes = [len(part) for part in x.values()]
    return BatchesByTask(x, y, total=max(WHOLE, -(-sum(sizes) // min(sizes))), shuffle=False)
