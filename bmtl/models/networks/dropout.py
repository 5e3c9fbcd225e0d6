"""MC dropout: dropout that stays active in predictions, as a latent of the program.

    model = TaskModel(mlp(8, (50,), mc_dropout=0.05), 50, {"y": Gaussian("fixed")}, n_data, representation=MCDropout)
    guide = model.guide()
    ...train with BalancedSVI; weight decay is the prior...
    model.set_noise({"y": tau**-0.5})
    draws = bmtl.draw(model, guide, x, num_draws=100)        # 100 thinned networks

Source: Gal & Ghahramani (2016), "Dropout as a Bayesian Approximation". Their L2 penalty, for losses that are halved squared
errors as those of a fixed Gaussian noise are, is a weight decay of ``l^2 (1 - rate) / (2 N tau)``.
"""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Module):
    """Dropout of the last dimension that never stops; what was kept is divided by its share.

    In training mode each row has its own mask, as in `torch.nn.Dropout`, which makes for a quiet gradient. In
    evaluation mode the mask is a latent, common to all rows: one draw is one thinned network, and so `bmtl.draw` takes a
    pass for each. Its site is uniform noise of shape ``(width,)``; units whose noise is below `rate` are dropped. Noise has
    the same distribution in model and guide, and so no part in the ELBO under either estimator.

    A validation loss is that of one such network per batch; average over batches, or over particles of the `TaskELBO`. In
    evaluation mode a layer can run once a pass only: tasks with inputs of their own would draw its site twice, which Pyro
    refuses.

    Args:
        width: Number of units.
        rate: Probability of dropping one.
        site: Name of the latent, a different one for each layer of a program.

    Raises:
        ValueError: If `rate` is not in [0, 1), or `width` is below 1.
    """

    def __init__(self, width: int, rate: float, site: str) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate is a probability of dropping a unit, from 0 and below 1, and {rate} was given.")
        if width < 1:
            raise ValueError(f"width is a number of units, from 1, and {width} was given.")
        self.width, self.rate, self.site = width, rate, site
        self.one = nn.Buffer(torch.ones(()), persistent=False)  # knows device and dtype

    def noise(self) -> Tensor | None:
        """Samples the latent ``(width,)`` in evaluation mode; None in training mode, which has none."""
        if self.training:
            return None
        uniform = dist.Uniform(self.one - 1, self.one).expand([self.width]).to_event(1)
        return pyro.sample(self.site, uniform)

    def forward(self, h: Tensor) -> Tensor:
        noise = self.noise()
        if noise is None:
            return F.dropout(h, self.rate)
        return h * (noise >= self.rate) / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"{self.width}, rate={self.rate}, site={self.site!r}"


def dropout_layers(network: nn.Module) -> list[Dropout]:
    """The `Dropout` layers of a network, in order.

    Raises:
        ValueError: If there is none, or two have one site.
    """
    layers = [part for part in network.modules() if isinstance(part, Dropout)]
    sites = [layer.site for layer in layers]
    if not layers:
        raise ValueError(f"{type(network).__name__} has no Dropout layer (of bmtl.models.networks, not of torch.nn).")
    if len(set(sites)) < len(sites):
        raise ValueError(f"Each Dropout layer has a site of its own, and these were given: {sites}.")
    return layers


class DropoutGuide(nn.Module):
    """The guide of a program with `Dropout` layers: their noise, then what another guide draws.

    For programs of your own; `TaskModel` with ``representation=MCDropout`` makes its guide itself.

    Args:
        network: What holds the layers: a trunk, or the whole program.
        guide: Guide of the program's other latents; None where there are none.

    Raises:
        ValueError: If there is no `Dropout` layer, or two have one site.
    """

    def __init__(self, network: nn.Module, guide: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(dropout_layers(network))
        self.guide = guide

    def forward(self, *args: Any, **kwargs: Any) -> None:
        for layer in self.layers:
            assert isinstance(layer, Dropout)
            layer.noise()
        if self.guide is not None:
            self.guide(*args, **kwargs)
