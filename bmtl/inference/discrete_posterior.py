"""The posterior of discrete latents that a model sums out."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bmtl.inference.draws import evaluating
from bmtl.inference.elbo import TaskELBO
from bmtl.inference.loaders import forked
from bmtl.inference.without_graph import Mode, without_graph


def discrete_posterior(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_draws: int = 20,
    seed: int = 0,
    max_plate_nesting: int | None = None,
    **kwargs: Any,
) -> dict[str, Tensor]:
    """The posterior of each latent that ``TaskELBO("enum")`` sums out in the model, given the labels of a batch.

    It is exact given the guide's draws, over which it is averaged. Missing labels are left out, and dropout is off. For rows
    without labels, `bmtl.draw` draws the latents from their prior.

    Args:
        model: The task model.
        guide: Its guide. What it enumerates itself is not among the results, since the guide is its posterior.
        *args: The batch with its labels, for both.
        num_draws: Number of draws of the guide.
        seed: Seed of the draws; torch's global generator is left unchanged.
        max_plate_nesting: The model's number of nested plates; found from a run if None.
        **kwargs: The batch, for both.

    Returns:
        Site -> probabilities ``(*plates, values)``, the values in the order of the distribution's ``enumerate_support()``.

    Raises:
        ValueError: If no latent is summed out in the model, or `num_draws` is below 1.
    """
    elbo = TaskELBO("enum", num_draws, max_plate_nesting=max_plate_nesting)

    def run(mode: Mode) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        with mode():
            return elbo.discrete_posterior(model, guide, *args, **kwargs)

    with evaluating(model, guide), forked(None):
        found = without_graph(run)
    if not found:
        raise ValueError(
            "No latent is summed out in the model. Mark the site of a discrete latent that has no site in the guide: "
            "infer={'enumerate': 'parallel'}."
        )
    return found
