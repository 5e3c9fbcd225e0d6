import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bmtl.evaluation import results
from bmtl.evaluation.conformal import (
    conformal_intervals,
    conformal_quantile,
    conformalised_quantiles,
    split_conformal,
)


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


def part(rows, seed, *, validation=True):
    random = np.random.default_rng(seed)
    x, y = (values[0] for values in labels(rows, 1, random))
    classes = random.integers(2, size=rows)
    return results.to_datatree(
        observed={"a": y, "class": classes},
        distribution={"a": {"loc": x[None], "scale": 0.1 + 0.2 * x[None], "df": np.full((1, rows), np.inf)}},
        probability={"class": np.full((rows, 2), 0.5)},
        units={"a": "K"},
    )


@pytest.mark.parametrize("method", ["split", "quantiles"])
def test_intervals_of_a_tree(method):
    tree = part(400, 0)
    tree["validation"] = part(400, 1)
    found = conformal_intervals(tree, level=0.9, method=method)
    assert isinstance(found, xr.Dataset)
    assert found["lower_a"].dims == ("obs_a",)
    assert found["coverage"].sel(task="a") == pytest.approx(0.9, abs=0.085)  # four errors of both parts
    np.testing.assert_array_equal(np.isnan(found["coverage"]), [False, True])
    assert float(found["width"].sel(task="a")) == pytest.approx(float((found["upper_a"] - found["lower_a"]).mean()))
    widths = (found["upper_a"] - found["lower_a"]).values
    assert (np.ptp(widths) < 1e-9) == (method == "split")
    assert found["unit"].values.tolist() == ["K", ""]


def test_what_is_missing_is_named():
    tree = part(20, 0)
    with pytest.raises(ValueError, match="no group 'validation'"):
        conformal_intervals(tree)
    tree["validation"] = results.to_datatree(observed={"class": np.zeros(3, dtype=int)})
    with pytest.raises(ValueError, match="Target 'a' has no labelled validation row"):
        conformal_intervals(tree)
    with pytest.raises(ValueError, match="no conformal method 'cqr'"):
        conformal_intervals(tree, method="cqr")
