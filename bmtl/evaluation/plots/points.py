"""Predictions against labels row by row, and their residuals, of one run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bmtl.evaluation.parts import reported_targets, scored
from bmtl.evaluation.style import MOST_PANELS, Trees, lines_of, named, panel_title, styled
from bmtl.targets.points import Points

MOST_POINTS = 200  # rows of a panel; of more, evenly chosen ones


def point_targets(tree: xr.DataTree) -> list[str]:
    """Targets of a run whose labels and predictions are numbers, with a labelled row at least."""
    return list(_points(tree))


def observed_against_predicted(tree: Trees, *, tasks: Sequence[str] | None = None, columns: int = 4) -> Figure:
    """Labels against predictive means, and below each panel the residuals, a pair of panels per target.

    On the diagonal a prediction is right. A residual is label less prediction; the dashed line is their mean, 0 where
    predictions are right on average. Hollow points are labels that are known up to an interval, drawn at its finite end.
    Vectors have a pair of panels for each component. Of more than 200 rows, 200 evenly chosen ones are drawn.

    Args:
        tree: A run's results tree, or its name -> its tree.
        tasks: Which targets to draw; by default all whose values are numbers, or as many as make 36 panels, and the figure
            says so.
        columns: Pairs of panels in a row.

    Raises:
        ValueError: If no target has numbers to draw, or a named one has none.
    """
    (method, run), *_ = named(tree).items()
    found = _points(run)
    if not found:
        raise ValueError(f"No target of {method!r} has labels and predictions that are numbers.")
    for task in tasks or ():
        if task not in found:
            raise ValueError(f"{task!r} has no numbers to draw; the targets that have are {list(found)}.")
    units = {name: known.unit for name, known in reported_targets(run).items()}
    drawn = {
        panel_title(f"{task}: {entry}" if entry else task, units[task]): points
        for task in (found if tasks is None else tasks)
        for entry, points in found[task].items()
    }
    left_out = f"; the first {MOST_PANELS} of {len(drawn)}" if len(drawn) > MOST_PANELS else ""
    shown = dict(list(drawn.items())[:MOST_PANELS])
    colour = lines_of([method])[method]["color"]
    with styled():
        across, down = min(columns, len(shown)), -(-len(shown) // columns)
        side = max(2.3, 3.4 / across)
        figure = Figure(figsize=(side * across + 0.4, (1.6 * side + 0.35) * down + 0.5), layout="constrained")
        for title, (upper, lower) in _pairs(figure, list(shown), across).items():
            _draw(upper, lower, shown[title], colour)
            upper.set_title(title, fontweight="bold")
        figure.supxlabel(f"Predicted{left_out}", fontsize=9)
        figure.supylabel("Observed; below, observed less predicted", fontsize=9)
        handles = [_handle(colour, method)]
        if not all(points.exact[points.drawable].all() for points in shown.values()):
            handles.append(_handle("none", "known up to an interval", edge=colour))
        handles.append(Line2D([], [], color="#666666", linewidth=0.8, label="observed = predicted"))
        handles.append(Line2D([], [], color="#666666", linewidth=0.8, dashes=(4, 2), label="mean residual"))
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 1 + across))
    return figure


def _points(tree: xr.DataTree) -> dict[str, dict[str, Points]]:
    """Target -> entry -> what can be drawn of it."""
    found = {}
    for task, rows in scored(tree).items():
        entries = rows.points() if len(rows.labels) else {}
        kept = {entry: points for entry, points in entries.items() if points.drawable.any()}
        if kept:
            found[task] = kept
    return found


def _pairs(figure: Figure, titles: Sequence[str], columns: int) -> Mapping[str, tuple[Axes, Axes]]:
    """For each title a tall panel over a flat one; they share their x axis."""
    rows = -(-len(titles) // columns)
    grid = figure.subplots(2 * rows, columns, height_ratios=[5, 3] * rows, squeeze=False)
    tall, flat = grid[::2].ravel(), grid[1::2].ravel()
    for spare in (*tall[len(titles) :], *flat[len(titles) :]):
        spare.remove()
    for upper, lower in zip(tall[: len(titles)], flat, strict=False):
        upper.sharex(lower)
        upper.tick_params(labelbottom=False)
    return {title: (tall[place], flat[place]) for place, title in enumerate(titles)}


def _draw(upper: Axes, lower: Axes, points: Points, colour: str) -> None:
    rows = np.flatnonzero(points.drawable)
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_POINTS)).round().astype(int))]
    residual = points.observed - points.predicted
    ends = [float(end(values[rows])) for end in (np.min, np.max) for values in (points.observed, points.predicted)]
    low, high = min(ends), max(ends)
    upper.plot([low, high], [low, high], color="#666666", linewidth=0.8, zorder=1)
    lower.axhline(0, color="#666666", linewidth=0.8, zorder=1)
    exact = rows[points.exact[rows]]
    if len(exact):  # a label that is an interval has no residual, only a bound of one
        lower.axhline(float(residual[exact].mean()), color="#666666", linewidth=0.8, dashes=(4, 2), zorder=1)
    for known, face in ((True, colour), (False, "none")):
        own = chosen[points.exact[chosen] == known]
        if len(own):
            look: dict[str, Any] = {
                "markersize": 2.6,
                "markerfacecolor": face,
                "markeredgecolor": colour,
                "markeredgewidth": 0.5,
            }
            for panel, values in ((upper, points.observed), (lower, residual)):
                panel.plot(points.predicted[own], values[own], "o", **look, alpha=0.6, label="rows")
    for panel in (upper, lower):
        panel.locator_params(axis="y", nbins=4)
        panel.locator_params(axis="x", nbins=3)


def _handle(face: str, label: str, edge: str | None = None) -> Line2D:
    return Line2D(
        [], [], marker="o", linestyle="none", markersize=4, color=face, markeredgecolor=edge or face, label=label
    )
