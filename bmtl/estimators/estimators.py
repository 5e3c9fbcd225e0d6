"""The estimators, by what they predict."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score

from bmtl.estimators.base import MultiTaskBase
from bmtl.estimators.columns import Column, class_column, guessed_column, index_of, labels_of, real_column
from bmtl.estimators.distributions import Distributions
from bmtl.targets.prediction import predictive


class MultiTaskRegressor(RegressorMixin, MultiTaskBase):
    """Real targets on one network, balanced against each other, with predictive distributions.

    Parameters and attributes are those of `bmtl.estimators.base.MultiTaskBase`.
    """

    def _column(self, name: str, values: np.ndarray) -> Column:
        return real_column(name, values)

    def predict(self, X: Any) -> np.ndarray:
        """Predictive means ``(M,)`` or ``(M, T)``, as labels were.

        Raises:
            NotFittedError: If it is not fitted.
            ValueError: If `X` is not as in `fit`.
        """
        return self.predict_dist(X).mean()

    def predict_dist(self, X: Any) -> Distributions:
        """Predictive distributions: means, quantiles, probabilities and draws.

        Raises:
            NotFittedError: If it is not fitted.
            ValueError: If `X` is not as in `fit`.
        """
        return Distributions({name: predictive(of) for name, of in self._predictions(X).items()}, flat=self._flat)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Mean of the targets' coefficients of determination, of rows that have a label."""
        means = self.predict_dist(X)
        columns = labels_of(y, self.target_names_)
        weights = None if sample_weight is None else np.asarray(sample_weight)
        return float(
            np.mean(
                [
                    _r2(name, labels, of.mean(), weights)
                    for labels, (name, of) in zip(columns, means.items(), strict=True)
                ]
            )
        )


class MultiTaskClassifier(ClassifierMixin, MultiTaskBase):
    """Targets of classes on one network, balanced against each other, with calibrated probabilities.

    Parameters and attributes are those of `bmtl.estimators.base.MultiTaskBase`.

    Attributes:
        classes_: The classes, or a list of them by target where labels have two dimensions.
    """

    def _column(self, name: str, values: np.ndarray) -> Column:
        return class_column(name, values)

    @property
    def classes_(self) -> np.ndarray | list[np.ndarray]:
        """The classes of the one target, or of each."""
        found = [kept for kept in self._classes.values() if kept is not None]
        return found[0] if self._flat else found

    def predict(self, X: Any) -> np.ndarray:
        """The most probable classes ``(M,)`` or ``(M, T)``, as labels were.

        Raises:
            NotFittedError: If it is not fitted.
            ValueError: If `X` is not as in `fit`.
        """
        found = [
            kept[of.probability.argmax(axis=1)]  # type: ignore[union-attr, index]
            for of, kept in zip(self._predictions(X).values(), self._classes.values(), strict=True)
        ]
        if self._flat:
            return found[0]
        alike = len({labels.dtype.kind for labels in found}) == 1
        return np.stack(found if alike else [labels.astype(object) for labels in found], axis=1)

    def predict_proba(self, X: Any) -> np.ndarray | list[np.ndarray]:
        """Probabilities ``(M, C)`` in the order of `classes_`, or a list of them by target.

        Raises:
            NotFittedError: If it is not fitted.
            ValueError: If `X` is not as in `fit`.
        """
        found: list[np.ndarray] = [of.probability for of in self._predictions(X).values()]  # type: ignore[misc]
        return found[0] if self._flat else found

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Mean of the targets' accuracies, of rows that have a label."""
        predicted = self.predict(X)
        columns = labels_of(y, self.target_names_)
        weights = None if sample_weight is None else np.asarray(sample_weight)
        guesses = [predicted] if self._flat else list(predicted.T)
        by_target = zip(self.target_names_, columns, guesses, strict=True)
        return float(np.mean([_accuracy(*of, weights) for of in by_target]))


class MultiTaskEstimator(MultiTaskBase):
    """Real targets and targets of classes together: labels of words or truth values are classes, others numbers.

    Parameters and attributes are those of `bmtl.estimators.base.MultiTaskBase`.
    """

    def _column(self, name: str, values: np.ndarray) -> Column:
        return guessed_column(name, values)

    def predict(self, X: Any) -> pd.DataFrame:
        """A column per target: predictive means, or the most probable classes. The index is that of a data frame `X`.

        Raises:
            NotFittedError: If it is not fitted.
            ValueError: If `X` is not as in `fit`.
        """
        found = {}
        for name, of in self._predictions(X).items():
            kept = self._classes[name]
            found[name] = predictive(of).mean() if kept is None else kept[of.probability.argmax(axis=1)]  # type: ignore[union-attr]
        return pd.DataFrame(found, index=index_of(X))

    def predict_proba(self, X: Any) -> dict[str, pd.DataFrame]:
        """Target -> the probability of each of its classes, a column per class; targets of numbers have none.

        Raises:
            NotFittedError: If it is not fitted.
            ValueError: If `X` is not as in `fit`.
        """
        return {
            name: pd.DataFrame(of.probability, index=index_of(X), columns=kept)
            for name, of in self._predictions(X).items()
            if (kept := self._classes[name]) is not None
        }

    def predict_dist(self, X: Any) -> Distributions:
        """Predictive distributions of the targets of numbers.

        Raises:
            NotFittedError: If it is not fitted.
            ValueError: If `X` is not as in `fit`.
        """
        found = self._predictions(X).items()
        return Distributions({name: predictive(of) for name, of in found if self._classes[name] is None})

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Mean over targets: the coefficient of determination of numbers, the accuracy of classes."""
        predicted = self.predict(X)
        columns = labels_of(y, self.target_names_)
        weights = None if sample_weight is None else np.asarray(sample_weight)
        scores = [
            (_r2 if self._classes[name] is None else _accuracy)(name, labels, predicted[name].to_numpy(), weights)
            for name, labels in zip(self.target_names_, columns, strict=True)
        ]
        return float(np.mean(scores))


def _r2(name: str, labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None) -> float:
    numbers = np.asarray(labels, dtype=float)
    seen = _labelled(name, ~np.isnan(numbers))
    return float(r2_score(numbers[seen], predicted[seen], sample_weight=None if weights is None else weights[seen]))


def _accuracy(name: str, labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None) -> float:
    seen = _labelled(name, ~pd.isna(labels))
    right = np.asarray(labels)[seen] == predicted[seen]
    return float(np.average(right, weights=None if weights is None else weights[seen]))


def _labelled(name: str, seen: np.ndarray) -> np.ndarray:
    """Which rows have a label of a target; a mean over none would be NaN."""
    if not seen.any():
        raise ValueError(
            f"No row has a label of the target {name!r}, so that it has no score. Give rows that have one."
        )
    return seen
