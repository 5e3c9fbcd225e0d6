"""Dual-balancing."""

from typing import Annotated

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.options import NonNegative, Range
from bmtl.inference.balancing.weightings.stateful import PerGradient

Kept = Annotated[float, Range(at_least=0.0, below=1.0)]


class DBMTL(PerGradient):
    """Averaged gradients, all made as long as the longest; meant for logarithms of losses, ``si >> db-mtl`` (DB-MTL).

    ``m_k <- g_k + beta / t^sigma (m_k - g_k)``, from 0, t the steps in which the task was present; ``alpha_k = max |m| /
    |m_k|`` and the update is ``sum_k alpha_k m_k``.

    Memory: the averages, **K x P numbers** on the parameters' device, on top of the K x P that `full` holds. They are
    averaged by position, so the tasks must reach the same shared parameters in every step.

    Source: Lin et al. (2023), "Dual-balancing for multi-task learning". Differs from LibMTL, which reports ones
    as weights and does not save the averages; an absent task keeps its average and its count of steps.

    Args:
        beta: How much of the average is kept, from 0 to below 1.
        sigma: How fast that decays with the steps, 0 or above.

    Raises:
        ValueError: In a step, if the gradients are missing or the number of shared parameters changes.
    """

    name = "db-mtl"
    paper = "Lin et al. 2023"
    cost = "K backwards"
    needs = "jacobian"

    seen: Tensor

    def __init__(self, beta: Kept = 0.9, sigma: NonNegative = 0.0) -> None:
        super().__init__()
        self.beta = beta
        self.sigma = sigma

    def allocate(self, num_tasks: int) -> None:
        self.register_buffer("seen", torch.zeros(num_tasks, dtype=torch.float64))

    def forward(self, m: Measured, ctx: Context) -> Solution:
        here = self.present(ctx)
        averages = self.rows(m.J, len(self.names))
        assert m.J is not None
        self.seen[here] += 1
        kept = (self.beta / self.seen[here] ** self.sigma).tolist()
        indices = here.tolist()
        for k, gradient, beta in zip(indices, m.J, kept, strict=True):  # P numbers at a time
            averages[k].mul_(beta).add_(gradient, alpha=1.0 - beta)
        lengths = torch.stack([torch.linalg.vector_norm(averages[k], dtype=torch.float64) for k in indices]).cpu()
        alpha = lengths.max() / lengths
        return Solution(alpha, iterations=1, direction=combined(averages, indices, alpha))


def combined(rows: Tensor, indices: list[int], weights: Tensor) -> Tensor:
    """The weighted sum of some rows ``(P,)``, without a copy of them."""
    total = torch.zeros_like(rows[0])
    for k, weight in zip(indices, weights.tolist(), strict=True):
        total.add_(rows[k], alpha=weight)
    return total
