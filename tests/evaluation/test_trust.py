import math

import numpy as np
import pytest
import xarray as xr

from bmtl.evaluation.trust import in_words, trust
from tests.evaluation import trees

ROWS = {"a": 30, "b": 12}
SCALE = 4.0  # of reported units


def normal(x, mean, variance):
    return -0.5 * np.log(2 * np.pi * variance) - (x - mean) ** 2 / (2 * variance)


def labels(seed=0):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=n) for name, n in ROWS.items()}


def known(y, width=1.0, shift=0.0, draws=2_000, seed=1, **options):
    """Draws for N(theta, 1) labels of both tasks under theta ~ N(0, 1); the guide is `width` times as wide as right."""
    every = np.concatenate(list(y.values()))
    variance = 1 / (len(every) + 1)
    mean = every.sum() * variance + shift * math.sqrt(variance)
    theta = mean + width * math.sqrt(variance) * np.random.default_rng(seed).normal(size=draws)
    density = {name: normal(values, theta[:, None], 1.0) for name, values in y.items()}
    log_p = normal(theta, 0.0, 1.0) + sum(values.sum(axis=1) for values in density.values())
    return trees.tree(
        observed=y,
        log_likelihood={name: values - np.log(SCALE) for name, values in density.items()},
        sample_stats={"lp": log_p, "log_q": normal(theta, mean, width**2 * variance)},
        part="train",
        **options,
    )


def left_out(y, target):
    """The exact log density of each row of a target given all others."""
    every = np.concatenate(list(y.values()))
    means = (every.sum() - y[target]) / len(every)
    return normal(y[target], means, 1 + 1 / len(every)) - np.log(SCALE)


@pytest.mark.parametrize(("width", "shift"), [(1.0, 0.0), (1.5, 0.0), (1.2, 0.5)])
def test_leave_one_out_is_the_posteriors_whatever_the_guide(width, shift):
    y = labels()
    found = trust(known(y, width, shift))
    assert found["rows"].values.tolist() == list(ROWS.values())
    for name in ROWS:
        task = found.sel(task=name)
        # 0.05 is 5 standard errors: a row's density given others varies by 0.15 over the posterior, 2,000 draws, 30 rows.
        assert float(task["elpd_loo"]) == pytest.approx(left_out(y, name).sum(), abs=0.05)
        assert float(task["unreliable"]) == 0


def test_an_exact_guide_has_draws_of_one_weight():
    found = trust(known(labels()))
    assert float(found["pareto_k"]) == -math.inf
    assert float(found["efficiency"]) == pytest.approx(1)
    assert in_words(found).startswith("All 2,000 draws have the same weight: the guide covers the posterior.")


def test_the_threshold_is_that_of_the_number_of_draws():
    found = [float(trust(known(labels(), draws=draws))["threshold"]) for draws in (100, 1000, 2200, 4000)]
    assert found == pytest.approx([0.5, 2 / 3, 0.7, 0.7])


def test_a_guide_that_is_too_narrow_or_elsewhere_is_found_out():
    for width, shift in ((0.3, 0.0), (1.0, 4.0)):
        found = trust(known(labels(), width, shift))
        assert float(found["pareto_k"]) > 0.7
        assert "does not cover the posterior" in in_words(found)


def test_a_guide_that_is_wider_covers_and_wastes_draws():
    found = trust(known(labels(), width=4.0))
    assert float(found["pareto_k"]) < 0.5
    assert float(found["efficiency"]) < 0.5
    assert "better taken with weights" in in_words(found)


def test_k_does_not_see_densities_up_to_a_factor():
    tree = known(labels(), 0.6)
    moved = known(labels(), 0.6)
    moved["sample_stats"]["lp"] = moved["sample_stats/lp"] + 1e4
    assert float(trust(moved)["pareto_k"]) == pytest.approx(float(trust(tree)["pareto_k"]), rel=1e-6)


