"""Fair resource allocation among tasks."""

import numpy as np
import torch

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.options import Positive
from bmtl.inference.balancing.solvers import barrier_newton, unit_diagonal
from bmtl.inference.balancing.weightings.base import Weighting
from bmtl.inference.balancing.weightings.stationary import opposed, stationary


class FairGrad(Weighting):
    """Weights that maximise the tasks' a-fair utility: ``G alpha = alpha^(-1/a)``, ``alpha > 0`` (FairGrad).

    ``a = 1`` is Nash-MTL, larger a favours the task that gains least. Where 0 lies in the convex hull of the gradients no
    such weights exist: the status is "stationary" and the weights are K times MGDA's.

    The residual may be 1e-6, and 1e-3 where gradient norms span more than four decades: unlike Nash-MTL's, this equation
    depends on them, and its terms cancel. Where they cancel to less than float64 weights resolve (opposed gradients whose
    norms span some twenty decades), the status is "inexact".

    Source: Ban & Ji (2024), equation (4). The default is that of every published run (the authors' command line says 1).
    Differs from their code: solved exactly by Newton's method; neither multiplied by K nor clipped.

    Args:
        a: Kind of fairness, above 0.
    """

    name = "fair-grad"
    paper = "Ban & Ji 2024"
    cost = "K backwards (full), 1 + heads (last-layer)"

    def __init__(self, a: Positive = 2.0) -> None:
        super().__init__()
        self.a = a

    def allowed_residual(self, norms: np.ndarray) -> float:
        return 1e-3 if norms.max() > 1e4 * norms.min() else self.tolerance

    def forward(self, m: Measured, ctx: Context) -> Solution:
        norms, cosine = unit_diagonal(m.G.numpy())
        alpha, residual, error, rounds = barrier_newton(norms, cosine, self.a)
        if residual > self.allowed_residual(norms):
            if error <= 1e-9 and not opposed(cosine, 1e-5):
                return Solution(torch.from_numpy(alpha), residual, rounds, "inexact")
            # No solution exists only if 0 lies in the hull; anything else is a failure and must not pass for it.
            if opposed(cosine):
                return stationary(m, residual, rounds)
        return Solution(torch.from_numpy(alpha), residual, rounds)
