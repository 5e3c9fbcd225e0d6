"""Scores of vectors, in standard deviations of each component: components differ in unit."""

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
ECE = Score("ece", "ECE", _ece, ("predictive",), averaged=True)
