from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from bmtl.evaluation.resampling import bootstrap_interval, holm, sign_flip_p, signed_rank_p

FINITE = st.floats(-1e3, 1e3, allow_subnormal=False)
SAMPLES = st.integers(2, 9).flatmap(lambda n: arrays(float, n, elements=FINITE))


@pytest.mark.parametrize("n", [2, 3, 5, 10, 20])
def test_the_interval_covers_the_mean_as_often_as_it_says(n):
    """The plain percentile interval covers it in 50, 75, 84, 91 and 93 % of cases."""
    differences = 3 + np.random.default_rng(n).normal(size=(n, 4000))
    lower, upper = bootstrap_interval(differences)
    coverage = ((lower <= 3) & (upper >= 3)).mean()
    assert 0.92 < coverage < 0.965  # four standard errors are .014


def test_the_interval_tends_to_the_percentiles():
    differences = np.random.default_rng(0).exponential(size=2000)
    lower, upper = bootstrap_interval(differences, resamples=4000)
    reference = stats.bootstrap((differences,), np.mean, n_resamples=4000, method="percentile", rng=1)
    interval = reference.confidence_interval
    # The ends are quantiles of 4,000 draws: their own error is a few hundredths of the width.
    np.testing.assert_allclose([lower, upper], interval, atol=0.1 * (interval.high - interval.low))


@settings(deadline=None)
@given(SAMPLES, st.floats(0.01, 100), st.floats(-100, 100))
def test_the_interval_moves_with_the_data(differences, scale, shift):
    lower, upper = bootstrap_interval(differences, resamples=200)
    assert lower <= upper
    tolerance = 1e-9 * (1 + np.abs(differences).max() * scale + abs(shift))
    moved = bootstrap_interval(scale * differences + shift, resamples=200)
    np.testing.assert_allclose(moved, [scale * lower + shift, scale * upper + shift], atol=tolerance)


def test_a_higher_level_is_wider_and_a_seed_repeats():
    differences = np.random.default_rng(1).normal(size=(8, 3))
    narrow, wide = bootstrap_interval(differences, level=0.5), bootstrap_interval(differences, level=0.99)
    assert (wide.lower < narrow.lower).all()
    assert (wide.upper > narrow.upper).all()
    np.testing.assert_array_equal(bootstrap_interval(differences, seed=3), bootstrap_interval(differences, seed=3))
    assert (bootstrap_interval(differences, seed=3).lower != bootstrap_interval(differences, seed=4).lower).any()
    # Columns share the resamples, so a column's interval does not depend on its neighbours.
    np.testing.assert_allclose(bootstrap_interval(differences[:, 1]).lower, bootstrap_interval(differences).lower[1])


def test_equal_differences_have_an_interval_of_no_width():
    np.testing.assert_allclose(bootstrap_interval(np.full(5, 2.0)), [2, 2])


def test_one_split_and_infinite_values_have_no_interval():
    assert np.isnan(bootstrap_interval([1.0])).all()
    assert np.isnan(bootstrap_interval(np.ones((1, 3)))).all()
    lower, upper = bootstrap_interval([[1.0, np.nan, np.inf], [2.0, 1.0, 1.0]])
    assert np.isnan([lower, upper]).tolist() == [[False, True, True]] * 2


@pytest.mark.parametrize("arguments", [{"level": 1.0}, {"level": 0.0}, {"resamples": 0}])
def test_an_interval_out_of_range_is_refused(arguments):
    with pytest.raises(ValueError, match="expected a level in"):
        bootstrap_interval([1.0, 2.0], **arguments)


@pytest.mark.parametrize("function", [bootstrap_interval, sign_flip_p, signed_rank_p])
@pytest.mark.parametrize("nothing", [[], 1.0, np.ones((0, 3))])
def test_no_split_is_refused(function, nothing):
    with pytest.raises(ValueError, match="a split at least"):
        function(nothing)


def share_by_fractions(differences):
    """The definition in exact arithmetic: the share of patterns of signs whose sum is as far from 0 as the observed one."""
    exact = [Fraction(str(value)) for value in differences]
    observed = abs(sum(exact))
    sums = [abs(sum(s * d for s, d in zip(signs, exact, strict=True))) for signs in product((1, -1), repeat=len(exact))]
    return sum(total >= observed for total in sums) / len(sums)


def scipys(differences):
    def mean(x, axis):
        return np.mean(x, axis=axis)

    # scipy doubles the smaller one-sided share, which is the two-sided one, since the patterns are symmetric.
    return stats.permutation_test(
        (differences,), mean, permutation_type="samples", vectorized=True, n_resamples=np.inf
    ).pvalue


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-5, 5)), min_size=2, max_size=8))
def test_sign_flips_are_counted_exactly_over_ten_decades(parts):
    """Decimals tie where their digits do, though their sums differ by rounding, and small differences break ties."""
    texts = [f"{digit}e{power}" for digit, power in parts]
    differences = np.array([float(text) for text in texts])
    found = float(sign_flip_p(differences))
    assert found == share_by_fractions(texts)
    assert 2.0 ** (1 - len(differences)) <= found <= 1


@pytest.mark.parametrize(
    "differences",
    [
        [200.0, 1e-10],
        [200.0, -1e-10, 3.0],
        [1e6, 1.0, 1e-3, -2e-6],
        [0.1, 0.2, 0.3],
        [0.1, 0.2, -0.3, 0.6],
        [5e-5, 4.0, -4.0],
        [1e300, 2e300, -1e299],
        [1e308, 1e308, -1e307],
        [1e-300, 3e-300, -2e-300],
        [0.0, 0.0, 1.0],
    ],
)
def test_differences_that_span_decades_or_leave_the_range_of_squares(differences):
    expected = share_by_fractions([repr(value) for value in differences])
    assert float(sign_flip_p(differences)) == expected
    if np.abs(differences).max() < 1e300:
        assert float(sign_flip_p(differences)) == pytest.approx(scipys(np.array(differences)), abs=1e-12)


