"""How much of a task's prior comes from which other task, read from draws of the weights."""

import numpy as np
import xarray as xr

from bmtl.evaluation.parts import group

ANCHOR = "anchor"
"""The source that is not a task: the fixed share of a prior that depends on no other task."""


def relating(tree: xr.DataTree) -> list[str]:
    """The latents, among "w" and "z", for which a tree says what each task's prior is made of."""
    posterior = tree["posterior"].data_vars if "posterior" in tree.children else {}
    return [latent for latent in ("w", "z") if f"relatedness_{latent}" in posterior]


def relatedness(tree: xr.DataTree, *, latent: str = "w", level: float = 0.95) -> xr.Dataset:
    """Share of each source in each task's prior: mean over the draws, and the interval that holds `level` of them.

    What the draws are depends on the model: of weights with a posterior they are draws of it; Gumbel weights have noise
    and no posterior; weights without noise have one value.

    Args:
        tree: A results tree whose ``posterior`` has ``relatedness_<latent> (chain, draw, task, source)``.
        latent: "w" for classifiers, "z" for representations.
        level: Of the interval, equal-tailed.

    Returns:
        ``mean``, ``low`` and ``high (task, source)``.

    Raises:
        ValueError: If the tree does not hold it, a row does not sum to one, or `level` is not in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a share in (0, 1).")
    share = _shares(tree, latent)
    tails = share.quantile([(1 - level) / 2, (1 + level) / 2], dim=("chain", "draw"))
    return xr.Dataset(
        {
            "mean": share.mean(("chain", "draw")),
            "low": tails.isel(quantile=0, drop=True),
            "high": tails.isel(quantile=1, drop=True),
        }
    )


def nearest(tree: xr.DataTree, *, latent: str = "w") -> xr.Dataset:
    """The task that each task's prior takes most of, the anchor left out.

    Args:
        tree: As for `relatedness`.
        latent: As for `relatedness`.

    Returns:
        ``nearest (task)``, the name of the one with the largest mean share, and ``share_of_draws (task)``, the share of
        the draws in which it is the largest.

    Raises:
        ValueError: As `relatedness`.
    """
    share = _shares(tree, latent)
    tasks = share.sel(source=share["source"] != ANCHOR)
    first = tasks.mean(("chain", "draw")).argmax("source")
    winners = tasks.argmax("source") == first
    return xr.Dataset(
        {
            "nearest": ("task", tasks["source"].values[first.values]),
            "share_of_draws": winners.mean(("chain", "draw")),
        }
    )


def _shares(tree: xr.DataTree, latent: str) -> xr.DataArray:
    name, posterior = f"relatedness_{latent}", group(tree, "posterior")
    if name not in posterior or set(posterior[name].dims) != {"chain", "draw", "task", "source"}:
        raise ValueError(
            f"The posterior has no {name} (chain, draw, task, source); it has {list(posterior.data_vars)}. "
            "bmtl.experiments.trees.add_relatedness writes it for models whose priors come from other tasks."
        )
    share = posterior[name].transpose("chain", "draw", "task", "source").astype(float)
    if not np.allclose(share.sum("source"), 1.0, atol=1e-4):
        raise ValueError(
            f"Rows of {name} do not sum to one: {share.sum('source').values.ravel()[:4]} are the first sums."
        )
    return share
