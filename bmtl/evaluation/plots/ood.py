"""Uncertainty of rows in distribution against rows out of it."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.stats import gaussian_kde

from bmtl.evaluation.ood import Groups, Score, detection_intervals, detection_of_scores, log_uncertainty, uncertainties
from bmtl.evaluation.style import Trees, named, panels, styled

INSIDE, OUTSIDE = "#D55E00", "#0072B2"


def ood_densities(
    trees: Trees, target: str, *, score: Score = "epistemic", groups: Groups | None = None, columns: int = 4
) -> Figure:
    """Densities of log uncertainty in and out of distribution, a panel per method, with the AUROC and its 95 % interval.

    The further apart the two, the better the uncertainty detects inputs from elsewhere. Densities are Gaussian kernel
    estimates (Scott's bandwidth); rows whose uncertainty is zero have no logarithm: they count in the AUROC, and the panel
    says how many are not drawn. A side that is constant is a line.

    Args:
        trees: A results tree with uncertainties of test rows and of rows from elsewhere, or method -> tree.
        target: The target's name.
        score: Which uncertainty.
        groups: Labels of the rows in distribution and out of it that are not independent, see `detection_intervals`.
        columns: Panels in a row.

    Raises:
        ValueError: If a tree lacks a group or the target, or has no row of it on a side.

    Source:
        Oh & Shin (2022), figure 6.
    """
    runs = named(trees)
    sides = {name: uncertainties(tree, target, score) for name, tree in runs.items()}
    for name, (inside, outside) in sides.items():
        if not len(inside) or not len(outside):
            raise ValueError(
                f"{name!r} has {len(inside)} rows of {target!r} in distribution and {len(outside)} out of it; "
                "a density needs rows on both sides."
            )
    with styled():
        across, down = min(columns, len(runs)), -(-len(runs) // columns)
        width = max(2.3, 4.2 / across)
        figure = Figure(figsize=(width * across + 0.4, 1.9 * down + 0.9), layout="constrained")
        for name, panel in panels(figure, list(runs), columns).items():
            _draw(panel, *sides[name], groups)
        figure.supxlabel(f"log {score} uncertainty of {target}", fontsize=9)
        figure.supylabel("Density", fontsize=9)
        figure.legend(
            handles=[
                Patch(color=INSIDE, alpha=0.5, linewidth=0, label="in distribution"),
                Patch(color=OUTSIDE, alpha=0.5, linewidth=0, label="out of distribution"),
            ],
            loc="outside upper center",
            ncols=2,
        )
    return figure


def _draw(panel: Axes, inside: np.ndarray, outside: np.ndarray, groups: Groups | None) -> None:
    auroc = detection_of_scores(inside, outside).auroc
    low, high = (end.auroc for end in detection_intervals(inside, outside, groups=groups))
    hidden = 0
    for values, colour, dash in ((inside, INSIDE, "-"), (outside, OUTSIDE, (0, (3, 3)))):
        logarithms = log_uncertainty(values)
        drawn = logarithms[np.isfinite(logarithms)]
        hidden += len(values) - len(drawn)
        if not len(drawn):
            continue
        if np.ptp(drawn) < 1e-6 * (1 + np.abs(drawn).max()):  # no spread: a kernel estimate does not exist
            height = panel.get_xaxis_transform()  # dashes, since both sides may be one constant
            panel.plot([drawn[0]] * 2, [0, 1], color=colour, linestyle=dash, linewidth=1.8, transform=height)
            continue
        estimate = gaussian_kde(drawn)
        reach = 3 * np.sqrt(estimate.covariance[0, 0])
        grid = np.linspace(drawn.min() - reach, drawn.max() + reach, 400)
        density = estimate(grid)
        panel.fill_between(grid, density, color=colour, alpha=0.35, linewidth=0)
        panel.plot(grid, density, color=colour, linewidth=1.2)
    panel.set_ylim(bottom=0)
    panel.grid(False)
    panel.set_yticks([])
    text = "AUROC –" if np.isnan(auroc) else f"AUROC {auroc:.3f}\n[{low:.3f}, {high:.3f}]"
    if hidden:
        text += f"\n{hidden} of {len(inside) + len(outside)} rows not drawn"
    panel.set_title(text, loc="right", fontsize=7.5)
