"""Methods against each other: paired differences to the baseline, and mean ranks."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import xarray as xr

from bmtl.evaluation import plots
from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.ranks import critical_difference
from bmtl.evaluation.report.figures import Picture
from bmtl.evaluation.report.markup import Cell, Markup, details, number, table
from bmtl.evaluation.report.ranking import by_target
from bmtl.evaluation.report.score_tables import count
from bmtl.evaluation.report.shown import first_ones
from bmtl.evaluation.scores import primary, primary_scores, symbol
from bmtl.evaluation.statistics import mean_and_error, paired_differences


def paired(comparison: xr.Dataset) -> Iterator[Markup]:
    """Differences to the baseline in the primary score of each kind of target: a table and a forest plot."""
    baseline = decode_attributes(comparison).get("baseline")
    if baseline is None or comparison.sizes["method"] < 2:
        return
    for kind in dict.fromkeys(comparison["kind"].values.tolist()):
        score = primary(kind)
        chosen = comparison.isel(task=(comparison["kind"] == kind).values)
        values = chosen["score"].sel(metric=score.name, drop=True)
        differences = paired_differences(
            values,
            baseline,
            higher_is_better=score.higher_is_better,
            counted=chosen["present"] & (chosen["rows"] > 0),
        )
        if chosen.sizes["split"] < 2:  # no interval: a picture would say what the scores' own does
            yield details(f"Differences to {baseline} in {score.symbol}", _table(differences, score.symbol))
            continue
        yield _table(differences, score.symbol)
        tasks, note = first_ones([str(task) for task in chosen["task"].values])
        yield Picture(
            f"Differences to {baseline}: {score.symbol}",
            f"Mean paired difference to {baseline} and its interval, a panel a target. Blue: the interval says better; "
            f"orange: worse; grey: it does not tell.{note}",
            partial(plots.difference_forest, differences, name=score.symbol, tasks=tasks),
        ).markup()


def ranked(comparison: xr.Dataset) -> Iterator[Markup]:
    """Mean ranks over the targets, or of a single target over the splits, with the critical difference."""
    scores, higher = primary_scores(comparison)
    counted = comparison["present"] & (comparison["rows"] > 0)
    over = "targets"
    if comparison.sizes["task"] > 1:
        means = mean_and_error(scores, counted=counted)
        values, there = means["mean"], means["splits"] > 0
    else:
        over = "splits"
        values, there = scores.isel(task=0, drop=True), counted.isel(task=0, drop=True)
        higher = higher.isel(task=0, drop=True)
    if comparison.sizes["method"] < 2 or values.sizes[next(d for d in values.dims if d != "method")] < 2:
        return
    found = critical_difference(values, test="nemenyi", higher_is_better=higher, counted=there)
    if int(found["blocks"]) < 2:
        return
    yield _ranks(comparison, found, over)
    if np.isfinite(found["mean_rank"]).all():
        yield Picture(
            "Critical-difference diagram",
            f"Mean rank of each method over the {over}, the best to the left. A bar joins methods whose ranks differ "
            "by less than the critical difference of Nemenyi's test: these are not told apart.",
            lambda: plots.critical_difference_diagram(found),
        ).markup()


def scores(comparison: xr.Dataset) -> Iterator[Markup]:
    """Every method's primary score by target, as a picture."""
    for kind in dict.fromkeys(comparison["kind"].values.tolist()):
        name = primary(kind).name
        own = comparison.isel(task=(comparison["kind"] == kind).values)
        held = own["score"].sel(metric=name).notnull().any(["method", "split"]).values
        tasks, note = first_ones([str(task) for task in own["task"].values[held]])
        if tasks:
            yield Picture(
                f"{symbol(name)} by target",
                "A row a method, a panel a target, each with an axis of its own; the dashed line is the baseline. Grey "
                f"dots are splits, the bar is the standard error of their mean.{note}",
                partial(plots.scores_by_task, comparison, name, tasks=tasks),
            ).markup()


def _table(differences: xr.Dataset, name: str) -> Markup:
    baseline, higher = differences.attrs["baseline"], bool(differences.attrs["higher_is_better"])
    several = int(differences["splits"].max()) > 1
    header = ["method", "target", f"{name} less {baseline}'s"]
    if several:
        header += ["95 % interval", "Holm p", "better on splits"]
    rows = []
    stacked = differences.transpose("method", "task")
    for i, method in enumerate(stacked["method"].values.tolist()):
        for k, task in enumerate(stacked["task"].values.tolist()):
            value = {
                name: float(stacked[name].values[i, k]) for name in ("difference", "error", "lower", "upper", "p_holm")
            }
            clear = value["lower"] > 0 if higher else value["upper"] < 0
            row: list[Cell | str] = [method, task, number(value["difference"], value["error"], marked=clear)]
            if several:
                splits, wins = int(stacked["splits"].values[i, k]), int(stacked["wins"].values[i, k])
                row += [
                    _interval(value["lower"], value["upper"]),
                    _p(value["p_holm"]),
                    Cell(f"{wins} of {splits}", wins),
                ]
            rows.append(row)
    words = f"Paired differences to {baseline}, split by split; {'positive' if higher else 'negative'} is better."
    if several:
        words += (
            " ±: standard error; the interval is a bootstrap over splits, shaded where it says better. Holm p: "
            "sign-flip test, corrected for all rows of this table; with fewer than six splits none reaches 0.05."
        )
    else:
        words += " One split: no interval and no test."
    return table(header, rows, words)


def _ranks(comparison: xr.Dataset, found: xr.Dataset, over: str) -> Markup:
    _, marks = by_target(comparison)
    several = bool(marks.any())
    names = [str(name) for name in found["method"].values]
    rows = []
    for i, name in enumerate(names):
        joined = {
            other
            for group in found["group"].values
            if group[i]
            for other, member in zip(names, group, strict=True)
            if member and other != name
        }
        row: list[Cell | str] = [
            name,
            number(float(found["mean_rank"].values[i])),
            ", ".join(other for other in names if other in joined) or "–",
        ]
        if several:
            row.append(count(int(marks.sel({"method": name}).sum())))
        rows.append(row)
    header = [
        "method",
        "mean rank ↓",
        "joined with",
        *(["best, or not told apart from it, on targets"] if several else []),
    ]
    p = float(found["friedman_p"])
    words = (
        f"Mean rank over {int(found['blocks'])} {over}, 1 for the best. Critical difference at 0.05 (Nemenyi): "
        f"{float(found['difference']):.2f}; methods closer than that are joined. Friedman's test that all rank alike: "
        f"p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}."
    )
    if over == "targets":
        words += " Targets that share inputs are not independent, so the tests are guides and no proof."
    return table(header, rows, words)


def _interval(low: float, high: float) -> Cell:
    if not (np.isfinite(low) and np.isfinite(high)):
        return Cell("–", float("nan"))
    return Cell(f"{number(low).text} to {number(high).text}", low)


def _p(value: float) -> Cell:
    if np.isnan(value):
        return Cell("–", value)
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", value)
