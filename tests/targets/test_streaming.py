import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from bmtl.targets import Classes, Count, Law, Pixels, Prediction, Real, Scaler, Scored, UnitVector, Vector
from bmtl.targets.laws import StudentTMixture
from bmtl.targets.streaming import ClassSums, NumberSums, Subsample
from bmtl.targets.streaming.subsample import hashed
from tests.evaluation.classifications import calibrated

IMAGE = (6, 8)
N = 12


def segmentation(seed=0):
    """Labels ``(N, H, W)`` of three classes, some of them missing, and probabilities."""
    y, p = calibrated(N * IMAGE[0] * IMAGE[1], 3, seed)
    y[np.random.default_rng(seed).uniform(size=y.size) < 0.2] = -1
    y[: IMAGE[0] * IMAGE[1]] = -1  # an image without a label
    return y.reshape(N, *IMAGE), Prediction(np.zeros((0, N)), probability=p.reshape(N, *IMAGE, 3))


def depth(seed=0, draws=4):
    random = np.random.default_rng(seed)
    shape = (1, N, *IMAGE)
    mixture = StudentTMixture(random.normal(size=(1, N * 48)), np.exp(random.normal(size=(1, N * 48))), 5.0)
    y = mixture.sample(1, random)[0]
    prediction = Prediction(
        mixture.sample(draws, random).reshape(draws, N, *IMAGE),
        mean=mixture.mean().reshape(N, *IMAGE),
        law=Law("student-t", {name: values.reshape(shape) for name, values in mixture.parameters.items()}),
        log_likelihood=mixture.component_log_prob(y).reshape(shape),
        pit=mixture.cdf(y).reshape(N, *IMAGE),
    )
    y[random.uniform(size=y.size) < 0.2] = np.nan
    return y.reshape(N, *IMAGE), prediction


def reduced(family, labels, prediction, cuts, *, pixels=50, order=None):
    """What a reducer has after batches between the cuts."""
    reducer = family.reducer(Scaler.identity(), pixels=pixels)
    rows = np.arange(N) if order is None else order
    for batch in np.split(rows, cuts):
        reducer.update(labels[batch], prediction.take(batch), batch)
    return reducer


def positive_depth(seed=0):
    labels, prediction = depth(seed)
    return np.exp(labels), replace(prediction, mean=np.exp(prediction.mean))


def directions(seed=0):
    """Unit vectors, some missing, and means that are no unit vectors."""
    random = np.random.default_rng(seed)
    labels = random.normal(size=(N, *IMAGE, 3))
    labels /= np.linalg.norm(labels, axis=-1, keepdims=True)
    mean = 0.7 * labels + random.normal(scale=0.2, size=labels.shape)
    labels[random.uniform(size=(N, *IMAGE)) < 0.2] = np.nan
    density = random.normal(size=(4, N, *IMAGE))
    return labels, Prediction(np.zeros((0, N)), mean=mean, log_likelihood=density)


def displacements(seed=0):
    random = np.random.default_rng(seed)
    labels = random.normal(size=(N, *IMAGE, 2))
    mean = labels + random.normal(size=labels.shape)
    labels[random.uniform(size=(N, *IMAGE)) < 0.2] = np.nan
    return labels, Prediction(np.zeros((0, N)), mean=mean, log_likelihood=random.normal(size=(4, N, *IMAGE)))


CASES = {
    "classes": (Pixels(Classes(("a", "b", "c"))), segmentation),
    "real": (Pixels(Real()), depth),
    "positive": (Pixels(Real(positive=True)), positive_depth),
    "directions": (Pixels(UnitVector()), directions),
    "displacements": (Pixels(Vector(("x", "y"), common_unit=True)), displacements),
}


@pytest.mark.parametrize("case", CASES)
def test_sums_over_batches_are_the_scores_of_all_pixels(case):
    family, made = CASES[case]
    labels, prediction = made()
    rows = Scored(labels, prediction, family, Scaler.identity())
    whole = {
        score.name: score.compute(rows)
        for score in family.scores
        if score.name not in ("ence", "auroc", "entropy_ratio", "crps") and all(map(prediction.has, score.needs))
    }
    found = reduced(family, labels, prediction, [3, 4, 10]).scores()
    assert found.keys() == whole.keys()
    for name, value in found.items():
        exact = {"abs": 0.005} if name == "median_angle" else {"rel": 1e-9}  # of a histogram
        assert value == pytest.approx(whole[name], **exact), name


@pytest.mark.parametrize("case", CASES)
def test_a_pixel_that_is_predicted_as_nan_is_in_the_scores_of_all_pixels_though_not_in_the_sample(case):
    """A run that diverged must not be scored on the pixels that happen to be kept."""
    family, made = CASES[case]
    labels, prediction = made()
    reducer = reduced(family, labels, prediction, [6])
    there = np.flatnonzero(~family.of.missing(labels.reshape(-1, *labels.shape[3:])))
    image, pixel = divmod(int(np.setdiff1d(there, reducer.numbers)[0]), IMAGE[0] * IMAGE[1])
    at = (image, *divmod(pixel, IMAGE[1]))
    for field in ("mean", "probability", "pit"):
        values = getattr(prediction, field)
        if values is None:
            continue
        broken = values.copy()
        broken[at] = np.nan
        diverged = reduced(family, labels, replace(prediction, **{field: broken}), [6])
        sample = diverged.subsample()
        sample = replace(sample, whole=diverged.scores())
        assert not np.isnan(getattr(sample.prediction, field)).any()
        for score in family.of_rows.scores:
            if field in score.needs and score.name in sample.whole:
                assert np.isnan(score.of(sample)), (field, score.name)
        assert np.isnan(list(sample.whole.values())).any()


