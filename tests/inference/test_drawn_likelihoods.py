"""Draws under every kind of likelihood, against the distributions at the very draws that the posterior lists."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import bmtl
from bmtl import distributions
from bmtl.inference.draws import draw
from bmtl.targets.laws import distribution

ROWS, D = 9, 3
X = torch.linspace(-1, 1.5, ROWS, dtype=torch.float64)
NAN, INF = math.nan, math.inf
COVARIANCE = torch.tensor([[1.0, 0.4, -0.2], [0.4, 0.8, 0.1], [-0.2, 0.1, 0.5]], dtype=torch.float64)


def program(family):
    """A program with one latent w, of which a row's distribution is a function, and a guide that is no prior."""

    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
        with bmtl.task("a"), pyro.plate("rows", 50, subsample=x):
            bmtl.observe("y_a", family(x, w), None if y is None else y["a"])

    def guide(x):
        pyro.sample("w", dist.Normal(torch.full((), 0.6, dtype=x.dtype), 0.3))

    return model, guide


def positive(x, w):
    return (0.5 * x + w).exp()


def joint(x, w):
    return torch.stack([x * w, w - x, 2 * x], -1)


REAL = {
    "normal": lambda x, w: dist.Normal(w * x, 0.5),
    "heteroscedastic": lambda x, w: dist.Normal(w, positive(x, w)),
    "student": lambda x, w: dist.StudentT(4.0, w * x, 0.5),
    "laplace": lambda x, w: dist.Laplace(w * x, 0.5),
    "evidential": lambda x, w: distributions.NormalInverseGamma(w * x, positive(x, w), 2.5, positive(x, w)),
    "masked": lambda x, w: dist.Normal(w * x, 0.5).mask(x > 0),
    "gamma": lambda x, w: dist.Gamma(2.0, positive(x, w)),
}
COUNTS = {
    "poisson": lambda x, w: dist.Poisson(positive(x, w)),
    "gamma poisson": lambda x, w: dist.GammaPoisson(2.0, 1 / positive(x, w)),
    "negative binomial": lambda x, w: dist.NegativeBinomial(3.0, logits=x + w - 2),
    "zero-inflated": lambda x, w: dist.ZeroInflatedPoisson(positive(x, w), gate=w.sigmoid()),
    "log rates": lambda x, w: distributions.Poisson(x + w),
}
TIMES = {
    "weibull": lambda x, w: distributions.Weibull(x + w, torch.tensor(math.log(1.5), dtype=x.dtype)),
    "log-normal": lambda x, w: distributions.LogNormal(x + w, torch.tensor(0.7, dtype=x.dtype)),
    "censored": lambda x, w: distributions.Censored(dist.Normal(x + w, 0.7)),
    "censored student": lambda x, w: distributions.Censored(distributions.StudentT(5.0, x + w, 0.7)),
}
VECTORS = {
    "one covariance": lambda x, w: dist.MultivariateNormal(joint(x, w), COVARIANCE),
    "each row its own": lambda x, w: dist.MultivariateNormal(joint(x, w), COVARIANCE * positive(x, w)[:, None, None]),
    "with marginals": lambda x, w: distributions.MultivariateNormal(joint(x, w), COVARIANCE),
    "independent": lambda x, w: dist.Normal(joint(x, w), 0.5).to_event(1),
    "many": lambda x, w: dist.Laplace(joint(x, w), 0.5).to_event(1),
}
ALL = {**REAL, **COUNTS, **TIMES, **VECTORS}


def labels_for(name):
    """Labels that the family takes, with a row missing."""
    random = np.random.default_rng(0)
    if name in VECTORS:
        y = random.normal(size=(ROWS, D))
    elif name in COUNTS:
        y = random.poisson(2.0, size=ROWS).astype(float)
    elif name in TIMES:
        lower = random.gamma(2.0, size=ROWS)
        upper = np.where(np.arange(ROWS) % 3 == 0, lower, np.where(np.arange(ROWS) % 3 == 1, lower + 0.5, INF))
        y = np.stack([np.where(np.arange(ROWS) == 7, 0.0, lower), upper], -1)
    else:
        y = random.gamma(2.0, size=ROWS)
    y[2] = NAN
    return torch.tensor(y)


