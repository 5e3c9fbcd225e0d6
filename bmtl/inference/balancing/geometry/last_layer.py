"""The exact gradients of the last shared layer, without a pass through the trunk per task."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from bmtl.inference.balancing.base import Measured, Objective
from bmtl.inference.balancing.geometry.base import Geometry
from bmtl.inference.balancing.graph import nodes_upstream, parameters_reached

# Autograd nodes of linear maps: positions of the weight and the bias among their inputs.
_LINEAR = {"AddmmBackward0": (2, 0), "MmBackward0": (1, None), "ConvolutionBackward0": (1, 2)}
_INPUT = {"AddmmBackward0": "_saved_mat1", "MmBackward0": "_saved_self"}


class LastLayer(Geometry):
    """Compares the gradients of the last shared layer only: the linear or convolutional layer nearest the mark.

    For a linear layer with input a (R, d_in) and output gradients delta_k (R, d_out),
    ``G_kl = sum_rs (delta_kr' delta_ls) (a_r' a_s + 1)``, the 1 for a bias: products of what the heads' backward already
    gives. Other layers form their K weight gradients. Then one ordinary backward through heads and trunk.

    The program must mark its shared representation with `bmtl.shared`.

    Raises:
        ValueError: If nothing is marked, no such layer lies upstream of the mark, or a parameter of the trunk is also
            reached around the mark.
    """

    name = "last-layer"
    cost = "1 backward + K heads"
    cut = True

    def __init__(self) -> None:
        super().__init__()
        self._checked: set[tuple[str, ...]] = set()
        self._deltas: list[tuple[Tensor | None, ...]] = []

    def measure(self, objective: Objective, slopes: Tensor) -> Measured:
        self._check(objective)
        leaves = objective.marks.leaves
        scale = slopes * objective.units
        self._deltas = []  # K x marks
        for k, row in enumerate(objective.rows):
            self._deltas.append(
                torch.autograd.grad(
                    row,
                    leaves,
                    grad_outputs=torch.full_like(row, scale[k].item()),
                    retain_graph=True,
                    allow_unused=True,
                )
            )
        gram = torch.zeros(len(objective.rows), len(objective.rows), dtype=torch.float64)
        for layers in _group_by_weight(objective.marks.tensors):
            gram += _layer_gram(layers, objective.marks.tensors, self._deltas)
        return Measured(gram)

    def pull(
        self, objective: Objective, slopes: Tensor, alpha: Tensor, head_alpha: Tensor, direction: Tensor | None
    ) -> None:
        marks = objective.marks
        rest = objective.unweighted(alpha * slopes)
        through: tuple[Tensor | None, ...] = (None,) * len(marks.leaves)
        if rest is not None and rest.requires_grad:
            # KL terms of latents drawn from the representation reach the trunk too, at weight 1.
            through = torch.autograd.grad(rest, marks.leaves, retain_graph=True, allow_unused=True)
        roots: list[Tensor] = []
        gradients: list[Tensor] = []
        for j, h in enumerate(marks.tensors):
            gradient = through[j]
            for deltas, a in zip(self._deltas, alpha.tolist(), strict=True):
                delta = deltas[j]
                if delta is not None:
                    gradient = delta * a if gradient is None else torch.add(gradient, delta, alpha=a)
            if gradient is not None and h.requires_grad:
                roots.append(h)
                gradients.append(gradient)
        self._deltas = []
        heads = [t for t in (objective.weighted(head_alpha * slopes), rest) if t is not None and t.requires_grad]
        # One pass: the heads' graph ends at the leaves, the trunk's starts at the marked tensors.
        torch.autograd.backward([*heads, *roots], [*map(torch.ones_like, heads), *gradients])

    def _check(self, objective: Objective) -> None:
        if objective.names in self._checked:
            return
        marks = objective.marks
        if not marks.tensors:
            raise ValueError(
                "The last-layer geometry compares gradients at the shared representation, and the model marks none. Wrap "
                "the trunk's output: h = bmtl.shared(trunk(x)); or use the geometry 'full'."
            )
        trunk = parameters_reached(*marks.tensors)
        around = set(trunk) & set(parameters_reached(*objective.rows))
        if around:
            names = sorted(objective.parameter_names.get(key, "?") for key in around)
            raise ValueError(
                f"Parameters of the trunk are also reached around the mark, not through it: {', '.join(names)}. Mark every "
                "path with bmtl.shared, or use the geometry 'full'."
            )
        self._checked.add(objective.names)


def _last_layer(h: Tensor) -> Any:
    """The autograd node of the linear map nearest upstream of `h`."""
    for node in nodes_upstream(h):
        if node.name() in _LINEAR:
            return node
    raise ValueError(
        "No linear or convolutional layer with parameters lies upstream of the tensor marked with bmtl.shared. Mark the "
        "trunk's output, or use the geometry 'full'."
    )


def _group_by_weight(tensors: list[Tensor]) -> list[list[tuple[int, Any]]]:
    """Groups the marked tensors' last layers, (position, node), by the weight they apply."""
    groups: dict[Any, list[tuple[int, Any]]] = {}
    for j, h in enumerate(tensors):
        if h.grad_fn is None:
            continue
        node = _last_layer(h)
        reached, frontier = [], [node.next_functions[_LINEAR[node.name()][0]][0]]
        while frontier:  # the leaves under the weight: one for a plain layer, its parameters for a random one
            child = frontier.pop()
            if child is None:
                continue
            variable = getattr(child, "variable", None)
            if variable is not None:
                reached.append(id(variable))
            frontier.extend(n for n, _ in child.next_functions)
        # A weight drawn anew for each mark (a Bayesian layer, several particles) shares leaves, not the draw.
        key = tuple(sorted(reached)) if len(reached) == 1 else (*sorted(reached), j)
        groups.setdefault(key, []).append((j, node))
    return list(groups.values())


