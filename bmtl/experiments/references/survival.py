"""References for times to an event: log-normal times, with a scale that is fitted on validation under censoring."""

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm

from bmtl.experiments.references.base import Predict, Rows, fit, of_law, title, titled
from bmtl.experiments.references.real import mean_of
from bmtl.targets import Prediction, TimeToEvent
from bmtl.targets.intervals import finite_ends
from bmtl.targets.prediction import Law


@title.register
def _(family: TimeToEvent, name: str) -> str | None:
    return titled(name, "log-normal AFT")


@fit.register
def _(family: TimeToEvent, name: str, train: Rows, val: Rows, seed: int) -> Predict:
    observed = train.y[:, 0] == train.y[:, 1]
    if not observed.any():
        name, observed = "constant", np.ones(len(train.y), dtype=bool)
    weights = _weights(train.y)[observed]
    predict = mean_of(name, Rows(train.x[observed], np.log(finite_ends(train.y[observed]))), seed, weights)
    # Weighting by the chance of not being censored leaves a bias where follow-up ends; a shift and a scale mend it.
    shift, scale = _shift_and_scale(predict(val.x), val.y)

    def predicted(x: np.ndarray) -> Prediction:
        parameters = {"loc": predict(x)[None] + shift, "scale": np.full((1, len(x)), scale)}
        return of_law(Law("log-normal", parameters), len(x), seed)

    return predicted


def _weights(y: np.ndarray) -> np.ndarray:
    """One over the chance of not being censored by then (Kaplan-Meier of the censoring), at most 20, for each row."""
    times = finite_ends(y)
    censored = np.isposinf(y[:, 1])
    order = np.argsort(times, kind="stable")
    at_risk = np.arange(len(y), 0, -1)
    stays = np.cumprod(1.0 - censored[order] / at_risk)
    before = np.concatenate([[1.0], stays[:-1]])
    weights = np.empty(len(y))
    weights[order] = 1.0 / np.maximum(before, 0.05)
    return weights


def _shift_and_scale(loc: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Maximum likelihood of log-normal intervals around `loc`."""
    with np.errstate(divide="ignore"):
        lower, upper = np.log(y[:, 0]), np.log(y[:, 1])
    exact = lower == upper

    def loss(parameters: np.ndarray) -> float:
        shift, scale = parameters[0], np.exp(parameters[1])
        a, b = (lower - loc - shift) / scale, (upper - loc - shift) / scale
        density = norm.logpdf(a[exact]) - parameters[1]
        # From whichever tail is nearer, so that no digits cancel.
        swap = a[~exact] > 0
        low, high = np.where(swap, -b[~exact], a[~exact]), np.where(swap, -a[~exact], b[~exact])
        inside = np.log(np.maximum(norm.cdf(high) - norm.cdf(low), 1e-300))
        return -float(density.sum() + inside.sum())

    start = np.log(max(float(np.std(finite_ends(np.stack([lower, upper], axis=1)) - loc)), 1e-3))
    found = minimize(loss, np.array([0.0, start]), method="Nelder-Mead").x
    return float(found[0]), float(np.exp(np.clip(found[1], -10.0, 10.0)))
