import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.evaluation import metrics, results
from bmtl.evaluation.comparison import caption, compare, delta_m, table
from bmtl.evaluation.parts import scored
from bmtl.evaluation.scores import primary_scores
from bmtl.targets import Binary
from tests.evaluation import trees

# Table 2 of the IGB paper (Dai et al. 2023): MAE of the 11 QM9 targets, and the delta_m that it prints for the row.
STL = [0.067, 0.181, 60.57, 53.91, 0.502, 4.53, 58.8, 64.2, 63.8, 66.2, 0.072]
PRINTED = {
    "EW": (177.6, [0.106, 0.325, 73.57, 89.67, 5.19, 14.06, 143.4, 144.2, 144.6, 140.3, 0.128]),
    "UW": (108.0, [0.386, 0.425, 166.2, 155.8, 1.06, 4.99, 66.40, 66.78, 66.80, 66.24, 0.122]),
    "IGBv1": (73.9, [0.271, 0.351, 143.1, 132.4, 1.07, 4.53, 56.74, 57.13, 57.16, 56.73, 0.115]),
    "Nash": (62.0, [0.102, 0.248, 82.95, 81.89, 2.42, 5.38, 74.5, 75.02, 75.10, 74.16, 0.093]),
}


@pytest.mark.parametrize("method", PRINTED)
def test_delta_m_is_the_papers(method):
    printed, mae = PRINTED[method]
    assert delta_m(mae, STL) == pytest.approx(printed, abs=0.7)  # its entries have two to four digits


def test_delta_m_by_hand():
    assert delta_m([1.1, 1.8], [1.0, 2.0]) == pytest.approx(0.0)
    assert delta_m([0.9, 0.5], [1.0, 0.4], higher_is_better=[False, True]) == pytest.approx((-10 - 25) / 2)
    assert delta_m([0.9], [1.0], higher_is_better=True) == pytest.approx(10)
    np.testing.assert_allclose(delta_m([[1.0, 1.0], [2.0, 2.0]], [1.0, 1.0]), [0, 100])


@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0.01, 100)), min_size=1, max_size=12),
    st.booleans(),
)
def test_delta_m_is_free_of_units_and_of_order(rows, higher):
    metric, baseline, unit = np.array(rows).T
    change = delta_m(metric, baseline, higher_is_better=higher)
    assert delta_m(unit * metric, unit * baseline, higher_is_better=higher) == pytest.approx(change, rel=1e-6, abs=1e-6)
    assert delta_m(metric[::-1], baseline[::-1], higher_is_better=higher) == pytest.approx(change, rel=1e-6, abs=1e-6)
    assert delta_m(baseline, baseline) == 0
    assert delta_m(metric, baseline, higher_is_better=not higher) == pytest.approx(-change)


def test_a_diverged_method_has_no_change():
    assert np.isnan(delta_m([1.0, np.nan], [1.0, 1.0]))


@pytest.mark.parametrize("baseline", [[1.0, 0.0], [1.0, -2.0], [1.0, np.nan], [np.inf, 1.0]])
def test_a_baseline_without_relative_change_is_refused(baseline):
    with pytest.raises(ValueError, match="must be positive and finite"):
        delta_m([1.0, 1.0], baseline)


@pytest.mark.parametrize(("metric", "baseline"), [([1.0, 1.0], [1.0]), ([], []), (1.0, 1.0)])
def test_other_shapes_are_refused(metric, baseline):
    with pytest.raises(ValueError, match="expected K >= 1 metrics"):
        delta_m(metric, baseline)


@pytest.fixture
def grid(make_tree):
    """Three methods, two seeds: stl is the most accurate, nash-mtl takes three times as long a step as ew."""
    settings = {
        "stl": {"variant": 1, "error": 0.2},
        "ew": {"variant": 2, "error": 0.4},
        "nash-mtl": {"variant": 3, "error": 0.3, "seconds": 3e-3},
    }
    return {
        (method, seed): make_tree(seed=seed, method=method, **chosen)
        for method, chosen in settings.items()
        for seed in (1, 0)
    }


