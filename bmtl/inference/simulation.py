"""Simulation-based calibration of a guide: where known latents fall in what is learnt from data made with them.

If latents are drawn from the prior and labels from the likelihood, the latents are a draw from the posterior of that data
set. If the guide equals the posterior, their rank among its own draws is therefore uniform. Sources: Talts et al.
(2018), "Validating Bayesian inference algorithms with simulation-based calibration"; for guides Yao, Vehtari, Simpson &
Gelman (2018), "Yes, but did it work?: evaluating variational inference", section 3.
"""

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro.poutine as poutine
import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from scipy.special import ndtr
from torch import Tensor

from bmtl.inference.accumulator import to_numpy
from bmtl.inference.draws import evaluating, guides_of_draws
from bmtl.inference.loaders import forked, seed_random_state
from bmtl.inference.predicted_sites import EXPECTED, predicted_sites
from bmtl.inference.site_tasks import named_rows
from bmtl.inference.without_graph import Mode, without_graph

Fit = Callable[[int, Any, dict[str, Tensor]], Callable[..., Any]]


@dataclass(frozen=True)
class SimulatedRanks:
    """Ranks of the true latents of R simulated data sets among S draws of the guides fitted to them.

    All are arrays ``(R,)``, by entry: a site's name for a scalar, ``"head_a[0,3]"`` for an entry of a larger one.

    Attributes:
        truth: The latents that made the data.
        mean: The guide's mean, over its draws.
        sd: The guide's standard deviation, over its draws.
        ranks: Number of the guide's draws below the truth, from 0 to S; uniform if the guide is the posterior. A draw
            that equals the truth is counted with probability 1/2.
        num_draws: S.
    """

    truth: dict[str, np.ndarray]
    mean: dict[str, np.ndarray]
    sd: dict[str, np.ndarray]
    ranks: dict[str, np.ndarray]
    num_draws: int

    @property
    def errors(self) -> dict[str, np.ndarray]:
        """Guide's mean less truth, in the guide's standard deviations; infinite where the guide is a point."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: (self.mean[name] - self.truth[name]) / self.sd[name] for name in self.truth}

    @property
    def probability(self) -> dict[str, np.ndarray]:
        """The cdf at the truth of a normal with the guide's mean and standard deviation: the guide's own, if it is normal.

        Finer in the tails than ranks, which take S + 1 values.
        """
        return {name: ndtr(-errors) for name, errors in self.errors.items()}


@torch.no_grad()
def simulated_ranks(
    model: Callable[..., Any],
    fit: Fit,
    x: Any,
    *,
    datasets: int = 100,
    num_draws: int = 99,
    sites: Collection[str] | Mapping[str, Collection[int]] | None = None,
    seed: int = 0,
) -> SimulatedRanks:
    """Ranks of known latents in guides fitted to data that were simulated with them.

    Each data set costs a fit. The test covers guide, optimizer and training together, for data sets from the prior at
    these inputs. Parameters of the model are held fixed: `fit` must use the same ones (of the trunk, for example), or the
    latents above them have another meaning. A prior that changes during the fit, as that of `VMTL` from other tasks, cannot
    be simulated from.

    Args:
        model: The task model; ``model(x)`` samples its latents from their priors, and predicts as for `bmtl.draw`.
        fit: ``fit(seed, x, y)`` makes a new guide, trains it on labels `y` by target, and returns it. For an AutoGuide,
            a new one of `model`; to test MCMC, a `PosteriorDraws` of a run on `x` and `y`.
        x: Inputs of every data set, anything that the model takes.
        datasets: How many data sets R are simulated.
        num_draws: Draws S of each guide.
        sites: Latents to rank, all by default: names, or a mapping name -> numbers of entries, counted along the flattened
            site.
        seed: Seeds everything, `fit` included; torch's global generator is left unchanged.

    Raises:
        ValueError: If `datasets` or `num_draws` is below 1 or 2, the model has no latent or no site ``y_<target>``, a site
            of `sites` is not a latent, an entry is not there, or a guide does not draw a latent.
    """
    if datasets < 1 or num_draws < 2:
        raise ValueError(f"datasets is {datasets} and num_draws {num_draws}; expected 1 data set and 2 draws or more.")
    generator = torch.Generator().manual_seed(seed)
    coins = np.random.default_rng(seed)
    names: list[str] = []
    truths, means, sds, ranks = [], [], [], []
    for own in torch.randint(2**62, (datasets,), generator=generator).tolist():
        with forked(None):
            with evaluating(model):
                trace = without_graph(functools.partial(_seeded_trace, model, x, own))
            latents, y = _latents_and_labels(trace)
            chosen = _chosen(latents, sites)
            with torch.enable_grad():
                guide = fit(own, x, y)
            with evaluating(guide):
                guides = [of_draw for _, of_draw in guides_of_draws(guide, num_draws, own)]
                traces = (poutine.trace(of_draw).get_trace(x) for of_draw in guides)
                drawn = np.stack([_entries(_sampled(each, trace), chosen, latents) for each in traces])  # (S, entries)
        truth = _entries(latents, chosen, latents)
        names = names or [_called(name, index, latents) for name, indices in chosen.items() for index in indices]
        truths.append(truth)
        means.append(drawn.mean(axis=0))
        sds.append(drawn.std(axis=0, ddof=1))
        ranks.append((drawn < truth).sum(axis=0) + coins.binomial((drawn == truth).sum(axis=0), 0.5))

    def by_entry(rows: list[np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, np.stack(rows, axis=1), strict=True))

    return SimulatedRanks(by_entry(truths), by_entry(means), by_entry(sds), by_entry(ranks), num_draws)


def _seeded_trace(model: Callable[..., Any], x: Any, seed: int, mode: Mode) -> Trace:
    seed_random_state(seed)
    with mode():
        return poutine.trace(model).get_trace(x)


def _sampled(trace: Trace, model: Trace) -> dict[str, Tensor]:
    """Values of all sites that are neither observed nor a plate, by the names that the model gives them."""
    found: dict[str, Tensor] = {}
    sites: dict[str, Any] = dict(trace.nodes)
    for site in sites.values():
        if site["type"] == "sample" and not site_is_subsample(site) and not site["is_observed"]:
            found |= named_rows({**model.nodes.get(site["name"], site), "value": site["value"].detach()})
    return found


def _latents_and_labels(trace: Trace) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values of the latents by site, and of the labels by target."""
    found = _sampled(trace, trace)
    labels: dict[str, Tensor] = {}
    for targets, site in predicted_sites(trace, {}):
        for name in named_rows(site):
            del found[name]
        value = site["value"].detach()
        labels |= dict(zip(targets.names, targets.split(value, len(site["fn"].event_shape)), strict=True))
    if not found or not labels:
        raise ValueError(f"The model samples latents {list(found)} and the targets {list(labels)}. {EXPECTED}")
    return found, labels


