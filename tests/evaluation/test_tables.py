import numpy as np
import pandas as pd
import pytest

from bmtl.evaluation.comparison import best, caption, compare, spread, standard_error, table
from bmtl.evaluation.statistics import not_worse_than_best
from bmtl.evaluation.tables import to_csv


@pytest.fixture
def grid(make_tree):
    errors = {"stl": 0.2, "ew": 0.4, "uw": 0.3}
    return {
        (method, seed): make_tree(seed=seed, variant=number, error=error)
        for number, (method, error) in enumerate(errors.items())
        for seed in (0, 1, 2)
    }


def test_columns_and_means(grid):
    data = compare(grid)
    frame = table(data)
    assert frame.columns.tolist() == [
        "delta_m [%]",
        "T",
        "mean NLL",
        "mean ECE",
        "MAE mu [D]",
        "MAE homo [meV]",
        "MAE cv [cal/(mol K)]",
    ]
    assert frame.index.tolist() == ["stl", "ew", "uw"]
    assert frame.index.name == "learner"
    uw = data.sel({"learner": "uw"})
    assert frame.loc["uw", "delta_m [%]"] == pytest.approx(float(uw["delta_m"].mean()))
    assert frame.loc["uw", "T"] == pytest.approx(float(uw["T"].mean()))
    assert frame.loc["uw", "mean NLL"] == pytest.approx(float(uw["score"].sel(metric="nll").mean()))
    assert frame.loc["uw", "mean ECE"] == pytest.approx(float(uw["score"].sel(metric="ece").mean()))
    assert frame.loc["uw", "MAE homo [meV]"] == pytest.approx(float(uw["score"].sel(metric="mae", task="homo").mean()))


def test_one_task_has_a_column_a_score(make_tree):
    trees = {
        (method, seed): make_tree(seed=seed, variant=number, error=error, targets=("mu",))
        for number, (method, error) in enumerate({"stl": 0.2, "ew": 0.4}.items())
        for seed in (0, 1)
    }
    data = compare(trees)
    frame = table(data)
    assert frame.columns.tolist() == ["delta_m [%]", "T", "MAE [D]", "RMSE [D]", "R²", "NLL", "ECE", "CRPS [D]", "ENCE"]
    assert frame.loc["ew", "RMSE [D]"] == pytest.approx(
        float(data["score"].sel({"learner": "ew", "metric": "rmse"}).mean())
    )


def test_the_baseline_is_blank_where_it_is_its_own_measure(grid):
    frame = table(compare(grid))
    assert np.isnan(frame.loc["stl", "delta_m [%]"])
    assert np.isnan(frame.loc["stl", "T"])
    assert frame.loc["ew", "T"] == 1


def test_spread_over_seeds(grid):
    data = compare(grid)
    frame = spread(data)
    assert frame.shape == table(data).shape
    assert frame.loc["ew", "MAE mu [D]"] == pytest.approx(
        np.std(data["score"].sel({"metric": "mae", "learner": "ew", "task": "mu"}), ddof=1)
    )
    one = spread(compare({cell: tree for cell, tree in grid.items() if cell[1] == 0}))
    assert one.isna().all(axis=None)


def test_a_hole_is_left_out_of_the_means(grid):
    full = compare(grid)
    del grid["uw", 2]
    data = compare(grid)
    frame = table(data)
    assert frame.loc["uw", "MAE mu [D]"] == pytest.approx(
        float(full["score"].sel({"metric": "mae", "learner": "uw", "task": "mu", "split": [0, 1]}).mean())
    )
    assert np.isfinite(frame.loc["uw"]).all()
    assert "Missing: uw seed 2." in caption(data)


def test_a_hole_in_the_baseline_or_reference_is_left_out_of_the_ratios_alone(grid):
    del grid["stl", 0], grid["ew", 1]
    data = compare(grid)
    frame = table(data)
    assert frame.loc["uw", "delta_m [%]"] == pytest.approx(
        float(data["delta_m"].sel({"learner": "uw", "split": [1, 2]}).mean())
    )
    assert frame.loc["uw", "T"] == pytest.approx(float(data["T"].sel({"learner": "uw", "split": [0, 2]}).mean()))
    assert frame.loc["uw", "MAE mu [D]"] == pytest.approx(
        float(data["score"].sel({"metric": "mae", "learner": "uw", "task": "mu"}).mean())
    )


def test_a_diverged_run_is_not_left_out(grid, make_tree, run_arrays):
    mean = run_arrays(seed=1)["predictive_mean"]
    mean["mu"] = np.full(60, np.nan)
    grid["uw", 1] = make_tree(seed=1, predictive_mean=mean)
    data = compare(grid)
    frame = table(data)
    assert np.isnan(frame.loc["uw", ["delta_m [%]", "MAE mu [D]"]]).all()
    assert np.isfinite(frame.loc["uw", "MAE homo [meV]"])
    assert not best(data).loc["uw", "delta_m [%]"]


