"""Which task's prior is made of which other tasks: a heat map with intervals."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from bmtl.evaluation.relatedness import relatedness
from bmtl.evaluation.style import styled


def relatedness_matrix(tree: xr.DataTree, *, latent: str = "w", level: float = 0.95) -> Figure:
    """Share of each source in each task's prior, as a heat map: mean and, below it, the interval over the draws.

    Rows are tasks and sum to one; a task is no source of its own, which is grey.

    Args:
        tree: As for `bmtl.evaluation.relatedness.relatedness`.
        latent: "w" for classifiers, "z" for representations.
        level: Of the interval.

    Raises:
        ValueError: As for `bmtl.evaluation.relatedness.relatedness`.
    """
    found = relatedness(tree, latent=latent, level=level)
    tasks, sources = ([str(name) for name in found[dim].values] for dim in ("task", "source"))
    own = np.array([[task == source for source in sources] for task in tasks])
    values = np.ma.masked_array(found["mean"].values, own)
    with styled():
        figure = Figure(figsize=(0.95 * len(sources) + 2.2, 0.75 * len(tasks) + 1.4), layout="constrained")
        axes = figure.subplots()
        axes.set_facecolor("#E5E5E5")
        image = axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(sources)), sources, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(tasks)), tasks)
        axes.set(xlabel="Source", ylabel="Prior of task")
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, labelsize=9)
        if len(sources) <= 12:  # beyond that the numbers would not fit their cells
            low, high = found["low"].values, found["high"].values
            for (row, column), share in np.ndenumerate(found["mean"].values):
                if not own[row, column]:
                    axes.text(
                        column,
                        row,
                        f"{share:.2f}\n{low[row, column]:.2f} to {high[row, column]:.2f}",
                        ha="center",
                        va="center",
                        fontsize=7.5,
                        color="white" if share > 0.6 else "black",
                    )
        method = tree.attrs.get("method", "run")
        axes.set_title(f"{method}: prior of {latent}, mean and {100 * level:g} % of the draws", loc="left")
        figure.colorbar(image, label="Share of the prior", shrink=0.8)
    return figure
