"""Scores of vectors: in standard deviations of each component where components differ in unit, else in units."""

from collections.abc import Callable

import numpy as np

from bmtl.targets.laws import EmpiricalPredictive
from bmtl.targets.metrics.energy import energy_of_draws
from bmtl.targets.metrics.pit import ece_from_pit
from bmtl.targets.score import Score, Scored

SCALED = "in standard deviations of each component"
DRAWS = 200  # of a law of which none were kept


def _energy(rows: Scored) -> float:
    draws = rows.prediction.draws if len(rows.prediction.draws) > 1 else rows.predictive().sample(DRAWS, 0)
    return energy_of_draws(rows.scaler.transform(rows.labels), rows.scaler.transform(draws))


def _mae(rows: Scored) -> float:
    errors = np.abs(rows.scaler.transform(rows.labels) - rows.scaler.transform(rows.mean()))
    return _mean_over_components(rows.labels, lambda k, seen: float(errors[seen, k].mean()))


def distances(rows: Scored) -> np.ndarray:
    """Length of the error of each vector ``(N,)`` in the target's unit, NaN where a component is missing."""
    return np.asarray(np.linalg.norm(rows.labels - rows.mean(), axis=-1))


def _distance(rows: Scored) -> float:
    found = distances(rows)
    complete = ~np.isnan(rows.labels).any(axis=-1)
    return float(found[complete].mean()) if complete.any() else float("nan")


def _mae_in_units(rows: Scored) -> float:
    errors = np.abs(rows.labels - rows.mean())
    return _mean_over_components(rows.labels, lambda k, seen: float(errors[seen, k].mean()))


def _ece(rows: Scored) -> float:
    if rows.prediction.law is None:
        draws = rows.prediction.draws
        pit = np.stack([EmpiricalPredictive(draws[..., k]).cdf(rows.labels[:, k]) for k in range(draws.shape[2])], -1)
    else:
        pit = rows.predictive().cdf(rows.labels)
    return _mean_over_components(rows.labels, lambda k, seen: ece_from_pit(pit[seen, k]))


def _mean_over_components(labels: np.ndarray, score: Callable[[int, np.ndarray], float]) -> float:
    """Mean of a score of each component's observed rows, of components with one."""
    seen = ~np.isnan(labels)
    return float(np.mean([score(k, seen[:, k]) for k in range(labels.shape[1]) if seen[:, k].any()]))


ENERGY = Score("energy", "energy score", _energy, ("predictive",), note=SCALED)
MAE = Score("mae", "MAE", _mae, ("mean",), note=SCALED)
# Of vectors whose components have a common unit.
DISTANCE = Score("distance", "distance", _distance, ("mean",), in_units=True, note="mean length of the error")
MAE_IN_UNITS = Score("mae", "MAE", _mae_in_units, ("mean",), in_units=True, note="mean over components")
ECE = Score("ece", "ECE", _ece, ("predictive",), averaged=True)
