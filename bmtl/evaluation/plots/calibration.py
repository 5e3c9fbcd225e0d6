"""Whether a predictive's central intervals hold as many labels as they should."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.stats import binom

from bmtl.evaluation import metrics
from bmtl.evaluation.parts import group, part_of, part_targets
from bmtl.evaluation.style import Trees, lines_of, method_legend, named, panels, styled, task_names, with_any
from bmtl.targets.metrics.pit import LEVELS


def reliability_curves(trees: Trees, *, tasks: Sequence[str] | None = None, columns: int = 4) -> Figure:
    """Observed coverage of central predictive intervals against their nominal level, a panel per target.

    A line above the diagonal: intervals are too wide; below: too narrow. The band holds 95 % of what a perfect predictive
    shows at each level separately, from the binomial of the scored rows (of the run with the fewest). Counts and labels that
    are known up to an interval have randomised PIT values.

    Args:
        trees: A results tree, or method -> tree.
        tasks: Which targets to draw; by default all that have a predictive cdf, or the first 36, and the figure says so.
        columns: Panels in a row.

    Raises:
        ValueError: If no target has a predictive cdf, or a named target is in no run.
    """
    runs = named(trees)
    curves = {name: metrics.reliability(tree)["coverage"].dropna("task", how="all") for name, tree in runs.items()}
    counts = [metrics.rows(tree)["rows"] for tree in runs.values()]
    shown, left_out = task_names(curves, tasks, "a predictive cdf")
    with styled():
        across, down = min(columns, len(shown)), -(-len(shown) // columns)
        side = max(2.1, 4 / across)
        figure = Figure(figsize=(side * across + 0.5, (side + 0.05) * down + 0.9), layout="constrained")
        axes = panels(figure, shown, columns, sharey=True)
        for task, panel in axes.items():
            few = min(int(count.sel(task=task)) for count in counts if task in count["task"].values)
            if few:
                low, high = (binom.ppf(q, few, LEVELS) / few for q in (0.025, 0.975))
                panel.fill_between(LEVELS, low, high, color="#BBBBBB", alpha=0.5, linewidth=0)
            panel.plot([0, 1], [0, 1], color="#666666", linewidth=0.8, zorder=1)
            for name, line in lines_of(list(runs)).items():
                if task in curves[name]["task"].values:
                    panel.plot(LEVELS, curves[name].sel(task=task), **line)
            panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            panel.xaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_major_formatter("{x:g}")
        figure.supxlabel(f"Nominal level of the central interval{left_out}", fontsize=9)
        figure.supylabel("Share of labels inside it", fontsize=9)
        band = Patch(color="#BBBBBB", alpha=0.5, linewidth=0, label="calibrated, 95 %")
        method_legend(figure, list(runs), drawn=with_any(curves, shown), extra=[band])
    return figure


def pit_plot(tree: xr.DataTree, target: str, *, coverage: bool = False) -> Figure:
    """ArviZ's PIT plot of one target: how the labels' ranks among predictive draws depart from uniform.

    Args:
        tree: A results tree with draws of the test rows, or a part of it.
        target: The target's name, such as ``"mu"``.
        coverage: Central intervals in place of the cdf.

    Raises:
        ValueError: If the tree has no draws of the target, or its labels are not numbers.
    """
    import arviz_plots  # slow to import, and the other pictures need none of it
    from matplotlib import pyplot as plt

    variable = f"y_{target}"
    if "posterior_predictive" not in part_of(tree).children or variable not in group(tree, "posterior_predictive"):
        raise ValueError(f"The tree has no draws of {target!r}; its targets are {part_targets(tree)}.")
    if group(tree, "observed_data")[variable].ndim != 1:
        raise ValueError(
            f"A PIT plot takes a number a row, and the labels of {target!r} are not: draw reliability_curves."
        )
    groups = {name: group(tree, name)[[variable]] for name in ("observed_data", "posterior_predictive")}
    plot = arviz_plots.plot_ppc_pit(
        xr.DataTree.from_dict(groups), var_names=[variable], coverage=coverage, backend="matplotlib"
    )
    figure: Figure = plot.viz["figure"].item()
    for axes in figure.axes:
        axes.set_title(target)  # the task's name, and not the variable's
    figure.set_layout_engine("constrained")  # else the axis labels are cut off
    plt.close(figure)  # arviz-plots draws through pyplot, which would keep the figure; it stays usable
    return figure
