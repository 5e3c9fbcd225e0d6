"""How much better predictions are that a method is sure of."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bmtl.evaluation import metrics
from bmtl.evaluation.metrics.selective import Part
from bmtl.evaluation.style import Trees, lines_of, method_legend, named, panels, styled, task_names


def risk_coverage_curves(
    trees: Trees, *, tasks: Sequence[str] | None = None, part: Part = "total", columns: int = 4
) -> Figure:
    """Risk of the rows kept against the share kept, the most uncertain left out first; a panel a target, a line a method.

    Risk is the error rate of a classification and the mean absolute error of a regression. A curve that falls to the
    left says that the uncertainty knows the errors; the faint one of the same colour is the least that any order of
    the rows would have.

    Args:
        trees: A results tree with ``uncertainty``, or method -> tree.
        tasks: Which targets to draw; by default all with a scored row, or the first 36, and the figure says so.
        part: Of the uncertainty that rows are kept by.
        columns: Panels beside each other.

    Raises:
        ValueError: If a tree lacks a group that this is computed from, or a named target is in none.
    """
    runs = named(trees)
    found = {name: metrics.risk_coverage(tree, part=part) for name, tree in runs.items()}
    curves = {name: curve.isel(task=curve["risk"].notnull().any("coverage").values) for name, curve in found.items()}
    shown, left_out = task_names({name: curve["risk"] for name, curve in curves.items()}, tasks)
    with styled():
        across, down = min(columns, len(shown)), -(-len(shown) // columns)
        figure = Figure(figsize=(max(2.5 * across, 4) + 0.3, 2.0 * down + 0.9), layout="constrained")
        for task, panel in panels(figure, shown, columns).items():
            for name, line in lines_of(list(runs)).items():
                if task in curves[name]["task"].values:
                    curve = curves[name].sel(task=task)
                    panel.plot(curve["coverage"], curve["risk_ideal"], **{**line, "linewidth": 0.8}, alpha=0.4)
                    panel.plot(curve["coverage"], curve["risk"], **line)
            panel.set(xlim=(0, 1), xticks=[0, 0.5, 1], ylabel=_risk(runs, task))
            panel.set_ylim(bottom=0)
            panel.xaxis.set_major_formatter("{x:g}")
        by = "" if part == "total" else f" ({part})"
        figure.supxlabel(f"Share of rows kept, by uncertainty{by}{left_out}", fontsize=9)
        ideal = Line2D([], [], color="#666666", linewidth=0.8, alpha=0.6, label="ideal order")
        method_legend(figure, list(runs), extra=[ideal])
    return figure


def _risk(runs: Trees, task: str) -> str:
    """What a panel's axis holds."""
    tree = next(tree for tree in named(runs).values() if task in metrics.rows(tree)["task"].values)
    if "probability" in tree.children and f"y_{task}" in tree["probability"].data_vars:
        return "Error rate"
    units = metrics.rows(tree).get("unit")  # a tree without constants has none
    unit = "" if units is None else str(units.sel(task=task).item())
    return f"MAE ({unit})" if unit else "MAE"
