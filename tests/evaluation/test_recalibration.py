import numpy as np
import pytest
import xarray as xr
from scipy import stats
from scipy.special import logsumexp, softmax

from bmtl.evaluation import metrics, results
from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.predictive import EmpiricalPredictive, StudentTMixture, predictive_of
from bmtl.evaluation.recalibration import recalibrate

SHARPENED = 2.5  # the classifier's logits are this much too large


def part(seed, *, rows=400, width=0.4, components=3, draws=3, predictive=True, **overrides):
    """A mixture of Student t whose scales are `width` times what they should be, and a classifier that is too sure."""
    random = np.random.default_rng(seed)
    loc = random.normal(size=rows) + 0.05 * random.normal(size=(components, rows))
    scale, df = np.exp(0.5 * random.normal(size=(components, rows))), np.full((components, rows), 5.0)
    y = StudentTMixture(loc, scale, df).sample(1, random)[0]
    told = StudentTMixture(loc, width * scale, df)
    logits = 1.5 * random.normal(size=(rows, 3))
    label = (logits + random.gumbel(size=(rows, 3))).argmax(axis=1)
    probability = softmax(SHARPENED * logits, axis=1)
    drawn = {"t": told.sample(draws, random), "drawn": told.sample(draws, random)}
    pit = told.cdf(y)
    made = {
        "observed": {"t": y, "drawn": y, "class": label},
        "distribution": {"t": {"loc": told.loc, "scale": told.scale, "df": told.df}},
        "predictive": {**drawn, "class": np.zeros((draws, rows), dtype=int)} if predictive else None,
        "log_likelihood": {
            "t": told.component_log_prob(y),
            "drawn": told.component_log_prob(y),
            "class": np.repeat(np.log(probability[np.arange(rows), label])[None], components, axis=0),
        },
        "predictive_mean": {"t": told.mean(), "drawn": told.mean()},
        "pit": {"t": pit, "drawn": pit},
        "probability": {"class": probability},
        "aleatoric": {"t": told.within(), "drawn": told.within(), "class": np.full(rows, 0.1)},
        "epistemic": {"t": told.between(), "drawn": told.between(), "class": np.full(rows, 0.1)},
        "units": {"t": "K"},
        "method": "ew",
        "seed": 3,
    }
    return results.to_datatree(**(made | overrides))


def tree_of(*, targets=("t", "drawn", "class"), **options):
    parts = []
    for seed in (0, 1):
        made = part(seed, **options)
        kept = {}
        for node in made.subtree:
            group = node.to_dataset(inherit=False)
            names = [str(name) for name in group.data_vars]
            lost = [
                name
                for name in names
                if name.split("_")[0] in ("y", "loc", "scale", "df", "total", "aleatoric", "epistemic")
                and name.partition("_")[2] not in targets
            ]
            kept[node.path] = group.drop_vars(lost)
        parts.append(xr.DataTree.from_dict(kept))
    parts[0]["validation"] = parts[1]
    return parts[0]


def score(tree, target):
    scores = {"ece": metrics.ece(tree)["ece"], "nll": metrics.nll(tree)["nll"], "crps": metrics.crps(tree)["crps"]}
    return {name: float(score.sel(task=target)) for name, score in scores.items()}


def test_temperature_of_every_kind():
    tree = tree_of(targets=("t", "class"))
    before = tree.copy(deep=True)
    after = recalibrate(tree)
    assert tree.identical(before)
    attributes = decode_attributes(after)
    assert attributes["recalibration"] == "temperature"
    assert attributes["method"] == "ew"
    factors = attributes["recalibration_factors"]
    assert factors["t"] == pytest.approx(1 / 0.4, rel=4 * np.sqrt(0.8 / 400))
    assert factors["class"] == pytest.approx(SHARPENED, rel=0.3)
    mixture = predictive_of(after, "t")
    np.testing.assert_allclose(mixture.scale, factors["t"] * predictive_of(tree, "t").scale)
    y = after["observed_data"]["y_t"].values
    np.testing.assert_allclose(after["pit"]["y_t"], mixture.cdf(y))
    for name, value in score(after, "t").items():
        assert value < score(tree, "t")[name]
    assert metrics.nll(after)["nll"].sel(task="t") == pytest.approx(-mixture.log_prob(y).mean())
    assert metrics.ece(after)["ece"].sel(task="t") < 1.5 * metrics.ece(after)["ece_floor_upper95"].sel(task="t")
    parts = after["uncertainty"].to_dataset()
    np.testing.assert_allclose(parts["total_t"], mixture.variance())
    np.testing.assert_allclose(parts["total_t"], parts["aleatoric_t"] + parts["epistemic_t"])
    np.testing.assert_allclose(parts["epistemic_t"], mixture.between())
    xr.testing.assert_equal(after["predictive_mean"].to_dataset(), tree["predictive_mean"].to_dataset())


def test_probabilities_at_a_temperature():
    tree = tree_of(targets=("t", "class"))
    after = recalibrate(tree)
    probability = after["probability"]["y_class"].values
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    label = after["observed_data"]["y_class"].values
    chosen = probability[np.arange(label.size), label]
    assert -np.log(chosen).mean() < float(metrics.nll(tree)["nll"].sel(task="class"))
    found = logsumexp(after["log_likelihood"]["y_class"].values[0], axis=0) - np.log(3)
    np.testing.assert_allclose(found, np.log(chosen), rtol=1e-9)
    parts = after["uncertainty"].to_dataset()
    np.testing.assert_allclose(parts["total_class"], stats.entropy(probability, axis=1))
    assert "epistemic_class" not in parts


