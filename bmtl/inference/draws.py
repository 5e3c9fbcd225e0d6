"""Draws from a fitted model and guide as plain arrays: posterior, predictive, pointwise density."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro.poutine as poutine
import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

Inputs = Tensor | Mapping[str, Tensor]

_PREFIX = "y_"


@dataclass(frozen=True)
class Draws:
    """What was drawn, in the model's scaled units; S draws, N rows.

    Attributes:
        posterior: Global latents by site, ``(S, ...)``; empty for a point-mass model.
        predictive: Draws of y by target, ``(S, N)``.
        mean: Mean of the predictive by target: ``(N,)``, class probabilities ``(N, C)``.
        log_likelihood: Log density of the labels by target, ``(S, N)``, one row where there are no latents; NaN where a
            label is missing.
        pit: Predictive cdf at the labels by target, ``(N,)``, averaged over the draws; NaN where a label is missing.
            Continuous targets only; where the distribution has no cdf, the share of draws below the label.
    """

    posterior: dict[str, np.ndarray] = field(default_factory=dict)
    predictive: dict[str, np.ndarray] = field(default_factory=dict)
    mean: dict[str, np.ndarray] = field(default_factory=dict)
    log_likelihood: dict[str, np.ndarray] = field(default_factory=dict)
    pit: dict[str, np.ndarray] = field(default_factory=dict)


@torch.no_grad()
def draw(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Inputs,
    y: Mapping[str, Tensor] | None = None,
    *,
    num_draws: int = 100,
    batch_size: int | None = None,
    seed: int = 0,
) -> Draws:
    """Draws from the guide, and from the model at those draws.

    The program must predict when it is called with inputs alone: ``model(x)`` samples a site ``y_<target>`` for each
    target (`bmtl.observe` with value None does). Latents outside every plate that has the batch's rows are global: a
    draw of them holds for all rows.

    Args:
        model: The task model.
        guide: Its guide, called as ``guide(x)``.
        x: Inputs ``(N, ...)``, or a mapping task -> ``(N_task, ...)``.
        y: Labels by target, ``(N,)``; None gives no densities.
        num_draws: Number of draws S.
        batch_size: Rows at a time, to bound memory; all by default.
        seed: Seeds the draws; torch's global generator is left as it was.

    Raises:
        ValueError: If the model has no site ``y_<target>`` for a label, or `num_draws` is below 1.
    """
    if num_draws < 1:
        raise ValueError(f"num_draws is a number of draws, from 1, and {num_draws} was given.")
    modules = [m for m in (model, guide) if isinstance(m, torch.nn.Module)]
    training = [m.training for m in modules]
    for module in modules:
        module.eval()
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            return _draw(model, guide, x, y, num_draws, batch_size)
    finally:
        for module, mode in zip(modules, training, strict=True):
            module.train(mode)


def _draw(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Inputs,
    y: Mapping[str, Tensor] | None,
    num_draws: int,
    batch_size: int | None,
) -> Draws:
    # Without latents every pass is the same: one gives the densities, and all predictive draws at once.
    probe = poutine.trace(guide).get_trace(_rows(x, slice(0, 1)))
    fixed = not any(site["type"] == "sample" and not site_is_subsample(site) for site in probe.nodes.values())
    passes, samples = (1, num_draws) if fixed else (num_draws, 1)
    posterior: dict[str, list[np.ndarray]] = {}
    totals: dict[str, _Target] = {}
    for _ in range(passes):
        globals_: Trace | None = None
        for rows in _slices(x, batch_size):
            part = _rows(x, rows)
            proposal = guide if globals_ is None else poutine.replay(guide, trace=globals_)
            guide_trace = poutine.trace(proposal).get_trace(part)
            trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(part)
            if globals_ is None:
                globals_ = _global_latents(guide_trace)
                for name in trace.nodes:
                    if name in globals_.nodes:
                        posterior.setdefault(name, []).append(_numpy(globals_.nodes[name]["value"]))  # type: ignore[arg-type]
            for name, site in _predicted(trace, guide_trace):
                target = totals.setdefault(name, _Target())
                label = None if y is None else y.get(name)
                target.add(site["fn"], site["value"], None if label is None else label[rows], samples, rows.start)
    missing = [] if y is None else sorted(set(y) - set(totals))
    if missing:
        raise ValueError(
            f"The model predicts {sorted(totals)}, and labels were given for {missing}. Called with inputs alone it must "
            f"sample a site {_PREFIX}<target> for each."
        )
    return Draws(
        posterior={name: np.stack(values) for name, values in posterior.items()},
        predictive={name: target.draws() for name, target in totals.items()},
        mean={name: target.means(passes) for name, target in totals.items()},
        log_likelihood={name: target.densities() for name, target in totals.items() if target.density},
        pit={name: target.pits(passes) for name, target in totals.items() if target.pit},
    )


class _Target:
    """Gathers one target's rows over chunks and passes; chunks are known by their first row."""

    def __init__(self) -> None:
        self.sampled: dict[int, list[np.ndarray]] = {}
        self.mean: dict[int, np.ndarray] = {}
        self.density: dict[int, list[np.ndarray]] = {}
        self.pit: dict[int, np.ndarray] = {}

    def add(self, fn: Any, value: Tensor, label: Tensor | None, samples: int, start: int) -> None:
        drawn = value[None] if samples == 1 else fn.sample((samples,))
        self.sampled.setdefault(start, []).append(_numpy(drawn))
        mean = fn.probs if hasattr(fn, "probs") and fn.support.is_discrete else fn.mean
        self.mean[start] = self.mean.get(start, 0.0) + _numpy(mean.expand(*value.shape, *mean.shape[value.dim() :]))
        if label is None:
            return
        seen = ~label.isnan() if label.is_floating_point() else label != -1
        # A missing label is replaced by a draw, which lies in the support, and its density left out.
        filled = torch.where(seen, label, value.to(label.dtype))
        density = torch.where(seen, fn.log_prob(filled).double(), torch.nan)
        self.density.setdefault(start, []).append(_numpy(density))
        if not fn.support.is_discrete:
            try:
                below = fn.cdf(filled).double()
            except NotImplementedError:
                below = (drawn <= filled).double().mean(0)
            pit = _numpy(torch.where(seen, below, torch.nan))
            self.pit[start] = self.pit.get(start, 0.0) + pit

    def draws(self) -> np.ndarray:
        return np.concatenate([np.concatenate(parts) for parts in self.sampled.values()], axis=1)

    def densities(self) -> np.ndarray:
        return np.concatenate([np.stack(parts) for parts in self.density.values()], axis=1)

    def means(self, passes: int) -> np.ndarray:
        return np.concatenate(list(self.mean.values())) / passes

    def pits(self, passes: int) -> np.ndarray:
        return np.clip(np.concatenate(list(self.pit.values())) / passes, 0.0, 1.0)


def _predicted(trace: Trace, guide_trace: Trace) -> Iterator[tuple[str, Any]]:
    """Sites ``y_<target>`` of the model that are neither latent nor observed, by target."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and name.startswith(_PREFIX) and name not in guide_trace.nodes:
            yield name.removeprefix(_PREFIX), site


def _global_latents(trace: Trace) -> Trace:
    """The latents of a guide trace that hold for all rows: those in no subsampled plate."""
    kept = Trace()
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site) or site["is_observed"]:
            continue
        local = any(frame.full_size is not None and frame.full_size != frame.size for frame in site["cond_indep_stack"])
        if not local:
            kept.add_node(name, **site)
    return kept


def _slices(x: Inputs, batch_size: int | None) -> Iterator[slice]:
    size = len(x) if isinstance(x, Tensor) else max(len(part) for part in x.values())
    step = batch_size or size
    for start in range(0, size, step):
        yield slice(start, start + step)


def _rows(x: Inputs, rows: slice) -> Inputs:
    return x[rows] if isinstance(x, Tensor) else {task: part[rows] for task, part in x.items()}


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
