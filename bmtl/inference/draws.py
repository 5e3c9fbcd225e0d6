"""Draws from a fitted model and guide as plain arrays: posterior, predictive, pointwise density."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro.poutine as poutine
import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from bmtl.tasks import check_targets

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
    draw of them holds for all rows. They depend on the seed alone, and so `batch_size` changes nothing but the noise of
    what is drawn for each row.

    Args:
        model: The task model.
        guide: Its guide, called as ``guide(x)``.
        x: Inputs ``(N, ...)``, or a mapping task -> ``(N_task, ...)``.
        y: Labels by target, ``(N,)``; None gives no densities.
        num_draws: Number of draws S.
        batch_size: Rows at a time, to bound memory; all by default. Where each task has its own inputs, the longest
            task's rows; the others are split into as many parts.
        seed: Seeds the draws; torch's global generator is left as it was.

    Raises:
        TypeError: If labels are not of the kind that the model predicts, or `x` is not made of tensors.
        ValueError: If the model has no site ``y_<target>``, or none for a label; if labels have another shape than their
            site or lie outside its support; if the guide is an AutoGuide that has not seen a batch; if `x` has no row, or
            `num_draws` or `batch_size` is below 1.
    """
    if not isinstance(x, Tensor | Mapping):
        raise TypeError(f"x is a tensor, or a mapping task -> tensor, and {type(x).__name__} was given.")
    if num_draws < 1:
        raise ValueError(f"num_draws is a number of draws, from 1, and {num_draws} was given.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is a number of rows, from 1, and {batch_size} was given.")
    parts = guide.modules() if isinstance(guide, torch.nn.Module) else ()
    if any(isinstance(part, AutoGuide) and part.prototype_trace is None for part in parts):
        # It would set itself up here, without labels, and take the targets for latents.
        raise ValueError("The guide has not seen a batch yet. Train it first, or call BalancedSVI.initialise(x, y).")
    programs = [m for m in (model, guide) if isinstance(m, torch.nn.Module)]
    # Part by part: a frozen one may be in another mode than the rest.
    modes = [(part, part.training) for program in programs for part in program.modules()]
    for program in programs:
        program.eval()
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(devices=cuda):
            return _draw(model, guide, x, y, num_draws, batch_size, torch.Generator().manual_seed(seed))
    finally:
        for part, mode in modes:
            part.training = mode


def _draw(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Inputs,
    y: Mapping[str, Tensor] | None,
    num_draws: int,
    batch_size: int | None,
    generator: torch.Generator,
) -> Draws:
    chunks = _chunks(x, batch_size)
    probe = poutine.trace(guide).get_trace(_few_rows(chunks[0]))
    # Without latents every pass is the same: one gives the densities, and all predictive draws at once.
    fixed = not any(site["type"] == "sample" and not site_is_subsample(site) for site in probe.nodes.values())
    passes, samples = (1, num_draws) if fixed else (num_draws, 1)
    posterior: dict[str, list[np.ndarray]] = {}
    totals: dict[str, _Target] = {}
    for seed in torch.randint(2**62, (passes,), generator=generator).tolist():
        torch.manual_seed(seed)
        globals_: Trace | None = None
        for part in chunks:
            proposal = guide if globals_ is None else poutine.replay(guide, trace=globals_)
            guide_trace = poutine.trace(proposal).get_trace(part)
            trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(part)
            if globals_ is None:
                globals_ = _global_latents(guide_trace, probe)
                for name in trace.nodes:
                    if name in globals_.nodes:
                        posterior.setdefault(name, []).append(_numpy(globals_.nodes[name]["value"]))  # type: ignore[arg-type]
            for name, site in _predicted(trace, guide_trace):
                target = totals.setdefault(name, _Target(name, None if y is None else y.get(name)))
                target.add(site["fn"], site["value"], samples)
        for target in totals.values():
            target.end_pass()
    missing = [] if y is None else sorted(set(y) - set(totals))
    if missing or not totals:
        raise ValueError(
            f"The model predicts {sorted(totals) or 'nothing'}"
            + (f", and labels were given for {missing}" if missing else "")
            + f". Called with inputs alone it must sample a site {_PREFIX}<target> for each target."
        )
    return Draws(
        posterior={name: np.stack(values) for name, values in posterior.items()},
        predictive={name: target.draws() for name, target in totals.items()},
        mean={name: target.means(passes) for name, target in totals.items()},
        log_likelihood={name: target.densities() for name, target in totals.items() if target.density},
        pit={name: target.pits(passes) for name, target in totals.items() if target.pit},
    )


