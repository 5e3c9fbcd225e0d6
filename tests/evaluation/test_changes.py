import numpy as np
import pytest

from bmtl.evaluation import plots
from bmtl.evaluation.changes import gains, relative_changes
from bmtl.evaluation.comparison import compare
from bmtl.evaluation.label_shares import by_label_share, left_out
from bmtl.evaluation.style import lines_of, methods_in_order
from bmtl.targets import Binary
from tests.evaluation import trees


def one(method, labels, p, split):
    """A run on a real target and a binary one whose labels are given."""
    rng = np.random.default_rng(split)
    y = rng.normal(size=len(labels))
    return trees.tree(
        observed={"mu": y, "ill": np.asarray(labels)},
        predictive_mean={"mu": y + {"stl": 0.5, "ew": 0.25}[method]},
        probability={"ill": np.stack([1 - np.asarray(p), p], axis=1)},
        families={"ill": Binary()},
        primary={"ill": "auroc"},
        method=method,
        seed=split,
    )


@pytest.fixture
def comparison():
    """In the second split all labels are of one class: no AUROC."""
    p = np.linspace(0.1, 0.9, 20)
    mixed = [0] * 12 + [1, 0] * 4
    return compare({(m, s): one(m, mixed if s != 1 else [0] * 20, p, s) for m in ("stl", "ew") for s in range(3)})


def test_a_score_without_a_value_is_left_out_and_no_nan_in_means(comparison):
    changes = relative_changes(comparison, "stl")
    assert changes["counted"].sel(task="ill", learner="ew").values.tolist() == [True, False, True]
    np.testing.assert_allclose(changes["change"].sel(task="mu", learner="ew"), -50)
    np.testing.assert_allclose(changes["change"].sel(task="ill", learner="ew"), [0, np.nan, 0])
    found = gains(comparison, "stl")
    assert found["splits"].sel(task="ill").item() == 2
    np.testing.assert_allclose(found["difference"].sel(learner="ew"), [-50, 0], atol=1e-9)


def test_a_change_that_single_precision_does_not_resolve_is_none():
    def run(method, shift):
        y = np.arange(20.0)
        return trees.tree(observed={"mu": y}, predictive_mean={"mu": y + 1 + shift}, method=method, seed=0)

    compared = compare({("stl", 0): run("stl", 0.0), ("ew", 0): run("ew", 1e-8), ("uw", 0): run("uw", 1e-5)})
    found = relative_changes(compared, "stl")["change"].sel(task="mu").squeeze()
    assert found.sel(learner="ew") == 0
    np.testing.assert_allclose(found.sel(learner="uw"), 1e-3, rtol=1e-4)


def test_pictures_by_target_leave_it_out_and_say_so(comparison):
    joined = by_label_share({1.0: comparison})
    assert left_out(joined, 1.0) == "Left out, since the labels give the score no value: ill in 1 of 3 draws."
    figure = plots.changes_by_target(joined, 1.0)
    (container,) = figure.axes[0].containers
    np.testing.assert_allclose(container.lines[0].get_xdata(), [-50, 0], atol=1e-9)
    assert "ill in 1 of 3 draws" in figure.get_supxlabel()
    clean = by_label_share({1.0: comparison.isel(split=[0, 2])})
    assert left_out(clean, 1.0) == ""
    assert plots.changes_by_target(clean, 1.0).get_supxlabel() == ""


def test_a_method_has_one_colour_whichever_methods_a_picture_shows():
    with methods_in_order(["stl", "ew", "uw"]):
        alone, both = lines_of(["uw"]), lines_of(["ew", "uw"])
        other = lines_of(["new", "uw"])
    assert (
        alone["uw"]["color"]
        == both["uw"]["color"]
        == other["uw"]["color"]
        == lines_of(["stl", "ew", "uw"])["uw"]["color"]
    )
    assert other["new"]["color"] not in {line["color"] for line in lines_of(["stl", "ew", "uw"]).values()}
    assert lines_of(["uw"])["uw"]["color"] == lines_of(["stl"])["stl"]["color"]  # outside the block as before


def test_gains_are_drawn_on_one_axis(comparison):
    figure = plots.gains_by_task(gains(comparison, "stl"), over="seed")
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["mu", "ill"]
    assert panels["mu"].get_xlim() == panels["ill"].get_xlim()
    assert "Change against stl [%], 95 % interval over 3 seeds; better to the left" in figure.get_supxlabel()
    figure.draw_without_rendering()
