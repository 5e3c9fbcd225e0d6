"""Impartial multi-task learning, the gradient side."""

import torch

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.solvers import equal_projections, unit_diagonal
from bmtl.inference.balancing.weightings.base import Weighting
from bmtl.inference.balancing.weightings.stationary import stationary


class IMTLG(Weighting):
    """Weights whose update projects equally on every unit gradient (IMTL-G).

    With ``G = N C N``, N the gradient norms and C their cosines, equal ``(G alpha)_k / n_k`` means ``C v = e`` and
    ``alpha = v / n``: a system in the cosines alone, independent of the tasks' scales. Where gradients depend on each other
    no such update may exist: the status is "inexact" and v is the pseudo-inverse's, or, if that is 0 too, "stationary" and
    the weights are K times MGDA's.

    Source: Liu et al. (2021), "Towards impartial multi-task learning". Differs from the paper and every code,
    which divide by ``e' alpha``: that sum can be negative, and the update would then climb every loss. The length rule
    `norm` only scales.
    """

    name = "imtl-g"
    paper = "Liu et al. 2021"
    cost = "K backwards (full), 1 + heads (last-layer)"
    length = "norm"

    def forward(self, m: Measured, ctx: Context) -> Solution:
        norms, cosine = unit_diagonal(m.G.numpy())
        v, residual = equal_projections(cosine, torch.finfo(m.dtype).eps)
        if v @ cosine @ v <= 1e-8:  # e is orthogonal to all that the gradients span: their units sum to 0
            return stationary(m, residual)
        return Solution(torch.from_numpy(v / norms), residual, 1, "ok" if residual <= self.tolerance else "inexact")
