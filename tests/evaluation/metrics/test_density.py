import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from bmtl.evaluation import metrics, results
from bmtl.evaluation.metrics import nll_of_draws

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


def test_standardised_is_the_density_of_the_standardised_target():
    """In another unit, with the scale to match, it is the same; and it equals scoring z = (y - location) / scale."""
    random = np.random.default_rng(0)
    y, locations = random.normal(size=50), random.normal(size=(9, 1))
    scores = []
    for unit in (1.0, 27.2114):
        tree = results.to_datatree(
            observed={"a": unit * y},
            log_likelihood={"a": stats.norm.logpdf(unit * y, unit * locations, unit * 0.7)},
            target_location={"a": unit * 0.3},
            target_scale={"a": unit * 2.0},
        )
        scores.append(float(metrics.nll(tree, standardised=True)["nll"].item()))
    z = stats.norm.logpdf((y - 0.3) / 2, (locations - 0.3) / 2, 0.35)
    assert scores == pytest.approx([nll_of_draws(z)] * 2, rel=1e-12)


def test_units_as_reported_by_default(make_tree):
    tree = make_tree()
    raw, standard = metrics.nll(tree)["nll"], metrics.nll(tree, standardised=True)["nll"]
    np.testing.assert_allclose(raw - standard, np.log([1.5, 600.0, 4.0]))


def test_what_is_missing_is_named(make_tree):
    with pytest.raises(ValueError, match="no target_scale"):
        metrics.nll(make_tree(target_scale=None), standardised=True)
    with pytest.raises(ValueError, match="no group 'log_likelihood'; it has"):
        metrics.nll(make_tree(log_likelihood=None))
