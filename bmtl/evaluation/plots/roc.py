"""How well probabilities of an event rank rows: ROC and precision-recall curves of targets with two classes."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bmtl.evaluation.parts import scored
from bmtl.evaluation.style import Trees, lines_of, method_legend, named, panels, styled, task_names, with_any
from bmtl.targets.metrics.roc import area_under_roc, average_precision_of_scores, roc_points

MOST_AREAS = 8  # numbers that fit the corner of a panel


def roc_curves(
    trees: Trees,
    *,
    curve: Literal["roc", "precision-recall"] = "roc",
    tasks: Sequence[str] | None = None,
    columns: int = 4,
) -> Figure:
    """A curve of each method, a panel per target with two classes; the second class is the event.

    Each panel gives the areas of the first eight methods: of ROC curves the AUROC, of precision-recall curves the average
    precision. The dashed line is what a score without information shows; where the event is rare, look at precision.

    Args:
        trees: A results tree, or method -> tree.
        curve: Which of the two.
        tasks: Which targets to draw; by default all with two classes of both of which there are rows, or the first 36, and
            the figure says so.
        columns: Panels in a row.

    Raises:
        ValueError: If no target can be drawn, or a named one cannot.
    """
    if curve not in ("roc", "precision-recall"):
        raise ValueError(f"curve is {curve!r}; expected 'roc' or 'precision-recall'.")
    runs = named(trees)
    found: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for name, tree in runs.items():
        found[name] = {}
        for task, rows in scored(tree).items():
            p = rows.prediction.probability
            if p is not None and p.shape[1:] == (2,) and len(np.unique(rows.labels)) == 2 and not np.isnan(p).any():
                found[name][task] = (rows.labels == 1, p[:, 1])
    records = {name: xr.DataArray(list(of), dims="task", coords={"task": list(of)}) for name, of in found.items()}
    shown, left_out = task_names(records, tasks, "probabilities of two classes")
    area = area_under_roc if curve == "roc" else average_precision_of_scores
    with styled():
        across, down = min(columns, len(shown)), -(-len(shown) // columns)
        side = max(2.2, 4 / across)
        figure = Figure(figsize=(side * across + 0.5, (side + 0.05) * down + 0.9), layout="constrained")
        for task, panel in panels(figure, shown, columns, sharey=True).items():
            areas: list[tuple[str, str]] = []
            for name, line in lines_of(list(runs)).items():
                if task not in found[name]:
                    continue
                event, score = found[name][task]
                points = roc_points(event, score)
                x, y = (points.false, points.true) if curve == "roc" else (points.true, points.precision)
                panel.plot(x, y, **line, drawstyle="default" if curve == "roc" else "steps-pre")
                areas.append((f"{area(event, score):.3f}", line["color"]))
            share = float(np.mean(next(found[name][task][0] for name in runs if task in found[name])))
            base = ([0, 1], [0, 1]) if curve == "roc" else ([0, 1], [share, share])
            panel.plot(*base, color="#666666", linewidth=0.8, dashes=(4, 2), zorder=1)
            panel.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            panel.xaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_major_formatter("{x:g}")
            for place, (text, colour) in enumerate(reversed(areas[:MOST_AREAS])):
                height = 0.03 + 0.055 * place
                panel.text(0.98, height, text, color=colour, fontsize=7.5, ha="right", transform=panel.transAxes)
        if curve == "roc":
            figure.supxlabel(f"Share of other rows above the threshold{left_out}", fontsize=9)
            figure.supylabel("Share of events above it", fontsize=9)
        else:
            figure.supxlabel(f"Recall: share of events above the threshold{left_out}", fontsize=9)
            figure.supylabel("Precision: share of events among those above it", fontsize=9)
        nothing = Line2D([], [], color="#666666", linewidth=0.8, dashes=(4, 2), label="no information")
        method_legend(figure, list(runs), drawn=with_any(records, shown), extra=[nothing])
    return figure