@settings(deadline=None)
@given(SAMPLES)
def test_sign_flips_equal_scipy_up_to_sums_that_are_next_to_equal(differences):
    """Sums that differ by 1e-14 to 1e-12 of the sizes are equal for one and not for the other: such samples are left out."""
    n, size = len(differences), np.abs(differences).sum()
    signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    apart = np.abs(np.abs(signs @ differences) - np.abs(differences.sum()))
    assume(not ((apart > 1e-16 * size) & (apart < 1e-12 * size)).any())
    assume(np.abs(differences.sum()) > 1e-3 * size or size == 0)  # scipy's tolerance is of the observed sum
    assert float(sign_flip_p(differences)) == pytest.approx(scipys(differences), abs=1e-12)


def test_a_difference_below_the_tolerance_changes_nothing():
    assert float(sign_flip_p([200.0, 1e-10])) == 0.5
    assert float(sign_flip_p([200.0, 1e-13])) == 1  # ties, as for scipy
    assert scipys(np.array([200.0, 1e-13])) == 1


def size_of(part):
    return abs(part[0]) * 10.0 ** part[1]


PARTS = st.tuples(st.integers(-99, 99).filter(bool), st.integers(-150, 150))


@settings(deadline=None)
@given(st.lists(PARTS, min_size=2, max_size=9, unique_by=size_of))
def test_signed_ranks_equal_scipy_whatever_the_decades(parts):
    differences = np.array([digit * 10.0**power for digit, power in parts])
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert float(signed_rank_p(differences)) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None)
@given(SAMPLES, st.integers(-800, 800))
def test_p_values_do_not_depend_on_the_unit(differences, exponent):
    power = 2.0**exponent
    assume((power * differences / power == differences).all())  # no digit is lost
    for test in (sign_flip_p, signed_rank_p):
        assert float(test(power * differences)) == float(test(differences))


@pytest.mark.parametrize("n", [4, 8, 12])
def test_signed_ranks_without_ties_are_scipys_exact_ones(n):
    differences = np.random.default_rng(n).normal(0.5, 1, size=(n, 6))
    reference = stats.wilcoxon(differences, axis=0, method="exact").pvalue
    np.testing.assert_allclose(signed_rank_p(differences), reference, rtol=1e-12)


def test_signed_ranks_with_ties_and_zeros_by_hand():
    # The zero goes; ranks are 1.5, 1.5, 3: of the 8 patterns of signs only +++ and --- are as far from 0.
    assert float(signed_rank_p([0.0, 1.0, 1.0, 2.0])) == pytest.approx(0.25)
    # -1.5 + 1.5 + 3 = 3: as far are |3| (four patterns), |6| (two): 6 of 8.
    assert float(signed_rank_p([0.0, -1.0, 1.0, 2.0])) == pytest.approx(0.75)
    assert float(signed_rank_p(np.zeros(5))) == 1
    assert float(sign_flip_p(np.zeros(5))) == 1


def test_many_splits_agree_with_scipy_up_to_the_drawn_patterns():
    differences = np.random.default_rng(5).normal(0.4, 1, size=(20, 8))
    reference = stats.wilcoxon(differences, axis=0, method="exact").pvalue
    error = np.sqrt(reference * (1 - reference) / 10_000)
    np.testing.assert_array_less(np.abs(signed_rank_p(differences) - reference), 4 * error + 2e-4)
    assert 0 < float(sign_flip_p(np.full(40, 1.0))) < 2e-4


@pytest.mark.parametrize("test", [sign_flip_p, signed_rank_p])
@pytest.mark.parametrize("n", [6, 15])
def test_p_is_uniform_or_larger_where_methods_are_alike(test, n):
    p = test(np.random.default_rng(n).normal(size=(n, 3000)))
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() < level + 4 * np.sqrt(level * (1 - level) / 3000)


@settings(deadline=None)
@given(SAMPLES)
def test_tests_do_not_know_which_method_came_first(differences):
    for test in (sign_flip_p, signed_rank_p):
        assert test(differences) == pytest.approx(test(-differences))
        assert test(differences) == pytest.approx(test(differences[::-1]))


def test_a_column_that_is_not_finite_has_no_p():
    values = np.array([[1.0, np.nan], [2.0, 1.0], [3.0, np.inf]])
    assert np.isnan(sign_flip_p(values)).tolist() == [False, True]
    assert np.isnan(signed_rank_p(values)).tolist() == [False, True]


def test_two_splits_reach_one_half_at_best():
    assert float(sign_flip_p([5.0, 6.0])) == 0.5
    assert float(signed_rank_p([5.0, 6.0])) == 0.5


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([[0.02, np.nan], [0.5, 0.9]]), [[0.06, np.nan], [1, 1]])
    assert holm([]).shape == (0,)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.2))
def test_holm_rejects_what_the_step_down_procedure_rejects(p, level):
    corrected = holm(p)
    rejected = np.zeros(len(p), dtype=bool)
    for step, index in enumerate(np.argsort(p, kind="stable")):
        if p[index] * (len(p) - step) > level:
            break
        rejected[index] = True
    np.testing.assert_array_equal(corrected <= level, rejected)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, len(p) * np.asarray(p)) + 1e-15).all()  # never less powerful than Bonferroni


def test_a_p_value_out_of_range_is_refused():
    with pytest.raises(ValueError, match="P-values are in"):
        holm([0.5, 1.1])
