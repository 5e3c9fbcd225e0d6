"""Scores of real numbers."""

import functools

import numpy as np

from bmtl.targets.laws import EmpiricalPredictive
from bmtl.targets.metrics.concordance import concordance_index
from bmtl.targets.metrics.density import nll_of_draws, nll_rows
from bmtl.targets.metrics.pit import ece_from_pit, noise_floor_mean, randomised_pit
from bmtl.targets.metrics.point import (
    coefficient_of_determination,
    mean_absolute_error,
    mean_relative_error,
    root_mean_squared_error,
)
from bmtl.targets.metrics.survival import censored_concordance, has_comparable_pairs, interval_pit
from bmtl.targets.metrics.uncertainty_calibration import ence
from bmtl.targets.score import Score, Scored, given

DRAWS = 200  # of a law of which none were kept


def _nll(rows: Scored) -> float:
    densities = given(rows.prediction.log_likelihood)
    return nll_of_draws(densities) - float(
        np.broadcast_to(rows.family.log_volume(rows.labels, rows.scaler), densities.shape[1:]).mean()
    )


def _ence(rows: Scored) -> float:
    predictive = rows.predictive()
    return ence(rows.labels - predictive.mean(), np.sqrt(predictive.variance()))


def _ece_within(rows: Scored) -> float:
    pit = rows.pit()
    return float("nan") if pit is None else ece_from_pit(pit)


MAE = Score("mae", "MAE", lambda rows: mean_absolute_error(rows.labels, rows.mean()), ("mean",), in_units=True)
RMSE = Score("rmse", "RMSE", lambda rows: root_mean_squared_error(rows.labels, rows.mean()), ("mean",), in_units=True)
RELATIVE_ERROR = Score(
    "relative_error",
    "rel. error",
    lambda rows: mean_relative_error(rows.labels, rows.mean()),
    ("mean",),
    note="mean of error over label",
)
R2 = Score(
    "r2", "R²", lambda rows: coefficient_of_determination(rows.labels, rows.mean()), ("mean",), True, relative=False
)
# Raw densities of different units have no common mean: the NLL is that of what the model saw.
NLL = Score(
    "nll",
    "NLL",
    _nll,
    ("log_likelihood",),
    relative=False,
    averaged=True,
    note="nats, of targets as scaled for training",
)
ECE = Score(
    "ece",
    "ECE",
    lambda rows: ece_from_pit(given(rows.prediction.pit)),
    ("pit",),
    averaged=True,
    note="of central intervals",
    floor=noise_floor_mean,
)
CRPS = Score(
    "crps", "CRPS", lambda rows: float(rows.predictive().crps(rows.labels).mean()), ("predictive",), in_units=True
)
ENCE = Score("ence", "ENCE", _ence, ("predictive",))
CONCORDANCE = Score(
    "concordance",
    "C",
    lambda rows: concordance_index(rows.labels, rows.mean()),
    ("mean",),
    higher_is_better=True,
    defined=lambda rows: bool((rows.labels != rows.labels[0]).any()),
)


@functools.cache
def nll_within(lower: float, upper: float) -> Score:
    """The NLL of labels that stop at bounds: a label there counts with the probability beyond it.

    A model of clipped labels has such probabilities as its log-likelihood already and no law of the label itself; of any
    other model they are taken from its law.
    """

    def compute(rows: Scored) -> float:
        densities = given(rows.prediction.log_likelihood)
        values = -nll_rows(densities)  # log densities of the rows
        if rows.prediction.law is not None:
            predictive, n = rows.predictive(), len(rows.labels)
            below, above = rows.labels <= lower, rows.labels >= upper
            with np.errstate(divide="ignore"):
                at_lower = np.log(predictive.cdf(np.full(n, lower))) if below.any() else values
                at_upper = np.log(predictive.survival(np.full(n, upper))) if above.any() else values
            values = np.where(below, at_lower, np.where(above, at_upper, values))
        return -float(values.mean())

    note = "nats; a label at a bound counts with the probability beyond it"
    return Score("nll", "NLL", compute, ("log_likelihood",), relative=False, averaged=True, note=note)


@functools.cache
def crps_within(lower: float, upper: float) -> Score:
    """The CRPS of what a measurement that stops at bounds would report: draws are clipped there, of every model alike.

    Without it, a model of the quantity itself would pay for the probability beyond a bound, and one of clipped labels not.
    """

    def compute(rows: Scored) -> float:
        drawn = rows.prediction.draws
        drawn = drawn if len(drawn) > 1 else rows.predictive().sample(DRAWS, 0)
        return float(EmpiricalPredictive(np.clip(drawn, lower, upper)).crps(rows.labels).mean())

    return Score("crps", "CRPS", compute, ("predictive",), in_units=True, note="of draws that stop at the bounds")


def pit_within(rows: Scored, lower: float, upper: float) -> np.ndarray | None:
    """Predictive cdf at labels that stop at bounds, drawn uniformly from what is beyond where a label is at a bound."""
    pit = rows.predictive().cdf(rows.labels) if rows.prediction.law is not None else rows.prediction.pit
    if pit is None:
        return None
    below, above = rows.labels <= lower, rows.labels >= upper
    if (
        above.any() and rows.prediction.law is None
    ):  # the cdf of a clipped label jumps to 1 there: what was before is lost
        return None
    return randomised_pit(np.where(below, 0.0, pit), np.where(above, 1.0, pit))


def nearest_label(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The value within each interval ``(N, 2)`` that is nearest to its prediction ``(N,)``."""
    return np.clip(predicted, labels[:, 0], labels[:, 1])


# Of labels that are intervals: an error is the distance to the interval.
CENSORED_MAE = Score(
    "mae",
    "MAE",
    lambda rows: mean_absolute_error(nearest_label(rows.labels, rows.mean()), rows.mean()),
    ("mean",),
    in_units=True,
    note="distance to the label's interval",
)
CENSORED_RMSE = Score(
    "rmse",
    "RMSE",
    lambda rows: root_mean_squared_error(nearest_label(rows.labels, rows.mean()), rows.mean()),
    ("mean",),
    in_units=True,
    note="distance to the label's interval",
)
CENSORED_ECE = Score(
    "ece",
    "ECE",
    lambda rows: ece_from_pit(interval_pit(rows.labels, rows.predictive())),
    ("predictive",),
    averaged=True,
    note="of central intervals, PIT values uniform within a label's ends",
    floor=noise_floor_mean,
)
CENSORED_CONCORDANCE = Score(
    "concordance",
    "C",
    lambda rows: censored_concordance(rows.labels, rows.mean()),
    ("mean",),
    higher_is_better=True,
    defined=lambda rows: has_comparable_pairs(rows.labels),
)

# Of labels that stop at bounds.
BOUNDED_ECE = Score(
    "ece",
    "ECE",
    _ece_within,
    ("log_likelihood",),
    averaged=True,
    note="of central intervals, PIT values at a bound uniform beyond it",
    floor=noise_floor_mean,
)
