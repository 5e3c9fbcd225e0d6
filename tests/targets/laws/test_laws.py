"""Properties that mixtures of every kind have, against scipy and against their definitions."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from bmtl.targets import Law, Scaler
from bmtl.targets.laws import (
    LAWS,
    LaplaceMixture,
    LogNormalMixture,
    NegativeBinomialMixture,
    PoissonMixture,
    WeibullMixture,
    ZeroInflatedPoissonMixture,
    distribution,
    law_to_units,
)
from bmtl.targets.laws import mixture as module
from tests.targets.laws import kinds
from tests.targets.laws.kinds import CONTINUOUS, COUNTS, KINDS, made

LEVELS = np.array([1e-9, 1e-3, 0.1, 0.5, 0.7, 0.99, 1 - 1e-9])[:, None]


def mean_of(oracle, method, *arguments):
    return np.mean([getattr(law, method)(*arguments) for law in oracle])


@pytest.mark.parametrize("components", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_scipy(kind, components):
    mixture, oracle = made(kind, components)
    y = np.array([0.0, 1.0, 2.0, 3.0, 5.0, 40.0]) if kind in COUNTS else np.array([-0.4, 0.3, 1.0, 2.0, 0.01, 9.0])
    density = "pmf" if kind in COUNTS else "pdf"
    means, variances = mixture.mean(), mixture.variance()
    for row, laws in enumerate(oracle):
        part = mixture[slice(row, row + 1)]
        assert part.cdf(y[row]) == pytest.approx(mean_of(laws, "cdf", y[row]), rel=1e-10)
        assert part.survival(y[row]) == pytest.approx(mean_of(laws, "sf", y[row]), rel=1e-8, abs=1e-15)
        with np.errstate(divide="ignore"):
            expected = np.log(mean_of(laws, density, y[row]))
        assert part.log_prob(y[row]) == pytest.approx(expected, rel=1e-9, abs=1e-9)
        of_means = np.array([law.mean() for law in laws])
        assert means[row] == pytest.approx(of_means.mean())
        assert variances[row] == pytest.approx(np.mean([law.var() for law in laws]) + of_means.var())


@pytest.mark.parametrize("kind", CONTINUOUS)
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
@example(6, 1952)  # a Weibull component whose own quantile is below the smallest float
def test_quantile_and_cdf_undo_each_other(kind, components, seed):
    mixture, _ = made(kind, components, 5, seed)
    found = mixture.quantile(LEVELS)
    levels = np.broadcast_to(LEVELS, (7, 5))
    kept = abs(found) > 1e-300  # nearer to 0 there is no float with as much probability below it
    np.testing.assert_allclose(mixture.cdf(found)[kept], levels[kept], rtol=1e-8)
    np.testing.assert_allclose(mixture.survival(found)[kept], 1 - levels[kept], rtol=1e-6)
    assert (mixture.cdf(np.full(found.shape, 1e-299))[~kept] > levels[~kept]).all()


@pytest.mark.parametrize("kind", COUNTS)
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(-3, 9))
def test_a_count_s_quantile_is_the_first_that_reaches_the_level(kind, components, seed, size):
    mixture, _ = made(kind, components, 5, seed)
    grown = mixture._with({k: v if k in ("gate",) else v * np.exp(size) for k, v in mixture.parameters.items()})
    found = grown.quantile(LEVELS)
    assert (found == np.floor(found)).all()
    assert (grown.cdf(found) >= LEVELS * (1 - 1e-13) - 1e-15).all()
    assert ((grown.cdf(found - 1) < LEVELS) | (found == 0)).all()
    for k in (0.0, 1.0, 7.0):  # a level that is a cdf is reached by its own count, and not by the next
        level = grown.cdf(k)
        kept = (level > 1e-12) & (level < 1 - 1e-9) & (grown.log_prob(k) > -20)
        np.testing.assert_array_equal(grown.quantile(level)[kept], k)


@pytest.mark.parametrize("kind", COUNTS)
def test_counts_at_the_ends_of_the_levels_and_below_zero(kind):
    mixture, _ = made(kind, 3, 4)
    np.testing.assert_array_equal(mixture.quantile([[0.0], [1.0]]), [[0.0] * 4, [np.inf] * 4])
    np.testing.assert_array_equal(mixture.cdf(-0.5), 0.0)
    np.testing.assert_array_equal(mixture.survival(-0.5), 1.0)
    np.testing.assert_array_equal(mixture.cdf(2.7), mixture.cdf(2.0))
    np.testing.assert_array_equal(mixture.log_prob(0.5), -np.inf)
    np.testing.assert_array_equal(mixture.log_prob(-1.0), -np.inf)


def crps_by_sum(oracle, y, size=4000):
    """The definition for counts: the sum of squared differences of cdfs."""
    k = np.arange(size)
    cdf = np.mean([law.cdf(k) for law in oracle], axis=0)
    return np.square(cdf - (k >= y)).sum()


@pytest.mark.parametrize("components", [1, 4])
@pytest.mark.parametrize("kind", COUNTS)
def test_crps_of_counts_equals_its_sum(kind, components):
    mixture, oracle = made(kind, components)
    for y in (0.0, 1.0, 6.0, 30.0):
        expected = [crps_by_sum(laws, y) for laws in oracle]
        np.testing.assert_allclose(mixture.crps(y), expected, rtol=1e-8)


@pytest.mark.parametrize("components", [2, 4])
@pytest.mark.parametrize("rate", [200.0, 256.0, 500.0, 3e3])
def test_crps_of_large_counts_equals_its_sum(components, rate):
    """Where the sum is taken as an integral, and across the seam."""
    random = np.random.default_rng(1)
    rates = rate * np.exp(0.3 * random.normal(size=(components, 1)))
    shapes = np.exp(2 + random.normal(size=(components, 1)))
    gates = random.uniform(size=(components, 1))
    size = int(100 * rate)
    for mixture, laws in (
        (PoissonMixture(rates), [stats.poisson(r) for (r,) in rates]),
        (
            NegativeBinomialMixture(rates, shapes),
            [kinds.negative_binomial(m, c) for (m,), (c,) in zip(rates, shapes, strict=True)],
        ),
        (
            ZeroInflatedPoissonMixture(rates, gates),
            [kinds.ZeroInflated(r, g) for (r,), (g,) in zip(rates, gates, strict=True)],
        ),
    ):
        np.testing.assert_allclose(mixture.crps(rate), [crps_by_sum(laws, rate, size)], rtol=1e-7)


def test_crps_of_counts_equal_scoringrules():
    oracle = pytest.importorskip("scoringrules")
    random = np.random.default_rng(0)
    y, rate = random.poisson(9, size=100).astype(float), random.uniform(0.5, 30, 100)
    np.testing.assert_allclose(PoissonMixture(rate).crps(y), oracle.crps_poisson(y, rate), rtol=1e-8)
    shape = random.uniform(0.5, 8, 100)
    expected = oracle.crps_negbinom(y, shape, mu=rate)
    np.testing.assert_allclose(NegativeBinomialMixture(rate, shape).crps(y), expected, rtol=1e-7)


def test_crps_of_continuous_laws_equal_scoringrules():
    oracle = pytest.importorskip("scoringrules")
    random = np.random.default_rng(0)
    loc, scale = random.normal(size=100), random.uniform(0.1, 1.5, 100)
    y = np.exp(random.normal(size=100))
    np.testing.assert_allclose(LaplaceMixture(loc, scale).crps(y), oracle.crps_laplace(y, loc, scale), rtol=1e-9)
    np.testing.assert_allclose(LogNormalMixture(loc, scale).crps(y), oracle.crps_lognormal(y, loc, scale), rtol=1e-9)


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("kind", CONTINUOUS)
def test_crps_equals_its_integral(kind, components):
    mixture, oracle = made(kind, components, 3, 4)
    for row, y in enumerate((0.2, 1.5, 5.0)):
        positive = kind in ("log-normal", "weibull")  # integrated over log x
        to, back = (np.log, np.exp) if positive else (np.asarray, np.asarray)

        def integral(start, end, upper, laws=oracle[row], back=back, positive=positive):
            x = np.linspace(start, end, 20_001)
            tail = np.mean([(law.sf if upper else law.cdf)(back(x)) for law in laws], axis=0)
            return integrate.simpson(np.square(tail) * (np.exp(x) if positive else 1), x=x)

        first, last = (to(end) for end in mixture.quantile([[1e-13], [1 - 1e-13]])[:, row])
        if kind == "log-normal":  # whose mean is far out
            last = (mixture.loc + mixture.scale * (mixture.scale + 8))[:, row].max()
        low, high = integral(min(first, to(y)), to(y), False), integral(to(y), max(last, to(y)), True)
        assert mixture.crps(y)[row] == pytest.approx(low + high, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_crps_is_proper(kind):
    """Labels of the mixture itself: on average no other member of its kind scores better."""
    mixture, _ = made(kind, 2, 1, 3)
    wide = mixture._with({name: np.repeat(values, 1500, axis=1) for name, values in mixture.parameters.items()})
    y = wide.sample(1, 0)[0]
    for name, values in mixture.parameters.items():
        for factor in () if name == "df" else (0.5, 2.0):
            moved = (
                values + np.log(factor)
                if name == "loc"
                else np.minimum(values * factor, 1 if name == "gate" else np.inf)
            )
            other = wide._with(wide.parameters | {name: np.repeat(moved, 1500, axis=1)})
            assert other.crps(y).mean() > wide.crps(y).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_the_cdf_and_the_seed(kind):
    mixture, _ = made(kind, 3, 4, 2)
    draws = mixture.sample(4000, 5)
    np.testing.assert_array_equal(draws, mixture.sample(4000, np.random.default_rng(5)))
    # A mean of 4,000 draws is within 4.5 standard errors for 16 rows and kinds together with probability 0.9999.
    error = np.sqrt(mixture.variance() / 4000)
    points = mixture.quantile([[0.2], [0.5], [0.9]])
    shares = (draws[:, None] <= points).mean(axis=0)
    np.testing.assert_allclose(shares, mixture.cdf(points), atol=4.5 * 0.5 / np.sqrt(4000))
    if kind not in ("log-normal", "weibull"):  # whose means hang on a few draws
        np.testing.assert_array_less(np.abs(draws.mean(axis=0) - mixture.mean()), 4.5 * error)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_stays_in_its_row_and_no_row_is_no_trouble(kind):
    mixture, _ = made(kind, 3, 3)
    broken = mixture._with({name: values.copy() for name, values in mixture.parameters.items()})
    next(iter(broken.parameters.values()))[1, 1] = np.nan
    for found in (broken.cdf(2.0), broken.quantile(0.3), broken.log_prob(2.0), broken.crps(2.0), broken.mean()):
        np.testing.assert_array_equal(np.isnan(found), [False, True, False])
    np.testing.assert_array_equal(np.isnan(mixture.cdf([1.0, 2.0, np.nan])), [False, False, True])
    np.testing.assert_array_equal(np.isnan(mixture.quantile([0.1, 0.2, np.nan])), [False, False, True])
    empty = mixture[np.zeros(0, dtype=int)]
    for found in (empty.cdf(np.zeros(0)), empty.quantile(0.5), empty.crps(np.zeros(0)), empty.mean()):
        assert found.shape == (0,)
    assert empty.sample(3, 0).shape == (3, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_nothing(kind, monkeypatch):
    mixture, _ = made(kind, 3, 30)
    y = np.arange(30.0)
    whole = mixture.cdf(y), mixture.quantile(LEVELS), mixture.crps(y)
    monkeypatch.setattr(module, "MEMORY", 100)
    for before, after in zip(whole, (mixture.cdf(y), mixture.quantile(LEVELS), mixture.crps(y)), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-10)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        (LaplaceMixture, {"loc": 0.0, "scale": 0.0}, "A scale is zero"),
        (LogNormalMixture, {"loc": np.inf, "scale": 1.0}, "A loc is infinite"),
        (WeibullMixture, {"scale": 1.0, "concentration": -1.0}, "A concentration is zero, negative"),
        (PoissonMixture, {"rate": -1.0}, "A rate is negative"),
        (NegativeBinomialMixture, {"mean": np.inf, "concentration": 1.0}, "A mean is negative or infinite"),
        (NegativeBinomialMixture, {"mean": 1.0, "concentration": 0.0}, "A concentration is zero"),
        (ZeroInflatedPoissonMixture, {"rate": 1.0, "gate": 1.5}, "A gate is outside"),
        (PoissonMixture, {"rate": np.zeros((1, 2, 3))}, r"expected \(S, N\)"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(kind, parameters, message):
    with pytest.raises(ValueError, match=message):
        kind(**parameters)


def test_every_law_is_tested():
    assert set(LAWS) == {*KINDS, "multivariate-normal"}  # which has a file of its own


@pytest.mark.parametrize("kind", KINDS)
def test_a_law_is_its_distribution_and_rows_of_it(kind):
    mixture, _ = made(kind, 3, 5)
    law = Law(kind, mixture.parameters)
    assert (law.components, law.size) == (3, 5)
    np.testing.assert_array_equal(distribution(law).cdf(1.0), mixture.cdf(1.0))
    np.testing.assert_array_equal(distribution(law.rows(np.array([3, 1]))).cdf(1.0), mixture.cdf(1.0)[[3, 1]])
    both = Law.mixture([law, law])
    assert both.components == 6
    np.testing.assert_allclose(distribution(both).cdf(1.0), mixture.cdf(1.0))


def test_parameters_of_a_law_may_be_common_to_draws_or_rows():
    law = Law("student-t", {"loc": np.zeros((3, 5)), "scale": np.ones((1, 5)), "df": np.full((3, 1), 4.0)})
    assert law.rows(np.array([True, False, True, False, False])).size == 2
    assert {values.shape for values in law.full().parameters.values()} == {(3, 5)}


def test_other_laws_are_refused_by_name():
    with pytest.raises(ValueError, match="no law 'cauchy'; the laws are: student-t"):
        distribution(Law("cauchy", {"loc": np.zeros((1, 1))}))
    with pytest.raises(ValueError, match="'laplace' was given the parameters"):
        distribution(Law("laplace", {"loc": np.zeros((1, 1))}))
    with pytest.raises(ValueError, match="one kind"):
        Law.mixture([Law("poisson", {"rate": np.ones((1, 2))}), Law("laplace", {"loc": np.ones((1, 2))})])
    with pytest.raises(ValueError, match="one kind"):
        Law.mixture([])


@pytest.mark.parametrize(
    ("kind", "shift"), [("student-t", 3.0), ("laplace", 3.0), ("log-normal", 0.0), ("weibull", 0.0)]
)
def test_laws_in_units_are_those_of_scaled_draws(kind, shift):
    mixture, _ = made(kind, 3, 4)
    scaler = Scaler(np.array(shift), np.array(2.5))
    other = distribution(law_to_units(Law(kind, mixture.parameters), scaler))
    y = np.array([0.3, 1.0, 2.0, 4.0])
    np.testing.assert_allclose(other.cdf(scaler.inverse(y)), mixture.cdf(y), rtol=1e-10)
    np.testing.assert_allclose(other.mean(), scaler.inverse(mixture.mean()))
    np.testing.assert_allclose(other.crps(scaler.inverse(y)), 2.5 * mixture.crps(y), rtol=1e-7)


@pytest.mark.parametrize("kind", ["poisson", "negative-binomial", "zero-inflated-poisson", "weibull", "log-normal"])
def test_a_law_that_cannot_be_standardised_says_so(kind):
    mixture, _ = made(kind, 2, 3)
    with pytest.raises(ValueError, match=f"The law '{kind}' is not of numbers that can be standardised"):
        law_to_units(Law(kind, mixture.parameters), Scaler(np.array(1.0), np.array(2.0)))


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_are_infinite_or_out_of_the_range_of_squares(kind):
    mixture, _ = made(kind, 2, 3)
    for y, below in ((np.inf, 1.0), (-np.inf, 0.0), (1e300, 1.0), (-1e300, 0.0)):
        at = np.full(3, y)
        np.testing.assert_allclose(mixture.cdf(at), below, atol=1e-300)
        np.testing.assert_allclose(mixture.survival(at), 1 - below, atol=1e-250)
        np.testing.assert_allclose(mixture.crps(at), abs(y), rtol=1e-9)
        assert (mixture.log_prob(at) < -100).all()
