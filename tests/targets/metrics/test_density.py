import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from bmtl.targets.metrics.density import nll_of_draws

shapes = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**32 - 1))


def densities(shape):
    return 50 * np.random.default_rng(shape[2]).normal(size=shape[:2])


def test_equal_the_mixture_density_by_scipy():
    random = np.random.default_rng(0)
    locations, scales, y = random.normal(size=(7, 1)), random.uniform(0.5, 2, size=(7, 1)), random.normal(size=40)
    mixture = stats.norm.pdf(y, locations, scales).mean(axis=0)
    assert nll_of_draws(stats.norm.logpdf(y, locations, scales)) == pytest.approx(-np.log(mixture).mean(), rel=1e-12)


@given(shapes)
def test_equal_logsumexp_written_out(shape):
    values = densities(shape)
    rows = [logsumexp(values[:, n], b=1 / shape[0]) for n in range(shape[1])]
    assert nll_of_draws(values) == pytest.approx(-np.mean(rows), rel=1e-10, abs=1e-10)


@given(shapes)
def test_the_mixture_is_no_worse_than_its_draws_and_no_better_than_the_best(shape):
    values = densities(shape)
    assert -values.max(axis=0).mean() - 1e-9 <= nll_of_draws(values) <= -values.mean() + 1e-9


@given(shapes, st.floats(-100, 100))
def test_a_change_of_unit_shifts_and_repeated_or_reordered_draws_change_nothing(shape, shift):
    values = densities(shape)
    expected = nll_of_draws(values)
    assert nll_of_draws(values + shift) == pytest.approx(expected - shift, abs=1e-9)
    assert nll_of_draws(np.concatenate([values, values])) == pytest.approx(expected, abs=1e-9)
    assert nll_of_draws(values[::-1, ::-1]) == pytest.approx(expected, abs=1e-9)


def test_adversarial_densities():
    assert nll_of_draws([[-1e4, -1e4], [-1e4, -1e4]]) == 1e4  # exp underflows
    assert nll_of_draws([[-np.inf], [0.0]]) == pytest.approx(np.log(2))
    assert nll_of_draws([[-np.inf, 0.0]]) == np.inf
    assert np.isnan(nll_of_draws([[np.nan, 0.0]]))
    assert isinstance(nll_of_draws(np.zeros((2, 2), dtype=np.float32)), float)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (3, 0), (1, 2, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(S, N\)"):
        nll_of_draws(np.zeros(shape))


def test_an_infinite_density_is_refused():
    with pytest.raises(ValueError, match="a predictive scale is zero"):
        nll_of_draws([[np.inf, 0.0]])
