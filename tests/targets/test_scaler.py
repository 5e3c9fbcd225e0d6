import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_allclose, assert_array_equal

from bmtl.targets import Scaler

values = st.floats(-1e9, 1e9, allow_subnormal=False)
tables = arrays(np.float64, array_shapes(min_dims=1, max_dims=3, max_side=6), elements=values)


@settings(deadline=None)
@given(tables)
def test_inverse_undoes_transform(table):
    scaler = Scaler.fit(table)
    # Relative to the column's size: values far from zero lose the digits that the mean takes.
    assert_allclose(scaler.inverse(scaler.transform(table)), table, rtol=1e-9, atol=1e-9 * (1 + np.abs(table).max()))


@settings(deadline=None)
@given(tables)
def test_fitted_values_are_centred_and_no_larger_than_the_number_of_rows_allows(table):
    scaled = Scaler.fit(table).transform(table)
    # Samuelson's inequality: no value lies further than sqrt(N - 1) standard deviations from the mean.
    assert (np.abs(scaled) <= np.sqrt(len(table)) * (1 + 1e-6)).all()


@settings(deadline=None)
@given(tables, st.floats(0.01, 10))
def test_clip_bounds_every_value(table, clip):
    assert (np.abs(Scaler.fit(table, clip=clip).transform(1e3 * table)) <= clip).all()


def test_fit_is_per_column_and_leaves_missing_values_out():
    scaler = Scaler.fit([[0.0, 5.0], [4.0, np.nan], [2.0, 9.0]])
    assert_allclose(scaler.mean, [2.0, 7.0])
    assert_allclose(scaler.std, [np.sqrt(8 / 3), 2.0])
    assert_array_equal(np.isnan(scaler.transform([[0.0, np.nan]])), [[False, True]])


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e15, 3.3])
def test_a_constant_column_keeps_its_spread(constant):
    scaler = Scaler.fit(np.full(7, constant))
    assert scaler.std == 1.0
    assert_allclose(scaler.transform(constant + np.arange(2.0)), np.arange(2.0), atol=0.2)


@pytest.mark.parametrize("unit", [1e-200, 1e-160, 1e160, 1e300])
def test_no_unit_is_too_small_or_too_large(unit):
    """Squares of 1e-200 vanish, which made such a column a constant one."""
    values = np.array([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    fitted, expected = Scaler.fit(values * unit), Scaler.fit(values)
    assert_allclose(fitted.mean, expected.mean * unit, rtol=1e-14)
    assert_allclose(fitted.std, [expected.std[0] * unit, 1.0], rtol=1e-14)
    assert_allclose(fitted.transform(values * unit)[:, 0], expected.transform(values)[:, 0], rtol=1e-13)


@pytest.mark.parametrize("unit", [1e-60, 1e-25, 1e25, 1e60])
def test_what_single_precision_has_no_room_for_comes_back_in_double(unit):
    """It was 0 or infinite."""
    scaler = Scaler(np.array(unit), np.array(2 * unit))
    scaled = np.array([-1.0, 0.0, 3.0], np.float32)
    assert_allclose(scaler.restored(scaled), np.array([-1, 1, 7]) * unit, rtol=1e-6)
    assert_allclose(scaler.widened(scaled[2:]), [6 * unit], rtol=1e-6)
    assert_allclose(scaler.widened(scaled[2:], 2), [12 * unit**2], rtol=1e-6)
    assert Scaler(np.array(1.0), np.array(2.0)).restored(scaled).dtype == np.float32


def test_inverse_of_float32_keeps_float64_digits():
    scaler = Scaler(np.array(-1.1e7), np.array(1e6))
    assert scaler.inverse(np.float32(0.25)) == -1.1e7 + 0.25e6
    assert scaler.inverse(np.zeros(2, np.float32)).dtype == np.float64


@pytest.mark.parametrize(
    ("mean", "std", "clip", "message"),
    [
        (0.0, [1.0, 2.0], None, "one std per mean"),
        (np.nan, 1.0, None, "mean must be finite"),
        (0.0, 0.0, None, "positive and finite"),
        (0.0, np.inf, None, "positive and finite"),
        (0.0, 1.0, 0.0, "clip is a positive number"),
        (0.0, 1.0, np.nan, "clip is a positive number"),
    ],
)
def test_senseless_scalers_are_refused(mean, std, clip, message):
    with pytest.raises(ValueError, match=message):
        Scaler(mean, std, clip)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (3.0, "single number"),
        ([], "0 rows"),
        ([[1.0, np.nan], [2.0, np.nan]], "1 columns hold only NaN"),
        ([1.0, np.inf], "infinite"),
    ],
)
def test_fit_refuses_what_has_no_standard_deviation(rows, message):
    with pytest.raises(ValueError, match=message):
        Scaler.fit(rows)
