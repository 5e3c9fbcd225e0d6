"""Draws of the latents from another source, such as MCMC, in place of a guide."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from numpy.typing import ArrayLike
from pyro.infer import MCMC
from torch import Tensor, nn


class PosteriorDraws(nn.Module):
    """A guide that returns given draws, so that `bmtl.draw` predicts from any posterior.

    Predictions from a run of NUTS, and a results tree with its chains and divergences, are made by

        mcmc = MCMC(NUTS(model), num_samples=1000, num_chains=4)
        mcmc.run(x, y)
        drawn = bmtl.draw(model, PosteriorDraws.from_mcmc(mcmc), x_new, y_new)

    `bmtl.draw` uses each draw once, in order. A call of the guide itself returns one of them at random, from torch's
    generator. The draws must be of latents common to all rows: a latent in a plate of the training rows does not apply
    to new ones.

    Args:
        samples: Site -> draws ``(S, ...)``, chain after chain.
        chains: Number of chains, equally long.
        sample_stats: The sampler's statistics of each draw ``(S,)``, by ArviZ's names ("diverging", "energy", ...).

    Raises:
        ValueError: If there is no site or no draw, sites or statistics have different numbers of draws, or these cannot be
            divided among the chains.

    Example:
        >>> import torch
        >>> guide = PosteriorDraws({"a": torch.tensor([1.0, 2.0])})
        >>> [guide.at(i)()["a"].item() for i in range(guide.num_draws)]
        [1.0, 2.0]
    """

    def __init__(
        self,
        samples: Mapping[str, Tensor],
        *,
        chains: int = 1,
        sample_stats: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        super().__init__()
        counts = {name: len(values) if values.dim() else 0 for name, values in samples.items()}
        if not counts or len(set(counts.values())) > 1 or not min(counts.values()):
            raise ValueError(f"Draws are (S, ...) with one S from 1 for all sites; got {counts or 'no site'}.")
        self.num_draws = next(iter(counts.values()))
        if chains < 1 or self.num_draws % chains:
            raise ValueError(f"{self.num_draws} draws are not those of {chains} chains of equal length.")
        self.chains = chains
        self.samples = {name: values.detach() for name, values in samples.items()}
        self.sample_stats = {name: np.asarray(values) for name, values in (sample_stats or {}).items()}
        wrong = {name: v.shape for name, v in self.sample_stats.items() if v.shape != (self.num_draws,)}
        if wrong:
            raise ValueError(f"Sampler statistics have one number a draw, ({self.num_draws},); got {wrong}.")

    @classmethod
    def from_mcmc(cls, mcmc: MCMC, sites: Collection[str] | None = None) -> Self:
        """The draws of a finished run of Pyro's MCMC, with its chains and divergences.

        Args:
            mcmc: After ``run``.
            sites: Latents whose draws are used, all by default; others are drawn from the model given these. Leave latents
                in a plate of the training rows out.

        Raises:
            ValueError: If the run has no draws, or lacks a site of `sites`.
        """
        reports: Any = mcmc._diagnostics  # `diagnostics()` also computes R-hat, which needs four draws
        if None in reports:
            raise ValueError("The run of MCMC has no draws. Call mcmc.run(...) first.")
        grouped: dict[str, Tensor] = mcmc.get_samples(group_by_chain=True)
        unknown = sorted(set(sites or ()) - set(grouped))
        if unknown:
            raise ValueError(f"The run has draws of {sorted(grouped)}, and not of {unknown}.")
        kept = {name: values for name, values in grouped.items() if sites is None or name in sites}
        chains, length = next(iter(kept.values())).shape[:2]
        diverging = np.zeros((chains, length), dtype=bool)
        for chain, report in enumerate(reports):
            diverging[chain, report.get("divergences", [])] = True
        return cls(
            {name: values.flatten(0, 1) for name, values in kept.items()},
            chains=chains,
            sample_stats={"diverging": diverging.reshape(-1)},
        )

    def thinned(self, num_draws: int) -> Self:
        """Draws at equal distances in each chain.

        Args:
            num_draws: Number of draws in total, from one per chain to all of them.

        Raises:
            ValueError: If there are fewer, or the number cannot be divided among the chains.
        """
        each, rest = divmod(num_draws, self.chains)
        length = self.num_draws // self.chains
        if rest or not 1 <= each <= length:
            raise ValueError(
                f"The posterior has {self.num_draws} draws in {self.chains} chains, and num_draws is a multiple of the "
                f"number of chains up to that; {num_draws} was given."
            )
        within = torch.arange(each) * length // each
        rows = (torch.arange(self.chains)[:, None] * length + within).flatten()
        return type(self)(
            {name: values[rows.to(values.device)] for name, values in self.samples.items()},
            chains=self.chains,
            sample_stats={name: values[rows.numpy()] for name, values in self.sample_stats.items()},
        )

    def at(self, draw: int) -> Callable[..., dict[str, Tensor]]:
        """The guide that returns one of the draws, as point masses.

        Args:
            draw: Its number, from 0.
        """

        def guide(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
            return {
                name: pyro.sample(name, dist.Delta(values[draw], event_dim=values[draw].dim()))
                for name, values in self.samples.items()
            }

        return guide

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """One of the draws at random, as point masses."""
        return self.at(int(torch.randint(self.num_draws, ())))(*args, **kwargs)
