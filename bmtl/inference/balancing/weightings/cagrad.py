"""Conflict-averse gradient descent."""

from typing import Literal

import torch

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.options import NonNegative
from bmtl.inference.balancing.solvers import conflict_averse, unit_diagonal
from bmtl.inference.balancing.weightings.base import Weighting


class CAGrad(Weighting):
    """The update in a ball around the mean gradient that is best for the task that improves least (CAGrad).

    ``max_d min_k g_k'd`` over ``|d - g0| <= c |g0|``, ``g0 = J'b``, ``b = 1 / K``. In weights: w minimises
    ``w'Gb + c |g0| |J'w|`` on the simplex, and ``alpha = K (b + c |g0| / |J'w| w) / (1 + c^2)``. Where 0 lies in the hull of
    the gradients ``J'w`` may be 0: the status is "stationary", and the update is the nearest to the mean that harms no task.

    Source: Liu et al. (2021), "Conflict-averse gradient descent", algorithm 1. Differs from the published code:
    solved exactly by an active-set method instead of SLSQP or an interior-point solver, and K times their update (LibMTL,
    TorchJD), so that ``c=0`` is the plain sum.

    Args:
        c: Radius of the ball relative to the mean gradient; the authors' NYUv2 runs use 0.4, their code's default is 0.5.
        rescale: Divides the update by ``1 + c^2`` (1), ``1 + c`` (2) or nothing (0).
    """

    name = "cagrad"
    paper = "Liu et al. 2021"
    cost = "K backwards (full), 1 + heads (last-layer)"

    def __init__(self, c: NonNegative = 0.4, rescale: Literal[0, 1, 2] = 1) -> None:
        super().__init__()
        self.c = c
        self.rescale = rescale

    def forward(self, m: Measured, ctx: Context) -> Solution:
        norms, cosine = unit_diagonal(m.G.numpy())
        added, residual, rounds, stationary = conflict_averse(norms, cosine, self.c)
        divisor = (1.0, 1.0 + self.c**2, 1.0 + self.c)[self.rescale]
        alpha = torch.from_numpy((1.0 + len(norms) * added) / divisor)
        return Solution(alpha, residual, rounds, "stationary" if stationary else "ok")
