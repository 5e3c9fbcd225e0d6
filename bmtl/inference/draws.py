"""Draws from a fitted model and guide as plain arrays: posterior, predictive, pointwise density."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pyro.poutine as poutine
import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from bmtl import inputs
from bmtl.inference.accumulator import TargetAccumulator, to_numpy
from bmtl.inference.loaders import forked, seed_random_state
from bmtl.inference.local_latents import for_new_rows
from bmtl.inference.own_noise import OwnNoise
from bmtl.inference.parameter_mode import own_parameters
from bmtl.inference.posterior_draws import PosteriorDraws
from bmtl.inference.predicted_sites import EXPECTED, SiteTargets, joined_labels, predicted_sites
from bmtl.inference.predictives import Draws
from bmtl.inference.program_warnings import warn_of_random_rows
from bmtl.inference.readings import read, read_components
from bmtl.inference.site_tasks import is_derived, named_rows
from bmtl.inference.without_graph import Mode, without_graph
from bmtl.tasks import is_task_plate

Program = Callable[..., Any]
DRAWS = 100  # of a guide, by default


def draw(
    model: Program,
    guide: Program,
    x: Any,
    y: Mapping[str, Tensor] | None = None,
    *,
    num_draws: int | None = None,
    batch_size: int | None = None,
    sites: Collection[str] | None = None,
    seed: int = 0,
    known_rows: bool = False,
) -> Draws:
    """Draws from the guide, and from the model at those draws.

    The program must predict when it is called with inputs alone: ``model(x)`` samples a site ``y_<target>`` for each
    target (`bmtl.observe` with value None does), or a site ``y`` in a task plate, whose rows are the tasks' targets; see
    `bmtl.inference.predicted_sites`. Latents outside every plate of the batch's rows are global: a draw of them applies to
    all rows. They depend on the seed alone if the guide draws them before latents of rows, so that `batch_size`
    changes only the noise of what is drawn for each row.

    A real target takes at most 16 bytes for each draw of each row in float32: the draw, the predictive's location and
    scale, and the label's log density, 4 bytes each. A class takes 12. A chunk of `batch_size` rows takes what the model
    needs besides.

    Args:
        model: The task model.
        guide: Its guide, called as ``guide(x)``; a `PosteriorDraws` for draws of MCMC.
        x: Inputs of N rows, anything that `bmtl.inputs` supports: a tensor ``(N, ...)``, a dict or NamedTuple of several,
            `PerTask` where each task has its own, ...
        y: Target -> labels of its rows, as in training: ``(N,)``, ``(N, 2)`` for intervals, ``(N, d)`` for vectors; None
            gives no densities.
        num_draws: Number of draws S, 100 by default; of a `PosteriorDraws` all, or as many at equal distances. Each is a
            pass of its own where there are latents, or the program has random numbers outside its statements (a dropout that
            stays on).
        batch_size: Rows at a time, to bound memory; all by default. Where each task has its own inputs, the longest
            task's rows; the others are split into as many parts.
        sites: Latents whose draws are kept in the posterior; all by default, with those that a reparameterisation has
            replaced and the model's deterministic sites outside plates, unless these have values of the rows and rows come
            in chunks. Leave large ones out to save memory.
        seed: Seeds the draws; torch's global generator is left unchanged.
        known_rows: The rows are ones that the guide was trained on. An AutoGuide with ``create_plates`` has parameters of
            each training row; by default the latents of rows are not taken from it, but drawn from the model, as is right
            for new rows. A guide that computes them from the inputs is called in either case.

    Raises:
        TypeError: If labels are not of the kind that the model predicts, `bmtl.inputs` does not support the inputs, or the
            model cannot be called with inputs alone.
        ValueError: If a site of `sites` is not a global latent, or differs between chunks of rows; if the model predicts
            nothing, or not a target of `y`; if labels have another shape than their site or lie outside its support; if
            the guide is an AutoGuide that has not seen a batch; if `x` has no row, or `num_draws` or `batch_size` is
            below 1.
    """
    if num_draws is not None and num_draws < 1:
        raise ValueError(f"num_draws is a number of draws, from 1, and {num_draws} was given.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is a number of rows, from 1, and {batch_size} was given.")
    parts = guide.modules() if isinstance(guide, nn.Module) else ()
    if any(isinstance(part, AutoGuide) and part.prototype_trace is None for part in parts):
        # It would set itself up here, without labels, and take the targets for latents.
        raise ValueError("The guide has not seen a batch yet. Train it first, or call BalancedSVI.initialise(x, y).")
    _check_call(model)
    chunks = inputs.chunks(x, batch_size)
    sampled = guide if isinstance(guide, PosteriorDraws) else None
    if sampled is not None:
        guide = sampled = sampled.thinned(sampled.num_draws if num_draws is None else num_draws)
        num_draws = sampled.num_draws
    number = DRAWS if num_draws is None else num_draws
    with evaluating(model, guide), forked(None), nullcontext() if known_rows else for_new_rows(guide, chunks[0]):
        found = without_graph(lambda mode: _draw(model, guide, chunks, y, number, sites, seed, mode))
    if sampled is None:
        return found
    return replace(found, log_q=None, chains=sampled.chains, sample_stats=sampled.sample_stats)


def _draw(
    model: Program,
    guide: Program,
    chunks: list[Any],
    y: Mapping[str, Tensor] | None,
    num_draws: int,
    sites: Collection[str] | None,
    seed: int,
    mode: Mode,
    each_differs: bool = False,
) -> Draws:
    seed_random_state(seed)
    with mode():
        probe = poutine.trace(guide).get_trace(inputs.few(chunks[0]))
    # Without latents every pass is the same: one gives the densities, and all predictive draws at once.
    fixed = not any(site["type"] == "sample" and not site_is_subsample(site) for site in probe.nodes.values())
    fixed = fixed and not each_differs
    passes = guides_of_draws(guide, 1 if fixed else num_draws, seed)
    samples = num_draws if fixed else 1
    posterior: dict[str, list[np.ndarray]] = {}
    log_p, log_q = np.zeros(len(passes)), np.zeros(len(passes))
    totals: dict[str, TargetAccumulator] = {}
    of_rows: set[str] = set()  # deterministic sites that differ between chunks
    for i, (own_seed, own_guide) in enumerate(passes):
        seed_random_state(own_seed)
        globals_: Trace | None = None
        for part in chunks:
            proposal = own_guide if globals_ is None else poutine.replay(own_guide, trace=globals_)
            with mode():
                guide_trace = poutine.trace(proposal).get_trace(part)
            first = not i and globals_ is None
            with mode(), _explained(), OwnNoise() if first and fixed else nullcontext() as noise:
                trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(part)
            # Latents such as are summed out in training, or dropout that stays on.
            if first and (_draws_latents(trace, guide_trace) or (noise and noise.found)):
                if fixed:  # the passes are not the same
                    return _draw(model, guide, chunks, y, num_draws, sites, seed, mode, each_differs=True)
                each_differs = True
            new = None if globals_ is None else set(globals_.nodes)  # sites that earlier chunks have counted
            if y is not None and not fixed:
                log_q[i] += _log_density(guide_trace, set(guide_trace.nodes), new)
                log_p[i] += _log_density(trace, set(guide_trace.nodes), new)
            if globals_ is None:
                if not i:
                    warn_of_random_rows((guide_trace, trace))
                globals_ = _global_latents(guide_trace, probe)
                values = _named_values(trace, globals_)
                _check_sites(sites, values)
                for name, value in values.items():
                    if name not in of_rows and (sites is None or name in sites):
                        posterior.setdefault(name, []).append(to_numpy(value))
            elif not i:
                of_rows |= _of_rows(posterior, _named_values(trace, globals_), sites)
            for targets, site in predicted_sites(trace, guide_trace):
                own = [
                    totals.setdefault(name, TargetAccumulator(name, None if y is None else y.get(name), len(passes)))
                    for name in targets.names
                ]
                log_p[i] += _add(own, targets, site, samples)
        for target in totals.values():
            target.end_pass()
    _check_targets(totals, y)
    scored = y is not None and not fixed and not each_differs  # a density given those is none of the guide's latents
    return Draws(
        posterior={name: np.stack(values) for name, values in posterior.items()},
        targets={name: target.prediction() for name, target in totals.items()},
        log_p=log_p if scored else None,
        log_q=log_q if scored else None,
    )


def _draws_latents(trace: Trace, guide_trace: Trace) -> bool:
    """Whether a model draws latents that the guide has none of."""
    targets = {site["name"] for _, site in predicted_sites(trace, guide_trace)}
    return any(
        site["type"] == "sample"
        and not site["is_observed"]
        and not site_is_subsample(site)
        and name not in targets
        and name not in guide_trace.nodes
        for name, site in trace.nodes.items()
    )


def guides_of_draws(guide: Program, num_draws: int, seed: int) -> list[tuple[int, Program]]:
    """Torch's seed and the guide of each draw; those of a `PosteriorDraws` are its draws in order, thinned to the number."""
    seeds = torch.randint(2**62, (num_draws,), generator=torch.Generator().manual_seed(seed)).tolist()
    if not isinstance(guide, PosteriorDraws):
        return [(own, guide) for own in seeds]
    guide = guide if num_draws == guide.num_draws else guide.thinned(num_draws)
    return [(own, guide.at(i)) for i, own in enumerate(seeds)]


