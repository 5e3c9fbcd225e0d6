"""Scores of real numbers."""

import numpy as np

from bmtl.targets.metrics.concordance import concordance_index
from bmtl.targets.metrics.density import nll_of_draws
from bmtl.targets.metrics.pit import ece_from_pit, noise_floor_mean
from bmtl.targets.metrics.point import (
    coefficient_of_determination,
    mean_absolute_error,
    mean_relative_error,
    root_mean_squared_error,
)
from bmtl.targets.metrics.survival import censored_concordance, interval_pit
from bmtl.targets.metrics.uncertainty_calibration import ence
from bmtl.targets.score import Score, Scored, given


def _nll(rows: Scored) -> float:
    densities = given(rows.prediction.log_likelihood)
    return nll_of_draws(densities) - float(
        np.broadcast_to(rows.family.log_volume(rows.labels, rows.scaler), densities.shape[1:]).mean()
    )


def _ence(rows: Scored) -> float:
    predictive = rows.predictive()
    return ence(rows.labels - predictive.mean(), np.sqrt(predictive.variance()))


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
)


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
)
