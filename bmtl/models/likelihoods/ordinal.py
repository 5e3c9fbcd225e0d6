"""Classes in an order: a latent number cut at thresholds."""

from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn import functional as F

from bmtl.distributions import Categorical as CategoricalDistribution
from bmtl.distributions.tails import log1mexp
from bmtl.models.likelihoods.base import Likelihood, Values
from bmtl.models.likelihoods.categorical import check_count, class_count
from bmtl.models.likelihoods.unknown import Noise, Unknown
from bmtl.targets import Family


class Ordinal(Likelihood):
    """Ordered logistic regression: ``P(y <= k) = sigmoid(c_k - f)`` with cut points ``c_1 < ... < c_{C-1}``.

    The cut points are the first one and the logs of the gaps between them, so that they keep their order; they are the
    unknown ``cuts`` ``(C - 1,)``. Without them nothing can be predicted: with a fixed noise they are parameters too.

    Args:
        count: Number of levels C, from 2.
        noise: "fixed" or "parameter" learns the cut points; "latent" gives them a prior.
        noise_prior: Mean and standard deviation of the prior of the first cut point and of the log gaps.

    Raises:
        ValueError: If there are fewer than two levels, or an option is unknown or out of range.

    Source:
        McCullagh (1980), "Regression Models for Ordinal Data": the proportional odds model.
    """

    name = "ordinal"
    families = ("ordinal",)

    def __init__(self, count: int, noise: Noise = "parameter", noise_prior: tuple[float, float] = (0.0, 2.0)) -> None:
        check_count(count)
        treated: Noise = "latent" if noise == "latent" else "parameter"
        even = torch.arange(1, count) / count
        super().__init__(1, noise, {"cuts": Unknown(_from_cuts(even.logit()), treated, noise_prior, 1.0)})
        self.count = count

    @classmethod
    def of(cls, family: Family, **options: Any) -> Self:
        return cls(class_count(family), **options)

    @property
    def classes(self) -> int:
        return self.count

    def start(self, y: Tensor) -> None:
        """The cut points are the logits of the levels' cumulative shares."""
        seen = y[y != -1]
        if len(seen):
            shares = torch.bincount(seen, minlength=self.count) + 0.5  # no level has a share of 0
            cumulative = (shares.cumsum(0) / shares.sum())[:-1]
            self.unknowns["cuts"].start_at(_from_cuts(cumulative.logit()))  # type: ignore[operator]

    def distribution(self, f: Tensor, values: Values) -> TorchDistribution:
        cuts = values["cuts"]
        first, gaps = cuts[..., :1], cuts[..., 1:].exp()
        at = torch.cat([first, first + gaps.cumsum(-1)], -1) - f  # (..., B, C - 1)
        inside = F.logsigmoid(at[..., 1:]) + F.logsigmoid(-at[..., :-1]) + log1mexp(gaps)
        logits = torch.cat([F.logsigmoid(at[..., :1]), inside, F.logsigmoid(-at[..., -1:])], -1)
        return CategoricalDistribution(logits=logits)


def _from_cuts(cuts: Tensor) -> Tensor:
    """The first cut point and the logs of the gaps."""
    return torch.cat([cuts[:1], cuts.diff().log()])
