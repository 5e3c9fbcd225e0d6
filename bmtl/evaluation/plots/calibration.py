"""Whether a predictive's intervals hold what they promise."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.stats import binom

from bmtl.evaluation import metrics
from bmtl.evaluation.style import Trees, lines_of, method_legend, named, panels, styled, task_names


def reliability_curves(trees: Trees, *, tasks: Sequence[str] | None = None, columns: int = 4) -> Figure:
    """Observed coverage of central predictive intervals against their nominal level, a panel a target.

    A line above the diagonal says that intervals are too wide, below that they are too narrow. The band holds 95 % of
    what a perfect predictive shows at each level by itself, from the binomial of the scored rows (of the run with the
    fewest).

    Args:
        trees: A results tree with ``pit``, or method -> tree.
        tasks: Which targets to draw; by default all of them, or the first 36, and the figure says so.
        columns: Panels beside each other.

    Raises:
        ValueError: If a tree has no ``pit``, or a named target is in none.
    """
    runs = named(trees)
    curves = {name: metrics.reliability(tree)["coverage"] for name, tree in runs.items()}
    counts = [metrics.rows(tree)["rows"] for tree in runs.values()]
    shown, left_out = task_names(curves, tasks)
    with styled():
        across, down = min(columns, len(shown)), -(-len(shown) // columns)
        side = max(2.1, 4 / across)
        figure = Figure(figsize=(side * across + 0.5, (side + 0.05) * down + 0.9), layout="constrained")
        axes = panels(figure, shown, columns, sharey=True)
        for task, panel in axes.items():
            few = min(int(count.sel(task=task)) for count in counts if task in count["task"].values)
            if few:
                low, high = (binom.ppf(q, few, metrics.LEVELS) / few for q in (0.025, 0.975))
                panel.fill_between(metrics.LEVELS, low, high, color="#BBBBBB", alpha=0.5, linewidth=0)
            panel.plot([0, 1], [0, 1], color="#666666", linewidth=0.8, zorder=1)
            for name, line in lines_of(list(runs)).items():
                if task in curves[name]["task"].values:
                    panel.plot(metrics.LEVELS, curves[name].sel(task=task), **line)
            panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            panel.xaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_major_formatter("{x:g}")
        figure.supxlabel(f"Nominal level of the central interval{left_out}", fontsize=9)
        figure.supylabel("Share of labels inside it", fontsize=9)
        band = Patch(color="#BBBBBB", alpha=0.5, linewidth=0, label="calibrated, 95 %")
        method_legend(figure, list(runs), extra=[band])
    return figure


def pit_plot(tree: xr.DataTree, target: str, *, coverage: bool = False) -> Figure:
    """ArviZ's PIT plot of one target: how the labels' ranks among predictive draws depart from uniform.

    Args:
        tree: A results tree with ``posterior_predictive``.
        target: The target's name, such as ``"mu"``.
        coverage: Central intervals in place of the cdf.

    Raises:
        ValueError: If the tree has no such target.
    """
    import arviz_plots  # slow to import, and the other pictures need none of it
    from matplotlib import pyplot as plt

    drawn = metrics.group_of(tree, "posterior_predictive")
    if f"y_{target}" not in drawn:
        raise ValueError(f"The tree has no draws of {target!r}; it has {metrics.rows(tree)['task'].values.tolist()}.")
    plot = arviz_plots.plot_ppc_pit(tree, var_names=[f"y_{target}"], coverage=coverage, backend="matplotlib")
    figure: Figure = plot.viz["figure"].item()
    for axes in figure.axes:
        axes.set_title(target)  # the task's name, and not the variable's
    figure.set_layout_engine("constrained")  # else the axis labels are cut off
    plt.close(figure)  # arviz-plots draws through pyplot, which would keep the figure; it stays usable
    return figure
