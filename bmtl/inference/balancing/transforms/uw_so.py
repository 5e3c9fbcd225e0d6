"""Soft optimal uncertainty weighting."""

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.options import Positive
from bmtl.inference.balancing.transforms.base import Transform


class UWSO(Transform):
    """Weights from a softmax of inverse losses (soft optimal uncertainty weighting, Kirchdorfer et al. 2024).

    ``l_k = lambda_k L_k``, ``lambda = K softmax((1 / L) / temp)``, held constant in the gradient, K the tasks present.
    ``1 / L_k`` is the weight at which uncertainty weighting (`uw`) settles, up to a factor; the method without the softmax
    (UW-O) has the gradients of `si`. The losses' scale matters: the smallest loss gets nearly all of the weight where
    ``1 / L`` is large compared with `temp`.

    Differs from the paper in scale: the weights sum to K, not to 1.

    Args:
        temp: Temperature of the softmax; the paper tunes it for each data set.
        bound: What every loss must exceed; it is subtracted first.
    """

    name = "uw-so"
    paper = "Kirchdorfer et al. 2024"
    cost = "1 backward"
    domain = "positive"

    def __init__(self, temp: Positive = 1.0, bound: float = 0.0) -> None:
        super().__init__(bound)
        self.temp = temp

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        weights = len(losses) * torch.softmax(1 / losses.detach() / self.temp, dim=0)
        return weights * losses
