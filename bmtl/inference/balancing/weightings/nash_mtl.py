"""The Nash bargaining solution."""

import torch

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.solvers import barrier_newton, unit_diagonal
from bmtl.inference.balancing.weightings.base import Weighting
from bmtl.inference.balancing.weightings.stationary import opposed, stationary


class NashMTL(Weighting):
    """Weights with equal relative gains of all tasks: ``G alpha = 1 / alpha``, ``alpha > 0`` (Nash-MTL).

    The update has squared length K. Where 0 lies in the convex hull of the gradients no such weights exist: the status
    is "stationary" and the weights are K times MGDA's.

    Source: Navon et al. (2022), "Multi-task learning as a bargaining game", equation (2). Differs from the published code:
    solved exactly by Newton's method instead of a sequence of convex programs stopped at 20 rounds, never keeping old
    weights when a solver fails; solved every step (`every=` of the geometry spaces it out); the clipping of the update to
    norm 1 belongs to the trainer.
    """

    name = "nash-mtl"
    paper = "Navon et al. 2022"
    cost = "K backwards (full), 1 + heads (last-layer)"
    length = "as-is"

    def forward(self, m: Measured, ctx: Context) -> Solution:
        norms, cosine = unit_diagonal(m.G.numpy())
        alpha, residual, _, rounds = barrier_newton(norms, cosine)
        # No solution exists only if 0 lies in the hull; anything else is a failure and must not pass for it.
        if residual > self.tolerance and opposed(cosine):
            return stationary(m, residual, rounds)
        return Solution(torch.from_numpy(alpha), residual, rounds)
