"""Marginal calibration: the distribution of the labels against the mean predictive, for every family of targets.

A predictive can be calibrated row by row only if its mean over rows has the labels' distribution (Gneiting, Balabdaoui &
Raftery 2007, section 3.2, "marginal calibration"). How that is drawn depends on what a value is: cdfs of numbers, shares of
counts and classes, survival curves of times.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, singledispatch
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.stats import beta, norm

from bmtl.evaluation.parts import reported_targets, scored
from bmtl.evaluation.style import MOST_PANELS, Trees, lines_of, method_legend, named, panels, styled
from bmtl.targets import Classes, Count, Family, Real, TimeToEvent, Vector
from bmtl.targets.metrics.survival import survival_of_times
from bmtl.targets.score import Scored

OBSERVED: dict[str, Any] = {"color": "#222222", "linewidth": 1.1}
FILL = "#D5D5D5"
POINTS = 120  # at which a cdf is drawn
MOST_ROWS = 1000  # whose predictives are averaged; of more, evenly chosen ones
MOST_BARS = 30  # counts that have a bar each

Rows = Mapping[str, Scored]  # by method
Lines = Mapping[str, dict[str, Any]]  # how each method is drawn
Draw = Callable[[Axes, Lines], None]


def marginal_calibration(trees: Trees, *, tasks: Sequence[str] | None = None, columns: int = 4) -> Figure:
    """Distribution of the labels and the mean predictive of each method, a panel per target.

    Numbers: cdfs. Counts and classes: shares of rows, with 95 % binomial intervals of the labels' own. Times to an event:
    the Kaplan-Meier estimate with its 95 % band, and the mean predicted survival. Vectors have a panel for each component.
    Of more than a thousand rows, the predictives of a thousand are averaged.

    Args:
        trees: A results tree, or method -> tree.
        tasks: Which targets to draw; by default all that can be, or as many as make 36 panels, and the figure says so.
        columns: Panels in a row.

    Raises:
        ValueError: If no target can be drawn, or a named one cannot; says why.
    """
    runs = named(trees)
    found, reasons = _panels_of(runs, tasks)
    drawn = {title: draw for of in found.values() for title, draw in of.items()}
    if reasons and (tasks is not None or not drawn):
        raise ValueError(next(iter(reasons.values())))
    left_out = f"; the first {MOST_PANELS} of {len(drawn)}" if len(drawn) > MOST_PANELS else ""
    shown = dict(list(drawn.items())[:MOST_PANELS])
    with styled():
        across, down = min(columns, len(shown)), -(-len(shown) // columns)
        width = max(2.3, 4.6 / across)
        figure = Figure(figsize=(width * across + 0.5, 1.95 * down + 0.9), layout="constrained")
        lines = lines_of(list(runs))
        for title, panel in panels(figure, list(shown), columns, sharex=False).items():
            shown[title](panel, lines)
        if left_out:
            figure.supxlabel(left_out.removeprefix("; ").capitalize(), fontsize=9)
        method_legend(figure, list(runs), extra=[Line2D([], [], label="labels", **OBSERVED)])
    return figure


def marginal_targets(trees: Trees) -> list[str]:
    """Targets whose distribution `marginal_calibration` can draw, in order of appearance."""
    return list(_panels_of(named(trees), None)[0])


def _panels_of(
    runs: Mapping[str, xr.DataTree], tasks: Sequence[str] | None
) -> tuple[dict[str, dict[str, Draw]], dict[str, str]]:
    """The functions that draw each target's panels, by title; and for the others, why they cannot be drawn."""
    rows = {name: scored(tree) for name, tree in runs.items()}
    known = {task: target.family for tree in runs.values() for task, target in reported_targets(tree).items()}
    found, reasons = {}, {}
    for task in known if tasks is None else tasks:
        if task not in known:
            raise ValueError(f"There is no task {task!r}; the runs have {list(known)}.")
        of = {name: by_task[task] for name, by_task in rows.items() if task in by_task and len(by_task[task].labels)}
        try:
            found[task] = _margins(known[task], task, of)
        except ValueError as error:
            reasons[task] = str(error)
    return found, reasons


