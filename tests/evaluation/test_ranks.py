import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats

from bmtl.evaluation.ranks import critical_difference, friedman, mean_rank, ranks


def scores_of(values, block="task"):
    values = np.asarray(values, dtype=float)
    return xr.DataArray(
        values,
        dims=("learner", block),
        coords={"learner": [f"m{i}" for i in range(len(values))], block: np.arange(values.shape[1])},
    )


TABLES = array_shapes(min_dims=2, max_dims=2, min_side=3, max_side=7).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(-3, 3).map(float))
)


@settings(deadline=None)
@given(TABLES)
def test_ranks_are_scipys_and_sum_to_a_constant(values):
    ranked = ranks(scores_of(values))
    np.testing.assert_array_equal(ranked, stats.rankdata(values, axis=0))
    k = len(values)
    np.testing.assert_allclose(ranked.sum("learner"), k * (k + 1) / 2)
    np.testing.assert_allclose(ranks(scores_of(values), higher_is_better=True), k + 1 - ranked)
    np.testing.assert_array_equal(ranks(scores_of(np.exp(values))), ranked)  # ranks know order alone
    np.testing.assert_allclose(mean_rank(scores_of(values)), ranked.mean("task"))


def test_each_block_may_have_its_own_best_end():
    scores = scores_of([[0.1, 0.9], [0.2, 0.8]])
    accuracy = xr.DataArray([False, True], dims="task")
    assert ranks(scores, higher_is_better=accuracy).values.tolist() == [[1, 1], [2, 2]]
    assert ranks(scores, higher_is_better=accuracy).dims == ("learner", "task")


def test_diverged_runs_tie_for_the_last_rank():
    scores = scores_of([[np.nan], [1.0], [np.inf], [0.5]])
    assert ranks(scores).values[:, 0].tolist() == [3.5, 2, 3.5, 1]
    assert ranks(scores, higher_is_better=True).values[:, 0].tolist() == [4, 2, 1, 3]


def test_a_block_that_lacks_a_method_is_left_out():
    scores = scores_of([[1.0, 1.0], [2.0, 0.0], [3.0, np.nan]])
    counted = scores.notnull()
    assert np.isnan(ranks(scores, counted=counted)).values.tolist() == [[False, True]] * 3
    assert mean_rank(scores, counted=counted).values.tolist() == [1, 2, 3]
    assert np.isnan(mean_rank(scores, counted=xr.zeros_like(scores, dtype=bool))).all()


@settings(deadline=None)
@given(TABLES)
def test_friedman_is_scipys(values):
    found = friedman(ranks(scores_of(values)))
    if (values == values[0]).all():
        assert found == (0, 1)
        return
    reference = stats.friedmanchisquare(*values)
    assert found.statistic == pytest.approx(reference.statistic)
    assert found.p == pytest.approx(reference.pvalue)


def test_friedman_of_one_block_or_one_method():
    assert np.isnan(friedman(ranks(scores_of([[1.0], [2.0]])))).all()
    with pytest.raises(ValueError, match="two methods or more"):
        friedman(ranks(scores_of([[1.0, 2.0]])))
    with pytest.raises(ValueError, match="Average over splits first"):
        critical_difference(scores_of([[1.0], [2.0]]).expand_dims(split=2))


def test_nemenyi_by_the_papers_table():
    """Demšar (2006): q is 2.343 for 3 methods and 2.569 for 4; four methods on 14 data sets differ beyond 1.25."""
    values = np.random.default_rng(0).normal(size=(4, 14))
    found = critical_difference(scores_of(values), test="nemenyi")
    assert float(found["difference"]) == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), rel=1e-3)
    assert float(found["difference"]) == pytest.approx(1.25, abs=0.01)
    gaps = np.abs(found["mean_rank"].values[:, None] - found["mean_rank"].values)
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_array_equal(found["p"].values[off] < 0.05, gaps[off] > float(found["difference"]))
    assert (found["mean_rank"].diff("learner") >= 0).all()
    three = critical_difference(scores_of(values[:3]), test="nemenyi")
    assert float(three["difference"]) == pytest.approx(2.343 * np.sqrt(3 * 4 / (6 * 14)), rel=1e-3)


def test_nemenyi_of_two_methods_is_the_normal_test_of_wins():
    values = np.random.default_rng(1).normal(size=(2, 30))
    found = critical_difference(scores_of(values), test="nemenyi")
    wins = (values[0] < values[1]).sum()
    z = (wins - 15) / np.sqrt(30 / 4)
    assert float(found["p"][0, 1]) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-5)


@pytest.mark.parametrize("test", ["signed-rank", "nemenyi"])
def test_methods_that_are_far_apart_are_in_groups_of_their_own(test):
    random = np.random.default_rng(2)
    values = random.normal(size=(4, 25)) + np.array([[0.0], [50.0], [0.1], [50.1]])
    found = critical_difference(scores_of(values), test=test)
    groups = [set(found["learner"].values[row]) for row in found["group"].values]
    assert groups == [{"m0", "m2"}, {"m1", "m3"}]
    assert float(found["friedman_p"]) < 1e-6
    assert float(found["blocks"]) == 25


@pytest.mark.parametrize("test", ["signed-rank", "nemenyi"])
def test_methods_that_are_alike_are_seldom_told_apart(test):
    random = np.random.default_rng(3)
    told = [
        critical_difference(scores_of(random.normal(size=(4, 11))), test=test)["group"].shape[0] != 1
        for _ in range(150)
    ]
    assert np.mean(told) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_signed_rank_groups_do_not_depend_on_other_methods():
    """A pair's own p does not; Holm's factor does. Nemenyi's verdict changes with what else is ranked."""
    values = np.random.default_rng(4).normal(size=(3, 12)) + np.array([[0.0], [1.0], [3.0]])
    found = critical_difference(scores_of(values))
    p = [float(stats.wilcoxon(values[i] - values[j]).pvalue) for i, j in ((0, 1), (0, 2), (1, 2))]
    order = {name: i for i, name in enumerate(found["learner"].values)}
    smallest = min(p)
    i, j = ((0, 1), (0, 2), (1, 2))[p.index(smallest)]
    assert float(found["p"].values[order[f"m{i}"], order[f"m{j}"]]) == pytest.approx(3 * smallest)


def test_few_blocks_are_one_group():
    values = [[1.0, 2.0, 3.0], [5.0, 6.0, 7.0], [9.0, 9.5, 9.9]]
    found = critical_difference(scores_of(values, "split"))
    assert found["group"].values.tolist() == [[True, True, True]]
    assert found.attrs["block"] == "split"
    alone = critical_difference(scores_of([[1.0], [2.0]]))
    assert alone.sizes["group"] == 0
    assert np.isnan(alone["p"]).all()


def test_a_diverged_method_is_last_and_in_no_group_of_tests():
    values = np.random.default_rng(5).normal(size=(3, 10))
    values[0, 3] = np.nan
    values[0] += 30
    found = critical_difference(scores_of(values))
    assert found["learner"].values[-1] == "m0"
    assert not found["group"].sel({"learner": "m0"}).any()


def test_overlapping_groups_are_both_there():
    # Neighbours in rank differ little, the ends much: no run of three, two runs of two.
    from bmtl.evaluation.ranks import _runs

    alike = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=bool)
    assert [run.tolist() for run in _runs(alike)] == [[True, True, False], [False, True, True]]
    assert _runs(np.zeros((3, 3), dtype=bool)) == []
    assert [run.tolist() for run in _runs(np.ones((3, 3), dtype=bool))] == [[True] * 3]
