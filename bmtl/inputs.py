"""Batches of inputs: any type whose rows can be counted, indexed, split and moved to a device.

These functions dispatch on the type of the inputs; no other code in bmtl depends on it:

    count(x)             number of rows
    take(x, rows)        the rows of these indices
    to(x, device, dtype) the same on a device; only floating-point tensors change dtype
    split(x, parts)      consecutive parts, in order; `chunks` by size, `few` the first row
    sizes(x)             how large each row is, where a batch is padded to its largest; None for most kinds
    parts(x)             the tensors that x is made of, rows first, by name; `with_parts` puts others in their places

They support a tensor (rows first), a structure of inputs with equally many rows (a dict of named inputs, a tuple, a
NamedTuple, nested), `PerTask`, in which each task has its own inputs, `Entities`, which many rows have in common, and
PyTorch Geometric's ``Batch``, whose rows are its graphs. A new kind registers `count`, `take` and `to`:

    @inputs.count.register
    def _(x: MyGraphs) -> int: ...

A kind that is made of tensors with rows first (padded graphs and their mask) registers `parts` and `with_parts` instead,
and the others follow. A `Bank` and an attack on inputs need these two as well.
"""

import copy
import sys
from collections.abc import Iterator, Mapping
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

Rows = Tensor | slice
"""Indices ``(B,)`` of rows, or a slice."""


class PerTask(Mapping[str, Any]):
    """Separate inputs for each task: a mapping task -> inputs, which may differ in their number of rows.

    A separate class, so that a plain dict can hold the several inputs of one row ("drug" and "protein").

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


class Entities:
    """Inputs of rows that refer to entities, such as the drugs of drug-target pairs: a table, and a number for each row.

    A batch holds numbers alone and refers to the same table, so that rows with a common entity cost no copy of it, and a
    network can encode each entity of a batch once (`distinct`).

    Args:
        table: Inputs of M entities, of any type that this module supports.
        index: Each row's entity ``(B,)``, int64, from 0 to M - 1.

    Raises:
        ValueError: If `index` is not of that form, or refers to an entity that does not exist.
    """

    def __init__(self, table: Any, index: Tensor) -> None:
        if index.dim() != 1 or index.dtype != torch.int64:
            raise ValueError(f"index is int64 of shape (B,), and {index.dtype} of {tuple(index.shape)} was given.")
        size = count(table)
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
            raise ValueError(
                f"index numbers {size} entities from 0, and {int(index.min())} to {int(index.max())} was given."
            )
        self.table, self.index = table, index

    def distinct(self) -> tuple[Any, Tensor]:
        """The entities that occur, each once, and each row's place among them ``(B,)``."""
        there, place = torch.unique(self.index, return_inverse=True)
        return take(self.table, there), place

    def rows(self) -> Any:
        """Each row's entity, those that rows have in common repeated."""
        return take(self.table, self.index)

    def _of(self, table: Any, index: Tensor) -> "Entities":
        """The same of numbers that are known to be right."""
        new = object.__new__(type(self))
        new.table, new.index = table, index
        return new


# ---- parts -------------------------------------------------------------------------------------------------------


@singledispatch
def parts(x: Any) -> dict[str, Tensor]:
    """The tensors that inputs are made of, rows first, by name: "" for a tensor alone, "drug.atoms" in nested structures.

    Raises:
        TypeError: If the type is not known, or its rows are not those of its tensors.
        ValueError: If two tensors of a structure have one name.
    """
    raise TypeError(_unknown(x, "parts and with_parts"))


@parts.register
def _(x: Tensor) -> dict[str, Tensor]:
    return {"": x}


@parts.register(Mapping)
@parts.register(tuple)
def _(x: Mapping[str, Any] | tuple[Any, ...]) -> dict[str, Tensor]:
    named = [(_joined(name, inner), part) for name, child in _children(x) for inner, part in parts(child).items()]
    found = dict(named)
    if len(found) < len(named):
        raise ValueError(
            f"The parts of a structure of inputs need names that differ; got {[name for name, _ in named]}."
        )
    return found


@singledispatch
def with_parts(x: Any, parts: Mapping[str, Tensor]) -> Any:
    """Inputs of the same type as `x`, made of other tensors.

    Args:
        x: Inputs.
        parts: As `parts` gives them; any number of rows.

    Raises:
        TypeError: As `parts`.
    """
    raise TypeError(_unknown(x, "parts and with_parts"))


