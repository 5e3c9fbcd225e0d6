"""What families answer to pictures: points, confusion, and what errors show of a calibrated uncertainty."""

import numpy as np
import pytest

from bmtl.targets import Binary, Classes, Count, Law, Ordinal, Prediction, Real, Scaler, TimeToEvent, UnitVector, Vector
from bmtl.targets.metrics.selective import risk_of_the_surer_half
from bmtl.targets.points import Points
from bmtl.targets.score import Scored


def scored(family, labels, *, scaler=None, **fields):
    labels = np.asarray(labels, dtype=float if not family.class_names else int)
    draws = np.empty((0, len(labels)))
    given = {name: np.asarray(value, dtype=float) for name, value in fields.items()}
    return Scored(labels, Prediction(draws, **given), family, scaler or Scaler.identity())


@pytest.mark.parametrize("family", [Real(), Count()])
def test_numbers_are_points_whose_squared_errors_are_what_a_variance_is_of(family):
    rows = scored(family, [1, 2, 5], mean=[1.5, 2, 3])
    (points,) = rows.points().values()
    np.testing.assert_array_equal(points.observed, [1, 2, 5])
    np.testing.assert_array_equal(points.predicted, [1.5, 2, 3])
    assert points.exact.all()
    np.testing.assert_array_equal(rows.realised(), [0.25, 0, 4])
    assert rows.confusion() is None


def test_labels_at_a_bound_and_intervals_are_not_exact():
    (points,) = scored(Real(bounds=(0.0, None)), [0, 1], mean=[1, 1]).points().values()
    assert points.exact.tolist() == [False, True]
    inf = np.inf
    intervals = [[1, 1], [2, inf], [-inf, 3], [1, 4], [-inf, inf]]
    rows = scored(Real(censored=True), intervals, mean=np.ones(5))
    (points,) = rows.points().values()
    assert points.exact.tolist() == [True, False, False, False, False]
    np.testing.assert_array_equal(points.observed, [1, 2, 3, 1, np.nan])
    assert points.drawable.tolist() == [True, True, True, True, False]
    assert rows.realised() is None
    (times,) = scored(TimeToEvent(), [[1, 1], [2, inf]], mean=[1, inf]).points().values()
    assert times.exact.tolist() == [True, False]
    assert times.drawable.tolist() == [True, False]


def test_vectors_have_points_by_component():
    rows = scored(
        Vector(("x", "y")),
        [[1, 10], [2, np.nan]],
        mean=[[0, 20], [2, 0]],
        scaler=Scaler(np.zeros(2), np.array([1.0, 10.0])),
    )
    assert list(rows.points()) == ["x", "y"]
    assert rows.points()["y"].drawable.tolist() == [True, False]
    np.testing.assert_array_equal(
        rows.realised(), [1.0, 0.0]
    )  # a mean over labelled components, in standard deviations
    assert list(scored(UnitVector(), [[1, 0, 0]], mean=[[0.9, 0, 0]]).points()) == ["x", "y", "z"]


@pytest.mark.parametrize("family", [Classes(("a", "b", "c")), Ordinal(("a", "b", "c"))])
def test_confusion_counts_rows_by_label_and_prediction(family):
    p = [[0.8, 0.1, 0.1], [0.4, 0.15, 0.45], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1]]
    rows = scored(family, [0, 0, 1, 2], probability=p)
    second = 2 if family.name == "classes" else 1  # of grades the median
    expected = np.zeros((3, 3), dtype=int)
    for label, predicted in ((0, 0), (0, second), (1, 1), (2, 1)):
        expected[label, predicted] += 1
    np.testing.assert_array_equal(rows.confusion(), expected)
    np.testing.assert_allclose(rows.realised(), -np.log([0.8, 0.4, 0.8, 0.1]))
    assert rows.points() == {}


def test_the_expectation_of_what_errors_show_is_the_uncertainty():
    """Of labels drawn from the predictive: the mean negative log probability is the entropy, squared errors the variance."""
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(3), size=20_000)
    labels = (p.cumsum(axis=1) < random.uniform(size=(len(p), 1))).sum(axis=1)
    shown = scored(Classes(("a", "b", "c")), labels, probability=p).realised().mean()
    assert shown == pytest.approx(-(p * np.log(p)).sum(axis=1).mean(), rel=0.02)
    sd = random.uniform(0.5, 2, size=20_000)
    squares = scored(Real(), sd * random.normal(size=20_000), mean=np.zeros(20_000)).realised()
    assert squares.mean() == pytest.approx(np.mean(sd**2), rel=0.05)


def test_without_predictions_there_is_nothing_to_draw():
    law = Law("student-t", {"loc": np.zeros((1, 1)), "scale": np.ones((1, 1)), "df": np.full((1, 1), np.inf)})
    rows = Scored(np.zeros(1), Prediction(np.empty((0, 1)), law=law), Real(), Scaler.identity())
    assert rows.points() == {}
    assert rows.realised() is None
    assert scored(Binary(), [0]).confusion() is None
    assert Points.of(np.array([np.nan]), np.zeros(1)).drawable.tolist() == [False]


class TestTheSurerHalf:
    def test_the_order_of_the_losses_is_ideal(self):
        loss = np.arange(1.0, 101)
        found = risk_of_the_surer_half(loss, loss)
        assert (found.every, found.surer, found.ideal) == (50.5, 25.5, 25.5)
        assert found.z > 5
        worst = risk_of_the_surer_half(loss, -loss)
        assert worst.surer == 75.5
        assert worst.z == pytest.approx(-found.z)

    def test_z_is_standard_normal_for_an_uncertainty_that_says_nothing(self):
        random = np.random.default_rng(1)
        z = [risk_of_the_surer_half(random.exponential(size=60), random.normal(size=60)).z for _ in range(800)]
        assert np.mean(z) == pytest.approx(0, abs=0.12)
        assert np.std(z) == pytest.approx(1, abs=0.1)
        assert np.mean(np.array(z) > 1.96) < 0.05

    def test_one_uncertainty_for_all_rows_orders_nothing(self):
        found = risk_of_the_surer_half([1.0, 2.0, 9.0], np.full(3, 0.7))
        assert found.constant
        assert (found.z, found.surer) == (0.0, 4.0)
        assert risk_of_the_surer_half([2.0, 2.0], [1.0, 2.0]).z == 0.0  # equal losses
