import numpy as np
import pytest
from matplotlib import pyplot as plt
from scipy import stats

from bmtl.evaluation.parts import scored
from bmtl.evaluation.plots import marginal_calibration, marginal_targets, save
from bmtl.targets import Count, Pixels, TimeToEvent
from bmtl.targets.metrics.survival import survival_of_times
from tests.evaluation import trees

FAMILIES = ["price", "pic50", "kind", "ill", "grade", "visits", "days", "force"]


def titled(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


@pytest.fixture
def runs(every_family_grid):
    return {name: tree for (name, seed), tree in every_family_grid.items() if not seed}


def line_of(panel, method):
    """The curve of the first or second method, after that of the labels if that is a line."""
    curves = [line for line in panel.lines if line.get_color() != "#222222"]
    return curves[["stl", "ew"].index(method)]


def test_every_family_has_a_panel(runs, tmp_path):
    assert marginal_targets(runs) == FAMILIES
    figure = marginal_calibration(runs)
    assert list(titled(figure)) == [*FAMILIES[:-1], "force: x", "force: y"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["stl", "ew", "labels"]
    assert save(figure, tmp_path / "margins.png").stat().st_size > 20_000
    assert plt.get_fignums() == []


def test_numbers_have_the_mean_cdf_over_the_rows(runs):
    panel = titled(marginal_calibration(runs, tasks=["price"]))["price"]
    x, y = line_of(panel, "ew").get_data()
    law = scored(runs["ew"])["price"].prediction.law.full().parameters
    expected = stats.norm.cdf(x[:, None, None], law["loc"], law["scale"]).mean(axis=(1, 2))
    np.testing.assert_allclose(y, expected, atol=1e-6)
    labels = scored(runs["ew"])["price"].labels
    steps = panel.lines[0]
    assert steps.get_ydata()[len(labels) // 2] == pytest.approx(0.5)


def test_counts_have_the_mean_probability_of_each_count(runs):
    panel = titled(marginal_calibration(runs, tasks=["visits"]))["visits"]
    x, y = line_of(panel, "ew").get_data()
    rate = scored(runs["ew"])["visits"].prediction.law.parameters["rate"]
    np.testing.assert_allclose(y, stats.poisson.pmf(x[:, None, None], rate).mean(axis=(1, 2)), atol=1e-9)
    labels = scored(runs["ew"])["visits"].labels
    heights = [bar.get_height() for bar in panel.patches]
    np.testing.assert_allclose(heights, np.bincount(labels.astype(int)) / labels.size)


def test_wide_counts_share_bars():
    counts = np.random.default_rng(0).poisson(500, size=300).astype(float)
    draws = np.random.default_rng(1).poisson(500, size=(50, 300)).astype(float)
    tree = trees.tree(observed={"n": counts}, predictive={"n": draws}, families={"n": Count()})
    panel = titled(marginal_calibration(tree))["n"]
    assert len(panel.patches) <= 30
    assert sum(bar.get_height() for bar in panel.patches) == pytest.approx(1)


@pytest.mark.parametrize("task", ["kind", "ill", "grade"])
def test_classes_have_mean_probabilities_and_intervals_of_the_labels(runs, task):
    panel = titled(marginal_calibration(runs, tasks=[task]))[task]
    rows = scored(runs["ew"])[task]
    np.testing.assert_allclose(line_of(panel, "ew").get_ydata(), rows.prediction.probability.mean(axis=0))
    shares = np.bincount(rows.labels) / rows.labels.size
    np.testing.assert_allclose([bar.get_height() for bar in panel.patches], shares)
    for bar, count in zip(panel.collections[0].get_segments(), np.bincount(rows.labels), strict=True):
        expected = stats.binomtest(int(count), rows.labels.size).proportion_ci()
        np.testing.assert_allclose(bar[:, 1], [expected.low, expected.high], atol=1e-9)
    assert [label.get_text() for label in panel.get_xticklabels()] == list(rows.family.classes)


def test_times_have_the_kaplan_meier_estimate_and_the_mean_survival(runs):
    panel = titled(marginal_calibration(runs, tasks=["days"]))["days"]
    rows = scored(runs["ew"])["days"]
    curve = survival_of_times(rows.labels)
    np.testing.assert_array_equal(panel.lines[0].get_ydata()[1:], curve.survival)
    x, y = line_of(panel, "ew").get_data()
    np.testing.assert_allclose(
        y, rows.predictive().survival(np.broadcast_to(x[:, None], (x.size, len(rows.labels)))).mean(axis=1)
    )
    assert y[0] == pytest.approx(1)


def test_many_rows_are_averaged_over_some(monkeypatch, runs):
    whole = line_of(titled(marginal_calibration(runs, tasks=["price"]))["price"], "ew").get_ydata()
    monkeypatch.setattr("bmtl.evaluation.plots.marginals.MOST_ROWS", 40)
    half = line_of(titled(marginal_calibration(runs, tasks=["price"]))["price"], "ew").get_ydata()
    assert 0 < np.abs(whole - half).max() < 0.15


def test_what_cannot_be_drawn_is_named_or_left_out(runs):
    ends = np.stack([np.arange(1.0, 7), np.arange(1.0, 7) + 1], axis=1)  # known up to finite intervals
    images = np.zeros((6, 2, 2))
    tree = trees.tree(
        observed={"cut": ends, "image": images, "n": np.arange(6.0), "bare": np.arange(6.0)},
        predictive={
            "cut": np.ones((4, 6)),
            "image": np.zeros((4, 6, 2, 2)),
            "n": np.ones((4, 6)),
            "bare": np.empty((0, 6)),
        },
        families={"cut": TimeToEvent(), "image": Pixels(), "n": Count()},
    )
    assert marginal_targets(tree) == ["n"]
    assert list(titled(marginal_calibration(tree))) == ["n"]
    with pytest.raises(ValueError, match="'cut' is not drawn: some labels are known up to a finite interval"):
        marginal_calibration(tree, tasks=["cut"])
    with pytest.raises(ValueError, match="no picture of the distribution of 'image', whose family is 'pixels'"):
        marginal_calibration(tree, tasks=["image"])
    with pytest.raises(ValueError, match="None of the runs .* has a predictive of 'bare'"):
        marginal_calibration(tree, tasks=["bare"])
    with pytest.raises(ValueError, match="There is no task 'gap'"):
        marginal_calibration(tree, tasks=["gap"])
