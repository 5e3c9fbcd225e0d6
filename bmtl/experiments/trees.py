"""From draws in a model's scaled units to a results tree in reported units."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from bmtl.datasets import Inputs, MultiTaskData
from bmtl.evaluation import results
from bmtl.evaluation.results import PredictedRows, ReportedTarget
from bmtl.experiments.budgets import Budget
from bmtl.experiments.collecting import RunResult, extras_of
from bmtl.experiments.configuration import configuration
from bmtl.experiments.methods import Method
from bmtl.experiments.reduced import Reduced
from bmtl.inference import Draws
from bmtl.inference.record import StepRecord, history_arrays
from bmtl.models.tree_variable import TreeVariable
from bmtl.targets import Prediction, Scaler
from bmtl.targets.score import Scored

DATA_PARTS = {"test": "test", "validation": "val", "train": "train", "ood": "ood"}
"""Part of a results tree -> the data's part."""


def results_tree(
    data: MultiTaskData,
    drawn: Draws,
    history: Sequence[StepRecord] | Mapping[str, np.ndarray] = (),
    *,
    part: str = "test",
    validation: Draws | None = None,
    train: Draws | None = None,
    ood: Draws | None = None,
    new: Draws | None = None,
    reduced: Mapping[str, Mapping[str, Reduced]] | None = None,
    raw: Any = None,
    tasks: Sequence[str] | None = None,
    model: Any = None,
    extras: Mapping[str, TreeVariable] | None = None,
    attributes: Mapping[str, object] | None = None,
) -> xr.DataTree:
    """The results tree of a run: draws in the model's scaled units become reported units.

    Args:
        data: The training data, or ``data.subset(...)``. Those targets that were drawn too are in the tree.
        drawn: From `bmtl.draw` for the rows of `part`: all of them for every target, or each target's own, those of
            ``data.tensors_by_task(part)``. The same holds for what is drawn for other parts.
        history: ``svi.history``, or its arrays.
        part: The part of the data that was drawn for: "test", "train" (the tree's root), or "val".
        validation: The same for the rows of "val": what recalibration is fitted on.
        train: The same for the rows of "train": needed to check the guide, and used by ``az.loo``.
        ood: The same for labelled rows from elsewhere, the data's part "ood".
        new: For inputs without labels: the tree's ``predictions``.
        reduced: Part of the tree -> target -> what is kept of predictions that are too large to keep.
        raw: Those inputs in their raw form, where a target has a baseline.
        tasks: What the arrays of a history call its tasks; the targets by default.
        model: The fitted model, for what it adds to the posterior itself (its `tree_extras`).
        extras: The same, where the model is gone.
        attributes: Attributes of the tree: ``method``, ``balancer``, ``seed``, ``configuration`` and any of your own.

    Raises:
        ValueError: If what was drawn does not fit the data's targets or rows.
    """
    part = {"val": "validation"}.get(part, part)
    known = {**drawn.targets, **(reduced or {}).get(part, {})}
    names = tuple(task for task in data.tasks if task in known)
    if not names:
        raise ValueError(f"What was drawn has the targets {list(drawn.targets)}, and the data have {list(data.tasks)}.")
    given = {"validation": validation, "train": train, "ood": ood, part: drawn}
    parts = {
        name: predicted_rows(
            data, DATA_PARTS[name], {n: of.targets[n] for n in names if n in of.targets}, (reduced or {}).get(name, {})
        )
        for name, of in given.items()
        if of is not None
    }
    if new is not None:
        parts["predictions"] = {
            name: PredictedRows(
                new.targets[name].in_units(
                    data.targets[name].family, scaler_of_new(reported(data, name), data.inputs, raw)
                )
            )
            for name in names
            if name in new.targets
        }
    if not isinstance(history, Mapping) and history:
        tasks = history[-1].names  # a model may have its tasks in another order, or several for one target
    arrays = history if isinstance(history, Mapping) else history_arrays(history) if history else None
    sampled = drawn if train is None else train
    densities = {"lp": sampled.log_p, "log_q": sampled.log_q}
    extra = {**extras_of(model, sampled), **(extras or {})}
    coords: dict[str, Any] = {}
    for variable in extra.values():
        coords |= variable.coords
    return results.to_datatree(
        parts,
        {name: reported(data, name) for name in names},
        posterior={**sampled.posterior, **{name: variable.values for name, variable in extra.items()}} or None,
        sample_stats={**{k: v for k, v in densities.items() if v is not None}, **sampled.sample_stats} or None,
        coords=coords,
        dims={name: variable.dims for name, variable in extra.items()},
        chains=sampled.chains,
        training=arrays,
        tasks=names if tasks is None else tasks,
        attributes={
            **about_data(data),
            "labels": {part: {name: int(data.has_label(name, part).sum()) for name in names} for part in data.rows},
            **(attributes or {}),
        },
    )