def test_scores_of_every_cell(grid):
    data = compare(grid)
    assert data["score"].dims == ("learner", "split", "task", "metric")
    assert data["learner"].values.tolist() == ["stl", "ew", "nash-mtl"]
    assert data["split"].values.tolist() == [0, 1]
    for (method, seed), tree in grid.items():
        cell = data.sel({"learner": method, "split": seed})
        np.testing.assert_array_equal(cell["score"].sel(metric="mae"), metrics.mae(tree)["mae"])
        np.testing.assert_array_equal(cell["score"].sel(metric="rmse"), metrics.rmse(tree)["rmse"])
        np.testing.assert_array_equal(cell["score"].sel(metric="nll"), metrics.nll(tree, standardised=True)["nll"])
        np.testing.assert_array_equal(cell["score"].sel(metric="ece"), metrics.ece(tree)["ece"])
        np.testing.assert_array_equal(cell["score"].sel(metric="r2"), metrics.r2(tree)["r2"])
        np.testing.assert_array_equal(cell["score"].sel(metric="crps"), metrics.crps(tree)["crps"])
        against = metrics.mae(grid["stl", seed])["mae"]
        assert float(cell["delta_m"]) == pytest.approx(delta_m(metrics.mae(tree)["mae"], against))
    assert data["rows"].values.tolist() == [[60] * 3] * 2
    assert data["unit"].values.tolist() == ["D", "meV", "cal/(mol K)"]
    assert data["present"].all()
    assert (data["family"] == "real").all()
    assert (data["primary"] == "mae").all()
    assert data["metric"].values.tolist() == ["mae", "rmse", "r2", "nll", "ece", "crps", "ence"]
    assert data["seed"].values.tolist() == [0, 1]
    assert not data["higher_is_better"].sel(metric="mae")


def test_cost_is_relative_to_the_reference_of_the_same_seed(grid):
    data = compare(grid)
    assert np.isnan(data["T"].sel({"learner": "stl"})).all()
    assert (data["T"].sel({"learner": "ew"}) == 1).all()
    np.testing.assert_allclose(data["T"].sel({"learner": "nash-mtl"}), 3, rtol=0.1)
    seconds = grid["ew", 0]["training"]["seconds"].values
    assert float(data["step_seconds"].sel({"learner": "ew", "split": 0})) == np.median(seconds)


def test_slow_first_steps_do_not_count(grid):
    grid["ew", 0]["training"]["seconds"].values[:3] = 100.0
    assert float(compare(grid)["step_seconds"].sel({"learner": "ew", "split": 0})) < 2e-3


def test_a_hole_in_the_grid_is_marked(grid):
    del grid["nash-mtl", 1]
    data = compare(grid)
    hole = data.sel({"learner": "nash-mtl", "split": 1})
    assert not hole["present"]
    assert np.isnan(hole["score"]).all()
    assert np.isfinite(data["delta_m"].sel({"learner": "nash-mtl", "split": 0}))


def test_a_seed_without_its_baseline_or_reference_has_no_ratio(grid):
    del grid["stl", 1], grid["ew", 0]
    data = compare(grid)
    np.testing.assert_array_equal(np.isfinite(data["delta_m"].sel({"learner": "nash-mtl"})), [True, False])
    np.testing.assert_array_equal(np.isfinite(data["T"].sel({"learner": "nash-mtl"})), [False, True])


@pytest.mark.parametrize("role", ["baseline", "reference"])
def test_a_missing_baseline_is_named(grid, role):
    with pytest.raises(ValueError, match=f"The {role} 'gone' is not among the methods .*{role}=None"):
        compare(grid, **{role: "gone"})
    data = compare(grid, **{role: None})
    assert np.isnan(data["delta_m" if role == "baseline" else "T"]).all()


def test_a_baseline_that_diverged_leaves_its_seed_without_a_change(grid, make_tree, run_arrays):
    mean = run_arrays(seed=0)["predictive_mean"]
    mean["mu"] = np.full(60, np.nan)
    grid["stl", 0] = make_tree(seed=0, predictive_mean=mean)
    data = compare(grid)
    assert np.isnan(data["delta_m"].sel(split=0)).all()
    assert np.isfinite(data["delta_m"].sel(split=1)).all()


