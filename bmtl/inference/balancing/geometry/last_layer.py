"""The exact gradients of the last shared layer, without a pass through the trunk per task."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Measured, Objective
from bmtl.inference.balancing.geometry.base import Geometry
from bmtl.inference.balancing.geometry.layers import layers_gram
from bmtl.inference.balancing.graph import parameters_reached


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
        self._deltas: list[Sequence[Tensor | None]] = []  # K x marks, from `measure` to `pull`

    def measure(self, objective: Objective, slopes: Tensor) -> Measured:
        _check(objective)
        leaves, tensors = objective.marks.leaves, objective.marks.tensors
        scale = slopes * objective.units
        self._deltas = []
        for k, row in enumerate(objective.rows):
            self._deltas.append(
                torch.autograd.grad(
                    row,
                    leaves,
                    grad_outputs=torch.full_like(row, scale[k].item()),
                    retain_graph=True,
                    allow_unused=True,
                )
                if row.requires_grad
                else [None] * len(leaves)
            )
        return Measured(layers_gram(tensors, self._deltas))

    def pull(
        self, objective: Objective, slopes: Tensor, alpha: Tensor, head_alpha: Tensor, direction: Tensor | None
    ) -> None:
        marks, (rows, self._deltas) = objective.marks, (self._deltas, [])
        rest = objective.unweighted(alpha * slopes)
        through: Sequence[Tensor | None] = [None] * len(marks.leaves)
        if rest is not None and rest.requires_grad:
            # KL terms of latents drawn from the representation reach the trunk too, at weight 1.
            through = torch.autograd.grad(rest, marks.leaves, retain_graph=True, allow_unused=True)
        roots: list[Tensor] = []
        gradients: list[Tensor] = []
        for j, h in enumerate(marks.tensors):
            gradient = through[j]
            for deltas, a in zip(rows, alpha.tolist(), strict=True):
                delta = deltas[j]
                if delta is not None:
                    gradient = delta * a if gradient is None else torch.add(gradient, delta, alpha=a)
            if gradient is not None and h.requires_grad:
                roots.append(h)
                gradients.append(gradient)
        heads = [t for t in (objective.weighted(head_alpha * slopes), rest) if t is not None and t.requires_grad]
        if heads or roots:
            # One pass: the heads' graph ends at the leaves, the trunk's starts at the marked tensors.
            torch.autograd.backward([*heads, *roots], [*map(torch.ones_like, heads), *gradients])


def _check(objective: Objective) -> None:
    """Checks, anew in each step since a program may branch, that the marks cut the trunk off."""
    marks = objective.marks
    if not marks.tensors:
        raise ValueError(
            "The last-layer geometry compares gradients at the shared representation, and the model marks none. Wrap "
            "the trunk's output: h = bmtl.shared(trunk(x)); or use the geometry 'full'."
        )
    trunk = parameters_reached(*marks.tensors)
    if any(id(leaf) in trunk for leaf in marks.leaves):
        raise ValueError(
            "A tensor marked with bmtl.shared is computed from another marked tensor, and the trunk is cut off at the "
            "marks. Mark the representation once, where the tasks part; or use the geometry 'full'."
        )
    around = trunk.keys() & parameters_reached(*objective.rows).keys()
    if around:
        names = sorted(objective.parameter_names.get(key, "?") for key in around)
        raise ValueError(
            f"Parameters of the trunk are also reached around the mark, not through it: {', '.join(names)}. Mark every "
            "path with bmtl.shared, or use the geometry 'full'."
        )
