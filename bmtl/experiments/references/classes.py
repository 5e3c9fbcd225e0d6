"""References for classes, binary and ordinal targets: probabilities of the classes."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from bmtl.experiments.references.base import Predict, Rows, fit, of_probabilities, standardised, title, titled
from bmtl.targets import Classes, Prediction

_STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # of the logistic regression's penalty, inverse; the one is chosen on validation


@title.register
def _(family: Classes, name: str) -> str | None:
    return titled(name, "logistic")


@fit.register
def _(family: Classes, name: str, train: Rows, val: Rows, seed: int) -> Predict:
    count = len(family.classes)
    shares = (np.bincount(train.y, minlength=count) + 1.0) / (len(train.y) + count)
    seen = np.unique(train.y)
    if name == "constant" or len(seen) < 2:
        return lambda x: of_probabilities(np.tile(shares, (len(x), 1)), seed)
    if name == "linear":
        models = [standardised(LogisticRegression(C=c, max_iter=2000)) for c in _STRENGTHS]
    else:
        models = [HistGradientBoostingClassifier(random_state=seed)]
    # Classes that the training rows lack keep a little probability.
    weight = 1.0 / (len(train.y) + 1.0)

    def probability(model: object, x: np.ndarray) -> np.ndarray:
        found = np.zeros((len(x), count))
        found[:, seen] = model.predict_proba(x)  # type: ignore[attr-defined]
        return (1 - weight) * found + weight * shares

    fitted = [model.fit(train.x, train.y) for model in models]  # type: ignore[attr-defined]
    losses = [-np.log(probability(model, val.x)[np.arange(len(val.y)), val.y]).mean() for model in fitted]
    best = fitted[int(np.argmin(losses))]

    def predicted(x: np.ndarray) -> Prediction:
        return of_probabilities(probability(best, x), seed)

    return predicted