def test_words_for_each_task():
    y = labels() | {"c": np.full(3, np.nan)}
    tree = known(y | {"c": np.zeros(0)})
    lines = in_words(trust(tree)).splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["a", "b", "c"]
    words = lines[1].split()
    assert float(words[9]) == pytest.approx(left_out(labels(), "a").mean(), abs=2e-3)
    assert words[-2:] == ["(30", "rows)."]
    assert lines[3] == "c: no labelled row."


def test_too_few_draws_to_tell():
    found = trust(known(labels(), 1.1, draws=150)).assign(pareto_k=0.6)
    assert "too few draws to decide. Draw 2,200 or more." in in_words(found)


def test_rows_that_rest_on_few_draws_are_told():
    found = trust(known(labels())).assign(unreliable=("task", [3, 0]))
    lines = in_words(found).splitlines()
    assert lines[1].endswith("; not reliable for 3 of them.")
    assert "not reliable" not in lines[2]


def test_weights_other_than_1_are_reported():
    weights = np.ones((20, 2))
    weights[18:, 1] = 4.0
    for given, reported in ((np.ones((20, 2)), False), (weights, True)):
        found = trust(known(labels(), training={"weights": given}, tasks=list(ROWS)))
        assert found["weight"].values.tolist() == [1, 4 if reported else 1]
        assert ("weighed its tasks by 1 to 4" in in_words(found)) == reported
    assert "weight" not in trust(known(labels(), training={"weights": weights}, tasks=["a/nll", "a/mse"]))


@pytest.mark.parametrize("worst", [-700.0, -745.0, -1e4, -1e6, -np.inf, np.nan])
@pytest.mark.parametrize("place", [0, 7])
def test_a_row_whose_density_falls_apart_is_unreliable(worst, place):
    """One draw of 400 gives one of six rows next to no density, none, or none that is a number."""
    random = np.random.default_rng(0)
    lp = random.normal(size=400)
    density = -1 + 0.1 * random.normal(size=(400, 6))
    density[place, 2] = worst
    tree = trees.tree(
        observed={"t": random.normal(size=6)},
        log_likelihood={"t": density},
        sample_stats={"lp": lp, "log_q": lp + 0.1 * random.normal(size=400)},
        part="train",
    )
    found = trust(tree)
    assert found["unreliable"].item() == 1
    assert "not reliable for 1 of them" in in_words(found)
    if np.isfinite(worst):  # at most the row's share of the weights, and five rows of about -1
        assert worst - 6 < found["elpd_loo"].item() < max(worst + np.log(400), -6)
    assert found["pareto_k"].item() < 0.5  # the posterior itself is well covered


def test_every_row_of_a_diverged_target_is_unreliable():
    random = np.random.default_rng(0)
    lp = random.normal(size=200)
    tree = trees.tree(
        observed={"gone": np.zeros(4), "there": np.zeros(3)},
        log_likelihood={"gone": np.full((200, 4), np.nan), "there": np.full((200, 3), -1.0)},
        sample_stats={"lp": lp, "log_q": lp + 0.1 * random.normal(size=200)},
        part="train",
    )
    found = trust(tree)
    assert found["unreliable"].values.tolist() == [4, 0]
    assert found["elpd_loo"].sel(task="there").item() == pytest.approx(-3)


@pytest.mark.parametrize(("which", "value"), [("lp", np.nan), ("lp", -np.inf), ("log_q", np.nan), ("log_q", -np.inf)])
def test_a_draw_without_a_density_leaves_no_k(which, value):
    tree = known(labels(), draws=200)
    densities = tree["sample_stats"].to_dataset().copy(deep=True)
    densities[which][0, 3] = value
    tree["sample_stats"] = xr.DataTree(densities)
    found = trust(tree)
    assert np.isnan(found["pareto_k"].item())
    assert in_words(found).startswith("Pareto k does not exist for these 200 draws: ")
    assert "do not use this posterior" in in_words(found)


def test_what_is_missing_is_named(make_tree):
    with pytest.raises(ValueError, match="does not hold the training rows"):
        trust(make_tree())
    with pytest.raises(ValueError, match="no sample_stats"):
        trust(make_tree(part="train"))
    with pytest.raises(ValueError, match="100 draws at least, better 1,000, and the tree has 99"):
        trust(known(labels(), draws=99))
