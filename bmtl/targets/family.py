"""Families of targets: which labels are valid, which are missing, and how they are scaled and scored."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.baseline import LinearBaseline
from bmtl.targets.points import Points
from bmtl.targets.scaler import Scaler
from bmtl.targets.score import Score, Scored
from bmtl.targets.streaming import Reducer, Sums


@dataclass(frozen=True)
class Family(ABC):
    """A family of targets. One subclass per family, one file per subclass.

    A family is a value: two with equal fields are equal, and `spec` and `family_from_spec` carry it through files.

    Attributes:
        name: Of the family, such as "real"; its key in `FAMILIES`.
        loss_name: What the mean of `losses` is called, for axes.
        of_events: Whether labels are times, whose events may have been observed or not.
        ordered: Whether classes have an order.
        in_one_column: Whether one column of a table may hold the labels.
    """

    name: ClassVar[str]
    loss_name: ClassVar[str] = "loss"
    of_events: ClassVar[bool] = False
    ordered: ClassVar[bool] = False
    in_one_column: ClassVar[bool] = True

    @classmethod
    def of_array(cls, values: np.ndarray) -> "Family":
        """The family of labels that come as an array ``(N, ...)`` of which nothing else is known."""
        return cls()

    def with_intervals(self) -> "Family":
        """The family of labels some of which are intervals ``(N, 2)``; itself where it takes them already, or none."""
        return self

    def summary(self, labels: np.ndarray) -> str:
        """Checked labels, none of them missing, in a few words; empty where there are none, or few words say little."""
        return number_range(labels) if labels.ndim == 1 and len(labels) else ""

    @abstractmethod
    def check(self, target: str, values: ArrayLike, rows: int) -> np.ndarray:
        """The labels as a read-only copy in the family's own dtype and shape.

        Args:
            target: Name of the target, for messages.
            values: Labels, rows first.
            rows: Number of rows N that is expected.

        Raises:
            ValueError: If shape, dtype or support are wrong; says which row, what was given and what is expected.
        """

    @abstractmethod
    def missing(self, values: np.ndarray) -> np.ndarray:
        """Which rows of checked labels have no label, bool ``(N,)``. The encoding of missing labels is defined here only."""

    def for_likelihood(self, labels: np.ndarray) -> np.ndarray:
        """Checked labels as a likelihood counts them: as they are, or intervals ``(N, 2)`` where some are at a bound.

        Ends that are equal count with the density, others with the probability between them.
        """
        return labels

    def fit_scaler(self, values: np.ndarray) -> Scaler:
        """The scaler for checked labels of training rows; families other than the real ones are not scaled."""
        return Scaler.identity()

    @property
    def scaled(self) -> bool:
        """Whether labels may be scaled at all."""
        return False

    @property
    def intervals_from(self) -> float | None:
        """The lowest value of a label that is known up to an interval; None where labels are exact."""
        return None

    @property
    def scores(self) -> tuple[Score, ...]:
        """The scores of such a target in comparisons, the primary one first."""
        return ()

    @property
    def further_scores(self) -> tuple[Score, ...]:
        """Scores that are computed where they are requested, and not part of comparisons."""
        return ()

    def score(self, name: str) -> Score | None:
        """The score of that name, None where the family has none."""
        return next((score for score in (*self.scores, *self.further_scores) if score.name == name), None)

    def losses(self, rows: Scored) -> np.ndarray | None:
        """The loss of each labelled row ``(N,)``, not negative, for risk against coverage; None where there is none."""
        return None

    def pit(self, rows: Scored) -> np.ndarray | None:
        """Predictive cdf at each label ``(N,)``, uniform where calibrated; None where there is none."""
        return None

    def points(self, rows: Scored) -> dict[str, Points]:
        """Observed and predicted numbers by entry of a value ("" where a value is one number); none where they are none."""
        return {}

    def confusion(self, rows: Scored) -> np.ndarray | None:
        """Counts of rows by label and predicted class ``(C, C)``; None for targets that are not classes."""
        return None

    def realised(self, rows: Scored) -> np.ndarray | None:
        """What a calibrated model's total uncertainty is the expectation of, of each row ``(N,)``; None where it is nothing.

        Squared errors of numbers, whose expectation is the variance; negative log probabilities of classes, whose
        expectation is the entropy.
        """
        return None

    def sums(self) -> Sums | None:
        """Sums from which scores of very many rows follow; None for families that have none."""
        return None

    def reducer(self, scaler: Scaler, *, pixels: int = 10_000, seed: int = 0) -> Reducer | None:
        """What accumulates predictions that are too large to keep; None where they are kept as they are.

        Args:
            scaler: The target's scaler.
            pixels: How many pixels of all images are kept.
            seed: Of their choice.
        """
        return None

    def primary(self, training_labels: np.ndarray) -> str:
        """Name of a target's primary score, from its checked training labels."""
        return self.scores[0].name

    @property
    def of_rows(self) -> "Family":
        """What a results tree holds of it: itself, or of images the family of a pixel, of which the tree has a sample."""
        return self

    def row_variance(self, variance: np.ndarray, scaler: Scaler) -> np.ndarray:
        """Variances of y as one number per row ``(N,)``, by which rows are put in order."""
        return variance

    def to_units(self, values: np.ndarray, scaler: Scaler) -> np.ndarray:
        """Scaled values of y, draws or means ``(..., N, ...)``, in reported units."""
        return scaler.restored(values) if self.scaled else values

    def variance_to_units(self, variance: np.ndarray, scaler: Scaler) -> np.ndarray:
        """Variances ``(N,)`` of scaled values in squared reported units."""
        return scaler.widened(variance, 2) if self.scaled else variance

    def log_volume(self, labels: np.ndarray | None, scaler: Scaler) -> np.ndarray:
        """The amount by which the log density of each label falls when it is given per reported unit; see `Units`."""
        return np.log(scaler.std) if self.scaled else np.zeros(())

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; none for targets that are not classes."""
        return ()

    def axes(self) -> dict[str, tuple[str, ...] | None]:
        """The axes of a value of y after its row: name -> names of the entries, None where these are numbered."""
        return {}

    def label_axes(self) -> dict[str, tuple[str, ...] | None]:
        """The axes of a label after its row, which are those of a value unless labels are intervals."""
        return self.axes()

    def spec(self) -> dict[str, Any]:
        """The family as plain values that JSON supports; `family_from_spec` is the inverse."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"family": self.name, **{k: v.spec() if isinstance(v, Family) else v for k, v in own.items()}}


