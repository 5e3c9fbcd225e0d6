import numpy as np
import pandas as pd
import pytest

from bmtl.evaluation.comparison import best, caption, compare, spread, table


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
    assert frame.index.name == "method"
    uw = data.sel({"method": "uw"})
    assert frame.loc["uw", "delta_m [%]"] == pytest.approx(float(uw["delta_m"].mean()))
    assert frame.loc["uw", "T"] == pytest.approx(float(uw["T"].mean()))
    assert frame.loc["uw", "mean NLL"] == pytest.approx(float(uw["nll"].mean()))
    assert frame.loc["uw", "mean ECE"] == pytest.approx(float(uw["ece"].mean()))
    assert frame.loc["uw", "MAE homo [meV]"] == pytest.approx(float(uw["mae"].sel(task="homo").mean()))


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
        np.std(data["mae"].sel({"method": "ew", "task": "mu"}), ddof=1)
    )
    one = spread(compare({cell: tree for cell, tree in grid.items() if cell[1] == 0}))
    assert one.isna().all(axis=None)


def test_a_hole_is_left_out_of_the_means(grid):
    full = compare(grid)
    del grid["uw", 2]
    data = compare(grid)
    frame = table(data)
    assert frame.loc["uw", "MAE mu [D]"] == pytest.approx(
        float(full["mae"].sel({"method": "uw", "task": "mu", "seed": [0, 1]}).mean())
    )
    assert np.isfinite(frame.loc["uw"]).all()
    assert "Missing: uw seed 2." in caption(data)


def test_a_hole_in_the_baseline_or_reference_is_left_out_of_the_ratios_alone(grid):
    del grid["stl", 0], grid["ew", 1]
    data = compare(grid)
    frame = table(data)
    assert frame.loc["uw", "delta_m [%]"] == pytest.approx(
        float(data["delta_m"].sel({"method": "uw", "seed": [1, 2]}).mean())
    )
    assert frame.loc["uw", "T"] == pytest.approx(float(data["T"].sel({"method": "uw", "seed": [0, 2]}).mean()))
    assert frame.loc["uw", "MAE mu [D]"] == pytest.approx(float(data["mae"].sel({"method": "uw", "task": "mu"}).mean()))


def test_a_diverged_run_is_not_left_out(grid, make_tree, run_arrays):
    mean = run_arrays(seed=1)["predictive_mean"]
    mean["mu"] = np.full(60, np.nan)
    grid["uw", 1] = make_tree(seed=1, predictive_mean=mean)
    frame = table(compare(grid))
    assert np.isnan(frame.loc["uw", ["delta_m [%]", "MAE mu [D]"]]).all()
    assert np.isfinite(frame.loc["uw", "MAE homo [meV]"])
    assert not best(frame).loc["uw", "delta_m [%]"]


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
    assert frame.loc["ew", "MAE cv [cal/(mol K)]"] == float(data["mae"].sel({"method": "ew", "seed": 0, "task": "cv"}))


def test_best_is_the_lowest_with_ties_and_without_cost():
    frame = pd.DataFrame(
        {"delta_m [%]": [np.nan, 5.0, -3.0], "T": [np.nan, 1.0, 0.99], "MAE a": [1.0, 1.0, 2.0], "MAE b": [np.nan] * 3},
        index=["stl", "ew", "uw"],
    )
    marks = best(frame)
    assert marks["delta_m [%]"].tolist() == [False, False, True]
    assert marks["MAE a"].tolist() == [True, True, False]
    assert not marks[["T", "MAE b"]].any(axis=None)
    assert marks.shape == frame.shape


def test_without_units_the_header_has_none(make_tree):
    frame = table(compare({("ew", 0): make_tree(units=None)}, baseline=None))
    assert "MAE mu" in frame.columns
    assert np.isnan(frame.loc["ew", "delta_m [%]"])


def test_the_caption_says_what_a_reader_must_know(grid):
    text = caption(compare(grid))
    for part in ("Mean over 3 seeds", "against stl", "over ew's", "standardised targets", "0.040"):
        assert part in text
    assert "Missing" not in text
    alone = caption(compare({("a", 0): grid["ew", 0]}, baseline=None, reference=None))
    assert alone.startswith("One seed.")
    assert "delta_m" not in alone
    assert "T:" not in alone
