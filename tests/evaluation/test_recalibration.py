import numpy as np
import pytest
import xarray as xr
from scipy import stats
from scipy.special import logsumexp, softmax

from bmtl.evaluation import metrics, results
from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.calibration_maps import PitMap
from bmtl.evaluation.images import PredictedImages, images_of
from bmtl.evaluation.parts import scored
from bmtl.evaluation.recalibration import recalibrate
from bmtl.evaluation.results import PredictedRows, ReportedTarget, to_datatree
from bmtl.targets import Binary, Count, Law, Prediction, Real, UnitVector
from bmtl.targets.laws import EmpiricalPredictive, LaplaceMixture, PoissonMixture, StudentTMixture
from bmtl.targets.metrics.pit import noise_floor
from tests.evaluation import trees

SHARPENED = 2.5  # the classifier's logits are this much too large
FIELDS = (
    "predictive",
    "log_likelihood",
    "predictive_mean",
    "pit",
    "distribution",
    "probability",
    "aleatoric",
    "epistemic",
)


def arrays(seed, *, rows=400, width=0.4, components=3, draws=3, predictive=True, targets=("t", "class")):
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
        "predictive": {**drawn, "class": np.zeros((draws, rows), dtype=int)} if predictive else {},
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
    }
    return {name: {k: v for k, v in of.items() if k in targets} for name, of in made.items()}


def both(test, validation, **options):
    """A tree of test rows with validation rows, from arrays by field and target."""
    fields = {{"predictive_mean": "mean"}.get(k, k): v for k, v in validation.items() if k != "observed"}
    below = {"validation": trees.predicted(validation["observed"], **fields)}
    return trees.tree(**test, below=below, **{"units": {"t": "K"}, "method": "ew", "seed": 3} | options)


def tree_of(**options):
    return both(arrays(0, **options), arrays(1, **options), units={})


def predictive_of(tree, target, part="test"):
    return scored(tree, part)[target].predictive()


def score(tree, target):
    scores = {"ece": metrics.ece(tree)["ece"], "nll": metrics.nll(tree)["nll"], "crps": metrics.crps(tree)["crps"]}
    return {name: float(score.sel(task=target)) for name, score in scores.items()}


def values(tree, group, target, prefix="y"):
    return tree[f"test/{group}/{prefix}_{target}"].values


def test_temperature_of_every_kind():
    tree = tree_of()
    before = tree.copy(deep=True)
    after = recalibrate(tree)
    assert tree.identical(before)
    attributes = decode_attributes(after)
    assert attributes["recalibration"] == "temperature"
    assert attributes["method"] == "ew"
    assert attributes["recalibration_left_out"] == {}
    factors = attributes["recalibration_factors"]
    assert factors["t"] == pytest.approx(1 / 0.4, rel=4 * np.sqrt(0.8 / 400))
    assert factors["class"] == pytest.approx(SHARPENED, rel=0.3)
    mixture = predictive_of(after, "t")
    np.testing.assert_allclose(mixture.scale, factors["t"] * predictive_of(tree, "t").scale)
    y = values(after, "observed_data", "t")
    np.testing.assert_allclose(values(after, "pit", "t"), mixture.cdf(y))
    for name, value in score(after, "t").items():
        assert value < score(tree, "t")[name]
    assert metrics.nll(after)["nll"].sel(task="t") == pytest.approx(-mixture.log_prob(y).mean())
    assert metrics.ece(after)["ece"].sel(task="t") < 1.5 * metrics.ece(after)["ece_floor_upper95"].sel(task="t")
    total, aleatoric, epistemic = (values(after, "uncertainty", "t", p) for p in ("total", "aleatoric", "epistemic"))
    np.testing.assert_allclose(total, mixture.variance())
    np.testing.assert_allclose(total, aleatoric + epistemic)
    np.testing.assert_allclose(epistemic, mixture.between())
    np.testing.assert_array_equal(values(after, "predictive_mean", "t"), values(tree, "predictive_mean", "t"))


