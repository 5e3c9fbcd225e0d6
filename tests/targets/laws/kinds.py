"""Mixtures of every kind of scalar law with what scipy calls a component."""

import numpy as np
from scipy import stats

from bmtl.targets.laws import (
    LaplaceMixture,
    LogNormalMixture,
    NegativeBinomialMixture,
    PoissonMixture,
    StudentTMixture,
    WeibullMixture,
    ZeroInflatedPoissonMixture,
)


class ZeroInflated:
    """What scipy lacks."""

    def __init__(self, rate, gate):
        self.base, self.gate = stats.poisson(rate), gate

    def pmf(self, k):
        return self.gate * (np.asarray(k) == 0) + (1 - self.gate) * self.base.pmf(k)

    def cdf(self, k):
        return np.where(np.asarray(k) < 0, 0, self.gate + (1 - self.gate) * self.base.cdf(k))

    def sf(self, k):
        return 1 - self.cdf(k)

    def mean(self):
        return (1 - self.gate) * self.base.mean()

    def var(self):
        return (1 - self.gate) * self.base.moment(2) - self.mean() ** 2


def negative_binomial(mean, concentration):
    return stats.nbinom(concentration, concentration / (concentration + mean))


CONTINUOUS = {
    "student-t": (StudentTMixture, stats.norm, ("loc", "scale")),
    "laplace": (LaplaceMixture, stats.laplace, ("loc", "scale")),
    "log-normal": (LogNormalMixture, lambda loc, scale: stats.lognorm(scale, scale=np.exp(loc)), ("loc", "scale")),
    "weibull": (WeibullMixture, lambda scale, k: stats.weibull_min(k, scale=scale), ("scale", "concentration")),
}
COUNTS = {
    "poisson": (PoissonMixture, stats.poisson, ("rate",)),
    "negative-binomial": (NegativeBinomialMixture, negative_binomial, ("mean", "concentration")),
    "zero-inflated-poisson": (ZeroInflatedPoissonMixture, ZeroInflated, ("rate", "gate")),
}
KINDS = CONTINUOUS | COUNTS


def drawn(parameter, shape, random):
    if parameter == "loc":
        return random.normal(size=shape)
    if parameter == "gate":
        return random.uniform(size=shape)
    return np.exp((0.5 if parameter == "scale" else 1) * random.normal(size=shape))


def made(kind, components=4, rows=6, seed=0):
    """A mixture with its components as scipy's, by row."""
    cls, component, names = KINDS[kind]
    random = np.random.default_rng(seed)
    parameters = {name: drawn(name, (components, rows), random) for name in names}
    oracle = [
        [component(*(parameters[name][s, row] for name in names)) for s in range(components)] for row in range(rows)
    ]
    return cls(**parameters), oracle
