"""Projection onto the dual cone."""

import torch

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.solvers import cancelled, nearest_without_conflict, unit_diagonal
from bmtl.inference.balancing.weightings.base import Weighting


class DualProj(Weighting):
    """The sum of the gradients, projected onto the updates that harm no task (DualProj, as in GEM).

    ``alpha = argmin v'Gv`` over ``v >= e``. No loss rises, ``G alpha >= 0``, and without a conflict the update is the plain
    sum. Where it is 0 (1e-7 of the lengths that it adds up), the status is "stationary".

    Source: Lopez-Paz & Ranzato (2017), equation (11), with all tasks as memories. Differs from TorchJD: K times its update;
    solved by principal pivoting on the cosines, whose ridge is 1e-10 and not 1e-4 of the trace.
    """

    name = "dual-proj"
    paper = "Lopez-Paz & Ranzato 2017"
    cost = "K backwards (full), 1 + heads (last-layer)"

    def forward(self, m: Measured, ctx: Context) -> Solution:
        norms, cosine = unit_diagonal(m.G.numpy())
        longest = norms.max()
        projected, residual, rounds = nearest_without_conflict(cosine, (norms / longest)[None])
        x = projected[0]
        alpha = torch.from_numpy(longest * x / norms)
        return Solution(alpha, residual, rounds, "stationary" if cancelled(cosine, x) else "ok")