def number_range(values: np.ndarray) -> str:
    """The least and the greatest number, with so many digits that they differ if the numbers do."""
    low, high = float(values.min()), float(values.max())
    digits = next(
        (digits for digits in (6, 9, 12) if f"{low:.{digits}g}" != f"{high:.{digits}g}"), 6 if low == high else 17
    )
    return f"{low:.{digits}g} to {high:.{digits}g}"


def read_only(values: np.ndarray) -> np.ndarray:
    """The array, which can no longer be written to."""
    values.setflags(write=False)
    return values


def check_shape(target: str, array: np.ndarray, shape: Sequence[int | None], what: str) -> None:
    """Raises a ``ValueError`` unless `array` has the shape; None is any size from 1."""
    fits = array.ndim == len(shape) and all(
        size == wanted if wanted is not None else size > 0 for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"Target {target!r} must have the shape ({wanted}), {what}; got {array.shape}.")


def check_numeric(target: str, array: np.ndarray) -> None:
    """Raises a ``ValueError`` unless `array` holds numbers or booleans."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"Target {target!r} must hold numbers; got dtype {array.dtype}. Number the classes from 0.")


def first_row(target: str, array: np.ndarray, wrong: np.ndarray) -> str:
    """Where a label is wrong, for messages: "row 3 holds 7.5"."""
    row = int(np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))[0])
    return f"row {row} of target {target!r} holds {array[row]}"


@dataclass(frozen=True, eq=False)
class Target:
    """Labels in reported units with their family, unit and scaling.

    Attributes:
        values: Checked labels, rows first, read-only.
        family: What they are.
        unit: Reported unit, such as ``"meV"``; ``"1"`` for none.
        scaler: Between reported units and what a model sees. The identity unless the family is scaled.
        baseline: A known baseline of the labels; subtracted before they are scaled.
        offset: The baseline of each label ``(N,)``, in reported units.
    """

    values: np.ndarray
    family: Family
    unit: str = "1"
    scaler: Scaler = field(default_factory=Scaler.identity)
    baseline: LinearBaseline | None = None
    offset: np.ndarray | None = field(default=None, repr=False)

    @property
    def missing(self) -> np.ndarray:
        """Which rows have no label, bool ``(N,)``."""
        return self.family.missing(self.values)

    @property
    def labelled(self) -> np.ndarray:
        """Which rows have a label, bool ``(N,)``."""
        return ~self.missing

    def scaled(self, rows: np.ndarray) -> np.ndarray:
        """Labels of these rows as a model sees them."""
        values = self.values[rows]
        return self.scaler_of(rows).transform(values) if self.family.scaled else values

    def scaler_of(self, rows: np.ndarray) -> Scaler:
        """Between reported units and what a model sees of these rows, their baseline included."""
        return self.scaler if self.offset is None else self.scaler.shifted(self.offset[rows])


FAMILIES: dict[str, type[Family]] = {}
"""Family by name."""


def register(cls: type[Family]) -> type[Family]:
    """Adds a family to `FAMILIES`; a class decorator."""
    FAMILIES[cls.name] = cls
    return cls


def family_from_spec(spec: Mapping[str, Any]) -> Family:
    """The inverse of `Family.spec`.

    Raises:
        ValueError: If there is no such family.
    """
    given = dict(spec)
    name = given.pop("family")
    if name not in FAMILIES:
        raise ValueError(f"There is no family {name!r} of targets; the families are: {', '.join(FAMILIES)}.")
    values = {k: family_from_spec(v) if isinstance(v, Mapping) and "family" in v else v for k, v in given.items()}
    return FAMILIES[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
