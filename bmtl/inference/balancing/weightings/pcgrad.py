"""Gradient surgery."""

import torch

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.solvers import unit_diagonal, without_conflicts
from bmtl.inference.balancing.weightings.stateful import Seeded


class PCGrad(Seeded):
    """Takes from each gradient what conflicts with the others, one after the other in random order (PCGrad).

    ``v_i = g_i``; for j in a random order, ``v_i -= min(v_i'g_j, 0) / |g_j|^2 g_j``; the update is ``sum v_i``. Without a
    conflict it is the plain sum. With more than two tasks it may still conflict with some.

    Source: Yu et al. (2020), algorithm 1: its own order for each i. Differs from their code, which shuffles and
    discards the result, and from others that draw one order for all i. All i are projected at once, on K x K numbers.

    Args:
        seed: Seeds the generator that this weighting owns. Torch's global one is neither read nor moved.
    """

    name = "pcgrad"
    paper = "Yu et al. 2020"
    cost = "K backwards (full), 1 + heads (last-layer)"

    def forward(self, m: Measured, ctx: Context) -> Solution:
        norms, cosine = unit_diagonal(m.G.numpy())
        mixed = without_conflicts(cosine, self.orders(len(norms)).numpy())
        return Solution(torch.from_numpy((norms @ mixed) / norms), iterations=len(norms))