def test_a_law_with_a_scale_keeps_its_kind():
    random = np.random.default_rng(0)
    made = []
    for _ in range(2):
        loc = random.normal(size=(2, 300))
        y = LaplaceMixture(loc, 2.0).sample(1, random)[0]
        law = {"law": "laplace", "loc": loc, "scale": np.ones((2, 300))}
        made.append({"observed": {"t": y}, "distribution": {"t": law}})
    after = recalibrate(both(*made))
    assert isinstance(predictive_of(after, "t"), LaplaceMixture)
    assert decode_attributes(after)["recalibration_factors"]["t"] == pytest.approx(2, rel=0.25)


def test_censored_labels_fit_the_scale_too():
    """Half of the labels are cut off: the likelihood of an interval is a probability, and the factor is found as well."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(2):
        loc = random.normal(size=(1, 4000))
        y = StudentTMixture(loc, 3.0).sample(1, random)[0]
        cut = loc[0]
        labels = np.stack([np.minimum(y, cut), np.where(y > cut, np.inf, y)], axis=1)
        made.append(
            {
                "observed": {"t": labels},
                "distribution": {"t": {"loc": loc, "scale": np.ones((1, 4000)), "df": np.full((1, 4000), np.inf)}},
            }
        )
    after = recalibrate(both(*made, families={"t": Real(censored=True)}))
    assert decode_attributes(after)["recalibration_factors"]["t"] == pytest.approx(3, rel=0.1)


def stopped(seed, law=True):
    """Normal labels that stop at 0, and a predictive a third as wide; or intervals above 0."""
    random = np.random.default_rng(seed)
    loc = random.normal(size=(2, 3000))
    y = np.maximum(StudentTMixture(loc, 3.0).sample(1, random)[0], 0.0)
    told = StudentTMixture(loc, np.ones((2, 3000)))
    made = {"observed": {"t": y}, "log_likelihood": {"t": told.component_log_prob(y)}, "pit": {"t": told.cdf(y)}}
    drawn = {"predictive": {"t": np.maximum(told.sample(20, random), 0.0)}}
    return made | ({"distribution": {"t": {"loc": loc, "scale": told.scale, "df": told.df}}} if law else drawn)


def test_labels_at_a_bound_count_with_the_probability_beyond_it():
    """A third of the labels stop at 0: as densities they would make the fitted factor too small."""
    tree = both(stopped(0), stopped(1), families={"t": Real(bounds=(0.0, None))})
    after = recalibrate(tree)
    assert decode_attributes(after)["recalibration_factors"]["t"] == pytest.approx(3, rel=0.1)
    fitted = PitMap.fitted(scored(tree, "validation")["t"].pit())
    rows = scored(recalibrate(tree, method="isotonic"))["t"]
    mass = np.exp(rows.prediction.log_likelihood).mean(axis=0)[rows.labels == 0]
    np.testing.assert_allclose(mass, fitted(scored(tree)["t"].predictive().cdf(0.0))[rows.labels == 0], rtol=1e-9)
    clipped = [stopped(seed, law=False) for seed in (0, 1)]
    left = recalibrate(both(*clipped, families={"t": Real(bounds=(0.0, None))}), method="isotonic")
    assert "log_likelihood" not in left["test"].children


def test_intervals_keep_their_probability_under_an_isotonic_map():
    """Their cdf has no value, and the last slope of the map was taken for theirs."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(2):
        loc = random.normal(size=(1, 500))
        y = StudentTMixture(loc, 2.0).sample(1, random)[0]
        told, open_ = StudentTMixture(loc, 1.0), random.uniform(size=500) < 0.5
        labels = np.stack([np.where(open_, y - 1, y), np.where(open_, np.inf, y)], axis=1)
        density = np.where(open_, np.log(told.survival(y - 1)), told.log_prob(y))[None]
        pit = np.where(open_, np.nan, told.cdf(y))
        law = {"loc": loc, "scale": np.ones((1, 500)), "df": np.full((1, 500), np.inf)}
        fields = {"observed": labels, "log_likelihood": density, "pit": pit, "distribution": law}
        made.append({name: {"t": of} for name, of in fields.items()})
    tree = both(*made, families={"t": Real(censored=True)})
    fitted = PitMap.fitted(scored(tree, "validation")["t"].pit())
    below = scored(tree)["t"].predictive().cdf(scored(tree)["t"].labels[:, 0])
    found = scored(recalibrate(tree, method="isotonic"))["t"]
    open_ = np.isinf(found.labels[:, 1])
    np.testing.assert_allclose(np.exp(found.prediction.log_likelihood[0][open_]), 1 - fitted(below[open_]), rtol=1e-9)
    exact = made[0]["log_likelihood"]["t"][0] + fitted.log_slope(below)
    np.testing.assert_allclose(found.prediction.log_likelihood[0][~open_], exact[~open_], rtol=1e-9)


