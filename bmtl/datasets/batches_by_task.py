"""A loader of tasks with their own inputs: equal numbers of every class, or of every task its share."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bmtl.datasets.batches import Batches
from bmtl.inputs import PerTask


class BatchesByTask(Batches):
    """Batches ``({task: x}, {task: y})`` of which each task has rows in every one.

    With `per_class` they hold equally many rows of each class of each task, drawn with replacement. It is the sampler
    of variational multi-task learning, for few and unequal numbers of labels: 4 rows of 10 classes of 4 tasks make
    batches of 160, however few there are. A task without a row of some class has batches that are smaller by it. In
    expectation each class of a task has equal weight, so the loss is not that of the training set where classes differ in
    size.

    With `total` an epoch is each row once, as if all tasks' rows were one table: each task deals its rows out over the
    epoch's batches, to a row more or less. A task with fewer rows than there are batches begins again, and batches are
    larger than `total` by its rows.

    With `batch_size` each task is shuffled as in `Batches`. Resuming is as there.

    Args:
        x: Each task's own inputs, e.g. of ``data.tensors_by_task("train")``.
        y: Task -> labels ``(N_task,)``; with `per_class` classes from 0, none missing.
        batch_size: Rows per task and batch.
        per_class: Rows per class, task and batch.
        total: Rows in a batch, of all tasks together.
        steps: Batches per epoch with `per_class`; the default is as many as the longest task has batches' worth of
            rows.
        shuffle: Draw a new order every epoch, rather than the rows' own; `per_class` always draws.
        seed: Seeds the generator that this loader owns. Torch's global one is neither read nor moved.

    Raises:
        TypeError: If x is not `PerTask`, y holds something else than tensors, or labels are not whole numbers.
        ValueError: If not exactly one of `batch_size`, `per_class` and `total` is given, one is not a positive whole
            number, there are no rows, their numbers differ, or a label is missing.
    """

    def __init__(
        self,
        x: PerTask,
        y: Mapping[str, Tensor],
        batch_size: int | None = None,
        *,
        per_class: int | None = None,
        total: int | None = None,
        steps: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        if not isinstance(x, PerTask):
            raise TypeError(
                f"x must be bmtl.inputs.PerTask, each task's own inputs; got {type(x).__name__}. Batches takes inputs "
                "that all tasks share."
            )
        if sum(given is not None for given in (batch_size, per_class, total)) != 1:
            raise ValueError(
                f"Give one of batch_size, per_class and total; got {batch_size!r}, {per_class!r} and {total!r}."
            )
        if steps is not None and per_class is None:
            raise ValueError("steps goes with per_class; otherwise the rows decide how long an epoch is.")
        for name, value in (("per_class", per_class), ("total", total), ("steps", steps)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a positive whole number; got {value!r}.")
        self.per_class, self.total, self.steps = per_class, total, steps
        super().__init__(x, y, 1 if batch_size is None else batch_size, shuffle, seed)
        if total is not None:
            self.steps = math.ceil(sum(self.num_rows.values()) / total)
        if per_class is None:
            return
        self._members = {task: _members(task, labels) for task, labels in self.y.items()}
        if steps is None:
            self.steps = max(
                math.ceil(self.num_rows[task] / (per_class * len(classes))) for task, classes in self._members.items()
            )

    def __len__(self) -> int:
        """Batches per epoch."""
        return super().__len__() if self.steps is None else self.steps

    def _sizes(self) -> dict[str, Any]:
        return {**super()._sizes(), "per_class": self.per_class, "total": self.total, "steps": self.steps}

    def _orders(self) -> dict[str, Tensor]:
        if self.per_class is not None:
            return {task: self._drawn(classes) for task, classes in self._members.items()}
        return super()._orders()

    def _order(self, rows: int) -> Tensor:
        if self.total is None:
            return super()._order(rows)
        passes = math.ceil(len(self) / rows)  # one, unless there are fewer rows than batches
        if not self.shuffle:
            return torch.arange(rows).repeat(passes)[: max(rows, len(self))]
        orders = [torch.randperm(rows, generator=self.generator) for _ in range(passes)]
        return torch.cat(orders)[: max(rows, len(self))]

    def _drawn(self, classes: list[Tensor]) -> Tensor:
        """Rows of one task for one epoch, (steps, C * per_class)."""
        size = (len(self), self.per_class or 0)
        drawn = [members[torch.randint(len(members), size, generator=self.generator)] for members in classes]
        return torch.cat(drawn, dim=1)

    def _batch(self, i: int, orders: Mapping[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        if self.per_class is None and self.total is None:
            return super()._batch(i, orders)
        if self.total is None:
            rows = {task: order[i] for task, order in orders.items()}
        else:
            rows = {task: _share(order, i, len(self)) for task, order in orders.items()}
        return self._take(rows)


def _share(order: Tensor, i: int, batches: int) -> Tensor:
    """The rows of all that batch i gets. Larger shares are spread over the epoch, and not the first ones'."""
    return order[i * len(order) // batches : (i + 1) * len(order) // batches]


def _members(task: str, labels: Tensor) -> list[Tensor]:
    """Rows of each class that there is."""
    if labels.is_floating_point() or labels.is_complex() or labels.ndim != 1:
        raise TypeError(
            f"per_class draws by class, so labels must be whole numbers of shape (N,); those of {task!r} are "
            f"{labels.dtype} of shape {tuple(labels.shape)}. Use batch_size for other targets."
        )
    if (labels < 0).any():
        raise ValueError(
            f"Task {task!r} has rows without a label. Take them from data.tensors_by_task, or leave them out."
        )
    host = labels.cpu()
    return [torch.nonzero(host == label).squeeze(1) for label in host.unique()]