def test_a_density_of_zero_makes_the_nll_infinite_and_nothing_else(grid, make_tree, run_arrays):
    density = run_arrays(seed=1)["log_likelihood"]
    density["mu"][:, 0] = -np.inf
    grid["uw", 1] = make_tree(seed=1, log_likelihood=density)
    data = compare(grid)
    assert table(data).loc["uw", "mean NLL"] == np.inf
    assert np.isnan(spread(data).loc["uw", "mean NLL"])
    assert np.isfinite(table(data).loc["uw"].drop("mean NLL")).all()


def test_a_target_that_a_seed_does_not_score_leaves_the_other_seeds(make_tree, run_arrays):
    trees = {}
    for number, method in enumerate(("stl", "ew")):
        for seed in (0, 1):
            y = run_arrays(seed=seed)["observed"]
            if seed:
                y["cv"] = np.full(60, np.nan)
            trees[method, seed] = make_tree(seed=seed, variant=number, observed=y)
    data = compare(trees)
    frame = table(data)
    assert np.isfinite(frame.loc["ew"]).all()
    assert frame.loc["ew", "MAE cv [cal/(mol K)]"] == float(
        data["score"].sel({"metric": "mae", "learner": "ew", "split": 0, "task": "cv"})
    )


def test_best_are_those_that_the_interval_does_not_tell_apart(make_tree):
    errors = {"stl": 0.1, "ew": 0.9, "uw": 0.3, "si": 0.305}
    grid = {
        (method, split): make_tree(seed=split, variant=number, error=error, rows=200)
        for number, (method, error) in enumerate(errors.items())
        for split in range(6)
    }
    data = compare(grid)
    marks, frame = best(data), table(data)
    assert marks.shape == frame.shape
    assert marks["MAE mu [D]"].tolist() == [True, False, False, False]
    assert marks["delta_m [%]"].tolist() == [False, False, True, True]  # the baseline is not ranked by itself
    assert not marks["T"].any()
    mae = data["score"].sel(metric="mae")
    expected = not_worse_than_best(mae, counted=data["present"])
    np.testing.assert_array_equal(marks[[c for c in marks if c.startswith("MAE")]], expected)


def test_nothing_is_marked_where_nothing_is_told_apart(grid):
    one = compare({cell: tree for cell, tree in grid.items() if cell[1] == 0})
    assert not best(one).any(axis=None)
    alone = compare({("ew", seed): grid["ew", seed] for seed in (0, 1, 2)}, baseline=None)
    assert not best(alone).any(axis=None)


def test_standard_errors_are_deviations_over_the_root_of_splits(grid):
    data = compare(grid)
    pd.testing.assert_frame_equal(standard_error(data), spread(data) / np.sqrt(3))


def test_many_tasks_have_a_summary(make_tree):
    names = tuple(f"school {i}" for i in range(40))
    grid = {
        (method, split): make_tree(
            targets=names, rows=8, draws=2, steps=2, cosine=False, seed=split, variant=number, error=error,
            units=dict.fromkeys(names, "points"), posterior=None,
        )
        for number, (method, error) in enumerate((("stl", 0.4), ("ew", 0.2), ("uw", 0.8)))
        for split in (0, 1)
    }  # fmt: skip
    data = compare(grid)
    frame = table(data)
    assert frame.columns.tolist() == [
        "delta_m [%]",
        "T",
        "mean NLL",
        "mean ECE",
        "mean rank",
        "tasks worse than stl [%]",
        "mean MAE [points]",
    ]
    assert frame["mean rank"].sum() == pytest.approx(6)
    assert frame["mean rank"].idxmin() == "ew"
    mae = data["score"].sel(metric="mae")
    assert frame.loc["uw", "mean MAE [points]"] == pytest.approx(float(mae.sel({"learner": "uw"}).mean()))
    worse = (mae > mae.sel({"learner": "stl"})).mean(["split", "task"]).sel({"learner": "uw"})
    assert frame.loc["uw", "tasks worse than stl [%]"] == pytest.approx(100 * float(worse))
    assert np.isnan(frame.loc["stl", "tasks worse than stl [%]"])
    del grid["uw", 1]
    with_hole = table(compare(grid))
    assert with_hole["mean rank"].sum() == pytest.approx(6)  # from the complete split alone
    assert "tasks worse than stl [%]" not in table(compare(grid, baseline=None))


