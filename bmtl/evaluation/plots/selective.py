"""How much better the predictions are that a method is certain of."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bmtl.evaluation import metrics
from bmtl.evaluation.metrics.selective import Uncertainty
from bmtl.evaluation.parts import reported_targets
from bmtl.evaluation.style import Trees, lines_of, method_legend, named, panels, styled, task_names


def risk_coverage_curves(
    trees: Trees, *, tasks: Sequence[str] | None = None, uncertainty: Uncertainty = "total", columns: int = 4
) -> Figure:
    """Risk of the rows kept against the share kept, the most uncertain dropped first; a panel per target, a line per method.

    Risk is the mean loss that a target's family defines, such as the error rate of classes and the mean absolute error of
    numbers. Where the uncertainty predicts the errors, a curve falls to the left; the faint one of the same colour is the
    least that any order of the rows would have.

    Args:
        trees: A results tree with uncertainties, or method -> tree.
        tasks: Which targets to draw; by default all with a scored row, or the first 36, and the figure says so.
        uncertainty: By which kind of it rows are kept.
        columns: Panels in a row.

    Raises:
        ValueError: If no target has uncertainties and losses, or a named one is in no run.
    """
    runs = named(trees)
    found = {name: metrics.risk_coverage(tree, uncertainty=uncertainty) for name, tree in runs.items()}
    curves = {name: curve.isel(task=curve["risk"].notnull().any("coverage").values) for name, curve in found.items()}
    shown, left_out = task_names({name: curve["risk"] for name, curve in curves.items()}, tasks, "risk and uncertainty")
    with styled():
        across, down = min(columns, len(shown)), -(-len(shown) // columns)
        figure = Figure(figsize=(max(2.5 * across, 4) + 0.3, 2.0 * down + 0.9), layout="constrained")
        for task, panel in panels(figure, shown, columns).items():
            for name, line in lines_of(list(runs)).items():
                if task in curves[name]["task"].values:
                    curve = curves[name].sel(task=task)
                    panel.plot(
                        curve["coverage"],
                        curve["risk_ideal"],
                        **{**line, "linewidth": 0.8, "label": f"{name}, ideal order"},
                        alpha=0.4,
                    )
                    panel.plot(curve["coverage"], curve["risk"], **line)
            panel.set(xlim=(0, 1), xticks=[0, 0.5, 1], ylabel=_risk(runs, task))
            panel.set_ylim(bottom=0)
            panel.xaxis.set_major_formatter("{x:g}")
        by = "" if uncertainty == "total" else f" ({uncertainty})"
        figure.supxlabel(f"Share of rows kept, by uncertainty{by}{left_out}", fontsize=9)
        ideal = Line2D([], [], color="#666666", linewidth=0.8, alpha=0.6, label="ideal order")
        method_legend(figure, list(runs), extra=[ideal])
    return figure


def _risk(runs: Trees, task: str) -> str:
    """What a panel's axis holds."""
    known = next(known for tree in named(runs).values() if task in (known := reported_targets(tree)))[task]
    name = known.family.loss_name
    return f"{name} ({known.unit})" if known.unit not in ("", "1") else name