def _layer_gram(
    layers: list[tuple[int, Any]], tensors: list[Tensor], deltas: list[tuple[Tensor | None, ...]]
) -> Tensor:
    """Gram matrix ``(K, K)`` of one weight's gradients, over all the marks where it is applied."""
    kind = layers[0][1].name()
    bias = _LINEAR[kind][1]
    has_bias = bias is not None and layers[0][1].next_functions[bias][0] is not None
    if kind in _INPUT:
        inputs, outputs = [], []
        for j, node in layers:
            a = getattr(node, _INPUT[kind]).detach()
            inputs.append(a)
            outputs.append(_output_gradients(tensors[j], GradientEdge(node, 0), [d[j] for d in deltas], len(a)))
        a, delta = torch.cat(inputs), torch.cat(outputs, dim=1)  # (R, d_in), (K, R, d_out)
        if len(a) <= a.shape[1]:
            kernel = a @ a.T + (1.0 if has_bias else 0.0)
            flat = delta.flatten(1)
            return (flat @ (kernel @ delta).flatten(1).T).double().cpu()
    weight, bias_position = _LINEAR[kind]
    total: list[list[Tensor]] = []
    for k in range(len(deltas)):
        sums: list[Tensor] | None = None
        for j, node in layers:
            if deltas[k][j] is None:
                continue
            positions = [weight] + ([bias_position] if has_bias and bias_position is not None else [])
            edges = [GradientEdge(*node.next_functions[i]) for i in positions]
            parts = torch.autograd.grad(tensors[j], edges, grad_outputs=deltas[k][j], retain_graph=True)
            sums = list(parts) if sums is None else [s + p for s, p in zip(sums, parts, strict=True)]
        total.append(sums or [])
    width = max((sum(p.numel() for p in parts) for parts in total), default=0)
    like = tensors[0]
    rows = [torch.cat([p.reshape(-1) for p in parts]) if parts else like.new_zeros(width) for parts in total]
    jacobian = torch.stack(rows)
    return (jacobian @ jacobian.T).double().cpu()


def _output_gradients(h: Tensor, edge: GradientEdge, deltas: list[Tensor | None], rows: int) -> Tensor:
    """Each task's gradient at the layer's output ``(K, R, d_out)``, from its gradient at the mark."""
    direct = h.grad_fn is edge.node
    found = []
    for delta in deltas:
        if delta is not None and not direct:
            (delta,) = torch.autograd.grad(h, [edge], grad_outputs=delta, retain_graph=True)
        found.append(delta)
    like = next(d for d in found if d is not None)
    return torch.stack([like.new_zeros(like.shape) if d is None else d for d in found]).reshape(len(found), rows, -1)
