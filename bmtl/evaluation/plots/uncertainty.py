"""How large uncertainties are next to the errors, and of what kind: aleatoric against epistemic."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bmtl.evaluation.parts import scored
from bmtl.evaluation.style import Trees, lines_of, named, rows_of_methods, styled, task_names


def uncertainty_parts(trees: Trees, *, tasks: Sequence[str] | None = None, columns: int = 4) -> Figure:
    """Mean aleatoric and epistemic uncertainty in units of what errors show, a panel per target and a row per method.

    Variances of numbers are divided by the mean squared error of the rows, entropies of classes by the mean negative log
    probability of the labels: a calibrated predictive ends at the line at 1. A bar that ends before it is of a method that
    is too certain, one beyond it of a method that is too uncertain, on average over the rows. The solid part is aleatoric,
    the hatched one epistemic: what a posterior adds; a method without one has none.

    Args:
        trees: A results tree with uncertainties, or method -> tree.
        tasks: Which targets to draw; by default all that have them, or the first 36, and the figure says so.
        columns: Panels in a row.

    Raises:
        ValueError: If no target has uncertainties and errors, or a named one is in no run.
    """
    runs = named(trees)
    found = {name: uncertainty_shares(tree) for name, tree in runs.items()}
    shown, left_out = task_names(found, tasks, "uncertainties and errors")
    having = [name for name, of in found.items() if set(shown) & set(of["task"].values.tolist())]
    with styled():
        figure, axes = rows_of_methods(shown, having, columns)
        lines = lines_of(list(runs))
        for task, panel in axes.items():
            panel.axvline(1, color="#666666", linewidth=0.8, zorder=3)
            for row, name in enumerate(having):
                if task not in found[name]["task"].values:
                    continue
                aleatoric, epistemic = found[name].sel(task=task).values
                colour = lines[name]["color"]
                panel.barh(row, aleatoric, 0.6, color=colour, alpha=0.75, label=f"{name}, aleatoric")
                panel.barh(
                    row,
                    epistemic,
                    0.6,
                    left=aleatoric,
                    facecolor="none",
                    edgecolor=colour,
                    hatch="////",
                    linewidth=0.8,
                    label=f"{name}, epistemic",
                )
            panel.set_xlim(0, 1.05 * max(1.0, panel.get_xlim()[1]))
        figure.supxlabel(f"Mean uncertainty over what the errors show; calibrated: 1{left_out}", fontsize=9)
        figure.legend(
            handles=[
                Patch(color="#8C8C8C", alpha=0.75, label="aleatoric"),
                Patch(facecolor="none", edgecolor="#8C8C8C", hatch="////", label="epistemic"),
            ],
            loc="outside upper center",
            ncols=2,
        )
    return figure


def uncertainty_shares(tree: xr.DataTree) -> xr.DataArray:
    """Mean aleatoric and epistemic uncertainty over the mean of what errors show, ``(task, part)``.

    Targets without uncertainties, or whose errors are not known in full, are left out.
    """
    found = {}
    for task, rows in scored(tree).items():
        of = rows.prediction
        realised = rows.realised() if len(rows.labels) else None
        if realised is None or of.aleatoric is None or of.epistemic is None:
            continue
        scale = float(np.mean(realised))
        if np.isfinite(scale) and scale > 0:
            found[task] = [float(np.mean(of.aleatoric)) / scale, float(np.mean(of.epistemic)) / scale]
    values = np.asarray(list(found.values())).reshape(-1, 2)
    return xr.DataArray(values, dims=("task", "part"), coords={"task": list(found), "part": ["aleatoric", "epistemic"]})