def test_targets_that_nobody_scores_are_left_out(make_tree, run_arrays):
    trees = {}
    for method in ("stl", "ew"):
        y = run_arrays()["observed"]
        y["cv"] = np.full(60, np.nan)
        trees[method, 0] = make_tree(observed=y)
    data = compare(trees)
    assert data["task"].values.tolist() == ["mu", "homo"]
    assert np.isfinite(data["delta_m"]).all()


def test_a_target_that_one_seed_lacks_counts_in_the_others(make_tree, run_arrays):
    trees = {}
    for method in ("stl", "ew"):
        for seed in (0, 1):
            y = run_arrays(seed=seed)["observed"]
            if seed:
                y["cv"] = np.full(60, np.nan)
            trees[method, seed] = make_tree(seed=seed, variant=len(method), observed=y)
    data = compare(trees)
    assert data["rows"].values.tolist() == [[60, 60, 60], [60, 60, 0]]
    assert np.isfinite(data["delta_m"]).all()


def test_different_rows_are_not_compared(grid, make_tree, run_arrays):
    y = run_arrays(seed=0)["observed"]
    y["homo"][0] = np.nan
    grid["ew", 0] = make_tree(seed=0, observed=y)
    with pytest.raises(ValueError, match="different rows of 'homo' in split 0"):
        compare(grid)
    grid["ew", 0] = make_tree(seed=5)
    with pytest.raises(ValueError, match="different rows of 'mu' in split 0"):
        compare(grid)
    grid["ew", 0] = make_tree(seed=0, targets=("mu",))
    with pytest.raises(ValueError, match="scored on the targets"):
        compare(grid)


def test_a_target_without_a_scored_row_may_be_missing(grid, make_tree, run_arrays):
    y = run_arrays(seed=0)["observed"]
    y["homo"][:] = np.nan
    trees = {("stl", 0): make_tree(seed=0, observed=y), ("constant", 0): make_tree(seed=0, observed=y)}
    group = trees["constant", 0]["test/observed_data"]
    group.dataset = group.to_dataset(inherit=False).drop_vars(["y_homo", "obs_homo"])
    assert compare(trees, reference=None)["task"].values.tolist() == ["mu", "cv"]


def test_labels_in_single_precision_are_the_same_rows(grid, make_tree, run_arrays):
    y = {name: values.astype(np.float32) for name, values in run_arrays(seed=0)["observed"].items()}
    grid["ew", 0] = make_tree(seed=0, observed=y)
    assert compare(grid)["present"].all()


def test_a_run_without_step_times_has_no_cost(grid, make_tree):
    grid["nash-mtl", 0] = make_tree(seed=0, training=None)
    assert np.isnan(compare(grid)["T"].sel({"learner": "nash-mtl", "split": 0}))


def test_nothing_to_compare(make_tree):
    with pytest.raises(ValueError, match="no results tree"):
        compare({})
    unlabelled = make_tree(observed=dict.fromkeys(("mu", "homo", "cv"), np.full(60, np.nan)))
    with pytest.raises(ValueError, match="none of the runs has a scored row"):
        compare({("ew", 0): unlabelled}, baseline=None)


def test_one_method_may_be_baseline_and_reference(grid):
    data = compare(grid, baseline="ew", reference="ew")
    assert (data["T"].sel({"learner": "ew"}) == 1).all()
    assert (data["delta_m"].sel({"learner": "ew"}) == 0).all()
    assert np.isfinite(data["T"]).all()


def test_written_and_read(grid, tmp_path):
    data = compare(grid)
    assert results.read(results.write(data, tmp_path / "comparison.nc")).to_dataset().identical(data)
    assert results.decode_attributes(data)["baseline"] == "stl"


def test_step_times_measured_side_by_side_take_the_place_of_recorded_ones(grid):
    given = {"ew": 2e-3, "nash-mtl": 5e-3}
    data = compare(grid, step_seconds=given)
    assert (data["T"].sel({"learner": "nash-mtl"}) == 2.5).all()
    assert (data["step_seconds"].sel({"learner": "ew"}) == 2e-3).all()
    del given["nash-mtl"]
    assert np.isnan(compare(grid, step_seconds=given)["T"].sel({"learner": "nash-mtl"})).all()