def each(name, found):
    """The distribution of all rows at each draw of the posterior."""
    return [ALL[name](X, torch.tensor(w)) for w in found.posterior["w"]]


def bare(fn):
    return fn.base_dist if isinstance(fn, dist.MaskedDistribution) else fn


@pytest.mark.parametrize("name", ALL)
def test_moments_are_those_of_the_mixture_of_draws(name):
    """Means, and the law of total variance: within the draws' distributions, and between their means."""
    found = draw(*program(ALL[name]), X, num_draws=12)
    at = each(name, found)
    got = found.targets["a"]
    means, variances = (
        np.stack([np.broadcast_to(v, at[0].sample().shape) for v in of])
        for of in (
            [fn.mean.numpy() for fn in at],
            [(getattr(fn, "aleatoric", None) if hasattr(fn, "aleatoric") else fn.variance).numpy() for fn in at],
        )
    )
    np.testing.assert_allclose(got.mean, means.mean(0), rtol=1e-6)
    np.testing.assert_allclose(got.aleatoric, variances.mean(0), rtol=1e-6)
    own = np.mean([np.broadcast_to(getattr(fn, "epistemic", 0.0), means[0].shape) for fn in at], axis=0)
    np.testing.assert_allclose(got.epistemic, means.var(0) + own, rtol=1e-6, atol=1e-12)
    assert got.draws.shape == (12, *at[0].sample().shape)
    assert got.probability is None
    if got.law is not None:  # the same moments come from the law's name and parameters
        mixture = distribution(got.law)
        assert (got.law.components, got.law.size) == (12, ROWS)
        np.testing.assert_allclose(mixture.mean(), got.mean, rtol=1e-6)
        np.testing.assert_allclose(mixture.variance(), got.aleatoric + got.epistemic, rtol=1e-5)


@pytest.mark.parametrize("name", [*REAL, *COUNTS])
def test_densities_of_numbers(name):
    y = labels_for(name)
    found = draw(*program(ALL[name]), X, {"a": y}, num_draws=6)
    got = found.targets["a"]
    seen = ~np.isnan(y.numpy()) & ((X > 0).numpy() if name == "masked" else True)
    assert (np.isnan(got.log_likelihood) == ~seen).all()
    expected = np.stack([bare(fn).log_prob(y.nan_to_num(1.0)).numpy() for fn in each(name, found)])
    np.testing.assert_allclose(got.log_likelihood[:, seen], expected[:, seen], rtol=1e-5, atol=1e-6)
    if name in COUNTS:
        assert got.pit is None
        integers = draw(*program(ALL[name]), X, {"a": y.nan_to_num(-1.0).long()}, num_draws=6).targets["a"]
        np.testing.assert_allclose(integers.log_likelihood, got.log_likelihood, rtol=1e-6)
    else:
        assert (np.isnan(got.pit) == ~seen).all()
        if name != "student":  # torch's has no cdf, and the share of draws below is all there is
            cdf = np.mean([bare(fn).cdf(y.nan_to_num(1.0)).numpy() for fn in each(name, found)], axis=0)
            np.testing.assert_allclose(got.pit[seen], cdf[seen], rtol=1e-6)


