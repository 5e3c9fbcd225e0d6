import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.special import softmax

from bmtl.evaluation.calibration_maps import (
    IsotonicPredictive,
    PitMap,
    fit_scale,
    fit_temperature,
    label_log_prob,
    tempered,
)
from bmtl.targets.laws import LaplaceMixture, StudentTMixture
from bmtl.targets.metrics.pit import LEVELS
from bmtl.targets.metrics.proper_scores import nll_of_probabilities

NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)
pits = arrays(float, st.integers(1, 300), elements=st.floats(0, 1))


def mixture_of(rows, components=3, seed=0):
    random = np.random.default_rng(seed)
    shape = (components, rows)
    return StudentTMixture(random.normal(size=shape), random.uniform(0.3, 1.5, shape), random.uniform(2.5, 20, shape))


@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
@pytest.mark.parametrize("components", [1, 4])
def test_a_factor_on_scales_is_recovered(factor, components):
    """Labels drawn with scales `factor` times those that are predicted: within four standard errors."""
    told = mixture_of(20_000, components)
    if components > 1:  # as posterior draws are: near each other beside their scales
        told = StudentTMixture(0.1 * told.loc, told.scale, told.df)
    y = told.scaled(factor).sample(1, 1)[0]
    assert fit_scale(told, y) == pytest.approx(factor, rel=4 * np.sqrt(0.7 / 20_000))


def test_of_normals_the_factor_is_the_root_mean_square():
    random = np.random.default_rng(0)
    y, loc, scale = *random.normal(size=(2, 50)), random.uniform(0.5, 2, 50)
    expected = np.sqrt(np.square((y - loc) / scale).mean())
    assert fit_scale(StudentTMixture(loc, scale), y) == pytest.approx(expected, rel=1e-6)
    assert fit_scale(StudentTMixture(loc, scale * 5), y) == pytest.approx(expected / 5, rel=1e-6)


def test_a_likelihood_without_a_maximum_is_refused():
    with pytest.raises(ValueError, match="labels are predicted exactly"):
        fit_scale(StudentTMixture([1.0, 2.0], 1.0), [1.0, 2.0])
    with pytest.raises(ValueError, match="a validation row at least"):
        fit_scale(StudentTMixture(np.zeros((1, 0)), 1.0), [])
    with pytest.raises(ValueError, match="is NaN"):
        fit_scale(StudentTMixture([1.0, 2.0], 1.0), [np.nan, 2.0])


@given(pits)
def test_a_pit_map_rises_from_zero_to_one_and_has_an_inverse(pit):
    fitted = PitMap.fitted(pit)
    assert (np.diff(fitted.knots) > 0).all()
    assert (np.diff(fitted.levels) > 0).all()
    assert fitted(0) == 0
    assert fitted(1) == 1
    u = np.linspace(0, 1, 37)
    np.testing.assert_allclose(fitted(fitted.inverse(u)), u, atol=1e-3)  # next to 1 a knot's digits run out
    assert (fitted.slopes @ np.diff(fitted.knots)) == pytest.approx(1)


def test_a_pit_map_makes_what_it_was_fitted_on_uniform_and_new_rows_nearly():
    random = np.random.default_rng(0)
    pit, new = random.beta(0.4, 0.7, size=(2, 5000))
    fitted = PitMap.fitted(pit)
    np.testing.assert_allclose(np.quantile(fitted(pit), LEVELS[:-1]), LEVELS[:-1], atol=1e-3)
    assert np.abs(np.quantile(fitted(new), LEVELS) - LEVELS).max() < 4 * np.sqrt(2 * 0.25 / 5000)
    uniform = random.uniform(size=5000)
    assert np.abs(PitMap.fitted(uniform)(LEVELS) - LEVELS).max() < 4 * np.sqrt(0.25 / 5000)


def test_a_pit_map_at_its_knots_is_isotonic_regression():
    oracle = pytest.importorskip("sklearn.isotonic")
    pit = np.random.default_rng(0).beta(2, 1, size=99)  # knots at every one of them
    observed = np.argsort(np.argsort(pit)) + 1.0
    expected = oracle.IsotonicRegression().fit(pit, observed / 100).predict(pit)
    np.testing.assert_allclose(PitMap.fitted(pit)(pit), expected, atol=1e-12)


