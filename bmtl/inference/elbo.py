"""One negative ELBO per task from one pair of guide and model traces."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal

import pyro.poutine as poutine
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.infer.elbo import ELBO, ELBOModule
from pyro.infer.tracegraph_elbo import TrackNonReparam
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from bmtl.inference.enumeration import EnumerationWalk
from bmtl.inference.importance_weighting import ImportanceWalk
from bmtl.inference.losses import TaskLosses
from bmtl.inference.program_warnings import ProgramWarnings
from bmtl.inference.score_baselines import DecayingAverages, DownstreamWalk
from bmtl.inference.shared_representation import SharedRepresentation
from bmtl.inference.trace_walk import TraceWalk
from bmtl.tasks import TASK_PLATE


class TaskELBO(ELBO):
    """Estimates one negative ELBO per task from one model/guide trace pair.

    With the same seed, the terms add up to Pyro's own estimator in value and in every gradient: `Trace_ELBO` for ``"mc"``,
    `TraceMeanField_ELBO` for ``"analytic"``, `TraceGraph_ELBO` for ``"graph"``, `TraceEnum_ELBO` for ``"enum"``,
    `RenyiELBO` for ``"renyi"``. It is a Pyro `ELBO`: ``elbo(model, guide)`` is a `torch.nn.Module`, and `pyro.infer.SVI`
    accepts it.

    Args:
        estimator: "mc" draws the KL terms; "analytic" takes them in closed form where one is registered, which has far
            less noise and is right when the guide draws its latents in the model's order; "graph" draws them, with less
            noise for latents that cannot be reparameterised: only the costs that depend on a draw enter its score term, less
            the site's baseline (`bmtl.inference.score_baselines`); "enum" draws them too, and sums
            over discrete latents marked by ``infer={"enumerate": "parallel"}`` (or by `pyro.infer.config_enumerate`), in
            the guide or, without a site in the guide, in the model. `bmtl.inference.enumeration` says how the term of a
            latent that several tasks depend on is split between them: by its exact posterior given all labels, which
            adds up and has no order. "renyi" is a bound by importance weights of `num_particles` draws, which the tasks
            share (`bmtl.inference.importance_weighting`).
        num_particles: Draws per estimate.
        vectorize_particles: Draw all particles at once, in one more plate left of all others.
        max_plate_nesting: The model's number of nested plates; if None and needed, it is found from one run.
        balanced: What a balancer sees and weights: "likelihood" is each task's expected negative log-likelihood (its KL
            can be most of its loss, and would then be what is balanced), "elbo" adds the task's own KL. The shared KL
            is never weighted.
        normalize: "per_datum" divides every task by one number of data, so that equal weights give the ELBO's step;
            "task_mean" takes each task's mean over its labelled rows, so that all tasks count equally whatever their
            number of labels. A task's KL is then divided by its number of labelled data M_k, the shared KL by the
            mean of the M_k.
        n_data: Number of labelled training data, one for all tasks or by task. By default it is what the plates declare,
            which is the number of rows; under "task_mean" times the share of labelled rows in the batches seen so far, with
            one warning where that is an estimate.
        alpha: The order of "renyi", any number but 1: 0 by default, the bound of importance-weighted autoencoders (IWAE).

    Raises:
        TypeError: If an option is of the wrong type.
        ValueError: If an option is not one of those above, a number is below 1, the model has no task, or a site is not
            supported (enumeration by an estimator that does not enumerate, a non-reparameterised latent under "analytic").
    """

    def __init__(
        self,
        estimator: Literal["mc", "analytic", "graph", "enum", "renyi"] = "mc",
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int | None = None,
        balanced: Literal["likelihood", "elbo"] = "likelihood",
        normalize: Literal["per_datum", "task_mean"] = "per_datum",
        n_data: int | Mapping[str, int] | None = None,
        alpha: float | None = None,
    ) -> None:
        _check_choice("estimator", estimator, ("mc", "analytic", "graph", "enum", "renyi"))
        _check_choice("balanced", balanced, ("likelihood", "elbo"))
        _check_choice("normalize", normalize, ("per_datum", "task_mean"))
        num_particles = _check_count("num_particles", num_particles, "the number of draws")
        if not isinstance(vectorize_particles, bool):
            raise TypeError(f"vectorize_particles is True or False, and {vectorize_particles!r} was given.")
        if max_plate_nesting is not None:
            max_plate_nesting = _check_count("max_plate_nesting", max_plate_nesting, "a number of plates", least=0)
        super().__init__(
            num_particles=num_particles,
            vectorize_particles=vectorize_particles,
            max_plate_nesting=math.inf if max_plate_nesting is None else max_plate_nesting,
        )
        self.estimator = estimator
        self.alpha = _check_alpha(estimator, alpha)
        self.averages = DecayingAverages()
        self.balanced = balanced
        self.normalize = normalize
        self.n_data = _check_n_data(n_data)
        self._warnings = ProgramWarnings()

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any]) -> ELBOModule:
        """Model and guide as one module, whose loss this is; it holds the means of baselines, which are saved with it."""
        module = super().__call__(model, guide)  # type: ignore[arg-type]
        if self.estimator == "graph":
            module.averages = self.averages
        return module

    # ---- Pyro's interface ----------------------------------------------------------------------------------------

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """The negative ELBO of a batch as a number."""
        with torch.no_grad():
            return self.task_losses(model, guide, *args, **kwargs).total.item()

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """The negative ELBO of a batch, whose gradient is Pyro's gradient estimate."""
        losses = self.task_losses(model, guide, *args, **kwargs)
        if torch.is_grad_enabled():
            self.watch(losses)
        return losses.total

    def loss_and_grads(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """The negative ELBO of a batch; its gradient is added to the parameters' (for `pyro.infer.SVI`)."""
        total = self.differentiable_loss(model, guide, *args, **kwargs)
        if total.requires_grad:
            total.backward(retain_graph=self.retain_graph)
        return total.item()

    def _get_trace(
        self, model: Callable[..., Any], guide: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Trace, Trace]:
        with TrackNonReparam() if self.estimator == "graph" else nullcontext():
            return self._run(model, guide, args, kwargs)

    def _run(
        self, model: Callable[..., Any], guide: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Trace, Trace]:
        unwrapped = poutine.unwrap(guide)
        if isinstance(unwrapped, Messenger):  # guides that are effect handlers run the model themselves
            guide(*args, **kwargs)
            model_trace, guide_trace = unwrapped.get_traces()  # type: ignore[attr-defined]
        else:
            guide_trace = _trace(guide, args, kwargs)
            model_trace = _trace(poutine.replay(model, trace=guide_trace), args, kwargs)
        return model_trace, guide_trace

    def _get_traces(
        self, model: Callable[..., Any], guide: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[tuple[Trace, Trace]]:
        if self.estimator != "enum":
            yield from super()._get_traces(model, guide, args, kwargs)
            return
        if isinstance(poutine.unwrap(guide), Messenger):
            raise ValueError(
                f"The guide is an effect handler ({type(poutine.unwrap(guide)).__name__}), which runs the model itself and "
                "cannot enumerate. Take an AutoGuide or a guide of your own; or another estimator than 'enum'."
            )
        if math.isinf(self.max_plate_nesting):
            self._guess_max_plate_nesting(model, guide, args, kwargs)
        enumerating = TraceEnum_ELBO(
            num_particles=self.num_particles,
            vectorize_particles=self.vectorize_particles,
            strict_enumeration_warning=False,
        )
        enumerating.max_plate_nesting = self.max_plate_nesting
        pairs = enumerating._get_traces(model, guide, args, kwargs)
        while (pair := _next_of(pairs)) is not None:
            yield pair

    # ---- The terms -----------------------------------------------------------------------------------------------

    def task_losses(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        cut: bool | SharedRepresentation = False,
        **kwargs: Any,
    ) -> TaskLosses:
        """Runs guide and model on a batch and returns every task's terms.

        Args:
            model: The task model.
            guide: Its guide.
            *args: The batch, for both.
            cut: Cut the graph at the tensors marked by `bmtl.shared` (the cheap geometries ask for this); or what handles
                the marks.
            **kwargs: The batch, for both.
        """
        walk: TraceWalk | None = None
        with cut if isinstance(cut, SharedRepresentation) else SharedRepresentation(cut) as marks:
            for model_trace, guide_trace in self._get_traces(model, guide, args, kwargs):
                # The nesting of plates may have been found just now.
                walk = walk or self._walk()
                walk.add(model_trace, guide_trace)
        assert walk is not None
        if not walk.names:
            raise ValueError(
                "The model has no task: no observed or latent site lies in `bmtl.task(name)` or in a plate named "
                f"{TASK_PLATE!r}. Put each task's sites in `with bmtl.task(...)`.\n{model_trace.format_shapes()}"
            )
        order = getattr(model, "tasks", None)  # a model may name its tasks in its own order
        if isinstance(order, tuple) and set(order) == walk.names.keys():
            walk.names = dict.fromkeys(order)
        return walk.losses(self.num_particles, self.vectorize_particles, marks)

    def _walk(self) -> TraceWalk:
        walks: dict[str, Callable[[float, ProgramWarnings], TraceWalk]] = {
            "mc": partial(TraceWalk, False),
            "analytic": partial(TraceWalk, True),
            "graph": partial(DownstreamWalk, self.averages),
            "enum": partial(EnumerationWalk, False),
            "renyi": partial(ImportanceWalk, self.alpha),
        }
        return walks[self.estimator](self.max_plate_nesting, self._warnings)

    def discrete_posterior(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Probabilities of the latents that "enum" sums out in the model, by site, a mean over particles.

        `bmtl.inference.discrete_posterior` calls it in evaluation mode, with a seed.

        Args:
            model: The task model.
            guide: Its guide.
            *args: The batch, for both.
            **kwargs: The batch, for both.
        """
        sums: dict[str, Tensor] = {}
        for pair in self._get_traces(model, guide, args, kwargs):
            walk = EnumerationWalk(False, self.max_plate_nesting, self._warnings)
            for name, probabilities in walk.posteriors(*pair).items():
                sums[name] = sums[name] + probabilities if name in sums else probabilities
        return {name: total / self.num_particles for name, total in sums.items()}

    def watch(self, losses: TaskLosses) -> None:
        """Warns once of plates that take each training batch for all of the data, and of latents scaled in one program.

        Args:
            losses: Of a training batch.
        """
        self._warnings.batch_sizes(model_trace for model_trace, _ in losses.traces)
        self._warnings.scales(losses.traces)


def _trace(program: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Trace:
    """The trace of a run: the handler's own, which ``get_trace`` would copy."""
    handler = poutine.trace(program)
    handler(*args, **kwargs)
    found: Trace = handler.trace
    return found


def _next_of(pairs: Iterator[tuple[Trace, Trace]]) -> tuple[Trace, Trace] | None:
    """The next trace pair, without Pyro's warning of latents that the guide lacks: `check_guide` raises and explains."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found vars in model but not guide", category=UserWarning)
        return next(pairs, None)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is one of {', '.join(map(repr, choices))}, and {value!r} was given.")


def _check_alpha(estimator: str, alpha: Any) -> float:
    if estimator != "renyi":
        if alpha is not None:
            raise ValueError(f"alpha is the order of the estimator 'renyi', and was given to {estimator!r}.")
        return 1.0
    alpha = 0.0 if alpha is None else alpha
    if isinstance(alpha, bool) or not isinstance(alpha, Real):
        raise TypeError(f"alpha is the order of Renyi's divergence, a number, and {alpha!r} was given.")
    if alpha == 1 or not math.isfinite(alpha):
        raise ValueError(
            f"alpha is any number but 1, where the bound is the ELBO of TaskELBO('mc'), and {alpha} was given."
        )
    return float(alpha)


def _check_count(name: str, value: Any, what: str, least: int = 1) -> int:
    """A whole number of at least `least`; True and 1.0 are none.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is smaller.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {what}, an integer of at least {least}, and {value!r} was given.")
    if value < least:
        raise ValueError(f"{name} is {what}, at least {least}, and {value} was given.")
    return int(value)


def _check_n_data(n_data: Any) -> int | dict[str, int] | None:
    what = "a number of labelled training data"
    if n_data is None:
        return None
    if not isinstance(n_data, Mapping):
        return _check_count("n_data", n_data, what)
    if not n_data:
        raise ValueError("n_data names no task. Give the number of data of each, one number for all, or None.")
    for name in n_data:
        if not isinstance(name, str) or not name:
            raise TypeError(f"n_data is a mapping of task names to numbers of data, and {name!r} names no task.")
    return {name: _check_count(f"n_data[{name!r}]", value, what) for name, value in n_data.items()}