# ---- Classifications -------------------------------------------------------------------------------------------------


def test_scores_of_both_kinds(mixed_grid):
    data = compare(mixed_grid, reference=None)
    assert data["family"].values.tolist() == ["real", "classes"]
    assert data["primary"].values.tolist() == ["mae", "accuracy"]
    for (method, split), tree in mixed_grid.items():
        cell = data["score"].sel({"learner": method, "split": split})
        for name in ("accuracy", "balanced_accuracy", "auroc", "nll", "brier", "ece", "entropy_ratio"):
            assert float(cell.sel(task="kind", metric=name)) == float(metrics.score(tree, name).sel(task="kind")), name
        rows = scored(tree)["kind"]
        right = rows.prediction.probability.argmax(axis=1) == rows.labels
        assert float(cell.sel(task="kind", metric="accuracy")) == right.mean()
        assert float(cell.sel(task="mu", metric="mae")) == float(metrics.mae(tree)["mae"].sel(task="mu"))
        assert float(cell.sel(task="mu", metric="ece")) == float(metrics.ece(tree)["ece"].sel(task="mu"))
    of_class, of_number = data["score"].sel(task="kind"), data["score"].sel(task="mu")
    assert np.isnan(of_class.sel(metric=["mae", "rmse"])).all()
    assert np.isnan(of_number.sel(metric=["accuracy", "brier", "auroc"])).all()
    assert np.isnan(of_number.sel(metric="nll")).all()  # no log_likelihood in these trees
    higher = {"r2", "accuracy", "balanced_accuracy", "auroc", "entropy_ratio"}
    named = dict(zip(data["metric"].values, data["higher_is_better"].values, strict=True))
    assert {name for name, better in named.items() if better} >= higher
    assert not any(named[name] for name in ("mae", "rmse", "nll", "ece", "brier"))


def test_delta_m_takes_errors_down_and_accuracies_up(mixed_grid):
    data = compare(mixed_grid, reference=None)
    for split in (0, 1, 2):
        score = data["score"].sel(split=split)
        mae, accuracy = score.sel(task="mu", metric="mae"), score.sel(task="kind", metric="accuracy")
        changes = [float((v[1] - v[0]) / v[0]) for v in (mae, accuracy)]
        assert changes[0] < 0 < changes[1]
        found = data["delta_m"].sel({"learner": "nash-mtl", "split": split})
        assert float(found) == pytest.approx(100 * (changes[0] - changes[1]) / 2)
    assert (data["delta_m"].sel({"learner": "stl"}) == 0).all()


def test_a_comparison_of_both_kinds_is_written_and_read(mixed_grid, tmp_path):
    data = compare(mixed_grid, reference=None)
    assert results.read(results.write(data, tmp_path / "comparison.nc")).to_dataset().identical(data)


def test_a_target_of_another_kind_is_not_compared(mixed_grid, make_tree):
    mixed_grid["nash-mtl", 0] = make_tree(targets=("mu", "kind"), units=None)
    with pytest.raises(ValueError, match="'nash-mtl' in split 0 was scored on the targets"):
        compare(mixed_grid, reference=None)


def test_scores_without_their_groups_are_left_out(make_tree):
    trees = {("ew", 0): make_tree(pit=None, log_likelihood=None)}
    data = compare(trees, baseline=None)
    assert data["metric"].values.tolist() == ["mae", "rmse", "r2", "crps", "ence"]
    without = compare({("ew", 0): make_tree(predictive_mean=None)}, baseline=None)
    assert np.isnan(without["score"].sel(metric="mae")).all()


def test_a_score_that_cannot_be_computed_is_named_and_loses_nothing_else(grid, make_tree, run_arrays, caplog):
    density = run_arrays(seed=0)["log_likelihood"]
    density["mu"][0, 0] = np.inf
    before = compare(grid)
    grid["ew", 0] = make_tree(seed=0, method="ew", variant=2, error=0.4, log_likelihood=density)
    data = compare(grid)
    assert np.isnan(data["score"].sel(learner="ew", split=0, task="mu", metric="nll"))
    assert np.isfinite(data["score"].sel(learner="ew", split=0, task="mu", metric="mae"))
    assert data["score"].isnull().sum() == before["score"].isnull().sum() + 1
    (what, reason), *others = results.decode_attributes(data)["not_computed"].items()
    assert (what, others) == ("nll of mu of ew in 0", [])
    assert "a predictive scale is zero" in reason
    assert "nll of mu of 'ew' in split 0 cannot be computed: " in caplog.text
    assert "Not computed: nll of mu of ew in 0 (" in caption(data)
    assert "Not computed" not in caption(before)