def test_probabilities_at_a_temperature():
    tree = tree_of()
    after = recalibrate(tree)
    probability = values(after, "probability", "class")
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    label = values(after, "observed_data", "class")
    chosen = probability[np.arange(label.size), label]
    assert -np.log(chosen).mean() < float(metrics.nll(tree)["nll"].sel(task="class"))
    found = logsumexp(values(after, "log_likelihood", "class")[0], axis=0) - np.log(3)
    np.testing.assert_allclose(found, np.log(chosen), rtol=1e-9)
    assert "total_class" not in after["test/uncertainty"]


def test_draws_follow_the_new_predictive():
    tree = tree_of(rows=60, draws=400, components=1)
    after = recalibrate(tree, seed=5)
    drawn = values(after, "posterior_predictive", "t")
    assert drawn.shape == (1, 400, 60)
    pit = predictive_of(after, "t").cdf(drawn[0])
    assert stats.kstest(pit.ravel(), "uniform").pvalue > 1e-4
    of_class = values(after, "posterior_predictive", "class")
    share = (of_class[0][..., None] == np.arange(3)).mean(axis=0)
    np.testing.assert_allclose(share, values(after, "probability", "class"), atol=4 * np.sqrt(0.25 / 400) + 0.02)
    assert of_class.dtype.kind == "i"
    assert recalibrate(tree, seed=5).identical(after)
    assert not recalibrate(tree, seed=6)["test/posterior_predictive"].identical(after["test/posterior_predictive"])


def test_isotonic_of_every_kind():
    targets = ("t", "drawn", "class")
    tree = tree_of(rows=250, targets=targets)
    after = recalibrate(tree, method="isotonic")
    for target in ("t", "drawn"):
        new = score(after, target)
        assert new["ece"] < 1.5 * noise_floor(250).upper95 < score(tree, target)["ece"]
        assert new["nll"] < score(tree, target)["nll"]
        assert isinstance(predictive_of(after, target), EmpiricalPredictive)
        np.testing.assert_array_equal(values(after, "predictive_mean", target), values(tree, "predictive_mean", target))
        assert f"total_{target}" not in after["test/uncertainty"]
    assert "predictive_distribution" not in after["test"].children
    np.testing.assert_array_equal(values(after, "probability", "class"), values(tree, "probability", "class"))
    assert "total_class" in after["test/uncertainty"]
    # Intervals that were too narrow are wider now.
    assert predictive_of(after, "t").variance().mean() > 2 * predictive_of(tree, "t").variance().mean()
    assert decode_attributes(after)["recalibration_factors"] == {}


def test_isotonic_draws_are_made_where_there_were_none():
    after = recalibrate(tree_of(predictive=False, rows=150), method="isotonic", move_mean=True)
    predictive = predictive_of(after, "t")
    assert predictive.draws.shape == (100, 150)
    error = 6 * np.sqrt(predictive.variance().max() / 100)
    np.testing.assert_allclose(predictive.mean(), values(after, "predictive_mean", "t"), atol=error)


