"""Conflict-free gradients."""

import torch

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.solvers import equal_projections, unit_diagonal
from bmtl.inference.balancing.weightings.base import Weighting
from bmtl.inference.balancing.weightings.stationary import stationary


class ConFIG(Weighting):
    """IMTL-G's direction, as long as the sum of its projections on the gradients (ConFIG).

    ``d`` along ``u = sum_i v_i g_i / n_i`` with ``C v = e``, and ``|d| = sum_k g_k'u / |u|``: the better the gradients
    agree, the longer the update. In weights, ``alpha = (v / n) (e'n) / (e'v)``. Where gradients depend on each other no
    update may project equally on all: the status is "inexact" and v is the pseudo-inverse's, as in the authors' code; or
    "stationary", if that is 0 too, and the weights are K times MGDA's.

    Source: Liu et al. (2025), "ConFIG: towards conflict-free training of physics informed neural networks", equation (2).
    Differs from the authors' code and TorchJD in that the system is solved on K x K cosines, not on K x P unit gradients.
    """

    name = "config"
    paper = "Liu et al. 2025"
    cost = "K backwards (full), 1 + heads (last-layer)"

    def forward(self, m: Measured, ctx: Context) -> Solution:
        norms, cosine = unit_diagonal(m.G.numpy())
        v, residual = equal_projections(cosine, torch.finfo(m.dtype).eps)
        projections = cosine @ v  # e, where a solution exists
        squared = v @ projections
        if squared <= 1e-8:
            return stationary(m, residual)
        alpha = torch.from_numpy(v / norms * (norms @ projections / squared))
        return Solution(alpha, residual, 1, "ok" if residual <= self.tolerance else "inexact")
