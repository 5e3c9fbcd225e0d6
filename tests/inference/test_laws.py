"""Laws of torch's and Pyro's distributions: what is rebuilt from name and parameters is the distribution itself."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from bmtl import distributions, targets
from bmtl.inference.laws import LARGEST_MATRIX, law_of, probabilities_of
from bmtl.targets.laws import LAWS, distribution

ROWS, D = 5, 3
F64 = torch.float64
LOC = torch.linspace(-1, 2, ROWS, dtype=F64)
SCALE = torch.linspace(0.3, 1.5, ROWS, dtype=F64)
TRIL = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.8, 0.0], [-0.3, 0.2, 1.2]], dtype=F64)
MEANS = torch.stack([LOC, 2 * LOC, -LOC], -1)

CONTINUOUS = {
    "normal": dist.Normal(LOC, SCALE),
    "one noise": dist.Normal(LOC, torch.tensor(0.7, dtype=F64)),
    "student": dist.StudentT(torch.tensor(4.0, dtype=F64), LOC, SCALE),
    "laplace": dist.Laplace(LOC, SCALE),
    "weibull": dist.Weibull(SCALE, torch.tensor(1.7, dtype=F64)),
    "log-normal": dist.LogNormal(LOC, torch.tensor(0.4, dtype=F64)),
    "masked": dist.Normal(LOC, SCALE).mask(LOC > 0),
    "masked twice": dist.Laplace(LOC, SCALE).mask(LOC > 0).mask(LOC < 1),
    "expanded": dist.Normal(torch.tensor(0.3, dtype=F64), 2.0).expand([ROWS]),
    "expanded by Pyro": dist.ExpandedDistribution(dist.Laplace(torch.tensor([0.3], dtype=F64), 2.0), [ROWS]),
    "expanded from nothing": dist.ExpandedDistribution(dist.Laplace(torch.tensor(0.3, dtype=F64), 2.0), [ROWS]),
    "no event": dist.Normal(LOC, SCALE).to_event(0),
    "censored": distributions.Censored(dist.Normal(LOC, SCALE)),
    "evidential": distributions.NormalInverseGamma(LOC, SCALE, 1 + SCALE, SCALE),
    "survival": distributions.LogNormal(LOC, SCALE),
}
COUNTS = {
    "poisson": dist.Poisson(SCALE * 4),
    "negative binomial": dist.NegativeBinomial(SCALE * 3, probs=torch.tensor(0.4, dtype=F64)),
    "whole failures": dist.NegativeBinomial(3, logits=LOC),
    "gamma poisson": dist.GammaPoisson(SCALE * 3, torch.tensor(0.5, dtype=F64)),
    "zero-inflated": dist.ZeroInflatedPoisson(SCALE * 4, gate=torch.tensor(0.2, dtype=F64)),
    "zero-inflated by logits": dist.ZeroInflatedPoisson(SCALE * 4, gate_logits=LOC),
    "count": distributions.Poisson(LOC),
}
VECTORS = {
    "full": dist.MultivariateNormal(MEANS, scale_tril=TRIL),
    "each row its own": dist.MultivariateNormal(MEANS, scale_tril=TRIL * SCALE[:, None, None]),
    "expanded": dist.MultivariateNormal(MEANS[0], scale_tril=TRIL).expand([ROWS]),
    "low rank": dist.LowRankMultivariateNormal(MEANS, TRIL[:, :1].expand(ROWS, D, 1), torch.ones(D, dtype=F64)),
    "independent": dist.Normal(MEANS, SCALE[:, None]).to_event(1),
    "independent, one noise": dist.Normal(MEANS, torch.tensor(0.5, dtype=F64)).to_event(1),
    "independent, masked": dist.Normal(MEANS, TRIL.diagonal()).to_event(1).mask(LOC > 0),
    "with marginals": distributions.MultivariateNormal(MEANS, scale_tril=TRIL),
}


def rebuilt(fn):
    """The numpy distribution of one component that is made of a law's name and parameters."""
    name, parameters = law_of(fn)
    assert name in LAWS
    parameters = {key: value.expand(ROWS, *value.shape[1:]).numpy()[None] for key, value in parameters.items()}
    return distribution(targets.Law(name, parameters))


def bare(fn):
    while isinstance(fn, dist.MaskedDistribution):
        fn = fn.base_dist
    return fn


