import numpy as np
import pytest
from matplotlib import pyplot as plt

from bmtl.evaluation import metrics
from bmtl.evaluation.plots import (
    cosine_matrix,
    interval_widths,
    pit_deviations,
    pit_plot,
    reliability_curves,
    save,
    training_curves,
    weights_over_time,
)
from bmtl.targets import Real, TimeToEvent
from bmtl.targets.metrics.pit import LEVELS
from tests.evaluation import trees


def titled(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def test_reliability_has_a_panel_a_task_with_band_diagonal_and_a_line_a_method(make_tree, eleven):
    runs = {name: make_tree(targets=eleven, width=width) for name, width in (("ew", 1.0), ("narrow", 0.4))}
    figure = reliability_curves(runs)
    axes = titled(figure)
    assert list(axes) == list(eleven)
    for name, panel in axes.items():
        assert len(panel.lines) == 3
        assert len(panel.collections) == 1
        curve = metrics.reliability(runs["narrow"])["coverage"].sel(task=name)
        np.testing.assert_array_equal(panel.lines[2].get_ydata(), curve)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ew", "narrow", "calibrated, 95 %"]
    assert plt.get_fignums() == []


def test_a_calibrated_curve_is_inside_its_band(make_tree):
    tree = make_tree(rows=400, pit=dict.fromkeys(("mu", "homo", "cv"), (np.arange(400) + 0.5) / 400))
    for name, panel in titled(reliability_curves(tree)).items():
        band = panel.collections[0].get_paths()[0]
        curve = metrics.reliability(tree)["coverage"].sel(task=name)
        inside = band.contains_points(np.stack([LEVELS, curve.values], axis=1)[1:-1])
        assert inside.all()


def test_reliability_of_one_run_and_of_some_tasks(make_tree, run_arrays):
    y = run_arrays()["observed"]
    y["cv"] = np.full(60, np.nan)
    figure = reliability_curves(make_tree(observed=y), tasks=["homo", "mu"])
    assert list(titled(figure)) == ["homo", "mu"]
    figure.draw_without_rendering()
    for name in ("gap", "cv"):  # of the latter no row has a label
        with pytest.raises(ValueError, match=f"There is no task '{name}'"):
            reliability_curves(make_tree(observed=y), tasks=[name])


def test_every_family_with_a_cdf_is_judged_by_it(every_family_grid):
    runs = {name: tree for (name, seed), tree in every_family_grid.items() if not seed}
    panels = titled(reliability_curves(runs))
    assert list(panels) == ["price", "pic50", "visits", "days"]
    for task, panel in panels.items():
        curve = metrics.reliability(runs["ew"])["coverage"].sel(task=task)
        np.testing.assert_array_equal(panel.lines[2].get_ydata(), curve)


def test_without_a_cdf_there_is_nothing_to_draw():
    _, p = np.zeros(3), np.full((3, 2), 0.5)
    alone = trees.tree(observed={"a": np.array([0, 1, 0])}, probability={"a": p})
    with pytest.raises(ValueError, match="has a predictive cdf of any task"):
        reliability_curves(alone)


def test_the_legend_lists_the_runs_with_a_curve(make_tree):
    labels, p = np.array([0, 1, 0]), np.full((3, 2), 0.5)
    runs = {"constant": trees.tree(observed={"a": labels}, probability={"a": p}), "ew": make_tree()}
    for draw in (reliability_curves, interval_widths, pit_deviations):
        texts = [text.get_text() for text in draw(runs).legends[0].get_texts()]
        assert texts[0] == "ew"
        assert "constant" not in texts


@pytest.mark.parametrize("coverage", [False, True])
def test_arviz_draws_the_pit_of_a_task_as_it_is(make_tree, eleven, coverage):
    figure = pit_plot(make_tree(targets=eleven), "homo", coverage=coverage)
    assert figure.axes[0].get_title() == "homo"
    assert plt.get_fignums() == []
    figure.draw_without_rendering()


def test_arviz_draws_it_from_single_precision_and_from_a_file(make_tree, tmp_path):
    from bmtl.evaluation import results

    tree = results.read(results.write(make_tree(), tmp_path / "results.nc"))
    assert tree["test/posterior_predictive/y_mu"].dtype == np.float32
    save(pit_plot(tree, "mu"), tmp_path / "pit.png")


def test_a_target_that_was_not_drawn_is_named(make_tree):
    with pytest.raises(ValueError, match="no draws of 'gap'; its targets are"):
        pit_plot(make_tree(), "gap")
    with pytest.raises(ValueError, match="no draws of 'mu'"):
        pit_plot(make_tree(predictive=None), "mu")


@pytest.mark.parametrize("family", [Real(censored=True), TimeToEvent()])
def test_labels_that_are_intervals_have_no_rank(family):
    ends = np.stack([np.arange(1.0, 6), np.arange(1.0, 6) + 1], axis=1)
    tree = trees.tree(observed={"t": ends}, predictive={"t": np.ones((4, 5))}, families={"t": family})
    with pytest.raises(ValueError, match="A PIT plot takes a number a row"):
        pit_plot(tree, "t")


def test_every_picture_can_be_saved(make_tree, tmp_path):
    tree = make_tree()
    for name, figure in {
        "training": training_curves(tree),
        "reliability": reliability_curves(tree),
        "cosine": cosine_matrix(tree),
        "weights": weights_over_time(tree),
    }.items():
        assert save(figure, tmp_path / f"{name}.png").stat().st_size > 10_000
