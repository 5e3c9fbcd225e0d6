"""Methods against each other: paired differences to the baseline, and mean ranks."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import xarray as xr

from bmtl.evaluation import plots
from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.compared import Alike, alike, counted_scores, references_of
from bmtl.evaluation.ranks import critical_difference
from bmtl.evaluation.repeats import Repeats
from bmtl.evaluation.report.figures import Picture
from bmtl.evaluation.report.markup import Cell, Markup, details, number, table
from bmtl.evaluation.report.ranking import by_target
from bmtl.evaluation.report.score_tables import count
from bmtl.evaluation.report.shown import first_ones
from bmtl.evaluation.scores import primary_scores
from bmtl.evaluation.statistics import mean_and_error, paired_differences


def paired(comparison: xr.Dataset) -> Iterator[Markup]:
    """Differences to the baseline in each primary score: a table and a forest plot."""
    baseline = decode_attributes(comparison).get("baseline")
    if baseline is None or comparison.sizes["learner"] < 2:
        return
    repeats = Repeats.of(comparison)
    groups = alike(comparison)
    for group in groups:
        score, chosen = group.primary, group.of(comparison)
        values = chosen["score"].sel(metric=score.name).drop_vars(["metric", "higher_is_better"])
        values = values if score.in_units else values.drop_vars("unit")
        differences = paired_differences(
            values,
            baseline,
            higher_is_better=score.higher_is_better,
            counted=counted_scores(chosen),
        )
        title = f"Differences to {baseline} in {_named(group, groups)}"
        if repeats.runs < 2:  # no interval: a picture would show what that of the scores does
            yield details(title, _table(differences, score.symbol, repeats))
            continue
        yield _table(differences, score.symbol, repeats)
        tasks, note = first_ones([str(task) for task in chosen["task"].values])
        yield Picture(
            title,
            f"Mean paired difference to {baseline} and its interval, a panel a target, in its unit. A filled dot's interval "
            f"excludes 0; an arrow is a method outside the axis. {repeats.interval()}{note}",
            partial(
                plots.difference_forest,
                differences,
                name=score.symbol,
                over=repeats.noun,
                tasks=tasks,
                references=references_of(comparison),
            ),
        ).markup()


def ranked(comparison: xr.Dataset) -> Iterator[Markup]:
    """Mean ranks over the targets, or of a single target over the runs, with the critical difference."""
    scores, higher = primary_scores(comparison)
    counted = counted_scores(comparison)
    over = "targets"
    if comparison.sizes["task"] > 1:
        means = mean_and_error(scores, counted=counted)
        values, there = means["mean"], means["splits"] > 0
    else:
        over = Repeats.of(comparison).nouns
        values, there = scores.isel(task=0, drop=True), counted.isel(task=0, drop=True)
        higher = higher.isel(task=0, drop=True)
    if comparison.sizes["learner"] < 2 or values.sizes[next(d for d in values.dims if d != "learner")] < 2:
        return
    found = critical_difference(values, test="nemenyi", higher_is_better=higher, counted=there)
    if int(found["blocks"]) < 2:
        return
    yield _ranks(comparison, found, over)
    if np.isfinite(found["mean_rank"]).all():
        yield Picture(
            "Critical-difference diagram",
            f"Mean rank of each method over the {over}, the best to the left. A bar joins methods whose ranks differ by "
            "less than the critical difference of Nemenyi's test.",
            lambda: plots.critical_difference_diagram(found, over=over),
        ).markup()


def scores(comparison: xr.Dataset) -> Iterator[Markup]:
    """Every method's primary score by target, as a picture."""
    groups = alike(comparison)
    repeats = Repeats.of(comparison)
    dashed = "; the dashed line is the baseline" if decode_attributes(comparison).get("baseline") else ""
    for group in groups:
        own = group.of(comparison)
        held = own["score"].sel(metric=group.primary.name).notnull().any(["learner", "split"]).values
        tasks, note = first_ones([str(task) for task in own["task"].values[held]])
        if tasks:
            dots = (
                f" Grey dots are {repeats.nouns}, the bar is the standard error of their mean."
                if repeats.runs > 1
                else ""
            )
            yield Picture(
                f"{_named(group, groups)} by target",
                f"A row a method, a panel a target, each with an axis of its own{dashed}.{dots}{note}",
                partial(plots.scores_by_task, own, group.primary.name, tasks=tasks),
            ).markup()