def test_pit_maps_of_adversarial_rows():
    atoms = PitMap.fitted([0.0] * 10 + [1.0] * 10)
    assert atoms(0.5) == pytest.approx(0.5)
    np.testing.assert_allclose(PitMap.fitted([0.5] * 7)(0.5), 0.5)
    for pit, message in (([], "a row at least"), ([0.5, np.nan], "1 of 2 PIT values are NaN"), ([1.5], "a cdf is in")):
        with pytest.raises(ValueError, match=message):
            PitMap.fitted(pit)


def test_an_isotonic_predictive_is_a_distribution():
    base = mixture_of(2)
    after = IsotonicPredictive(base, PitMap.fitted(np.random.default_rng(0).beta(0.5, 0.8, size=9)))
    levels = np.array([[0.01], [0.2], [0.5], [0.9]])
    np.testing.assert_allclose(after.cdf(after.quantile(levels)), np.broadcast_to(levels, (4, 2)), rtol=1e-8)
    for row in range(2):
        one = IsotonicPredictive(base[slice(row, row + 1)], after.map)
        inner = np.concatenate([one.base.quantile(one.map.knots[1:-1, None])[:, 0], [0.0]])
        ends = np.sort(np.concatenate([inner, np.outer([-1, 1], np.geomspace(0.01, 1e3, 30)).ravel()]))

        # Between knots the density is smooth: 40 Gauss-Legendre nodes a piece, all at once.
        low, high = ends[:-1, None], ends[1:, None]
        x = (low + high) / 2 + (high - low) / 2 * NODES  # (pieces, nodes)
        mass = (high - low) / 2 * WEIGHTS * np.exp(one.log_prob(x.reshape(-1, 1))).reshape(x.shape)

        def integral(power, x=x, mass=mass):
            return float((x**power * mass).sum())

        assert integral(0) == pytest.approx(1, abs=1e-4)
        mean = integral(1)
        assert after.mean()[row] == pytest.approx(mean, abs=1e-3)
    draws = after.sample(20_000, 0)
    np.testing.assert_allclose(draws.mean(axis=0), after.mean(), atol=4 * np.sqrt(draws.var(axis=0).max() / 20_000))
    assert all(stats.kstest(one, "uniform").pvalue > 1e-4 for one in after.cdf(draws).T)
    lower, upper = after.interval(0.8)
    np.testing.assert_allclose(after.cdf(upper) - after.cdf(lower), 0.8, rtol=1e-8)


def test_an_even_map_changes_nothing():
    base = mixture_of(4)
    even = IsotonicPredictive(base, PitMap(np.linspace(0, 1, 12), np.linspace(0, 1, 12)))
    y = np.array([-1.0, 0.0, 0.4, 3.0])
    for name in ("cdf", "log_prob"):
        np.testing.assert_allclose(getattr(even, name)(y), getattr(base, name)(y), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(even.mean(), base.mean(), atol=1e-10)


def test_the_mean_of_a_law_without_closed_pieces_is_that_of_its_quantiles():
    random = np.random.default_rng(0)
    fitted = PitMap.fitted(random.beta(0.8, 1.2, size=50))
    base = LaplaceMixture(random.normal(size=(2, 3)), 1.0)
    after = IsotonicPredictive(base, fitted)
    np.testing.assert_allclose(after.mean(), after.sample(100_000, 1).mean(axis=0), atol=0.03)


def test_likelihoods_of_intervals_keep_their_digits_in_both_tails():
    normal = StudentTMixture(np.zeros(5), 1.0)
    labels = np.array([[0.3, 0.3], [10, np.inf], [-np.inf, -10], [10, 11], [-11, -10]])
    tail = stats.norm.logsf(10)
    between = np.log(stats.norm.sf(10) - stats.norm.sf(11))
    expected = [stats.norm.logpdf(0.3), tail, tail, between, between]
    np.testing.assert_allclose(label_log_prob(normal, labels), expected, rtol=1e-10)
    np.testing.assert_array_equal(label_log_prob(normal, labels[:, 0]), normal.log_prob(labels[:, 0]))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_temperature_is_recovered(temperature):
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(40_000, 5))
    y = (logits / temperature + random.gumbel(size=logits.shape)).argmax(axis=1)
    assert fit_temperature(softmax(logits, axis=1), y) == pytest.approx(temperature, rel=0.05)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.3, 3))
