"""Predictive distributions of targets, rebuilt from the parameters of their components."""

from bmtl.targets.laws.continuous import ContinuousMixture
from bmtl.targets.laws.discrete import CountMixture
from bmtl.targets.laws.empirical import EmpiricalPredictive, sample_crps
from bmtl.targets.laws.laplace import LaplaceMixture
from bmtl.targets.laws.law import Law
from bmtl.targets.laws.log_normal import LogNormalMixture
from bmtl.targets.laws.mixture import Mixture
from bmtl.targets.laws.multivariate_normal import MultivariateNormalMixture
from bmtl.targets.laws.negative_binomial import NegativeBinomialMixture
from bmtl.targets.laws.poisson import PoissonMixture
from bmtl.targets.laws.predictive import Predictive
from bmtl.targets.laws.registry import LAWS, distribution, law_to_units
from bmtl.targets.laws.student_t import StudentTMixture
from bmtl.targets.laws.weibull import WeibullMixture
from bmtl.targets.laws.zero_inflated_poisson import ZeroInflatedPoissonMixture

__all__ = [
    "LAWS",
    "ContinuousMixture",
    "CountMixture",
    "EmpiricalPredictive",
    "LaplaceMixture",
    "Law",
    "LogNormalMixture",
    "Mixture",
    "MultivariateNormalMixture",
    "NegativeBinomialMixture",
    "PoissonMixture",
    "Predictive",
    "StudentTMixture",
    "WeibullMixture",
    "ZeroInflatedPoissonMixture",
    "distribution",
    "law_to_units",
    "sample_crps",
]
