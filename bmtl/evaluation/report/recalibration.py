"""How much of a run's miscalibration a temperature fitted on validation rows takes away, target by target."""

from dataclasses import replace

import numpy as np
import xarray as xr

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.parts import parts_of, reported_targets, scored
from bmtl.evaluation.recalibration import recalibrate
from bmtl.evaluation.report.markup import Cell, Markup, details, fragment, number, paragraph, table
from bmtl.evaluation.report.shown import Trees, first_ones
from bmtl.evaluation.scores import computed
from bmtl.targets.score import Score

MOST_FITTED = 24  # targets of a run: fitting takes a third of a second each


def recalibrated(trees: Trees) -> Markup:
    """Scores before and after, by method and folded away by target; nothing where no tree has validation rows."""
    having = {name: tree for name, tree in trees.items() if {"test", "validation"} <= set(parts_of(tree))}
    if not having:
        return Markup()
    targets, note = first_ones(
        list(dict.fromkeys(t for tree in having.values() for t in reported_targets(tree))),
        most=MOST_FITTED,
        done="Fitted",
    )
    scores = _averaged(having)
    before, after, factors = {}, {}, {}
    reasons: list[Markup] = []
    not_done: list[list[str]] = []
    for name, tree in having.items():
        try:
            renewed = recalibrate(tree, targets=targets)
        except ValueError as error:
            reasons.append(paragraph(f"{name} was not recalibrated. {error}", class_="warning"))
            continue
        about = decode_attributes(renewed)
        factors[name] = about["recalibration_factors"]
        not_done += [[task, name, str(reason)] for task, reason in about["recalibration_left_out"].items()]
        before[name], after[name] = (_values(of, scores, list(factors[name])) for of in (tree, renewed))
    if not_done:
        counts = len({task for task, _, _ in not_done})
        title = f"{counts} target{'s' * (counts > 1)} not recalibrated"
        reasons.append(details(title, table(["target", "method", "reason"], not_done, "As they were.")))
    if not any(factors.values()):
        return fragment(*reasons)
    header = [f"{of.symbol} {when}" for of in scores for when in ("before", "after")]
    means = [
        [
            method,
            number(float(np.exp(np.mean(np.log(list(factors[method].values()))))) if factors[method] else np.nan),
            *(number(_mean(of[method][score.name])) for score in scores for of in (before, after)),
        ]
        for method in before
    ]
    rows: list[list[Cell | str]] = [
        [
            method,
            task,
            number(factor),
            *(number(of[method][s.name].get(task, np.nan)) for s in scores for of in (before, after)),
        ]
        for method in before
        for task, factor in factors[method].items()
    ]
    return fragment(
        table(
            ["method", "factor", *header],
            means,
            "Means over the recalibrated targets before and after, lower is better. The factor (geometric mean) multiplies "
            "scales, or is the temperature of class probabilities: above 1, the predictive was overconfident. It is fitted "
            f"on the validation rows, and scored on the test rows.{note}",
        ),
        details(
            "Recalibration by target",
            table(["method", "target", "factor", *header], rows, "The same for each target."),
        ),
        *reasons,
    )


def _averaged(trees: Trees) -> list[Score]:
    """The scores that are shown as means over targets, one of each name."""
    found: dict[str, Score] = {}
    for tree in trees.values():
        for known in reported_targets(tree).values():
            found |= {of.name: of for of in known.family.scores if of.averaged and of.name not in found}
    return list(found.values())


def _values(tree: xr.DataTree, scores: list[Score], targets: list[str]) -> dict[str, dict[str, float]]:
    """Score -> target -> value, of the rows that the tree holds: of images a sample, before and after; NaN where none is."""
    by_task = {}
    for task, rows in scored(tree).items():
        if task in targets:
            by_task[task] = computed(replace(rows, whole={}), reported_targets(tree)[task].family)[0]
    return {of.name: {task: by_task.get(task, {}).get(of.name, float("nan")) for task in targets} for of in scores}


def _mean(values: dict[str, float]) -> float:
    known = [value for value in values.values() if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
