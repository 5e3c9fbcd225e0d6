"""Priors made of other tasks' posteriors, one rule a file; each is a distribution with its divergence."""

from typing import Literal

from pyro.distributions import TorchDistribution

from bmtl.models.vmtl.priors.components import Components
from bmtl.models.vmtl.priors.log_linear_pool import LogLinearPool
from bmtl.models.vmtl.priors.mixture import Level, Mixture
from bmtl.models.vmtl.priors.moment import moment
from bmtl.models.vmtl.priors.sum import weighted_sum

Rule = Literal["sum", "moment", "mixture", "log-linear-pool"]

__all__ = [
    "Components",
    "Level",
    "LogLinearPool",
    "Mixture",
    "Rule",
    "combine",
    "moment",
    "weighted_sum",
]


def combine(
    rule: Rule, components: Components, *, level: Level = "coordinate", tight: bool = False
) -> TorchDistribution:
    """The prior that a rule makes of components.

    For each q: ``KL(q || mixture) <= tight <= bound``; "sum" and "moment" are not bounds.

    Args:
        rule: "log-linear-pool" (the log-linear pool), "mixture", "moment" (the normal with the mixture's first two
            moments) or
            "sum" (the law of the weighted sum).
        components: The normals and their weights.
        level: Of a mixture, see `Mixture`.
        tight: Of a mixture, see `Mixture`.
    """
    match rule:
        case "log-linear-pool":
            return LogLinearPool(components)
        case "mixture":
            return Mixture(components, level, tight)
        case "moment":
            return moment(components)
        case "sum":
            return weighted_sum(components)
