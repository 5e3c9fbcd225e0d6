"""From draws in a model's scaled units to a results tree in reported units."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from bmtl.datasets import MultiTaskData
from bmtl.evaluation import results
from bmtl.evaluation.groups import posterior_group
from bmtl.evaluation.relatedness import ANCHOR
from bmtl.inference.predictives import Draws
from bmtl.inference.record import StepRecord, history_arrays
from bmtl.models.vmtl import VMTL
from bmtl.targets.scaler import Scaler

MOST_OFFSET = 10.0  # of a target's mean from zero, in its standard deviations, for draws in units to stay in float32


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
        drawn: From `bmtl.draw` for the rows of `part`: all of them for every target, or each target's own, those of
            ``data.tensors_by_task(part)``. The same holds for what is drawn for other parts.
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
    names = tuple(targets if tasks is None else tasks)
    related = "task_correlation" in drawn.posterior
    tree = results.to_datatree(
        **_scored(data, targets, drawn, part),
        posterior=drawn.posterior or None,
        dims={"task_correlation": ("task", "task_bis")} if related else None,
        coords={"task": names, "task_bis": names} if related else None,
        predictions=unlabelled.get("predictive"),
        predictions_aleatoric=unlabelled.get("aleatoric"),
        predictions_epistemic=unlabelled.get("epistemic"),
        training=arrays,
        tasks=names,
        method=method,
        balancer=balancer,
        seed=seed,
        configuration=configuration,
        data_name=data.name,
        data_fingerprint=data.fingerprint,
        attributes={"data_citation": data.citation, "data_licence": data.licence, **(attributes or {})},
    )
    for name, of, rows in (("validation", validation, "val"), ("train", train, "train")):
        if of is not None:
            below = results.to_datatree(**_scored(data, targets, of, rows))
            below.attrs = {}
            tree[name] = below
    return tree


def add_relatedness(tree: xr.DataTree, model: VMTL, drawn: Draws) -> None:
    """Writes what share each source has in each task's prior into the tree's ``posterior``.

    ``relatedness_w`` and ``relatedness_z``, as far as the model has them, ``(chain, draw, task, source)``: the diagonal is
    0, rows sum to 1, and the last source is the anchor. Where weights are not drawn, all draws are equal.

    Args:
        tree: From `results_tree` for the same draws; changed in place.
        model: The fitted model.
        drawn: With the weights' sites, ``alpha...``, where the model draws them.

    Raises:
        ValueError: If the model's priors do not come from other tasks.
    """
    if model.priors is None:
        raise ValueError("The priors of this model do not come from other tasks: prior='tasks' relates them.")
    sites = [site for site, _ in model.priors.sites() if site in drawn.posterior]
    count = max((len(values) for values in drawn.posterior.values()), default=1)
    draws = {site: torch.as_tensor(drawn.posterior[site]) for site in sites}
    shares = {
        f"relatedness_{latent}": share.numpy() if draws else share.expand(count, *share.shape).numpy()
        for latent, share in model.relatedness(draws or None).items()
    }
    group = posterior_group(
        shares,
        {"task": model.names, "source": [*model.names, ANCHOR]},
        dict.fromkeys(shares, ("task", "source")),
    )
    before = tree["posterior"].to_dataset() if "posterior" in tree.children else xr.Dataset()
    tree["posterior"] = xr.DataTree(before.merge(group))


def _scored(data: MultiTaskData, targets: Sequence[str], drawn: Draws, part: str) -> dict[str, Any]:
    """Arguments of `to_datatree` for the rows of a part."""
    scalers = {task: data.y_scalers[task] for task in targets if data.kinds[task] == "regression"}
    # Without labels there are no densities; sample_stats go with densities of the same draws.
    densities = {task: drawn.targets[task].log_likelihood for task in targets}
    scored = all(density is not None for density in densities.values())
    together = drawn.log_p is not None and drawn.log_q is not None
    places = {task: _places_drawn(data, drawn, task, part) for task in targets}
    return {
        "observed": {task: data.y[task][data.rows[part][at]] for task, at in places.items()},
        "row_numbers": places,
        **_in_units(data, targets, drawn),
        "log_likelihood": {
            task: _per_unit(density, scalers.get(task)) for task, density in densities.items() if density is not None
        }
        if scored
        else None,
        "pit": {task: p.pit for task, p in drawn.targets.items() if task in scalers and p.pit is not None} or None,
        "sample_stats": {"lp": drawn.log_p, "log_q": drawn.log_q} if together else None,
        "target_location": {task: float(scaler.mean) for task, scaler in scalers.items()},
        "target_scale": {task: float(scaler.std) for task, scaler in scalers.items()},
        "units": {task: data.units[task] for task in scalers},
        "classes": {task: names for task, names in data.classes.items() if task in targets},
    }


def _places_drawn(data: MultiTaskData, drawn: Draws, task: str, part: str) -> np.ndarray:
    """The places in a part for which there are draws: of the rows with a label for the target, or of all."""
    labelled = np.flatnonzero(data.has_label(task, part))
    return labelled if drawn.targets[task].rows == len(labelled) else np.arange(len(data.rows[part]))


def _in_units(data: MultiTaskData, targets: Sequence[str], drawn: Draws) -> dict[str, dict[str, Any]]:
    """What was drawn of the targets; regressions in reported units."""
    scalers = {task: data.y_scalers[task] for task in targets if data.kinds[task] == "regression"}

    def values(field: str) -> dict[str, np.ndarray]:
        given = {task: getattr(drawn.targets[task], field) for task in targets if task in drawn.targets}
        return {t: _inverse(scalers[t], v) if t in scalers else v for t, v in given.items() if v is not None}

    def variances(field: str) -> dict[str, np.ndarray]:
        given = {task: getattr(drawn.targets[task], field) for task in targets if task in drawn.targets}
        return {t: v * (scalers[t].std ** 2 if t in scalers else 1.0) for t, v in given.items() if v is not None}

    laws = {task: drawn.targets[task].law for task in scalers if task in drawn.targets}
    parameters = {
        task: law.full().parameters for task, law in laws.items() if law is not None and law.name == "student-t"
    }
    return {
        "predictive": values("draws"),
        "predictive_mean": values("mean"),
        "probability": {
            t: p.probability for t, p in drawn.targets.items() if t in targets and p.probability is not None
        },
        "aleatoric": variances("aleatoric"),
        "epistemic": variances("epistemic"),
        "distribution": {
            task: {
                "loc": _inverse(scalers[task], law["loc"]),
                "scale": _rounded_once(np.multiply, law["scale"], float(scalers[task].std)),
                "df": law["df"],
            }
            for task, law in parameters.items()
        },
    }


def _inverse(scaler: Scaler, scaled: np.ndarray) -> np.ndarray:
    """Scaled values in reported units, in the precision of the model where the units allow it, else in float64.

    float32 is exact to 6e-8 of a value: where the mean is up to ten standard deviations from zero, that is less than a
    millionth of a standard deviation, and the array takes half the memory. A total energy would lose what is learnt of it.
    """
    mean, std = float(scaler.mean), float(scaler.std)
    if abs(mean) > MOST_OFFSET * std:
        return scaler.inverse(scaled)
    values = _rounded_once(np.multiply, scaled, std)
    return np.add(values, mean, out=values, dtype=np.float64, casting="same_kind")


def _per_unit(log_density: np.ndarray, scaler: Scaler | None) -> np.ndarray:
    """A density per unit: that of the scaled target over the unit's scale."""
    return log_density if scaler is None else _rounded_once(np.subtract, log_density, float(np.log(scaler.std)))


def _rounded_once(operation: np.ufunc, values: np.ndarray, number: float) -> np.ndarray:
    """`operation` in float64, its result in the dtype of `values`, without a float64 copy of them.

    In float32 throughout, the number's own rounding would be the same error in every entry, which no mean removes.
    """
    return operation(values, number, out=np.empty_like(values), dtype=np.float64, casting="same_kind")
