"""Weights of all tasks over the steps, a panel per method and a line per task."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bmtl.evaluation.history import recorded
from bmtl.evaluation.plots.curves import averaged, scale_alike, smoothed
from bmtl.evaluation.style import COLOURS, Trees, method_legend, named, panels, series_lines, styled, task_names

MOST_LINES = 2 * len(COLOURS)  # that a reader can distinguish
EXTREMES = 3  # of many tasks, as many at either end are named
GREY = {"color": "#BBBBBB", "linewidth": 0.6, "zorder": 1}


def weights_over_time(
    trees: Trees, *, window: int | None = None, tasks: Sequence[str] | None = None, columns: int = 3
) -> Figure:
    """Effective weight of every task over the steps: a panel per method, a line per task, one log axis for all.

    Of more than fourteen tasks, the three with the largest and the three with the least weight at the end have a colour
    and a name; the others are grey.

    Args:
        trees: A results tree, or method -> tree. Those that recorded no weights are left out.
        window: Steps of the centred moving average; a 25th of each run's by default.
        tasks: Which tasks to draw; by default all of them.
        columns: Panels in a row.

    Raises:
        ValueError: If no run recorded weights, or a named task is in none of them.
    """
    found = {name: recorded(tree, "weights") for name, tree in named(trees).items()}
    weights = {name: record for name, record in found.items() if record is not None}
    task_names(found, tasks)  # says what is missing
    shown = list(tasks or dict.fromkeys(str(task) for record in weights.values() for task in record["task"].values))
    coloured = shown if len(shown) <= MOST_LINES else _extremes(weights, shown)
    with styled():
        across, down = min(columns, len(weights)), -(-len(weights) // columns)
        wide = max(2.6, 5.6 / across)
        figure = Figure(figsize=(wide * across + 0.5, 2.4 * down + 0.9), layout="constrained")
        axes = panels(figure, list(weights), columns, sharey=True)
        lines = series_lines(coloured)
        for name, panel in axes.items():
            steps, smooth = smoothed(weights[name], window)
            for k, task in enumerate(weights[name]["task"].values.tolist()):
                if task in shown:
                    panel.plot(steps, smooth[:, k], **lines.get(task, GREY))
        gaps = "; a gap is a weight of zero or less" if scale_alike(axes) else ""
        grey = f"; grey: {len(shown) - len(coloured)} other tasks" if len(coloured) < len(shown) else ""
        figure.supxlabel(f"Step ({averaged(window)}){grey}{gaps}", fontsize=9)
        figure.supylabel("Effective weight", fontsize=9)
        method_legend(figure, coloured, lines=lines)
    return figure


def _extremes(weights: Mapping[str, xr.DataArray], tasks: Sequence[str]) -> list[str]:
    """Tasks with the largest and the least weights in the last tenth of the steps, by their mean rank over the methods."""
    ranks: dict[str, list[float]] = {task: [] for task in tasks}
    for record in weights.values():
        last = record.isel(step=slice(-max(1, record.sizes["step"] // 10), None)).mean("step", skipna=True)
        known = last.dropna("task")
        order = np.argsort(np.argsort(known.values)) / max(1, known.size - 1)
        for task, rank in zip(known["task"].values.tolist(), order.tolist(), strict=True):
            if task in ranks:
                ranks[task].append(rank)
    ordered = sorted((task for task in tasks if ranks[task]), key=lambda task: -float(np.mean(ranks[task])))
    return [*ordered[:EXTREMES], *ordered[-EXTREMES:]]
