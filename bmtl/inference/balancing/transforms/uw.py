"""Uncertainty weighting as a balancer."""

from torch import Tensor

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.transforms.own import LearntLogs, present


class UW(LearntLogs):
    """Weights from one learnt log-variance a task: ``sum_k L_k exp(-s_k) / 2 + s_k / 2``.

    At a fixed loss, ``s_k`` tends to ``log L_k`` and the weight to ``1 / (2 L_k)``; at a loss of 0, ``s_k`` falls without
    end. The same noise inside the program is a likelihood with a learnt or latent noise; use one of the two.

    Source: Kendall, Gal & Cipolla (2018), in the parametrisation of Liu et al. (2019). Differs from LibMTL, which starts
    at -0.5 and trains ``s`` at the model's learning rate and weight decay; here ``s`` has a group of its own (learning
    rate 0.025, no decay).

    Args:
        s0: Where every log-variance starts.
        bound: A lower bound on every loss; it is subtracted first.
    """

    name = "uw"
    paper = "Kendall et al. 2018"
    cost = "1 backward"

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        s = present(self.s, ctx.active)
        return losses * (-s).exp() / 2 + s / 2
