from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.targets.metrics.uncertainty_calibration import ence, uncertainty_bins


@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_bins_of_equal_mass_by_hand(rows, bins, seed):
    """Distinct uncertainties: the definition, by splitting the sorted rows."""
    random = np.random.default_rng(seed)
    error, sd = random.normal(size=rows), np.exp(random.normal(size=rows))
    order = np.argsort(sd)
    cuts = [-(-i * rows // bins) for i in range(bins + 1)]
    parts = [order[a:b] for a, b in pairwise(cuts) if b > a]
    predicted = np.array([np.sqrt(np.mean(sd[part] ** 2)) for part in parts])
    observed = np.array([np.sqrt(np.mean(error[part] ** 2)) for part in parts])
    found = uncertainty_bins(error, sd, bins=bins)
    kept = found.rows > 0
    np.testing.assert_allclose(found.predicted[kept], predicted)
    np.testing.assert_allclose(found.observed[kept], observed)
    assert ence(error, sd, bins=bins) == pytest.approx(np.mean(np.abs(predicted - observed) / predicted))


def test_order_and_unit_do_not_matter():
    random = np.random.default_rng(0)
    error, sd = random.normal(size=50), np.exp(random.normal(size=50)).round(1)  # with ties
    shuffled = random.permutation(50)
    assert ence(error[shuffled], sd[shuffled]) == pytest.approx(ence(error, sd), rel=1e-12)
    for unit in (1e-160, 1e160):
        assert ence(unit * error, unit * sd) == pytest.approx(ence(error, sd), rel=1e-9)


def test_a_perfect_predictive_shows_what_the_docs_say():
    random = np.random.default_rng(0)
    rows = 100  # a bin
    found = []
    for _ in range(200):
        sd = np.exp(0.01 * random.normal(size=10 * rows))
        found.append(ence(sd * random.normal(size=sd.size), sd))
    # 0.56 = sqrt(2 / pi) sqrt(1 / 2): the mean error of a root mean square of n values is that over sqrt(n).
    assert np.mean(found) == pytest.approx(0.56 / np.sqrt(rows), rel=0.1)


def test_what_has_no_error():
    assert np.isnan(ence([1.0, np.nan], [1.0, 1.0]))
    assert np.isnan(ence([1.0, 2.0], [1.0, np.inf]))
    assert np.isnan(ence([0.0, 0.0], [0.0, 0.0]))
    assert ence([1.0, -1.0], [1.0, 1.0]) == 0
    with pytest.raises(ValueError, match="none below 0"):
        ence([1.0], [-1.0])
    with pytest.raises(ValueError, match="expected the same"):
        ence([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="expected one at least"):
        ence([1.0], [1.0], bins=0)
