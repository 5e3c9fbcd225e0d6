import numpy as np
import pytest

from bmtl.evaluation import metrics
from bmtl.targets import Count, Real, TimeToEvent
from bmtl.targets.laws import PoissonMixture
from bmtl.targets.metrics.pit import noise_floor
from tests.evaluation import trees
from tests.evaluation.classifications import class_tree


def test_a_calibrated_tree_and_a_narrow_one(make_tree):
    even = dict.fromkeys(("mu", "homo", "cv"), (np.arange(400) + 0.5) / 400)
    calibrated, narrow = metrics.ece(make_tree(rows=400, pit=even)), metrics.ece(make_tree(rows=400, width=0.3))
    assert (calibrated["ece"] < calibrated["ece_floor_upper95"]).all()
    assert (narrow["ece"] > narrow["ece_floor_upper95"]).all()
    np.testing.assert_allclose(calibrated["ece_floor"], noise_floor(400).mean)


def test_the_curve_is_where_the_ece_comes_from(make_tree):
    tree = make_tree(width=0.5)
    curve = metrics.reliability(tree)["coverage"]
    assert curve.dims == ("task", "level")
    np.testing.assert_allclose(np.abs(curve - curve["level"]).mean("level"), metrics.ece(tree)["ece"])
    assert (curve.sel(level=0.5) < 0.5).all()
    assert metrics.reliability(tree, levels=[0.5, 0.9])["coverage"].shape == (3, 2)


def test_bands_and_groups_of_the_tree(make_tree, run_arrays):
    observed = run_arrays()["observed"]
    observed["cv"] = np.full(60, np.nan)
    tree = make_tree(observed=observed, width=0.4)
    bands, groups = metrics.pit_bands(tree), metrics.worst_groups(tree, sizes=[0.5, 1.0])
    assert bands["ecdf"].dims == ("task", "point")
    assert groups["worst_ece"].dims == ("task", "size")
    for array in (*bands.values(), *groups.values()):
        np.testing.assert_array_equal(np.isnan(array).all(array.dims[1]), [False, False, True])
    np.testing.assert_allclose(groups["worst_ece"].sel(size=1.0), metrics.ece(tree)["ece"])
    assert (groups["worst_ece"] > groups["worst_ece_floor"]).sel(task=["mu", "homo"]).all()


def test_counts_and_intervals_have_a_cdf_too_and_classes_have_none():
    """All predictives are the labels' own laws: coverage is nominal within four standard errors of 2,000 rows."""
    random = np.random.default_rng(0)
    rows = 2000
    rate = random.uniform(0.2, 6, size=rows)
    counts = PoissonMixture(rate).sample(1, random)[0]
    loc = random.normal(size=rows)
    y = loc + random.normal(size=rows)
    limit = random.normal(size=rows) + 0.5
    right = np.stack([np.minimum(y, limit), np.where(y > limit, np.inf, y)], axis=1)
    scale = np.exp(loc)
    times, ends = scale * random.exponential(size=rows), scale * random.exponential(size=rows)
    events = np.stack([np.minimum(times, ends), np.where(times > ends, np.inf, times)], axis=1)
    law = {"loc": loc[None], "scale": np.ones((1, rows)), "df": np.full((1, rows), np.inf)}
    tree = trees.tree(
        observed={"n": counts, "cut": right, "days": events},
        distribution={
            "n": {"law": "poisson", "rate": rate[None]},
            "cut": law,
            "days": {"law": "weibull", "scale": scale[None], "concentration": np.ones((1, rows))},
        },
        families={"n": Count(), "cut": Real(censored=True), "days": TimeToEvent()},
    )
    curve = metrics.reliability(tree)["coverage"]
    assert curve["task"].values.tolist() == ["n", "cut", "days"]
    assert float(np.abs(curve - curve["level"]).max()) < 4 * 0.5 / np.sqrt(rows)
    assert (metrics.ece(tree)["ece"] < metrics.ece(tree)["ece_floor_upper95"]).all()
    assert {name: pit.size for name, pit in metrics.pits(class_tree()).items()} == dict.fromkeys(
        ("price", "ill", "digit", "none"), 0
    )


def test_errors_by_predicted_uncertainty():
    random = np.random.default_rng(1)
    rows = 5000
    sd = np.exp(random.normal(size=rows))
    y = 1.5 * sd * random.normal(size=rows)
    law = {"loc": np.zeros((1, rows)), "scale": sd[None], "df": np.full((1, rows), np.inf)}
    tree = trees.tree(
        observed={"a": y, "k": random.integers(2, size=rows)},
        distribution={"a": law},
        probability={"k": np.full((rows, 2), 0.5)},
    )
    found = metrics.uncertainty_calibration(tree, bins=5)
    assert found["predicted"].dims == ("task", "bin")
    assert found["rows"].sel(task="a").values.tolist() == [1000] * 5
    ratio = (found["observed"] / found["predicted"]).sel(task="a")
    # A root mean square of 1,000 normal values errs by 1 / sqrt(2000) of itself; four of that.
    np.testing.assert_allclose(ratio, 1.5, rtol=4 / np.sqrt(2000))
    assert float(metrics.ence(tree)["ence"].sel(task="a")) == pytest.approx(0.5, abs=0.06)
    assert np.isnan(found["predicted"].sel(task="k")).all()


def test_coverage_of_a_level(make_tree):
    tree = make_tree(rows=500)
    held = metrics.coverage(tree, level=0.8)["coverage"]
    np.testing.assert_allclose(held, metrics.reliability(tree, levels=[0.8])["coverage"].isel(level=0))
    with pytest.raises(ValueError, match="expected one in"):
        metrics.coverage(tree, level=1.0)
    np.testing.assert_allclose(held, 0.8, atol=4 * 0.4 / np.sqrt(500))