@pytest.mark.parametrize("name", TIMES)
def test_densities_of_exact_labels_and_probabilities_of_intervals(name):
    """By scipy: a density where the ends are equal, else the probability between them."""
    y = labels_for(name)
    found = draw(*program(ALL[name]), X, {"a": y}, num_draws=5)
    got = found.targets["a"]
    lower, upper = y.numpy().T
    seen, exact = ~np.isnan(lower), lower == upper
    assert exact.sum() > 1
    assert (seen & ~exact).sum() > 3
    expected, cdf = [], []
    for w in found.posterior["w"]:
        mean = X.numpy() + w
        oracle = {
            "weibull": stats.weibull_min(1.5, scale=np.exp(mean)),
            "log-normal": stats.lognorm(0.7, scale=np.exp(mean)),
            "censored": stats.norm(mean, 0.7),
            "censored student": stats.t(5.0, mean, 0.7),
        }[name]
        with np.errstate(divide="ignore", invalid="ignore"):
            expected.append(np.where(exact, oracle.logpdf(lower), np.log(oracle.cdf(upper) - oracle.cdf(lower))))
        cdf.append(oracle.cdf(lower))
    assert (np.isnan(got.log_likelihood) == ~seen).all()
    np.testing.assert_allclose(got.log_likelihood[:, seen], np.stack(expected)[:, seen], rtol=1e-5)
    assert (np.isnan(got.pit) == ~exact).all()
    np.testing.assert_allclose(got.pit[exact], np.mean(cdf, axis=0)[exact], rtol=1e-5)
    assert got.draws.shape == (5, ROWS)
    prior = stats.norm(0, 1).logpdf(found.posterior["w"])
    np.testing.assert_allclose(found.log_p, prior + np.nansum(got.log_likelihood, axis=1), rtol=1e-6)


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_with_gaps_have_the_density_of_what_is_there(name):
    """The marginal of the components that a row has, where the distribution offers it; else the row is missing."""
    y = labels_for(name)
    y[4, 1], y[5, :2] = NAN, NAN
    found = draw(*program(ALL[name]), X, {"a": y}, num_draws=4)
    got = found.targets["a"]
    marginal = name == "with marginals"
    assert got.log_likelihood.shape == (4, ROWS)
    assert np.isnan(got.log_likelihood).all(0).nonzero()[0].tolist() == ([2] if marginal else [2, 4, 5])
    assert got.pit is None
    for s, fn in enumerate(each(name, found)):
        np.testing.assert_allclose(got.log_likelihood[s, :2], fn.log_prob(y.nan_to_num(0.0))[:2], rtol=1e-6)
        if marginal:
            for row, there in ((4, [0, 2]), (5, [2])):
                part = stats.multivariate_normal(fn.mean[row][there], COVARIANCE[there][:, there])
                assert got.log_likelihood[s, row] == pytest.approx(part.logpdf(y[row][there]), rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("name", ALL)
def test_chunks_are_the_whole(name, batch_size):
    y = {"a": labels_for(name)}
    whole, cut = (draw(*program(ALL[name]), X, y, num_draws=5, batch_size=size) for size in (None, batch_size))
    one, other = whole.targets["a"], cut.targets["a"]
    for field in ("mean", "aleatoric", "epistemic", "log_likelihood"):
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=1e-6, atol=1e-12)
    if one.pit is not None and name != "student":
        np.testing.assert_allclose(one.pit, other.pit, rtol=1e-6)
    if one.law is not None:
        assert one.law.name == other.law.name
        for key, values in one.law.full().parameters.items():
            np.testing.assert_allclose(values, other.law.full().parameters[key], rtol=1e-6)
    np.testing.assert_allclose(whole.log_p, cut.log_p, rtol=1e-6)
    np.testing.assert_array_equal(whole.posterior["w"], cut.posterior["w"])


def test_a_covariance_of_all_rows_is_kept_once_a_draw():
    found = draw(*program(VECTORS["one covariance"]), X, num_draws=4, batch_size=4).targets["a"]
    assert {key: values.shape for key, values in found.law.parameters.items()} == {
        "loc": (4, ROWS, D),
        "scale_tril": (4, 1, D, D),
    }


def test_one_distribution_for_all_rows_still_counts_them():
    found = draw(*program(lambda x, w: dist.Poisson(w.exp())), X, num_draws=3, batch_size=2).targets["a"]
    assert (found.law.components, found.law.size) == (3, ROWS)
    assert found.law.parameters["rate"].shape == (3, ROWS)


ORDERED = {
    "ordered": (lambda x, w: dist.OrderedLogistic(x + w, torch.tensor([-0.5, 0.8], dtype=x.dtype)), 3),
    "categorical": (lambda x, w: dist.Categorical(logits=torch.stack([x, w - x, 0 * x + w], -1)), 3),
    "two classes": (lambda x, w: dist.Bernoulli(logits=x + w), 2),
    "masked": (lambda x, w: dist.Bernoulli(logits=x + w).mask(x > -2), 2),
}


