import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmtl.targets.metrics.point import mean_absolute_error, root_mean_squared_error

CORES = [mean_absolute_error, root_mean_squared_error]
numbers = arrays(float, st.integers(1, 30), elements=st.floats(-1e6, 1e6))


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_equal_scikit_learn(scale):
    oracle = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    y, predicted = random.normal(size=(2, 500))
    assert mean_absolute_error(scale * y, scale * predicted) == pytest.approx(
        scale * oracle.mean_absolute_error(y, predicted), rel=1e-12
    )
    assert root_mean_squared_error(scale * y, scale * predicted) == pytest.approx(
        scale * oracle.root_mean_squared_error(y, predicted), rel=1e-12
    )


@given(numbers, st.integers(0, 2**32 - 1))
def test_mae_is_between_zero_and_rmse_and_rmse_below_the_largest_error(y, seed):
    predicted = y + np.random.default_rng(seed).normal(size=y.shape)
    mae, rmse = mean_absolute_error(y, predicted), root_mean_squared_error(y, predicted)
    assert 0 <= mae <= rmse * (1 + 1e-12) <= np.abs(y - predicted).max() * (1 + 1e-11)


@pytest.mark.parametrize("core", CORES)
@given(y=numbers, factor=st.floats(-100, 100), seed=st.integers(0, 2**32 - 1))
def test_scores_scale_with_the_unit_and_ignore_order(core, y, factor, seed):
    random = np.random.default_rng(seed)
    predicted, order = y + random.normal(size=y.shape), random.permutation(y.size)
    assert core(factor * y, factor * predicted) == pytest.approx(abs(factor) * core(y, predicted), rel=1e-6, abs=1e-9)
    assert core(y[order], predicted[order]) == pytest.approx(core(y, predicted), rel=1e-12)
    assert core(predicted, y) == core(y, predicted)


@pytest.mark.parametrize("core", CORES)
def test_adversarial_rows(core):
    assert core([3.0], [3.0]) == 0
    assert core([2.0, 2.0], [5.0, 5.0]) == 3
    assert np.isnan(core([1.0, 2.0], [np.nan, 2.0]))
    assert core([1.0, 2.0], [np.inf, 2.0]) == np.inf
    assert core(np.float32([1, 2]), [2, 3]) == 1


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(("y", "predicted"), [((3,), (3, 1)), ((3,), (2,)), ((0,), (0,)), ((2, 2), (2, 2)), ((), ())])
def test_shapes_that_would_broadcast_or_hold_nothing_are_refused(core, y, predicted):
    with pytest.raises(ValueError, match="expected the same"):
        core(np.zeros(y), np.zeros(predicted))
