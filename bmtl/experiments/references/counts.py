"""References for counts: a Poisson mean, with a negative binomial's dispersion that is fitted on validation."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import nbinom
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import PoissonRegressor

from bmtl.experiments.references.base import Predict, Rows, fit, of_law, standardised, title, titled
from bmtl.experiments.references.real import Mean
from bmtl.targets import Count, Prediction
from bmtl.targets.prediction import Law

_PENALTIES = (1e-4, 1e-2, 1.0)
_LEAST = 1e-8  # a mean of 0 has no density for a count above it


@title.register
def _(family: Count, name: str) -> str | None:
    return titled(name, "poisson")


@fit.register
def _(family: Count, name: str, train: Rows, val: Rows, seed: int) -> Predict:
    rate = _rate(name, train, val, seed)
    mean = rate(val.x)

    def loss(log_concentration: float) -> float:
        return -float(nbinom.logpmf(val.y, *_numbers(mean, np.exp(log_concentration))).sum())

    found = minimize_scalar(loss, bounds=(-7.0, 14.0), method="bounded")
    concentration = float(np.exp(found.x))

    def predicted(x: np.ndarray) -> Prediction:
        parameters = {"mean": rate(x)[None], "concentration": np.full((1, len(x)), concentration)}
        return of_law(Law("negative-binomial", parameters), len(x), seed)

    return predicted


def _rate(name: str, train: Rows, val: Rows, seed: int) -> Mean:
    if name == "constant" or not train.y.any():
        return lambda x: np.full(len(x), max(float(train.y.mean()), _LEAST))
    if name == "linear":
        models = [standardised(PoissonRegressor(alpha=alpha, max_iter=1000)) for alpha in _PENALTIES]
    else:
        models = [HistGradientBoostingRegressor(loss="poisson", random_state=seed)]
    fitted = [model.fit(train.x, train.y) for model in models]  # type: ignore[attr-defined]
    # A log link runs away on features beyond those of training: at most ten times the largest count.
    most = 10.0 * float(train.y.max())
    rates = [lambda x, model=model: model.predict(x).clip(_LEAST, most) for model in fitted]
    deviances = [(r - val.y * np.log(r)).mean() for r in (rate(val.x) for rate in rates)]
    return rates[int(np.argmin(deviances))]


def _numbers(mean: np.ndarray, concentration: float) -> tuple[float, np.ndarray]:
    """Scipy's parameters of a negative binomial with this mean and variance ``mean + mean^2 / concentration``."""
    return concentration, concentration / (concentration + mean)
