import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bmtl.evaluation.ranks import mean_rank
from bmtl.evaluation.resampling import bootstrap_interval, holm, sign_flip_p
from bmtl.evaluation.statistics import mean_and_error, not_worse_than_best, paired_differences, share_worse


def make(methods=3, splits=8, tasks=None, seed=0):
    """Scores whose splits differ more than their methods do: m0 is the best by far less than splits vary."""
    random = np.random.default_rng(seed)
    shape = (methods, splits) if tasks is None else (methods, splits, tasks)
    hard = 10 * random.normal(size=shape[1:])
    worse = np.arange(methods).reshape(-1, *[1] * (len(shape) - 1))
    dims = ("learner", "split", "task")[: len(shape)]
    coords = {"learner": [f"m{i}" for i in range(methods)], "split": np.arange(splits)}
    if tasks is not None:
        coords["task"] = [f"t{i}" for i in range(tasks)]
    return xr.DataArray(hard + worse + 0.3 * random.normal(size=shape), dims=dims, coords=coords)


@pytest.mark.parametrize("tasks", [None, 4])
def test_mean_and_standard_error(tasks):
    scores = make(tasks=tasks)
    found = mean_and_error(scores)
    np.testing.assert_allclose(found["mean"], scores.values.mean(axis=1))
    np.testing.assert_allclose(found["error"], stats.sem(scores.values, axis=1))
    np.testing.assert_allclose(found["deviation"], scores.values.std(axis=1, ddof=1))
    assert (found["splits"] == 8).all()


def test_a_hole_is_left_out_and_a_diverged_run_is_not():
    scores = make()
    scores[1, 2] = np.nan
    counted = scores.notnull()
    diverged, hole = mean_and_error(scores), mean_and_error(scores, counted=counted)
    assert np.isnan(diverged["mean"]).values.tolist() == [False, True, False]
    assert float(hole["mean"][1]) == pytest.approx(float(scores[1].mean()))
    assert float(hole["error"][1]) == pytest.approx(stats.sem(scores[1].dropna("split")))
    assert hole["splits"].values.tolist() == [8, 7, 8]


def test_one_split_has_a_mean_alone_and_none_has_nothing():
    scores = make(splits=1)
    found = mean_and_error(scores)
    np.testing.assert_array_equal(found["mean"], scores[:, 0])
    assert np.isnan(found["error"]).all()
    nothing = mean_and_error(scores, counted=xr.zeros_like(scores, dtype=bool))
    assert np.isnan(nothing["mean"]).all()
    assert (nothing["splits"] == 0).all()


def test_an_infinite_score_makes_the_mean_infinite():
    scores = make()
    scores[0, 0] = np.inf
    assert float(mean_and_error(scores)["mean"][0]) == np.inf
    assert np.isnan(mean_and_error(scores)["error"][0])


@pytest.mark.parametrize("tasks", [None, 3])
def test_differences_are_paired(tasks):
    scores = make(tasks=tasks)
    found = paired_differences(scores, "m0")
    assert found["learner"].values.tolist() == ["m1", "m2"]
    assert "split" not in found.coords
    plain = scores.values[1:] - scores.values[0]
    np.testing.assert_allclose(found["difference"], plain.mean(axis=1))
    np.testing.assert_allclose(found["error"], stats.sem(plain, axis=1))
    lower, upper = bootstrap_interval(np.moveaxis(plain, 1, 0))
    np.testing.assert_allclose(found["lower"], lower)
    np.testing.assert_allclose(found["upper"], upper)
    p = sign_flip_p(np.moveaxis(plain, 1, 0))
    np.testing.assert_allclose(found["p_sign_flip"], p)
    np.testing.assert_allclose(found["p_holm"], holm(p))
    np.testing.assert_allclose(found["p_signed_rank"], stats.wilcoxon(plain, axis=1, method="exact").pvalue)
    assert (found["lower"] > 0).all()  # told apart although splits differ ten times as much
    assert (found["wins"] == 0).all()
    assert (paired_differences(scores, "m0", higher_is_better=True)["wins"] == 8).all()


