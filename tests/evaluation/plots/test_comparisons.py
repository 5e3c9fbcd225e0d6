import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt

from bmtl.evaluation.comparison import compare
from bmtl.evaluation.plots.comparisons import critical_difference_diagram, difference_forest, scores_by_task
from bmtl.evaluation.ranks import critical_difference
from bmtl.evaluation.statistics import mean_and_error, paired_differences
from bmtl.evaluation.style import lines_of


def scores(methods=5, blocks=11, seed=0):
    values = np.random.default_rng(seed).normal(size=(methods, blocks)) + 0.6 * np.arange(methods)[:, None]
    return xr.DataArray(values, dims=("learner", "task"), coords={"learner": [f"m{i}" for i in range(methods)]})


@pytest.mark.parametrize("test", ["signed-rank", "nemenyi"])
@pytest.mark.parametrize("methods", [2, 5, 15])
def test_the_diagram_has_every_method_at_its_rank_and_a_bar_a_group(methods, test):
    found = critical_difference(scores(methods), test=test)
    figure = critical_difference_diagram(found)
    axes = figure.axes[0]
    texts = {text.get_text() for text in axes.texts}
    for name, rank in zip(found["learner"].values, found["mean_rank"].values, strict=True):
        assert {f"{name}  {rank:.2f}", f"{rank:.2f}  {name}"} & texts
    bars = [line for line in axes.lines if line.get_linewidth() > 3]
    assert len(bars) == found.sizes["group"]
    for bar, group in zip(bars, found["group"].values, strict=True):
        low, high = bar.get_xdata()
        inside = (found["mean_rank"].values >= low) & (found["mean_rank"].values <= high)
        assert inside[group].all()
    assert (f"critical difference {float(found['difference']):.2f}" in figure.get_supxlabel()) == (test == "nemenyi")
    figure.draw_without_rendering()
    assert plt.get_fignums() == []


def test_the_title_says_what_methods_are_ranked_within():
    found = critical_difference(scores())
    assert "over 11 tasks" in critical_difference_diagram(found).axes[0].get_title(loc="center")
    assert "over 11 seeds" in critical_difference_diagram(found, over="seeds").axes[0].get_title(loc="center")


def test_bars_on_one_line_do_not_look_like_one():
    for seed in range(6):
        found = critical_difference(scores(8, 30, seed=seed), test="nemenyi")
        lines = [line for line in critical_difference_diagram(found).axes[0].lines if line.get_linewidth() > 3]
        drawn = [(*line.get_xdata(), line.get_ydata()[0]) for line in lines]
        for i, (low, high, height) in enumerate(drawn):
            for other_low, other_high, other_height in drawn[:i]:
                if height == other_height:
                    assert high < other_low - 0.1 or other_high < low - 0.1


def test_no_ranks_no_diagram():
    one = scores()
    nothing = critical_difference(one, counted=xr.zeros_like(one, dtype=bool))
    with pytest.raises(ValueError, match="no block counts"):
        critical_difference_diagram(nothing)


@pytest.fixture
def comparison(make_tree):
    errors = {"stl": 0.2, "ew": 0.5, "uw": 0.21, "nash-mtl": 0.1}
    return compare(
        {
            (method, split): make_tree(seed=split, variant=number, error=error, rows=40, draws=2, steps=2)
            for number, (method, error) in enumerate(errors.items())
            for split in range(5)
        }
    )


