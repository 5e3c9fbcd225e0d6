"""Real numbers, observed exactly or known up to an interval."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.family import Family, check_numeric, check_shape, first_row, read_only, register
from bmtl.targets.intervals import ENDS, check_intervals, exact_only, finite_ends, interval_summary
from bmtl.targets.metrics.survival import interval_pit
from bmtl.targets.points import Points
from bmtl.targets.scaler import Scaler
from bmtl.targets.score import Score, Scored
from bmtl.targets.scores import real as scores
from bmtl.targets.streaming import NumberSums, Sums


@register
@dataclass(frozen=True)
class Real(Family):
    """Real labels ``(N,)`` as float64, NaN where missing; standardised on the training rows unless asked otherwise.

    Args:
        censored: Labels are intervals ``(N, 2)``, lower and upper end: equal ends are an exact label, an infinite end is
            open (``(10, inf)`` is "above 10"), and NaN in both is missing.
        positive: Exact labels are above 0, such as depths: errors relative to them have a meaning, and are a score.
        bounds: Lower and upper end of what can be measured, None for an open side: a label at or beyond a bound means that
            the quantity is there or beyond. Such targets are never scaled, so that labels at a bound stay exactly there;
            likelihoods take their start from the labels instead. Their scores count a label at a bound with the
            probability beyond it, whatever the model, which makes log-likelihoods of all models comparable.

    Raises:
        ValueError: If bounds are not in order, both open, or given for intervals.
    """

    name: ClassVar[str] = "real"
    loss_name: ClassVar[str] = "MAE"
    censored: bool = False
    positive: bool = False
    bounds: tuple[float | None, float | None] | None = None

    def __post_init__(self) -> None:
        if self.bounds is None:
            return
        lower, upper = self.ends
        if self.censored or not lower < upper or (lower, upper) == (-np.inf, np.inf):
            raise ValueError(
                f"bounds are a lower and an upper bound in order, one of them at least, of labels that are no intervals; "
                f"got bounds={self.bounds}, censored={self.censored}."
            )

    @property
    def ends(self) -> tuple[float, float]:
        """The bounds, infinite on an open side."""
        lower, upper = self.bounds or (None, None)
        return (-np.inf if lower is None else lower, np.inf if upper is None else upper)

    @property
    def scaled(self) -> bool:
        return self.bounds is None

    @property
    def intervals_from(self) -> float | None:
        return -np.inf if self.censored else None

    def with_intervals(self) -> Family:
        """Censored; itself if it has bounds, whose labels beyond them are no intervals."""
        return self if self.bounds is not None else replace(self, censored=True)

    def summary(self, labels: np.ndarray) -> str:
        return interval_summary(labels) if self.censored else super().summary(labels)

    def label_axes(self) -> dict[str, tuple[str, ...] | None]:
        return ENDS if self.censored else {}

    def check(self, target: str, values: ArrayLike, rows: int) -> np.ndarray:
        array = np.asarray(values)
        check_numeric(target, array)
        if self.censored:
            return check_intervals(target, array, rows)
        check_shape(target, array, (rows,), "one label per row")
        array = array.astype(np.float64)
        if np.isinf(array).any():
            raise ValueError(
                f"Labels are finite, and {first_row(target, array, np.isinf(array))}. Mark a missing label with NaN; give "
                "censored labels as intervals (N, 2)."
            )
        if self.positive and (array <= 0).any():
            raise ValueError(
                f"Labels are positive, and {first_row(target, array, array <= 0)}. Mark what is "
                "missing, such as a depth that was not measured, with NaN."
            )
        return read_only(array)

    def missing(self, values: np.ndarray) -> np.ndarray:
        return np.isnan(values) if values.ndim == 1 else np.isnan(values).any(axis=-1)

    @property
    def scores(self) -> tuple[Score, ...]:
        if self.censored:
            return (scores.CENSORED_MAE, scores.CENSORED_RMSE, scores.NLL, scores.CENSORED_ECE)
        if self.bounds is not None:
            of_bounds = scores.nll_within(*self.ends), scores.BOUNDED_ECE, scores.crps_within(*self.ends)
            return (scores.RMSE, scores.MAE, scores.CONCORDANCE, *of_bounds)
        relative = (scores.RELATIVE_ERROR,) if self.positive else ()
        return (scores.MAE, *relative, scores.RMSE, scores.R2, scores.NLL, scores.ECE, scores.CRPS, scores.ENCE)

    @property
    def further_scores(self) -> tuple[Score, ...]:
        if self.censored:
            return (scores.CENSORED_CONCORDANCE,)
        if self.bounds is not None:
            return (scores.R2,)
        return (scores.CONCORDANCE,) if self.positive else (scores.CONCORDANCE, scores.RELATIVE_ERROR)

    def losses(self, rows: Scored) -> np.ndarray | None:
        """Distance of the predictive mean from the label, exact or an interval."""
        if not rows.prediction.has("mean"):
            return None
        labels = scores.nearest_label(rows.labels, rows.mean()) if self.censored else rows.labels
        return np.abs(labels - rows.mean())

    def pit(self, rows: Scored) -> np.ndarray | None:
        """The prediction's own; of intervals, uniform between their ends, and at a bound uniform beyond it."""
        if self.bounds is not None:
            return scores.pit_within(rows, *self.ends)
        if not self.censored:
            return rows.prediction.pit
        return interval_pit(rows.labels, rows.predictive()) if rows.prediction.has("predictive") else None

    def points(self, rows: Scored) -> dict[str, Points]:
        if not rows.prediction.has("mean"):
            return {}
        if self.censored:
            return {"": Points.of_intervals(rows.labels, rows.mean())}
        lower, upper = self.ends
        return {"": Points(rows.labels, rows.mean(), (rows.labels > lower) & (rows.labels < upper))}

    def realised(self, rows: Scored) -> np.ndarray | None:
        """Squared errors; None of intervals, whose errors are known in part."""
        return np.square(rows.labels - rows.mean()) if rows.prediction.has("mean") and not self.censored else None

    def sums(self) -> Sums | None:
        return None if self.censored else NumberSums(relative=self.positive)

    def for_likelihood(self, labels: np.ndarray) -> np.ndarray:
        if self.bounds is None:
            return labels
        lower, upper = self.ends
        return np.stack([np.where(labels <= lower, -np.inf, labels), np.where(labels >= upper, np.inf, labels)], -1)

    def log_volume(self, labels: np.ndarray | None, scaler: Scaler) -> np.ndarray:
        volume = super().log_volume(labels, scaler)
        return exact_only(volume, labels) if self.censored else volume

    def fit_scaler(self, values: np.ndarray) -> Scaler:
        return Scaler.fit(finite_ends(values) if self.censored else values)
