"""Finds the last linear maps of an autograd graph, and the Gram matrix of the tasks' gradients of their weights."""

import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from bmtl.inference import distributed
from bmtl.inference.balancing.gradients import exact, gram_matrix, in_range, real_entries
from bmtl.inference.balancing.graph import nodes_upstream

Edge = tuple[Any, int]  # an autograd node, and which of its outputs
Deltas = Sequence[Sequence[Tensor | None]]  # K x marks: gradients at the marked tensors


class _Kind(NamedTuple):
    """An autograd node of a linear map."""

    weights: tuple[int, ...]  # which of its inputs may be the weight, the usual one first
    bias: int | None
    saved: str | None  # attribute that holds the map's input (R, d_in), if the weight is the usual one


_KINDS = {
    "AddmmBackward0": _Kind((2, 1), 0, "_saved_mat1"),
    "MmBackward0": _Kind((1, 0), None, "_saved_self"),
    "BmmBackward0": _Kind((1, 0), None, None),
    "LinearBackward0": _Kind((1,), 2, None),
    "ConvolutionBackward0": _Kind((1,), 2, None),
}
_NO_ROWS = (
    "'last-layer(cross=True)' takes the examples apart, so the last shared layer must be one linear layer whose rows are "
    "the examples: {}. Use 'full(cross=True)'."
)
_TRANSPOSING = {"TBackward0", "TransposeBackward0", "PermuteBackward0"}
_VIEWING = {*_TRANSPOSING, "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "UnsqueezeBackward0"}
# Each output depends on one input, in the same place counted row by row, where nothing but that input has a gradient.
_ELEMENTWISE = {
    *("ReluBackward0", "LeakyReluBackward0", "EluBackward0", "GeluBackward0", "SiluBackward0", "MishBackward0"),
    *("TanhBackward0", "SigmoidBackward0", "SoftplusBackward0", "HardtanhBackward0"),
    *("MulBackward0", "NativeDropoutBackward0"),  # dropout
    *("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0"),
}


# A tensor of several parts, each with a layer of its own: next to each other, or written into places of one.
_JOINING = {"CatBackward0", "StackBackward0", "torch::autograd::CopySlices", "IndexPutBackward0", "IndexCopyBackward0"}


_CHUNK = 1 << 22  # numbers in a chunk of tasks' gradients


@dataclass
class Layer:
    """A weight, and where it is applied: for each marked tensor (by position) the nodes of its linear maps."""

    weight: Edge
    uses: dict[int, list[Any]]

    @property
    def nodes(self) -> list[Any]:
        """All the linear maps with this weight."""
        return [node for nodes in self.uses.values() for node in nodes]


def last_layers(tensors: Sequence[Tensor]) -> list[Layer]:
    """The weights nearest upstream of each of the marked tensors.

    Of a tensor that is joined from several, as two networks' outputs next to each other are, they are those of each part:
    one of them alone would hide what the tasks' gradients are in the other. A weight is a parameter or a tensor drawn from
    parameters (a Bayesian layer). Several marks may share it (a trunk applied to each task's own input), and one mark may
    hold it several times (a recurrent or a Siamese trunk); a weight redrawn for each mark is another weight.

    Raises:
        ValueError: If no linear map with a trainable weight lies upstream of a mark.
    """
    layers: dict[Edge, Layer] = {}
    for h in tensors:
        if h.requires_grad:
            for edge in _nearest_weights(h):
                layers.setdefault(edge, Layer(edge, {}))
    for j, h in enumerate(tensors):
        for node in nodes_upstream(h):
            for edge in _operands(node):
                if edge in layers:
                    layers[edge].uses.setdefault(j, []).append(node)
    return list(layers.values())


def layers_gram(tensors: Sequence[Tensor], deltas: Deltas) -> Tensor:
    """Gram matrix ``(K, K)`` of the tasks' gradients of the last layers, float64 on the host.

    Of several processes, the gradients are averaged first, and so are always formed: the kernel formula would need every
    process's rows.

    Args:
        tensors: The marked tensors.
        deltas: Each task's gradients there.
    """
    size, layers = len(deltas), last_layers(tensors)
    gram = torch.zeros(size, size, dtype=torch.float64)
    biases = [_biases(layer) for layer in layers]
    common = {edge for edge, count in Counter(edge for found in biases for edge in found).items() if count > 1}
    formed = list(common)  # whose gradients are formed: what two layers share is no matter of one
    for layer, found in zip(layers, biases, strict=True):
        own = [edge for edge in found if edge not in common]
        one_bias = len(found) < 2 and distributed.world_size() == 1
        part = _kernel_gram(layer, found, bool(own), tensors, deltas) if one_bias else None
        if part is None:
            formed += [layer.weight, *own]
        else:
            gram += part
    return gram + _gradients_gram(formed, tensors, deltas) if formed else gram


def own_rows_gram(tensors: Sequence[Tensor], deltas: Deltas) -> tuple[Tensor, int]:
    """The part of `layers_gram` in which each example meets itself, and the number of examples R.

    ``C_kl = sum_r (delta_kr' delta_lr) (|a_r|^2 + 1)``, float64 on the host, for one linear layer applied once, whose rows
    are the examples.

    Raises:
        ValueError: For anything else.
    """
    live = [j for j, h in enumerate(tensors) if h.requires_grad and any(row[j] is not None for row in deltas)]
    layers = last_layers([tensors[j] for j in live])
    biases = [_biases(layer) for layer in layers]
    if (
        len(live) != 1
        or len(layers) != 1
        or len(layers[0].nodes) != 1
        or len(biases[0]) > 1
        or not _is_affine(layers[0].nodes[0], layers[0].weight, biases[0])
    ):
        raise ValueError(_NO_ROWS.format("there are several, or it is not one plain x @ W + b"))
    (j,), node = live, layers[0].nodes[0]
    a = getattr(node, str(_KINDS[node.name()].saved)).detach()
    h = tensors[j]
    if h.dim() == 0 or len(h) != len(a):
        raise ValueError(_NO_ROWS.format(f"it has {len(a)} rows, and the marked tensor is {tuple(h.shape)}"))
    delta = _output_gradients(h, layers[0].uses[0], [row[j] for row in deltas])
    if a.is_complex() or delta.is_complex():
        raise ValueError(_NO_ROWS.format("its weight is complex"))
    delta = delta.double()  # (K, R, d_out)
    squares = a.double().square().sum(dim=1) + float(bool(biases[0]))
    weighted = delta * squares[:, None]
    return (weighted.flatten(1) @ delta.flatten(1).T).cpu(), len(a)


def _gradients_gram(edges: list[Edge], tensors: Sequence[Tensor], deltas: Deltas) -> Tensor:
    """The same of any weights, whose gradients are formed."""
    inputs = [GradientEdge(*edge) for edge in edges]
    rows: list[Sequence[Tensor | None]] = []
    for row in deltas:
        used = [(h, delta) for h, delta in zip(tensors, row, strict=True) if delta is not None and h.requires_grad]
        if used:
            roots, gradients = zip(*used, strict=True)
            rows.append(torch.autograd.grad(roots, inputs, gradients, retain_graph=True, allow_unused=True))
        else:
            rows.append([None] * len(inputs))
    columns = zip(*rows, strict=True)
    if distributed.world_size() > 1:
        return _averaged_gram([_stack(column, edge) for column, edge in zip(columns, edges, strict=True)], len(rows))
    return gram_matrix([_stack(column, edge) for column, edge in zip(columns, edges, strict=True)], len(rows))


def _averaged_gram(parts: list[Tensor], size: int) -> Tensor:
    """Gram matrix of the gradients' means over the processes."""
    distributed.check_same(
        [len(parts), sum(part.numel() for part in parts)],
        "The processes that train together have different last shared layers in this step. Let every process mark the "
        "output of the same layers, bmtl.shared(trunk(x)), in every step; or use the geometry 'full'.",
    )
    # What bfloat16 and float16 gradients add up to is more than they can hold.
    return gram_matrix(
        [distributed.mean_(part.to(torch.promote_types(part.dtype, torch.float32))) for part in parts], size
    )


def _kernel_gram(
    layer: Layer, biases: list[Edge], own: bool, tensors: Sequence[Tensor], deltas: Deltas
) -> Tensor | None:
    """``G_kl = sum_rs (delta_kr' delta_ls) (a_r' a_s + 1)`` over the rows that the weight is applied to.

    The 1 is for the bias, if it is the layer's own. None where the formula does not hold (other maps than ``a W + b``,
    complex ones), costs more than the gradients (more rows than inputs), or cancels: a sum that is short relative to its
    terms loses twice as many digits here as in the gradients.
    """
    live = [j for j in layer.uses if any(row[j] is not None for row in deltas)]
    if not live or not all(_is_affine(node, layer.weight, biases) for node in layer.nodes):
        return None
    inputs = [getattr(node, str(_KINDS[node.name()].saved)).detach() for j in live for node in layer.uses[j]]
    if inputs[0].is_complex() or sum(map(len, inputs)) > inputs[0].shape[1]:
        return None
    outputs = [_output_gradients(tensors[j], layer.uses[j], [row[j] for row in deltas]) for j in live]
    return kernel_products(_join(inputs, 0), _join(outputs, 1), own)


def kernel_products(a: Tensor, delta: Tensor, bias: bool) -> Tensor | None:
    """``sum_rs (delta_kr' delta_ls) (a_r' a_s + 1)``, ``(K, K)``, float64 on the host; None where float32 cancels.

    Args:
        a: Inputs of a linear layer ``(R, d_in)``.
        delta: The tasks' gradients at its output ``(K, R, d_out)``.
        bias: Whether the layer has a bias, for which the 1 is.
    """
    a, delta = exact(a), exact(delta)
    kernel = a @ a.T + float(bias)
    half = _half_of_products(kernel, delta).cpu().double()
    gram = half + half.T
    if a.dtype == torch.float32:
        # Each row's own gradient has this length; the sum of them must not be far shorter.
        total = (delta.norm(dim=2) @ kernel.diagonal().clamp_min(0).sqrt()).cpu().double()
        squares = gram.diagonal()
        if not ((squares > 1e-4 * total**2) & in_range(squares) | (total == 0)).all():
            return None
    return gram


def _half_of_products(kernel: Tensor, delta: Tensor) -> Tensor:
    """Half of ``sum_rs kernel_rs delta_kr' delta_ls`` ``(K, K)``: added to its transpose, it is the whole.

    The kernel is symmetric, so blocks of rows meet those after them only. Tasks come in chunks: no copy of all deltas.
    """
    size, rows, width = delta.shape
    found = delta.new_zeros(size, size)
    step = max(32, -(-rows // 4))
    chunk = max(1, _CHUNK // (rows * width))
    for first in range(0, rows, step):
        last = min(first + step, rows)
        block = kernel[first:last, first:].clone()
        block[:, : last - first] *= 0.5
        left = delta[:, first:last].flatten(1)
        for k in range(0, size, chunk):
            found[:, k : k + chunk] += left @ (block @ delta[k : k + chunk, first:]).flatten(1).T
    return found


def _output_gradients(h: Tensor, nodes: list[Any], deltas: list[Tensor | None]) -> Tensor:
    """Each task's gradients at these maps' outputs ``(K, R, d_out)``, from its gradient at the mark."""
    slope = _slope(h, nodes[0]) if len(nodes) == 1 else None
    if slope is not None:
        scaled = slope.new_zeros(len(deltas), *slope.shape)
        for delta, row in zip(deltas, scaled, strict=True):
            if delta is not None:
                torch.mul(delta.reshape(slope.shape), slope, out=row)
        return scaled
    edges = [GradientEdge(node, 0) for node in nodes]
    found: list[Tensor | None] = []
    for delta in deltas:
        if delta is None:
            found.append(None)
        elif len(nodes) == 1 and h.grad_fn is nodes[0]:
            found.append(delta)
        else:
            found.append(_join(torch.autograd.grad(h, edges, delta, retain_graph=True), 0))
    like = next(delta for delta in found if delta is not None)
    return torch.stack([torch.zeros_like(like) if delta is None else delta for delta in found])


def _slope(h: Tensor, node: Any) -> Tensor | None:
    """Derivative of each entry of h by the entry of a node's output that it is made of; None where it is made of several.

    One pass then serves all tasks. A complex entry is made of two numbers.
    """
    if h.is_complex():
        return None
    at: Any = h.grad_fn
    while at is not node:
        inputs = [child for child, _ in at.next_functions if child is not None] if at is not None else []
        if at is None or at.name() not in _ELEMENTWISE or len(inputs) != 1:
            return None
        at = inputs[0]
    if h.grad_fn is node:
        return None
    (slope,) = torch.autograd.grad(h, [GradientEdge(node, 0)], torch.ones_like(h), retain_graph=True)
    return slope if slope.numel() == h.numel() else None  # else entries were repeated on the way


def _join(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenation, without a copy of one part."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


def _stack(column: Sequence[Tensor | None], edge: Edge) -> Tensor:
    """The tasks' gradients of one weight ``(K, P)``, 0 where a task does not reach it."""
    like = next((gradient for gradient in column if gradient is not None), None)
    if like is None:
        meta = edge[0]._input_metadata[edge[1]]
        return torch.zeros(len(column), math.prod(meta.shape), dtype=meta.dtype.to_real(), device=meta.device)
    return torch.stack([real_entries(torch.zeros_like(like) if g is None else g) for g in column])


def _nearest_weights(h: Tensor) -> list[Edge]:
    """The nearest weight of a tensor, or of each of the parts that it is joined from."""
    if h.grad_fn is None:  # a parameter is marked
        edge = get_gradient_edge(h)
        return [(edge.node, edge.output_nr)]
    found: dict[Edge, None] = {}
    parts = [h.grad_fn]
    seen = set(parts)
    while parts:
        queue = deque([parts.pop()])
        while queue:
            node = queue.popleft()
            weight = next(filter(_is_weight, _operands(node)), None)
            if weight is not None:
                found[weight] = None
                break
            children = [child for child, _ in node.next_functions if child is not None and child not in seen]
            seen.update(children)
            if node.name() in _JOINING and all(hasattr(other, "variable") for other in queue):
                parts += children
            else:
                queue.extend(children)
    if not found:
        raise ValueError(
            "No linear or convolutional layer with trainable parameters lies upstream of the tensor marked with "
            "bmtl.shared. Mark the trunk's output, or use the geometry 'full'."
        )
    return list(found)


def _operands(node: Any) -> Iterator[Edge]:
    """The operands of a linear map that may be its weight, views taken off."""
    kind = _KINDS.get(node.name())
    for position in kind.weights if kind else ():
        operand = _through(node.next_functions[position], _VIEWING)
        if operand[0] is not None:
            yield operand


def _biases(layer: Layer) -> list[Edge]:
    found: dict[Edge, None] = {}
    for node in layer.nodes:
        edge = _bias(node)
        if edge is not None:
            found[edge] = None
    return list(found)


def _bias(node: Any) -> Edge | None:
    position = _KINDS[node.name()].bias
    edge = (None, 0) if position is None else _through(node.next_functions[position], _VIEWING)
    return edge if edge[0] is not None and _is_weight(edge) else None


def _is_weight(edge: Edge) -> bool:
    """Whether an operand comes from parameters alone, by no linear map: an activation or a neighbour's does not."""
    leaf = False
    for node in nodes_upstream(edge[0]):
        if node.name() in _KINDS:
            return False
        leaf = leaf or hasattr(node, "variable")
    return leaf


def _is_affine(node: Any, weight: Edge, biases: list[Edge]) -> bool:
    """Whether a node is ``a W`` or ``a W + b``, with the layer's one bias where it has one."""
    kind = _KINDS[node.name()]
    if kind.saved is None or _through(node.next_functions[kind.weights[0]], _TRANSPOSING) != weight:
        return False
    if getattr(node, "_saved_alpha", 1) != 1 or getattr(node, "_saved_beta", 1) != 1:
        return False
    added = None if kind.bias is None else node.next_functions[kind.bias]
    return added in ((None, 0), None) if not biases else [added] == biases


def _through(edge: Edge, names: set[str]) -> Edge:
    node, output = edge
    while node is not None and node.name() in names:
        node, output = node.next_functions[0]
    return node, output
