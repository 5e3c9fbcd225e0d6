"""The exact gradients of all shared parameters."""

from functools import reduce

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Measured, Objective
from bmtl.inference.balancing.geometry.base import (
    Geometry,
    Structure,
    add_gradient,
    backward,
    gram_matrix,
    read_structure,
)


class Full(Geometry):
    """Compares the gradients of all shared parameters (K backwards, K x P numbers held once).

    The shared parameters are those upstream of a tensor marked with `bmtl.shared`; in a program without a mark, those
    that two or more tasks reach in the autograd graph. Parameters that no task reaches are left alone. The gradients of
    the heads come from the same K passes, and the shared update is ``J' alpha``: there is no further pass.

    Args:
        every: Compare every n-th step and keep the weights in between.
        moved: Keep the weights while no cosine of task gradients has moved by more than this.
    """

    name = "full"
    cost = "K backwards"

    def __init__(self, every: int = 1, moved: float = 0.0) -> None:
        super().__init__(every, moved)
        self._structure = Structure([], [], [])
        self._private: list[tuple[Tensor, Tensor, int]] = []
        self._jacobian = torch.empty(0, 0)  # (K, P), from `measure` to `pull`

    def measure(self, objective: Objective, slopes: Tensor) -> Measured:
        # Read anew each step, for a hundredth of the K backwards: a program may branch, and one balancer may serve two
        # models. A parameter that an old structure does not know would silently stay where it is.
        structure = self._structure = read_structure(objective)
        scale = slopes * objective.units
        # Parameters may differ in precision; products of gradients need float32 at least.
        dtype = reduce(torch.promote_types, (p.dtype for p in structure.shared), torch.float32)
        like = structure.shared[0] if structure.shared else objective.rows[0]
        jacobian = torch.zeros(len(objective.rows), sum(structure.sizes), dtype=dtype, device=like.device)
        # The rest of the graph is walked after the weights are known, in `pull`.
        rest = objective.rest is not None or objective.scores is not None
        self._private = []
        for k, row in enumerate(objective.rows):
            reached = len(structure.reached[k])
            wanted = [structure.shared[i] for i in structure.reached[k]] + structure.private[k]
            if not wanted:
                continue
            gradients = torch.autograd.grad(
                row,
                wanted,
                grad_outputs=torch.full_like(row, scale[k].item()),
                retain_graph=rest or k + 1 < len(objective.rows),
                allow_unused=True,
            )
            views = jacobian[k].split(structure.sizes)
            for i, gradient in zip(structure.reached[k], gradients[:reached], strict=True):
                if gradient is not None:
                    views[i].copy_(gradient.reshape(-1))
            for parameter, gradient in zip(structure.private[k], gradients[reached:], strict=True):
                if gradient is not None:
                    self._private.append((parameter, gradient, k))
        parts = jacobian.split(structure.sizes, dim=1) if structure.shared else ()
        self._jacobian = jacobian
        return Measured(gram_matrix(parts, len(jacobian)), jacobian)

    def pull(
        self, objective: Objective, slopes: Tensor, alpha: Tensor, head_alpha: Tensor, direction: Tensor | None
    ) -> None:
        structure, private, jacobian = self._structure, self._private, self._jacobian
        self._structure, self._private, self._jacobian = Structure([], [], []), [], torch.empty(0, 0)
        for parameter, gradient, k in private:
            add_gradient(parameter, gradient * head_alpha[k].item())
        if structure.shared:
            update = alpha.to(jacobian) @ jacobian if direction is None else direction
            for parameter, part in zip(structure.shared, update.split(structure.sizes), strict=True):
                add_gradient(parameter, part.view_as(parameter).to(parameter))
        backward(objective.unweighted(alpha * slopes))
