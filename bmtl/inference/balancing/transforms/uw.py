"""Uncertainty weighting as a balancer."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bmtl.inference.balancing.base import Context, Transform
from bmtl.inference.balancing.transforms.own import one_each, present


class UW(Transform):
    """Weights from one learnt log-variance a task: ``sum_k L_k exp(-s_k) / 2 + s_k / 2``.

    At a fixed loss, ``s_k`` tends to ``log L_k`` and the weight to ``1 / (2 L_k)``. The same noise inside the program is
    `bmtl.models.Homoscedastic` with a learnt or latent noise; use one of the two.

    Source: Kendall, Gal & Cipolla (2018), in the parametrisation of Liu et al. (2019). Differs from LibMTL, which starts
    at -0.5 and trains ``s`` at the model's learning rate and weight decay; here ``s`` has a group of its own (learning
    rate 0.025, no decay).

    Args:
        s0: Where every log-variance starts.
        bound: What every loss must exceed; it is subtracted first.

    Raises:
        ValueError: If `s0` is not finite.
    """

    name = "uw"
    paper = "Kendall et al. 2018"
    cost = "1 backward"
    positive = True  # at a negative loss the objective has no minimum in s

    def __init__(self, s0: float = 0.0, bound: float = 0.0) -> None:
        super().__init__(bound)
        if not math.isfinite(s0):
            raise ValueError(f"s0 is a log-variance, a finite number, and {s0} was given.")
        self.s0 = s0
        self.s = nn.ParameterList()

    def options(self) -> dict[str, object]:
        return {k: v for k, v in (("s0", self.s0), ("bound", self.bound)) if v}

    def bind(self, names: Sequence[str]) -> None:
        if not len(self.s):
            self.s = one_each(torch.full((len(names),), float(self.s0), dtype=torch.float64))

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        s = present(self.s, ctx.active)
        return losses * torch.exp(-s) / 2 + s / 2