def test_a_run_whose_every_number_is_nan_stays_and_is_nan(grid, make_tree, run_arrays):
    given = run_arrays(seed=0)
    nothing = {
        name: {target: np.full_like(values, np.nan) for target, values in given[name].items()}
        for name in ("predictive", "log_likelihood", "predictive_mean", "pit")
    }
    grid["ew", 0] = make_tree(seed=0, **nothing)
    data = compare(grid)
    cell = {"learner": "ew", "split": 0}
    assert np.isnan(data["score"].sel(cell)).all()
    assert np.isnan(data["delta_m"].sel(cell))
    assert data["present"].sel(cell)
    assert np.isfinite(data["score"].sel({"learner": "ew", "split": 1})).all()


def test_methods_are_selected_by_a_dimension_that_xarray_does_not_take_for_its_own(grid):
    score = compare(grid)["score"]
    assert score.sel(learner="ew").sizes == {"split": 2, "task": 3, "metric": 7}
    assert "method" not in {*score.dims, *score.coords}


# ---- Families --------------------------------------------------------------------------------------------------------


def rare(split, sharp, positives=6):
    """A binary target of which few rows are positive."""
    labels, random = np.random.default_rng(split), np.random.default_rng([split, int(10 * sharp)])
    ill = (labels.permutation(100) < positives).astype(int)
    logit = sharp * (ill - 0.5) + random.normal(size=100) - 2
    p = 1 / (1 + np.exp(-logit))
    return ill, np.stack([1 - p, p], axis=1)


@pytest.mark.parametrize(
    ("positives", "primary", "asked", "expected"),
    [
        (6, "", None, "accuracy"),  # what the tree does not say, the family says
        (6, "auroc", None, "auroc"),
        (50, "accuracy", "auroc", "auroc"),
        (50, "accuracy", {"ill": "average_precision"}, "average_precision"),
    ],
)
def test_a_target_is_judged_by_its_primary_score_or_the_one_that_is_asked_for(positives, primary, asked, expected):
    grid = {}
    for learner, sharp in (("stl", 2.0), ("ew", 3.0)):
        for split in range(3):
            ill, p = rare(split, sharp, positives)
            grid[learner, split] = trees.tree(
                observed={"ill": ill},
                probability={"ill": p},
                families={"ill": Binary()},
                primary={"ill": primary},
            )
    data = compare(grid, reference=None, primary=asked)
    assert data["primary"].values.tolist() == [expected]
    own, base = (data["score"].sel(learner=name, task="ill", metric=expected) for name in ("ew", "stl"))
    np.testing.assert_allclose(data["delta_m"].sel(learner="ew"), -100 * (own - base) / base)


@pytest.fixture
def one_class():
    """A rare class of which split 1 has no test row, beside a real target; three splits of two methods."""
    grid, random = {}, np.random.default_rng(0)
    for split in range(3):
        mu = random.normal(size=40)
        ill = np.zeros(40, dtype=int) if split == 1 else (np.arange(40) < 4).astype(int)
        for learner, error in (("stl", 0.5), ("ew", 0.3)):
            p = np.clip(0.1 + 0.3 * ill + 0.2 * random.uniform(size=40), 0, 1)
            grid[learner, split] = trees.tree(
                observed={"ill": ill, "mu": mu},
                probability={"ill": np.stack([1 - p, p], 1)},
                predictive_mean={"mu": mu + error * random.normal(size=40)},
                families={"ill": Binary()},
                primary={"ill": "auroc"},
            )
    return grid


