"""Finds the layers of an autograd graph whose task gradients are cheaper by their inputs and output gradients."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from bmtl.inference.balancing.geometry.layer_kinds import Convolution, Embedding, Layer, Linear, Use
from bmtl.inference.balancing.graph import nodes_upstream
from bmtl.inference.losses import TaskTerms

_TRANSPOSING = ("TBackward0", "TransposeBackward0")
_Reader = Callable[[Use, int], Layer | None]
_KINDS: dict[str, tuple[int, int | None, _Reader]] = {
    "AddmmBackward0": (2, 0, Linear.read),
    "MmBackward0": (1, None, Linear.read),
    "ConvolutionBackward0": (1, 2, Convolution.read),
    "EmbeddingBackward0": (0, None, Embedding.read),
}
"""Of an autograd node: which of its inputs is the weight, which the bias, and what makes a layer of it."""
_Users = dict[Any, list[tuple[Any, int]]]  # of a node: which nodes use its output, at which place


def known_layers(rows: TaskTerms | Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Layer]:
    """The layers among the parameters that are cheaper than autograd's gradient per task.

    Their weights serve nothing else in the graph, and all is in float32 or all in float64. Every other parameter (scales of
    normalisations, biases added elsewhere, weights drawn from a posterior, fused recurrent layers) is left to autograd.

    Args:
        rows: The K tasks' losses, in the graph.
        parameters: The shared parameters.
    """
    keys = {id(p) for p in parameters if p.dtype in (torch.float32, torch.float64)}
    users = _users(rows)
    leaves = [node for node in users if id(getattr(node, "variable", None)) in keys and node.variable.dim() > 1]
    found = (_layer_of(leaf, users, keys, len(rows)) for leaf in leaves)
    return [layer for layer in found if layer is not None]


def _users(rows: Iterable[Tensor]) -> _Users:
    users: _Users = {}
    seen: set[Any] = set()
    for row in rows:
        start = get_gradient_edge(row).node if row.requires_grad else None
        if start is None or start in seen:
            continue
        for node in nodes_upstream(start):
            if node in seen:
                continue
            seen.add(node)
            for place, (child, _) in enumerate(node.next_functions):
                if child is not None:
                    users.setdefault(child, []).append((node, place))
    return users


def _layer_of(leaf: Any, users: _Users, keys: set[int], tasks: int) -> Layer | None:
    """The layer of which a leaf is the weight."""
    nodes: dict[Any, bool] = {}
    queue: list[tuple[Any, bool]] = [(leaf, False)]
    while queue:
        at, turned = queue.pop()
        for user, place in users[at]:
            if user.name() in _TRANSPOSING and user in users:
                queue.append((user, not turned))
                continue
            kind = _KINDS.get(user.name())
            if kind is None or place != kind[0]:
                return None
            nodes[user] = turned
    readers = {_KINDS[node.name()][2] for node in nodes}
    if len(readers) != 1 or len(set(nodes.values())) != 1:
        return None
    (read,), (transposed,) = readers, set(nodes.values())
    return read(Use(leaf.variable, _bias(nodes, users, keys), transposed, tuple(nodes)), tasks)


def _bias(nodes: Iterable[Any], users: _Users, keys: set[int]) -> Tensor | None:
    """The bias of these nodes, if it is one parameter that serves nothing else; autograd has to see to any other."""
    leaves = set()
    for node in nodes:
        place = _KINDS[node.name()][1]
        leaves.add(None if place is None else node.next_functions[place][0])
    (leaf, *others) = leaves
    bias: Tensor | None = getattr(leaf, "variable", None)
    if others or bias is None or id(bias) not in keys or bias.dim() != 1:
        return None
    return bias if {user for user, _ in users[leaf]} == set(nodes) else None
