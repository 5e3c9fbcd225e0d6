"""How much of a run's miscalibration a temperature fitted on validation rows takes away, target by target."""

import numpy as np
import xarray as xr

from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.metrics.labelled import targets_of
from bmtl.evaluation.recalibration import recalibrate
from bmtl.evaluation.report.markup import Cell, Markup, details, fragment, number, paragraph, table
from bmtl.evaluation.report.shown import Trees, first_ones, with_group
from bmtl.evaluation.scores import computable, symbol

COMPARED = ("nll", "ece")
MOST_FITTED = 24  # targets of a run: fitting takes a third of a second each
# What these scores need; draws of the predictive would be drawn anew, for nothing.
NEEDED = ("observed_data", "constant_data", "predictive_distribution", "probability", "pit", "log_likelihood")


def recalibrated(trees: Trees) -> Markup:
    """Scores before and after, by method and folded away by target; nothing where no tree has validation rows."""
    having = {
        name: tree
        for name, tree in with_group(trees, "observed_data", "validation").items()
        if not {"predictive_distribution", "probability"}.isdisjoint(tree.children)
    }
    if not having:
        return Markup()
    before, after, factors, reasons = {}, {}, {}, []
    targets, note = first_ones(
        list(dict.fromkeys(t for tree in having.values() for t in targets_of(tree))), most=MOST_FITTED, done="Fitted"
    )
    for name, tree in having.items():
        lean = _lean(tree, targets)
        try:
            renewed = recalibrate(lean)
        except ValueError as error:
            reasons.append(paragraph(f"{name} was not recalibrated. {error}", class_="warning"))
            continue
        before[name], after[name] = _scores(lean), _scores(renewed)
        factors[name] = decode_attributes(renewed)["recalibration_factors"]
    if not before:
        return fragment(*reasons)
    names = [score for score in COMPARED if any(score in of for of in before.values())]
    header = [f"{symbol(score)} {when}" for score in names for when in ("before", "after")]
    means = [
        [
            method,
            number(float(np.exp(np.mean(np.log(list(factors[method].values()))))) if factors[method] else np.nan),
            *(number(_mean(of[method].get(score))) for score in names for of in (before, after)),
        ]
        for method in before
    ]
    rows: list[list[Cell | str]] = []
    for method, found in before.items():
        for k, task in enumerate(next(iter(found.values()))["task"].values.tolist()):
            cells = [_one(of[method].get(score), k) for score in names for of in (before, after)]
            rows.append([method, task, number(factors[method].get(task, np.nan)), *cells])
    return fragment(
        table(
            ["method", "factor", *header],
            means,
            "Means over the targets before and after recalibration, lower is better. The factor (geometric mean) "
            "multiplies a regression's scales, or is a classification's temperature: above 1 says that the predictive "
            f"was too sure of itself. It is fitted on the validation rows, and scored on the test rows.{note}",
        ),
        details(
            "Recalibration by target",
            table(["method", "target", "factor", *header], rows, "The same for each target."),
        ),
        *reasons,
    )


def _lean(tree: xr.DataTree, targets: list[str]) -> xr.DataTree:
    """What is needed of some targets."""
    groups = {}
    for prefix, part in (("", tree), ("validation/", tree.children["validation"])):
        for name in NEEDED:
            if name not in part.children:
                continue
            group = part.children[name].to_dataset(inherit=False)
            if name == "constant_data":
                group = group.sel(target=[target for target in targets if target in group["target"].values])
            else:
                group = group[[v for v in group.data_vars if str(v).partition("_")[2] in targets]]
            groups[f"{prefix}{name}"] = group
    lean = xr.DataTree.from_dict(groups)
    lean.attrs = dict(tree.attrs)
    return lean


def _scores(tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """Score -> values by task; each task's is that of its kind."""
    found: dict[str, xr.DataArray] = {}
    for score in computable(tree):
        if score.name in COMPARED:
            values = score.compute(tree)
            found[score.name] = found[score.name].fillna(values) if score.name in found else values
    return found


def _mean(values: xr.DataArray | None) -> float:
    return float("nan") if values is None else float(values.mean(skipna=True))


def _one(values: xr.DataArray | None, place: int) -> Cell:
    return number(float("nan") if values is None else float(values.values[place]))
