import numpy as np
import pytest
from matplotlib import pyplot as plt

from bmtl.evaluation.ood import detection_intervals, detection_of_scores
from bmtl.evaluation.plots.ood import ood_densities
from bmtl.evaluation.results import PredictedRows, ReportedTarget, to_datatree
from bmtl.targets import Prediction, Real


def make(shift, seed=0, inside=None, outside=None, part="predictions"):
    random = np.random.default_rng(seed)
    inside = random.lognormal(size=80) if inside is None else np.asarray(inside, dtype=float)
    outside = random.lognormal(shift, size=50) if outside is None else np.asarray(outside, dtype=float)

    def rows(epistemic, labels=None):
        count = len(epistemic)
        return PredictedRows(
            Prediction(np.zeros((1, count)), aleatoric=np.ones(count), epistemic=epistemic), labels=labels
        )

    parts = {"test": {"affinity": rows(inside, random.normal(size=len(inside)))}}
    if part == "predictions":
        parts[part] = {"affinity": rows(outside)}
    else:
        parts[part] = {"affinity": rows(outside, np.zeros(len(outside)))}
    return to_datatree(parts, {"affinity": ReportedTarget(Real())}, attributes={"method": "enet"})


def test_a_panel_a_method_with_its_auroc():
    trees = {"enet": make(1.0), "mt-enet": make(3.0, seed=1)}
    figure = ood_densities(trees, "affinity")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["enet", "mt-enet"]
    for tree, axes in zip(trees.values(), figure.axes, strict=True):
        sides = (
            tree["test/uncertainty/epistemic_affinity"].values,
            tree["predictions_uncertainty/epistemic_affinity"].values,
        )
        low, high = detection_intervals(*sides)
        text = f"AUROC {detection_of_scores(*sides).auroc:.3f}\n[{low.auroc:.3f}, {high.auroc:.3f}]"
        assert axes.get_title(loc="right") == text
        for line, side in zip(axes.lines, sides, strict=True):
            x, density = line.get_data()
            assert np.trapezoid(density, x) == pytest.approx(1, abs=0.01)
            assert np.trapezoid(x * density, x) == pytest.approx(np.log(side).mean(), abs=0.02)
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["in distribution", "out of distribution"]
    figure.draw_without_rendering()
    assert plt.get_fignums() == []


def test_labelled_rows_from_elsewhere_are_drawn_as_unlabelled_ones_are():
    one, other = (ood_densities(make(1.0, part=part), "affinity").axes[0] for part in ("predictions", "ood"))
    assert one.get_title(loc="right") == other.get_title(loc="right")


def test_constant_scores_are_lines():
    figure = ood_densities(make(1.0), "affinity", score="aleatoric")
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [0, 0]
    assert "AUROC 0.500" in figure.axes[0].get_title(loc="right")
    figure.draw_without_rendering()


def test_rows_without_a_logarithm_are_counted_and_not_drawn():
    figure = ood_densities(make(0, inside=[0.0, 0.0, 1.0, 2.0, 3.0], outside=[2.0, 4.0, 8.0]), "affinity")
    text = figure.axes[0].get_title(loc="right")
    assert "2 of 8 rows not drawn" in text
    assert f"AUROC {detection_of_scores([0, 0, 1, 2, 3], [2, 4, 8]).auroc:.3f}" in text
    ood_densities(make(0, inside=[0.0, 0.0]), "affinity").draw_without_rendering()
    unknown = ood_densities(make(0, inside=[np.nan, 1.0, 2.0]), "affinity")
    assert "AUROC –" in unknown.axes[0].get_title(loc="right")


def test_what_cannot_be_drawn_is_named(make_tree):
    with pytest.raises(ValueError, match="There is no target 'gone'"):
        ood_densities(make(1.0), "gone")
    with pytest.raises(ValueError, match="no group"):
        ood_densities(make_tree(), "mu")
    with pytest.raises(ValueError, match="80 rows of 'affinity' in distribution and 0 out of it"):
        ood_densities(make(1.0, outside=[]), "affinity")
