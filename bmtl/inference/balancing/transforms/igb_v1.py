"""Improvable-gap balancing, version 1."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.options import Count
from bmtl.inference.balancing.transforms.base import Transform


class IGBv1(Transform):
    """Weights tasks by how much of their loss is left to improve (IGBv1, Dai et al. 2023, Algorithm 1).

    Epochs 1 to `base_epoch` train on the losses' logarithms (SI). The mean training loss of epoch `base_epoch` is the
    base; from then on each batch has ``lambda = K softmax(L / base)``, held constant, and trains on
    ``sum_k lambda_k log L_k``. The ideal loss of the paper's gap is taken as 0, as in the paper's experiments.

    Differs from the released code in what is *reported*: the effective weight ``lambda_k / L_k``, not ``lambda_k``.
    A task that had no label in the base epoch takes the first epoch in which it has one, and a ratio of 1 until then.

    Args:
        base_epoch: The epoch, counted from 1, whose mean losses are the base.
        bound: What no loss is below; it is subtracted first, from the base too.
    """

    name = "igb-v1"
    paper = "Dai et al. 2023"
    cost = "1 backward"
    domain = "nonnegative"
    epochs = True

    base: Tensor

    def __init__(self, base_epoch: Count = 2, bound: float = 0.0) -> None:
        super().__init__(bound)
        self.base_epoch = base_epoch

    def bind(self, names: Sequence[str]) -> None:
        if "base" not in self._buffers:
            self.register_buffer("base", torch.full((len(names),), torch.nan, dtype=torch.float64))

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        if ctx.epoch <= self.base_epoch:
            return self.log_of(losses)
        ratio = (losses.detach() / self.base[ctx.active]).nan_to_num(nan=1.0, posinf=1e300)
        weights = len(losses) * torch.softmax(ratio, dim=0)
        return weights * self.log_of(losses)

    def end_epoch(self, mean_losses: Tensor, ctx: Context) -> None:
        if ctx.epoch >= self.base_epoch:
            missing = self.base.isnan()
            self.base[missing] = mean_losses[missing]