def test_a_score_that_labels_give_no_value_is_left_out_where_they_do_not_and_the_caption_says_so(one_class):
    data = compare(one_class, reference=None)
    scores, higher = primary_scores(data)
    assert np.isnan(scores.sel(task="ill", split=1)).all()
    for split, tasks in ((0, ["ill", "mu"]), (1, ["mu"]), (2, ["ill", "mu"])):
        one, base = (scores.sel(learner=name, split=split, task=tasks).values for name in ("ew", "stl"))
        expected = delta_m(one, base, higher_is_better=higher.sel(task=tasks).values)
        assert float(data["delta_m"].sel(learner="ew", split=split)) == pytest.approx(expected)
    frame = table(data)
    assert frame.loc["ew", "AUROC ill"] == pytest.approx(
        float(scores.sel(learner="ew", task="ill", split=[0, 2]).mean())
    )
    assert frame.loc["ew", "MAE mu"] == pytest.approx(float(scores.sel(learner="ew", task="mu").mean()))
    said = "left out there: AUROC of ill in run 1."
    assert said in caption(data)
    assert said not in caption(
        compare({cell: tree for cell, tree in one_class.items() if cell[1] != 1}, reference=None)
    )


def test_a_run_that_diverged_is_not_taken_for_labels_of_one_class(one_class):
    for learner in ("stl", "ew"):
        one_class[learner, 0]["test/probability/y_ill"].values[:] = np.nan
    data = compare(one_class, reference=None)
    assert np.isnan(data["delta_m"].sel(learner="ew", split=0))
    assert np.isnan(table(data).loc["ew", ["delta_m [%]", "AUROC ill"]]).all()
    assert "AUROC of ill in run 1." in caption(data)


def test_a_primary_score_that_no_target_has_is_named(mixed_grid):
    with pytest.raises(ValueError, match="None of the targets has a score 'auroc2'; their scores are mae"):
        compare(mixed_grid, reference=None, primary="auroc2")
    with pytest.raises(ValueError, match="The target 'mu' has no score 'auroc'"):
        compare(mixed_grid, reference=None, primary={"mu": "auroc"})
    with pytest.raises(ValueError, match="There is no target 'nu'"):
        compare(mixed_grid, reference=None, primary={"nu": "mae"})
    assert compare(mixed_grid, reference=None, primary="auroc")["primary"].values.tolist() == ["mae", "auroc"]


def test_every_family_is_compared(every_family_grid, tmp_path):
    data = compare(every_family_grid, reference=None)
    assert data["family"].values.tolist() == [
        "real", "real", "classes", "binary", "ordinal", "count", "time-to-event", "vector",
    ]  # fmt: skip
    for place, name in enumerate(data["task"].values.tolist()):
        primary = data["primary"].values[place]
        assert np.isfinite(data["score"].sel(task=name, metric=primary)).all(), name
    assert (data["delta_m"].sel(learner="ew") < 0).all()  # its predictions have half the error
    found = results.read(results.write(data, tmp_path / "comparison.nc")).to_dataset()
    assert found.identical(data)


def test_a_relative_change_is_taken_of_scores_that_have_a_zero(every_family_grid):
    by_density = {"days": "nll"}
    data = compare(every_family_grid, reference=None, primary=by_density)
    without = compare(every_family_grid, reference=None, primary=by_density).drop_sel(task="days")
    scores, higher = primary_scores(without)
    one, base = scores.sel(learner="ew", split=0), scores.sel(learner="stl", split=0)
    assert float(data["delta_m"].sel(learner="ew", split=0)) == pytest.approx(
        float(delta_m(one.values, base.values, higher_is_better=higher.values))
    )


def test_another_part_may_be_compared(make_tree, run_arrays):
    def with_validation(seed, variant):
        given = run_arrays(seed=seed + 50, variant=variant)
        rows = trees.predicted(given["observed"], mean=given["predictive_mean"], predictive=given["predictive"])
        return make_tree(seed=seed, variant=variant, below={"validation": rows})

    grid = {(learner, 0): with_validation(0, variant) for variant, learner in enumerate(("stl", "ew"))}
    test, validation = compare(grid), compare(grid, part="validation")
    assert not np.array_equal(test["score"].sel(metric="mae"), validation["score"].sel(metric="mae"))
    np.testing.assert_array_equal(
        validation["score"].sel(learner="ew", split=0, metric="mae"), metrics.mae(grid["ew", 0]["validation"])["mae"]
    )
