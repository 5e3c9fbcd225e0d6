"""Directions and displacements: their scores, and the precision that images keep."""

import numpy as np
import pytest

from bmtl.targets import Classes, Pixels, Prediction, Real, Scaler, Scored, UnitVector, Vector
from bmtl.targets.metrics.dense import scene_scores


def directions(seed, n=200):
    random = np.random.default_rng(seed)
    labels = random.normal(size=(n, 3))
    labels /= np.linalg.norm(labels, axis=1, keepdims=True)
    return labels, labels + random.normal(scale=0.3, size=labels.shape)


def scored(family, labels, mean, scaler=None):
    return Scored(labels, Prediction(np.zeros((0, len(labels))), mean=mean), family, scaler or Scaler.identity())


def test_scores_of_directions_are_those_of_scenes():
    labels, mean = directions(0)
    rows = scored(UnitVector(), labels, mean)
    found = {score.name: score.compute(rows) for score in UnitVector().scores if score.computable(rows)}
    expected = scene_scores([({"normal": labels}, {"normal": mean})])["normal"]
    assert found == pytest.approx(expected)
    np.testing.assert_allclose(UnitVector().losses(rows).mean(), found["mean_angle"])
    longer = scored(UnitVector(), labels, 7 * mean)
    assert UnitVector().scores[0].compute(longer) == pytest.approx(found["mean_angle"])


def test_labels_of_eight_bits_are_normalised_and_exact_ones_are_kept():
    labels, _ = directions(1)
    coarse = np.rint(127 * labels) / 127
    kept = UnitVector().check("n", coarse, len(coarse))
    np.testing.assert_allclose(np.linalg.norm(kept, axis=1), 1)
    single = (labels.astype(np.float32)).astype(float)
    np.testing.assert_array_equal(UnitVector().check("n", single, len(single)), single)


def test_lengths_of_errors_of_displacements():
    labels, mean = np.array([[0.0, 0], [1, 1], [np.nan, 2]]), np.array([[3.0, 4], [1, 1], [5, 3]])
    family = Vector(("x", "y"), common_unit=True)
    rows = scored(family, labels, mean)
    found = {score.name: score.compute(rows) for score in family.scores if score.computable(rows)}
    assert found["distance"] == 2.5  # of complete vectors
    assert found["mae"] == pytest.approx((3 / 2 + 5 / 3) / 2)
    np.testing.assert_array_equal(family.losses(rows), [5, 0, np.nan])
    scaler = family.fit_scaler(np.array([[0.0, 0], [2, 20]]))
    np.testing.assert_allclose(scaler.std, np.sqrt((1 + 100) / 2))  # one scale for both
    np.testing.assert_allclose(scaler.mean, [1, 10])
    assert Vector(("x", "y")).sums() is None


def test_images_keep_their_precision():
    for family, labels, kept in (
        (Pixels(), np.ones((2, 3, 4), np.float32), np.float32),
        (Pixels(), np.ones((2, 3, 4), np.float16), np.float64),
        (Pixels(Real(positive=True)), np.ones((2, 3, 4)), np.float64),
        (Pixels(Classes()), np.full((2, 3, 4), -1, np.int8), np.int8),
        (Pixels(Classes()), np.zeros((2, 3, 4), np.uint8), np.int64),
        (Pixels(Classes()), np.zeros((2, 3, 4)), np.int64),
        (Pixels(UnitVector()), np.full((2, 3, 4, 3), np.nan, np.float32), np.float32),
    ):
        assert family.check("t", labels, 2).dtype == kept
    fixed = np.ones((2, 3, 4), np.float32)
    fixed.setflags(write=False)
    assert Pixels().check("t", fixed, 2) is fixed  # nobody can change it, and it is large
    assert Pixels().check("t", fixed[:1], 1) is not fixed
    coarse = np.full((2, 3, 4, 3), [0, 0, 0.99], np.float32)
    coarse.setflags(write=False)
    np.testing.assert_array_equal(Pixels(UnitVector()).check("t", coarse, 2)[..., 2], 1)
    assert coarse[0, 0, 0, 2] < 1
    wrong = np.ones((2, 3, 4))
    wrong[1, 1, 1] = 0
    with pytest.raises(ValueError, match="Image 1 of target 't', .*: Labels are positive, and row 5"):
        Pixels(Real(positive=True)).check("t", wrong, 2)


def test_relative_errors_are_of_positive_labels():
    family = Real(positive=True)
    names = [score.name for score in family.scores]
    assert names[:2] == ["mae", "relative_error"]
    labels, mean = np.array([1.0, 4]), np.array([2.0, 3])
    assert family.score("relative_error").compute(scored(family, labels, mean)) == (1 + 0.25) / 2
    assert "relative_error" not in [score.name for score in Real().scores]
    with pytest.raises(ValueError, match="positive labels, and the smallest here is 0"):
        Real().score("relative_error").compute(scored(Real(), np.array([0.0, 4]), mean))
