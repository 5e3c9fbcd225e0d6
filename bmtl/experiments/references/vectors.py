"""References for vectors: a mean for each component, with a covariance that is fitted on validation."""

import numpy as np

from bmtl.experiments.references.base import Predict, Rows, fit, of_law, title, titled
from bmtl.experiments.references.real import mean_of
from bmtl.targets import Prediction, Vector
from bmtl.targets.prediction import Law


@title.register
def _(family: Vector, name: str) -> str | None:
    return titled(name, "ridge")


@fit.register
def _(family: Vector, name: str, train: Rows, val: Rows, seed: int) -> Predict:
    means = []
    for column in train.y.T:
        there = ~np.isnan(column)
        means.append(mean_of(name if there.sum() > 1 else "constant", Rows(train.x[there], column[there]), seed))
    residual = val.y - np.stack([mean(val.x) for mean in means], axis=1)
    factor = _factor(residual)

    def predicted(x: np.ndarray) -> Prediction:
        loc = np.stack([mean(x) for mean in means], axis=1)
        parameters = {"loc": loc[None], "scale_tril": factor[None, None]}
        return of_law(Law("multivariate-normal", parameters), len(x), seed)

    return predicted


def _factor(residual: np.ndarray) -> np.ndarray:
    """Cholesky factor ``(d, d)`` of the residuals' second moment; missing components are left out pair by pair."""
    there = (~np.isnan(residual)).astype(float)
    filled = np.nan_to_num(residual)
    moment = filled.T @ filled / np.maximum(there.T @ there, 1.0)
    # Pairwise moments need not be positive definite: the smallest eigenvalues are raised.
    values, vectors = np.linalg.eigh(moment)
    least = 1e-6 * max(float(values.max()), 1e-12)
    return np.linalg.cholesky((vectors * np.maximum(values, least)) @ vectors.T)
