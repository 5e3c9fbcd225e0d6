"""The rows of a bank's networks, and the order in which they come."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Data = tuple[Tensor, Mapping[str, Tensor]]
"""Inputs ``(N, ...)`` and labels ``(N,)`` by target."""


class Table:
    """Each network's rows as places in one table; its last row is empty and stands where a network has no row.

    Args:
        data: Inputs and labels of each network; what several networks have in common is stored once.

    Attributes:
        x: Inputs of all rows.
        y: Their labels by target; missing in the empty row.
        starts: Place of each network's first row.
        lengths: Number of each network's rows.

    Raises:
        ValueError: If networks have different targets, or one has not as many labels as inputs, from 1.
    """

    def __init__(self, data: Sequence[Data]) -> None:
        starts: dict[tuple[int, ...], int] = {}  # by the tensors
        parts: list[Data] = []
        self.starts, self.lengths = [], []
        end, targets = 0, tuple(data[0][1])
        for i, (x, y) in enumerate(data):
            if set(y) != set(targets) or not len(x) or any(len(labels) != len(x) for labels in y.values()):
                rows = {name: len(labels) for name, labels in y.items()}
                raise ValueError(
                    f"Network {i} has {len(x)} rows of inputs and labels of {rows}; expected as many, from 1, of the "
                    f"targets {list(targets)}."
                )
            key = (id(x), *(id(y[name]) for name in targets))
            if key not in starts:
                starts[key], end = end, end + len(x)
                parts.append((x, y))
            self.starts.append(starts[key])
            self.lengths.append(len(x))
        x = data[0][0]
        self.x = torch.cat([*(x for x, _ in parts), torch.zeros_like(x[:1])])
        self.y = {}
        for name in targets:
            empty = torch.full_like(data[0][1][name][:1], torch.nan if data[0][1][name].is_floating_point() else -1)
            self.y[name] = torch.cat([*(y[name] for _, y in parts), empty])

    @property
    def nowhere(self) -> int:
        """Place of the empty row."""
        return len(self.x) - 1

    def places(self, orders: Sequence[Tensor]) -> Tensor:
        """Places of each network's rows in the given orders, ``(networks, rows of the longest)``."""
        places = torch.full((len(orders), max(self.lengths)), self.nowhere)
        for i, (order, start) in enumerate(zip(orders, self.starts, strict=True)):
            places[i, : len(order)] = order + start
        return places.to(self.x.device)

    def at(self, places: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Inputs and labels of these places."""
        return self.x[places], {name: labels[places] for name, labels in self.y.items()}


def order(rows: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """An epoch's order of rows, as `bmtl.datasets.Batches` draws it: once more where the last batch is not full."""
    drawn = torch.randperm(rows, generator=generator)
    if rows > batch_size and rows % batch_size:
        torch.randperm(rows, generator=generator)
    return drawn
