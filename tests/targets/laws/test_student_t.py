import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import ndtr, stdtr

from bmtl.targets.laws import StudentTMixture
from bmtl.targets.laws import mixture as module

LEVELS = np.array([1e-9, 1e-3, 0.1, 0.5, 0.7, 0.99, 1 - 1e-9])[:, None]


def made(components=4, rows=9, seed=0, normal=False):
    random = np.random.default_rng(seed)
    shape = (components, rows)
    df = np.inf if normal else np.where(random.uniform(size=shape) < 0.2, np.inf, random.uniform(2.1, 30, shape))
    return StudentTMixture(random.normal(size=shape), np.exp(random.normal(size=shape)), df)


def of_scipy(mixture, row, method, *arguments):
    """A component at a time, by scipy."""
    found = []
    for loc, scale, df in zip(mixture.loc[:, row], mixture.scale[:, row], mixture.df[:, row], strict=True):
        law = stats.norm(loc, scale) if np.isinf(df) else stats.t(df, loc, scale)
        found.append(getattr(law, method)(*arguments))
    return np.array(found)


def crps_by_quadrature(mixture, row, y):
    parts = [*zip(mixture.loc[:, row], mixture.scale[:, row], mixture.df[:, row], strict=True)]

    def cdf(x):  # on plain numbers: frozen distributions are slow
        cdfs = [ndtr((x - loc) / scale) if np.isinf(df) else stdtr(df, (x - loc) / scale) for loc, scale, df in parts]
        return sum(cdfs) / len(cdfs)

    low = integrate.quad(lambda x: cdf(x) ** 2, -np.inf, y, epsabs=1e-10, limit=500)[0]
    return low + integrate.quad(lambda x: (1 - cdf(x)) ** 2, y, np.inf, epsabs=1e-10, limit=500)[0]


@pytest.mark.parametrize("components", [1, 5])
def test_equal_scipy(components):
    mixture = made(components)
    y = np.random.default_rng(1).normal(size=9)
    for row in range(9):
        assert mixture.cdf(y)[row] == pytest.approx(of_scipy(mixture, row, "cdf", y[row]).mean(), rel=1e-10)
        assert mixture.log_prob(y)[row] == pytest.approx(np.log(of_scipy(mixture, row, "pdf", y[row]).mean()), abs=1e-9)
        variances, means = of_scipy(mixture, row, "var"), of_scipy(mixture, row, "mean")
        assert mixture.mean()[row] == pytest.approx(means.mean())
        assert mixture.variance()[row] == pytest.approx(variances.mean() + means.var())


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_quantile_and_cdf_undo_each_other(components, seed):
    mixture = made(components, 5, seed)
    np.testing.assert_allclose(mixture.cdf(mixture.quantile(LEVELS)), np.broadcast_to(LEVELS, (7, 5)), rtol=1e-9)
    y = np.random.default_rng(seed).normal(scale=2, size=(3, 5))
    p = mixture.cdf(y)
    told = (p > 1e-6) & (p < 1 - 1e-6)  # next to 1, a cdf no longer tells values apart
    np.testing.assert_allclose(mixture.quantile(p)[told], y[told], rtol=1e-7, atol=1e-7)


def test_quantiles_of_one_component_and_of_its_copies():
    one = made(1)
    expected = one.loc[0] + one.scale[0] * np.where(np.isinf(one.df), stats.norm.ppf(0.2), stats.t.ppf(0.2, one.df))[0]
    np.testing.assert_allclose(one.quantile(0.2), expected, rtol=1e-12)
    copies = StudentTMixture(np.repeat(one.loc, 5, axis=0), one.scale, one.df)
    np.testing.assert_allclose(copies.quantile(LEVELS), one.quantile(LEVELS), rtol=1e-14)
    np.testing.assert_allclose(copies.crps(np.zeros(9)), one.crps(np.zeros(9)), rtol=1e-8)


def test_quantiles_across_a_gap_and_at_the_ends():
    """Between narrow components the density is nearly zero: Newton alone would be lost."""
    gap = StudentTMixture([[0.0], [100.0]], 1e-3, [[3.0], [np.inf]])
    found = gap.quantile([[0.0], [0.25], [0.4999], [0.75], [1.0]])[:, 0]
    np.testing.assert_allclose(found[[1, 3]], [0, 100], atol=1e-9)
    assert 0 < found[2] < 0.1
    assert found[0] == -np.inf
    assert found[4] == np.inf


