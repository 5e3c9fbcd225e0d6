"""Multi-objective gradient correction."""

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.gradients import gram_matrix
from bmtl.inference.balancing.options import NonNegative
from bmtl.inference.balancing.weightings.db_mtl import combined
from bmtl.inference.balancing.weightings.losses import losses_of
from bmtl.inference.balancing.weightings.stateful import PerGradient


class MoCo(PerGradient):
    """MGDA by one step per batch, on averaged gradients (MoCo).

    ``y_k <- y_k - beta / sqrt(t) (y_k - L_k g_k / n_k)``, from 0; ``w <- softmax(w - gamma / sqrt(t) (y y' + rho I) w)``,
    from ``1 / K``; the update is ``y'w``, t the steps so far. Weights are reported as they act on the gradients,
    ``w_k L_k / n_k``.

    Memory: the averages, **K x P numbers** on the parameters' device, on top of the K x P that `full` holds. They are
    averaged by position, so the tasks must reach the same shared parameters in every step.

    Source: Fernando et al. (2023), "Mitigating gradient bias in multi-objective learning", in LibMTL's form: a softmax
    where the paper projects onto the simplex, and gradients of length L. An absent task keeps its average and its share of
    w.

    Args:
        beta: Step size of the averages.
        gamma: Step size of the weights.
        rho: Strength of the regulariser of the weights.

    Raises:
        ValueError: In a step, if the gradients are missing or the number of shared parameters changes.
        NonPositiveLoss: If a loss is negative: it would turn its gradient.
    """

    name = "moco"
    paper = "Fernando et al. 2023"
    cost = "K backwards"
    needs = "jacobian"

    w: Tensor
    t: Tensor

    def __init__(self, beta: NonNegative = 0.5, gamma: NonNegative = 0.1, rho: NonNegative = 0.0) -> None:
        super().__init__()
        self.beta = beta
        self.gamma = gamma
        self.rho = rho

    def allocate(self, num_tasks: int) -> None:
        self.register_buffer("w", torch.full((num_tasks,), 1.0 / num_tasks, dtype=torch.float64))
        self.register_buffer("t", torch.zeros((), dtype=torch.float64))

    def forward(self, m: Measured, ctx: Context) -> Solution:
        here = self.present(ctx)
        lengths = losses_of(self, self.names, m, ctx, strict=False) / m.G.diagonal().sqrt()
        averages = self.rows(m.J, len(self.names))
        assert m.J is not None
        self.t += 1
        decay = self.t.item() ** -0.5
        indices = here.tolist()
        for k, gradient, length in zip(indices, m.J, lengths.tolist(), strict=True):  # P numbers at a time
            averages[k].mul_(1.0 - self.beta * decay).add_(gradient, alpha=self.beta * decay * length)
        y = averages if len(indices) == len(averages) else averages[here.to(averages.device)]
        products = gram_matrix((y,), len(y))
        old = self.w[here].cpu()
        share = old.sum()
        old = old / share
        w = torch.softmax(old - self.gamma * decay * (products @ old + self.rho * old), dim=0)
        self.w[here] = (share * w).to(self.w)
        return Solution(w * lengths, iterations=1, direction=combined(averages, indices, w))
