"""Classes, trained on Kendall's approximation."""

import pyro.distributions as dist
import torch
from torch import Tensor

from bmtl.labels import read_labels
from bmtl.models.likelihoods.base import Values, factor
from bmtl.models.likelihoods.categorical import Categorical
from bmtl.tasks import observe


class Kendall(Categorical):
    """Trains on ``CE(f) / sigma^2 + log sigma``, which is no density; predictions use `Categorical`'s exact form.

    Args:
        count: Number of classes, from 2.
        noise: As for `Categorical`.
        noise_prior: As for `Categorical`.

    Source:
        Kendall, Gal & Cipolla (2018), equation 10. The approximation is exact at sigma = 1 only.
    """

    name = "kendall"
    families = ("classes", "binary")

    def observe(self, target: str, f: Tensor, values: Values, y: Tensor | None, objective: str) -> None:
        site = f"y_{target}"
        if y is None:
            observe(site, self.distribution(f, values), None)
            return
        p = dist.Categorical(logits=f)
        labels = read_labels(site, p, y)
        try:
            loss = -p.log_prob(labels.value)
        except ValueError as error:  # a class that there is not
            raise ValueError(f"At site {site!r}: {error}") from error
        s = values["log_variance"]
        factor(site, loss * torch.exp(-s) + 0.5 * s, labels)
