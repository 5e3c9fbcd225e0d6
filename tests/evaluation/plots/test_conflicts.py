import numpy as np
import pytest
from matplotlib import pyplot as plt

from bmtl.evaluation import conflicts
from bmtl.evaluation.plots import conflict_matrix, cosine_curves, cosine_matrix

NAN = float("nan")


def titled(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}


def test_the_cosine_matrix_is_the_mean_over_steps_with_names(make_tree, eleven):
    tree = make_tree(targets=eleven, method="nash-mtl")
    figure = cosine_matrix(tree, steps=slice(-10, None))
    axes = figure.axes[0]
    drawn = axes.images[0].get_array()
    np.testing.assert_allclose(drawn, tree["training/cosine"].isel(step=slice(-10, None)).mean("step"), rtol=1e-6)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(eleven)
    assert axes.get_title(loc="left") == "nash-mtl: mean over 10 steps"
    assert axes.images[0].get_clim() == (-1, 1)
    assert len(axes.texts) == 121


def test_the_conflict_matrix_is_the_share_of_conflicts(make_tree, eleven):
    tree = make_tree(targets=eleven)
    axes = conflict_matrix(tree).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), conflicts.conflict_share(tree))
    assert axes.images[0].get_clim() == (0, 1)
    assert axes.get_title(loc="left") == "ew: conflicts in 30 steps"
    assert axes.texts[0].get_text() == ""  # a task and itself are no pair


def test_steps_and_pairs_that_were_not_measured_are_left_out(make_tree, run_arrays):
    training = run_arrays()["training"]
    training["cosine"][::2] = np.nan
    training["cosine"][:, 0, 1] = training["cosine"][:, 1, 0] = np.nan
    figure = cosine_matrix(make_tree(training=training))
    assert figure.axes[0].get_title(loc="left") == "ew: mean over 15 steps"
    assert [text.get_text() for text in figure.axes[0].texts][1] == ""
    figure.draw_without_rendering()


def test_many_tasks_have_fewer_names_and_no_numbers(make_tree):
    names = tuple(f"school {i}" for i in range(50))
    axes = cosine_matrix(make_tree(targets=names, rows=2, draws=1, steps=2)).axes[0]
    assert len(axes.get_xticklabels()) <= 40
    assert not axes.texts


@pytest.mark.parametrize("draw", [cosine_matrix, conflict_matrix, cosine_curves])
def test_a_run_that_measured_no_gradients_says_so(make_tree, draw):
    with pytest.raises(ValueError, match="recorded no cosine of task gradients"):
        draw(make_tree(cosine=False))


def test_steps_without_a_measurement_are_told(make_tree):
    with pytest.raises(ValueError, match="None of the steps"):
        cosine_matrix(make_tree(), steps=slice(0, 0))


def test_a_panel_a_pair_and_a_line_a_method(make_tree):
    runs = {"ew": make_tree(), "uw": make_tree(cosine=False), "nash-mtl": make_tree(variant=1)}
    figure = cosine_curves(runs, window=5)
    axes = titled(figure)
    assert list(axes) == ["mu × homo", "mu × cv", "homo × cv"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ew", "nash-mtl"]
    trend = conflicts.cosine_trends(runs["nash-mtl"], 5).sel(task="mu", task_bis="cv")
    np.testing.assert_allclose(axes["mu × cv"].lines[2].get_ydata(), trend)  # after the line at zero and ew's
    assert plt.get_fignums() == []


def test_a_pair_measured_now_and_then_is_a_line_all_the_same(make_tree, run_arrays):
    training = run_arrays()["training"]
    training["cosine"][np.arange(30) % 10 != 0, 0, 1] = NAN
    line = titled(cosine_curves(make_tree(training=training), window=1))["mu × homo"].lines[1]
    assert len(line.get_xdata()) == 3
    assert np.isfinite(line.get_ydata()).all()


def test_of_many_pairs_those_most_in_conflict_are_drawn(make_tree, eleven):
    tree = make_tree(targets=eleven)
    figure = cosine_curves(tree)
    mean = conflicts.mean_cosine(tree).values
    lowest = np.sort(mean[np.triu_indices(11, 1)])[:12]
    shown = [mean[tuple(eleven.index(name) for name in title.split(" × "))] for title in titled(figure)]
    np.testing.assert_allclose(shown, lowest)
    assert "of 55 pairs the 12 with the lowest mean" in figure.get_supxlabel()


def test_pairs_can_be_chosen_in_either_order(make_tree):
    assert list(titled(cosine_curves(make_tree(), pairs=[("cv", "mu")]))) == ["cv × mu"]
    with pytest.raises(ValueError, match="'gap'.*measured in none of the runs"):
        cosine_curves(make_tree(), pairs=[("cv", "gap")])


def test_runs_that_name_a_pair_in_another_order_share_its_panel(make_tree):
    figure = cosine_curves({"one": make_tree(targets=("a", "b")), "two": make_tree(targets=("b", "a"))})
    assert {title: len(panel.lines) for title, panel in titled(figure).items()} == {"a × b": 3}


def test_a_single_task_has_no_pair(make_tree):
    with pytest.raises(ValueError, match="two tasks"):
        cosine_curves(make_tree(targets=("a",)))


@pytest.mark.parametrize("names", [("affinity/nll", "affinity/mse"), tuple(f"school {i}" for i in range(40))])
def test_few_and_many_tasks_can_be_drawn(run_arrays, names):
    from bmtl.evaluation import results

    training = run_arrays(targets=names)["training"]
    tree = results.to_datatree({}, {}, training=training, tasks=names)
    for draw in (cosine_matrix, conflict_matrix, cosine_curves):
        draw(tree).draw_without_rendering()
