import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.targets.metrics.selective import aurc_excess_of_rows, aurc_of_rows, ause_of_rows, risk_coverage_of_rows
from tests.evaluation.classifications import steady

CORES = [aurc_of_rows, aurc_excess_of_rows, ause_of_rows]
rows = st.tuples(st.integers(1, 40), st.integers(0, 2**32 - 1))


def judged(problem, levels=None):
    """Losses, and an uncertainty that knows something of them, with ties where `levels` is given."""
    random = np.random.default_rng(problem[1])
    loss = random.exponential(size=problem[0])
    uncertainty = loss + random.exponential(size=problem[0])
    return loss, uncertainty if levels is None else np.floor(uncertainty * levels)


@steady
@given(rows)
def test_equal_dropping_rows_one_at_a_time(problem):
    loss, uncertainty = judged(problem)
    order = np.argsort(uncertainty)
    risks = [loss[order[:k]].mean() for k in range(1, loss.size + 1)]
    ideal = [np.sort(loss)[:k].mean() for k in range(1, loss.size + 1)]
    curve = risk_coverage_of_rows(loss, uncertainty)
    np.testing.assert_allclose(curve.risk, risks)
    np.testing.assert_allclose(curve.coverage, np.arange(1, loss.size + 1) / loss.size)
    assert aurc_of_rows(loss, uncertainty) == pytest.approx(np.mean(risks))
    assert aurc_excess_of_rows(loss, uncertainty) == pytest.approx(np.mean(risks) - np.mean(ideal), abs=1e-12)


@steady
@given(rows)
def test_sparsification_equals_dropping_rows_one_at_a_time(problem):
    error, uncertainty = judged(problem)
    error = error * np.random.default_rng(0).choice([-1, 1], size=error.size)

    def left(order):  # root mean squared errors, most dropped first
        return np.array([np.sqrt(np.square(error[order[:k]]).mean()) for k in range(1, error.size + 1)])

    curve, ideal = left(np.argsort(uncertainty)), left(np.argsort(np.abs(error)))
    expected = (curve / curve[-1] - ideal / ideal[-1]).mean()
    assert ause_of_rows(error, uncertainty) == pytest.approx(expected, abs=1e-9)
    assert -1e-12 <= ause_of_rows(error, uncertainty) < 1


def test_ties_are_the_mean_over_orders():
    loss, uncertainty = judged((30, 0), levels=1)
    random = np.random.default_rng(0)
    curves = []
    for _ in range(4000):
        order = np.lexsort((random.uniform(size=30), uncertainty))
        curves.append(np.cumsum(loss[order]) / np.arange(1, 31))
    error = np.std(curves, axis=0) / np.sqrt(4000)
    np.testing.assert_array_less(
        np.abs(risk_coverage_of_rows(loss, uncertainty).risk - np.mean(curves, axis=0)), 5 * error + 1e-12
    )


@pytest.mark.parametrize("core", CORES)
@steady
@given(problem=rows, levels=st.sampled_from([None, 1, 3]))
def test_only_the_order_of_uncertainties_counts_and_not_that_of_rows(core, problem, levels):
    loss, uncertainty = judged(problem, levels)
    expected = core(loss, uncertainty)
    order = np.random.default_rng(problem[1]).permutation(loss.size)
    assert core(loss[order], uncertainty[order]) == pytest.approx(expected, abs=1e-12)
    assert core(loss, 3 * uncertainty + 7) == pytest.approx(expected, abs=1e-12)
    highest = np.where(uncertainty == uncertainty.max(), np.inf, uncertainty)
    assert core(loss, highest) == pytest.approx(expected, abs=1e-12)


@steady
@given(rows)
def test_the_ideal_order_has_no_excess_and_a_constant_a_level_curve(problem):
    loss, _ = judged(problem)
    assert aurc_excess_of_rows(loss, np.exp(loss)) == pytest.approx(0, abs=1e-12)
    assert ause_of_rows(loss, loss**2) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(risk_coverage_of_rows(loss, np.ones(loss.size)).risk, loss.mean())


def test_the_worst_order_is_the_worst():
    loss, uncertainty = judged((50, 0))
    for core in CORES:
        assert core(loss, -loss) > core(loss, uncertainty) > core(loss, loss)


def test_the_area_of_a_classification_is_known_in_closed_form():
    """Ideal order, accuracy a: the limit of the area is 1 - a + a log a (Geifman, Uziel & El-Yaniv, 2019)."""
    wrong = np.arange(200_000) < 40_000
    assert aurc_of_rows(wrong, wrong) == pytest.approx(0.2 + 0.8 * np.log(0.8), abs=1e-4)
    assert aurc_of_rows(wrong, np.zeros(200_000)) == pytest.approx(0.2)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_sparsification_has_no_unit(scale):
    error, uncertainty = judged((40, 1))
    assert ause_of_rows(scale * error, uncertainty) == pytest.approx(ause_of_rows(error, uncertainty), rel=1e-9)


def test_losses_without_a_number():
    for core in CORES:
        assert np.isnan(core([0.1, np.nan], [1.0, 2.0]))
        assert np.isnan(core([0.1, 0.2], [1.0, np.nan]))
    assert np.isnan(ause_of_rows([0.0, 0.0], [1.0, 2.0]))
    assert np.isnan(ause_of_rows([1.0, np.inf], [1.0, 2.0]))
    assert aurc_of_rows([1.0, np.inf], [1.0, 2.0]) == np.inf
    assert np.isnan(aurc_excess_of_rows([1.0, np.inf], [1.0, 2.0]))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(("loss", "uncertainty"), [([], []), ([0.1], [[0.1]]), ([0.1, 0.2], [0.1]), (0.1, 0.1)])
def test_shapes_that_would_broadcast_or_hold_nothing_are_refused(core, loss, uncertainty):
    with pytest.raises(ValueError, match="expected the same"):
        core(loss, uncertainty)


def test_a_loss_below_zero_is_refused():
    with pytest.raises(ValueError, match="-0.5 at the lowest"):
        aurc_of_rows([-0.5, 1.0], [0.1, 0.2])


def test_a_million_rows():
    loss, uncertainty = judged((1_000_000, 0))
    started = time.process_time()
    assert 0 < ause_of_rows(loss, uncertainty) < 1
    assert aurc_excess_of_rows(loss, uncertainty) > 0
    assert time.process_time() - started < 30  # a guard against loops over rows, not a measurement
