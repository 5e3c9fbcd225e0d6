"""Geometries that see task gradients at the marked tensors only: K passes through the heads, one through the trunk."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Measured, Objective
from bmtl.inference.balancing.geometry.base import Geometry, gram_matrix
from bmtl.inference.balancing.graph import parameters_reached


class AtMarks(Geometry):
    """Compares gradients by what reaches the marked tensors; the graph is cut there.

    Then one ordinary backward: the heads' graph ends at the cut, at each scaled loss's own weight, and the trunk's starts
    there with the weighted gradient. Terms of weight 1 that reach the trunk through the mark go along.
    """

    cut = True

    def __init__(self, every: int = 1, moved: float = 0.0, fidelity_every: int = 0) -> None:
        super().__init__(every, moved, fidelity_every)
        self.deltas: list[Sequence[Tensor | None]] = []  # K x marks, from `measure` to `pull`

    def gram(self, objective: Objective) -> Tensor:
        """Gram matrix ``(K, K)`` from each task's gradients at the marked tensors (`deltas`), float64 on the host."""
        raise NotImplementedError(f"{type(self).__name__} must say what it compares.")

    def full_gram(self, objective: Objective) -> Tensor:
        tensors = [h for h in objective.marks.tensors if h.requires_grad]
        trunk = list(parameters_reached(*tensors).values())
        rows = []
        for deltas in self.deltas:
            pairs = zip(objective.marks.tensors, deltas, strict=True)
            used = [(h, delta) for h, delta in pairs if delta is not None and h.requires_grad]
            found: Sequence[Tensor | None] = [None] * len(trunk)
            if used:
                roots, gradients = zip(*used, strict=True)
                found = torch.autograd.grad(roots, trunk, gradients, retain_graph=True, allow_unused=True)
            flat = [torch.zeros_like(p) if g is None else g for p, g in zip(trunk, found, strict=True)]
            rows.append(torch.cat([part.reshape(-1) for part in flat]))
        return gram_matrix(torch.stack(rows).split([p.numel() for p in trunk], dim=1), len(rows))

    def measure(self, objective: Objective, slopes: Tensor) -> Measured:
        _check(objective)
        leaves = objective.marks.leaves
        scale = slopes * objective.units
        self.deltas = []
        for k, row in enumerate(objective.rows):
            self.deltas.append(
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
        return Measured(self.gram(objective))

    def pull(
        self, objective: Objective, slopes: Tensor, alpha: Tensor, head_alpha: Tensor, direction: Tensor | None
    ) -> None:
        marks, (rows, self.deltas) = objective.marks, (self.deltas, [])
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
            "The geometry compares gradients at the shared representation, and the model marks none. Wrap "
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
