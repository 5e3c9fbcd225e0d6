import numpy as np
import pytest
from matplotlib import pyplot as plt

from bmtl.evaluation import results
from bmtl.evaluation.plots import weights_over_time


def titled(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def tree_of(weights, names=None):
    weights = np.asarray(weights, dtype=float)
    names = names or [f"t{k}" for k in range(weights.shape[1])]
    return results.to_datatree({}, {}, training={"losses": np.ones_like(weights), "weights": weights}, tasks=names)


def test_a_panel_a_method_and_a_line_a_task(make_tree, eleven):
    runs = {name: make_tree(targets=eleven, variant=i) for i, name in enumerate(("ew", "uw"))}
    figure = weights_over_time(runs)
    axes = titled(figure)
    assert list(axes) == ["ew", "uw"]
    assert all(len(panel.lines) == 11 and panel.get_yscale() == "log" for panel in axes.values())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(eleven)
    assert plt.get_fignums() == []
    figure.draw_without_rendering()


def test_the_line_is_the_moving_average():
    figure = weights_over_time(tree_of([[1.0], [2], [np.nan], [6], [8]]), window=3)
    np.testing.assert_allclose(titled(figure)["run"].lines[0].get_ydata(), [1.5, 1.5, 4, 7, 7])


def test_equal_weights_look_equal():
    panel = titled(weights_over_time(tree_of(np.ones((9, 3)))))["run"]
    assert panel.get_yscale() == "linear"
    assert panel.get_ylim()[0] == 0


def test_weights_of_zero_are_gaps_and_the_caption_says_so():
    figure = weights_over_time(tree_of([[0.0, 1], [0.01, 1], [2, 1]]), window=1)
    assert titled(figure)["run"].get_yscale() == "log"
    assert "a gap is a weight of zero or less" in figure.get_supxlabel()
    figure.draw_without_rendering()


def test_of_many_tasks_the_extremes_have_names():
    weights = np.geomspace(0.01, 100, 40) * np.ones((20, 1))
    figure = weights_over_time({"a": tree_of(weights), "b": tree_of(2 * weights)})
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["t39", "t38", "t37", "t2", "t1", "t0"]
    assert len(titled(figure)["a"].lines) == 40
    assert "grey: 34 other tasks" in figure.get_supxlabel()


def test_a_task_that_was_never_there_is_no_extreme():
    weights = np.ones((20, 1)) * np.arange(1.0, 41)
    weights[:, 39] = np.nan
    figure = weights_over_time(tree_of(weights))
    assert "t39" not in [text.get_text() for text in figure.legends[0].get_texts()]
    figure.draw_without_rendering()


def test_tasks_can_be_chosen_and_runs_without_weights_are_left_out(make_tree, run_arrays):
    training = run_arrays()["training"]
    del training["weights"]
    figure = weights_over_time({"ew": make_tree(), "bare": make_tree(training=training)}, tasks=["cv"])
    assert list(titled(figure)) == ["ew"]
    assert len(titled(figure)["ew"].lines) == 1
    with pytest.raises(ValueError, match="There is no task 'gap'"):
        weights_over_time(make_tree(), tasks=["gap"])
    with pytest.raises(ValueError, match="has this of any task"):
        weights_over_time(make_tree(training=training))
