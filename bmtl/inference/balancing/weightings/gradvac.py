"""Gradient vaccine."""

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.options import Fraction, Seed
from bmtl.inference.balancing.solvers import unit_diagonal, without_conflicts
from bmtl.inference.balancing.weightings.stateful import PerTask, Seeded


class GradVac(PerTask, Seeded):
    """Moves each gradient until its cosines with the others are at least their moving average (gradient vaccine).

    As PCGrad with targets ``rho_ij`` (0 at first) in place of 0: with ``c = cos(v_i, g_j)``, if ``c < rho`` then
    ``v_i += g_j / |g_j| |v_i| (rho sqrt(1 - c^2) - c sqrt(1 - rho^2)) / sqrt(1 - rho^2)``, whose cosine is rho; and
    ``rho <- (1 - beta) rho + beta c``. ``beta=0`` is PCGrad.

    Source: Wang et al. (2021), "Gradient vaccine", for whole gradients; LibMTL offers groups of parameters too.

    Args:
        beta: Speed of the moving average, from 0 to 1.
        seed: Seeds the generator that this weighting owns. Torch's global one is neither read nor moved.
    """

    name = "gradvac"
    paper = "Wang et al. 2021"
    cost = "K backwards (full), 1 + heads (last-layer)"

    rho: Tensor

    def __init__(self, beta: Fraction = 0.5, seed: Seed = 0) -> None:
        super().__init__(seed)
        self.beta = beta

    def allocate(self, num_tasks: int) -> None:
        self.register_buffer("rho", torch.zeros(num_tasks, num_tasks, dtype=torch.float64))

    def forward(self, m: Measured, ctx: Context) -> Solution:
        here = self.present(ctx)
        norms, cosine = unit_diagonal(m.G.numpy())
        pairs = (here[:, None], here)
        targets = self.rho[pairs].clamp(-1.0 + 1e-6, 1.0 - 1e-6).cpu().numpy()
        mixed = without_conflicts(cosine, self.orders(len(norms)).numpy(), targets, self.beta)
        self.rho[pairs] = torch.from_numpy(targets).to(self.rho)
        return Solution(torch.from_numpy((norms @ mixed) / norms), iterations=len(norms))