def _named(group: Alike, groups: list[Alike]) -> str:
    """A group's score, with its family where other groups have a score of that name."""
    same = [of for of in groups if of.primary.symbol == group.primary.symbol]
    return f"{group.primary.symbol} ({group.family.name})" if len(same) > 1 else group.primary.symbol


def _table(differences: xr.Dataset, name: str, repeats: Repeats) -> Markup:
    baseline, higher = differences.attrs["baseline"], bool(differences.attrs["higher_is_better"])
    several = int(differences["splits"].max()) > 1
    header = ["method", "target", f"{name} less {baseline}'s"]
    if several:
        header += ["95 % interval", "Holm p", f"better on {repeats.nouns}"]
    rows = []
    stacked = differences.transpose("learner", "task")
    for i, method in enumerate(stacked["learner"].values.tolist()):
        for k, task in enumerate(stacked["task"].values.tolist()):
            value = {
                name: float(stacked[name].values[i, k]) for name in ("difference", "error", "lower", "upper", "p_holm")
            }
            clear = (value["lower"] > 0 if higher else value["upper"] < 0) and repeats.decisive
            row: list[Cell | str] = [method, task, number(value["difference"], value["error"], marked=clear)]
            if several:
                splits, wins = int(stacked["splits"].values[i, k]), int(stacked["wins"].values[i, k])
                row += [
                    _interval(value["lower"], value["upper"]),
                    _p(value["p_holm"]),
                    Cell(f"{wins} of {splits}", wins),
                ]
            rows.append(row)
    side = "positive" if higher else "negative"
    words = f"Paired differences to {baseline}, {repeats.noun} by {repeats.noun}; {side} is better."
    if not several:
        words += " One run: no interval and no test."
    else:
        shaded = (
            ", shaded where it excludes 0 on the better side"
            if repeats.decisive
            else "; two runs are too few to compare methods"
        )
        words += (
            f" ±: standard error; the interval is a bootstrap over {repeats.nouns}{shaded}. Holm p: sign-flip test, "
            f"corrected for all rows of this table; with fewer than six {repeats.nouns} none reaches 0.05. "
            f"{repeats.interval()}"
        )
    return table(header, rows, words)


def _ranks(comparison: xr.Dataset, found: xr.Dataset, over: str) -> Markup:
    _, marks = by_target(comparison)
    several = bool(marks.any())
    names = [str(name) for name in found["learner"].values]
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
            _joined([other for other in names if other in joined], [o for o in names if o not in joined and o != name]),
        ]
        if several:
            row.append(count(int(marks.sel(learner=name).sum())))
        rows.append(row)
    header = [
        "method",
        "mean rank ↓",
        "joined with",
        *(["targets on which it is marked best"] if several else []),
    ]
    p = float(found["friedman_p"])
    repeats = Repeats.of(comparison)
    of_means = f", by means over {repeats.runs} {repeats.nouns}" if over == "targets" and repeats.runs > 1 else ""
    words = (
        f"Mean rank over {int(found['blocks'])} {over}{of_means}, 1 for the best. Critical difference at 0.05 (Nemenyi): "
        f"{float(found['difference']):.2f}; methods closer than that are joined. Friedman's test that all rank alike: "
        f"p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}."
    )
    if over == "targets":
        words += " Targets that share inputs are not independent, so the tests are approximate."
    return table(header, rows, words)


def _joined(joined: list[str], apart: list[str]) -> str:
    """Which methods one is joined with, by those that it is not joined with where they are fewer."""
    if not joined:
        return "–"
    if len(joined) <= max(len(apart), 3):
        return ", ".join(joined)
    return f"all but {', '.join(apart)}" if apart else "all"


def _interval(low: float, high: float) -> Cell:
    if not (np.isfinite(low) and np.isfinite(high)):
        return Cell("–", float("nan"))
    return Cell(f"{number(low).text} to {number(high).text}", low)


def _p(value: float) -> Cell:
    if np.isnan(value):
        return Cell("–", value)
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", value)
