"""Unconflicting projection of gradients."""

import numpy as np
import torch

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.solvers import cancelled, nearest_without_conflict, unit_diagonal
from bmtl.inference.balancing.weightings.base import Weighting


class UPGrad(Weighting):
    """The sum of the gradients, each projected onto the updates that harm no task (UPGrad).

    For each i, ``v_i = argmin v'Gv`` over ``v >= e_i``, the i-th unit vector; ``alpha = sum_i v_i``. No loss rises,
    ``G alpha >= 0``, and without a conflict the update is the plain sum. Where it is 0 (1e-7 of the lengths that it adds
    up), no update helps a task without harming another: the status is "stationary".

    Source: Quinton & Rey (2024), "Jacobian descent for multi-objective optimization". Differs from TorchJD: K
    times its update; all K projections at once by principal pivoting on the cosines, whose ridge is 1e-10 and not 1e-4 of
    the trace, so that tasks with short gradients are protected too.
    """

    name = "upgrad"
    paper = "Quinton & Rey 2024"
    cost = "K backwards (full), 1 + heads (last-layer)"

    def forward(self, m: Measured, ctx: Context) -> Solution:
        norms, cosine = unit_diagonal(m.G.numpy())
        projected, residual, rounds = nearest_without_conflict(cosine, np.eye(len(norms)))
        x = norms @ projected
        return Solution(torch.from_numpy(x / norms), residual, rounds, "stationary" if cancelled(cosine, x) else "ok")
