import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from bmtl.targets.laws import student

freedoms = st.one_of(st.floats(1.05, 1e6), st.just(np.inf))
values = st.floats(-50, 50)


def law(df):
    return stats.norm() if np.isinf(df) else stats.t(df)


def density(x, df):
    """The textbook's, on plain numbers: quick enough for a quadrature."""
    if math.isinf(df):
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    return math.exp(constant - (df + 1) / 2 * math.log1p(x * x / df))


@given(values, freedoms)
def test_equal_scipy(z, df):
    assert student.cdf(np.array(z), df) == pytest.approx(law(df).cdf(z), rel=1e-7, abs=1e-300)
    assert student.log_pdf(np.array(z), df) == pytest.approx(law(df).logpdf(z), rel=1e-9, abs=1e-8)


@given(st.floats(1e-8, 1 - 1e-8), freedoms)
def test_ppf_is_the_inverse_of_the_cdf(p, df):
    assert student.cdf(student.ppf(np.array(p), df), df) == pytest.approx(p, rel=1e-8)


@pytest.mark.parametrize("df", [1.5, 3.0, np.inf])
def test_ends_of_the_support(df):
    np.testing.assert_array_equal(student.ppf(np.array([0.0, 1.0]), df), [-np.inf, np.inf])
    assert student.ppf(np.array(1e-300), df) < -30


@pytest.mark.parametrize("df", [1.2, 2.0, 2.5, 7.0, 300.0, np.inf])
@pytest.mark.parametrize("z", [-3.0, 0.0, 1.7])
def test_partial_moments_and_distances_equal_quadrature(df, z):
    def integral(function, low, high):
        return integrate.quad(lambda x: function(x) * density(x, df), low, high, epsabs=1e-11, limit=500)[0]

    first = integral(lambda x: x, -np.inf, z)
    assert student.first_below(np.array(z), df) == pytest.approx(first, abs=1e-7)
    distance = integral(lambda x: z - x, -np.inf, z) + integral(lambda x: x - z, z, np.inf)
    assert student.mean_distance(np.array(z), df) == pytest.approx(distance, rel=1e-6)


@given(freedoms)
def test_half_the_mean_difference_tends_to_the_normals(df):
    found = float(student.half_mean_difference(df))
    assert found >= 1 / np.sqrt(np.pi) - 1e-9
    if df > 1e5:
        assert found == pytest.approx(1 / np.sqrt(np.pi), rel=1e-4)


@pytest.mark.parametrize("df", [0.5, 1.0, 1.5, 2.0, 2.5, 30.0, np.inf])
def test_variance_equals_scipy(df):
    np.testing.assert_allclose(student.variance(df), law(df).var())
