"""How good class probabilities are: reliability diagrams, and entropies of right and of wrong predictions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import beta

from bmtl.evaluation import metrics
from bmtl.evaluation.metrics import class_arrays
from bmtl.evaluation.parts import group, part_of
from bmtl.evaluation.style import (
    MOST_PANELS,
    Trees,
    lines_of,
    method_legend,
    named,
    panels,
    styled,
    task_names,
    with_any,
)
from bmtl.targets.metrics.entropy import entropy_ratio_of_rows
from bmtl.targets.metrics.probabilities import entropy_of_probabilities, predicted_class

RIGHT, WRONG = "#0072B2", "#D55E00"


def reliability_diagrams(
    trees: Trees,
    *,
    tasks: Sequence[str] | None = None,
    bins: int = 10,
    of_class: int | None = None,
    columns: int = 4,
) -> Figure:
    """Share of right predictions against confidence in bins of equal width, and how many rows have which confidence.

    A panel per target with classes, a line per method; a point is a bin at its mean confidence. Below the diagonal
    predictions are over-confident. Bars are 95 % intervals of each share separately (Clopper and Pearson): one that
    misses the diagonal shows a miscalibrated bin.

    Args:
        trees: A results tree, or method -> tree.
        tasks: Which targets to draw; by default all with classes, or the first 36, and the figure says so.
        bins: How many.
        of_class: Draw the probability of this class against how often it was the label.
        columns: Panels in a row.

    Raises:
        ValueError: If no target has class probabilities, or a named one has none in any run.
    """
    runs = named(trees)
    curves = {name: metrics.class_reliability(tree, bins=bins, of_class=of_class) for name, tree in runs.items()}
    judged = {name: curve.isel(task=(curve["rows"].sum("bin") > 0).values) for name, curve in curves.items()}
    shown, left_out = task_names({name: curve["rows"] for name, curve in judged.items()}, tasks, "class probabilities")
    with styled():
        across, down = min(columns, len(shown)), -(-len(shown) // columns)
        side = max(2.1, 3.6 / across)
        figure = Figure(figsize=(side * across + 0.6, (1.35 * side + 0.2) * down + 0.9), layout="constrained")
        pairs = _diagrams_over_histograms(figure, shown, across)
        for task, (diagram, histogram) in pairs.items():
            diagram.plot([0, 1], [0, 1], color="#666666", linewidth=0.8, zorder=1)
            for name, line in lines_of(list(runs)).items():
                if task in judged[name]["task"].values:
                    _draw(diagram, histogram, judged[name].sel(task=task), line)
        what = "Confidence" if of_class is None else f"Probability of class {of_class}"
        figure.supxlabel(f"{what}{left_out}", fontsize=9)
        happened = "right predictions" if of_class is None else f"labels of class {of_class}"
        figure.supylabel(f"Share of {happened}; below, of rows", fontsize=9)
        calibrated = Line2D([], [], color="#666666", linewidth=0.8, label="calibrated")
        method_legend(figure, list(runs), drawn=with_any(judged, shown), extra=[calibrated])
    return figure


def entropy_histograms(trees: Trees, *, tasks: Sequence[str] | None = None, bins: int = 25, columns: int = 4) -> Figure:
    """Predictive entropies of right and of wrong predictions, each as shares of their number; a panel per method and task.

    Dashed lines are the two means; the panel gives their ratio and the accuracy. Where entropy predicts the errors, wrong
    predictions are to the right of right ones.

    Args:
        trees: A results tree, or method -> tree.
        tasks: Which targets to draw; by default as many as make 36 panels, and the figure says so.
        bins: From zero to the logarithm of the number of classes.
        columns: Panels in a row.

    Raises:
        ValueError: If no target has class probabilities, or a named one has none in any run.
    """
    runs = named(trees)
    found = {
        name: {task: arrays for task, arrays in class_arrays(tree).items() if arrays and not np.isnan(arrays[1]).any()}
        for name, tree in runs.items()
    }
    records = {name: xr.DataArray(list(of), dims="task", coords={"task": list(of)}) for name, of in found.items()}
    shown, left_out = task_names(records, tasks, "class probabilities")
    fitting = max(1, MOST_PANELS // len(runs))
    if tasks is None and len(shown) > fitting:
        left_out = f"; the first {fitting} of {len(set().union(*found.values()))} tasks"
        shown = shown[:fitting]
    places = {
        task if len(runs) == 1 else f"{task}: {name}": found[name][task]
        for task in shown
        for name in runs
        if task in found[name]
    }
    with styled():
        columns = columns if len(runs) == 1 else len(runs) * max(1, columns // len(runs))  # a task's panels in one row
        across, down = min(columns, len(places)), -(-len(places) // columns)
        figure = Figure(figsize=(max(2.4 * across, 5) + 0.4, 1.9 * down + 0.9), layout="constrained")
        most_classes = max(probabilities.shape[1] for _, probabilities in places.values())
        for title, panel in panels(figure, list(places), columns).items():
            _draw_entropies(panel, *places[title], bins)
            panel.set_xlim(0, 1.02 * np.log(most_classes))
        figure.supxlabel(f"Predictive entropy (nats){left_out}", fontsize=9)
        figure.supylabel("Share of right, of wrong predictions", fontsize=9)
        entries = [
            Patch(color=colour, alpha=0.5, label=label) for colour, label in ((RIGHT, "right"), (WRONG, "wrong"))
        ]
        figure.legend(handles=entries, loc="outside upper center", ncols=2)
    return figure


def pava_plot(tree: xr.DataTree, target: str) -> Figure:
    """ArviZ's calibration plot of one target with classes, by isotonic regression of its predictive draws.

    Args:
        tree: A results tree with draws and class probabilities of the test rows, or a part of it.
        target: The target's name. With more than two classes, every class has a panel against the rest.

    Raises:
        ValueError: If the tree has no draws of the target, or it has no classes or no scored row.
    """
    import arviz_plots  # slow to import, and the other pictures need none of it
    from matplotlib import pyplot as plt

    variable, known = f"y_{target}", class_arrays(tree)
    arrays = known.get(target)
    drawn = "posterior_predictive" in part_of(tree).children and variable in group(tree, "posterior_predictive")
    if arrays is None or not drawn:
        having = [name for name, of in known.items() if of is not None]
        raise ValueError(f"The tree has no draws of a target {target!r} with classes; those with classes are {having}.")
    kind = "binary" if arrays[1].shape[1] == 2 else "categorical"
    # Of one target: another without rows would stop it.
    alone = {name: group(tree, name)[[variable]] for name in ("observed_data", "posterior_predictive")}
    plot = arviz_plots.plot_ppc_pava(
        xr.DataTree.from_dict(alone), var_names=[variable], data_type=kind, backend="matplotlib"
    )
    figure: Figure = plot.viz["figure"].item()
    for axes in figure.axes:
        axes.set_title(axes.get_title().replace(f"y_{target}", target))  # the task's name, and not the variable's
    figure.set_layout_engine("constrained")  # else the axis labels are cut off
    plt.close(figure)  # arviz-plots draws through pyplot, which would keep the figure; it stays usable
    return figure


def _diagrams_over_histograms(figure: Figure, titles: Sequence[str], columns: int) -> dict[str, tuple[Axes, Axes]]:
    """For each title a tall panel over a flat one, on a common x axis from 0 to 1."""
    rows = -(-len(titles) // columns)
    grid = figure.subplots(2 * rows, columns, height_ratios=[3, 1] * rows, sharex=True, sharey="row", squeeze=False)
    tall, flat = grid[::2].ravel(), grid[1::2].ravel()
    for spare in (*tall[len(titles) :], *flat[len(titles) :]):
        spare.remove()
    for title, diagram, histogram in zip(titles, tall, flat, strict=False):
        diagram.set_title(title, fontweight="bold")
        diagram.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        histogram.tick_params(labelbottom=True)
        for axes in (diagram, histogram):
            axes.xaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_major_formatter("{x:g}")
    return {title: (tall[place], flat[place]) for place, title in enumerate(titles)}


def _draw(diagram: Axes, histogram: Axes, curve: xr.Dataset, line: dict[str, Any]) -> None:
    filled = curve.isel(bin=(curve["rows"] > 0).values)
    x, share, rows = filled["predicted"].values, filled["observed"].values, filled["rows"].values
    hits = share * rows
    low = np.where(hits > 0, beta.ppf(0.025, hits, rows - hits + 1), 0)  # no beta distribution without a hit
    high = np.where(hits < rows, beta.ppf(0.975, hits + 1, rows - hits), 1)
    diagram.vlines(x, low, high, color=line["color"], alpha=0.4, linewidth=1.0)
    diagram.plot(x, share, **line, marker="o", markersize=2.5)
    edges = np.linspace(0, 1, curve.sizes["bin"] + 1)
    histogram.stairs(curve["rows"] / curve["rows"].sum(), edges, **line)


def _draw_entropies(panel: Axes, labels: np.ndarray, probabilities: np.ndarray, bins: int) -> None:
    right = predicted_class(probabilities) == labels
    entropy = entropy_of_probabilities(probabilities)
    edges = np.linspace(0, np.log(probabilities.shape[1]), bins + 1)
    highest = 0.0
    for chosen, colour in ((right, RIGHT), (~right, WRONG)):
        if chosen.any():
            counts, _ = np.histogram(entropy[chosen].clip(max=edges[-1]), edges)  # rounding may end above the limit
            share = counts / chosen.sum()
            panel.stairs(share, edges, fill=True, color=colour, alpha=0.4)
            panel.stairs(share, edges, color=colour, linewidth=0.8)
            panel.vlines(entropy[chosen].mean(), 0, share.max(), color=colour, linestyle="--", linewidth=1.2)
            highest = max(highest, share.max())
    found = entropy_ratio_of_rows(right, entropy, resamples=1)
    ratio = "no ratio" if np.isnan(found.ratio) else f"ratio {found.ratio:.2f}"
    note = f"{ratio}\naccuracy {found.accuracy:.2f}"
    panel.text(0.98, 0.97, note, transform=panel.transAxes, ha="right", va="top", fontsize=7.5)
    panel.set_ylim(0, 1.4 * highest)  # room for the note
