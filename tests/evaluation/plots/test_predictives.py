import numpy as np
import pytest
from scipy import stats

from bmtl.evaluation import metrics
from bmtl.evaluation.plots import interval_widths, pit_deviations
from tests.evaluation import trees


def tree_of(width=1.0, rows=80, targets=("mu", "homo")):
    random = np.random.default_rng(0)
    loc, noise = random.normal(size=(2, rows))
    parameters = {"loc": loc[None], "scale": np.full((1, rows), width), "df": np.full((1, rows), np.inf)}
    return trees.tree(
        observed={**dict.fromkeys(targets, loc + noise), "class": np.zeros(rows, dtype=int)},
        distribution=dict.fromkeys(targets, parameters),
        pit=dict.fromkeys(targets, stats.norm.cdf(noise / width)),
        probability={"class": np.full((rows, 2), 0.5)},
        units={"mu": "D"} if "mu" in targets else None,
        method="ew",
    )


def lines(axes, number):
    """Of the first `number` methods: x and y; the zero line is none."""
    drawn = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert len(drawn) == number
    return [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in drawn]


def test_deviations_are_those_of_the_ecdf_and_the_band_is_its_own():
    tree, narrow = tree_of(), tree_of(0.4)
    figure = pit_deviations({"before": narrow, "after": tree})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["mu", "homo"]
    (x, before), (_, after) = lines(figure.axes[0], 2)
    bands = metrics.pit_bands(tree).sel(task="mu")
    np.testing.assert_allclose(after, bands["ecdf"] - x)
    np.testing.assert_allclose(before, metrics.pit_bands(narrow)["ecdf"].sel(task="mu") - x)
    edges = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert edges.max() == pytest.approx(float((bands["upper"] - x).max()))
    assert {text.get_text() for text in figure.legends[0].texts} == {
        "before",
        "after",
        "calibrated, 95 % of whole curves",
    }
    # Too narrow: a wave up, then down, out of the band.
    assert before[10] > edges.max() / 2
    assert before[-10] < 0


def test_widths_are_those_of_the_intervals():
    figure = interval_widths({"before": tree_of(0.4), "after": tree_of()})
    assert figure.axes[0].get_title(loc="left") == "mu (D)"
    (level, before), (_, after) = lines(figure.axes[0], 2)
    np.testing.assert_allclose(after, 2 * stats.norm.ppf((1 + level) / 2))
    np.testing.assert_allclose(before, 0.4 * after)


def test_methods_may_have_other_targets():
    both = {"a": tree_of(targets=("mu",)), "b": tree_of(targets=("homo", "mu"))}
    for plot in (pit_deviations, interval_widths):
        figure = plot(both)
        assert len(lines(figure.axes[0], 2)) == 2
        assert len(lines(figure.axes[1], 1)) == 1
        assert len(plot(both, tasks=["homo"]).axes) == 1
        with pytest.raises(ValueError, match="There is no task 'class'"):
            plot(both, tasks=["class"])


def test_what_is_missing_is_named():
    bare = trees.tree(observed={"a": np.zeros(3)})
    classes = trees.tree(observed={"class": np.zeros(3, dtype=int)}, probability={"class": np.full((3, 2), 0.5)})
    for tree in (bare, classes):
        with pytest.raises(ValueError, match="has a predictive cdf of any task; it cannot be drawn"):
            pit_deviations(tree)
        with pytest.raises(ValueError, match="has a predictive of any task; it cannot be drawn"):
            interval_widths(tree)


def test_every_family_with_a_number_a_row_has_widths(every_family_grid):
    figure = interval_widths({name: tree for (name, seed), tree in every_family_grid.items() if not seed})
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["price (EUR)", "pic50", "visits (visits)", "days (days)"]
    deviations = pit_deviations(every_family_grid["ew", 0])
    assert [axes.get_title(loc="left") for axes in deviations.axes] == ["price", "pic50", "visits", "days"]


def test_figures_are_drawn(tmp_path):
    for plot in (pit_deviations, interval_widths):
        plot(tree_of()).savefig(tmp_path / f"{plot.__name__}.png")
