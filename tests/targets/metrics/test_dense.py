import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.targets.metrics.dense import angle_summary, angles, confusion_matrix, depth_errors, mean_iou, pixel_accuracy
from tests.evaluation.classifications import steady

images = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**32 - 1))


def segmented(image):
    """Labels with ignored pixels and predictions, (B, H, W)."""
    batch, side, classes, seed = image
    random = np.random.default_rng(seed)
    y = random.integers(-1, classes, size=(batch, side, side))
    predicted = np.where(random.uniform(size=y.shape) < 0.6, y.clip(0), random.integers(classes, size=y.shape))
    return y, predicted, classes


@steady
@given(images)
def test_segmentation_equals_scikit_learn(image):
    oracle = pytest.importorskip("sklearn.metrics")
    y, predicted, classes = segmented(image)
    confusion = confusion_matrix(y, predicted, classes)
    kept = y >= 0
    if not kept.any():
        assert not confusion.any()
        assert np.isnan([mean_iou(confusion), pixel_accuracy(confusion)]).all()
        return
    labels = list(range(classes))
    expected = oracle.confusion_matrix(y[kept], predicted[kept], labels=labels)
    np.testing.assert_array_equal(confusion, expected)
    assert pixel_accuracy(confusion) == pytest.approx(oracle.accuracy_score(y[kept], predicted[kept]))
    seen = np.union1d(y[kept], predicted[kept])
    iou = oracle.jaccard_score(y[kept], predicted[kept], labels=seen, average="macro")
    assert mean_iou(confusion) == pytest.approx(iou)


def test_segmentation_equals_torchmetrics():
    torch = pytest.importorskip("torch", reason="torchmetrics needs it")
    from torchmetrics.functional.classification import multiclass_jaccard_index

    y, predicted, classes = segmented((4, 32, 13, 0))
    expected = multiclass_jaccard_index(torch.as_tensor(predicted), torch.as_tensor(y), classes, ignore_index=-1)
    assert mean_iou(confusion_matrix(y, predicted, classes)) == pytest.approx(expected.item(), abs=1e-6)


@steady
@given(images)
def test_confusions_of_batches_add_up(image):
    y, predicted, classes = segmented(image)
    parts = [confusion_matrix(one, guess, classes) for one, guess in zip(y, predicted, strict=True)]
    np.testing.assert_array_equal(sum(parts), confusion_matrix(y, predicted, classes))


def test_an_ignored_label_is_any_and_its_prediction_does_not_matter():
    y, predicted = np.uint8([0, 1, 255]), np.array([0, 0, 99])
    confusion = confusion_matrix(y, predicted, 2, ignored=255)
    assert confusion.tolist() == [[1, 0], [1, 0]]
    assert mean_iou(confusion) == 0.25
    assert pixel_accuracy(confusion) == 0.5


