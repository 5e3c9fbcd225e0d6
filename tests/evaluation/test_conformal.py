import json

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bmtl.evaluation.conformal import (
    conformal_intervals,
    conformal_quantile,
    conformalised_quantiles,
    split_conformal,
)
from bmtl.targets import Count
from tests.evaluation import trees


def labels(rows, repeats, random):
    """Heteroscedastic, with heavy tails: no predictive below is right."""
    x = random.uniform(0, 1, size=(repeats, rows))
    return x, x + (0.2 + x) * stats.t.rvs(3, size=x.shape, random_state=random)


@pytest.mark.parametrize("rows", [9, 40])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_is_what_theory_says(rows, level):
    """Exactly ``ceil((n + 1) level) / (n + 1)`` for scores without ties: 20,000 calibrations of one new label each."""
    random = np.random.default_rng(0)
    repeats = 20_000
    expected = np.ceil((rows + 1) * level) / (rows + 1)
    error = 4 * np.sqrt(expected * (1 - expected) / repeats) + 1e-12
    x, y = labels(rows + 1, repeats, random)
    width = 0.1 + 0.2 * x  # far too narrow
    held = {"split": 0, "quantiles": 0}
    for at, label, half in zip(x, y, width, strict=True):
        low, high = split_conformal(label[:-1], at[:-1], at[-1:], level)
        held["split"] += bool(low[0] <= label[-1] <= high[0])
        ends = (at - half)[:-1], (at + half)[:-1], (at - half)[-1:], (at + half)[-1:]
        low, high = conformalised_quantiles(label[:-1], *ends, level)
        held["quantiles"] += bool(low[0] <= label[-1] <= high[0])
    for count in held.values():
        assert count / repeats == pytest.approx(expected, abs=error)
        assert count / repeats >= level - error


def test_quantile_is_the_smallest_rank_that_is_sure():
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 10))  # n = 9
    assert conformal_quantile(scores, 0.5) == 5
    assert conformal_quantile(scores, 0.9) == 9  # 10 * 0.9 is nine, whatever the rounding
    assert conformal_quantile(scores, 0.7) == 7
    assert conformal_quantile(scores, 0.91) == np.inf
    assert conformal_quantile([3.0, 3.0, 3.0], 0.5) == 3
    lower, upper = split_conformal([1.0], [1.0], [2.0, 3.0], 0.9)
    assert (np.isneginf(lower) & np.isposinf(upper)).all()


def test_intervals_that_would_turn_over_are_closed():
    """Every label is at the middle of wide intervals: the margin is inwards, and more than a narrow one can give."""
    lower, upper = conformalised_quantiles(
        np.zeros(9), np.full(9, -5.0), np.full(9, 5.0), np.array([-1.0, -7.0]), np.array([3.0, 7.0]), 0.8
    )
    np.testing.assert_allclose(lower, [1.0, -2.0])
    np.testing.assert_allclose(upper, [1.0, 2.0])


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="a validation row at least"):
        conformal_quantile([], 0.9)
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        conformal_quantile([np.nan, 1.0], 0.9)
    for level in (0.0, 1.0):
        with pytest.raises(ValueError, match="expected one in"):
            conformal_quantile([1.0], level)


def part(rows, seed):
    random = np.random.default_rng(seed)
    x, y = (values[0] for values in labels(rows, 1, random))
    counts = random.poisson(3 + x).astype(float)
    return {
        "observed": {"a": y, "class": random.integers(2, size=rows), "n": counts},
        "distribution": {
            "a": {"loc": x[None], "scale": 0.1 + 0.2 * x[None], "df": np.full((1, rows), np.inf)},
            "n": {"law": "poisson", "rate": np.full((1, rows), 1.0)},  # far too few
        },
        "probability": {"class": np.full((rows, 2), 0.5)},
    }


def tree_of(rows=400, validation=None):
    known = part(rows, 1) if validation is None else validation
    fields = {k: v for k, v in known.items() if k != "observed"}
    return trees.tree(
        **part(rows, 0),
        below={"validation": trees.predicted(known["observed"], **fields)},
        families={"n": Count()},
        units={"a": "K"},
    )


@pytest.mark.parametrize("method", ["split", "quantiles"])
def test_intervals_of_a_tree(method):
    found = conformal_intervals(tree_of(), level=0.9, method=method)
    assert isinstance(found, xr.Dataset)
    assert found["lower_a"].dims == ("obs_a",)
    assert found["coverage"].sel(task="a") == pytest.approx(0.9, abs=0.085)  # four errors of both parts
    assert found["coverage"].sel(task="n") > 0.9 - 0.085  # counts have ties, and so more
    np.testing.assert_array_equal(np.isnan(found["coverage"]), [False, True, False])
    assert float(found["width"].sel(task="a")) == pytest.approx(float((found["upper_a"] - found["lower_a"]).mean()))
    widths = (found["upper_a"] - found["lower_a"]).values
    assert (np.ptp(widths) < 1e-9) == (method == "split")
    assert found["unit"].values.tolist() == ["K", "1", "1"]
    assert json.loads(found.attrs["left_out"]) == {}


def test_a_target_without_an_interval_leaves_the_others_theirs():
    """No labelled validation row, or one that is predicted as NaN."""
    whole = conformal_intervals(tree_of())
    unlabelled, broken = part(400, 1), part(400, 1)
    unlabelled["observed"]["a"] = np.full(400, np.nan)
    broken["distribution"]["a"]["loc"] = np.full((1, 400), np.nan)
    for validation, reason in (
        (unlabelled, "it has no labelled validation row"),
        (broken, "400 of 400 scores are NaN"),
    ):
        found = conformal_intervals(tree_of(validation=validation))
        assert reason in json.loads(found.attrs["left_out"])["a"]
        assert np.isnan(found["coverage"].sel(task="a"))
        assert "lower_a" not in found
        np.testing.assert_array_equal(found["lower_n"], whole["lower_n"])


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="no rows of the part 'validation'"):
        conformal_intervals(trees.tree(**part(20, 0), families={"n": Count()}))
    empty = part(20, 1)
    empty["observed"] |= {"a": np.full(20, np.nan), "n": np.full(20, np.nan)}
    with pytest.raises(ValueError, match="No target can be fitted .* 'a': it has no labelled validation row; 'n'"):
        conformal_intervals(tree_of(20, empty))
    with pytest.raises(ValueError, match="no conformal method 'cqr'"):
        conformal_intervals(tree_of(20), method="cqr")