@singledispatch
def _margins(family: Family, task: str, rows: Rows) -> dict[str, Draw]:
    """The functions that draw the panels of a target, by title.

    Raises:
        ValueError: If it cannot be drawn; says why.
    """
    raise ValueError(f"There is no picture of the distribution of {task!r}, whose family is {family.name!r}.")


@_margins.register
def _(family: Real, task: str, rows: Rows) -> dict[str, Draw]:
    _check(task, rows, "predictive")
    if family.censored:
        _check_right_censored(task, rows)
        return {task: partial(_draw_survival, rows)}
    return {task: partial(_draw_cdf, rows, None)}


@_margins.register
def _(family: Vector, task: str, rows: Rows) -> dict[str, Draw]:
    _check(task, rows, "predictive")
    return {f"{task}: {name}": partial(_draw_cdf, rows, place) for place, name in enumerate(family.components)}


@_margins.register
def _(family: Count, task: str, rows: Rows) -> dict[str, Draw]:
    _check(task, rows, "predictive")
    return {task: partial(_draw_counts, rows)}


@_margins.register
def _(family: Classes, task: str, rows: Rows) -> dict[str, Draw]:
    _check(task, rows, "probability")
    return {task: partial(_draw_classes, rows, family.class_names)}


@_margins.register
def _(family: TimeToEvent, task: str, rows: Rows) -> dict[str, Draw]:
    _check(task, rows, "predictive")
    _check_right_censored(task, rows)
    return {task: partial(_draw_survival, rows)}


def _check(task: str, rows: Rows, needed: str) -> None:
    if not rows:
        raise ValueError(f"No run has a labelled row of {task!r}.")
    lacking = [name for name, of in rows.items() if not of.prediction.has(needed)]
    if len(lacking) == len(rows):
        raise ValueError(f"None of the runs {lacking} has a {needed} of {task!r}.")


def _check_right_censored(task: str, rows: Rows) -> None:
    lower, upper = next(iter(rows.values())).labels.T
    if not ((lower == upper) | np.isposinf(upper)).all():
        raise ValueError(
            f"The distribution of {task!r} is not drawn: some labels are known up to a finite interval, for which the "
            "Kaplan-Meier estimate does not hold."
        )


def _averaged(rows: Scored) -> Any:
    """The predictive of the rows, or of evenly chosen ones of many."""
    predictive, count = rows.predictive(), len(rows.labels)
    return predictive if count <= MOST_ROWS else predictive[np.linspace(0, count - 1, MOST_ROWS).round().astype(int)]


def _for_each_row(grid: np.ndarray, rows: int) -> np.ndarray:
    """The points for every row, ``(points, N)``."""
    return np.broadcast_to(grid[:, None], (grid.size, rows))


def _having(rows: Rows, field: str) -> dict[str, Scored]:
    return {name: of for name, of in rows.items() if of.prediction.has(field)}


def _draw_cdf(rows: Rows, component: int | None, panel: Axes, lines: Lines) -> None:
    labels = next(iter(rows.values())).labels
    values = labels if component is None else labels[:, component]
    values = np.sort(values[~np.isnan(values)])
    low, high = np.quantile(values, [0.005, 0.995])
    margin = 0.15 * (high - low) or 1.0
    grid = np.linspace(low - margin, high + margin, POINTS)
    shares = np.r_[0, np.arange(1, values.size + 1), values.size] / values.size
    panel.step(np.r_[grid[0], values, grid[-1]], shares, where="post", **OBSERVED)
    for name, of in _having(rows, "predictive").items():
        predictive = _averaged(of)
        if component is None:
            cdf = predictive.cdf(_for_each_row(grid, predictive.rows))
        else:
            at = np.repeat(_for_each_row(grid, predictive.rows)[..., None], labels.shape[1], axis=-1)
            cdf = predictive.cdf(at)[..., component]
        cdf = cdf.mean(axis=1)
        panel.plot(grid, cdf, **lines[name])
    panel.set(xlim=(grid[0], grid[-1]), ylim=(0, 1.02), ylabel="Share of rows up to")
    panel.locator_params(axis="x", nbins=5)