def test_draws_follow_the_new_predictive():
    tree = tree_of(targets=("t", "class"), rows=60, draws=400, components=1, log_likelihood=None)
    after = recalibrate(tree, seed=5)
    drawn = after["posterior_predictive"].to_dataset()
    assert drawn["y_t"].shape == (1, 400, 60)
    pit = predictive_of(after, "t").cdf(drawn["y_t"].values[0])
    assert stats.kstest(pit.ravel(), "uniform").pvalue > 1e-4
    share = (drawn["y_class"].values[0][..., None] == np.arange(3)).mean(axis=0)
    np.testing.assert_allclose(share, after["probability"]["y_class"], atol=4 * np.sqrt(0.25 / 400) + 0.02)
    assert drawn["y_class"].dtype.kind == "i"
    assert recalibrate(tree, seed=5).identical(after)
    assert not recalibrate(tree, seed=6)["posterior_predictive"].identical(after["posterior_predictive"])


def test_isotonic_of_every_kind():
    tree = tree_of(rows=250)
    after = recalibrate(tree, method="isotonic")
    for target in ("t", "drawn"):
        new = score(after, target)
        assert new["ece"] < 1.5 * metrics.noise_floor(250).upper95 < score(tree, target)["ece"]
        assert new["nll"] < score(tree, target)["nll"]
        assert isinstance(predictive_of(after, target), EmpiricalPredictive)
    assert "loc_t" not in after["predictive_distribution"]
    np.testing.assert_array_equal(after["probability"]["y_class"], tree["probability"]["y_class"])
    assert list(after["uncertainty"].data_vars) == [
        "total_t",
        "total_drawn",
        *(f"{p}_class" for p in ("total", "aleatoric", "epistemic")),
    ]
    # Intervals that were too narrow are wider now.
    assert (after["uncertainty"]["total_t"] > tree["uncertainty"]["total_t"]).all()
    assert decode_attributes(after)["recalibration_factors"] == {}


def test_isotonic_draws_are_made_where_there_were_none():
    after = recalibrate(tree_of(targets=("t", "class"), predictive=False, rows=150), method="isotonic")
    predictive = predictive_of(after, "t")
    assert predictive.draws.shape == (100, 150)
    total = after["uncertainty"]["total_t"].values
    assert predictive.variance().mean() == pytest.approx(total.mean(), rel=0.1)
    np.testing.assert_allclose(predictive.mean(), after["predictive_mean"]["y_t"], atol=6 * np.sqrt(total.max() / 100))


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_once_more_changes_next_to_nothing(method):
    tree = tree_of(targets=("t", "class"), rows=120)
    once = recalibrate(tree, method=method)
    twice = recalibrate(once, method=method)
    np.testing.assert_allclose(twice["pit"]["y_t"], once["pit"]["y_t"], atol=0.01)
    np.testing.assert_allclose(twice["probability"]["y_class"], once["probability"]["y_class"], atol=1e-6)
    for factor in decode_attributes(twice)["recalibration_factors"].values():
        assert factor == pytest.approx(1, rel=1e-5)


def test_the_file_is_read_back(tmp_path):
    after = recalibrate(tree_of(targets=("t", "class")))
    assert results.read(results.write(after, tmp_path / "results.nc")).identical(after)


def test_an_evidential_component_keeps_its_share():
    """One component whose variance is partly epistemic: both parts are of its scale."""
    told = part(0, components=1, draws=1)["uncertainty"].to_dataset()
    variance = told["aleatoric_t"].values
    share = {"aleatoric": {"t": 0.7 * variance}, "epistemic": {"t": 0.3 * variance}, "log_likelihood": None}
    tree = part(0, components=1, draws=1, probability=None, **share)
    del tree["observed_data"]["y_class"], tree["posterior_predictive"]["y_class"]
    del tree["observed_data"]["y_drawn"], tree["posterior_predictive"]["y_drawn"]
    tree["validation"] = tree.copy()
    after = recalibrate(tree)["uncertainty"].to_dataset()
    np.testing.assert_allclose(after["epistemic_t"] / after["total_t"], 0.3)


def test_what_cannot_follow_is_left_out():
    tree = tree_of(targets=("t", "class"), components=3)
    tree["log_likelihood"] = tree["log_likelihood"].to_dataset().isel(draw=[0, 1])
    tree["predictions_uncertainty"] = xr.Dataset({"total_t": ("row", np.ones(4))})
    tree["train"] = tree["validation"].copy()
    after = recalibrate(tree)
    assert "y_t" not in after["log_likelihood"]
    assert "y_class" in after["log_likelihood"]
    assert {"train", "predictions_uncertainty"}.isdisjoint(after.children)
    assert np.isnan(metrics.nll(after)["nll"].sel(task="t"))


def test_a_target_without_rows_stays_as_it_is():
    tree = tree_of(targets=("t", "class"), rows=40)
    empty = {"obs_t": []}
    for name in ("observed_data", "pit", "predictive_mean", "predictive_distribution", "log_likelihood", "uncertainty"):
        tree[name] = tree[name].to_dataset().isel(empty)
    tree["posterior_predictive"] = tree["posterior_predictive"].to_dataset().isel(empty)
    assert list(decode_attributes(recalibrate(tree))["recalibration_factors"]) == ["class"]


def test_errors_name_the_target_and_the_way_out():
    with pytest.raises(ValueError, match="no group 'validation'"):
        recalibrate(part(0))
    with pytest.raises(ValueError, match="no recalibration 'platt'"):
        recalibrate(tree_of(), method="platt")
    with pytest.raises(ValueError, match="Target 'drawn' cannot be recalibrated: .* Use method='isotonic'"):
        recalibrate(tree_of())
    tree = tree_of(targets=("t", "class"))
    del tree["validation"]["observed_data"]["y_t"]
    with pytest.raises(ValueError, match="Target 't' has no labelled validation row"):
        recalibrate(tree)