def _chosen(
    latents: Mapping[str, Tensor], sites: Collection[str] | Mapping[str, Collection[int]] | None
) -> dict[str, list[int]]:
    """Numbers of the entries to rank, by site."""
    unknown = sorted(set(sites or ()) - set(latents))
    if unknown:
        raise ValueError(f"There is no latent {', '.join(map(repr, unknown))}; there are {list(latents)}.")
    every = {name: range(value.numel()) for name, value in latents.items() if sites is None or name in sites}
    chosen = {name: list(sites[name]) if isinstance(sites, Mapping) else list(all_) for name, all_ in every.items()}
    if not any(chosen.values()):
        raise ValueError(f"sites names no entry to rank; the latents are {list(latents)}.")
    for name, indices in chosen.items():
        if any(index not in every[name] for index in indices):
            raise ValueError(
                f"The latent {name!r} has entries 0 to {len(every[name]) - 1}, and {indices} were asked for."
            )
    return chosen


def _entries(
    values: Mapping[str, Tensor], chosen: Mapping[str, list[int]], latents: Mapping[str, Tensor]
) -> np.ndarray:
    """The chosen entries of all sites in a row, float64."""
    for name in chosen:
        if name not in values or values[name].shape != latents[name].shape:
            found = {site: tuple(value.shape) for site, value in values.items()}
            raise ValueError(
                f"The model has a latent {name!r} of shape {tuple(latents[name].shape)}, and the guide draws {found}."
            )
    return np.concatenate([to_numpy(values[name]).astype(float).reshape(-1)[of] for name, of in chosen.items()])


def _called(name: str, index: int, latents: Mapping[str, Tensor]) -> str:
    shape = tuple(latents[name].shape)
    return f"{name}[{','.join(map(str, np.unravel_index(index, shape)))}]" if shape else name