def about_data(data: MultiTaskData) -> dict[str, object]:
    """What the tree of each run on some data says of them, reference rows included."""
    return {
        "data_name": data.name,
        "data_fingerprint": data.fingerprint,
        "input_options": data.inputs.options(),
        "data_citation": data.citation,
        "data_licence": data.licence,
    }


def run_tree(
    data: MultiTaskData,
    method: Method,
    seed: int,
    budget: Budget,
    result: RunResult,
    *,
    new: Any = None,
    **attributes: object,
) -> xr.DataTree:
    """The results tree of a run of a comparison, with its scores on validation.

    Args:
        data: The training data.
        method: The trained method.
        seed: The run's seed.
        budget: The run's budget.
        result: The run's result.
        new: Raw inputs without labels that were drawn for.
        attributes: Further ones of the tree.
    """
    drawn = result.draws
    part = "test" if "test" in drawn else next(iter(drawn))
    return results_tree(
        data,
        drawn[part],
        result.history,
        part=DATA_PARTS[part],
        validation=drawn.get("validation"),
        train=drawn.get("train"),
        ood=drawn.get("ood"),
        new=drawn.get("new"),
        reduced=result.reduced,
        raw=new,
        tasks=result.tasks,
        extras=result.extras,
        attributes={
            "method": method.name,
            "balancer": method.balancer,
            "seed": seed,
            "configuration": configuration(method, budget),
            "validation_scores": scores_of(data, drawn["validation"], "val", result.reduced.get("validation"))
            if "validation" in drawn
            else {},
            "validation_score": result.score,
            "network_shares": dict(result.shares),
            **attributes,
        },
    )


def reported(data: MultiTaskData, name: str) -> ReportedTarget:
    """A tree's description of a target, including its primary score, which depends on the training labels."""
    return ReportedTarget.of(data.targets[name], data.rows["train"])


def scaler_of_new(target: ReportedTarget, inputs: Inputs, raw: Any) -> Scaler:
    """Between reported units and what a model sees of new inputs, the target's baseline included.

    Args:
        target: What is known of it.
        inputs: Of the data, with or without their rows.
        raw: New inputs in their raw form.

    Raises:
        ValueError: If the target has a baseline, and no raw inputs are given.
    """
    if target.baseline is None:
        return target.scaler
    if raw is None:
        raise ValueError("A target has a baseline, which is of raw inputs. Give those that were drawn for as `raw`.")
    return target.scaler.shifted(target.baseline.of(inputs.numbers(target.baseline.features, raw)))


def predicted_rows(
    data: MultiTaskData,
    part: str,
    predictions: Mapping[str, Prediction],
    reduced: Mapping[str, Reduced] | None = None,
) -> dict[str, PredictedRows]:
    """Predictions for the rows of a part in scaled units, as a tree's rows in reported units.

    Args:
        data: The training data.
        part: Of the data.
        predictions: Target -> for all rows of the part, or for those with a label for the target.
        reduced: Target -> what is kept of predictions that are too large to keep, in reported units already.

    Raises:
        ValueError: If a prediction is for another number of rows.
    """
    found = {}
    for name, prediction in predictions.items():
        target, places = data.targets[name], places_drawn(data, part, name, prediction.rows)
        rows = data.rows[part][places]
        labels = target.values[rows]
        in_units = prediction.in_units(target.family, target.scaler_of(rows), labels)
        found[name] = PredictedRows(in_units, labels, places)
    return {**found, **{name: of.rows for name, of in (reduced or {}).items()}}


def places_drawn(data: MultiTaskData, part: str, name: str, rows: int) -> np.ndarray:
    """The places in a part of which there are `rows` predictions: the rows with a label for the target, or all.

    Raises:
        ValueError: If it is neither.
    """
    labelled = np.flatnonzero(data.has_label(name, part))
    if rows == len(labelled):
        return labelled
    whole = len(data.rows[part])
    if rows != whole:
        raise ValueError(
            f"{rows} rows were drawn for {name!r}, and the part {part!r} has {whole}, {len(labelled)} of them with a label."
        )
    return np.arange(whole)


def scores_of(
    data: MultiTaskData, drawn: Draws, part: str, reduced: Mapping[str, Reduced] | None = None
) -> dict[str, float]:
    """Each target's primary score on its labelled rows of a part."""
    found = {}
    for name, rows in predicted_rows(data, part, drawn.targets, reduced).items():
        target, labels = reported(data, name), np.asarray(rows.labels)
        there = ~target.family.missing(labels)
        score = target.primary_score
        scored = Scored(labels[there], rows.prediction.take(there), target.family, target.scaler, rows.whole)
        if score.computable(scored):
            found[name] = score.of(scored)
    return found
