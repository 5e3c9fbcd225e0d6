"""Linear layers whose task gradients need not be formed: their products follow from inputs and output gradients.

A layer ``a W + b`` with inputs a ``(R, d_in)`` has the gradient ``a' delta_k`` of task k, for the loss's gradient delta_k
``(R, d_out)`` at its output. Products of the tasks' gradients are ``sum_rs (delta_kr' delta_ls) (a_r' a_s + 1)``, and their
combination is ``a' (sum_k alpha_k delta_k)``: one weight gradient for K, and K x R x d_out numbers in place of K x P.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from bmtl.inference.balancing.geometry.layers import kernel_products
from bmtl.inference.balancing.graph import nodes_upstream

_WORTH = 1.5  # how many times as many inputs as rows a layer must have
_TRANSPOSING = ("TBackward0", "TransposeBackward0")
_KINDS = {"AddmmBackward0": (2, 0, "_saved_mat1"), "MmBackward0": (1, None, "_saved_self")}
"""Of an autograd node: which of its inputs is the weight, which the bias, and what holds the layer's input."""


@dataclass(frozen=True)
class KernelLayer:
    """A linear layer, perhaps applied several times.

    Attributes:
        weight: The parameter.
        bias: The parameter, or None.
        transposed: Whether the weight is stored as ``(d_out, d_in)``.
        nodes: The autograd nodes that apply it.
        counts: How many rows each node has.
        inputs: What they apply it to, ``(R, d_in)`` in all.
    """

    weight: Tensor
    bias: Tensor | None
    transposed: bool
    nodes: tuple[Any, ...]
    counts: tuple[int, ...]
    inputs: Tensor

    @property
    def edges(self) -> list[GradientEdge]:
        """The outputs of the nodes."""
        return [GradientEdge(node, 0) for node in self.nodes]

    @property
    def parameters(self) -> list[Tensor]:
        """Weight and bias."""
        return [self.weight] if self.bias is None else [self.weight, self.bias]

    def joined(self, deltas: Sequence[Tensor | None]) -> Tensor | None:
        """Gradients at the nodes' outputs as one ``(R, d_out)``; None where all are."""
        given = [delta for delta in deltas if delta is not None]
        if not given:
            return None
        if len(deltas) == 1:
            return deltas[0]
        pairs = zip(deltas, self.counts, strict=True)
        return torch.cat([given[0].new_zeros(r, given[0].shape[1]) if d is None else d for d, r in pairs])

    def gram(self, deltas: Tensor) -> Tensor | None:
        """Products of the tasks' gradients ``(K, K)`` from deltas ``(K, R, d_out)``, float64; None if they cancel."""
        return kernel_products(self.inputs, deltas, self.bias is not None)

    def gradients(self, delta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The parameters with their gradients, from a delta ``(R, d_out)``."""
        delta = delta.to(self.inputs.dtype)
        weight = delta.T @ self.inputs if self.transposed else self.inputs.T @ delta
        return [(self.weight, weight), *([] if self.bias is None else [(self.bias, delta.sum(0))])]


def kernel_layers(rows: Iterable[Tensor], parameters: Sequence[Tensor]) -> list[KernelLayer]:
    """The linear layers among the parameters that are cheaper by their inputs and output gradients.

    Those are layers with more inputs than rows, in float32 or float64, whose parameters serve nothing else in the graph.

    Args:
        rows: The tasks' losses, in the graph.
        parameters: The shared parameters.
    """
    keys = {id(p) for p in parameters}
    users: dict[Any, list[tuple[Any, int]]] = {}  # of a node: which nodes use its output, at which place
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
    found = []
    for leaf in [node for node in users if id(getattr(node, "variable", None)) in keys and node.variable.dim() == 2]:
        layer = _layer_of(leaf, users, keys)
        if layer is not None:
            found.append(layer)
    return found


def _layer_of(leaf: Any, users: dict[Any, list[tuple[Any, int]]], keys: set[int]) -> KernelLayer | None:
    """The layer of which a leaf is the weight."""
    transposed: bool | None = None
    queue: list[tuple[Any, bool]] = [(leaf, False)]
    nodes: list[Any] = []
    while queue:
        at, turned = queue.pop()
        for user, place in users[at]:
            if user.name() in _TRANSPOSING and user in users:
                queue.append((user, not turned))
                continue
            kind = _KINDS.get(user.name())
            if kind is None or place != kind[0] or transposed not in (None, turned):
                return None
            if getattr(user, "_saved_alpha", 1) != 1 or getattr(user, "_saved_beta", 1) != 1:
                return None
            transposed = turned
            nodes.append(user)
    nodes = list(dict.fromkeys(nodes))
    biases = set()
    for node in nodes:
        at = _KINDS[node.name()][1]
        biases.add(None if at is None else node.next_functions[at][0])
    if len(biases) != 1 or transposed is None:
        return None
    (bias_leaf,) = biases
    weight, bias = leaf.variable, None
    if bias_leaf is not None:
        bias = getattr(bias_leaf, "variable", None)
        alone = {user for user, _ in users[bias_leaf]} == set(nodes)
        if bias is None or id(bias) not in keys or not alone or bias.shape != (weight.shape[0 if transposed else 1],):
            return None
    inputs = [getattr(node, _KINDS[node.name()][2]).detach() for node in nodes]
    dtypes = {t.dtype for t in (*inputs, weight)}
    if dtypes not in ({torch.float32}, {torch.float64}) or sum(map(len, inputs)) * _WORTH > inputs[0].shape[1]:
        return None
    counts = tuple(map(len, inputs))
    return KernelLayer(
        weight, bias, transposed, tuple(nodes), counts, inputs[0] if len(inputs) == 1 else torch.cat(inputs)
    )