def test_crps_of_one_student_t_and_of_normals_equal_scoringrules():
    oracle = pytest.importorskip("scoringrules")
    random = np.random.default_rng(0)
    y, df = 5 * random.normal(size=200), random.uniform(1.05, 50, 200)
    one = StudentTMixture(random.normal(size=200), random.uniform(0.01, 3, 200), df)
    np.testing.assert_allclose(one.crps(y), oracle.crps_t(y, df, one.loc[0], one.scale[0]), rtol=1e-10, atol=1e-12)
    single = StudentTMixture(one.loc, one.scale)
    np.testing.assert_allclose(single.crps(y), oracle.crps_normal(y, one.loc[0], one.scale[0]), rtol=1e-10, atol=1e-12)
    normals = made(6, 200, normal=True)
    expected = oracle.crps_mixnorm(y, normals.loc, normals.scale, m_axis=0)
    np.testing.assert_allclose(normals.crps(y), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("normal", [True, False])
@pytest.mark.parametrize("components", [1, 3])
def test_crps_equals_its_integral(components, normal):
    mixture = made(components, 3, 4, normal)
    y = np.array([-2.0, 0.3, 5.0])
    expected = [crps_by_quadrature(mixture, row, y[row]) for row in range(3)]
    np.testing.assert_allclose(mixture.crps(y), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 1e-1, 1e-3, 1e-6, 1e-9])
def test_quadrature_finds_narrow_components_far_apart(scale):
    """With df this large it must equal the closed form of normals, however steep the stairs are."""
    loc = np.array([[0.0, 0.1], [1.0, -0.7], [3.0, 1e3]])
    by_quadrature = StudentTMixture(loc, scale, 1e9).crps([0.5, 0.5])
    np.testing.assert_allclose(by_quadrature, StudentTMixture(loc, scale).crps([0.5, 0.5]), rtol=1e-8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-50, 50))
