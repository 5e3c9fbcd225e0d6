"""Which classes are taken for which: confusion matrices of one run."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bmtl.evaluation.parts import scored
from bmtl.evaluation.style import FIXED, MOST_PANELS, Trees, named, panels, styled

MOST_WRITTEN = 8  # classes up to which shares fit their cells
MOST_NAMED = 24  # classes up to which names fit an axis


def class_targets(tree: xr.DataTree) -> list[str]:
    """Targets of a run that are classes, with probabilities and a labelled row at least."""
    return list(_counts(tree))


def confusion_matrices(tree: Trees, *, tasks: Sequence[str] | None = None, columns: int = 4) -> Figure:
    """Share of each label's rows by predicted class, a panel per target; rows sum to one.

    Grades are predicted by their median rank, other classes by the most probable one. A class without a labelled row has a
    grey row.

    Args:
        tree: A run's results tree, or its name -> its tree.
        tasks: Which targets to draw; by default all with classes, or the first 36, and the figure says so.
        columns: Panels in a row.

    Raises:
        ValueError: If no target has classes, or a named one has none.
    """
    (method, run), *_ = named(tree).items()
    found = _counts(run)
    if not found:
        raise ValueError(f"No target of {method!r} has class probabilities.")
    for task in tasks or ():
        if task not in found:
            raise ValueError(f"{task!r} has no classes; the targets that have are {list(found)}.")
    shown = list(found if tasks is None else tasks)[:MOST_PANELS]
    left_out = f"; the first {MOST_PANELS} of {len(found)} targets" if tasks is None and len(found) > len(shown) else ""
    names = {task: rows.family.class_names for task, rows in scored(run).items() if task in shown}
    with styled():
        across, down = min(columns, len(shown)), -(-len(shown) // columns)
        side = max(2.2, 3.2 / across, 0.16 * max(map(len, names.values())))
        figure = Figure(figsize=(side * across + 0.5, (side + 0.45) * down + 0.6), layout="constrained")
        for task, panel in panels(figure, shown, columns, sharex=False).items():
            _draw(panel, found[task], names[task])
        figure.supxlabel(f"Predicted by {method}{left_out}", fontsize=9)
        figure.supylabel("Label", fontsize=9)
    return figure


def _counts(tree: xr.DataTree) -> dict[str, np.ndarray]:
    found = {}
    for task, rows in scored(tree).items():
        counts = rows.confusion() if len(rows.labels) else None
        if counts is not None and counts.any():
            found[task] = counts
    return found


def _draw(panel: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.where(totals > 0, totals, np.nan)
    panel.imshow(shares, cmap=mpl.colormaps["Blues"].with_extremes(bad="#E5E5E5"), vmin=0, vmax=1, aspect="auto")
    panel.grid(False)
    for spine in panel.spines.values():
        spine.set_visible(False)
    every = -(-len(names) // MOST_NAMED)
    ticks = range(0, len(names), every)
    short = [name if len(name) <= 12 else f"{name[:11]}…" for name in names]
    turned = sum(map(len, short)) > 16
    panel.set_xticks(ticks, [short[k] for k in ticks], rotation=90 if turned else 0)
    panel.set_yticks(ticks, [f"{short[k]} ({int(totals[k, 0]):,})" for k in ticks])
    panel.tick_params(length=0, labelsize=7)
    if len(names) > MOST_WRITTEN:
        return
    for (row, column), share in np.ndenumerate(shares):
        if not np.isnan(share):
            ink = "white" if share > 0.6 else "black"
            text = panel.text(column, row, f"{100 * share:.0f} %", ha="center", va="center", fontsize=7, color=ink)
            text.set_gid(FIXED)
