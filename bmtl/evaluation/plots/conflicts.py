"""Cosines between the gradients of pairs of tasks: heat maps of all pairs, and chosen pairs over the steps."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bmtl.evaluation import conflicts
from bmtl.evaluation.history import has, moving_average
from bmtl.evaluation.style import FIXED, Trees, lines_of, method_legend, named, panels, styled

MOST_PAIRS = 12  # of what is drawn without being requested


def cosine_matrix(tree: xr.DataTree, *, steps: slice = slice(None)) -> Figure:
    """Mean cosine between the gradients of every pair of tasks, as a heat map with task names.

    Args:
        tree: A results tree whose ``training`` has ``cosine``. NaN (a task that was absent, a step at which the
            gradients were not measured) is left out of the mean.
        steps: Which of the recorded steps, by position; ``slice(-100, None)`` are the last hundred.

    Raises:
        ValueError: If no cosines were recorded, or none in these steps.
    """
    mean = conflicts.mean_cosine(tree, steps)
    return _heat_map(tree, mean, f"mean over {_measured(tree, steps)}", "Cosine of task gradients", "RdBu_r", (-1, 1))


def conflict_matrix(tree: xr.DataTree, *, steps: slice = slice(None)) -> Figure:
    """Share of steps at which the gradients of each pair of tasks had a negative cosine, as a heat map.

    For unrelated gradients it is one half.

    Args:
        tree: As for `cosine_matrix`.
        steps: As for `cosine_matrix`.

    Raises:
        ValueError: If no cosines were recorded, or none in these steps.
    """
    share = conflicts.conflict_share(tree, steps)
    title = f"conflicts in {_measured(tree, steps)}"
    return _heat_map(tree, share, title, "Share of steps in conflict", "RdBu", (0, 1))


def cosine_curves(
    trees: Trees,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    window: int | None = None,
    columns: int = 4,
) -> Figure:
    """Moving average of the cosine between the gradients of pairs of tasks, a panel per pair and a line per method.

    As figure 5 of the MT-ENet paper. Below the line at zero the two tasks conflict.

    Args:
        trees: A results tree whose ``training`` has ``cosine``, or method -> tree. Those that recorded none are left out.
        pairs: Which pairs of tasks to draw; by default all of them, or the twelve with the lowest mean cosine over the
            methods, and the figure says so.
        window: Measured steps of the centred moving average; a 25th of each run's by default.
        columns: Panels in a row.

    Raises:
        ValueError: If no run recorded cosines, or none has a named pair.
    """
    runs = named(trees)
    measured = {name: tree for name, tree in runs.items() if has(tree, "cosine")} or runs
    cosines = {name: conflicts.compared(tree, "cosine") for name, tree in measured.items()}  # or says what is missing
    shown, left_out = _chosen(cosines, pairs)
    steps = "4 % of the measured steps" if window is None else f"{window} measured steps"
    with styled():
        across, down = min(columns, len(shown)), -(-len(shown) // columns)
        side = max(2.4, 5.5 / across)
        figure = Figure(figsize=(side * across + 0.5, (0.62 * side + 0.3) * down + 0.7), layout="constrained")
        titles = [f"{a} \N{MULTIPLICATION SIGN} {b}" for a, b in shown]
        axes = panels(figure, titles, columns, sharey=True)
        for panel in axes.values():
            panel.axhline(0, color="#666666", linewidth=0.8, zorder=1)
        for name, line in lines_of(list(cosines)).items():
            for (a, b), panel in zip(shown, axes.values(), strict=True):
                if {a, b} <= set(cosines[name]["task"].values.tolist()):
                    values = cosines[name].sel(task=a, task_bis=b).dropna("step")
                    panel.plot(values["step"], moving_average(values.values, window), **line)
        low, high = next(iter(axes.values())).get_ylim()
        next(iter(axes.values())).set_ylim(min(low, -0.1), max(high, 0.1))
        figure.supxlabel(f"Step (moving average over {steps}){left_out}", fontsize=9)
        figure.supylabel("Cosine of task gradients", fontsize=9)
        method_legend(figure, list(cosines))
    return figure


def _chosen(
    cosines: dict[str, xr.DataArray], pairs: Sequence[tuple[str, str]] | None
) -> tuple[list[tuple[str, str]], str]:
    """The pairs to draw, and a note on those left out."""
    means: dict[tuple[str, str], list[float]] = {}
    for cosine in cosines.values():
        mean = cosine.mean("step", skipna=True)
        names = [str(name) for name in mean["task"].values]
        for i, j in zip(*np.triu_indices(len(names), 1), strict=True):
            if np.isfinite(mean.values[i, j]):
                key = (names[i], names[j])
                means.setdefault(key if key[::-1] not in means else key[::-1], []).append(float(mean.values[i, j]))
    if not means:
        raise ValueError(f"None of the runs {list(cosines)} measured the gradients of two tasks at one step.")
    if pairs is not None:
        for a, b in pairs:
            if (a, b) not in means and (b, a) not in means:
                raise ValueError(f"The pair {(a, b)} was measured in none of the runs; there are {list(means)}.")
        return list(dict.fromkeys((a, b) for a, b in pairs)), ""
    if len(means) <= MOST_PAIRS:
        return list(means), ""
    lowest = sorted(means, key=lambda pair: float(np.mean(means[pair])))
    return lowest[:MOST_PAIRS], f"; of {len(means)} pairs the {MOST_PAIRS} with the lowest mean"


def _measured(tree: xr.DataTree, steps: slice) -> str:
    count = conflicts.compared(tree, "cosine", steps).sizes["step"]
    return f"{count} step{'s' * (count > 1)}"


def _heat_map(
    tree: xr.DataTree, square: xr.DataArray, title: str, label: str, colours: str, limits: tuple[float, float]
) -> Figure:
    """Numbers by pair of tasks, written into their cells where they fit; grey where there is none.

    Blue is conflict, red the opposite: a pair of colours that any colour blindness distinguishes.
    """
    names = [str(name) for name in square["task"].values]
    values = square.values
    low, high = limits
    with styled():
        side = min(max(0.52 * len(names), 2) + 1.2, 14)
        figure = Figure(figsize=(side + 1.1, side), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(values, cmap=mpl.colormaps[colours].with_extremes(bad="#E5E5E5"), vmin=low, vmax=high)
        ticks = range(0, len(names), -(-len(names) // 40))  # more than 40 names would overlap
        labels = [names[tick] for tick in ticks]
        axes.set_xticks(ticks, labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(ticks, labels)
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, labelsize=9 if len(names) <= 20 else 6)
        if len(names) <= 16:  # beyond that the numbers would not fit their cells
            for (row, column), value in np.ndenumerate(values):
                rounded = round(float(value), 2) + 0.0  # no minus before a zero
                text = "" if np.isnan(value) else f"{rounded:.2f}".replace("-", "\N{MINUS SIGN}")
                ink = "white" if abs(2 * value - low - high) > 0.6 * (high - low) else "black"
                axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=ink).set_gid(FIXED)
        bar = figure.colorbar(image, ax=axes, shrink=0.8)
        bar.set_label(label)
        if bar.solids is not None:
            bar.solids.set_rasterized(True)
        bar.ax.spines["outline"].set_visible(False)
        method = tree.attrs.get("method")
        axes.set_title(f"{f'{method}: ' if method else ''}{title}", fontweight="bold")
    return figure