def test_a_change_of_unit(seed, unit, shift):
    mixture, y = made(3, 4, seed), np.random.default_rng(seed).normal(size=4)
    other = StudentTMixture(unit * mixture.loc + shift, unit * mixture.scale, mixture.df)
    np.testing.assert_allclose(other.crps(unit * y + shift), unit * mixture.crps(y), rtol=1e-6)
    np.testing.assert_allclose(other.cdf(unit * y + shift), mixture.cdf(y), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(other.log_prob(unit * y + shift), mixture.log_prob(y) - np.log(unit), atol=1e-6)
    np.testing.assert_allclose(other.variance(), unit**2 * mixture.variance(), rtol=1e-6)


def test_crps_is_proper():
    """Labels of the mixture itself: no other scale scores better on average."""
    mixture = StudentTMixture(np.zeros((1, 20000)), 1.0, 4.0)
    y = mixture.sample(1, 0)[0]
    own = mixture.crps(y).mean()
    assert all(mixture.scaled(factor).crps(y).mean() > own for factor in (0.5, 0.8, 1.25, 2.0))


def test_partial_means_equal_quadrature():
    mixture = made(2, 2, 7)
    y, about = np.array([0.4, -1.0]), np.array([0.2, 0.5])
    found = mixture.partial_mean(y, about)
    for row in range(2):
        expected = integrate.quad(
            lambda x, row=row: (x - about[row]) * of_scipy(mixture, row, "pdf", x).mean(),
            -np.inf,
            y[row],
            epsabs=1e-6,
            epsrel=1e-6,
        )[0]
        assert found[row] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_draws_follow_the_cdf_and_the_seed():
    mixture = made(3, 4)
    draws = mixture.sample(4000, 5)
    np.testing.assert_array_equal(draws, mixture.sample(4000, np.random.default_rng(5)))
    for row in range(4):
        pit = mixture[slice(row, row + 1)].cdf(draws[:, row, None])[:, 0]
        assert stats.kstest(pit, "uniform").pvalue > 1e-4


def test_intervals_hold_their_level():
    mixture = made(4, 6)
    lower, upper = mixture.interval(0.8)
    np.testing.assert_allclose(mixture.cdf(upper) - mixture.cdf(lower), 0.8, rtol=1e-10)
    np.testing.assert_allclose(mixture.cdf(lower), 0.1, rtol=1e-10)


def test_scales_of_components_are_scaled():
    mixture = made(3)
    wider = mixture.scaled(2.0)
    np.testing.assert_allclose(wider.within(), 4 * mixture.within())
    np.testing.assert_allclose(wider.between(), mixture.between())
    np.testing.assert_allclose(wider.mean(), mixture.mean())


def test_heavy_tails_have_no_moments():
    heavy = StudentTMixture([1.0, 1.0, 1.0], 2.0, [0.9, 1.5, 3.0])
    np.testing.assert_array_equal(np.isnan(heavy.mean()), [True, False, False])
    np.testing.assert_array_equal(heavy.variance(), [np.nan, np.inf, 12.0])
    with pytest.raises(ValueError, match="degrees of freedom above 1; the smallest is 0.9"):
        heavy.crps(0.0)
    with pytest.raises(ValueError, match="above 1.1"):
        StudentTMixture([[0.0], [1.0]], 1.0, 1.05).crps(0.0)


def test_nan_stays_in_its_row():
    mixture = StudentTMixture([[0.0, np.nan, 0.0], [1.0, 1.0, 1.0]], 1.0, [[3.0], [np.inf]])
    for found in (mixture.cdf(0.5), mixture.quantile(0.3), mixture.log_prob(0.5), mixture.crps(0.5), mixture.mean()):
        np.testing.assert_array_equal(np.isnan(found), [False, True, False])
    np.testing.assert_array_equal(np.isnan(mixture.cdf([0.0, 0.0, np.nan])), [False, True, True])


def test_no_rows():
    empty = StudentTMixture(np.zeros((3, 0)), 1.0)
    assert empty.rows == 0
    for found in (empty.cdf(np.zeros(0)), empty.quantile(0.5), empty.crps(np.zeros(0)), empty.mean(), empty.variance()):
        assert found.shape == (0,)
    assert StudentTMixture(np.zeros((3, 0)), 1.0, 3.0).crps(np.zeros(0)).shape == (0,)
    assert empty.sample(3, 0).shape == (3, 0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ((0.0, 0.0), "A scale is zero"),
        ((0.0, -1.0), "A scale is zero"),
        ((0.0, np.inf), "or infinite"),
        ((np.inf, 1.0), "A loc is infinite"),
        ((0.0, 1.0, 0.0), "A df is zero"),
        ((np.zeros((2, 3)), np.ones((2, 4))), "do not broadcast"),
        ((np.zeros((2, 3, 4)), 1.0), r"expected \(S, N\)"),
        ((np.zeros((0, 4)), 1.0), "a component at least"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        StudentTMixture(*parameters)


def test_bad_arguments_are_refused():
    mixture = made()
    with pytest.raises(ValueError, match="the rows last"):
        mixture.cdf(np.zeros((9, 1)))
    with pytest.raises(ValueError, match=r"they are in \[0, 1\]"):
        mixture.quantile(1.1)
    with pytest.raises(ValueError, match="Levels have shape"):
        mixture.quantile([0.1, 0.2])
    for level in (0, 1, np.nan):
        with pytest.raises(ValueError, match="expected one in"):
            mixture.interval(level)


def test_chunks_change_nothing(monkeypatch):
    mixture, y = made(3, 50), np.linspace(-3, 3, 50)
    whole = mixture.cdf(y), mixture.quantile(LEVELS), mixture.crps(y)
    monkeypatch.setattr(module, "MEMORY", 100)
    for before, after in zip(whole, (mixture.cdf(y), mixture.quantile(LEVELS), mixture.crps(y)), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-12)


def test_memory_is_bounded_and_a_hundred_thousand_rows_are_quick():
    random = np.random.default_rng(0)
    mixture = StudentTMixture(random.normal(size=(10, 100_000)), 1.0, np.inf)
    y = random.normal(size=(20, 100_000))
    started = time.process_time()
    tracemalloc.start()
    mixture.cdf(y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * (y.size + 12 * module.MEMORY)  # and not 10 times y.size
    assert time.process_time() - started < 30
