"""A model's prediction for the rows of one target."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from bmtl.targets.laws import EmpiricalPredictive, Law, distribution, law_to_units
from bmtl.targets.laws.predictive import Predictive
from bmtl.targets.scaler import Scaler, rounded_once
from bmtl.targets.units import Units

__all__ = ["Law", "Prediction"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """A model's prediction for N rows of one target, from S draws; numpy arrays.

    Attributes:
        draws: Draws of y ``(S, N, ...)``; S is 0 where none were kept.
        mean: Mean of the predictive ``(N, ...)``, not of its draws.
        probability: Class probabilities ``(N, C)``, averaged over draws: classes, binary and ordinal targets.
        law: Components of the predictive, an equal-weight mixture over draws.
        aleatoric: ``(N,)``: variance that more data would not remove; entropy in nats for classes.
        epistemic: ``(N,)``: variance that is due to the posterior; mutual information in nats for classes.
        log_likelihood: Log density or log probability of each label under each draw ``(S, N)``, NaN where it is missing.
        pit: Predictive cdf at the label ``(N,)``, averaged over draws: continuous targets.
    """

    draws: np.ndarray
    mean: np.ndarray | None = None
    probability: np.ndarray | None = None
    law: Law | None = None
    aleatoric: np.ndarray | None = None
    epistemic: np.ndarray | None = None
    log_likelihood: np.ndarray | None = None
    pit: np.ndarray | None = None

    @property
    def rows(self) -> int:
        """N, the number of rows."""
        return self.draws.shape[1]

    def has(self, field: str) -> bool:
        """Whether a field is there; "predictive" means a law or, without one, draws."""
        if field == "predictive":
            return self.law is not None or self.has("draws")
        return len(self.draws) > 0 if field == "draws" else getattr(self, field) is not None

    def take(self, rows: np.ndarray | slice) -> Self:
        """The prediction of some rows, by their numbers, booleans or a slice."""

        def of(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        return replace(
            self,
            draws=self.draws[:, rows],
            mean=of(self.mean),
            probability=of(self.probability),
            law=None if self.law is None else self.law.rows(rows, self.rows),
            aleatoric=of(self.aleatoric),
            epistemic=of(self.epistemic),
            log_likelihood=None if self.log_likelihood is None else self.log_likelihood[:, rows],
            pit=of(self.pit),
        )

    def flatten(self, shape: tuple[int, ...]) -> Self:
        """The prediction of the entries of rows, such as the pixels of images, as that of separate rows.

        Args:
            shape: Of all entries, the rows first, such as ``(N, H, W)``; a field that is not by entry is left out.
        """

        def of(values: np.ndarray | None, leading: int) -> np.ndarray | None:
            if values is None or values.shape[leading : leading + len(shape)] != shape:
                return None
            return values.reshape(*values.shape[:leading], -1, *values.shape[leading + len(shape) :])

        law = None
        if self.law is not None:
            last = 1 + len(shape)  # the first axis of what is by entry
            spread = {
                name: np.broadcast_to(values, (len(values), *shape, *values.shape[last:]))
                for name, values in self.law.parameters.items()
            }
            law = Law(self.law.name, {k: v.reshape(len(v), -1, *v.shape[last:]) for k, v in spread.items()})
        count = int(np.prod(shape))
        draws = of(self.draws, 1)
        return replace(
            self,
            draws=np.empty((0, count)) if draws is None else draws,
            mean=of(self.mean, 0),
            probability=of(self.probability, 0),
            law=law,
            aleatoric=of(self.aleatoric, 0),
            epistemic=of(self.epistemic, 0),
            log_likelihood=of(self.log_likelihood, 1),
            pit=of(self.pit, 0),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The prediction of all rows of several parts, in as many draws; a field that a part lacks is left out.

        Raises:
            ValueError: If there is no part.
        """
        if not parts:
            raise ValueError("There is no prediction to concatenate.")

        def of(name: str, axis: int) -> np.ndarray | None:
            values = [getattr(part, name) for part in parts]
            return None if any(each is None for each in values) else np.concatenate(values, axis=axis)

        laws = [part.law.full(part.rows) for part in parts if part.law is not None]
        law = Law.of_rows(laws) if len(laws) == len(parts) else None
        fewest = min(len(part.draws) for part in parts)
        return cls(
            np.concatenate([part.draws[:fewest] for part in parts], axis=1),
            law=law,
            log_likelihood=of("log_likelihood", 1),
            **{name: of(name, 0) for name in ("mean", "probability", "aleatoric", "epistemic", "pit")},
        )

    def in_units(self, family: Units, scaler: Scaler, labels: np.ndarray | None = None) -> Self:
        """The prediction in reported units. The one place where scaling is undone.

        Nothing changes for families that are never scaled (counts, classes, ...) and under the identity scaler.

        Args:
            family: Of the target.
            scaler: Between reported units and what the model saw.
            labels: The rows' labels ``(N, ...)``, scaled or not: their densities are divided by the scale where they are
                exact, and not where they are known up to an interval. By default all are exact and complete.

        Raises:
            ValueError: If the law is of a kind that the scaler does not map to itself: the target must not be scaled then.
        """
        if not family.scaled or scaler.is_identity:
            return self
        density = self.log_likelihood
        return replace(
            self,
            draws=family.to_units(self.draws, scaler),
            mean=None if self.mean is None else family.to_units(self.mean, scaler),
            law=None if self.law is None else law_to_units(self.law, scaler),
            aleatoric=None if self.aleatoric is None else family.variance_to_units(self.aleatoric, scaler),
            epistemic=None if self.epistemic is None else family.variance_to_units(self.epistemic, scaler),
            log_likelihood=None
            if density is None
            else rounded_once(np.subtract, density, family.log_volume(labels, scaler)),
        )


def predictive(prediction: Prediction) -> Predictive:
    """The distribution of a prediction of numbers: that of its law, or of its draws where it has none."""
    return EmpiricalPredictive(prediction.draws) if prediction.law is None else distribution(prediction.law)
