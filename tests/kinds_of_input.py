"""One table of features in every kind of input, so that what a program makes of them can be compared."""

from dataclasses import dataclass
from functools import singledispatch
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bmtl import inputs

WIDTH = 3


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Graphs:
    """Padded graphs: nodes ``(N, M, width)`` and which of them there are ``(N, M)``."""

    nodes: Tensor
    mask: Tensor


@inputs.parts.register
def _(x: Graphs) -> dict[str, Tensor]:
    return {"nodes": x.nodes, "mask": x.mask}


@inputs.with_parts.register
def _(x: Graphs, parts: dict[str, Tensor]) -> Graphs:
    return Graphs(**parts)


@dataclass(frozen=True)
class Ragged:
    """Sets of vectors of any size, a tensor ``(M_i, width)`` each: no tensor has a row for every datum."""

    sets: list[Tensor]


@inputs.count.register
def _(x: Ragged) -> int:
    return len(x.sets)


@inputs.take.register
def _(x: Ragged, rows: Tensor | slice) -> Ragged:
    return Ragged(x.sets[rows] if isinstance(rows, slice) else [x.sets[i] for i in rows.tolist()])


@inputs.to.register
def _(x: Ragged, device: Any = None, dtype: Any = None) -> Ragged:
    return Ragged([inputs.to(part, device, dtype) for part in x.sets])


def _as_graphs(x: Tensor) -> Graphs:
    nodes = torch.stack([x - 1, torch.ones_like(x), torch.full_like(x, 1e3)], dim=1)
    return Graphs(nodes, torch.tensor([True, True, False]).expand(len(x), 3))


def _as_ragged(x: Tensor) -> Ragged:
    return Ragged([row.repeat(1 + i % 3, 1) / (1 + i % 3) for i, row in enumerate(x)])


def _as_batch(x: Tensor) -> Any:
    from torch_geometric.data import Batch, Data

    sets = _as_ragged(x).sets
    return Batch.from_data_list([Data(x=part, edge_index=torch.zeros(2, 0, dtype=torch.int64)) for part in sets])


def _with_common(x: Tensor) -> inputs.Entities:
    """Rows that are alike have one entity."""
    return inputs.Entities(*x.unique(dim=0, return_inverse=True))


KINDS = {
    "tensor": lambda x: x,
    "dict": lambda x: {"drug": x[:, :1], "protein": x[:, 1:]},
    "named tuple": lambda x: Pair(x[:, :2], x[:, 2:]),
    "nested": lambda x: {"drug": Pair(x[:, :1], (x[:, 1:2],)), "protein": {"atoms": x[:, 2:]}},
    "graphs": _as_graphs,
    "ragged": _as_ragged,
    "entities": lambda x: inputs.Entities(x.flip(0), torch.arange(len(x)).flip(0)),
    "named entities": lambda x: {"left": _with_common(x[:, :1]), "right": _with_common(x[:, 1:])},
    "named graphs": lambda x: {"molecule": _as_ragged(x[:, :2]), "dose": x[:, 2:]},
}
"""A table ``(N, WIDTH)`` as each kind of input."""

GEOMETRIC = {"batch": _as_batch, "named batch": lambda x: {"graphs": _as_batch(x[:, :2]), "dose": x[:, 2:]}}
"""The same for PyTorch Geometric."""

OF_TENSORS = {name: KINDS[name] for name in ("tensor", "dict", "named tuple", "nested", "graphs")}
"""The kinds whose tensors have a row for every datum."""


@singledispatch
def features(x: Any) -> Tensor:
    """The table that inputs were made of, whatever they are, up to rounding."""
    found = torch.zeros(x.num_graphs, x.x.shape[1], dtype=x.x.dtype)
    return found.index_add(0, x.batch, x.x)


@features.register
def _(x: Tensor) -> Tensor:
    return x


@features.register(dict)
@features.register(tuple)
def _(x: Any) -> Tensor:
    return torch.cat([features(child) for child in (x.values() if isinstance(x, dict) else x)], dim=1)


@features.register
def _(x: Graphs) -> Tensor:
    return torch.where(x.mask[..., None], x.nodes, 0.0).sum(1)


@features.register
def _(x: inputs.Entities) -> Tensor:
    return features(x.rows())


@features.register
def _(x: Ragged) -> Tensor:
    return torch.stack([part.sum(0) for part in x.sets])


def table(rows: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Features ``(rows, WIDTH)``."""
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=dtype)
