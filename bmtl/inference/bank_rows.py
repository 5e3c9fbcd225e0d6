"""The rows of a bank's networks, and the order in which they come."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bmtl import inputs
from bmtl.inputs import PerTask

Data = tuple[Any, Mapping[str, Tensor]]
"""Inputs of N rows that are made of tensors (`bmtl.inputs.parts`), and labels ``(N, ...)`` by target."""


class NetworkRows:
    """Each network's rows as places in one table; its last row has no label, the place of a network that has no row.

    Args:
        data: Inputs and labels of each network; what several networks have in common is stored once.

    Attributes:
        like: Inputs of the first network, whose structure all have.
        parts: Tensors of all rows' inputs, by name.
        labels: Labels by target.
        starts: Place of each network's first row.
        lengths: Number of each network's rows.

    Raises:
        TypeError: If inputs are not made of tensors, or each task has its own.
        ValueError: If networks have different targets or inputs of another form, or one has not as many labels as inputs,
            from 1.
    """

    def __init__(self, data: Sequence[Data]) -> None:
        starts: dict[tuple[int, ...], int] = {}  # by the tensors
        every = [_parts(x) for x, _ in data]
        stored: list[int] = []  # networks whose rows are in the table
        self.starts, self.lengths = [], []
        end, targets = 0, tuple(data[0][1])
        self.like = data[0][0]
        for i, ((x, y), own) in enumerate(zip(data, every, strict=True)):
            rows = inputs.count(x)
            if set(y) != set(targets) or not rows or any(len(values) != rows for values in y.values()):
                given = {name: len(values) for name, values in y.items()}
                raise ValueError(
                    f"Network {i} has {rows} rows of inputs and labels of {given}; expected as many, from 1, of the targets "
                    f"{list(targets)}."
                )
            if form(x) != form(self.like):
                raise ValueError(
                    f"The networks of a bank have inputs of one form, and network {i} has {form(x)} where network 0 has "
                    f"{form(self.like)} (name: shape of a row, type)."
                )
            key = (*map(id, own.values()), *(id(y[name]) for name in targets))
            if key not in starts:
                starts[key], end = end, end + rows
                stored.append(i)
            self.starts.append(starts[key])
            self.lengths.append(rows)
        # The last row is one that programs can take: of zeros they might divide by one.
        self.parts = {
            name: torch.cat([*(every[i][name] for i in stored), first[:1]]) for name, first in every[0].items()
        }
        self.labels = {}
        for name in targets:
            first = data[0][1][name]
            missing = torch.full_like(first[:1], torch.nan if first.is_floating_point() else -1)
            self.labels[name] = torch.cat([*(data[i][1][name] for i in stored), missing])

    @property
    def nowhere(self) -> int:
        """Place of the row without a label."""
        return len(next(iter(self.parts.values()))) - 1

    def places(self, orders: Sequence[Tensor]) -> Tensor:
        """Places of each network's rows in the given orders, ``(networks, rows of the longest)``."""
        places = torch.full((len(orders), max(self.lengths)), self.nowhere)
        for i, (order, start) in enumerate(zip(orders, self.starts, strict=True)):
            places[i, : len(order)] = order + start
        return places.to(next(iter(self.parts.values())).device)

    def at(self, places: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The inputs' tensors by name, and labels by target, of these places."""
        return tuple({name: values[places] for name, values in of.items()} for of in (self.parts, self.labels))  # type: ignore[return-value]


def _parts(x: Any) -> dict[str, Tensor]:
    """The tensors of a network's inputs."""
    if isinstance(x, PerTask):
        raise TypeError(
            "A bank's networks see one table of inputs, and each task's own (PerTask) were given. Give one table with "
            "missing labels, or train each network by BalancedSVI."
        )
    try:
        return inputs.parts(x)
    except TypeError as error:
        raise TypeError(
            f"A bank stacks the networks' inputs, and those of type {type(x).__name__} are not, or not all, tensors with a "
            f"row for each datum. Train each network by BalancedSVI. {error}"
        ) from error


def form(x: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape of a row and type of each tensor of inputs, by name."""
    return {name or "x": (tuple(part.shape[1:]), str(part.dtype)) for name, part in _parts(x).items()}


def order(rows: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """An epoch's order of rows, as `bmtl.datasets.Batches` draws it: once more where the last batch is not full."""
    drawn = torch.randperm(rows, generator=generator)
    if rows > batch_size and rows % batch_size:
        torch.randperm(rows, generator=generator)
    return drawn