def test_what_differs_by_the_rounding_of_single_precision_is_equal():
    scores = make(methods=3, splits=6) + 100
    scores[1] = scores[0] * (1 + 5e-8)
    scores[2] = scores[0] * (1 + 5e-6)
    of = paired_differences(scores, "m0")
    assert (of["difference"][0], of["lower"][0], of["upper"][0], of["wins"][0]) == (0, 0, 0, 0)
    assert 0 < of["lower"][1] <= of["difference"][1]
    assert not_worse_than_best(scores).values.tolist() == [True, True, False]


def test_a_split_counts_where_it_counts_for_both():
    scores = make()
    counted = xr.ones_like(scores, dtype=bool)
    counted[0, 0] = counted[1, 1] = False
    found = paired_differences(scores, "m0", counted=counted)
    assert found["splits"].values.tolist() == [6, 7]
    plain = (scores[1] - scores[0]).values[2:]
    assert float(found["difference"][0]) == pytest.approx(plain.mean())
    lower, _ = bootstrap_interval(plain)
    assert float(found["lower"][0]) == pytest.approx(float(lower))
    assert float(found["p_sign_flip"][0]) == pytest.approx(float(sign_flip_p(plain)))


def test_a_diverged_run_has_no_interval_and_no_test():
    scores = make()
    scores[1, 3] = np.nan
    found = paired_differences(scores, "m0").sel({"learner": "m1"})
    for name in ("difference", "error", "lower", "upper", "p_signed_rank", "p_sign_flip", "p_holm"):
        assert np.isnan(found[name]), name
    assert float(paired_differences(scores, "m0")["p_holm"].sel({"learner": "m2"})) == pytest.approx(2**-7)


def test_one_split_has_a_difference_and_nothing_else():
    found = paired_differences(make(splits=1), "m0")
    assert np.isfinite(found["difference"]).all()
    for name in ("error", "lower", "upper", "p_signed_rank", "p_sign_flip", "p_holm"):
        assert np.isnan(found[name]).all(), name


def test_two_splits_have_a_wide_interval_and_no_small_p():
    found = paired_differences(make(splits=2), "m0")
    assert (found["upper"] - found["lower"] > 8 * found["error"]).all()
    assert (found["p_sign_flip"] >= 0.5).all()


def test_an_unknown_baseline_is_named():
    with pytest.raises(ValueError, match="'gone' is not among the learners"):
        paired_differences(make(), "gone")
    with pytest.raises(ValueError, match=r"expected \['split'\]"):
        mean_and_error(xr.DataArray([1.0], dims="learner"))


def test_best_is_the_best_and_those_that_are_not_worse():
    scores = make(methods=4)
    scores[1] = scores[0] + 0.01 * np.array([1, -1, 1, -1, 1, -1, 1, -0.9])
    assert not_worse_than_best(scores).values.tolist() == [True, True, False, False]
    assert not_worse_than_best(-scores, higher_is_better=True).values.tolist() == [True, True, False, False]
    assert not_worse_than_best(scores, higher_is_better=True).values.tolist() == [False, False, False, True]
    assert not_worse_than_best(scores).dims == ("learner",)


def test_the_mask_agrees_with_the_differences_to_the_best():
    scores = make(methods=5, splits=6, tasks=4, seed=3)
    scores = scores / 3 + np.random.default_rng(9).normal(size=scores.shape)
    mask = not_worse_than_best(scores)
    assert mask.dims == ("learner", "task")
    for task in scores["task"].values:
        of = scores.sel(task=task)
        best = str(of["learner"].values[int(of.mean("split").argmin("learner"))])
        found = paired_differences(of, best)
        assert bool(mask.sel({"learner": best, "task": task}))
        for method in found["learner"].values:
            expected = float(found["lower"].sel(learner=method)) <= 0
            assert bool(mask.sel({"learner": method, "task": task})) == expected
    assert 4 < int(mask.sum()) < 20  # some are told apart, some are not