@pytest.mark.parametrize("fn", [*CONTINUOUS.values(), *COUNTS.values()], ids=[*CONTINUOUS, *COUNTS])
def test_moments_and_densities_are_the_distributions_own(fn):
    found = rebuilt(fn)
    np.testing.assert_allclose(np.broadcast_to(found.mean(), ROWS), fn.mean, rtol=1e-6)
    np.testing.assert_allclose(np.broadcast_to(found.variance(), ROWS), fn.variance, rtol=1e-5)
    values = fn.sample((20,))
    expected = bare(fn).log_prob(values)
    np.testing.assert_allclose(found.log_prob(values.numpy()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fn", VECTORS.values(), ids=VECTORS)
def test_joint_densities_are_the_distributions_own(fn):
    found = rebuilt(fn)
    np.testing.assert_allclose(np.broadcast_to(found.mean(), (ROWS, D)), fn.mean, rtol=1e-6)
    np.testing.assert_allclose(np.broadcast_to(found.variance(), (ROWS, D)), fn.variance, rtol=1e-6)
    values = fn.sample((4,))
    for each in values:
        np.testing.assert_allclose(found.log_prob(each.numpy()), bare(fn).log_prob(each), rtol=1e-5)


def test_a_number_for_all_rows_is_there_once():
    """Also where a plate has expanded it, and one covariance of all rows."""
    shapes = {
        name: {key: tuple(value.shape) for key, value in law_of(fn)[1].items()}
        for name, fn in {**CONTINUOUS, **COUNTS, **VECTORS}.items()
    }
    assert shapes["one noise"] == {"loc": (ROWS,), "scale": (1,), "df": (1,)}
    assert shapes["poisson"] == {"rate": (ROWS,)}
    assert shapes["negative binomial"] == {"mean": (ROWS,), "concentration": (ROWS,)}
    assert shapes["whole failures"]["concentration"] == (1,)
    assert shapes["full"] == {"loc": (ROWS, D), "scale_tril": (1, D, D)}
    assert shapes["expanded"] == {"loc": (1, D), "scale_tril": (1, D, D)}
    assert shapes["each row its own"]["scale_tril"] == (ROWS, D, D)
    assert shapes["independent, one noise"]["scale_tril"] == (1, D, D)
    assert shapes["with marginals"]["scale_tril"] == (1, D, D)
    plates = dist.Normal(torch.zeros(2, ROWS), torch.ones(2, 1).expand(2, ROWS))
    assert [tuple(value.shape) for value in law_of(plates)[1].values()] == [(2, ROWS), (2, 1), (1, 1)]


@pytest.mark.parametrize(
    "fn",
    [
        dist.Gamma(SCALE, SCALE),
        dist.ZeroInflatedNegativeBinomial(SCALE, gate=SCALE / 2, logits=LOC),
        dist.Normal(MEANS[..., None], 1.0).to_event(2),
        dist.Laplace(MEANS, 1.0).to_event(1),
        dist.StudentT(3.0, MEANS, 1.0).to_event(1),
        dist.Normal(torch.zeros(ROWS, LARGEST_MATRIX + 1), 1.0).to_event(1),  # d * d numbers a row and draw
        dist.MultivariateNormal(MEANS[None], scale_tril=TRIL).to_event(1),
        dist.Categorical(torch.ones(ROWS, 3)),
        distributions.Censored(dist.Normal(LOC, SCALE), upper=1.0),  # its draws stop at the bound
    ],
    ids=lambda fn: type(fn).__name__,
)
def test_what_has_no_name_is_left_to_draws(fn):
    assert law_of(fn) is None


CLASSES = {
    "categorical": (dist.Categorical(logits=MEANS), MEANS.softmax(-1)),
    "two classes": (dist.Bernoulli(SCALE / 2), torch.stack([1 - SCALE / 2, SCALE / 2], -1)),
    "logits": (dist.Bernoulli(logits=LOC), torch.stack([(-LOC).sigmoid(), LOC.sigmoid()], -1)),
    "masked": (dist.Bernoulli(logits=LOC).mask(LOC > 0), torch.stack([(-LOC).sigmoid(), LOC.sigmoid()], -1)),
    "expanded": (
        dist.ExpandedDistribution(dist.Bernoulli(torch.tensor(0.3)), [ROWS]),
        torch.tensor([[0.7, 0.3]] * ROWS),
    ),
    "no event": (dist.Categorical(logits=MEANS).to_event(0), MEANS.softmax(-1)),
}


@pytest.mark.parametrize(("fn", "expected"), CLASSES.values(), ids=CLASSES)
def test_class_probabilities(fn, expected):
    torch.testing.assert_close(probabilities_of(fn), expected)


def test_ordered_classes_are_differences_of_a_logistic_cdf():
    cuts = torch.tensor([-1.0, 0.5, 2.0], dtype=F64)
    found = probabilities_of(dist.OrderedLogistic(LOC, cuts)).numpy()
    below = stats.logistic.cdf(cuts.numpy()[None] - LOC.numpy()[:, None])
    np.testing.assert_allclose(found, np.diff(below, axis=1, prepend=0, append=1), atol=1e-12)


@pytest.mark.parametrize(
    "fn", [dist.Normal(LOC, SCALE), dist.Bernoulli(MEANS.sigmoid()).to_event(1), dist.OneHotCategorical(logits=MEANS)]
)
def test_what_is_not_over_classes_has_no_class_probabilities(fn):
    assert probabilities_of(fn) is None


def test_a_distribution_of_ones_own_answers_for_itself():
    class Own(dist.Gamma):
        def law(self):
            return "poisson", {"rate": self.rate}

        def class_probabilities(self):
            return torch.ones(ROWS, 1)

    fn = Own(SCALE, torch.tensor(2.0, dtype=F64).expand(ROWS))
    name, parameters = law_of(fn)
    assert (name, parameters["rate"].tolist()) == ("poisson", [2.0])
    assert probabilities_of(fn.mask(LOC > 0)).shape == (ROWS, 1)