@with_parts.register
def _(x: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
    return parts[""]


@with_parts.register(Mapping)
@with_parts.register(tuple)
def _(x: Any, parts: Mapping[str, Tensor]) -> Any:
    return _rebuilt(x, [with_parts(child, _below(name, child, parts)) for name, child in _children(x)])


# ---- count -------------------------------------------------------------------------------------------------------


@singledispatch
def count(x: Any) -> int:
    """Number of rows; of `PerTask`, those of the task with the most.

    Raises:
        TypeError: If the type is not known.
        ValueError: If the parts of a structure differ in their number of rows.
    """
    if _is_late(x):
        return count(x)
    return _common_count({name: count(part) for name, part in _parts(x).items()})


@count.register
def _(x: Tensor) -> int:
    if not x.dim():
        raise ValueError("Inputs have one row per datum, and a tensor without a dimension was given.")
    return len(x)


@count.register
def _(x: PerTask) -> int:
    return max(x.counts().values())


@count.register(Mapping)
@count.register(tuple)
def _(x: Mapping[str, Any] | tuple[Any, ...]) -> int:
    return _common_count({name: count(child) for name, child in _children(x)})


@count.register
def _(x: Entities) -> int:
    return len(x.index)


def countable(x: Any) -> bool:
    """Whether `count` supports the type."""
    return any(of.dispatch(type(x)) is not of.dispatch(object) for of in (count, parts)) or _is_late(x)


def is_structure(x: Any) -> bool:
    """Whether inputs are a dict or tuple of others, and no kind of its own (`PerTask`, a class that registered itself)."""
    return isinstance(x, Mapping | tuple) and count.dispatch(type(x)) is count.dispatch(tuple)


# ---- take --------------------------------------------------------------------------------------------------------


@singledispatch
def take(x: Any, rows: Rows) -> Any:
    """The rows of these indices, of the same type as `x`.

    Of `PerTask`, every task's rows of these indices; where tasks are indexed differently, index each separately.

    Args:
        x: Inputs.
        rows: Indices ``(B,)`` of type int64, or a slice.

    Raises:
        TypeError: If the type is not known.
    """
    if _is_late(x):
        return take(x, rows)
    return with_parts(x, {name: take(part, rows) for name, part in _parts(x).items()})


@take.register
def _(x: Tensor, rows: Rows) -> Tensor:
    return x[rows if isinstance(rows, slice) else rows.to(x.device)]


@take.register(Mapping)
@take.register(tuple)
def _(x: Any, rows: Rows) -> Any:
    return _rebuilt(x, [take(child, rows) for _, child in _children(x)])


@take.register
def _(x: Entities, rows: Rows) -> Entities:
    return x._of(x.table, take(x.index, rows))


# ---- to ----------------------------------------------------------------------------------------------------------


@singledispatch
def to(x: Any, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Any:
    """The same inputs on a device; `dtype` applies to floating-point tensors only.

    Raises:
        TypeError: If the type is not known.
    """
    if _is_late(x):
        return to(x, device, dtype)
    return with_parts(x, {name: to(part, device, dtype) for name, part in _parts(x).items()})


@to.register
def _(x: Tensor, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Tensor:
    return x.to(device=device, dtype=dtype if x.is_floating_point() else None)


@to.register(Mapping)
@to.register(tuple)
def _(x: Any, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Any:
    return _rebuilt(x, [to(child, device, dtype) for _, child in _children(x)])


@to.register
def _(x: Entities, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Entities:
    if device is not None and torch.device(device).type != x.index.device.type:
        return x._of(*(to(part, device, dtype) for part in x.distinct()))  # only what the rows need is copied
    return x._of(to(x.table, device, dtype), to(x.index, device))


# ---- split -------------------------------------------------------------------------------------------------------


@singledispatch
def split(x: Any, parts: int) -> list[Any]:
    """Consecutive parts of nearly equal size, in order; joined they are `x`.

    A kind of input needs no `split` of its own, `count` and `take` suffice. Of `PerTask`, each task is split separately.

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


def chunks(x: Any, size: int | None = None) -> list[Any]:
    """Consecutive parts of at most `size` rows; all rows in one by default.

    Of `PerTask`, at most `size` rows of the task with the most. The others are split into as many parts, and so that each
    task has a row in each, parts are larger where a task has too few.

    Raises:
        ValueError: If there is no row, or a task without one.
    """
    counts = list(x.counts().values()) if isinstance(x, PerTask) else [count(x)]
    if not min(counts):
        raise ValueError(f"The inputs have no row: {x.counts() if isinstance(x, PerTask) else counts[0]}.")
    return split(x, min(-(-max(counts) // (size or max(counts))), *counts))


@singledispatch
def few(x: Any) -> Any:
    """The first row, or two copies of it where it is the only one: another number of rows than `x` has."""
    return take(x, slice(0, 1) if count(x) > 1 else torch.zeros(2, dtype=torch.int64))


@few.register
def _(x: PerTask) -> PerTask:
    return PerTask({task: few(own) for task, own in x.items()})


# ---- sizes -------------------------------------------------------------------------------------------------------


@singledispatch
def sizes(x: Any) -> Tensor | None:
    """The size of each row ``(N,)``, where rows are padded to the largest of a batch: such as the atoms of molecules.

    Batches of rows of similar size cost less. None, the default, for kinds whose rows all cost the same.
    """
    return None


# ---- structures --------------------------------------------------------------------------------------------------


def _children(x: Mapping[str, Any] | tuple[Any, ...]) -> list[tuple[str, Any]]:
    """What a structure directly consists of, by name: keys, fields of a NamedTuple, or positions."""
    if isinstance(x, Mapping):
        return [(str(name), child) for name, child in x.items()]
    return list(zip(getattr(x, "_fields", map(str, range(len(x)))), x, strict=True))


def _rebuilt(like: Mapping[str, Any] | tuple[Any, ...], children: list[Any]) -> Any:
    """A structure of the same kind: `PerTask`, a dict for any other mapping, a tuple or NamedTuple of the same type."""
    if isinstance(like, Mapping):
        named = dict(zip(like, children, strict=True))
        return PerTask(named) if isinstance(like, PerTask) else named
    return type(like)(*children) if hasattr(like, "_fields") else type(like)(children)


def _joined(name: str, inner: str) -> str:
    return f"{name}.{inner}" if inner else name


def _below(name: str, child: Any, parts_: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a structure's child, by their names in the child."""
    return {inner: parts_[_joined(name, inner)] for inner in parts(child)}


def _common_count(counts: dict[str, int]) -> int:
    if not counts:
        raise ValueError("A structure of inputs has one part at least, and an empty one was given.")
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"The parts of a structure of inputs describe the same rows, and theirs differ in number: {counts}. Where each "
            "task has inputs of its own, give bmtl.inputs.PerTask({task: inputs})."
        )
    return next(iter(counts.values()))


def _parts(x: Any) -> dict[str, Tensor]:
    """The parts of a kind that has registered nothing but them."""
    if parts.dispatch(type(x)) is parts.dispatch(object):
        raise TypeError(_unknown(x, "count, take and to"))
    return parts(x)


def _unknown(x: Any, functions: str) -> str:
    return (
        f"Inputs are tensors, a structure of them (a dict, a tuple), bmtl.inputs.PerTask, or a type that is registered with "
        f"bmtl.inputs.{functions}; {type(x).__name__} was given."
    )


# ---- PyTorch Geometric -------------------------------------------------------------------------------------------


def _is_late(x: Any) -> bool:
    """Whether `x` is a ``Batch`` of graphs that was not registered yet; it is afterwards.

    The package is not imported here: a ``Batch`` can only come from where it has been.
    """
    module = sys.modules.get("torch_geometric.data")
    if module is None or not isinstance(x, module.Batch) or count.dispatch(type(x)) is not count.dispatch(object):
        return False
    batch: Any = module.Batch

    def moved(x: Any, device: Any = None, dtype: Any = None) -> Any:
        return copy.copy(x).apply(lambda tensor: to(tensor, device, dtype))  # which sets the copy's own attributes

    count.register(batch, lambda x: int(x.num_graphs))
    take.register(batch, lambda x, rows: batch.from_data_list(x.index_select(rows)))
    to.register(batch, moved)
    return True
