import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from bmtl.targets.laws import NegativeBinomialMixture, PoissonMixture
from bmtl.targets.metrics.counts import count_pit, poisson_deviance

oracle = pytest.importorskip("sklearn.metrics")
counts = arrays(float, 12, elements=st.integers(0, 1000).map(float))
means = arrays(float, 12, elements=st.floats(1e-3, 1e4))


@given(counts, means)
def test_the_deviance_equals_scikit_learn(y, mean):
    assert poisson_deviance(y, mean) == pytest.approx(oracle.mean_poisson_deviance(y, mean), rel=1e-9, abs=1e-9)


@given(counts)
def test_the_deviance_is_least_at_the_counts(y):
    assert poisson_deviance(y, y) == 0
    assert poisson_deviance(y + 1, y + 1.5) > 0


def test_deviances_at_the_ends():
    assert poisson_deviance([0.0], [0.0]) == 0
    assert poisson_deviance([1.0], [0.0]) == np.inf
    assert np.isnan(poisson_deviance([1.0], [np.nan]))
    for y, mean in (([-1.0], [1.0]), ([1.0], [-1.0])):
        with pytest.raises(ValueError, match="none below 0"):
            poisson_deviance(y, mean)
    with pytest.raises(ValueError, match="expected the same"):
        poisson_deviance([1.0, 2.0], [1.0])


def test_pits_of_counts_are_uniform_under_their_own_law_and_no_other():
    random = np.random.default_rng(1)
    rows = 5000
    law = NegativeBinomialMixture(random.uniform(0.1, 5, size=(2, rows)), 1.5)
    y = law.sample(1, random)[0]
    pit = count_pit(y, law)
    assert ((pit >= law.cdf(y - 1)) & (pit <= law.cdf(y))).all()
    assert stats.kstest(pit, "uniform").pvalue > 1e-3
    # Without the overdispersion, which a Poisson law has not, it is far from uniform.
    assert stats.kstest(count_pit(y, PoissonMixture(law.mean())), "uniform").pvalue < 1e-20
    np.testing.assert_array_equal(pit, count_pit(y, law, seed=0))