def test_one_outlier_does_not_move_the_mean():
    """Twenty validation rows, one of them far off: the mean of what the map makes of it is worthless, and is not taken."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(2):
        loc = random.normal(size=(1, 20))
        y = loc[0] + random.normal(size=20)
        y[0] += 40
        law = StudentTMixture(loc, 1.0, 2.2)
        made.append(
            {
                "observed": {"t": y},
                "distribution": {"t": law.parameters},
                "predictive_mean": {"t": law.mean()},
                "pit": {"t": law.cdf(y)},
            }
        )
    made[0]["observed"]["t"][0] -= 40
    tree = both(*made)
    error = metrics.mae(tree)["mae"].item()
    assert metrics.mae(recalibrate(tree, method="isotonic"))["mae"].item() == error
    moved = recalibrate(tree, method="isotonic", move_mean=True)
    assert metrics.mae(moved)["mae"].item() > 3 * error


@pytest.mark.parametrize("rows", [2, 5])
def test_validation_rows_that_are_all_wrong_do_not_make_classes_equal(rows):
    """Their likelihood is largest at an infinite temperature, at which the first class is predicted throughout."""
    random = np.random.default_rng(0)
    y = random.integers(2, size=200)
    p = np.where(y[:, None] == np.arange(2), 0.9, 0.1)
    wrong = {"observed": {"k": np.zeros(rows, dtype=int)}, "probability": {"k": np.tile([0.1, 0.9], (rows, 1))}}
    tree = both({"observed": {"k": y}, "probability": {"k": p}}, wrong, families={"k": Binary()})
    after = recalibrate(tree)
    temperature = decode_attributes(after)["recalibration_factors"]["k"]
    assert 1 < temperature < 20
    assert metrics.accuracy(after)["accuracy"].item() == metrics.accuracy(tree)["accuracy"].item() == 1


def test_a_target_that_cannot_be_recalibrated_leaves_the_others_theirs():
    """No label, labels that are predicted exactly, all right, a count, draws alone: each says why or is bounded."""
    random = np.random.default_rng(0)
    rows = 60
    halves = []
    for validation in (False, True):
        t = arrays(int(validation), rows=rows)
        rate = np.full((3, rows), 3.0)
        exact = random.normal(size=rows)
        sure = random.integers(2, size=rows)
        normal = {"loc": np.tile(exact, (3, 1)), "scale": np.ones((3, rows)), "df": np.full((3, rows), np.inf)}
        halves.append(
            {
                "observed": t["observed"]
                | {
                    "empty": np.full(rows, np.nan) if validation else exact,
                    "exact": exact,
                    "sure": sure,
                    "n": PoissonMixture(rate).sample(1, random)[0],
                    "drawn": exact,
                },
                "distribution": t["distribution"]
                | {"empty": normal, "exact": normal, "n": {"law": "poisson", "rate": rate}},
                "probability": t["probability"] | {"sure": np.where(sure[:, None] == np.arange(2), 0.9, 0.1)},
                "predictive": {"drawn": random.normal(size=(5, rows))},
                "pit": t["pit"],
            }
        )
    tree = both(*halves, families={"n": Count(), "sure": Binary()}, units={})
    attributes = decode_attributes(recalibrate(tree))
    reasons = attributes["recalibration_left_out"]
    assert reasons.keys() == {"empty", "exact", "n", "drawn"}
    assert reasons["empty"] == "it has no labelled validation row"
    assert "predicted exactly" in reasons["exact"]
    assert "no scale" in reasons["n"]
    assert "no scale" in reasons["drawn"]
    assert attributes["recalibration_factors"].keys() == {"t", "class", "sure"}
    assert attributes["recalibration_factors"]["sure"] > 0.05
    alone = decode_attributes(recalibrate(tree_of(rows=rows)))["recalibration_factors"]
    assert attributes["recalibration_factors"]["t"] == pytest.approx(alone["t"])
    after = recalibrate(tree)
    for target in reasons:
        rows_before, rows_after = scored(tree)[target], scored(after)[target]
        np.testing.assert_array_equal(rows_after.predictive().cdf(0.5), rows_before.predictive().cdf(0.5))
    isotonic = decode_attributes(recalibrate(tree, method="isotonic"))["recalibration_left_out"]
    assert "not continuous" in isotonic["n"]
    assert "does not hold its predictive cdf" in isotonic["exact"]


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_once_more_changes_next_to_nothing(method):
    tree = tree_of(rows=120)
    once = recalibrate(tree, method=method)
    twice = recalibrate(once, method=method)
    np.testing.assert_allclose(values(twice, "pit", "t"), values(once, "pit", "t"), atol=0.01)
    # The prior moves a temperature once more, by its share of 120 rows.
    np.testing.assert_allclose(values(twice, "probability", "class"), values(once, "probability", "class"), atol=0.01)
    for factor in decode_attributes(twice)["recalibration_factors"].values():
        assert factor == pytest.approx(1, rel=0.02)


def test_the_file_is_read_back(tmp_path):
    after = recalibrate(tree_of())
    assert results.read(results.write(after, tmp_path / "results.nc")).identical(after)


def test_chosen_targets_alone():
    tree = tree_of(rows=50)
    after = recalibrate(tree, targets=["class"])
    assert list(scored(after)) == ["class"]
    assert decode_attributes(after)["recalibration_factors"].keys() == {"class"}
    np.testing.assert_allclose(values(after, "probability", "class"), values(recalibrate(tree), "probability", "class"))


def test_an_evidential_component_keeps_its_share():
    """One component whose variance is partly epistemic: both parts are of its scale."""
    made = arrays(0, components=1, draws=1, targets=("t",))
    variance = made["aleatoric"]["t"]
    made |= {"aleatoric": {"t": 0.7 * variance}, "epistemic": {"t": 0.3 * variance}}
    after = recalibrate(both(made, made))
    np.testing.assert_allclose(
        values(after, "uncertainty", "t", "epistemic") / values(after, "uncertainty", "t", "total"), 0.3
    )


def test_what_cannot_follow_is_left_out():
    made = arrays(0, components=3)
    made["log_likelihood"] = {name: of[:2] for name, of in made["log_likelihood"].items()}
    tree = both(made, arrays(1), units={})
    tree["predictions_uncertainty"] = xr.DataTree(xr.Dataset({"total_t": ("row", np.ones(4))}))
    tree["log_likelihood"] = xr.DataTree(xr.Dataset({"y_t": (("chain", "draw", "obs_t"), np.zeros((1, 2, 3)))}))
    after = recalibrate(tree)
    assert "y_t" not in after["test/log_likelihood"]
    assert "y_class" in after["test/log_likelihood"]
    assert {"log_likelihood", "predictions_uncertainty"}.isdisjoint(after.children)
    assert np.isnan(metrics.nll(after)["nll"].sel(task="t"))


def test_a_target_of_images_that_stays_keeps_its_scores_of_all_pixels():
    """And its pictures; one that is recalibrated has scores of the pixels that the tree holds, and no other ones."""
    random = np.random.default_rng(0)
    angle = random.normal(size=(30, 3))
    angle /= np.linalg.norm(angle, axis=1, keepdims=True)
    y = random.normal(size=30)
    law = Law("student-t", {"loc": np.zeros((1, 30)), "scale": np.full((1, 30), 0.1), "df": np.full((1, 30), np.inf)})
    picture = PredictedImages(
        np.arange(1), np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 2, 2, 3)), np.ones((1, 2, 2, 3))
    )
    rows = {
        "depth": PredictedRows(Prediction(np.empty((0, 30)), np.zeros(30), law=law), y, whole={"mae": 7.0}),
        "normal": PredictedRows(
            Prediction(np.empty((0, 30, 3)), angle), angle, whole={"mean_angle": 9.0}, images=picture
        ),
    }
    targets = {"depth": ReportedTarget(Real()), "normal": ReportedTarget(UnitVector())}
    tree = to_datatree({"test": rows, "validation": rows}, targets)
    after = scored(recalibrate(tree))
    assert after["normal"].whole == {"mean_angle": 9.0}
    assert after["depth"].whole == {}
    assert list(images_of(recalibrate(tree)["test"])) == ["normal"]


def test_targets_of_any_names_have_scores_of_all_pixels():
    names = ("x", "of_x", "d_x", "score_x", "scored_x")
    law = Law("student-t", {"loc": np.zeros((1, 5)), "scale": np.ones((1, 5)), "df": np.full((1, 5), np.inf)})
    rows = {
        name: PredictedRows(Prediction(np.empty((0, 5)), np.zeros(5), law=law), np.arange(5.0), whole={"mae": float(i)})
        for i, name in enumerate(names)
    }
    tree = to_datatree({"test": rows}, {name: ReportedTarget(Real()) for name in names})
    assert [scored(tree)[name].whole["mae"] for name in names] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_target_without_test_rows_stays_as_it_is():
    made = arrays(0, rows=40)
    made["observed"]["t"] = np.full(40, np.nan)
    tree = both(made, arrays(1, rows=40), units={})
    assert list(decode_attributes(recalibrate(tree))["recalibration_factors"]) == ["class"]


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="no rows of the part 'validation'"):
        recalibrate(trees.tree(**arrays(0)))
    with pytest.raises(ValueError, match="no recalibration 'platt'"):
        recalibrate(tree_of(), method="platt")
    with pytest.raises(ValueError, match="No target can be fitted on the validation rows. 'drawn': .* no scale"):
        recalibrate(tree_of(targets=("drawn",)))
