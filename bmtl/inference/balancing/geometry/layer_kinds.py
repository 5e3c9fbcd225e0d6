"""Layers whose task gradients need not be formed: their products follow from the layer's inputs and output gradients.

A layer ``a W + b`` with inputs a ``(R, d_in)`` has the gradient ``a' delta_k`` of task k, for the loss's gradient delta_k
``(R, d_out)`` at its output. Products of the tasks' gradients are ``sum_rs (delta_kr' delta_ls) (a_r' a_s + 1)``, and their
combination is ``a' (sum_k alpha_k delta_k)``: one weight gradient for K, and K x R x d_out numbers in place of K x P. A
convolution is such a layer on its patches, group by group, and an embedding one on indicators of its indices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn import functional as F

from bmtl.inference.balancing.geometry.layers import kernel_products
from bmtl.inference.balancing.gradients import gram_matrix

_TRAFFIC = 12.0  # a gradient that is formed is also written, copied and read, in multiplications per number
_MANY = 3  # applied so often, a layer's gradient is cheaper in one product than added up by autograd


@dataclass(frozen=True)
class Use:
    """How a weight is used in a graph.

    Attributes:
        weight: The parameter.
        bias: The parameter that the same nodes add, and nothing else uses, or None.
        transposed: Whether the nodes take the weight's transpose.
        nodes: The autograd nodes that apply it, all of one kind.
    """

    weight: Tensor
    bias: Tensor | None
    transposed: bool
    nodes: tuple[Any, ...]


class Layer:
    """A layer, perhaps applied several times.

    Attributes:
        use: Its weight, and where it is applied.
    """

    use: Use

    @property
    def parameters(self) -> list[Tensor]:
        """Weight and bias, or what is measured of them."""
        return [self.use.weight] if self.use.bias is None else [self.use.weight, self.use.bias]

    @property
    def edges(self) -> list[GradientEdge]:
        """The outputs of the nodes."""
        return [GradientEdge(node, 0) for node in self.use.nodes]

    def kept(self, deltas: Sequence[Tensor | None]) -> Tensor | None:
        """What is kept of a task's gradients at the outputs, linear in them; None where all are None."""
        raise NotImplementedError

    def gram(self, kept: Tensor) -> Tensor:
        """Products of the tasks' gradients ``(K, K)`` from what was kept of each ``(K, ...)``, float64 on the host."""
        raise NotImplementedError

    def gradients(self, kept: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The parameters with their gradients, from what was kept of a task, or a combination of that."""
        raise NotImplementedError


@dataclass(frozen=True)
class Matrix(Layer):
    """A matrix product with a weight, in one or several groups.

    Attributes:
        use: Its weight, and where it is applied.
        inputs: ``(groups, R, d_in)``, the rows of all uses.
        counts: How many rows each use has.
        formed: Whether each task's gradient is formed, by one product for all uses.
    """

    use: Use
    inputs: Tensor
    counts: tuple[int, ...]
    formed: bool

    @classmethod
    def chosen(cls, use: Use, parts: Sequence[Tensor], d_out: int, tasks: int) -> Matrix | None:
        """The cheaper way; None where that is autograd's.

        Counted are multiplications: of the tasks' gradients R d_in d_out and of their products K d_in d_out each, against
        R R d_out and K R d_out by rows, R R d_in once, and R d_in d_out for the update.
        """
        if {part.dtype for part in parts} != {use.weight.dtype}:
            return None
        counts = tuple(part.shape[1] for part in parts)
        d_in = parts[0].shape[2]
        rows = sum(counts)
        formed = tasks * d_in * d_out * (rows + tasks + _TRAFFIC)
        by_rows = tasks * rows * d_out * (0.7 * rows + tasks) + rows * rows * d_in + rows * d_in * d_out
        if formed <= by_rows and len(parts) < _MANY:
            return None
        return cls(use, torch.cat(list(parts), 1) if len(parts) > 1 else parts[0], counts, formed <= by_rows)

    def kept(self, deltas: Sequence[Tensor | None]) -> Tensor | None:
        arranged = [None if delta is None else self.arranged(delta) for delta in deltas]
        given = next((delta for delta in arranged if delta is not None), None)
        if given is None:
            return None
        groups, _, width = given.shape
        pairs = zip(arranged, self.counts, strict=True)
        joined = [given.new_zeros(groups, rows, width) if delta is None else delta for delta, rows in pairs]
        delta = joined[0] if len(joined) == 1 else torch.cat(joined, 1)
        if not self.formed:
            return delta
        return torch.cat([gradient.reshape(-1) for _, gradient in self._formed(delta)])

    def gram(self, kept: Tensor) -> Tensor:
        if self.formed:
            return gram_matrix([kept], len(kept))
        gram = torch.zeros(len(kept), len(kept), dtype=torch.float64)
        for group, a in enumerate(self.inputs):
            found = kernel_products(a, kept[:, group], self.use.bias is not None)
            if found is None:  # the rows' gradients nearly cancel: the sums themselves keep their digits
                formed = [self._formed(delta[group : group + 1], group) for delta in kept]
                parts = [torch.stack([row[i][1] for row in formed]) for i in range(len(formed[0]))]
                found = gram_matrix(parts, len(formed))
            gram += found
        return gram

    def gradients(self, kept: Tensor) -> list[tuple[Tensor, Tensor]]:
        if not self.formed:
            return self._formed(kept)
        parts = kept.split([p.numel() for p in self.parameters])
        return [(p, part.view(p.shape)) for p, part in zip(self.parameters, parts, strict=True)]

    def _formed(self, delta: Tensor, group: int | None = None) -> list[tuple[Tensor, Tensor]]:
        """The gradients from a delta ``(groups, R, d_out)``, of one group's part of the parameters where one is given."""
        inputs = self.inputs if group is None else self.inputs[group : group + 1]
        delta = delta.to(inputs.dtype)
        pairs = [(self.use.weight, self.weight_gradient(inputs, delta))]
        if self.use.bias is not None:
            pairs.append((self.use.bias, delta.sum(1).reshape(-1)))
        return pairs

    def arranged(self, delta: Tensor) -> Tensor:
        """A gradient at a node's output as ``(groups, R, d_out)``."""
        raise NotImplementedError

    def weight_gradient(self, inputs: Tensor, delta: Tensor) -> Tensor:
        """The gradient in the weight's shape, or the groups' part of it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Linear(Matrix):
    """``a W`` or ``a W + b``: linear layers, the projections of attention and of recurrent layers."""

    @classmethod
    def read(cls, use: Use, tasks: int) -> Layer | None:
        """The layer, where it is cheaper than autograd's gradients of K tasks."""
        for node in use.nodes:
            if getattr(node, "_saved_alpha", 1) != 1 or getattr(node, "_saved_beta", 1) != 1:
                return None
        names = {"AddmmBackward0": "_saved_mat1", "MmBackward0": "_saved_self"}
        parts = [getattr(node, names[node.name()]).detach()[None] for node in use.nodes]
        return cls.chosen(use, parts, use.weight.shape[0 if use.transposed else 1], tasks)

    def arranged(self, delta: Tensor) -> Tensor:
        return delta[None]

    def weight_gradient(self, inputs: Tensor, delta: Tensor) -> Tensor:
        return delta[0].T @ inputs[0] if self.use.transposed else inputs[0].T @ delta[0]


@dataclass(frozen=True)
class Convolution(Matrix):
    """A convolution of any number of dimensions, with strides, dilation, padding by zeros and groups."""

    @classmethod
    def read(cls, use: Use, tasks: int) -> Layer | None:
        """The layer, where its patches are longer than it has positions; otherwise autograd is cheaper."""
        weight, first = use.weight, use.nodes[0]
        if use.transposed or any(node._saved_transposed for node in use.nodes):
            return None
        groups = first._saved_groups
        if any(node._saved_groups != groups for node in use.nodes):
            return None
        positions = sum(_positions(node, weight.shape[2:]) for node in use.nodes)
        if positions > weight[0].numel():  # patches are not even looked at
            return None
        parts = [_patches(node, weight.shape[2:]) for node in use.nodes]
        return cls.chosen(use, parts, len(weight) // groups, tasks)

    def arranged(self, delta: Tensor) -> Tensor:
        groups = len(self.inputs)
        parts = delta.flatten(2).unflatten(1, (groups, -1))  # (B, groups, d_out, L)
        return parts.permute(1, 0, 3, 2).flatten(1, 2)

    def weight_gradient(self, inputs: Tensor, delta: Tensor) -> Tensor:
        return (delta.transpose(1, 2) @ inputs).reshape(-1, *self.use.weight.shape[1:])


@dataclass(frozen=True)
class Embedding(Layer):
    """A table of rows by index: of each task, the sums at the indices that the batch has.

    Attributes:
        use: Its weight, and where it is applied.
        rows: The distinct indices ``(U,)``.
        places: For each use, where its indices are among them.
        padding: Which of them has no gradient, if there is one.
    """

    use: Use
    rows: Tensor
    places: tuple[Tensor, ...]
    padding: int | None

    @classmethod
    def read(cls, use: Use, tasks: int) -> Layer | None:
        """The layer; None where gradients are sparse or divided by frequencies."""
        nodes = use.nodes
        paddings = {node._saved_padding_idx for node in nodes}
        if len(paddings) > 1 or any(node._saved_sparse or node._saved_scale_grad_by_freq for node in nodes):
            return None
        indices = [node._saved_indices.reshape(-1) for node in nodes]
        rows, places = torch.unique(torch.cat(indices), return_inverse=True)
        at = (rows == paddings.pop()).nonzero().flatten().tolist()
        return cls(use, rows, places.split([len(part) for part in indices]), at[0] if at else None)

    def kept(self, deltas: Sequence[Tensor | None]) -> Tensor | None:
        given = next((delta for delta in deltas if delta is not None), None)
        if given is None:
            return None
        sums = given.new_zeros(len(self.rows), given.shape[-1])
        for places, delta in zip(self.places, deltas, strict=True):
            if delta is not None:
                sums.index_add_(0, places, delta.reshape(len(places), -1))
        if self.padding is not None:
            sums[self.padding] = 0
        return sums

    def gram(self, kept: Tensor) -> Tensor:
        return gram_matrix([kept], len(kept))

    def gradients(self, kept: Tensor) -> list[tuple[Tensor, Tensor]]:
        gradient = kept.new_zeros(self.use.weight.shape)
        gradient[self.rows] = kept
        return [(self.use.weight, gradient)]


def _sizes(node: Any, kernel: Sequence[int]) -> list[int]:
    """Lengths of a convolution's output."""
    lengths = [length + 2 * pad for length, pad in zip(node._saved_input.shape[2:], node._saved_padding, strict=True)]
    each = zip(lengths, kernel, node._saved_dilation, node._saved_stride, strict=True)
    return [(length - dilation * (k - 1) - 1) // stride + 1 for length, k, dilation, stride in each]


def _positions(node: Any, kernel: Sequence[int]) -> int:
    """How many rows a convolution has."""
    return len(node._saved_input) * math.prod(_sizes(node, kernel))


def _patches(node: Any, kernel: Sequence[int]) -> Tensor:
    """What a convolution's weight is multiplied with: ``(groups, B L, d_in / groups * k)``."""
    x = node._saved_input.detach()
    x = F.pad(x, [pad for size in reversed(node._saved_padding) for pad in (size, size)]).contiguous()
    batch, channels, *steps = x.stride()
    strided = x.as_strided(
        (len(x), *_sizes(node, kernel), x.shape[1], *kernel),
        (batch, *map(mul, node._saved_stride, steps), channels, *map(mul, node._saved_dilation, steps)),
    )
    parts = strided.reshape(-1, x.shape[1], math.prod(kernel))
    return parts.unflatten(1, (node._saved_groups, -1)).transpose(0, 1).flatten(2)
