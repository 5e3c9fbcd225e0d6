"""Fast adaptive multi-task optimisation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.options import NonNegative, Positive
from bmtl.inference.balancing.transforms.adam import TaskAdam
from bmtl.inference.balancing.transforms.base import Transform


class FAMO(Transform):
    """Weights tasks so that all losses fall at the same rate, measured by a second forward (FAMO, Liu et al. 2023).

    With ``z = softmax(w)`` over the K tasks present and ``D = L - bound + 1e-8``, a step trains on
    ``K z_k log(D_k) / c``, ``c = sum_k z_k / D_k`` held constant: effective weights ``z / D`` that sum to K. After the step,
    the same batch's losses give ``delta = log D_old - log D_new``, and Adam moves w along the gradient
    ``z (delta - z' delta)``, with weight decay `gamma`: the task that improved least gains.

    Differs from the authors' code in the factor K, and in that the gradient's norm is not clipped to 1 (their trainer does
    that; here clipping is `fit`'s). Differs from TorchJD in that Adam's moments are saved.

    Args:
        lr: Learning rate of w.
        gamma: Weight decay of w: the authors take 1e-5 to 0.01, LibMTL and TorchJD 1e-3.
        bound: A lower bound on every loss; it is subtracted first.
    """

    name = "famo"
    paper = "Liu et al. 2023"
    cost = "1 backward + 1 forward"
    domain = "nonnegative"
    second_forward = True

    w: Tensor
    before: Tensor

    def __init__(self, lr: Positive = 0.025, gamma: NonNegative = 1e-3, bound: float = 0.0) -> None:
        super().__init__(bound)
        self.lr, self.gamma = lr, gamma
        self.adam = TaskAdam(lr)

    def bind(self, names: Sequence[str]) -> None:
        self.adam.bind(names)
        if "w" not in self._buffers:
            self.register_buffer("w", torch.zeros(len(names), dtype=torch.float64))
            self.register_buffer("before", torch.full((len(names),), torch.nan, dtype=torch.float64))

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        z = torch.softmax(self.w[ctx.active], dim=0)
        gaps = losses + 1e-8
        self.before[ctx.active] = gaps.detach().log()
        return len(losses) / (z / gaps.detach()).sum() * z * gaps.log()

    def after_step(self, losses: Tensor, ctx: Context) -> None:
        # A step may have taken a loss to the bound or past it: as much as can be improved. The next step reports it.
        delta = self.before[ctx.active] - (losses.clamp_min(0) + 1e-8).log()
        if not delta.isfinite().all():
            return  # the step diverged: its losses carry no information about the weights
        w = self.w[ctx.active]
        z = torch.softmax(w, dim=0)
        gradient = z * (delta - z @ delta) + self.gamma * w
        self.w[ctx.active] = w + self.adam(gradient, ctx.active)
