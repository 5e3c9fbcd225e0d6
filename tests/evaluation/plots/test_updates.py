import numpy as np
import pytest

from bmtl.evaluation.plots import fidelity_curves, projection_curves


@pytest.fixture
def tree_of(make_tree, run_arrays):
    def make(name, every=1, low=0.5):
        values = np.linspace(low, 1.0, 200) + 0 * low
        values[np.arange(200) % every != 0] = np.nan
        return make_tree(training=run_arrays(steps=200)["training"] | {name: values})

    return make


@pytest.mark.parametrize(("draw", "name"), [(fidelity_curves, "fidelity"), (projection_curves, "projection")])
def test_a_line_a_method_that_recorded_it(tree_of, make_tree, draw, name):
    figure = draw({"bare": make_tree(), "often": tree_of(name), "seldom": tree_of(name, 20)}, window=1)
    (axes,) = figure.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert [len(line.get_xdata()) for line in lines] == [200, 10]
    assert [line.get_marker() for line in lines] == ["None", "o"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["often", "seldom"]
    figure.draw_without_rendering()


@pytest.mark.parametrize(("draw", "name"), [(fidelity_curves, "fidelity"), (projection_curves, "projection")])
def test_a_run_that_did_not_record_it_says_how(make_tree, tree_of, draw, name):
    for tree in (make_tree(), tree_of(name, low=np.nan)):
        with pytest.raises(ValueError, match=f"recorded the {name}. .*nash-mtl"):
            draw(tree)


def test_a_fidelity_near_1_looks_so(tree_of):
    low, high = fidelity_curves(tree_of("fidelity", low=0.999)).axes[0].get_ylim()
    assert low == 0.9
    assert 1 < high < 1.01


def test_a_line_at_zero_stands_where_a_task_is_harmed(tree_of):
    harmed, fine = (projection_curves(tree_of("projection", low=low)).axes[0] for low in (-0.5, 0.5))
    assert len(harmed.lines) == len(fine.lines) + 1
