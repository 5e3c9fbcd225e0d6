"""The nine numbers of scenes, pooled and as published."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.targets.metrics.dense import scene_scores
from tests.evaluation.classifications import steady

CLASSES = 4


def batches(seed):
    """Batches of other sizes with void pixels, pixels without depth or normal, and a class that never occurs."""
    random = np.random.default_rng(seed)
    for size in random.integers(1, 4, size=random.integers(1, 4)):
        shape = (size, 3, 5)
        semantic = random.integers(-1, CLASSES - 1, size=shape)
        depth = np.where(random.uniform(size=shape) < 0.3, np.nan, random.uniform(0.5, 5, size=shape))
        normal = random.normal(size=(*shape, 3))
        normal[random.uniform(size=shape) < 0.3] = random.choice([0.0, np.nan])
        guess = np.where(random.uniform(size=shape) < 0.5, semantic.clip(0), random.integers(CLASSES - 1, size=shape))
        yield (
            {"semantic": semantic, "depth": depth, "normal": normal},
            {
                "semantic": guess,
                "depth": np.nan_to_num(depth, nan=9) + random.normal(size=shape),
                "normal": np.nan_to_num(normal) + random.normal(scale=0.4, size=normal.shape),
            },
        )


def brute_force(given_batches, per_batch):
    """One pixel after the other."""
    hits, unions, pixels = np.zeros(CLASSES), [set() for _ in range(CLASSES)], 0
    parts = []
    for b, (labels, guesses) in enumerate(given_batches):
        absolute, relative, degrees = [], [], []
        for at in np.ndindex(labels["semantic"].shape):
            truth, guess = labels["semantic"][at], guesses["semantic"][at]
            if truth >= 0:
                pixels += 1
                hits[truth] += truth == guess
                unions[truth].add((b, at))
                unions[guess].add((b, at))
            depth = labels["depth"][at]
            if depth > 0:
                absolute.append(abs(guesses["depth"][at] - depth))
                relative.append(absolute[-1] / depth)
            normal, other = labels["normal"][at], guesses["normal"][at]
            if not np.isnan(normal).any() and normal.any():
                cosine = normal @ other / np.linalg.norm(normal) / np.linalg.norm(other)
                degrees.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
        parts.append((absolute, relative, degrees))
    if not per_batch:
        parts = [tuple([value for part in parts for value in part[k]] for k in range(3))]

    def mean(k, of=np.mean):
        values = [of(part[k]) for part in parts if len(part[k])]
        return np.mean(values) if values else np.nan

    seen = [len(union) > 0 for union in unions]
    iou = [hits[c] / len(unions[c]) for c in range(CLASSES) if seen[c]]
    return {
        "semantic": {
            "mean_iou": np.mean(iou) if iou else np.nan,
            "accuracy": hits.sum() / pixels if pixels else np.nan,
        },
        "depth": {"mae": mean(0), "relative_error": mean(1)},
        "normal": {
            "mean_angle": mean(2),
            "median_angle": mean(2, np.median),
            "within_11_25": mean(2, lambda d: np.mean(np.array(d) < 11.25)),
            "within_22_5": mean(2, lambda d: np.mean(np.array(d) < 22.5)),
            "within_30": mean(2, lambda d: np.mean(np.array(d) < 30)),
        },
    }


@pytest.mark.parametrize("per_batch", [False, True])
@steady
@given(st.integers(0, 2**32 - 1))
def test_nine_scores_equal_a_loop(per_batch, seed):
    made = list(batches(seed))
    found, expected = scene_scores(made, classes=CLASSES, per_batch=per_batch), brute_force(made, per_batch)
    assert found.keys() == expected.keys()
    for target, scores in expected.items():
        assert found[target] == pytest.approx(scores, rel=1e-6, abs=1e-6, nan_ok=True), target


def fixture():
    """Five images, written as formulas so that they are the same everywhere; every class occurs."""
    grid = np.arange(5 * 6 * 8).reshape(5, 6, 8)
    labels = grid * 7 % 5 - 1
    guess = np.where(grid % 3 == 0, grid * 11 % 4, labels.clip(0))
    depth = np.where(grid % 6 == 0, 0.0, 1.5 + np.sin(0.7 * grid))
    turn, tilt = 0.9 * grid, 0.4 + 0.5 * np.sin(2.1 * grid)

    def normal(tilt, turn):
        return np.stack([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), -np.cos(tilt)], -1)

    normals = normal(tilt, turn) * (grid % 7 != 0)[..., None]
    directions = normal(tilt + 0.35 * np.sin(grid), turn + 0.6 * np.cos(grid))
    truth = {"semantic": labels, "depth": depth, "normal": normals}
    return truth, {"semantic": guess, "depth": depth + 0.3 * np.cos(1.3 * grid), "normal": directions}


def test_per_batch_is_what_the_published_routines_give():
    truth, guess = fixture()
    parts = [slice(0, 2), slice(2, 4), slice(4, 5)]  # batches of 2, the last one smaller
    made = [({k: v[part] for k, v in truth.items()}, {k: v[part] for k, v in guess.items()}) for part in parts]
    found = scene_scores(made, classes=4, per_batch=True)
    # ConfMatrix, depth_error and normal_error of YanqiDai/IGB4MTL 80ce8c8 (experiments/nyuv2/utils.py), averaged over
    # batches as its trainer does, run on this fixture.
    assert found["semantic"] == pytest.approx({"mean_iou": 0.6, "accuracy": 0.75})
    assert found["depth"] == pytest.approx({"mae": 0.1912369645392704, "relative_error": 0.16892987008789215})
    assert list(found["normal"].values()) == pytest.approx(
        [17.579163556473954, 19.177358853178948, 0.14227642276422767, 0.8739837398373984, 1.0], rel=1e-6
    )
    assert scene_scores(made, classes=4)["normal"] != pytest.approx(found["normal"])


def test_targets_that_are_not_there_have_no_scores():
    truth, guess = fixture()
    only = scene_scores([({"depth": truth["depth"]}, {"depth": guess["depth"]})])
    assert list(only) == ["depth"]
    assert scene_scores([]) == {}
    nothing = scene_scores([({"depth": np.zeros((1, 2, 2))}, {"depth": np.ones((1, 2, 2))})], per_batch=True)
    assert np.isnan(list(nothing["depth"].values())).all()
    with pytest.raises(ValueError, match="semantic, depth and normal; got 'albedo'"):
        scene_scores([({"albedo": np.zeros(1)}, {"albedo": np.zeros(1)})])
    with pytest.raises(ValueError, match="labels range from 0 to 3"):
        scene_scores([({"semantic": np.array([3, 0])}, {"semantic": np.zeros(2, int)})], classes=2)
