"""From draws in a model's scaled units to a results tree in reported units."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from bmtl.datasets import MultiTaskData
from bmtl.datasets.scaler import Scaler
from bmtl.evaluation import results
from bmtl.inference.predictives import Draws
from bmtl.inference.record import StepRecord, history_arrays


def results_tree(
    data: MultiTaskData,
    drawn: Draws,
    history: Sequence[StepRecord] | Mapping[str, np.ndarray] = (),
    *,
    tasks: Sequence[str] | None = None,
    part: str = "test",
    validation: Draws | None = None,
    train: Draws | None = None,
    outside: Draws | None = None,
    method: str | None = None,
    balancer: str | None = None,
    seed: int | None = None,
    configuration: Mapping[str, object] | None = None,
    attributes: Mapping[str, object] | None = None,
) -> xr.DataTree:
    """The results tree of a run: draws in the model's scaled units become reported units.

    Args:
        data: What was learnt from, or ``data.subset(...)``. Those targets that were drawn too are in the tree.
        drawn: From `bmtl.draw` for the rows of `part`.
        history: ``svi.history``, or its arrays.
        tasks: What the arrays of a history call its tasks; the targets by default.
        part: The part of the data that was drawn for.
        validation: The same for the rows of "val": what recalibration is fitted on.
        train: The same for the rows of "train", with labels: what tells whether the guide is to be trusted.
        outside: For inputs without labels, such as out-of-distribution ones.
        method: Name for tables and legends.
        balancer: String form of the balancer.
        seed: The run's seed.
        configuration: Everything else that was set.
        attributes: Further attributes of the tree.

    Raises:
        ValueError: If what was drawn does not fit the data's targets or rows.
    """
    targets = tuple(task for task in data.tasks if task in drawn.targets)
    if not targets:
        raise ValueError(f"What was drawn has the targets {list(drawn.targets)}, and the data have {list(data.tasks)}.")
    if not isinstance(history, Mapping) and history:
        tasks = history[-1].names  # a model may have its tasks in another order, or several for one target
    arrays = history if isinstance(history, Mapping) else history_arrays(history) if history else None
    unlabelled = _in_units(data, targets, outside) if outside is not None else {}
    tree = results.to_datatree(
        **_scored(data, targets, drawn, part),
        posterior=drawn.posterior or None,
        predictions=unlabelled.get("predictive"),
        predictions_aleatoric=unlabelled.get("aleatoric"),
        predictions_epistemic=unlabelled.get("epistemic"),
        training=arrays,
        tasks=targets if tasks is None else tasks,
        method=method,
        balancer=balancer,
        seed=seed,
        configuration=configuration,
        data_name=data.name,
        data_fingerprint=data.fingerprint,
        attributes=attributes,
    )
    for name, of, rows in (("validation", validation, "val"), ("train", train, "train")):
        if of is not None:
            below = results.to_datatree(**_scored(data, targets, of, rows))
            below.attrs = {}
            tree[name] = below
    return tree


def _scored(data: MultiTaskData, targets: Sequence[str], drawn: Draws, part: str) -> dict[str, Any]:
    """Arguments of `to_datatree` for the rows of a part."""
    rows = data.rows[part]
    scalers = {task: data.y_scalers[task] for task in targets if data.kinds[task] == "regression"}
    # Without labels there are no densities; sample_stats go with densities of the same draws.
    scored = set(targets) <= set(drawn.log_likelihood)
    together = drawn.log_p is not None and drawn.log_q is not None
    return {
        "observed": {task: data.y[task][rows] for task in targets},
        **_in_units(data, targets, drawn),
        # A density per unit is that of the scaled target over the unit's scale.
        "log_likelihood": {t: drawn.log_likelihood[t] - _log_scale(scalers, t) for t in targets} if scored else None,
        "pit": {task: values for task, values in drawn.pit.items() if task in scalers} or None,
        "sample_stats": {"lp": drawn.log_p, "log_q": drawn.log_q} if together else None,
        "target_location": {task: float(scaler.mean) for task, scaler in scalers.items()},
        "target_scale": {task: float(scaler.std) for task, scaler in scalers.items()},
        "units": {task: data.units[task] for task in scalers},
        "classes": {task: names for task, names in data.classes.items() if task in targets},
    }


def _in_units(data: MultiTaskData, targets: Sequence[str], drawn: Draws) -> dict[str, dict[str, Any]]:
    """What was drawn of the targets; regressions in reported units."""
    scalers = {task: data.y_scalers[task] for task in targets if data.kinds[task] == "regression"}

    def values(field: str) -> dict[str, np.ndarray]:
        given = getattr(drawn, field)
        return {t: scalers[t].inverse(given[t]) if t in scalers else given[t] for t in targets if t in given}

    def variances(field: str) -> dict[str, np.ndarray]:
        given = getattr(drawn, field)
        return {t: given[t] * (scalers[t].std ** 2 if t in scalers else 1.0) for t in targets if t in given}

    return {
        "predictive": values("predictive"),
        "predictive_mean": values("mean"),
        "probability": values("probability"),
        "aleatoric": variances("aleatoric"),
        "epistemic": variances("epistemic"),
        "distribution": {
            task: {
                "loc": scalers[task].inverse(drawn.distribution[task]["loc"]),
                "scale": drawn.distribution[task]["scale"] * scalers[task].std,
                "df": drawn.distribution[task]["df"],
            }
            for task in scalers
            if task in drawn.distribution
        },
    }


def _log_scale(scalers: Mapping[str, Scaler], target: str) -> float:
    return float(np.log(scalers[target].std)) if target in scalers else 0.0
