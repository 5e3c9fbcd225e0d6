"""Draws of the latents that were made elsewhere, by MCMC for one, in the place of a guide."""

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
from torch import Tensor, nn


class PosteriorDraws(nn.Module):
    """A guide that hands out given draws, one a call and in turn, so that `bmtl.draw` reads any posterior.

    With as many ``num_draws`` as there are draws, each is used once. They must be of latents that hold for all rows: a
    latent in a plate of the training rows says nothing of new ones.

    Args:
        samples: Site -> draws ``(S, ...)``, as `pyro.infer.MCMC.get_samples` gives them.

    Raises:
        ValueError: If there is no site or no draw, or sites have different numbers of draws.

    Example:
        >>> import torch
        >>> guide = PosteriorDraws({"a": torch.tensor([1.0, 2.0])})
        >>> [guide()["a"].item() for _ in range(3)]
        [1.0, 2.0, 1.0]
    """

    def __init__(self, samples: Mapping[str, Tensor]) -> None:
        super().__init__()
        counts = {name: len(values) if values.dim() else 0 for name, values in samples.items()}
        if not counts or len(set(counts.values())) > 1 or not min(counts.values()):
            raise ValueError(f"Draws are (S, ...) with one S from 1 for all sites; got {counts or 'no site'}.")
        self.samples = {name: values.detach() for name, values in samples.items()}
        self.count = next(iter(counts.values()))
        self.turn = 0

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The next draw, as point masses."""
        i, self.turn = self.turn % self.count, self.turn + 1
        return {
            name: pyro.sample(name, dist.Delta(values[i], event_dim=values[i].dim()))
            for name, values in self.samples.items()
        }
