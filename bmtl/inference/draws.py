"""Draws from a fitted model and guide as plain arrays: posterior, predictive, pointwise density."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pyro.poutine as poutine
import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from bmtl.inference.parameter_mode import own_parameters
from bmtl.inference.predictives import PREFIX, Draws, TargetAccumulator, to_numpy

Inputs = Tensor | Mapping[str, Tensor]


@torch.no_grad()
def draw(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Inputs,
    y: Mapping[str, Tensor] | None = None,
    *,
    num_draws: int = 100,
    batch_size: int | None = None,
    sites: Collection[str] | None = None,
    seed: int = 0,
) -> Draws:
    """Draws from the guide, and from the model at those draws.

    The program must predict when it is called with inputs alone: ``model(x)`` samples a site ``y_<target>`` for each
    target (`bmtl.observe` with value None does). Latents outside every plate that has the batch's rows are global: a
    draw of them holds for all rows. They depend on the seed alone, and so `batch_size` changes nothing but the noise of
    what is drawn for each row.

    A regression takes 16 bytes for each draw of each row in float32: the draw, the predictive's location and scale, and the
    label's log density, 4 bytes each. A class takes 12. A chunk of `batch_size` rows takes what the model needs besides.

    Args:
        model: The task model.
        guide: Its guide, called as ``guide(x)``.
        x: Inputs ``(N, ...)``, or a mapping task -> ``(N_task, ...)``.
        y: Labels by target, ``(N,)``; None gives no densities.
        num_draws: Number of draws S.
        batch_size: Rows at a time, to bound memory; all by default. Where each task has its own inputs, the longest
            task's rows; the others are split into as many parts.
        sites: Latents whose draws are kept in the posterior; all by default, with the model's deterministic sites outside
            plates. Large ones need not be.
        seed: Seeds the draws; torch's global generator is left as it was.

    Raises:
        TypeError: If labels are not of the kind that the model predicts, or `x` is not made of tensors.
        ValueError: If a site of `sites` is no global latent; if the model has no site ``y_<target>``, or none for a
            label; if labels have another shape than their site or lie outside its support; if the guide is an AutoGuide
            that has not seen a batch; if `x` has no row, or `num_draws` or `batch_size` is below 1.
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
        with torch.random.fork_rng(devices=cuda), own_parameters(model, guide):
            return _draw(model, guide, x, y, num_draws, batch_size, sites, torch.Generator().manual_seed(seed))
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
    sites: Collection[str] | None,
    generator: torch.Generator,
) -> Draws:
    chunks = _chunks(x, batch_size)
    probe = poutine.trace(guide).get_trace(few_rows(chunks[0]))
    # Without latents every pass is the same: one gives the densities, and all predictive draws at once.
    fixed = not any(site["type"] == "sample" and not site_is_subsample(site) for site in probe.nodes.values())
    passes, samples = (1, num_draws) if fixed else (num_draws, 1)
    posterior: dict[str, list[np.ndarray]] = {}
    log_p, log_q = np.zeros(passes), np.zeros(passes)
    totals: dict[str, TargetAccumulator] = {}
    for i, seed in enumerate(torch.randint(2**62, (passes,), generator=generator).tolist()):
        torch.manual_seed(seed)
        globals_: Trace | None = None
        for part in chunks:
            proposal = guide if globals_ is None else poutine.replay(guide, trace=globals_)
            guide_trace = poutine.trace(proposal).get_trace(part)
            trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(part)
            new = None if globals_ is None else set(globals_.nodes)  # sites that earlier chunks have counted
            if y is not None and not fixed:
                log_q[i] += _log_density(guide_trace, set(guide_trace.nodes), new)
                log_p[i] += _log_density(trace, set(guide_trace.nodes), new)
            if globals_ is None:
                globals_ = _global_latents(guide_trace, probe)
                values: dict[str, Any] = {name: site["value"] for name, site in globals_.nodes.items()}
                values |= {name: site["value"] for name, site in trace.nodes.items() if _is_derived(site)}
                _check_sites(sites, values)
                for name in trace.nodes:
                    if name in values and (sites is None or name in sites):
                        posterior.setdefault(name, []).append(to_numpy(values[name]))
            for name, site in _predicted(trace, guide_trace):
                if name not in totals:
                    totals[name] = TargetAccumulator(name, None if y is None else y.get(name), passes, samples)
                log_p[i] += totals[name].add(site["fn"], site["value"])
        for target in totals.values():
            target.end_pass()
    missing = [] if y is None else sorted(set(y) - set(totals))
    if missing or not totals:
        raise ValueError(
            f"The model predicts {sorted(totals) or 'nothing'}"
            + (f", and labels were given for {missing}" if missing else "")
            + f". Called with inputs alone it must sample a site {PREFIX}<target> for each target."
        )
    scored = y is not None and not fixed
    return Draws(
        posterior={name: np.stack(values) for name, values in posterior.items()},
        predictive={name: target.draws() for name, target in totals.items()},
        mean={name: target.means() for name, target in totals.items() if not target.classes},
        probability={name: target.means() for name, target in totals.items() if target.classes},
        distribution={name: target.components() for name, target in totals.items() if target.parameters},
        aleatoric={name: target.aleatoric() for name, target in totals.items() if target.spread},
        epistemic={name: target.epistemic() for name, target in totals.items() if target.spread},
        log_likelihood={name: target.densities() for name, target in totals.items() if target.density},
        pit={name: target.pits() for name, target in totals.items() if target.pit},
        log_p=log_p if scored else None,
        log_q=log_q if scored else None,
    )


def _check_sites(sites: Collection[str] | None, latents: Collection[str]) -> None:
    unknown = sorted(set(sites or ()) - set(latents))
    if unknown:
        raise ValueError(f"There is no global latent {', '.join(map(repr, unknown))}; there are {list(latents)}.")


def _is_derived(site: Any) -> bool:
    """Whether it is a deterministic site outside every plate: a function of global latents and parameters."""
    return site["type"] == "sample" and site["infer"].get("_deterministic") and not site["cond_indep_stack"]


def _log_density(trace: Trace, names: set[str], counted: set[str] | None) -> float:
    """Sum of the log densities of a trace's latents, those in `counted` left out; a plate's scale does not enter."""
    total = 0.0
    for name, site in trace.nodes.items():
        latent = site["type"] == "sample" and not site_is_subsample(site) and not site["is_observed"]
        if not latent or name not in names or (counted is not None and name in counted):
            continue
        fn: Any = site["fn"]
        density = fn.log_prob(site["value"])
        if site["mask"] is not None:
            density = torch.where(torch.as_tensor(site["mask"]), density, 0.0)
        total += float(density.double().sum())
    return total


def _predicted(trace: Trace, guide_trace: Trace) -> Iterator[tuple[str, Any]]:
    """Sites ``y_<target>`` of the model that are neither latent nor observed, by target."""
    for name, site in trace.nodes.items():
        latent = name in guide_trace.nodes or site["is_observed"]  # a deterministic site counts as observed
        if site["type"] != "sample" or site_is_subsample(site):  # a target "y" has the plate "y_rows"
            continue
        if name.startswith(PREFIX) and not latent:
            yield name.removeprefix(PREFIX), site


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


def few_rows(x: Inputs) -> Inputs:
    """One row of a chunk, or two copies of it where it is the only one: another number of rows than the chunk's."""
    if isinstance(x, Tensor):
        return x[:1] if len(x) > 1 else x.repeat(2, *[1] * (x.dim() - 1))
    return {task: few_rows(part) for task, part in x.items()}  # type: ignore[misc]
