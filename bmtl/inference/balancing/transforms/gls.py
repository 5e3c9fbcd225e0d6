"""The geometric mean of the losses."""

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.transforms.base import LEAST, Transform


class GLS(Transform):
    """The geometric mean of the losses (geometric loss strategy, Chennupati et al. 2019).

    ``S = exp(mean_k log L_k)`` over the K tasks present. Its gradient is that of ``sum_k c_k L_k`` with
    ``c_k = S / (K L_k)`` held constant: `si` times a factor that falls with the losses.

    Differs from LibMTL in what is reported: the weights c, [1, 0.25] for losses [2, 8], where LibMTL gives [0.0625, 0.25].

    Args:
        bound: What every loss must exceed; it is subtracted first.
    """

    name = "gls"
    paper = "Chennupati et al. 2019"
    cost = "1 backward"
    domain = "positive"

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        log = losses.detach().log()
        weights = (log.mean() - log).exp() / len(losses)
        return torch.where(weights < 1 / LEAST, weights, 0.0) * losses  # as `log_of`