def test_units_that_differ_have_no_mean(make_tree):
    names = tuple(f"t{i}" for i in range(13))
    units = {name: "m" if i else "s" for i, name in enumerate(names)}
    tree = make_tree(targets=names, rows=8, draws=2, steps=2, units=units)
    assert not [name for name in table(compare({("ew", 0): tree}, baseline=None)) if "MAE" in name]


def test_without_units_the_header_has_none(make_tree):
    frame = table(compare({("ew", 0): make_tree(units=None)}, baseline=None))
    assert "MAE mu" in frame.columns
    assert "delta_m [%]" not in frame  # without a baseline there is none


def test_the_caption_says_what_a_reader_must_know(grid):
    text = caption(compare(grid))
    for part in (
        "Mean ± standard error over 3 seeds of one split.",
        "Marked: not significantly worse than the best (95 % paired interval).",
        "Intervals are over seeds and hold no variance of the data.",
        "of MAE against stl",
        "over ew's",
        "NLL: nats, of targets as scaled for training.",
        "A perfect predictive would show an ECE of 0.040 on so few rows.",
    ):
        assert part in text
    assert "Missing" not in text
    once = compare({(name, 0): grid["ew", 0] for name in "ab"}, baseline=None, reference=None)
    assert caption(once).startswith("One run of each method is too few to compare them: none is marked best.")
    alone = caption(compare({("a", 0): grid["ew", 0]}, baseline=None, reference=None))
    for absent in ("delta_m", "T:", "±", "Intervals", "arked:"):
        assert absent not in caption(once)
        assert absent not in alone
    assert "One run" not in alone  # nothing that could be best


def test_two_runs_decide_nothing_and_mark_nothing(grid):
    two = compare({cell: tree for cell, tree in grid.items() if cell[1] < 2})
    assert not best(two).any(axis=None)
    assert caption(two).startswith(
        "Mean ± standard error over 2 seeds of one split. Two runs are too few to compare methods: none is marked best."
    )
    assert "Marked:" not in caption(two)


def test_a_caption_of_nothing_marked_speaks_of_no_mark(make_tree):
    """Methods that are all alike: no legend for a mark that is nowhere."""
    alike = {
        (method, seed): make_tree(seed=seed, variant=number, error=0.3)
        for number, method in enumerate(("stl", "ew"))
        for seed in range(4)
    }
    data = compare(alike)
    assert best(data).any(axis=None) == ("Marked:" in caption(data))
    assert "Marked:" not in caption(compare({c: t for c, t in alike.items() if c[0] == "ew"}, baseline=None))


def test_splits_are_called_splits_and_seeds_seeds(make_tree):
    def grid(prints, seeds):
        return {
            (method, i): make_tree(seed=seeds[i], variant=number, data_fingerprint=prints[i])
            for number, method in enumerate(("stl", "ew"))
            for i in range(3)
        }

    assert "over 3 splits." in caption(compare(grid("abc", [0, 0, 0])))
    assert "over splits, which share rows" in caption(compare(grid("abc", [0, 0, 0])))
    assert "over 3 seeds of one split." in caption(compare(grid("aaa", [0, 1, 2])))
    assert "over 3 runs." in caption(compare(grid("aab", [0, 1, 0])))


def test_a_table_as_csv_starts_no_formula(make_tree):
    grid = {("=1+1", s): make_tree(targets=("-mu", "@cv"), seed=s, units=None) for s in (0, 1)}
    lines = to_csv(compare(grid, baseline=None, reference=None)).splitlines()
    assert lines[0].split(",")[0] == "learner"
    assert lines[1].split(",")[0] == "'=1+1"
    assert not any(cell.startswith(("=", "@", "+")) for line in lines for cell in line.split(","))


def test_kinds_have_means_of_their_own(mixed_grid):
    data = compare(mixed_grid, reference=None)
    frame = table(data)
    assert frame.columns.tolist() == [
        "delta_m [%]",
        "mean NLL (classes)",
        "mean ECE (real)",
        "mean ECE (classes)",
        "MAE mu [D]",
        "accuracy kind",
    ]
    score = data["score"].mean("split")
    for method in ("stl", "nash-mtl"):
        of = score.sel({"learner": method})
        assert frame.loc[method, "mean ECE (classes)"] == pytest.approx(float(of.sel(task="kind", metric="ece")))
        assert frame.loc[method, "mean ECE (real)"] == pytest.approx(float(of.sel(task="mu", metric="ece")))
        assert frame.loc[method, "accuracy kind"] == pytest.approx(float(of.sel(task="kind", metric="accuracy")))
    marks = best(data)
    assert marks["accuracy kind"].tolist() == [False, True]  # the highest
    assert marks["MAE mu [D]"].tolist() == [False, True]  # the lowest
    assert "of MAE and accuracy against stl" in caption(data)
