"""Scores that families define, as functions of a results tree: ``mae(tree)`` is ``mae (task)`` of the test rows."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import xarray as xr

from bmtl.evaluation.metrics.by_target import per_target, score
from bmtl.evaluation.parts import reported_targets
from bmtl.targets.metrics.pit import noise_floor
from bmtl.targets.score import Scored


class TreeScore(Protocol):
    """A score of a results tree."""

    def __call__(self, tree: xr.DataTree, *, part: str | None = None) -> xr.Dataset:
        """``<name> (task)`` of a part's labelled rows, "test" by default; NaN for targets that have no such score."""
        ...


def _named(name: str, what: str) -> TreeScore:
    def of(tree: xr.DataTree, *, part: str | None = None) -> xr.Dataset:
        return score(tree, name, part).to_dataset(name=name)

    of.__name__ = of.__qualname__ = name
    of.__doc__ = f"""{what} per target, ``{name} (task)``; NaN for targets whose family has no such score.

    Args:
        tree: A run's results tree, or a part of it.
        part: Which rows; "test" by default.

    Raises:
        ValueError: If the tree holds what the score needs of none of its targets.
    """
    return of


mae = _named("mae", "Mean absolute error of the predictive mean in the target's unit; of a grade, of the median rank,")
rmse = _named("rmse", "Root mean squared error of the predictive mean in the target's unit")
r2 = _named("r2", "Coefficient of determination")
crps = _named("crps", "Continuous ranked probability score in the target's unit, exact where the tree holds a law,")
ence = _named(
    "ence", "Expected normalised calibration error, of predicted against observed errors in bins of uncertainty,"
)
concordance = _named("concordance", "Concordance index, over the pairs whose order is known,")
deviance = _named("deviance", "Mean Poisson deviance of the predictive mean")
accuracy = _named("accuracy", "Share of rows whose class is predicted right")
balanced_accuracy = _named("balanced_accuracy", "Mean over classes of the share predicted right")
auroc = _named("auroc", "Area under the ROC curve")
average_precision = _named("average_precision", "Area under the precision-recall curve")
error_auroc = _named("error_auroc", "How well entropy ranks wrong above right predictions")
kappa = _named("kappa", "Cohen's kappa of ranks with quadratic weights")
rps = _named("rps", "Ranked probability score")
ibs = _named("ibs", "Brier score of predicted survival, integrated over time and weighted against censoring,")
energy = _named("energy", "Energy score of vectors, in standard deviations of each component,")


def nll(tree: xr.DataTree, *, standardised: bool = False, part: str | None = None) -> xr.Dataset:
    """Negative log predictive density or probability per target, ``nll (task)``, in nats per row.

    Args:
        tree: A run's results tree, or a part of it.
        standardised: Give the density of what the model saw, so that targets of different units can be averaged; by
            default it is per reported unit. They differ for scaled targets only.
        part: Which rows; "test" by default.

    Raises:
        ValueError: If the tree holds what the score needs of none of its targets.
    """
    found = score(tree, "nll", part)
    if not standardised:
        volumes = per_target(tree, _mean_volume, part)
        found = found + volumes.values
    return found.to_dataset(name="nll")


def ece(tree: xr.DataTree, *, part: str | None = None) -> xr.Dataset:
    """Expected calibration error per target; and, for those scored by their cdf, that of a perfect predictive.

    Returns:
        ``ece (task)``; ``ece_floor (task)`` and ``ece_floor_upper95 (task)``, NaN for classes.

    Raises:
        ValueError: If the tree holds what the score needs of none of its targets.
    """
    found = score(tree, "ece", part)

    def floor(which: str) -> Callable[[Scored], float | None]:
        return lambda rows: (
            None if rows.prediction.has("probability") else getattr(noise_floor(len(rows.labels)), which)
        )

    floors = {"ece_floor": floor("mean"), "ece_floor_upper95": floor("upper95")}
    return xr.Dataset(
        {"ece": found, **{name: per_target(tree, core, part).where(found.notnull()) for name, core in floors.items()}}
    )


def primary(tree: xr.DataTree, *, part: str | None = None) -> xr.Dataset:
    """The primary score of each target: ``primary (task)``, with its name as coordinate ``metric (task)``."""
    names = {name: known.primary for name, known in reported_targets(tree).items()}
    scores = {name: score(tree, name, part) for name in dict.fromkeys(names.values())}
    tasks = next(iter(scores.values()))["task"].values.tolist()
    values = [float(scores[names[task]].sel(task=task)) for task in tasks]
    return xr.Dataset(
        {"primary": next(iter(scores.values())).copy(data=np.asarray(values))},
        coords={"metric": ("task", [names[task] for task in tasks])},
    )


def _mean_volume(rows: Scored) -> float:
    return float(np.broadcast_to(rows.family.log_volume(rows.labels, rows.scaler), len(rows.labels)).mean())
