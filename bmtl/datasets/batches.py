"""A loader for data that fit in memory."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bmtl import inputs
from bmtl.inputs import PerTask


class Batches:
    """Batches ``(x, {task: y})`` by indexing, in an order that can be resumed.

    At this size a DataLoader's per-sample collate costs more than the training step. Where each task has its own
    inputs, each draws from its own shuffled order: an epoch is as long as the longest task, and a shorter one starts a
    new order whenever its rows are used up. A task's share of a batch is at most its number of rows.

    Where rows differ in size (`bmtl.inputs.sizes`), batches of a shuffled epoch have similar rows: a shuffled order is
    cut into pieces of 16 batches, each piece is sorted by size and cut into batches, and their order is drawn. What is left
    of an epoch is a smaller batch of random rows, the last.

    Iterate over one epoch at a time. `state_dict` may be taken between any two batches; a loader of the same data that
    loads it goes on with the very next batch.

    Args:
        x: Inputs of N rows, of any type that `bmtl.inputs` supports: a tensor, a structure of them, a registered type; or
            `bmtl.inputs.PerTask` where each task has its own.
        y: Task -> labels ``(N, ...)``, or ``(N_task, ...)`` for the rows of ``x[task]``.
        batch_size: Rows per batch (per task, where each task has its own inputs).
        shuffle: Draw a new order every epoch, rather than the rows' own.
        seed: Seeds the generator that this loader owns. Torch's global one is neither read nor moved.
        drop_last: Leave out the last batch of an epoch if it is smaller than the others.
        blocks: Number of each row's block ``(N,)``: blocks are shuffled, and rows of one come one after another, so that a
            batch is of few blocks. Not for `PerTask`.

    Raises:
        TypeError: If x is of a type that `bmtl.inputs` does not support, or y holds something else than tensors.
        ValueError: If there are no rows, the rows of x and y differ in number, or no batch would come out.
    """

    def __init__(
        self,
        x: Any,
        y: Mapping[str, Tensor],
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        *,
        drop_last: bool = False,
        blocks: Tensor | None = None,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be a positive whole number; got {batch_size!r}.")
        if not isinstance(y, Mapping):
            raise TypeError(f"y is a mapping from each task to its labels, {{task: labels}}; got {type(y).__name__}.")
        self.x = x
        self.y = dict(y)
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        self.num_rows = _rows(self.x, self.y)
        self._row_sizes = inputs.sizes(self.x) if shuffle else None
        self.blocks = blocks
        if blocks is not None and (isinstance(x, PerTask) or blocks.shape != (max(self.num_rows.values()),)):
            raise ValueError(
                f"blocks numbers the block of each of {max(self.num_rows.values())} rows of one table; got the shape "
                f"{tuple(blocks.shape)}."
            )
        if len(self) == 0:
            raise ValueError(
                f"The longest task has {max(self.num_rows.values())} rows, fewer than batch_size={batch_size}, and "
                "drop_last leaves nothing. Lower batch_size, or set drop_last=False."
            )
        self.generator = torch.Generator().manual_seed(seed)
        self._start = self.generator.get_state()  # the generator as it was before this epoch's order was drawn
        self._position = 0  # batches of this epoch that were handed out
        self._resume = False

    def __len__(self) -> int:
        """Batches per epoch."""
        longest = max(self.num_rows.values())
        return longest // self.batch_size if self.drop_last else math.ceil(longest / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        """One epoch, or what is left of the one whose state was loaded."""
        if self._resume:
            self._resume = False
            self.generator.set_state(self._start)
        else:
            self._start, self._position = self.generator.get_state(), 0
        # All of the epoch's randomness is drawn here, so that start and position alone are the loader's place.
        orders = self._orders()
        while self._position < len(self):
            i = self._position
            self._position += 1  # before the yield: what was handed out counts as done
            yield self._batch(i, orders)

    def state_dict(self) -> dict[str, Any]:
        """The loader's place: the generator, the batches handed out, and the sizes that they belong to."""
        done = self._position >= len(self)  # the next batch opens a new epoch
        return {
            "generator": self.generator.get_state() if done else self._start.clone(),
            "position": 0 if done else self._position,
            "sizes": self._sizes(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken: the next iteration yields the rest of that epoch.

        Raises:
            ValueError: If the state belongs to other data or another batch size, whose order would mean nothing here.
        """
        if state["sizes"] != self._sizes():
            raise ValueError(
                f"The saved order belongs to {state['sizes']}, but this loader has {self._sizes()}. Resume with the "
                "same data and batch size, or start a new run."
            )
        self._start = state["generator"].cpu().clone()
        self._position = state["position"]
        self._resume = True

    @property
    def place(self) -> tuple[Tensor, int]:
        """The generator's state before this epoch's order was drawn, and the batches that were handed out since."""
        return self._start, self._position

    def _sizes(self) -> dict[str, Any]:
        return {
            "rows": self.num_rows,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def _orders(self) -> dict[str, Tensor]:
        return {task: self._order(rows) for task, rows in self.num_rows.items()}

    def _order(self, rows: int) -> Tensor:
        """Rows of one task for one epoch, at least as many as are handed out."""
        share = min(self.batch_size, rows)
        passes = math.ceil(len(self) * share / rows)
        if self._row_sizes is not None:
            return like_sizes(self._row_sizes, self.batch_size, self.generator)
        if self.shuffle:
            return torch.cat([self._shuffled(rows) for _ in range(passes)])
        return torch.arange(rows).repeat(passes)

    def _shuffled(self, rows: int) -> Tensor:
        order = torch.randperm(rows, generator=self.generator)
        if self.blocks is None:
            return order
        _, number = torch.unique(self.blocks, return_inverse=True)
        turn = torch.randperm(int(number.max()) + 1, generator=self.generator)
        return order[torch.argsort(turn[number[order]], stable=True)]

    def _batch(self, i: int, orders: Mapping[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        longest = max(self.num_rows.values())
        size = min(self.batch_size, longest - i * self.batch_size)  # the last batch is what is left
        if not isinstance(self.x, PerTask):
            (order,) = orders.values()
            rows = order[i * self.batch_size :][:size]
            return inputs.take(self.x, rows), {task: inputs.take(labels, rows) for task, labels in self.y.items()}
        shares = {task: min(self.batch_size, self.num_rows[task]) for task in self.x}
        return self._take({task: orders[task][i * n :][: min(n, size)] for task, n in shares.items()})

    def _take(self, rows: Mapping[str, Tensor]) -> tuple[PerTask, dict[str, Tensor]]:
        """Each task's own rows."""
        x = PerTask({task: inputs.take(self.x[task], own) for task, own in rows.items()})
        return x, {task: inputs.take(self.y[task], own) for task, own in rows.items()}


PIECE = 16
"""Batches of a piece of the order that is sorted by size: more would make batches of one kind of rows only."""


def like_sizes(sizes: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    """An order ``(N,)`` in which rows of similar size are next to each other, so that batches cost little.

    Args:
        sizes: Of the rows ``(N,)``.
        batch_size: Rows in a batch; the N % batch_size rows at the end are of any size.
        generator: Draws the order.
    """
    order = torch.randperm(len(sizes), generator=generator)
    whole = len(order) // batch_size * batch_size
    sizes = sizes.to(order.device)
    pieces = [piece[sizes[piece].argsort(stable=True)] for piece in order[:whole].split(PIECE * batch_size)]
    batches = torch.cat([*pieces, order[:0]]).view(-1, batch_size)
    drawn = torch.randperm(len(batches), generator=generator)
    return torch.cat([batches[drawn].flatten(), order[whole:]])


def _rows(x: Any, y: Mapping[str, Tensor]) -> dict[str, int]:
    """Rows per task, under one name if the tasks share their inputs."""
    for name, labels in y.items():
        if not isinstance(labels, Tensor) or labels.ndim == 0:
            raise TypeError(f"y must hold tensors with a row dimension; {name!r} is {type(labels).__name__}.")
    if not y:
        raise ValueError("A loader needs at least one task; y is empty.")
    if isinstance(x, PerTask):
        rows = x.counts()
        if set(x) != set(y):
            raise ValueError(f"x has inputs for {sorted(x)}, y has labels for {sorted(y)}. Give both for every task.")
        unequal = {task: (rows[task], len(y[task])) for task in x if rows[task] != len(y[task])}
        if unequal:
            raise ValueError(f"Rows of inputs and labels differ: {unequal}. Give one label per row.")
    else:
        rows = {"rows": inputs.count(x)}
        wrong = {task: len(labels) for task, labels in y.items() if len(labels) != rows["rows"]}
        if wrong:
            raise ValueError(
                f"x has {rows['rows']} rows, but the labels of these tasks have {wrong}. Give one label per row."
            )
    empty = [task for task, count in rows.items() if count == 0]
    if empty:
        raise ValueError(
            f"There are no rows to load ({', '.join(empty)} has 0). Check the split, or leave the task out."
        )
    return rows
