"""Real labels that stop at bounds: what is at a bound counts with the probability beyond it, whatever the model."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm, t

from bmtl.targets import Prediction, Real, Scaler, family_from_spec
from bmtl.targets.prediction import Law
from bmtl.targets.score import Scored

LOWER, UPPER = 5.0, 8.0


def scored(labels, loc, scale, family, df=np.inf):
    """One normal or t component for each row."""
    parameters = {"loc": loc[None], "scale": scale[None], "df": np.full((1, len(loc)), df)}
    of = norm(loc, scale) if np.isinf(df) else t(df, loc, scale)
    prediction = Prediction(
        draws=np.empty((0, len(loc))),
        mean=loc,
        law=Law("student-t", parameters),
        log_likelihood=of.logpdf(labels)[None],
        pit=of.cdf(labels),
    )
    return Scored(labels, prediction, family, Scaler.identity()), of


def clipped(seed=0, n=4000):
    rng = np.random.default_rng(seed)
    loc, scale = rng.normal(6, 1.5, n), rng.uniform(0.5, 1.5, n)
    return np.clip(rng.normal(loc, scale), LOWER, UPPER), loc, scale


def test_they_are_never_scaled_and_survive_files():
    family = Real(bounds=(5.0, None))
    assert not family.scaled
    assert family.ends == (5.0, np.inf)
    assert family_from_spec({"family": "real", "censored": False, "bounds": [5.0, None]}) == family
    assert family_from_spec(family.spec()) == family
    assert family_from_spec({"family": "real", "censored": False}) == Real()
    assert Real().scaled


@pytest.mark.parametrize("df", [np.inf, 4.0])
def test_the_score_is_mass_at_a_bound_and_density_elsewhere(df):
    labels, loc, scale = clipped()
    rows, of = scored(labels, loc, scale, Real(bounds=(LOWER, UPPER)), df)
    expected = np.where(
        labels == LOWER, of.logcdf(LOWER), np.where(labels == UPPER, of.logsf(UPPER), of.logpdf(labels))
    )
    assert_allclose(rows.family.score("nll").compute(rows), -expected.mean(), rtol=1e-9)


def test_a_model_of_clipped_labels_scores_alike_and_is_proper():
    """Its log-likelihood has the masses already; and no other scale than the true one scores better."""
    labels, loc, scale = clipped()
    family = Real(bounds=(LOWER, None))
    rows, of = scored(labels, loc, scale, family)
    masses = np.where(labels == LOWER, of.logcdf(LOWER), of.logpdf(labels))[None]
    own = Prediction(draws=np.empty((0, len(labels))), mean=loc, log_likelihood=masses)
    score = family.score("nll")
    assert_allclose(score.compute(Scored(labels, own, family, Scaler.identity())), score.compute(rows), rtol=1e-9)
    labels = np.maximum(np.random.default_rng(1).normal(loc, scale), LOWER)
    right = score.compute(scored(labels, loc, scale, family)[0])
    for factor in (0.8, 1.25):
        assert score.compute(scored(labels, loc, factor * scale, family)[0]) > right
    spike = scored(labels, np.where(labels == LOWER, LOWER, loc), np.where(labels == LOWER, 1e-6, scale), family)[0]
    assert score.compute(spike) > 0  # a density would fall without end there
    assert -spike.prediction.log_likelihood.mean() < -2


def test_pit_values_are_uniform_for_the_truth():
    labels, loc, scale = clipped(n=20_000)
    family = Real(bounds=(LOWER, UPPER))
    rows, _ = scored(labels, loc, scale, family)
    pit = rows.pit()
    counts, _ = np.histogram(pit, bins=10, range=(0, 1))
    assert_allclose(counts / len(pit), 0.1, atol=0.009)
    assert family.score("ece").compute(rows) < 0.02
    assert (pit[labels == LOWER] <= norm.cdf((LOWER - loc) / scale)[labels == LOWER]).all()
    # Without a law, the cdf of the clipped label is what there is: enough at a lower bound, lost at an upper one.
    without = Prediction(draws=rows.prediction.draws, mean=loc, pit=rows.prediction.pit)
    assert Scored(labels, without, family, Scaler.identity()).pit() is None
    lower = Real(bounds=(LOWER, None))
    below = labels < UPPER
    assert_allclose(
        Scored(labels[below], without.take(below), lower, Scaler.identity()).pit(),
        Scored(labels[below], rows.prediction.take(below), lower, Scaler.identity()).pit(),
        atol=1e-12,
    )


@pytest.mark.parametrize("bounds", [(5.0, 5.0), (None, None), (6.0, 5.0)])
def test_bounds_are_in_order(bounds):
    with pytest.raises(ValueError, match="bounds are a lower and an upper bound in order"):
        Real(bounds=bounds)
    with pytest.raises(ValueError, match="of labels that are no intervals"):
        Real(censored=True, bounds=(1.0, 2.0))


def test_a_label_at_the_upper_bound_far_out_has_its_probability():
    """One less a cdf that is 1 to all its digits is 0, and its logarithm infinite."""
    labels, loc, scale = np.array([UPPER]), np.array([UPPER - 12.0]), np.ones(1)
    rows, of = scored(labels, loc, scale, Real(bounds=(None, UPPER)))
    assert_allclose(rows.family.score("nll").compute(rows), -of.logsf(UPPER), rtol=1e-9)


def test_labels_at_bounds_are_intervals_for_a_likelihood():
    family = Real(bounds=(LOWER, UPPER))
    found = family.for_likelihood(np.array([4.0, 5.0, 6.0, 8.0]))
    assert found.tolist() == [[-np.inf, 4.0], [-np.inf, 5.0], [6.0, 6.0], [8.0, np.inf]]
    assert Real().for_likelihood(np.ones(2)).tolist() == [1.0, 1.0]


def test_the_crps_is_that_of_a_clipped_label_whatever_the_model():
    """Of a law, of its draws, and of clipped draws: the score that the clipped predictive's draws have without end."""
    labels, loc, scale = clipped(n=500)
    family = Real(bounds=(LOWER, UPPER))
    rows, of = scored(labels, loc, scale, family)
    drawn = of.rvs((1000, 500), random_state=np.random.default_rng(1))
    models = [
        rows.prediction,
        Prediction(draws=drawn, mean=loc, law=rows.prediction.law),
        Prediction(draws=np.clip(drawn, LOWER, UPPER), mean=loc),
    ]
    found = [family.score("crps").compute(Scored(labels, model, family, Scaler.identity())) for model in models]
    y, other = np.clip(of.rvs((2, 4000, 500), random_state=np.random.default_rng(2)), LOWER, UPPER)
    assert_allclose(found, (np.abs(y - labels) - np.abs(y - other) / 2).mean(), rtol=0.03)
    assert found[1] == found[2] < 0.9 * rows.predictive().crps(labels).mean()
