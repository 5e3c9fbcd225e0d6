"""The exact gradients of all shared parameters."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Measured, Objective
from bmtl.inference.balancing.geometry.base import Geometry, add_gradient, backward
from bmtl.inference.balancing.graph import parameters_reached


@dataclass
class _Structure:
    """Which parameters each task reaches; kept while the same tasks are present."""

    shared: list[Tensor]
    reached: list[list[int]]  # per task: which of `shared`
    private: list[list[Tensor]]  # per task


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
        self._structures: dict[tuple[str, ...], _Structure] = {}
        self._private: list[tuple[Tensor, Tensor, int]] = []
        self._jacobian: Tensor | None = None  # (K, P), from `measure` to `pull`

    def measure(self, objective: Objective, slopes: Tensor) -> Measured:
        structure = self._structure(objective)
        scale = slopes * objective.units
        sizes = [p.numel() for p in structure.shared]
        like = structure.shared[0] if structure.shared else objective.rows[0]
        jacobian = torch.zeros(len(objective.rows), sum(sizes), dtype=like.dtype, device=like.device)
        # The rest of the graph is walked after the weights are known, in `pull`.
        rest = objective.rest is not None or objective.scores is not None
        self._private = []
        for k, row in enumerate(objective.rows):
            wanted = [structure.shared[i] for i in structure.reached[k]] + structure.private[k]
            if not wanted or not row.requires_grad:
                continue
            gradients = torch.autograd.grad(
                row,
                wanted,
                grad_outputs=torch.full_like(row, scale[k].item()),
                retain_graph=rest or k + 1 < len(objective.rows),
                allow_unused=True,
            )
            views = jacobian[k].split(sizes)
            for i, gradient in zip(structure.reached[k], gradients, strict=False):
                if gradient is not None:
                    views[i].copy_(gradient.reshape(-1))
            for parameter, gradient in zip(structure.private[k], gradients[len(structure.reached[k]) :], strict=True):
                if gradient is not None:
                    self._private.append((parameter, gradient, k))
        gram = torch.zeros(len(jacobian), len(jacobian), dtype=torch.float64, device=jacobian.device)
        for part in jacobian.split(sizes, dim=1) if sizes else ():
            gram += (part @ part.T).double()  # summed in float64: parameters may differ by decades
        self._jacobian = jacobian
        return Measured(gram.cpu(), jacobian)

    def pull(
        self, objective: Objective, slopes: Tensor, alpha: Tensor, head_alpha: Tensor, direction: Tensor | None
    ) -> None:
        structure = self._structure(objective)
        for parameter, gradient, k in self._private:
            factor = head_alpha[k].item()
            add_gradient(parameter, gradient if factor == 1.0 else gradient * factor)
        self._private = []
        if structure.shared:
            assert self._jacobian is not None
            update = alpha.to(self._jacobian) @ self._jacobian if direction is None else direction
            for parameter, part in zip(
                structure.shared, update.split([p.numel() for p in structure.shared]), strict=True
            ):
                add_gradient(parameter, part.view_as(parameter).to(parameter.dtype))
        self._jacobian = None
        backward(objective.unweighted(alpha * slopes))

    def _structure(self, objective: Objective) -> _Structure:
        if objective.names not in self._structures:
            reached = [parameters_reached(row) for row in objective.rows]
            if objective.marks.tensors:
                upstream = set(parameters_reached(*objective.marks.tensors))
            else:
                counts: dict[int, int] = {}
                for parameters in reached:
                    for key in parameters:
                        counts[key] = counts.get(key, 0) + 1
                upstream = {key for key, count in counts.items() if count > 1}
            shared = {key: p for parameters in reached for key, p in parameters.items() if key in upstream}
            index = {key: i for i, key in enumerate(shared)}
            self._structures[objective.names] = _Structure(
                shared=list(shared.values()),
                reached=[sorted(index[key] for key in parameters if key in index) for parameters in reached],
                private=[[p for key, p in parameters.items() if key not in index] for parameters in reached],
            )
        return self._structures[objective.names]
