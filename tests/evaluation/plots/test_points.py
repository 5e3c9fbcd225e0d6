"""Pictures of a run's predictions next to its labels, of every family."""

import numpy as np
import pytest

from bmtl.evaluation.parts import scored
from bmtl.evaluation.plots import (
    class_targets,
    confusion_matrices,
    label_counts,
    observed_against_predicted,
    point_targets,
    uncertainty_parts,
    uncertainty_shares,
)
from tests.evaluation import families


@pytest.fixture(scope="module")
def tree():
    return families.tree(0, 0.5, rows=300)


def test_every_family_has_points_or_a_confusion_matrix(tree):
    assert point_targets(tree) == ["price", "pic50", "visits", "days", "force"]
    assert class_targets(tree) == ["kind", "ill", "grade"]


def test_points_and_residuals_are_those_of_the_rows(tree):
    figure = observed_against_predicted({"ew": tree}, tasks=["price", "force"])
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    assert titles == ["price [EUR]", "force: x [N]", "force: y [N]"]
    upper = next(axes for axes in figure.axes if axes.get_title(loc="left") == "price [EUR]")
    lower = next(axes for axes in figure.axes if axes.get_shared_x_axes().joined(axes, upper) and axes is not upper)
    rows = scored(tree)["price"]
    dots, residuals = (next(line for line in panel.lines if line.get_marker() == "o") for panel in (upper, lower))
    assert len(dots.get_xdata()) == 200  # of 300 rows
    places = np.searchsorted(np.sort(rows.mean()), np.sort(dots.get_xdata()))
    np.testing.assert_array_equal(np.sort(rows.mean())[places], np.sort(dots.get_xdata()))
    np.testing.assert_allclose(residuals.get_ydata(), dots.get_ydata() - dots.get_xdata())
    means = [line.get_ydata()[0] for line in lower.lines if line.get_linestyle() == "--" or line.is_dashed()]
    assert means == [pytest.approx(float((rows.labels - rows.mean()).mean()))]


def test_intervals_are_hollow_and_leave_the_mean_residual_alone(tree):
    figure = observed_against_predicted(tree, tasks=["days"])
    faces = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(faces) == 2
    assert "none" in faces
    assert "known up to an interval" in [text.get_text() for text in figure.legends[0].get_texts()]
    figure.draw_without_rendering()


def test_confusion_shares_sum_to_one_and_are_written(tree):
    figure = confusion_matrices(tree)
    for task, axes in zip(("kind", "ill", "grade"), figure.axes, strict=True):
        shares = np.asarray(axes.images[0].get_array())
        np.testing.assert_allclose(shares.sum(axis=1), 1)
        counts = scored(tree)[task].confusion()
        np.testing.assert_allclose(shares, counts / counts.sum(axis=1, keepdims=True))
        assert len(axes.texts) == shares.size
    figure.draw_without_rendering()


def test_what_cannot_be_drawn_says_what_can(tree):
    with pytest.raises(ValueError, match="'kind' has no numbers to draw; the targets that have are"):
        observed_against_predicted(tree, tasks=["kind"])
    with pytest.raises(ValueError, match="'price' has no classes; the targets that have are"):
        confusion_matrices(tree, tasks=["price"])
    with pytest.raises(ValueError, match="There are no labels to count"):
        label_counts({"ood": {"a": 3}})


def test_uncertainties_are_in_units_of_the_errors(tree):
    shares = uncertainty_shares(tree)
    rows = scored(tree)["price"]
    scale = np.mean((rows.labels - rows.mean()) ** 2)
    np.testing.assert_allclose(
        shares.sel(task="price"), [rows.prediction.aleatoric.mean() / scale, rows.prediction.epistemic.mean() / scale]
    )
    assert "pic50" not in shares["task"].values  # errors of intervals are not known in full
    figure = uncertainty_parts({"ew": tree, "uw": tree}, tasks=["price"])
    widths = [patch.get_width() for container in figure.axes[0].containers for patch in container.patches]
    np.testing.assert_allclose(widths, np.tile(shares.sel(task="price").values, 2))


def test_labels_are_counted_by_part():
    figure = label_counts({"train": {"a": 30, "b": 5}, "test": {"a": 10, "b": 10}})
    bars = {
        container.get_label(): [p.get_width() for p in container.patches] for container in figure.axes[0].containers
    }
    assert bars == {"train": [30, 5], "test": [10, 10]}
