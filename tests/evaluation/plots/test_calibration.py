import numpy as np
import pytest
from matplotlib import pyplot as plt

from bmtl.evaluation import metrics
from bmtl.evaluation.plots import cosine_matrix, pit_plot, reliability_curves, save, training_curves, weights_over_time


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
        inside = band.contains_points(np.stack([metrics.LEVELS, curve.values], axis=1)[1:-1])
        assert inside.all()


def test_reliability_of_one_run_and_of_some_tasks(make_tree, run_arrays):
    y = run_arrays()["observed"]
    y["cv"] = np.full(60, np.nan)
    figure = reliability_curves(make_tree(observed=y), tasks=["cv", "mu"])
    assert list(titled(figure)) == ["cv", "mu"]
    figure.draw_without_rendering()
    with pytest.raises(ValueError, match="There is no task 'gap'"):
        reliability_curves(make_tree(), tasks=["gap"])


@pytest.mark.parametrize("coverage", [False, True])
def test_arviz_draws_the_pit_of_a_task_as_it_is(make_tree, eleven, coverage):
    figure = pit_plot(make_tree(targets=eleven), "homo", coverage=coverage)
    assert figure.axes[0].get_title() == "homo"
    assert plt.get_fignums() == []
    figure.draw_without_rendering()


def test_arviz_draws_it_from_single_precision_and_from_a_file(make_tree, tmp_path):
    from bmtl.evaluation import results

    tree = results.read(results.write(make_tree(), tmp_path / "results.nc"))
    assert tree["posterior_predictive/y_mu"].dtype == np.float32
    save(pit_plot(tree, "mu"), tmp_path / "pit.png")


def test_a_target_that_was_not_drawn_is_named(make_tree):
    with pytest.raises(ValueError, match="no draws of 'gap'; it has"):
        pit_plot(make_tree(), "gap")


def test_every_picture_can_be_saved(make_tree, tmp_path):
    tree = make_tree()
    for name, figure in {
        "training": training_curves(tree),
        "reliability": reliability_curves(tree),
        "cosine": cosine_matrix(tree),
        "weights": weights_over_time(tree),
    }.items():
        assert save(figure, tmp_path / f"{name}.png").stat().st_size > 10_000
