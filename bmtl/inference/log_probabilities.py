"""Class probabilities of a fitted classifier's predictive, differentiable in the inputs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Bernoulli, Categorical
from torch.nn import functional as F

from bmtl import inputs
from bmtl.inference.draws import evaluating, guides_of_draws
from bmtl.inference.loaders import forked, seed_random_state
from bmtl.inference.posterior_draws import PosteriorDraws
from bmtl.inference.predicted_sites import EXPECTED, targets_of_site
from bmtl.inference.without_graph import Mode, without_graph
from bmtl.labels import PARTICLE_PLATE


def log_probabilities(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    *,
    num_draws: int = 20,
    seed: int = 0,
    parallel: bool = False,
    max_plate_nesting: int | None = None,
) -> dict[str, Tensor]:
    """Logarithm of the class probabilities of the predictive, which averages draws; differentiable in `x`.

    Dropout is off. One after the other, the draws are those of `bmtl.draw` with this number, this seed and all rows at once.

    Args:
        model: A program that predicts when it is called with inputs alone, as for `bmtl.draw`.
        guide: Its guide.
        x: Inputs, as for `bmtl.draw`.
        num_draws: Number of draws S.
        seed: Seed of the draws; torch's global generator is left unchanged.
        parallel: Take all draws at once, in one more plate left of all others: other draws of the same law, in a fraction
            of the time, and with the memory of all. Model and guide must broadcast, as they must for vectorised particles.
        max_plate_nesting: Number of nested plates, for `parallel`; found from a run on one row if None.

    Returns:
        Target -> ``(N, C)``.

    Raises:
        ValueError: If the model predicts nothing, or a target that is not a classification; if `num_draws` is below 1.
    """
    if num_draws < 1:
        raise ValueError(f"num_draws is a number of draws, from 1, and {num_draws} was given.")
    given = (model, guide)
    if parallel:
        if isinstance(guide, PosteriorDraws):
            raise ValueError(
                "parallel=True takes all draws of a guide at once, and a PosteriorDraws gives one at a time."
            )
        nesting = _nesting(model, guide, inputs.few(x)) if max_plate_nesting is None else max_plate_nesting
        plate = pyro.plate(PARTICLE_PLATE, num_draws, dim=-1 - nesting)
        model, guide = plate(model), plate(guide)
    found: dict[str, list[Tensor]] = {}
    with evaluating(*given), forked(None):
        for own, of_draw in guides_of_draws(guide, 1 if parallel else num_draws, seed):
            seed_random_state(own)
            proposal = poutine.trace(of_draw).get_trace(x)
            with _Predicted() as predicted:
                poutine.replay(model, trace=proposal)(x)
            for target, log_p in predicted.log_p.items():
                found.setdefault(target, []).append(log_p)
    if not found:
        raise ValueError(f"The model predicts nothing. {EXPECTED}")
    return {target: _averaged(torch.stack(parts)) for target, parts in found.items()}


class _Predicted(Messenger):
    """Gathers the targets' log probabilities in place of drawing them.

    Attributes:
        log_p: By target.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_p: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        targets = None if msg["value"] is not None else targets_of_site(msg)
        if targets is None:
            return
        log_p = _log_p(msg["fn"], ", ".join(targets.names), msg["name"])
        self.log_p |= dict(zip(targets.names, targets.split(log_p, 1), strict=True))
        msg["value"], msg["done"] = log_p.new_zeros(log_p.shape[:-1]), True


def _averaged(log_p: Tensor) -> Tensor:
    """Over all but rows and classes."""
    each = log_p.flatten(0, -3)
    return each.logsumexp(0) - np.log(len(each))


def _nesting(model: Callable[..., Any], guide: Callable[..., Any], x: Any) -> int:
    """How deep plates are nested at most."""

    def traces(mode: Mode) -> tuple[Any, Any]:
        with mode():
            proposal = poutine.trace(guide).get_trace(x)
            return proposal, poutine.trace(poutine.replay(model, trace=proposal)).get_trace(x)

    with evaluating(model, guide), forked(None):
        proposal, trace = without_graph(traces)
    frames = [f for t in (proposal, trace) for site in t.nodes.values() for f in site.get("cond_indep_stack", ())]
    return -min((frame.dim for frame in frames if frame.dim is not None), default=0)


def _log_p(fn: Any, target: str, site: str) -> Tensor:
    """Logarithm of class probabilities ``(*batch, C)``."""
    while isinstance(fn, dist.MaskedDistribution):
        fn = fn.base_dist
    if isinstance(fn, Categorical):
        return fn.logits  # normalised by torch
    if isinstance(fn, Bernoulli):
        return torch.stack([F.logsigmoid(-fn.logits), F.logsigmoid(fn.logits)], -1)
    raise ValueError(
        f"The model predicts {target!r} (site {site!r}) by a {type(fn).__name__}; classes are expected, as Categorical or "
        "Bernoulli."
    )