@pytest.mark.parametrize("case", CASES)
def test_neither_order_nor_batches_nor_workers_matter(case):
    family, made = CASES[case]
    labels, prediction = made()
    first = reduced(family, labels, prediction, [3, 4, 10])
    second = reduced(family, labels, prediction, [5], order=np.random.default_rng(1).permutation(N))
    merged = family.reducer(Scaler.identity(), pixels=50)
    for part in (np.arange(5), np.arange(5, N)):
        other = family.reducer(Scaler.identity(), pixels=50)
        other.update(labels[part], prediction.take(part), part)
        merged.merge(other)
    for other in (second, merged):
        assert other.scores() == pytest.approx(first.scores(), rel=1e-9)
        one, two = first.subsample(), other.subsample()
        order, their = np.argsort(first.numbers), np.argsort(other.numbers)
        np.testing.assert_array_equal(first.numbers[order], other.numbers[their])
        np.testing.assert_array_equal(one.labels[order], two.labels[their])


@pytest.mark.parametrize("case", CASES)
def test_the_subsample_is_ordinary_rows_of_labelled_pixels(case):
    family, made = CASES[case]
    labels, prediction = made()
    reducer = reduced(family, labels, prediction, [3, 4, 10])
    rows, numbers = reducer.subsample(), reducer.numbers
    assert len(np.unique(numbers)) == 50
    np.testing.assert_array_equal(rows.labels, labels.reshape(-1, *labels.shape[3:])[numbers])
    assert not family.of.missing(rows.labels).any()
    if case == "real":
        np.testing.assert_array_equal(rows.prediction.draws, prediction.draws.reshape(4, -1)[:, numbers])
        np.testing.assert_array_equal(
            rows.prediction.law.parameters["loc"], prediction.law.parameters["loc"].reshape(1, -1)[:, numbers]
        )
    for score in filter(lambda score: score.computable(rows), family.of.scores):
        assert np.isfinite(score.compute(rows)), score.name
    few = reduced(family, labels, prediction, [6], pixels=10_000)
    assert len(few.subsample().labels) == (~family.missing_pixels(labels)).sum()


def test_counts_and_vectors():
    random = np.random.default_rng(0)
    rate = random.uniform(1, 4, size=(1, N, *IMAGE))
    y = random.poisson(rate[0]).astype(float)
    family = Pixels(Count())
    prediction = Prediction(np.zeros((0, N)), mean=rate[0], law=Law("poisson", {"rate": rate}))
    found = reduced(family, y, prediction, [6]).scores()
    assert found["mae"] == pytest.approx(np.abs(y - rate[0]).mean())
    assert found["ece"] < 0.58 / np.sqrt(y.size)
    assert "nll" not in found  # no densities were given
    normals = Pixels(Vector(("x", "y", "z")))
    labels = random.normal(size=(N, *IMAGE, 3))
    kept = reduced(normals, labels, Prediction(np.zeros((0, N)), mean=labels + 1), [6])
    assert kept.scores() == {}
    assert kept.subsample().labels.shape == (50, 3)


def test_memory_does_not_grow_with_the_images():
    random = np.random.default_rng(0)
    family = Pixels(Classes(("a", "b", "c")))
    reducer = family.reducer(Scaler.identity(), pixels=500)
    p = random.dirichlet(np.ones(3), size=(4, 64, 64))
    y = random.integers(3, size=(4, 64, 64))
    tracemalloc.start()
    peaks = []
    for step in range(12):
        reducer.update(y, Prediction(np.zeros((0, 4)), probability=p), np.arange(4) + 4 * step)
        peaks.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.reset_peak()
    tracemalloc.stop()
    assert peaks[-1] < peaks[1] + 50_000  # bytes held after a batch; one batch is 400,000


def test_the_subsample_is_uniform():
    chosen = np.zeros(1000)
    for seed in range(400):
        kept = Subsample(100, seed)
        kept.choose(np.arange(1000))
        chosen[kept.numbers] += 1
    assert kept.numbers.size == 100
    # Each number is chosen in 40 of 400 on average, with a standard deviation of 6: five of them for a thousand numbers.
    assert chosen.min() > 10
    assert chosen.max() < 70
    assert len(np.unique(hashed(np.arange(100_000)))) == 100_000


def test_images_of_another_size_and_an_empty_reducer_are_refused():
    labels, prediction = segmentation()
    reducer = Pixels(Classes(("a", "b", "c"))).reducer(Scaler.identity())
    assert reducer.scores() == {}
    with pytest.raises(ValueError, match="No labelled pixel"):
        reducer.subsample()
    reducer.update(labels[:1], prediction.take(slice(0, 1)), np.arange(1))  # the image without a label
    assert reducer.scores() == {}
    with pytest.raises(ValueError, match="3 x 8 pixels, and those before were"):
        reducer.update(labels[:, :3], prediction, np.arange(N))
    with pytest.raises(ValueError, match="no class probabilities"):
        ClassSums(2).update(Scored(np.zeros(2, int), Prediction(np.zeros((0, 2))), Classes(), Scaler.identity()))
    assert Real().reducer(Scaler.identity()) is None
    assert NumberSums().scores() == {}
