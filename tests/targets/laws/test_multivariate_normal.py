import numpy as np
import pytest
from scipy import stats

from bmtl.targets import Law, Scaler
from bmtl.targets.laws import MultivariateNormalMixture, distribution, law_to_units


def made(components=3, rows=4, d=3, seed=0, shared=False):
    random = np.random.default_rng(seed)
    factors = np.tril(random.normal(size=(components, 1 if shared else rows, d, d)))
    factors[..., np.arange(d), np.arange(d)] = np.exp(random.normal(size=(*factors.shape[:2], d)))
    return MultivariateNormalMixture(random.normal(size=(components, rows, d)), factors)


def of_scipy(mixture, s, row, kept=slice(None)):
    factor = np.broadcast_to(mixture.scale_tril, (3, 4, 3, 3))[s, row]
    return stats.multivariate_normal(mixture.loc[s, row][kept], (factor @ factor.T)[kept][:, kept])


@pytest.mark.parametrize("shared", [False, True])
def test_densities_equal_scipy_with_numbers_left_out(shared):
    mixture, y = made(shared=shared), np.random.default_rng(1).normal(size=(4, 3))
    y[1, 2] = y[2, 0] = y[2, 1] = np.nan
    y[3] = np.nan
    for row in range(4):
        kept = np.flatnonzero(~np.isnan(y[row]))
        expected = [of_scipy(mixture, s, row, kept).logpdf(y[row, kept]) if kept.size else 0.0 for s in range(3)]
        np.testing.assert_allclose(mixture.component_log_prob(y)[:, row], expected, rtol=1e-9)
        assert mixture.log_prob(y)[row] == pytest.approx(np.log(np.mean(np.exp(expected))))


def test_moments_equal_those_of_draws_and_of_marginals():
    mixture = made()
    draws = mixture.sample(40_000, 0)
    np.testing.assert_array_equal(draws[:5], mixture.sample(40_000, np.random.default_rng(0))[:5])
    spread = np.sqrt(mixture.variance())
    assert draws.shape == (40_000, 4, 3)
    # 12 means of 40,000 draws: 4.5 standard errors are exceeded with probability 1e-4.
    assert (np.abs(draws.mean(axis=0) - mixture.mean()) < 4.5 * spread / 200).all()
    centred = draws - draws.mean(axis=0)
    covariance = np.einsum("sni,snj->nij", centred, centred) / len(draws)
    size = spread[:, :, None] * spread[:, None]
    np.testing.assert_allclose(covariance / size, mixture.covariance() / size, atol=0.05)
    np.testing.assert_allclose(np.diagonal(mixture.covariance(), axis1=1, axis2=2), mixture.variance())


def test_each_number_is_its_marginal():
    mixture, y = made(), np.random.default_rng(1).normal(size=(4, 3))
    for k in range(3):
        marginal = mixture.marginal(k)
        np.testing.assert_array_equal(mixture.cdf(y)[:, k], marginal.cdf(y[:, k]))
        np.testing.assert_array_equal(mixture.survival(y)[:, k], marginal.survival(y[:, k]))
        np.testing.assert_array_equal(mixture.quantile(0.3)[:, k], marginal.quantile(0.3))
        np.testing.assert_array_equal(mixture.interval(0.8)[1][:, k], marginal.interval(0.8)[1])
        np.testing.assert_array_equal(mixture.crps(y)[:, k], marginal.crps(y[:, k]))
    np.testing.assert_array_equal(mixture[np.array([2, 0])].mean(), mixture.mean()[[2, 0]])


def test_a_change_of_units():
    mixture, y = made(), np.random.default_rng(1).normal(size=(4, 3))
    scaler = Scaler(np.array([1.0, -2.0, 0.0]), np.array([2.0, 0.1, 30.0]))
    law = Law("multivariate-normal", {"loc": mixture.loc, "scale_tril": mixture.scale_tril})
    other = distribution(law_to_units(law, scaler))
    expected = mixture.log_prob(y) - np.log(scaler.std).sum()
    np.testing.assert_allclose(other.log_prob(scaler.inverse(y)), expected, rtol=1e-9)
    assert law.rows(np.array([1, 2])).size == 2


def test_means_may_be_common_to_draws_or_rows():
    random = np.random.default_rng(0)
    factors = np.tile(np.eye(2), (3, 4, 1, 1)) * np.exp(random.normal(size=(3, 4, 1, 1)))
    for shape in ((1, 4, 2), (3, 1, 2), (1, 1, 2)):
        loc = random.normal(size=shape)
        common = MultivariateNormalMixture(loc, factors)
        everywhere = MultivariateNormalMixture(np.broadcast_to(loc, (3, 4, 2)), factors)
        assert (common.components, common.rows) == (3, 4)
        np.testing.assert_array_equal(common.log_prob(np.zeros((4, 2))), everywhere.log_prob(np.zeros((4, 2))))
        np.testing.assert_array_equal(common.mean(), everywhere.mean())


def test_a_common_factor_is_that_of_every_row():
    shared = made(shared=True)
    law = Law("multivariate-normal", {"loc": shared.loc, "scale_tril": shared.scale_tril})
    everywhere = distribution(law.full())
    y = np.zeros((4, 3))
    np.testing.assert_allclose(shared.log_prob(y), everywhere.log_prob(y))
    np.testing.assert_array_equal(shared.sample(7, 1), everywhere.sample(7, 1))
    np.testing.assert_allclose(shared.covariance(), everywhere.covariance())


@pytest.mark.parametrize(
    ("loc", "factor", "message"),
    [
        (np.zeros((2, 3)), np.eye(2), "expected"),
        (np.zeros((2, 3, 2)), np.ones((2, 3, 3, 3)), "expected"),
        (np.zeros((2, 3, 2)), np.tile(np.eye(2), (2, 4, 1, 1)), "do not broadcast"),
        (np.full((1, 1, 2), np.inf), np.eye(2)[None, None], "infinite"),
        (np.zeros((1, 1, 2)), -np.eye(2)[None, None], "lower Cholesky"),
        (np.zeros((1, 1, 2)), np.ones((1, 1, 2, 2)), "lower Cholesky"),
    ],
)
def test_what_is_no_factor_is_refused(loc, factor, message):
    with pytest.raises(ValueError, match=message):
        MultivariateNormalMixture(loc, factor)
    with pytest.raises(ValueError, match="expected"):
        made().log_prob(np.zeros((4, 2)))