def test_a_class_that_nowhere_occurs_is_not_in_the_mean():
    assert mean_iou(confusion_matrix([0, 0, 1], [0, 0, 1], 5)) == 1
    assert mean_iou(confusion_matrix([0, 0, 1], [0, 0, 2], 5)) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("y", "predicted", "message"),
    [
        ([0, 1], [[0, 1]], "expected the same"),
        ([0, 2], [0, 1], "labels range from 0 to 2"),
        ([0, -2], [0, 1], "labels range from -2 to 0"),
        ([0, 1], [0, 2], "predicted range from 0 to 2"),
        ([0.0, 1.0], [0, 1], "labels is of type float64"),
        ([0, 1], [0.5, 1.0], "predicted is of type float64"),
    ],
)
def test_what_is_no_segmentation_is_refused(y, predicted, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(y, predicted, 2)


def test_what_is_no_confusion_is_refused():
    for core in (mean_iou, pixel_accuracy):
        with pytest.raises(ValueError, match="expected \\(C, C\\)"):
            core(np.zeros((2, 3)))


@steady
@given(images)
def test_depth_errors_equal_a_loop(image):
    batch, side, _, seed = image
    random = np.random.default_rng(seed)
    depth = random.uniform(-1, 4, size=(batch, side, side)).clip(0)  # a fifth was not measured
    predicted = depth + random.normal(size=depth.shape)
    found = depth_errors(depth, predicted)
    pairs = [(d, p) for d, p in zip(depth.ravel(), predicted.ravel(), strict=True) if d > 0]
    assert found.pixels == len(pairs)
    if pairs:
        assert found.absolute == pytest.approx(np.mean([abs(d - p) for d, p in pairs]))
        assert found.relative == pytest.approx(np.mean([abs(d - p) / d for d, p in pairs]))
        in_mm = depth_errors(1000 * depth, 1000 * predicted)
        assert in_mm[:2] == pytest.approx((1000 * found.absolute, found.relative))
        parts = [depth_errors(d, p) for d, p in zip(depth, predicted, strict=True)]
        whole = sum(part.absolute * part.pixels for part in parts if part.pixels) / found.pixels
        assert whole == pytest.approx(found.absolute)
    else:
        assert np.isnan(found[:2]).all()


def test_depth_with_a_mask_and_without_a_number():
    depth, predicted = np.array([1.0, 2.0, 0.0]), np.array([2.0, np.nan, 7.0])
    assert np.isnan(depth_errors(depth, predicted)[:2]).all()
    assert depth_errors(depth, predicted, mask=[True, False, False]) == (1, 1, 1)
    assert depth_errors([np.nan, 1.0], [1.0, 1.0]) == (0, 0, 1)
    unmeasured = depth_errors(np.zeros((2, 2)), np.ones((2, 2)))
    assert np.isnan(unmeasured[:2]).all()
    assert unmeasured.pixels == 0
    with pytest.raises(ValueError, match="keeps pixels whose depth is zero"):
        depth_errors(depth, predicted, mask=[True, True, True])
    for mask in ([1, 0, 0], [True]):
        with pytest.raises(ValueError, match="booleans of shape"):
            depth_errors(depth, predicted, mask=mask)
    with pytest.raises(ValueError, match="expected the same"):
        depth_errors(depth, predicted[:, None])


@steady
@given(images, st.floats(1e-3, 1e3))
def test_angles_equal_the_arc_cosine_and_need_no_unit_length(image, length):
    batch, side, _, seed = image
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, batch, 3, side, side))
    found = angles(a, length * b, axis=1)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(found, np.degrees(np.arccos(cosine.clip(-1, 1))).ravel(), atol=1e-5)


@pytest.mark.parametrize("degrees", [0, 1e-7, 11.25, 45, 90, 179.9, 180])
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_angles_are_those_of_a_rotation(degrees, scale):
    turned = scale * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0])
    assert angles([[1.0, 0, 0]], [turned])[0] == pytest.approx(degrees, rel=1e-9, abs=1e-12)


def test_pixels_without_a_direction():
    normals = np.array([[0, 0, 0], [0, 0, 1.0], [0, 1, 0]])
    predicted = np.array([[1.0, 0, 0], [0, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(angles(normals, predicted), [np.nan, 0])  # the first normal was not measured
    assert angles(normals, predicted, mask=[False, False, True]).tolist() == [0]
    assert np.isnan(angles(normals, predicted, mask=[True, False, False])).all()
    assert np.isnan(angle_summary(angles(normals, predicted)).mean)
    for shape in ((3, 2), ()):
        with pytest.raises(ValueError, match="3 along axis -1"):
            angles(np.zeros(shape), np.zeros(shape))
    with pytest.raises(ValueError, match="booleans of shape"):
        angles(normals, predicted, mask=np.ones((3, 3), dtype=bool))


def test_summary_of_angles():
    found = angle_summary([0.0, 10.0, 20.0, 90.0])
    assert (found.mean, found.median) == (30, 15)
    assert found.within.tolist() == [0.5, 0.75, 0.75]
    assert angle_summary([[5.0], [40.0]], within=[5.0, 41.0]).within.tolist() == [0, 1]
    empty = angle_summary([])
    assert np.isnan([empty.mean, empty.median, *empty.within]).all()


def test_a_million_pixels():
    random = np.random.default_rng(0)
    y, predicted = random.integers(13, size=(2, 1_000_000))
    normals, guess = random.normal(size=(2, 1_000_000, 3))
    started = time.process_time()
    assert pixel_accuracy(confusion_matrix(y, predicted, 13)) == pytest.approx(1 / 13, abs=0.01)
    assert angle_summary(angles(normals, guess)).median == pytest.approx(90, abs=0.5)
    assert time.process_time() - started < 30  # a guard against loops over pixels, not a measurement