def test_no_other_temperature_is_more_probable(seed, rows, spread):
    random = np.random.default_rng(seed)
    probabilities, y = softmax(random.normal(size=(rows, 3)), axis=1), random.integers(3, size=rows)
    fitted = fit_temperature(probabilities, y, spread=spread)

    def loss(temperature):
        likelihood = rows * nll_of_probabilities(y, tempered(probabilities, temperature))
        return likelihood - stats.norm.logpdf(np.log(temperature), scale=spread)

    for other in (*(fitted * np.array([0.1, 0.5, 0.99, 1.01, 2, 10])), 1.0):
        assert loss(fitted) <= loss(other) + 1e-9


def test_a_wide_prior_is_the_likelihood():
    random = np.random.default_rng(0)
    probabilities, y = softmax(random.normal(size=(400, 3)), axis=1), random.integers(3, size=400)
    y[:200] = probabilities[:200].argmax(axis=1)
    fitted = fit_temperature(probabilities, y, spread=1e3)
    least = nll_of_probabilities(y, tempered(probabilities, fitted))
    for other in (*(fitted * np.array([0.5, 0.99, 1.01, 2])), 1.0):
        assert least <= nll_of_probabilities(y, tempered(probabilities, other)) + 1e-9


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 10))
def test_tempering_keeps_the_order_and_sums_to_one(seed, temperature):
    probabilities = softmax(3 * np.random.default_rng(seed).normal(size=(6, 4)), axis=1)
    found = tempered(probabilities, temperature)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_array_equal(found.argsort(axis=1), probabilities.argsort(axis=1))
    np.testing.assert_allclose(tempered(found, 1 / temperature), probabilities, rtol=1e-9)
    np.testing.assert_allclose(tempered(probabilities, 1.0), probabilities, rtol=1e-12)
    np.testing.assert_allclose(tempered(probabilities, np.inf), 0.25)


def test_temperatures_of_few_rows_are_bounded():
    """Where the likelihood rises without end, in either direction, the prior bounds it; more rows go further."""
    right, wrong = np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    for rows in (1, 2, 10, 100):
        y = np.zeros(rows, dtype=int)
        assert 0.05 < fit_temperature(np.repeat(right, rows, 0), y) < 1
        assert 1 < fit_temperature(np.repeat(wrong, rows, 0), y) < 100
    few, many = (fit_temperature(np.repeat(wrong, rows, 0), np.zeros(rows, dtype=int)) for rows in (2, 200))
    assert few < many
    sure = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert 1 < fit_temperature(sure, np.array([1, 0, 1])) < 100  # misleading
    assert fit_temperature(np.full((3, 2), 0.5), np.array([0, 1, 0])) == pytest.approx(1, abs=1e-6)  # silent
    fitted = fit_temperature(sure, np.array([0, 1, 1]))  # a zero for a label that came: finite all the same
    assert np.isfinite(tempered(sure, fitted)).all()
    assert tempered(np.zeros((0, 3)), 2.0).shape == (0, 3)


@pytest.mark.parametrize(
    ("probabilities", "y", "message"),
    [
        (np.full((2, 2), 0.5), [0, 2], "Classes range from 0 to 2; there are 2"),
        (np.full((2, 2), 0.5), [0, -1], "Classes range"),
        (np.full((2, 2), 0.5), [0.0, 1.0], "integers"),
        (np.full((2, 2), 0.5), [0], "expected"),
        (np.full((0, 2), 0.5), np.zeros(0, dtype=int), "integers, a row"),
        (np.array([[np.nan, 0.5]]), [0], "NaN or outside"),
        (np.array([[1.5, -0.5]]), [0], "NaN or outside"),
        (np.full(2, 0.5), [0, 1], r"expected \(N, C\)"),
    ],
)
def test_bad_probabilities_are_refused(probabilities, y, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(probabilities, np.asarray(y))


def test_bad_temperatures_are_refused():
    for temperature in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="expected a positive one"):
            tempered(np.full((2, 2), 0.5), temperature)
