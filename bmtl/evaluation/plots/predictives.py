"""Whether predictives are calibrated, and what that costs in width: before and after recalibration, or between methods."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bmtl.evaluation import metrics
from bmtl.evaluation.parts import scored
from bmtl.evaluation.style import Trees, lines_of, method_legend, named, panels, styled, task_names, with_any

WIDTH_LEVELS = np.arange(1, 20) / 20  # .05, .10, ..., .95


def pit_deviations(trees: Trees, *, tasks: Sequence[str] | None = None, columns: int = 4) -> Figure:
    """ECDF of the PIT values less that of a uniform, a panel per target.

    A calibrated predictive stays inside the band everywhere in 95 % of cases (of the run with the fewest rows). A wave up
    and then down: predictives are too narrow; down and then up: too wide; above zero throughout: too large.

    Args:
        trees: A results tree, or method -> tree; a tree and its recalibrated ones can be compared so too.
        tasks: Which targets to draw; by default all with PIT values, or the first 36, and the figure says so.
        columns: Panels in a row.

    Raises:
        ValueError: If no target has a predictive cdf, or a named one is in no run.
    """
    runs = named(trees)
    found = {name: metrics.pit_bands(tree) for name, tree in runs.items()}
    curves = {name: _drawn(bands["ecdf"] - bands["point"]) for name, bands in found.items()}
    counts = {name: metrics.rows(tree)["rows"] for name, tree in runs.items()}
    shown, left_out = task_names(curves, tasks, "a predictive cdf")
    with styled():
        figure, axes = _figure(shown, columns)
        for task, panel in axes.items():
            having = [name for name, curve in curves.items() if task in curve["task"].values]
            fewest = found[min(having, key=lambda name: int(counts[name].sel(task=task)))].sel(task=task)
            points = fewest["point"].values
            low, high = fewest["lower"].values - points, fewest["upper"].values - points
            panel.fill_between(points, low, high, color="#BBBBBB", alpha=0.5, linewidth=0)
            panel.axhline(0, color="#666666", linewidth=0.8, zorder=1)
            _lines(panel, curves, task, "point")
            panel.set(xlim=(0, 1), xticks=[0, 0.5, 1])
            panel.xaxis.set_major_formatter("{x:g}")
        figure.supxlabel(f"Predictive cdf at the label{left_out}", fontsize=9)
        figure.supylabel("Share of labels below,\nless uniform", fontsize=9)
        band = Patch(color="#BBBBBB", alpha=0.5, linewidth=0, label="calibrated, 95 % of whole curves")
        method_legend(figure, list(runs), drawn=with_any(curves, shown), extra=[band])
    return figure


def interval_widths(trees: Trees, *, tasks: Sequence[str] | None = None, columns: int = 4) -> Figure:
    """Sharpness: mean width of central predictive intervals against their nominal level, a panel per target, in its unit.

    Narrower is better among calibrated predictives only: see `reliability_curves`.

    Args:
        trees: A results tree, or method -> tree.
        tasks: Which targets to draw; by default all with a number per row and a predictive, or the first 36, and the figure
            says so.
        columns: Panels in a row.

    Raises:
        ValueError: If no target has a predictive, or a named one is in no run.
    """
    runs = named(trees)
    curves = {name: _drawn(_widths(tree)) for name, tree in runs.items()}
    units: dict[str, str] = {}
    for tree in runs.values():
        rows = metrics.rows(tree)
        if "unit" in rows.coords:
            units |= {str(name): str(unit) for name, unit in zip(rows["task"].values, rows["unit"].values, strict=True)}
    shown, left_out = task_names(curves, tasks, "a predictive")
    with styled():
        figure, axes = _figure(shown, columns)
        for task, panel in axes.items():
            _lines(panel, curves, task, "level")
            panel.set(xlim=(0, 1), xticks=[0, 0.5, 1])
            panel.set_ylim(bottom=0)
            panel.xaxis.set_major_formatter("{x:g}")
            if units.get(task, "1") != "1":
                panel.set_title(f"{task} ({units[task]})", fontweight="bold")
        figure.supxlabel(f"Nominal level of the central interval{left_out}", fontsize=9)
        figure.supylabel("Mean width", fontsize=9)
        method_legend(figure, list(runs), drawn=with_any(curves, shown))
    return figure


def _widths(tree: xr.DataTree) -> xr.DataArray:
    tails = (1 - WIDTH_LEVELS[:, None]) / 2
    widths = {}
    for name, rows in scored(tree).items():
        number = not rows.family.class_names and not rows.family.axes()
        if number and len(rows.labels) and rows.prediction.has("predictive"):
            predictive = rows.predictive()
            widths[name] = (predictive.quantile(1 - tails) - predictive.quantile(tails)).mean(axis=1)
    values = np.asarray(list(widths.values())).reshape(-1, WIDTH_LEVELS.size)
    return xr.DataArray(values, dims=("task", "level"), coords={"task": list(widths), "level": WIDTH_LEVELS})


def _drawn(curves: xr.DataArray) -> xr.DataArray:
    """Without targets that have no curve: those with classes, and those without a scored row."""
    return curves.dropna("task", how="all")


def _figure(shown: Sequence[str], columns: int) -> tuple[Figure, dict[str, Axes]]:
    across, down = min(columns, len(shown)), -(-len(shown) // columns)
    side = max(2.1, 4 / across)
    figure = Figure(figsize=(side * across + 0.5, 0.8 * side * down + 0.9), layout="constrained")
    return figure, panels(figure, shown, columns)


def _lines(panel: Axes, curves: dict[str, xr.DataArray], task: str, along: str) -> None:
    for name, line in lines_of(list(curves)).items():
        if task in curves[name]["task"].values:
            panel.plot(curves[name][along], curves[name].sel(task=task), **line)