def titled(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def test_the_forest_has_a_bar_a_method_and_task_and_fills_the_dots_of_those_that_differ(comparison):
    differences = paired_differences(comparison["score"].sel(metric="mae"), "stl")
    figure = difference_forest(differences, name="MAE", over="seed")
    assert list(titled(figure)) == ["mu [D]", "homo [meV]", "cv [cal/(mol K)]"]
    for task, panel in zip(("mu", "homo", "cv"), titled(figure).values(), strict=True):
        drawn = panel.lines[1 : 1 + 2 * differences.sizes["learner"]]  # before arrows at the edge
        for bar, dot, method in zip(drawn[::2], drawn[1::2], differences["learner"].values, strict=True):
            cell = differences.sel({"learner": method, "task": task})
            np.testing.assert_array_equal(bar.get_xdata(), [cell["lower"], cell["upper"]])
            assert dot.get_xdata()[0] == cell["difference"]
            excludes = bool((cell["lower"] > 0) | (cell["upper"] < 0))
            assert (dot.get_markerfacecolor() != "none") == excludes
            assert (
                bar.get_color() == dot.get_color() == lines_of(differences["learner"].values.tolist())[method]["color"]
            )
    label = figure.get_supxlabel()
    assert "MAE less stl's, 95 % interval over 5 seeds; better to the left" in label
    figure.draw_without_rendering()
    assert plt.get_fignums() == []


def test_a_forest_of_one_task_and_of_one_split(comparison):
    one = comparison["score"].sel(metric="mae", task="mu")
    figure = difference_forest(paired_differences(-one, "stl", higher_is_better=True))
    assert "better to the right" in figure.get_supxlabel()
    assert len(figure.axes) == 1
    alone = difference_forest(paired_differences(one.isel(split=[0]), "stl"))
    assert all(line.get_markerfacecolor() == "none" for line in alone.axes[0].lines[2::2])
    assert "over 1 split;" in alone.get_supxlabel()
    alone.draw_without_rendering()
    with pytest.raises(ValueError, match="the scores of one task"):
        difference_forest(paired_differences(one, "stl"), tasks=["mu"])


def test_scores_by_task_are_those_of_the_comparison(comparison):
    figure = scores_by_task(comparison, "rmse", tasks=["homo", "mu"])
    assert list(titled(figure)) == ["homo [meV]", "mu [D]"]
    panel = titled(figure)["mu [D]"]
    rmse = comparison["score"].sel(metric="rmse", task="mu")
    summary = mean_and_error(rmse)
    baseline, *lines = panel.lines
    assert baseline.get_xdata()[0] == summary["mean"].sel(learner="stl")
    for row, method in enumerate(comparison["learner"].values):
        splits, bar, dot = lines[3 * row : 3 * row + 3]
        np.testing.assert_array_equal(splits.get_xdata(), rmse.sel(learner=method))
        low, high = panel.get_xlim()
        assert ((low < splits.get_xdata()) & (splits.get_xdata() < high)).all()
        assert dot.get_xdata()[0] == summary["mean"].sel(learner=method)
        assert np.ptp(bar.get_xdata()) == pytest.approx(2 * float(summary["error"].sel(learner=method)))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["stl", "ew", "uw", "nash-mtl"]
    assert "grey dots are seeds" in figure.get_supxlabel()
    assert "better to the left" in figure.get_supxlabel()
    with pytest.raises(ValueError, match="no score 'accuracy'"):
        scores_by_task(comparison, "accuracy")
    with pytest.raises(ValueError, match="There is no task 'gap'"):
        scores_by_task(comparison, tasks=["gap"])


def test_only_scores_in_a_targets_unit_have_it(every_family_grid):
    data = compare(every_family_grid, reference=None)
    assert list(titled(scores_by_task(data, "mae"))) == ["price [EUR]", "pic50", "grade", "visits [visits]", "force"]
    assert list(titled(scores_by_task(data, "nll", tasks=["price", "days"]))) == ["price", "days"]


def test_holes_and_diverged_runs_can_be_drawn(comparison):
    comparison["score"][{"learner": 1, "split": 0}] = np.nan
    comparison["present"][{"learner": 2, "split": slice(0, 5)}] = False
    scores_by_task(comparison).draw_without_rendering()
    difference_forest(
        paired_differences(comparison["score"].sel(metric="mae"), "stl", counted=comparison["present"])
    ).draw_without_rendering()
