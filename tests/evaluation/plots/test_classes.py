import numpy as np
import pytest
from matplotlib import pyplot as plt
from scipy import stats

from bmtl.evaluation import metrics
from bmtl.evaluation.plots import entropy_histograms, pava_plot, reliability_diagrams, save
from tests.evaluation import trees
from tests.evaluation.classifications import calibrated, class_tree


def titled(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_diagram_has_the_curve_of_each_method_over_its_histogram():
    runs = {"ew": class_tree(power=2.0), "vmtl": class_tree()}
    figure = reliability_diagrams(runs, bins=8)
    assert list(titled(figure)) == ["ill", "digit"]  # neither the regression nor the target without a row
    assert legend(figure) == ["ew", "vmtl", "calibrated"]
    assert len(figure.axes) == 4
    for name, line in zip(runs, titled(figure)["ill"].lines[1:], strict=True):
        curve = metrics.class_reliability(runs[name], bins=8).sel(task="ill")
        filled = curve["rows"].values > 0
        np.testing.assert_array_equal(line.get_xdata(), curve["predicted"].values[filled])
        np.testing.assert_array_equal(line.get_ydata(), curve["observed"].values[filled])
    histogram = figure.axes[2].patches[1].get_data()
    np.testing.assert_allclose(histogram.values, curve["rows"] / 200)
    assert plt.get_fignums() == []
    figure.draw_without_rendering()


def test_bars_are_binomial_intervals():
    tree = class_tree(rows=60)
    bars = titled(reliability_diagrams(tree, bins=5))["digit"].collections[0].get_segments()
    curve = metrics.class_reliability(tree, bins=5).sel(task="digit")
    filled = curve.isel(bin=curve["rows"].values > 0)
    for bar, share, rows in zip(bars, filled["observed"].values, filled["rows"].values, strict=True):
        expected = stats.binomtest(round(share * rows), int(rows)).proportion_ci()
        np.testing.assert_allclose(bar[:, 1], [expected.low, expected.high], atol=1e-9)


def test_a_diagram_of_one_class():
    tree = class_tree()
    figure = reliability_diagrams(tree, of_class=1, tasks=["ill"])
    curve = metrics.class_reliability(tree, bins=10, of_class=1).sel(task="ill")
    np.testing.assert_array_equal(titled(figure)["ill"].lines[1].get_ydata(), curve["observed"])
    assert figure.get_supxlabel() == "Probability of class 1"


def test_histograms_are_shares_of_right_and_of_wrong_predictions():
    figure = entropy_histograms(class_tree(), bins=10)
    panels = titled(figure)
    assert list(panels) == ["ill", "digit"]
    y, p = calibrated(200, 2)
    right, entropy = p.argmax(1) == y, stats.entropy(p, axis=1)
    filled, _, of_wrong, _ = (patch.get_data() for patch in panels["ill"].patches)
    edges = np.linspace(0, np.log(2), 11)
    np.testing.assert_allclose(filled.values, np.histogram(entropy[right], edges)[0] / right.sum())
    np.testing.assert_allclose(of_wrong.values, np.histogram(entropy[~right], edges)[0] / (~right).sum())
    means = [lines.get_segments()[0][0, 0] for lines in panels["ill"].collections]
    np.testing.assert_allclose(means, [entropy[right].mean(), entropy[~right].mean()])
    assert panels["ill"].texts[0].get_text() == f"ratio {means[1] / means[0]:.2f}\naccuracy {right.mean():.2f}"
    assert panels["digit"].get_xlim()[1] > np.log(4)  # the widest of all, since panels share it


def test_methods_are_in_one_row_and_too_many_are_left_out_with_a_note():
    runs = {"ew": class_tree(power=2.0), "vmtl": class_tree()}
    figure = entropy_histograms(runs)
    assert list(titled(figure)) == ["ill: ew", "ill: vmtl", "digit: ew", "digit: vmtl"]
    many = {f"method {i}": class_tree(rows=20) for i in range(30)}
    figure = entropy_histograms(many)
    assert len(titled(figure)) == 30
    assert figure.get_supxlabel() == "Predictive entropy (nats); the first 1 of 2 tasks"


def test_without_errors_there_is_no_ratio():
    _, p = calibrated(30, 3)
    tree = trees.tree(observed={"a": p.argmax(1)}, probability={"a": p})
    panel = titled(entropy_histograms(tree))["a"]
    assert panel.texts[0].get_text() == "no ratio\naccuracy 1.00"
    reliability_diagrams(tree).draw_without_rendering()


@pytest.mark.parametrize("plot", [reliability_diagrams, entropy_histograms])
def test_what_cannot_be_drawn_is_named(plot, make_tree):
    with pytest.raises(ValueError, match="has class probabilities of any task"):
        plot(make_tree())
    with pytest.raises(ValueError, match="There is no task 'price'; the runs have"):
        plot(class_tree(), tasks=["price"])
    gone = trees.tree(observed={"a": np.array([0, 1])}, probability={"a": np.full((2, 2), np.nan)})
    with pytest.raises(ValueError, match="cannot be drawn"):
        plot(gone)
    plot({"diverged": gone, "vmtl": class_tree()}).draw_without_rendering()


@pytest.mark.parametrize(
    ("target", "titles"), [("ill", ["ill"]), ("digit", [f"digit {c} vs others" for c in range(4)])]
)
def test_arviz_draws_the_isotonic_calibration_of_a_task(target, titles):
    figure = pava_plot(class_tree(rows=60), target)
    assert [axes.get_title() for axes in figure.axes] == titles
    assert plt.get_fignums() == []
    figure.draw_without_rendering()


@pytest.mark.parametrize("target", ["price", "none", "gap"])
def test_what_arviz_cannot_draw_is_named(target):
    with pytest.raises(ValueError, match=f"no draws of a target '{target}' with classes; those with classes are"):
        pava_plot(class_tree(rows=60), target)


def test_every_picture_can_be_saved(tmp_path):
    tree = class_tree()
    for name, figure in {"diagrams": reliability_diagrams(tree), "entropies": entropy_histograms(tree)}.items():
        assert save(figure, tmp_path / f"{name}.png").stat().st_size > 10_000
