"""What a batch of inputs can be: anything whose rows can be counted, indexed, split and moved to a device.

Four functions dispatch on the type of the inputs, and nothing else in bmtl asks for it:

    count(x)             number of rows
    take(x, rows)        the rows of these indices
    split(x, parts)      consecutive parts, in order
    to(x, device, dtype) the same on a device; only floating-point tensors change dtype

They know a tensor (rows first), a structure of inputs with equally many rows (a dict of named inputs, a tuple, a
NamedTuple, nested), and `PerTask`, in which each task has inputs of its own. A new kind of input registers itself:

    @inputs.count.register
    def _(x: MyGraphs) -> int: ...
"""

from collections.abc import Iterator, Mapping
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

Rows = Tensor | slice
"""Indices ``(B,)`` of rows, or a slice."""


class PerTask(Mapping[str, Any]):
    """Inputs of each task's own: a mapping task -> inputs, which may differ in their number of rows.

    A class of its own, so that a plain dict can mean one row's several inputs ("drug" and "protein").

    Args:
        by_task: Task -> inputs.

    Raises:
        ValueError: If there is no task.
    """

    def __init__(self, by_task: Mapping[str, Any]) -> None:
        if not by_task:
            raise ValueError("PerTask needs the inputs of one task at least, and none was given.")
        self._by_task = dict(by_task)

    def __getitem__(self, task: str) -> Any:
        return self._by_task[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_task)

    def __len__(self) -> int:
        return len(self._by_task)

    def __repr__(self) -> str:
        return f"PerTask({self._by_task!r})"

    def counts(self) -> dict[str, int]:
        """Number of rows of each task."""
        return {task: count(x) for task, x in self._by_task.items()}


# ---- count -------------------------------------------------------------------------------------------------------


@singledispatch
def count(x: Any) -> int:
    """Number of rows; of `PerTask`, those of the task with the most.

    Raises:
        TypeError: If the type is not known.
        ValueError: If the parts of a structure differ in their number of rows.
    """
    raise TypeError(_unknown(x))


@count.register
def _(x: Tensor) -> int:
    if not x.dim():
        raise ValueError("Inputs have one row per datum, and a tensor without a dimension was given.")
    return len(x)


@count.register
def _(x: PerTask) -> int:
    return max(x.counts().values())


@count.register(Mapping)
def _(x: Mapping[str, Any]) -> int:
    return _common_count({str(name): count(part) for name, part in x.items()})


@count.register
def _(x: tuple) -> int:
    return _common_count({str(i): count(part) for i, part in enumerate(x)})


def _common_count(counts: dict[str, int]) -> int:
    if not counts:
        raise ValueError("A structure of inputs has one part at least, and an empty one was given.")
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"The parts of a structure of inputs describe the same rows, and theirs differ in number: {counts}. Where each "
            "task has inputs of its own, give bmtl.inputs.PerTask({task: inputs})."
        )
    return next(iter(counts.values()))


# ---- take --------------------------------------------------------------------------------------------------------


@singledispatch
def take(x: Any, rows: Rows) -> Any:
    """The rows of these indices, of the same type as `x`.

    Of `PerTask`, every task's rows of these indices; where tasks are indexed differently, index each by itself.

    Args:
        x: Inputs.
        rows: Indices ``(B,)`` of type int64, or a slice.

    Raises:
        TypeError: If the type is not known.
    """
    raise TypeError(_unknown(x))


@take.register
def _(x: Tensor, rows: Rows) -> Tensor:
    return x[rows if isinstance(rows, slice) else rows.to(x.device)]


@take.register
def _(x: PerTask, rows: Rows) -> PerTask:
    return PerTask({task: take(part, rows) for task, part in x.items()})


@take.register(Mapping)
def _(x: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    return {name: take(part, rows) for name, part in x.items()}


@take.register
def _(x: tuple, rows: Rows) -> Any:
    return _rebuilt(x, [take(part, rows) for part in x])


# ---- to ----------------------------------------------------------------------------------------------------------


@singledispatch
def to(x: Any, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Any:
    """The same inputs on a device; `dtype` applies to floating-point tensors only.

    Raises:
        TypeError: If the type is not known.
    """
    raise TypeError(_unknown(x))


@to.register
def _(x: Tensor, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Tensor:
    return x.to(device=device, dtype=dtype if x.is_floating_point() else None)


@to.register
def _(x: PerTask, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> PerTask:
    return PerTask({task: to(part, device, dtype) for task, part in x.items()})


@to.register(Mapping)
def _(x: Mapping[str, Any], device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Any:
    return {name: to(part, device, dtype) for name, part in x.items()}


@to.register
def _(x: tuple, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Any:
    return _rebuilt(x, [to(part, device, dtype) for part in x])


# ---- split -------------------------------------------------------------------------------------------------------


@singledispatch
def split(x: Any, parts: int) -> list[Any]:
    """Consecutive parts of nearly equal size, in order; joined they are `x`.

    A kind of input needs no `split` of its own, `count` and `take` suffice. Of `PerTask`, each task is split by itself.

    Args:
        x: Inputs.
        parts: Number of parts, from 1 to the number of rows (of the task with the fewest).

    Raises:
        ValueError: If a part would be empty.
    """
    rows = count(x)
    if not 1 <= parts <= rows:
        raise ValueError(f"{rows} rows cannot be split into {parts} parts, each with a row at least.")
    # The first rows % parts parts have one row more, as torch.tensor_split has it.
    sizes = [rows // parts + (i < rows % parts) for i in range(parts)]
    starts = [sum(sizes[:i]) for i in range(parts)]
    return [take(x, slice(start, start + size)) for start, size in zip(starts, sizes, strict=True)]


@split.register
def _(x: PerTask, parts: int) -> list[PerTask]:
    by_task = {task: split(own, parts) for task, own in x.items()}
    return [PerTask({task: own[i] for task, own in by_task.items()}) for i in range(parts)]


def tensors(x: Any) -> Iterator[Tensor]:
    """The tensors that a tensor or a structure of inputs is made of, in order; of other kinds, none."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, Mapping):
        for part in x.values():
            yield from tensors(part)
    elif isinstance(x, tuple):
        for part in x:
            yield from tensors(part)


def _rebuilt(like: tuple[Any, ...], parts: list[Any]) -> Any:
    """A tuple or NamedTuple of the same type."""
    return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)


def _unknown(x: Any) -> str:
    return (
        f"Inputs are tensors, a structure of them (a dict, a tuple), bmtl.inputs.PerTask, or a type that is registered with "
        f"bmtl.inputs.count, take and to; {type(x).__name__} was given."
    )
