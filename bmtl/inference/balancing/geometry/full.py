"""The exact gradients of all shared parameters."""

from collections import Counter
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Measured, Objective
from bmtl.inference.balancing.geometry.base import Geometry, add_gradient, backward, gram_matrix
from bmtl.inference.balancing.graph import parameters_reached


@dataclass
class _Structure:
    """Which parameters each task reaches."""

    shared: list[Tensor]
    reached: list[list[int]]  # per task: which of `shared`
    private: list[list[Tensor]]  # per task

    @property
    def sizes(self) -> list[int]:
        return [p.numel() for p in self.shared]


class Full(Geometry):
    """Compares the gradients of all shared parameters (K backwards, K x P numbers held once).

    The shared parameters are those upstream of a tensor marked with `bmtl.shared`; in a program without a mark, those
    that two or more tasks reach in the autograd graph. Parameters that no task reaches are left alone. The gradients of
    the heads come from the same K passes, and the shared update is ``J' alpha``: there is no further pass.
    """

    name = "full"
    cost = "K backwards"

    def __init__(self) -> None:
        super().__init__()
        self._structure = _Structure([], [], [])
        self._private: list[tuple[Tensor, Tensor, int]] = []
        self._jacobian = torch.empty(0, 0)  # (K, P), from `measure` to `pull`

    def measure(self, objective: Objective, slopes: Tensor) -> Measured:
        # Read anew each step, for a hundredth of the K backwards: a program may branch, and one balancer may serve two
        # models. A parameter that an old structure does not know would silently stay where it is.
        structure = self._structure = _read(objective)
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
        self._structure, self._private, self._jacobian = _Structure([], [], []), [], torch.empty(0, 0)
        for parameter, gradient, k in private:
            add_gradient(parameter, gradient * head_alpha[k].item())
        if structure.shared:
            update = alpha.to(jacobian) @ jacobian if direction is None else direction
            for parameter, part in zip(structure.shared, update.split(structure.sizes), strict=True):
                add_gradient(parameter, part.view_as(parameter).to(parameter))
        backward(objective.unweighted(alpha * slopes))


def _read(objective: Objective) -> _Structure:
    """Which parameters each task reaches, from the autograd graph."""
    reached = [parameters_reached(row) for row in objective.rows]
    if objective.marks.tensors:
        upstream = set(parameters_reached(*objective.marks.tensors))
    else:
        upstream = {key for key, count in Counter(key for row in reached for key in row).items() if count > 1}
    shared = {key: p for parameters in reached for key, p in parameters.items() if key in upstream}
    index = {key: i for i, key in enumerate(shared)}
    return _Structure(
        shared=list(shared.values()),
        reached=[sorted(index[key] for key in parameters if key in index) for parameters in reached],
        private=[[p for key, p in parameters.items() if key not in index] for parameters in reached],
    )