class _Target:
    """Gathers one target's rows over chunks and passes; a chunk is known by its first row."""

    def __init__(self, name: str, labels: Tensor | None) -> None:
        self.name = name
        self.labels = labels
        self.row = 0  # where this pass stands
        self.sampled: dict[int, list[np.ndarray]] = {}
        self.mean: dict[int, np.ndarray] = {}
        self.density: dict[int, list[np.ndarray]] = {}
        self.pit: dict[int, np.ndarray] = {}

    def add(self, fn: Any, value: Tensor, samples: int) -> None:
        """Adds the next chunk of a pass: its distribution, and a draw of it."""
        if not value.dim():
            raise ValueError(f"The model predicts one number for {self.name!r}, and one a row is expected.")
        start, self.row = self.row, self.row + len(value)
        drawn = value[None] if samples == 1 else fn.sample((samples,))
        self.sampled.setdefault(start, []).append(_numpy(drawn))
        mean = _mean(fn, drawn)
        self.mean[start] = self.mean.get(start, 0.0) + _numpy(mean.expand(*value.shape, *mean.shape[value.dim() :]))
        if self.labels is None:
            return
        label = self.labels[start : self.row]
        self._check(fn, value, label)
        missing = label.isnan() if label.is_floating_point() else label == -1
        # A missing label is replaced by a draw, which lies in the support, and its density left out.
        filled = torch.where(missing, value.to(label.dtype), label)
        if not filled.is_floating_point():
            filled = filled.to(value.dtype)  # torch's Bernoulli takes floats only
        try:
            density = fn.log_prob(filled).double()
        except ValueError as error:
            raise ValueError(f"At site {_PREFIX + self.name!r}: {error}") from error
        if missing.dim() > density.dim():  # one missing entry leaves its whole event out
            missing = missing.flatten(density.dim()).any(-1)
        self.density.setdefault(start, []).append(_numpy(density.masked_fill(missing, torch.nan)))
        if not fn.support.is_discrete and not fn.event_shape:
            try:
                below = fn.cdf(filled).double()
            except NotImplementedError:
                below = (drawn <= filled).double().mean(0)
            self.pit[start] = self.pit.get(start, 0.0) + _numpy(below.masked_fill(missing, torch.nan))

    def end_pass(self) -> None:
        if self.labels is not None and len(self.labels) != self.row:
            raise ValueError(f"{len(self.labels)} labels were given for {self.name!r}, and it has {self.row} rows.")
        self.row = 0

    def _check(self, fn: Any, value: Tensor, label: Tensor) -> None:
        if label.shape != value.shape:
            raise ValueError(
                f"Labels of {self.name!r} have shape {tuple(label.shape)} where the model predicts {tuple(value.shape)}. "
                "Give one entry per row."
            )
        categorical = isinstance(fn, torch.distributions.Categorical)
        check_targets(_PREFIX + self.name, value.shape, label, discrete=fn.support.is_discrete, categorical=categorical)

    def draws(self) -> np.ndarray:
        return np.concatenate([np.concatenate(parts) for parts in self.sampled.values()], axis=1)

    def densities(self) -> np.ndarray:
        return np.concatenate([np.stack(parts) for parts in self.density.values()], axis=1)

    def means(self, passes: int) -> np.ndarray:
        return np.concatenate(list(self.mean.values())) / passes

    def pits(self, passes: int) -> np.ndarray:
        return np.clip(np.concatenate(list(self.pit.values())) / passes, 0.0, 1.0)


def _mean(fn: Any, drawn: Tensor) -> Tensor:
    """Mean of a distribution, class probabilities of a categorical one; that of the draws where it has none."""
    if isinstance(fn, torch.distributions.Categorical):
        return fn.probs
    try:
        return fn.mean
    except NotImplementedError:
        return drawn.to(torch.get_default_dtype()).mean(0)


def _predicted(trace: Trace, guide_trace: Trace) -> Iterator[tuple[str, Any]]:
    """Sites ``y_<target>`` of the model that are neither latent nor observed, by target."""
    for name, site in trace.nodes.items():
        latent = name in guide_trace.nodes or site["is_observed"]  # a deterministic site counts as observed
        if site["type"] == "sample" and name.startswith(_PREFIX) and not latent:
            yield name.removeprefix(_PREFIX), site


def _global_latents(trace: Trace, probe: Trace) -> Trace:
    """The latents of a guide trace that hold for all rows: those in no plate that has the batch's rows.

    A plate has them if it had another size in `probe`, when the guide ran on another number of rows.
    """
    sizes = {frame.name: frame.size for site in probe.nodes.values() for frame in site.get("cond_indep_stack", ())}
    kept = Trace()
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site) or site["is_observed"]:
            continue
        if all(frame.size == sizes.get(frame.name) for frame in site["cond_indep_stack"]):
            kept.add_node(name, **site)
    return kept


def _chunks(x: Inputs, batch_size: int | None) -> list[Inputs]:
    """The inputs in parts of at most `batch_size` rows."""
    sizes = [len(part) for part in ([x] if isinstance(x, Tensor) else x.values())]
    if not sizes or not min(sizes):
        raise ValueError(f"x has no row to predict: {sizes or 'no task'}.")
    # At least a row of each task in each part: Pyro's plates must not be empty.
    count = min(-(-max(sizes) // (batch_size or max(sizes))), *sizes)
    if isinstance(x, Tensor):
        return list(x.tensor_split(count))
    split = {task: part.tensor_split(count) for task, part in x.items()}
    return [{task: parts[i] for task, parts in split.items()} for i in range(count)]


def _few_rows(x: Inputs) -> Inputs:
    """One row of a chunk, or two copies of it where it is the only one: another number of rows than the chunk's."""
    if isinstance(x, Tensor):
        return x[:1] if len(x) > 1 else x.repeat(2, *[1] * (x.dim() - 1))
    return {task: _few_rows(part) for task, part in x.items()}  # type: ignore[misc]


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
