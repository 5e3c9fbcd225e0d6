"""Whether a guide is calibrated on simulated data: ranks of the truth, latent by latent."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bmtl.evaluation.style import COLOURS, panels, styled, task_names


def rank_deviations(found: xr.Dataset, *, latents: Sequence[str] | None = None, columns: int = 4) -> Figure:
    """ECDF of the truth's ranks less that of uniform ones, a panel a latent.

    A calibrated guide stays inside the band everywhere, in as many cases as the band's level says, latent by latent. Above
    zero throughout, the guide is too high; below, too low. A wave up and then down says that it is too narrow, down and
    then up too wide.

    Args:
        found: From `bmtl.evaluation.simulation.rank_calibration`.
        latents: Which to draw; by default all, or the first 36, and the figure says so.
        columns: Panels in a row.

    Raises:
        ValueError: If a named latent is not there.
    """
    for name in latents or ():
        if name not in found["latent"].values:
            raise ValueError(f"There is no latent {name!r}; there are {found['latent'].values.tolist()}.")
    shown, left_out = task_names({"ranks": found["ecdf"].rename(latent="task")}, latents)
    points = found["point"].values
    with styled():
        across, down = min(columns, len(shown)), -(-len(shown) // columns)
        figure = Figure(figsize=(2.3 * max(across, 2) + 0.5, 1.8 * down + 1.2), layout="constrained")
        for name, panel in panels(figure, shown, columns, sharey=True).items():
            of = found.sel(latent=name)
            low, high = of["lower"] - of["point"], of["upper"] - of["point"]
            panel.fill_between(points, low, high, color="#BBBBBB", alpha=0.5, linewidth=0)
            panel.axhline(0, color="#666666", linewidth=0.8, zorder=1)
            panel.plot(points, of["ecdf"] - of["point"], color=COLOURS[0])
            panel.set(xlim=(0, 1), xticks=[0, 0.5, 1])
            panel.xaxis.set_major_formatter("{x:g}")
        figure.supxlabel(f"Rank of the truth among the guide's draws{left_out.replace('tasks', 'latents')}", fontsize=9)
        figure.supylabel("Share of data sets below, less uniform", fontsize=9)
        band = Patch(
            color="#BBBBBB", alpha=0.5, linewidth=0, label=f"calibrated, {float(found['level']):.0%} of whole curves"
        )
        figure.legend(
            handles=[Line2D([], [], color=COLOURS[0], label="guide"), band], loc="outside upper center", ncols=2
        )
    return figure