def test_methods_that_are_alike_are_seldom_unmarked():
    random = np.random.default_rng(7)
    values = random.normal(size=(2, 5, 800))
    scores = xr.DataArray(
        values, dims=("learner", "split", "task"), coords={"learner": ["a", "b"], "task": np.arange(800)}
    )
    assert (~not_worse_than_best(scores, resamples=400)).any("learner").mean() < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 800)


def test_without_an_interval_nothing_is_excluded():
    assert not_worse_than_best(make(splits=1)).all()
    scores = make()
    counted = xr.ones_like(scores, dtype=bool)
    counted[0, :4] = False
    counted[1, 4:] = False
    assert not_worse_than_best(scores, counted=counted)[:2].all()  # they share no split


def test_a_diverged_method_is_never_best():
    scores = make()
    scores[0, 0] = np.nan
    scores[2, 0] = np.inf
    assert not_worse_than_best(scores).values.tolist() == [False, True, False]
    assert not not_worse_than_best(xr.full_like(scores, np.nan)).any()


def test_share_of_tasks_that_got_worse():
    scores = make(methods=3, tasks=4) * 0 + xr.DataArray(
        [[1.0, 1, 1, 1], [2, 0, 2, 1], [0, 0, 0, 0]], dims=("learner", "task")
    )
    found = share_worse(scores, "m0")
    assert np.isnan(found.sel({"learner": "m0"}))
    assert found.values[1:].tolist() == [0.5, 0]
    assert share_worse(scores, "m0", higher_is_better=True).values[1:].tolist() == [0.25, 1]
    accuracy = xr.DataArray([True, False, False, False], dims="task", coords={"task": scores["task"]})
    assert share_worse(scores, "m0", higher_is_better=accuracy).values[1:].tolist() == [0.25, 0.25]
    counted = xr.DataArray([True, True, False, False], dims="task", coords={"task": scores["task"]})
    assert share_worse(scores, "m0", counted=counted).values[1:].tolist() == [0.5, 0]
    scores[1, 0, 0] = np.nan
    assert np.isnan(share_worse(scores, "m0").sel({"learner": "m1"}))
    with pytest.raises(ValueError, match="needs the dimension task"):
        share_worse(make(), "m0")


@pytest.mark.parametrize("unit", [2.0**-1000, 2.0**-600, 2.0**600, 2.0**1000])
def test_no_unit_is_too_small_or_too_large(unit):
    scores = make(methods=3, splits=5)
    one, other = mean_and_error(scores), mean_and_error(unit * scores)
    for name in ("mean", "deviation", "error"):
        np.testing.assert_allclose(other[name] / unit, one[name], rtol=1e-12)
    np.testing.assert_allclose(
        paired_differences(unit * scores, "m0")["upper"] / unit, paired_differences(scores, "m0")["upper"], rtol=1e-9
    )


@pytest.mark.parametrize("other", ["fewer", "another order"])
def test_what_counts_must_be_said_of_the_scores_own_labels(other):
    """xarray would take what both have, and one learner's answer for that of all."""
    random = np.random.default_rng(0)
    scores = xr.DataArray(
        random.normal(size=(3, 5)), dims=("learner", "split"), coords={"learner": list("abc"), "split": range(5)}
    )
    counted = xr.ones_like(scores, dtype=bool)
    counted[0, 1] = False
    given = counted.isel(learner=[0]) if other == "fewer" else counted.isel(learner=[2, 0, 1])
    for function in (mean_and_error, not_worse_than_best, mean_rank):
        function(scores, counted=counted)
        with pytest.raises(ValueError, match="counted has other labels along a dimension than the scores"):
            function(scores, counted=given)