@pytest.mark.parametrize(("family", "classes"), ORDERED.values(), ids=ORDERED)
@pytest.mark.parametrize("batch_size", [None, 4])
def test_classes_have_probabilities_and_entropies(family, classes, batch_size):
    y = torch.arange(ROWS) % classes
    y[3] = -1
    found = draw(*program(family), X, {"a": y}, num_draws=7, batch_size=batch_size)
    got = found.targets["a"]
    fns = [family(X, torch.tensor(w)) for w in found.posterior["w"]]
    p = np.stack(
        [
            np.exp(
                np.stack(
                    [
                        bare(fn).log_prob(torch.full((ROWS,), float(c)).to(y if classes > 2 else X))
                        for c in range(classes)
                    ],
                    -1,
                )
            )
            for fn in fns
        ]
    )
    np.testing.assert_allclose(got.probability, p.mean(0), rtol=1e-6)
    within = stats.entropy(p, axis=-1).mean(0)
    np.testing.assert_allclose(got.aleatoric, within, rtol=1e-6)
    np.testing.assert_allclose(got.epistemic, stats.entropy(p.mean(0), axis=-1) - within, rtol=1e-4, atol=1e-9)
    seen = y.numpy() != -1
    picked = np.take_along_axis(p, np.maximum(y.numpy(), 0)[None, :, None], -1)[..., 0]
    np.testing.assert_allclose(got.log_likelihood[:, seen], np.log(picked)[:, seen], rtol=1e-6)
    assert np.isnan(got.log_likelihood[:, ~seen]).all()
    assert got.mean is got.law is got.pit is None


def test_a_dense_target_keeps_its_pixels():
    def model(x, y=None):
        with bmtl.task("a"), pyro.plate("rows", 4, dim=-3), pyro.plate("h", 2, dim=-2), pyro.plate("w", 3, dim=-1):
            bmtl.observe("y_a", dist.Categorical(logits=x[..., None] * torch.arange(3.0)), None)

    x = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(4, 2, 3, dtype=torch.int64)
    y[1, 0, 2] = -1
    got = draw(model, lambda x: None, x, {"a": y}, num_draws=5).targets["a"]
    assert got.draws.shape == (5, 4, 2, 3)
    np.testing.assert_allclose(got.probability, (x[..., None] * torch.arange(3.0)).softmax(-1), rtol=1e-5)
    assert np.isnan(got.log_likelihood).sum() == 1


# ---- What does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "labels", "error", "message"),
    [
        (
            REAL["normal"],
            torch.zeros(ROWS, 2),
            ValueError,
            r"labels of shape \(9, 2\) were given where the model predicts \(9,\)",
        ),
        (TIMES["weibull"], torch.ones(ROWS, 3), ValueError, r"labels of shape \(9, 3\) were given"),
        (VECTORS["many"], torch.zeros(ROWS), ValueError, r"labels of shape \(9,\) were given where .* \(9, 3\)"),
        (VECTORS["many"], torch.zeros(ROWS, D).long(), TypeError, "continuous distribution"),
        (COUNTS["poisson"], -2 * torch.ones(ROWS), ValueError, "within the support"),
        (lambda x, w: dist.LogNormal(w, 1.0), -torch.ones(ROWS), ValueError, "within the support"),
    ],
)
def test_labels_that_do_not_fit_name_target_and_site(family, labels, error, message):
    with pytest.raises(error, match=r"^Target 'a' \(site 'y_a'\): .*" + message):
        draw(*program(family), X, {"a": labels}, num_draws=2)


def test_a_target_of_two_kinds_of_distribution_is_refused():
    def family(x, w):
        return dist.Normal(x, 1.0) if w > 0.6 else dist.Laplace(x, 1.0)

    with pytest.raises(ValueError, match="Target 'a' has a law .* A target is of one kind"):
        draw(*program(family), X, num_draws=30)