@contextmanager
def evaluating(*programs: Program) -> Iterator[None]:
    """Evaluation mode inside, without dropout; afterwards part by part as it was: a frozen one may be in another mode."""
    modes = [
        (part, part.training) for program in programs if isinstance(program, nn.Module) for part in program.modules()
    ]
    for part, _ in modes:
        part.training = False
    try:
        with own_parameters(*programs):
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def _add(own: list[TargetAccumulator], targets: SiteTargets, site: Any, samples: int) -> float:
    """Adds what a site says of a chunk to its targets; returns the log density of their labels."""
    fn, value = site["fn"], site["value"]
    where = f"Target {', '.join(map(repr, targets.names))} (site {site['name']!r})"
    batch = value.shape[: value.dim() - len(fn.event_shape)]
    rows = targets.rows(batch)
    if rows is None:
        raise ValueError(
            f"{where}: the model predicts one {'vector' if fn.event_shape else 'number'}, and one a row is expected. Put "
            "the site in a plate of the rows, pyro.plate(..., subsample=...)."
        )
    labels = joined_labels(targets, {target.name: target.next_labels(rows) for target in own}, batch, where)
    if targets.joint:
        density, parts = read_components(site, labels, samples, where)
        for target, part in zip(own, parts, strict=True):
            target.add(part)
        return 0.0 if density is None else float(density.nansum(dtype=torch.float64))
    reading = read(site, labels, samples, where)
    if targets.dim is None:
        return own[0].add(reading)
    return sum(target.add(reading.of_task(targets.dim, k)) for k, target in enumerate(own))


