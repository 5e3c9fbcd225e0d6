"""References for real targets: a mean with a normal scale that is fitted on validation."""

from collections.abc import Callable

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV

from bmtl.experiments.references.base import Predict, Rows, fit, of_law, standardised, title, titled
from bmtl.targets import Prediction, Real
from bmtl.targets.intervals import finite_ends
from bmtl.targets.prediction import Law

Mean = Callable[[np.ndarray], np.ndarray]
_LEAST = 1e-6  # of the labels' standard deviation: a perfect fit still has a density


@title.register
def _(family: Real, name: str) -> str | None:
    return titled(name, "ridge", group_means=True)


@fit.register
def _(family: Real, name: str, train: Rows, val: Rows, seed: int) -> Predict:
    labels, checked = (finite_ends(rows.y) if family.censored else rows.y for rows in (train, val))
    predict = mean_of(name, Rows(train.x, labels), seed)
    residual = checked - predict(val.x)
    least = _LEAST * (labels.std() or 1.0)
    scale = max(float(np.sqrt(np.mean(np.square(residual)))), least)

    def predicted(x: np.ndarray) -> Prediction:
        shape = (1, len(x))
        parameters = {"loc": predict(x)[None], "scale": np.full(shape, scale), "df": np.full(shape, np.inf)}
        return of_law(Law("student-t", parameters), len(x), seed)

    return predicted


def mean_of(name: str, train: Rows, seed: int, weights: np.ndarray | None = None) -> Mean:
    """The mean that a reference predicts ``(N, D) -> (N,)``.

    Args:
        name: One of `REFERENCES`.
        train: Features ``(N, D)``, for "group-means" numbers of groups, and numbers ``(N,)``.
        seed: Of the trees.
        weights: Of the rows, ``(N,)``.
    """
    if name == "constant":
        centre = float(np.average(train.y, weights=weights))
        return lambda x: np.full(len(x), centre)
    if name == "group-means":
        return _group_means(train)
    if name == "linear":
        model = standardised(RidgeCV(alphas=np.logspace(-4, 4, 17)))
        model.fit(train.x, train.y, **({} if weights is None else {"ridgecv__sample_weight": weights}))  # type: ignore[attr-defined]
        return model.predict  # type: ignore[attr-defined]
    return HistGradientBoostingRegressor(random_state=seed).fit(train.x, train.y, sample_weight=weights).predict


def _group_means(train: Rows) -> Mean:
    """The mean, and how far the means of a row's groups are above it; nothing for a group without training rows."""
    centre = float(train.y.mean())
    above = []
    for column in train.x.T:
        groups, of = np.unique(column, return_inverse=True)
        above.append((groups, np.bincount(of, train.y - centre) / np.bincount(of)))

    def predicted(x: np.ndarray) -> np.ndarray:
        total = np.full(len(x), centre)
        for column, (groups, effects) in zip(x.T, above, strict=True):
            at = np.searchsorted(groups, column).clip(max=len(groups) - 1)
            total += np.where(groups[at] == column, effects[at], 0.0)
        return total

    return predicted
