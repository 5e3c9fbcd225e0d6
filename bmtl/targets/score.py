"""A score: a function of one target's labelled rows, and how it is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bmtl.targets.laws import EmpiricalPredictive, Predictive, distribution
from bmtl.targets.points import Points
from bmtl.targets.prediction import Prediction
from bmtl.targets.scaler import Scaler
from bmtl.targets.units import Units


class ScoredFamily(Units, Protocol):
    """The interface of a family for scoring; `bmtl.targets.family.Family` implements it."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; none for targets that are not classes."""
        ...

    def axes(self) -> dict[str, tuple[str, ...] | None]:
        """The axes of a value of y after its row."""
        ...

    def score(self, name: str) -> "Score | None":
        """The score of that name, None where the family has none."""
        ...

    def missing(self, values: np.ndarray) -> np.ndarray:
        """Which rows of checked labels have no label ``(N,)``."""
        ...

    def for_likelihood(self, labels: np.ndarray) -> np.ndarray:
        """Labels as a likelihood counts them: intervals ``(N, 2)`` where some are known up to a bound."""
        ...

    def losses(self, rows: "Scored") -> np.ndarray | None:
        """The loss of each labelled row ``(N,)``, not negative; None where there is none."""
        ...

    def pit(self, rows: "Scored") -> np.ndarray | None:
        """Predictive cdf at each label ``(N,)``, uniform where calibrated; None where there is none."""
        ...

    def points(self, rows: "Scored") -> dict[str, Points]:
        """Observed and predicted numbers by entry of a value; none where values are no numbers."""
        ...

    def confusion(self, rows: "Scored") -> np.ndarray | None:
        """Counts of rows by label and predicted class ``(C, C)``; None for targets that are not classes."""
        ...

    def realised(self, rows: "Scored") -> np.ndarray | None:
        """What a calibrated model's total uncertainty is the expectation of ``(N,)``; None where it is nothing."""
        ...


@dataclass(frozen=True, eq=False)
class Scored:
    """One target's labelled rows with a model's predictions, in reported units.

    Attributes:
        labels: Checked labels of the rows ``(N, ...)``, none of them missing.
        prediction: Of the same rows.
        family: The target's family.
        scaler: Between reported units and what the model saw; scores that must not depend on units undo it.
        whole: Scores by name that were taken over more rows than these, where these are a sample of them.
    """

    labels: np.ndarray
    prediction: Prediction
    family: ScoredFamily
    scaler: Scaler
    whole: Mapping[str, float] = field(default_factory=dict)

    def mean(self) -> np.ndarray:
        """The predictive mean ``(N, ...)``.

        Raises:
            ValueError: If the prediction has none.
        """
        return given(self.prediction.mean)

    def pit(self) -> np.ndarray | None:
        """Predictive cdf at each label ``(N,)``, uniform where calibrated; None for targets that have none."""
        return self.family.pit(self)

    def losses(self) -> np.ndarray | None:
        """The loss of each row ``(N,)``, not negative; None for targets that have none."""
        return self.family.losses(self)

    def points(self) -> dict[str, Points]:
        """Observed and predicted numbers by entry of a value ("" of a single number); none where there are none."""
        return self.family.points(self)

    def confusion(self) -> np.ndarray | None:
        """Counts of rows by label and predicted class ``(C, C)``; None for targets that have none."""
        return self.family.confusion(self)

    def realised(self) -> np.ndarray | None:
        """Squared errors, or negative log probabilities of classes ``(N,)``; None for targets that have none."""
        return self.family.realised(self)

    def predictive(self) -> Predictive:
        """The predictive distribution of each row: that of the law or, without one, of the draws.

        Raises:
            ValueError: If the prediction has neither.
        """
        if self.prediction.law is not None:
            return distribution(self.prediction.law.full(len(self.labels)))
        return EmpiricalPredictive(self.prediction.draws)


@dataclass(frozen=True)
class Score:
    """A score of a target.

    Attributes:
        name: Its entry in the dimension ``metric``; families share a name where they share the idea.
        symbol: Its name in tables, the same for all scores of one name.
        compute: Labelled rows, one at least -> the score.
        needs: Fields of `Prediction` that it takes; "predictive" means a law or, without one, draws.
        higher_is_better: The same for all scores of one name.
        in_units: It has the target's unit.
        relative: A relative change of it has a meaning: its zero is the best or the worst that it can be, in every unit. A
            mean of relative changes leaves out targets whose primary score is none of these, such as a log density.
        averaged: Tables of several targets show its mean over those of a family.
        note: How it is read, for captions.
        floor: Number of rows -> the score that a perfect predictive would show on so many, where that is not 0.
        defined: Labelled rows -> whether their labels give the score a value, whatever is predicted; always by default. An
            AUROC has none where all labels are of one class.
    """

    name: str
    symbol: str
    compute: Callable[[Scored], float]
    needs: tuple[str, ...] = ()
    higher_is_better: bool = False
    in_units: bool = False
    relative: bool = True
    averaged: bool = False
    note: str = ""
    floor: Callable[[int], float] | None = None
    defined: Callable[[Scored], bool] | None = None

    def of(self, rows: Scored) -> float:
        """The score of rows: that of all of them where they are a sample, and it was kept."""
        return rows.whole[self.name] if self.name in rows.whole else self.compute(rows)

    def is_defined(self, rows: Scored) -> bool:
        """Whether there is a row, and the labels give the score a value: where not, it is NaN for every model."""
        if self.name in rows.whole:
            return True
        return len(rows.labels) > 0 and (self.defined is None or self.defined(rows))

    def computable(self, rows: Scored) -> bool:
        """Whether there is a row, and the prediction has what the score needs."""
        if self.name in rows.whole:
            return True
        return len(rows.labels) > 0 and all(rows.prediction.has(field) for field in self.needs)


def given(values: np.ndarray | None) -> np.ndarray:
    """A field of a prediction.

    Raises:
        ValueError: If it is not there.
    """
    if values is None:
        raise ValueError("The prediction lacks a field that the score needs; ask Score.computable first.")
    return values