def _check_call(model: Program) -> None:
    """Raises a ``TypeError`` if a model cannot be called with inputs alone."""
    try:
        signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
    except (TypeError, ValueError):  # of some callables nothing is known
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(
            f"The model is called with inputs alone to predict, and its arguments are {signature}. Give labels a default, "
            "forward(self, x, y=None); several inputs are one argument, a dict or a NamedTuple."
        ) from error


@contextmanager
def _explained() -> Iterator[None]:
    """Adds to an error of the model what was asked of it."""
    try:
        yield
    except Exception as error:
        error.add_note(
            "The model was called with inputs alone, model(x), to predict: its labels are None then, and bmtl.observe(name, "
            "fn, None) or pyro.sample(name, fn, obs=None) samples."
        )
        raise


def _check_targets(predicted: Collection[str], y: Mapping[str, Tensor] | None) -> None:
    missing = [] if y is None else sorted(set(y) - set(predicted))
    if missing or not predicted:
        raise ValueError(
            f"The model predicts {sorted(predicted) or 'nothing'}"
            + (f", and labels were given for {missing}" if missing else "")
            + f". {EXPECTED}"
        )


def _check_sites(sites: Collection[str] | None, latents: Collection[str]) -> None:
    unknown = sorted(set(sites or ()) - set(latents))
    if unknown:
        raise ValueError(f"There is no global latent {', '.join(map(repr, unknown))}; there are {list(latents)}.")


def _named_values(trace: Trace, latents: Trace) -> dict[str, Tensor]:
    """The values of the global latents and of what derives from them, in the model's order.

    A latent of several tasks in a plate with a label is given by task, as latents of their own would be.
    """
    found: dict[str, Tensor] = {}
    for name, site in trace.nodes.items():
        if name in latents.nodes:
            found |= named_rows({**site, "value": latents.nodes[name]["value"]})
        elif _follows_from_latents(site):
            found |= named_rows(site)
    return found


def _of_rows(posterior: dict[str, list[np.ndarray]], now: dict[str, Tensor], sites: Collection[str] | None) -> set[str]:
    """The deterministic sites whose values are others for other rows; they are removed.

    Raises:
        ValueError: If one was asked for.
    """
    found = {name for name in posterior if name in now and not _equal(posterior[name][0], to_numpy(now[name]))}
    if asked := sorted(found.intersection(sites or ())):
        raise ValueError(
            f"The deterministic site {asked[0]!r} has values of the rows, and a chunk of rows has a part of them. Give "
            "batch_size=None to keep it."
        )
    for name in found:
        del posterior[name]
    return found


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")


def _follows_from_latents(site: Any) -> bool:
    """Whether it is a deterministic site outside every plate, or a latent replaced by others, in a task plate at most."""
    plates = [frame.name for frame in site.get("cond_indep_stack", ())]
    replaced = not site.get("infer", {}).get("_deterministic") and all(map(is_task_plate, plates))
    return is_derived(site) and (not plates or replaced)


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
        total += float(density.detach().double().sum())
    return total


def _global_latents(trace: Trace, probe: Trace) -> Trace:
    """The latents of a guide trace that hold for all rows: those in no plate that has the batch's rows.

    A plate has them if it had another size in `probe`, when the guide ran on another number of rows; and so has a latent
    outside plates whose value had another shape.
    """
    sizes = {frame.name: frame.size for site in probe.nodes.values() for frame in site.get("cond_indep_stack", ())}
    shapes = {name: getattr(site.get("value"), "shape", None) for name, site in probe.nodes.items()}
    kept = Trace()
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site) or site["is_observed"]:
            continue
        shape = getattr(site["value"], "shape", None)
        if shapes.get(name, shape) == shape and all(
            frame.size == sizes.get(frame.name) for frame in site["cond_indep_stack"]
        ):
            kept.add_node(name, **site)
    return kept
