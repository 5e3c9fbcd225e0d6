import numpy as np
import pytest
from matplotlib import pyplot as plt

from bmtl.evaluation import metrics
from bmtl.evaluation.plots import risk_coverage_curves, save
from tests.evaluation.classifications import class_tree


def titled(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


@pytest.mark.parametrize("kind", ["total", "epistemic"])
def test_a_panel_has_risk_and_ideal_of_each_method(kind):
    runs = {"ew": class_tree(power=2.0), "vmtl": class_tree(seed=1)}
    figure = risk_coverage_curves(runs, uncertainty=kind)
    panels = titled(figure)
    assert list(panels) == ["price", "ill", "digit"]  # the target without a row has none
    for task, panel in panels.items():
        for name, (ideal, line) in zip(runs, np.reshape(panel.lines, (2, 2)), strict=True):
            curve = metrics.risk_coverage(runs[name], uncertainty=kind).sel(task=task)
            np.testing.assert_array_equal(line.get_ydata(), curve["risk"])
            np.testing.assert_array_equal(ideal.get_ydata(), curve["risk_ideal"])
    assert [panel.get_ylabel() for panel in panels.values()] == ["MAE (EUR)", "error rate", "error rate"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ew", "vmtl", "ideal order"]
    assert plt.get_fignums() == []


def test_one_run_some_tasks_and_a_file(tmp_path):
    figure = risk_coverage_curves(class_tree(units={}), tasks=["digit", "price"])
    assert list(titled(figure)) == ["digit", "price"]
    assert titled(figure)["price"].get_ylabel() == "MAE"
    assert save(figure, tmp_path / "risk.png").stat().st_size > 10_000


def test_what_cannot_be_drawn_is_named(make_tree):
    with pytest.raises(ValueError, match="has risk and uncertainty of any task"):
        risk_coverage_curves(make_tree())
    with pytest.raises(ValueError, match="There is no task 'none'"):
        risk_coverage_curves(class_tree(), tasks=["none"])


def test_every_family_with_a_loss_has_a_curve(every_family_grid):
    figure = risk_coverage_curves(every_family_grid["ew", 0])
    labels = {title: panel.get_ylabel() for title, panel in titled(figure).items()}
    assert labels == {
        "price": "MAE (EUR)", "pic50": "MAE", "kind": "error rate", "ill": "error rate", "grade": "MAE of ranks",
        "visits": "MAE (visits)",
    }  # fmt: skip
