"""Distributions over labels that Pyro does not have, and the losses that belong to them.

Each has ``law()``, the name and parameters of its predictive distribution. Where labels have a form of their own
(intervals, vectors with gaps), the methods ``missing``, ``feasible`` and ``marginal`` say how they are read, and
`bmtl.observe` asks them.
"""

from bmtl.distributions.censored import Censored
from bmtl.distributions.classes import Bernoulli, Categorical
from bmtl.distributions.counts import NegativeBinomial, Poisson, ZeroInflatedPoisson
from bmtl.distributions.evidence import evidence_penalty, lipschitz_mse
from bmtl.distributions.interval_labels import IntervalLabels
from bmtl.distributions.multivariate_normal import MarginalNormal, MultivariateNormal
from bmtl.distributions.normal_inverse_gamma import NormalInverseGamma
from bmtl.distributions.pixels import Pixels
from bmtl.distributions.split_normal import SplitNormal
from bmtl.distributions.student_t import StudentT
from bmtl.distributions.survival import LogNormal, Weibull
from bmtl.distributions.von_mises_fisher import VonMisesFisher

__all__ = [
    "Bernoulli",
    "Categorical",
    "Censored",
    "IntervalLabels",
    "LogNormal",
    "MarginalNormal",
    "MultivariateNormal",
    "NegativeBinomial",
    "NormalInverseGamma",
    "Pixels",
    "Poisson",
    "SplitNormal",
    "StudentT",
    "VonMisesFisher",
    "Weibull",
    "ZeroInflatedPoisson",
    "evidence_penalty",
    "lipschitz_mse",
]
