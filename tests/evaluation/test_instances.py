"""Objects from votes, and how they are matched, against loops over all pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.evaluation.instances import (
    Segments,
    average_precision,
    cluster_votes,
    instance_error,
    panoptic_quality,
)
from bmtl.targets.instances import instance_vectors
from tests.evaluation.classifications import steady

CLASSES = 4


def squares():
    """Six squares of 8 x 8 with gaps between them."""
    numbers = np.zeros((24, 36), dtype=int)
    for k in range(6):
        y, x = 2 + 12 * (k // 3), 2 + 12 * (k % 3)
        numbers[y : y + 8, x : x + 8] = k + 1
    return numbers


def blocks(random, size=(8, 9), most=5):
    """Numbers and classes of random rectangles; each object has one class, and some pixels are void."""
    numbers = np.zeros(size, dtype=int)
    classes = random.integers(CLASSES - 1, size=size) // 2
    for k in range(1, random.integers(1, most + 1)):
        y, x = random.integers(size[0]), random.integers(size[1])
        part = np.s_[y : y + random.integers(1, 6), x : x + random.integers(1, 6)]
        numbers[part], classes[part] = k, random.integers(CLASSES - 1)
    return classes, numbers


def pairs(seed, void=True):
    """Truth and a prediction that is a part of it, drawn anew elsewhere."""
    random = np.random.default_rng(seed)
    for _ in range(3):
        classes, numbers = blocks(random)
        other, objects = blocks(random)
        keep = np.zeros(classes.shape, dtype=bool)
        keep[: random.integers(3, 9)] = True
        guess = np.where(keep, classes, other), np.where(keep, numbers, objects + 10 * (objects > 0))
        if void:
            classes = np.where(random.uniform(size=classes.shape) < 0.15, -1, classes)
        yield Segments(classes, numbers), Segments(*guess)


def brute_panoptic(given_pairs):
    hits, false, missed, overlap = (np.zeros(CLASSES) for _ in range(4))
    for truth, guess in given_pairs:

        def segments(of):
            found = {}
            for at in np.ndindex(of.classes.shape):
                if of.classes[at] >= 0:
                    found.setdefault((of.classes[at], of.numbers[at]), set()).add(at)
            return found

        void = {at for at in np.ndindex(truth.classes.shape) if truth.classes[at] < 0}
        theirs, ours = segments(truth), segments(guess)
        used = set()
        for kind, pixels in theirs.items():
            for other, others in ours.items():
                iou = len(pixels & others) / len(pixels | (others - void))
                if kind[0] == other[0] and iou > 0.5:
                    hits[kind[0]] += 1
                    overlap[kind[0]] += iou
                    used.add(other)
                    break
            else:
                missed[kind[0]] += 1
        for other, others in ours.items():
            if other not in used and len(others & void) <= len(others) / 2:
                false[other[0]] += 1
    with np.errstate(invalid="ignore"):
        return overlap / (hits + false / 2 + missed / 2)


@steady
@given(st.integers(0, 2**32 - 1))
def test_panoptic_quality_equals_a_loop(seed):
    made = list(pairs(seed))
    found = panoptic_quality(made, CLASSES)
    expected = brute_panoptic(made)
    np.testing.assert_allclose(found.quality, expected)
    np.testing.assert_allclose(found.quality, found.segmentation * found.recognition)
    assert np.isnan(found.quality[-1])  # the class that nowhere occurs
    assert found.mean == pytest.approx(np.nanmean(expected))


def test_a_perfect_prediction_and_its_numbers():
    truth = [truth for truth, _ in pairs(3)]
    renamed = [Segments(one.classes, np.where(one.numbers, 90 - one.numbers, 0)) for one in truth]
    found = panoptic_quality(zip(truth, renamed, strict=True), CLASSES)
    assert found.mean == 1  # whatever objects are called
    assert np.isnan(panoptic_quality([], 2).mean)


def brute_precision(images, overlap):
    """Detections one by one in order of confidence, each taking the free object that it overlaps most."""
    ranked = sorted(
        ((-score, i, k + 1) for i, (_, _, scores) in enumerate(images) for k, score in enumerate(scores)),
    )
    taken, curve, right = set(), [], 0
    total = sum(len(np.unique(truth[truth > 0])) for truth, _, _ in images)
    for n, (_, i, k) in enumerate(ranked, 1):
        truth, guess, _ = images[i]
        best, which = -1.0, None
        for t in np.unique(truth[truth > 0]):
            mine, its = (guess == k) & (truth >= 0), truth == t
            iou = (mine & its).sum() / (mine | its).sum()
            if (i, t) not in taken and iou > best:
                best, which = iou, (i, t)
        if best >= overlap:
            taken.add(which)
            right += 1
        curve.append((right / total, right / n))
    area, last = 0.0, 0.0
    for j, (recall, _) in enumerate(curve):
        area += (recall - last) * max(precision for _, precision in curve[j:])
        last = recall
    return area


@steady
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.25, 0.5, 0.75]))
def test_average_precision_equals_a_loop(seed, overlap):
    random = np.random.default_rng(seed)
    images = []
    for truth, guess in pairs(seed):
        objects = np.where(truth.classes < 0, -1, truth.numbers)
        named = np.unique(guess.numbers[(guess.numbers > 0) & (objects >= 0)])  # seen where pixels count
        numbers = np.where(np.isin(guess.numbers, named), np.searchsorted(named, guess.numbers) + 1, 0)
        images.append((objects, numbers, random.permutation(len(named)) + 10.0 * random.uniform()))
    if not any((truth > 0).any() for truth, _, _ in images):
        assert np.isnan(average_precision(images))
        return
    assert average_precision(images, overlap=overlap) == pytest.approx(brute_precision(images, overlap))


@pytest.mark.parametrize("method", ["optics", "dbscan"])
def test_exact_votes_give_the_objects_back(method):
    numbers = squares()
    vectors = instance_vectors(numbers)
    found = cluster_votes(np.nan_to_num(vectors), numbers > 0, method=method, votes=200)
    assert panoptic_quality([(Segments(numbers * 0, numbers), Segments(numbers * 0, found.numbers))], 1).mean == 1
    assert len(found.centres) == 6
    np.testing.assert_allclose(found.spread, 0, atol=1e-6)
    for k, centre in enumerate(found.centres):
        y, x = np.nonzero(found.numbers == k + 1)
        np.testing.assert_allclose(centre, [x.mean(), y.mean()], atol=1e-6)


def test_noisy_votes_are_given_to_the_nearest_centre():
    numbers = squares()
    random = np.random.default_rng(0)
    vectors = np.nan_to_num(instance_vectors(numbers)) + random.normal(size=(24, 36, 2))
    found = cluster_votes(vectors, numbers > 0, votes=150)
    assert average_precision([(numbers, found.numbers, -found.spread)]) == 1
    assert ((found.numbers > 0) == (numbers > 0)).all()
    assert (found.spread > 0.5).all()


def test_classes_part_objects_whose_centres_are_one():
    numbers = np.zeros((20, 20), dtype=int)
    numbers[2:18, 2:18], numbers[7:13, 7:13] = 1, 2  # one in front of the other's middle
    vectors = np.nan_to_num(instance_vectors(numbers))
    together = cluster_votes(vectors, numbers > 0, method="dbscan", votes=400)
    apart = cluster_votes(vectors, numbers > 0, groups=numbers, method="dbscan", votes=400)
    assert together.numbers.max() == 1
    np.testing.assert_array_equal(apart.numbers, numbers)


def test_few_or_no_votes_make_no_object():
    vectors, mask = np.zeros((5, 6, 2)), np.zeros((5, 6), dtype=bool)
    for voting in (0, 1, 3):
        mask.ravel()[:voting] = True
        found = cluster_votes(vectors, mask, smallest=4)
        assert not found.numbers.any()
        assert found.centres.shape == (0, 2)
    single = np.zeros((5, 6), dtype=int)
    single[2, 2] = 1
    vectors = np.nan_to_num(instance_vectors(single))
    assert not cluster_votes(vectors, single > 0, smallest=2).numbers.any()


def test_votes_that_are_far_apart_make_no_object():
    random = np.random.default_rng(0)
    vectors, mask = random.uniform(-1000, 1000, size=(6, 7, 2)), np.ones((6, 7), dtype=bool)
    for method in ("optics", "dbscan"):
        assert not cluster_votes(vectors, mask, method=method).numbers.any()


def test_error_of_vectors_is_of_pixels_of_objects():
    truth = np.array([[[3.0, 4], [np.nan, np.nan]]])
    assert instance_error(truth, np.zeros((1, 2, 2))) == 5
    assert np.isnan(instance_error(np.full((1, 2, 2), np.nan), np.zeros((1, 2, 2))))
    with pytest.raises(ValueError, match="expected the same"):
        instance_error(truth, np.zeros((1, 2)))


def test_what_does_not_fit_is_refused():
    image, mask = np.zeros((3, 4, 2)), np.ones((3, 4), dtype=bool)
    with pytest.raises(ValueError, match="vectors has shape"):
        cluster_votes(image[:2], mask)
    with pytest.raises(ValueError, match="booleans"):
        cluster_votes(image, mask.astype(int))
    with pytest.raises(ValueError, match="no finite vector; leave it out"):
        cluster_votes(np.full_like(image, np.nan), mask)
    for options in ({"radius": 0}, {"smallest": 0}, {"votes": 0}, {"method": "kmeans"}):
        with pytest.raises(ValueError, match="one of optics, dbscan"):
            cluster_votes(image, mask, **options)
    segments = Segments(np.zeros((3, 4), int), np.zeros((3, 4), int))
    with pytest.raises(ValueError, match="expected the same"):
        Segments(np.zeros((3, 4), int), np.zeros((4, 3), int))
    with pytest.raises(ValueError, match="one size"):
        panoptic_quality([(segments, Segments(np.zeros((2, 4), int), np.zeros((2, 4), int)))], 1)
    with pytest.raises(ValueError, match="range from 0 to 5; expected 0 to 1"):
        panoptic_quality([(segments, Segments(np.array([[0, 5, 0, 0]] * 3), np.zeros((3, 4), int)))], 2)
    with pytest.raises(ValueError, match="one confidence an object"):
        average_precision([(np.zeros((3, 4), int), np.full((3, 4), 2), np.zeros(1))])
