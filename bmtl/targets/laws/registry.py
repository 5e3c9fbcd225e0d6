"""Kinds of laws by name, and the distribution that a law's parameters make."""

from bmtl.targets.laws.laplace import LaplaceMixture
from bmtl.targets.laws.law import Law
from bmtl.targets.laws.log_normal import LogNormalMixture
from bmtl.targets.laws.mixture import Mixture
from bmtl.targets.laws.multivariate_normal import MultivariateNormalMixture
from bmtl.targets.laws.negative_binomial import NegativeBinomialMixture
from bmtl.targets.laws.poisson import PoissonMixture
from bmtl.targets.laws.student_t import StudentTMixture
from bmtl.targets.laws.weibull import WeibullMixture
from bmtl.targets.laws.zero_inflated_poisson import ZeroInflatedPoissonMixture
from bmtl.targets.scaler import Scaler

Kind = type[Mixture] | type[MultivariateNormalMixture]

LAWS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        StudentTMixture,
        LaplaceMixture,
        PoissonMixture,
        NegativeBinomialMixture,
        ZeroInflatedPoissonMixture,
        WeibullMixture,
        LogNormalMixture,
        MultivariateNormalMixture,
    )
}
"""Kind of law by name."""


def distribution(law: Law) -> Mixture | MultivariateNormalMixture:
    """The predictive distribution of a law.

    Raises:
        ValueError: If there is no such kind, it has other parameters, or one of them is out of its range.
    """
    kind = _kind(law)
    try:
        return kind(**law.parameters)
    except TypeError:
        raise ValueError(
            f"The law {law.name!r} was given the parameters {sorted(law.parameters)}; see bmtl.targets.laws."
        ) from None


def law_to_units(law: Law, scaler: Scaler) -> Law:
    """The law of ``mean + std * y``, where y has the given one.

    Raises:
        ValueError: If there is no such kind, or that is of another kind, as for counts.
    """
    return Law(law.name, _kind(law).to_units(law.parameters, scaler))


def _kind(law: Law) -> Kind:
    if law.name not in LAWS:
        raise ValueError(f"There is no law {law.name!r}; the laws are: {', '.join(LAWS)}.")
    return LAWS[law.name]
