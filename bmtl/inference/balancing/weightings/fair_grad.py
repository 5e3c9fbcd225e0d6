"""Fair resource allocation among tasks."""

import numpy as np
import torch

from bmtl.inference.balancing.base import Context, Measured, Solution, Weighting
from bmtl.inference.balancing.solvers import barrier_newton, shortest_in_hull, unit_diagonal
from bmtl.inference.balancing.weightings.imtl_g import stationary
from bmtl.inference.errors import SolverFailed


class FairGrad(Weighting):
    """Weights that maximise the tasks' a-fair utility: ``G alpha = alpha^(-1/a)``, ``alpha > 0`` (FairGrad).

    ``a = 1`` is Nash-MTL, larger a favours the task that gains least. Where 0 lies in the convex hull of the gradients no
    such weights exist: the status is "stationary" and the weights are K times MGDA's.

    The residual may be 1e-6, and 1e-3 where gradient norms span more than four decades: unlike Nash-MTL's, this equation
    depends on them, and its terms cancel.

    Source: Ban & Ji (2024), equation (4). The default is that of every published run (the authors' command line says 1).
    Differs from their code: solved exactly by Newton's method; neither multiplied by K nor clipped.

    Args:
        a: Kind of fairness, above 0.

    Raises:
        ValueError: If `a` is not above 0.
    """

    name = "fair-grad"
    paper = "Ban & Ji 2024"
    cost = "K backwards (full), 1 + heads (last-layer)"
    tolerance = 1e-3

    def __init__(self, a: float = 2.0) -> None:
        super().__init__()
        if not 0.0 < a < float("inf"):
            raise ValueError(f"a is above 0, and {a} was given.")
        self.a = a

    def options(self) -> dict[str, object]:
        return {"a": self.a} if self.a != 2.0 else {}

    def forward(self, m: Measured, ctx: Context) -> Solution:
        norms, cosine = unit_diagonal(m.G.numpy())
        alpha, residual, rounds = barrier_newton(norms, cosine, self.a)
        tolerance = self.tolerance if norms.max() > 1e4 * norms.min() else 1e-6
        if residual <= tolerance:
            return Solution(torch.from_numpy(alpha), residual, rounds)
        # No solution exists only if 0 lies in the hull; anything else is a failure and must not pass for it.
        directions = shortest_in_hull(np.ones_like(norms), cosine)
        if directions @ cosine @ directions <= 1e-4:
            return stationary(m, residual, rounds)
        raise SolverFailed(
            f"{self.name!r} left a residual of {residual:.2g} after {rounds} rounds, and at most {tolerance:g} is allowed. "
            f"The gradients' norms span {norms.min():.2g} to {norms.max():.2g}: scale the losses (the transform 'si')."
        )
