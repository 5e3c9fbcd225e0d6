"""Rows of T tasks, with inputs in common or of their own, side by side in one tensor."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bmtl import inputs
from bmtl.inputs import PerTask
from bmtl.models.rows import check_inputs


class Rows:
    """One batch: how many rows each task has, and their places once padded to the longest.

    Args:
        x: Inputs of B rows for all tasks, or `PerTask` of tensors.
        names: The tasks.

    Raises:
        ValueError: If a task has no inputs, or `x` is a plain dict of the tasks.
    """

    def __init__(self, x: Any, names: tuple[str, ...]) -> None:
        check_inputs(x, names)
        self.names = names
        self.common = not isinstance(x, PerTask)
        self.inputs: dict[str, Any] = dict.fromkeys(names, x) if self.common else {name: x[name] for name in names}
        self.packed = x if self.common else torch.cat(list(self.inputs.values()))
        self.sizes = [inputs.count(part) for part in self.inputs.values()]

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """What was computed from `packed`, by task."""
        return (values,) * len(self.names) if self.common else values.split(self.sizes)

    def pad(self, parts: tuple[Tensor, ...], fill: float = 0.0) -> Tensor:
        """Values of each task as one tensor ``(T, B, ...)``, B the largest number of rows."""
        if self.common and all(part is parts[0] for part in parts):
            return parts[0].expand(len(parts), *parts[0].shape)
        if len(set(self.sizes)) == 1:
            return torch.stack(parts)
        return pad_sequence(list(parts), batch_first=True, padding_value=fill)

    def labels(self, y: Mapping[str, Tensor]) -> Tensor:
        """Labels as one tensor ``(T, B)``; what is missing, padding included, is NaN or -1.

        Raises:
            TypeError: If some are floats and others integers.
            ValueError: If a task has no labels, or another number of them than of inputs.
        """
        missing = [name for name in self.names if name not in y]
        if missing:
            raise ValueError(f"The batch has targets {sorted(y)}, and the program also has {missing}.")
        parts = tuple(y[name] for name in self.names)
        for name, part, size in zip(self.names, parts, self.sizes, strict=True):
            if part.shape != (size,):
                raise ValueError(
                    f"{name!r} has {size} rows of inputs, and labels of shape {tuple(part.shape)}; (B,) is expected."
                )
        if len({part.is_floating_point() for part in parts}) > 1:
            raise TypeError("Some labels are floats and others integers; give all tasks' labels as one kind.")
        return self.pad(parts, torch.nan if parts[0].is_floating_point() else -1)

    @contextmanager
    def plate(self, labels: Tensor, n_data: Sequence[int]) -> Iterator[None]:
        """The plate of the rows, scaled up to each task's number of data; rows whose label is missing are masked.

        Args:
            labels: ``(T, B)``.
            n_data: Of each task.
        """
        up = torch.tensor([n / max(size, 1) for n, size in zip(n_data, self.sizes, strict=True)], device=labels.device)
        seen = ~labels.isnan() if labels.is_floating_point() else labels != -1
        scaled, masked = poutine.scale(scale=up[:, None]), poutine.mask(mask=seen)  # type: ignore[call-overload]
        with pyro.plate("rows", max(self.sizes), dim=-1), scaled, masked:
            yield
