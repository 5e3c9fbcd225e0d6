import numpy as np
import pytest
from matplotlib import pyplot as plt

from bmtl.evaluation.plots import loss_curves, training_curves, validation_curves


def by_title(figure, half):
    return {axes.get_title(loc="left"): axes for axes in figure.subfigs[half].axes if axes.get_title(loc="left")}


def test_a_panel_a_task_and_a_line_a_method(make_tree, eleven):
    runs = {name: make_tree(targets=eleven, variant=i) for i, name in enumerate(("ew", "uw", "nash-mtl"))}
    figure = training_curves(runs)
    for half in (0, 1):
        axes = by_title(figure, half)
        assert list(axes) == list(eleven)
        assert all(len(panel.lines) == 3 for panel in axes.values())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(runs)
    assert plt.get_fignums() == []
    figure.draw_without_rendering()


def test_the_moving_average_is_centred_and_skips_absent_steps(make_tree, run_arrays):
    training = run_arrays(targets=("a",), steps=5)["training"] | {"losses": np.array([[1.0], [2], [np.nan], [6], [8]])}
    figure = training_curves(make_tree(targets=("a",), training=training), window=3)
    np.testing.assert_allclose(by_title(figure, 0)["a"].lines[0].get_ydata(), [1.5, 1.5, 4, 7, 7])


def test_positive_losses_are_on_a_log_axis(make_tree):
    axes = by_title(training_curves(make_tree()), 0)
    assert all(panel.get_yscale() == "log" for panel in axes.values())


def test_losses_below_zero_have_an_axis_of_their_own(make_tree, run_arrays):
    training = run_arrays()["training"]
    training["losses"] = np.log(training["losses"])
    bayes = make_tree(training=training)
    figure = training_curves({"ew": make_tree(), "bayes": bayes})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ew", "bayes (right axis)"]
    left = by_title(figure, 0)
    right = [axes for axes in figure.subfigs[0].axes if axes not in left.values()]
    assert all(panel.get_yscale() == "log" and len(panel.lines) == 1 for panel in left.values())
    assert len(right) == 3
    assert all(panel.get_yscale() == "linear" and len(panel.lines) == 1 for panel in right)

    alone = training_curves(bayes)
    assert all(panel.get_yscale() == "linear" for panel in by_title(alone, 0).values())
    assert len(alone.subfigs[0].axes) == 3


def test_equal_weights_look_equal(make_tree, run_arrays):
    training = run_arrays()["training"] | {"weights": np.ones((30, 3))}
    axes = by_title(training_curves(make_tree(training=training)), 1)
    assert all(panel.get_yscale() == "linear" and panel.get_ylim()[0] == 0 for panel in axes.values())


def test_a_run_without_weights_has_no_lower_half(make_tree, run_arrays):
    training = run_arrays()["training"]
    del training["weights"]
    bare = make_tree(training=training)
    assert not training_curves(bare).subfigs
    figure = training_curves({"ew": make_tree(), "bare": bare})
    assert all(len(panel.lines) == 1 for panel in by_title(figure, 1).values())


def test_runs_of_other_tasks_and_lengths_share_a_figure(make_tree):
    figure = training_curves(
        {"a": make_tree(targets=("x", "y"), steps=1200), "b": make_tree(targets=("y", "z"), steps=1)}
    )
    axes = by_title(figure, 0)
    assert {name: len(panel.lines) for name, panel in axes.items()} == {"x": 1, "y": 2, "z": 1}
    assert len(axes["x"].lines[0].get_xdata()) <= 1000
    figure.draw_without_rendering()


def test_a_task_that_is_always_absent_is_drawn_empty(make_tree, run_arrays):
    training = run_arrays()["training"]
    training["losses"][:, 1] = np.nan
    training_curves(make_tree(training=training)).draw_without_rendering()


def test_tasks_can_be_chosen(make_tree):
    assert list(by_title(training_curves(make_tree(), tasks=["cv"]), 0)) == ["cv"]
    with pytest.raises(ValueError, match="There is no task 'gap'"):
        training_curves(make_tree(), tasks=["gap"])


def test_without_losses_there_is_nothing_to_draw(make_tree):
    with pytest.raises(ValueError, match="has this of any task"):
        training_curves(make_tree(training=None))


def test_losses_alone_are_the_upper_half(make_tree, eleven):
    runs = {name: make_tree(targets=eleven, variant=i) for i, name in enumerate(("mgda", "igb-v1+mgda"))}
    figure = loss_curves(runs)
    assert not figure.subfigs
    upper = by_title(training_curves(runs), 0)
    axes = {panel.get_title(loc="left"): panel for panel in figure.axes}
    assert list(axes) == list(eleven)
    for name, panel in axes.items():
        for line, other in zip(panel.lines, upper[name].lines, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), other.get_ydata())


def test_validation_is_drawn_at_the_end_of_each_epoch(make_tree, run_arrays):
    training = run_arrays()["training"]
    validation = np.full_like(training["losses"], np.nan)
    validation[9::10] = training["losses"][9::10] + 0.1
    runs = {"ew": make_tree(training={**training, "validation_losses": validation}), "bare": make_tree()}
    figure = validation_curves(runs)
    for k, panel in enumerate(figure.axes):
        faint, strong = panel.lines
        np.testing.assert_array_equal(strong.get_xdata(), [10, 20, 30])
        np.testing.assert_allclose(strong.get_ydata(), validation[9::10, k])
        assert faint.get_color() == strong.get_color()
        assert faint.get_alpha() < 0.5
    with pytest.raises(ValueError, match="validation losses of any task"):
        validation_curves({"bare": make_tree()} | {"none": make_tree(training=None)})
