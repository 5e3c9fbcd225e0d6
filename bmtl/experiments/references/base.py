"""Reference rows: scikit-learn's simplest models on the same split, each with a predictive distribution."""

from collections.abc import Callable
from functools import singledispatch
from typing import NamedTuple

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bmtl.targets import Family, Prediction
from bmtl.targets.laws import distribution
from bmtl.targets.prediction import Law

REFERENCES = ("constant", "group-means", "linear", "boosting")
"""Names of the references: the training labels' own distribution; the mean plus what the groups of a row (its drug and its
protein, say) are above it, for real targets of inputs that have groups; a regularised linear model (ridge, logistic or
Poisson regression, by the target's family); gradient-boosted trees (scikit-learn's HistGradientBoosting)."""


class Rows(NamedTuple):
    """Labelled rows of one target: features ``(N, D)`` and labels in reported units."""

    x: np.ndarray
    y: np.ndarray


Predict = Callable[[np.ndarray], Prediction]
"""From features ``(N, D)`` to a prediction in reported units."""


@singledispatch
def fit(family: Family, name: str, train: Rows, val: Rows, seed: int) -> Predict | None:
    """Fits a reference for one target of a family; None where there is none.

    Args:
        family: The target's family.
        name: One of `REFERENCES`.
        train: Labelled training rows.
        val: Labelled validation rows, on which the predictive's scale is fitted; the training rows where there are none.
        seed: Of what is drawn.
    """
    return None


@singledispatch
def title(family: Family, name: str) -> str | None:
    """What a comparison calls a reference for targets of a family; None where the family has no such reference."""
    return None


def titled(name: str, linear: str, *, group_means: bool = False) -> str | None:
    """The title of a reference of a family whose linear model is called `linear`."""
    if name == "group-means" and not group_means:
        return None
    return linear if name == "linear" else name.replace("-", " ")


def standardised(model: object) -> object:
    """A linear model behind a standardisation of its features."""
    return make_pipeline(StandardScaler(), model)


def of_law(law: Law, rows: int, seed: int, draws: int = 100) -> Prediction:
    """The prediction of a law with one component."""
    predictive = distribution(law)
    return Prediction(
        draws=np.asarray(predictive.sample(draws, seed)),
        mean=np.asarray(predictive.mean()),
        law=law,
        aleatoric=np.asarray(predictive.variance()),
        epistemic=np.zeros(rows),
    )


def of_probabilities(probability: np.ndarray, seed: int, draws: int = 100) -> Prediction:
    """The prediction of class probabilities ``(N, C)``."""
    rng = np.random.default_rng(seed)
    at = probability.cumsum(axis=1)[None] < rng.random((draws, len(probability), 1))
    safe = np.where(probability > 0, probability, 1.0)
    return Prediction(
        draws=at.sum(axis=-1).clip(max=probability.shape[1] - 1),
        probability=probability,
        aleatoric=-(probability * np.log(safe)).sum(axis=1),
        epistemic=np.zeros(len(probability)),
    )
