import json

import numpy as np
import pytest

from bmtl.evaluation.conformal_classes import (
    adaptive_scores,
    conformal_sets,
    conformal_sets_of_probabilities,
    least_ambiguous_scores,
)
from bmtl.targets import Ordinal
from tests.evaluation import trees
from tests.evaluation.classifications import calibrated, sharpened


def held(method, rows, level, repeats, classes=4, power=3.0):
    """Share of calibrations of `rows` rows whose set of one new row holds its label; the classifier is far too sure."""
    y, p = calibrated(repeats * (rows + 1), classes, 1)
    y, p = y.reshape(repeats, -1), sharpened(p, power).reshape(repeats, -1, classes)
    inside = [
        conformal_sets_of_probabilities(y[i, :-1], p[i, :-1], p[i, -1:], level, method=method, seed=i)[0, y[i, -1]]
        for i in range(repeats)
    ]
    return np.mean(inside)


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize(("rows", "level"), [(9, 0.5), (19, 0.9), (40, 0.8)])
def test_coverage_is_what_theory_says(method, rows, level):
    """Scores without ties: exactly ``ceil((n + 1) level) / (n + 1)``, within 4 standard errors of 4,000 calibrations."""
    expected = np.ceil((rows + 1) * level - 1e-9) / (rows + 1)
    error = 4 * np.sqrt(expected * (1 - expected) / 4000)
    assert held(method, rows, level, 4000) == pytest.approx(expected, abs=error)


def test_adaptive_sets_hold_their_level_in_hard_and_in_easy_rows():
    """Probabilities are right, so coverage is the level at every confidence; with one threshold for all rows it is not."""
    y, p = calibrated(40_000, 5, 2)
    half, level = 20_000, 0.9
    confidence = p[half:].max(axis=1)
    fifth = np.searchsorted(np.quantile(confidence, [0.2, 0.4, 0.6, 0.8]), confidence)
    worst = {}
    for method in ("lac", "aps"):
        sets = conformal_sets_of_probabilities(y[:half], p[:half], p[half:], level, method=method)
        inside = sets[np.arange(half), y[half:]]
        assert inside.mean() == pytest.approx(level, abs=4 * np.sqrt(2 * level * (1 - level) / half))
        worst[method] = max(abs(inside[fifth == k].mean() - level) for k in range(5))
    assert worst["aps"] < 4 * np.sqrt(level * (1 - level) / 4000)  # four standard errors of a fifth
    assert worst["lac"] > 2 * worst["aps"]


def test_sets_by_hand():
    p = np.array([[0.6, 0.3, 0.1]])
    np.testing.assert_allclose(least_ambiguous_scores(p), [[0.4, 0.7, 0.9]])
    np.testing.assert_allclose(adaptive_scores(p, 1.0), [[0.6, 0.9, 1.0]])
    np.testing.assert_allclose(adaptive_scores(p[:, ::-1], 0.5), [[0.95, 0.75, 0.3]])
    # Labels with the probabilities .6, .6 and .3: the second of three scores .4, .4, .7 is sure to a half, the third to 3/4.
    y, known = np.array([0, 0, 1]), np.repeat(p, 3, axis=0)
    assert conformal_sets_of_probabilities(y, known, p, 0.5).tolist() == [[True, False, False]]
    assert conformal_sets_of_probabilities(y, known, p, 0.75).tolist() == [[True, True, False]]
    assert conformal_sets_of_probabilities(y, known, p, 0.8).tolist() == [[True, True, True]]
    assert conformal_sets_of_probabilities(y, known, np.array([[0.4, 0.3, 0.3]]), 0.5).tolist() == [[False] * 3]


def part(seed, rows=400):
    y, p = calibrated(rows, 3, seed)
    grades, of_grade = calibrated(rows, 4, seed + 50)
    grades[::5] = -1
    return {
        "observed": {"k": y, "grade": grades, "a": np.zeros(rows), "none": y},
        "probability": {"k": sharpened(p, 2.0), "grade": of_grade, "none": p},
    }


def tree_of(validation):
    fields = {k: v for k, v in validation.items() if k != "observed"}
    return trees.tree(
        **part(0),
        below={"validation": trees.predicted(validation["observed"], **fields)},
        families={"grade": Ordinal(("a", "b", "c", "d"))},
        classes={"k": ("cat", "dog", "cow")},
        units={"a": "K"},
    )


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_sets_of_a_tree(method):
    validation = part(1)
    validation["observed"]["none"] = np.full(400, -1)
    found = conformal_sets(tree_of(validation), level=0.9, method=method)
    assert found["set_k"].dims == ("obs_k", "class_k")
    assert found["class_k"].values.tolist() == ["cat", "dog", "cow"]
    np.testing.assert_array_equal(found["obs_grade"], np.flatnonzero(np.arange(400) % 5))
    assert found["task"].values.tolist() == ["k", "grade", "a", "none"]
    np.testing.assert_array_equal(np.isnan(found["coverage"]), [False, False, True, True])
    for target in ("k", "grade"):
        inside = found[f"set_{target}"].values
        assert float(found["size"].sel(task=target)) == pytest.approx(inside.sum(axis=1).mean())
        assert float(found["empty"].sel(task=target)) == pytest.approx((~inside.any(axis=1)).mean())
        # Four standard errors of both halves of 320 rows.
        assert float(found["coverage"].sel(task=target)) == pytest.approx(0.9, abs=4 * np.sqrt(2 * 0.09 / 320))
    assert json.loads(found.attrs["left_out"]) == {"none": "it has no labelled validation row"}
    assert conformal_sets(tree_of(validation), level=0.9, method=method).identical(found)
    assert found["unit"].values.tolist() == ["1", "1", "K", "1"]


def test_a_target_whose_probabilities_are_nan_leaves_the_others_theirs():
    validation = part(1)
    validation["probability"]["k"] = np.full((400, 3), np.nan)
    found = conformal_sets(tree_of(validation))
    assert "400 of 400 scores are NaN" in json.loads(found.attrs["left_out"])["k"]
    assert np.isfinite(found["coverage"].sel(task=["grade", "none"])).all()


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no method 'raps' of conformal sets"):
        conformal_sets_of_probabilities([0], [[0.5, 0.5]], [[0.5, 0.5]], 0.9, method="raps")
    with pytest.raises(ValueError, match="no method 'raps'"):
        conformal_sets(tree_of(part(1)), method="raps")
    with pytest.raises(ValueError, match=r"expected \(N, 2\)"):
        conformal_sets_of_probabilities([0], [[0.5, 0.5]], [[0.5, 0.3, 0.2]], 0.9)
    with pytest.raises(ValueError, match="no rows of the part 'validation'"):
        conformal_sets(trees.tree(**part(0)))
    with pytest.raises(ValueError, match="expected one in"):
        conformal_sets(tree_of(part(1)), level=1.0)
