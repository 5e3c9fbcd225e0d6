"""The scores that families define, on labelled rows, against independent references."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from bmtl.targets import (
    FAMILIES,
    Binary,
    Classes,
    Count,
    Law,
    Ordinal,
    Pixels,
    Prediction,
    Real,
    Scaler,
    Scored,
    TimeToEvent,
    Vector,
)
from bmtl.targets.laws import PoissonMixture, StudentTMixture, WeibullMixture, distribution
from bmtl.targets.metrics.uncertainty_calibration import ence
from tests.evaluation.classifications import calibrated

sklearn = pytest.importorskip("sklearn.metrics")
scoringrules = pytest.importorskip("scoringrules")
torchmetrics = pytest.importorskip("torchmetrics")
lifelines = pytest.importorskip("lifelines.utils")
ROWS = 300


def scores(rows):
    """Every score that can be computed, by name."""
    return {score.name: score.compute(rows) for score in rows.family.scores if score.computable(rows)}


def real_rows(seed=0):
    random = np.random.default_rng(seed)
    loc, scale = random.normal(size=(1, ROWS)), np.exp(0.3 * random.normal(size=(1, ROWS)))
    mixture = StudentTMixture(loc, scale)
    y = mixture.sample(1, random)[0]
    return Scored(
        y,
        Prediction(
            mixture.sample(7, random),
            mean=mixture.mean(),
            law=Law("student-t", mixture.parameters),
            log_likelihood=mixture.component_log_prob(y),
            pit=mixture.cdf(y),
        ),
        Real(),
        Scaler(np.array(1.0), np.array(4.0)),
    )


def test_real_numbers():
    rows = real_rows()
    y, p = rows.labels, rows.prediction
    loc, scale = p.law.parameters["loc"][0], p.law.parameters["scale"][0]
    found = scores(rows)
    assert found["mae"] == pytest.approx(sklearn.mean_absolute_error(y, p.mean))
    assert found["rmse"] == pytest.approx(sklearn.root_mean_squared_error(y, p.mean))
    assert found["r2"] == pytest.approx(sklearn.r2_score(y, p.mean))
    assert found["nll"] == pytest.approx(-stats.norm.logpdf(y, loc, scale).mean() - np.log(4))  # of y in 4s
    assert found["crps"] == pytest.approx(scoringrules.crps_normal(y, loc, scale).mean())
    assert found["ence"] == pytest.approx(ence(y - loc, scale))
    levels = np.arange(1, 101) / 100
    ends = [stats.norm.interval(level, loc, scale) for level in levels]
    expected = [abs(((y >= low) & (y <= high)).mean() - level) for level, (low, high) in zip(levels, ends, strict=True)]
    assert found["ece"] == pytest.approx(np.mean(expected))
    assert rows.family.score("concordance").compute(rows) == pytest.approx(lifelines.concordance_index(y, p.mean))
    np.testing.assert_array_equal(rows.losses(), np.abs(y - p.mean))
    np.testing.assert_array_equal(rows.pit(), p.pit)


def test_draws_alone_have_the_scores_that_draws_can_have():
    rows = real_rows()
    drawn = Scored(rows.labels, Prediction(rows.prediction.draws), Real(), rows.scaler)
    found = scores(drawn)
    assert set(found) == {"crps", "ence"}
    expected = scoringrules.crps_ensemble(drawn.labels, drawn.prediction.draws, m_axis=0, estimator="fair")
    assert found["crps"] == pytest.approx(expected.mean())
    assert scores(Scored(np.zeros(0), Prediction(np.zeros((3, 0))), Real(), Scaler.identity())) == {}


def test_real_numbers_known_up_to_an_interval():
    """Errors are distances to the interval; a label that is exact counts as ever."""
    random = np.random.default_rng(0)
    rows = real_rows()
    limit = rows.prediction.law.parameters["loc"][0] + random.normal(size=ROWS)
    labels = np.stack([np.minimum(rows.labels, limit), np.where(rows.labels > limit, np.inf, rows.labels)], axis=1)
    cut = Scored(labels, rows.prediction, Real(censored=True), rows.scaler)
    mean = rows.prediction.mean
    event = labels[:, 0] == labels[:, 1]
    error = np.where(event, np.abs(labels[:, 0] - mean), np.maximum(labels[:, 0] - mean, 0))
    found = scores(cut)
    assert found["mae"] == pytest.approx(error.mean())
    assert found["rmse"] == pytest.approx(np.sqrt(np.square(error).mean()))
    np.testing.assert_allclose(cut.losses(), error)
    concordance = cut.family.score("concordance").compute(cut)
    assert concordance == pytest.approx(lifelines.concordance_index(labels[:, 0], mean, event))
    assert found["ece"] < 0.58 / np.sqrt(ROWS)  # the 95 % point of a perfect predictive, which this is
    exact = Scored(np.stack([rows.labels, rows.labels], 1), rows.prediction, Real(censored=True), rows.scaler)
    plain = scores(rows)
    assert {name: pytest.approx(value) for name, value in scores(exact).items()} == {
        name: plain[name] for name in ("mae", "rmse", "nll", "ece")
    }


def test_counts():
    random = np.random.default_rng(0)
    rate = random.uniform(0.2, 9, size=(1, ROWS))
    mixture = PoissonMixture(rate)
    y = mixture.sample(1, random)[0]
    prediction = Prediction(
        mixture.sample(5, random),
        mean=rate[0],
        law=Law("poisson", {"rate": rate}),
        log_likelihood=mixture.component_log_prob(y),
    )
    rows = Scored(y, prediction, Count(), Scaler.identity())
    found = scores(rows)
    assert found["mae"] == pytest.approx(sklearn.mean_absolute_error(y, rate[0]))
    assert found["nll"] == pytest.approx(-stats.poisson.logpmf(y, rate[0]).mean())
    assert found["crps"] == pytest.approx(scoringrules.crps_poisson(y, rate[0]).mean())
    assert found["deviance"] == pytest.approx(sklearn.mean_poisson_deviance(y, rate[0]))
    assert found["ece"] < 0.58 / np.sqrt(ROWS)
    assert found == scores(rows)  # the PIT's draws are fixed
    assert Count().primary(y) == "mae"


@pytest.mark.parametrize("family", [Classes(("a", "b", "c")), Ordinal(("a", "b", "c"))], ids=["classes", "ranks"])
def test_class_probabilities(family):
    y, p = calibrated(ROWS, 3)
    rows = Scored(y, Prediction(np.zeros((0, ROWS)), probability=p), family, Scaler.identity())
    guess = p.argmax(axis=1)
    expected = {
        "accuracy": sklearn.accuracy_score(y, guess),
        "balanced_accuracy": sklearn.balanced_accuracy_score(y, guess),
        "auroc": sklearn.roc_auc_score(y, p, multi_class="ovr"),
        "nll": sklearn.log_loss(y, p),
        "brier": np.mean(np.sum((p - np.eye(3)[y]) ** 2, axis=1)),
        "ece": _torch_ece(y, p),
        "kappa": sklearn.cohen_kappa_score(y, guess, weights="quadratic"),
        "rps": np.mean([scoringrules.rps_score(label + 1, row) for label, row in zip(y, p, strict=True)]),
        "average_precision": np.mean([sklearn.average_precision_score(y == c, p[:, c]) for c in range(3)]),
    }
    found = scores(rows) | {s.name: s.compute(rows) for s in family.further_scores}
    for name in found.keys() & expected.keys():
        assert found[name] == pytest.approx(expected[name], rel=1e-5), name
    assert len(found.keys() & expected.keys()) >= 6
    if family.name == "ordinal":
        median = (p.cumsum(axis=1) < 0.5).sum(axis=1)
        assert found["mae"] == pytest.approx(sklearn.mean_absolute_error(y, median))
        np.testing.assert_array_equal(rows.losses(), np.abs(median - y))
    else:
        np.testing.assert_array_equal(rows.losses(), guess != y)


def _torch_ece(y, p):
    import torch

    return float(
        torchmetrics.functional.classification.multiclass_calibration_error(
            torch.tensor(p), torch.tensor(y), num_classes=p.shape[1], n_bins=15, norm="l1"
        )
    )


def test_one_of_two_classes():
    y, p = calibrated(ROWS, 2)
    rows = Scored(y, Prediction(np.zeros((0, ROWS)), probability=p), Binary(), Scaler.identity())
    found = scores(rows)
    assert found["auroc"] == pytest.approx(sklearn.roc_auc_score(y, p[:, 1]))
    assert found["average_precision"] == pytest.approx(sklearn.average_precision_score(y, p[:, 1]))
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(y, p.argmax(1)))
    assert found["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(y, p.argmax(1)))
    assert found["nll"] == pytest.approx(sklearn.log_loss(y, p))
    assert found["brier"] == pytest.approx(2 * sklearn.brier_score_loss(y, p[:, 1]))
    assert found["ece"] == pytest.approx(_torch_ece(y, p), rel=1e-5)


def test_labels_decide_whether_a_score_has_a_value():
    """Where it has none it is NaN for any prediction; a prediction that is NaN says nothing of the labels."""
    p = np.random.default_rng(0).dirichlet(np.ones(3), 6)

    def undefined(family, labels, width=3):
        probability = p[:, :width] / p[:, :width].sum(-1, keepdims=True)
        rows = Scored(
            np.asarray(labels), Prediction(np.zeros((0, 6)), probability=probability), family, Scaler.identity()
        )
        broken = dataclasses.replace(rows, prediction=Prediction(np.zeros((0, 6)), probability=probability * np.nan))
        found = {score.name for score in family.scores if not score.is_defined(rows)}
        assert found == {score.name for score in family.scores if not score.is_defined(broken)}
        assert all(np.isnan(family.score(name).of(rows)) for name in found)
        return found

    assert undefined(Binary(), [0] * 6, 2) == {"auroc", "average_precision"}
    assert undefined(Binary(), [1] * 6, 2) == {"auroc"}
    assert undefined(Binary(), [0, 1, 0, 0, 0, 0], 2) == set()
    assert undefined(Classes(("a", "b", "c")), [2] * 6) == {"auroc"}
    assert undefined(Classes(("a", "b", "c")), [2, 1, 1, 1, 1, 1]) == set()


def test_times_of_which_none_is_known_to_come_first_have_no_concordance():
    score = TimeToEvent().score("concordance")
    for upper, defined in ((np.inf, False), (1.0, True)):
        times = np.array([[1.0, upper], [2.0, np.inf], [3.0, np.inf]])
        rows = Scored(times, Prediction(np.ones((2, 3))), TimeToEvent(), Scaler.identity())
        assert score.is_defined(rows) is defined
        assert np.isfinite(score.of(rows)) == defined


@pytest.mark.parametrize("family", [Binary(), Classes(), Classes(("a", "b", "c"))], ids=["binary", "two", "three"])
def test_a_rare_class_makes_accuracy_say_little(family):
    """Of 1,000 labels: accuracy is the primary score down to 200 outside the most frequent class, and -1 is no label."""
    for rare, primary in ((500, "accuracy"), (200, "accuracy"), (199, "auroc"), (60, "auroc"), (0, "auroc")):
        for frequent in (0, 1):
            y = np.full(1000, frequent)
            y[:rare] = 1 - frequent
            assert family.primary(y) == primary
            assert family.primary(np.append(y, np.full(5000, -1))) == primary
    assert family.primary(np.zeros(0, dtype=int)) == "accuracy"
    assert {"accuracy", "auroc"} <= {score.name for score in family.scores}


def test_the_case_of_six_percent_positives():
    """The better ranking has the better primary score, whatever accuracy says: a constant is right in 94 of 100 rows."""
    random = np.random.default_rng(0)
    y = (np.arange(2000) < 120).astype(int)
    score = np.clip(0.2 + 0.3 * y + 0.1 * random.normal(size=2000), 0.01, 0.99)
    family = Binary()
    found = {}
    for name, p in {"ranks": score, "constant": np.full(2000, 0.06)}.items():
        prediction = Prediction(np.zeros((0, 2000)), probability=np.stack([1 - p, p], axis=1))
        found[name] = scores(Scored(y, prediction, family, Scaler.identity()))
    assert family.primary(y) == "auroc"
    assert found["ranks"]["auroc"] > 0.9 > 0.5 == found["constant"]["auroc"]


def test_times_to_an_event():
    random = np.random.default_rng(0)
    scale = np.exp(0.5 * random.normal(size=(2, ROWS)))
    mixture = WeibullMixture(scale, 1.5)
    time, limit = mixture.sample(1, random)[0], 1.5 * random.exponential(size=ROWS)
    event = time <= limit
    labels = np.stack([np.minimum(time, limit), np.where(event, time, np.inf)], axis=1)
    density = np.where(
        event, mixture.component_log_prob(labels[:, 0]), np.log(mixture.component_survival(labels[:, 0]))
    )
    rows = Scored(
        labels,
        Prediction(np.zeros((0, ROWS)), law=Law("weibull", mixture.parameters), log_likelihood=density),
        TimeToEvent(),
        Scaler(np.array(0.0), np.array(2.0)),
    )
    found = scores(rows)
    expected = lifelines.concordance_index(labels[:, 0], mixture.quantile(0.5), event)
    assert found["concordance"] == pytest.approx(expected)
    mean = np.logaddexp.reduce(density, axis=0) - np.log(2)
    assert found["nll"] == pytest.approx(-mean.mean() - np.log(2) * event.mean())  # of times in 2s
    assert 0 < found["ibs"] < 0.25
    assert found["ece"] < 0.58 / np.sqrt(ROWS)
    assert TimeToEvent().primary(labels) == "concordance"


def test_vectors_in_standard_deviations():
    random = np.random.default_rng(0)
    scaler = Scaler(np.array([10.0, -3.0]), np.array([100.0, 0.1]))
    z = random.normal(size=(ROWS, 2))
    z[::7, 0] = np.nan
    law = Law(
        "multivariate-normal",
        {"loc": 0.3 * random.normal(size=(3, ROWS, 2)), "scale_tril": np.eye(2)[None, None] * 0.9},
    )
    mixture = distribution(law)
    family = Vector(("force", "length"))
    scaled = Prediction(
        mixture.sample(20, random), mean=mixture.mean(), law=law, log_likelihood=mixture.component_log_prob(z)
    )
    y = scaler.inverse(z)
    rows = Scored(y, scaled.in_units(family, scaler, y), family, scaler)
    found = scores(rows)
    assert found["nll"] == pytest.approx(-mixture.log_prob(z).mean())
    complete = ~np.isnan(z).any(axis=1)
    energy = np.empty(ROWS)
    energy[complete] = scoringrules.es_ensemble(
        z[complete], scaled.draws[:, complete], m_axis=0, v_axis=-1, estimator="fair"
    )
    energy[~complete] = scoringrules.crps_ensemble(
        z[~complete, 1], scaled.draws[:, ~complete, 1], m_axis=0, estimator="fair"
    )
    assert found["energy"] == pytest.approx(energy.mean())
    errors = np.abs(z - mixture.mean())
    assert found["mae"] == pytest.approx(np.mean([np.nanmean(errors[:, 0]), errors[:, 1].mean()]))
    assert found["ece"] < 0.1
    without = Scored(y, Prediction(np.zeros((0, ROWS)), law=rows.prediction.law), family, scaler)
    assert scores(without)["energy"] == pytest.approx(found["energy"], rel=0.1)
    drawn = Scored(y, Prediction(rows.prediction.draws), family, scaler)
    assert set(scores(drawn)) == {"energy", "ece"}


def test_pixels_are_scored_together():
    random = np.random.default_rng(0)
    y, p = calibrated(2 * 3 * 4, 3)
    labels, image = y.reshape(2, 3, 4).copy(), p.reshape(2, 3, 4, 3)
    labels[0, 0] = -1
    kept = labels.ravel() >= 0
    rows = Scored(
        labels, Prediction(np.zeros((0, 2)), probability=image), Pixels(Classes(("a", "b", "c"))), Scaler.identity()
    )
    found = scores(rows)
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(y[kept], p[kept].argmax(1)))
    assert found["mean_iou"] == pytest.approx(
        sklearn.jaccard_score(y[kept], p[kept].argmax(1), average="macro", labels=np.unique(y[kept]), zero_division=0)
    )
    assert rows.family.scores[0].name == "mean_iou"
    depth = random.normal(size=(2, 3, 4))
    depth[1, 2] = np.nan
    mean = random.normal(size=(2, 3, 4))
    found = scores(Scored(depth, Prediction(np.zeros((0, 2)), mean=mean), Pixels(), Scaler.identity()))
    assert found["mae"] == pytest.approx(np.nanmean(np.abs(depth - mean)))


def test_scores_of_one_name_have_one_symbol_and_one_direction():
    seen = {}
    families = [kind() for kind in FAMILIES.values()] + [Real(censored=True), Pixels(Classes()), Pixels(Count())]
    for family in families:
        names = [score.name for score in (*family.scores, *family.further_scores)]
        assert len(set(names)) == len(names), family
        assert family.primary(np.zeros(0, dtype=int)) in names
        for score in (*family.scores, *family.further_scores):
            known = seen.setdefault(score.name, score)
            assert (score.symbol, score.higher_is_better) == (known.symbol, known.higher_is_better)
            assert family.score(score.name) is not None
        assert family.score("no such score") is None


def test_a_field_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="lacks a field"):
        Scored(np.zeros(2), Prediction(np.zeros((0, 2))), Real(), Scaler.identity()).mean()