def _draw_counts(rows: Rows, panel: Axes, lines: Lines) -> None:
    labels = next(iter(rows.values())).labels
    most = int(labels.max())
    width = max(1, -(-(most + 1) // MOST_BARS))  # counts a bar
    edges = np.arange(0, most + 1 + width, width)
    counts, _ = np.histogram(labels, edges)
    _bars(panel, edges[:-1] + (width - 1) / 2, counts, labels.size, 0.85 * width)
    for name, of in _having(rows, "predictive").items():
        predictive = _averaged(of)
        cdf = predictive.cdf(_for_each_row(edges - 1.0, predictive.rows)).mean(axis=1)
        panel.plot(edges[:-1] + (width - 1) / 2, np.diff(cdf), marker="o", markersize=2.5, **lines[name])
    panel.set(xlim=(-0.7 * width, edges[-1] - 1 + 0.7 * width), ylabel="Share of rows")
    panel.set_ylim(bottom=0)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _draw_classes(rows: Rows, names: Sequence[str], panel: Axes, lines: Lines) -> None:
    labels = next(iter(rows.values())).labels
    places = np.arange(len(names))
    _bars(panel, places, np.bincount(labels, minlength=len(names)), labels.size, 0.7)
    having = _having(rows, "probability")
    for i, (name, of) in enumerate(having.items()):
        assert of.prediction.probability is not None
        offset = (i - (len(having) - 1) / 2) * min(0.12, 0.6 / len(having))
        panel.plot(
            places + offset, of.prediction.probability.mean(axis=0), "o", color=lines[name]["color"], markersize=4
        )
    few = len(names) <= 12
    panel.set_xticks(places if few else places[:: -(-len(names) // 12)])
    panel.set_xticklabels(
        [name if len(name) <= 12 else f"{name[:11]}…" for name in np.asarray(names)[panel.get_xticks().astype(int)]],
        rotation=0 if sum(map(len, names)) <= 24 else 45,
        ha="center" if sum(map(len, names)) <= 24 else "right",
    )
    panel.set(ylabel="Share of rows")
    panel.set_ylim(bottom=0)


def _bars(panel: Axes, places: np.ndarray, counts: np.ndarray, rows: int, width: float) -> None:
    """Shares of rows with their 95 % intervals (Clopper and Pearson)."""
    low = np.where(counts > 0, beta.ppf(0.025, counts, rows - counts + 1), 0)
    high = np.where(counts < rows, beta.ppf(0.975, counts + 1, rows - counts), 1)
    panel.bar(places, counts / rows, width, color=FILL, edgecolor="#8C8C8C", linewidth=0.5, zorder=1)
    panel.vlines(places, low, high, **OBSERVED, zorder=2)
    panel.grid(axis="x", visible=False)


def _draw_survival(rows: Rows, panel: Axes, lines: Lines) -> None:
    labels = next(iter(rows.values())).labels
    times, survival, error = survival_of_times(labels)
    low = 0.0 if (labels[:, 0] >= 0).all() else float(times[0])
    high = float(np.quantile(labels[:, 0], 0.995))
    panel.step(np.r_[low, times], np.r_[1, survival], where="post", **OBSERVED)
    # On the log-log scale, on which the band stays in [0, 1].
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = norm.ppf(0.975) * error / (survival * np.abs(np.log(survival)))
        band = [survival ** np.exp(sign * spread) for sign in (1, -1)]
    lower, upper = (np.r_[1, edge] for edge in band)
    panel.fill_between(np.r_[low, times], lower, upper, step="post", color=FILL, linewidth=0)
    grid = np.linspace(low, high, POINTS)
    for name, of in _having(rows, "predictive").items():
        predictive = _averaged(of)
        panel.plot(grid, predictive.survival(_for_each_row(grid, predictive.rows)).mean(axis=1), **lines[name])
    panel.set(xlim=(low, high), ylim=(0, 1.02), ylabel="Share of rows beyond")
    panel.locator_params(axis="x", nbins=5)
