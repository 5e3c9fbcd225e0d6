import numpy as np
import pytest
from matplotlib import pyplot as plt

from bmtl.evaluation.parts import scored
from bmtl.evaluation.plots import roc_curves, save
from bmtl.targets.metrics.roc import area_under_roc, average_precision_of_scores, roc_points
from tests.evaluation import trees
from tests.evaluation.classifications import class_tree


def curves(figure):
    (panel,) = figure.axes
    return panel, [line for line in panel.lines if line.get_color() != "#666666"]


def test_a_roc_curve_has_the_area_that_it_states(every_family_grid, tmp_path):
    runs = {name: tree for (name, seed), tree in every_family_grid.items() if not seed}
    figure = roc_curves(runs)
    panel, lines = curves(figure)
    assert panel.get_title(loc="left") == "ill"  # of all families the only one with two classes
    areas = {text.get_color(): text.get_text() for text in panel.texts}
    for name, line in zip(runs, lines, strict=True):
        rows = scored(runs[name])["ill"]
        area = area_under_roc(rows.labels, rows.prediction.probability[:, 1])
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(area)
        assert areas[line.get_color()] == f"{area:.3f}"
    assert save(figure, tmp_path / "roc.png").stat().st_size > 10_000
    assert plt.get_fignums() == []


def test_a_precision_recall_curve_has_the_average_precision(every_family_grid):
    tree = every_family_grid["stl", 0]
    panel, (line,) = curves(roc_curves(tree, curve="precision-recall"))
    rows = scored(tree)["ill"]
    recall, precision = line.get_data()
    expected = average_precision_of_scores(rows.labels, rows.prediction.probability[:, 1])
    assert (np.diff(recall) * precision[1:]).sum() == pytest.approx(expected)
    base = next(line for line in panel.lines if line.get_color() == "#666666")
    np.testing.assert_allclose(base.get_ydata(), rows.labels.mean())


def test_ties_enter_together():
    points = roc_points([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1])
    np.testing.assert_allclose(points.false, [0, 0, 0.5, 1])
    np.testing.assert_allclose(points.true, [0, 0.5, 1, 1])
    np.testing.assert_allclose(points.precision, [1, 1, 2 / 3, 0.5])
    assert np.trapezoid(points.true, points.false) == area_under_roc([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1])


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_a_curve_needs_both_classes(labels):
    with pytest.raises(ValueError, match="needs positives and negatives"):
        roc_points(labels, [0.1, 0.2])


def test_what_cannot_be_drawn_is_named():
    tree = class_tree(rows=40)
    assert [axes.get_title(loc="left") for axes in roc_curves(tree).axes] == ["ill"]
    with pytest.raises(ValueError, match="There is no task 'digit'"):
        roc_curves(tree, tasks=["digit"])
    with pytest.raises(ValueError, match="expected 'roc' or 'precision-recall'"):
        roc_curves(tree, curve="lift")
    one_sided = trees.tree(observed={"a": np.array([1, 1])}, probability={"a": np.full((2, 2), 0.5)})
    with pytest.raises(ValueError, match="has probabilities of two classes of any task"):
        roc_curves(one_sided)
