"""Soft optimal uncertainty weighting."""

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context, Transform


class UWSO(Transform):
    """Weights from a softmax of inverse losses (soft optimal uncertainty weighting, Kirchdorfer et al. 2024).

    ``l_k = lambda_k L_k``, ``lambda = K softmax((1 / L) / temp)``, held constant in the gradient, K the tasks present.
    ``1 / L_k`` is the weight at which uncertainty weighting (`uw`) settles, up to a factor; the method without the softmax
    (UW-O) has the gradients of `si`. The losses' scale matters: the smallest loss gets nearly all of the weight where
    ``1 / L`` is large beside `temp`.

    Differs from the paper in scale: the weights sum to K, not to 1.

    Args:
        temp: Temperature of the softmax; the paper tunes it for each data set.
        bound: What every loss must exceed; it is subtracted first.

    Raises:
        ValueError: If `temp` is not positive.
    """

    name = "uw-so"
    paper = "Kirchdorfer et al. 2024"
    cost = "1 backward"
    positive = True

    def __init__(self, temp: float = 1.0, bound: float = 0.0) -> None:
        super().__init__(bound)
        if not temp > 0:
            raise ValueError(f"temp is a positive temperature, and {temp} was given.")
        self.temp = temp

    def options(self) -> dict[str, object]:
        options = {"temp": (self.temp, 1.0), "bound": (self.bound, 0.0)}
        return {name: value for name, (value, default) in options.items() if value != default}

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        weights = len(losses) * torch.softmax(1 / losses.detach() / self.temp, dim=0)
        return weights * losses
