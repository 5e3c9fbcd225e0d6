"""Stochastic variational inference in which a balancer weighs the tasks."""

from __future__ import annotations

import copy
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.optim import PyroOptim
from torch import Tensor, nn

from bmtl.inference import distributed
from bmtl.inference.balancing import Balancer, Context, Pipeline, Slot, Update
from bmtl.inference.balancing import balancer as as_balancer
from bmtl.inference.balancing.base import Objective
from bmtl.inference.checkpoint import CheckpointError
from bmtl.inference.elbo import TaskELBO
from bmtl.inference.errors import NonFinite, StepError
from bmtl.inference.halves import Halves, split
from bmtl.inference.losses import TaskLosses
from bmtl.inference.probe import ConflictProbe
from bmtl.inference.record import StepRecord, history_from_state, history_state
from bmtl.inference.scaled_losses import ScaledLosses, declared_sizes, numbers_of_data
from bmtl.inference.shared_representation import ReplayFromShared, SharedRepresentation

logger = logging.getLogger(__name__)

_OWN_LR = 0.025  # of parameters that a balancer owns (UW's log-variances)

Optimizer = torch.optim.Optimizer


class Evaluation(NamedTuple):
    """The losses of a batch without a step, float64 on the host.

    Attributes:
        losses: Expected negative log-likelihood per labelled row of each task ``(K,)``; NaN without a label.
        labelled: Labelled rows of each task ``(K,)``, to average over batches.
        shared: The terms of weight 1 (KL divergences) per datum.
    """

    losses: Tensor
    labelled: Tensor
    shared: float


class BalancedSVI:
    """Trains a task model and its guide by SVI, the tasks weighed by a balancer.

    Under torch.distributed, every process makes one and steps on rows of its own; the step is that of one process on the
    joined batch, in all of them. The first process's parameters and balancer are everybody's at the first batch. Each draws
    its own latents: seed the processes differently (``torch.manual_seed(seed + rank)``). A plate's size, or `n_data`, is the
    number of data of all processes together.

    Args:
        model: The task model: a `PyroModule`, any module or a function with Pyro statements, marked with `bmtl.task`.
        guide: Its guide: a module, a function, or an AutoGuide (set up from the first batch).
        optim: A factory such as ``functools.partial(torch.optim.Adam, lr=1e-3)``, called with all parameters; a ready
            torch optimizer; or, for plain functions with `pyro.param` alone, a `pyro.optim.PyroOptim`.
        balancer: Anything that `bmtl.balancer` takes.
        elbo: How losses are estimated; `TaskELBO()` by default.
        on_error: What a step does that cannot be taken (a loss or gradient that is not finite, a loss that a transform
            cannot take, a solver that fails): "raise", or "skip" it, with an event in its record. Parameters stay as
            they were in both cases.
        scaler: For float16: the losses are multiplied by its scale, so that gradients do not vanish, and compared without
            it. `backward` leaves scaled gradients, as ``scaler.scale(loss).backward()`` would, for ``scaler.unscale_``;
            `update` steps through it. Where gradients overflow, the step is skipped and the scale lowered, down to 1.

    Attributes:
        names: The tasks, known after the first batch.
        history: One `StepRecord` a step.
        skipped: Number of steps skipped.
        probe: A `ConflictProbe` that watches the steps, or None.
        optimizer: The optimizer, built at the first batch from a factory.

    Raises:
        ValueError: For an unknown option, an empty model, a guide that does not fit, a PyroModule in Pyro's global
            parameter mode, or a ready optimizer that lacks parameters. Most need a first batch to be found.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: Callable[[Iterable[Any]], Optimizer] | Optimizer | PyroOptim,
        balancer: str | Slot | Pipeline | Balancer = "ew",
        elbo: TaskELBO | None = None,
        *,
        on_error: Literal["raise", "skip"] = "raise",
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', and {on_error!r} was given.")
        if not isinstance(optim, Optimizer | PyroOptim) and not callable(optim):
            raise TypeError(
                f"optim is a factory such as functools.partial(torch.optim.Adam, lr=1e-3), or an optimizer; "
                f"{type(optim).__name__} was given."
            )
        if elbo is not None and not isinstance(elbo, TaskELBO):
            raise TypeError(f"elbo is a bmtl.TaskELBO, and {type(elbo).__name__} was given.")
        for program in (model, guide):
            if isinstance(program, nn.Module):
                _adopt(program)
        if isinstance(optim, PyroOptim) and any(isinstance(p, nn.Module) for p in (model, guide)):
            raise ValueError(
                "A PyroOptim serves plain functions with pyro.param only, and the model or the guide is a module. Give a "
                "factory, optim=functools.partial(torch.optim.Adam, lr=1e-3)."
            )
        self.model = model
        self.guide = guide
        self.elbo = elbo or TaskELBO()
        self.balancer = as_balancer(balancer)
        if self.balancer.names:
            raise ValueError(
                f"This balancer serves another BalancedSVI already, and its state (bases, log-variances, moments) would "
                f"come along. Make a new one: bmtl.balancer({str(self.balancer)!r})."
            )
        self.on_error = on_error
        self.scaler = scaler
        self.module = self.elbo(model, guide)  # type: ignore[arg-type]
        self.names: tuple[str, ...] = ()
        self.history: list[StepRecord] = []
        self.skipped = 0
        self.probe: ConflictProbe | None = None
        self.steps = 0
        self.epoch = 1
        self.optimizer: Optimizer | PyroOptim | None = None if not isinstance(optim, Optimizer | PyroOptim) else optim
        self._factory = optim
        self._parameters: list[Tensor] = []
        self._parameter_names: dict[int, str] = {}
        self._numbers: dict[str, float] = {}  # of data, by task
        self._lr0 = 0.0
        self._batch = 0
        self._validated = False
        self._epoch_sums = torch.zeros(0, dtype=torch.float64)
        self._epoch_counts = torch.zeros(0, dtype=torch.float64)
        self._pending: dict[str, Any] | None = None

    # ---- Set-up --------------------------------------------------------------------------------------------------

    @property
    def initialised(self) -> bool:
        """Whether a first batch has been seen."""
        return bool(self.names)

    def initialise(self, *args: Any, **kwargs: Any) -> None:
        """Runs guide and model once on a batch, without a gradient: AutoGuides make their parameters, tasks are found.

        Random draws made here do not shift those of training. Called by the first `step` or `evaluate`.
        """
        if self.initialised:
            return
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices=devices), torch.no_grad(), poutine.trace(param_only=True) as capture:
            losses = self.elbo.task_losses(self.model, self.guide, *args, **kwargs)
        # In the order in which the processes' first batches mention them.
        names = tuple(dict.fromkeys(name for theirs in distributed.gather(losses.names) for name in theirs))
        losses = losses.arranged(names)
        self._name_parameters(capture.trace)
        self.balancer.bind(names)
        if self.balancer.cut and not losses.marks.tensors:
            raise ValueError(
                f"The balancer {str(self.balancer)!r} compares gradients at the shared representation, and the model marks "
                "none. Wrap the trunk's output: h = bmtl.shared(trunk(x)); or use the geometry 'full'."
            )
        self._make_optimizer()
        tensors = {n: t for part in self.program_state().values() for n, t in part.items() if isinstance(t, Tensor)}
        distributed.share_state(tensors, self.balancer)
        self.names = names
        self._numbers = numbers_of_data(names, declared_sizes(losses), self.elbo.n_data)
        self._epoch_sums = torch.zeros(len(self.names), dtype=torch.float64)
        self._epoch_counts = torch.zeros(len(self.names), dtype=torch.float64)
        if self._pending is not None:
            state, self._pending = self._pending, None
            self.load_state_dict(state)

    def _name_parameters(self, captured: Any) -> None:
        names: dict[int, tuple[str, Tensor]] = {id(p): (n, p) for n, p in self.module.named_parameters()}
        for name, site in captured.nodes.items():
            if site["type"] == "param":
                value = site["value"]
                parameter = value.unconstrained() if hasattr(value, "unconstrained") else value
                names.setdefault(id(parameter), (name, parameter))
        names = {key: (n, p) for key, (n, p) in names.items() if p.requires_grad}
        if not names:
            raise ValueError("Neither the model nor the guide has a parameter to train.")
        self._parameters = [p for _, p in names.values()]
        self._parameter_names = {key: n for key, (n, _) in names.items()}

    def _make_optimizer(self) -> None:
        own = [p for p in self.balancer.parameters() if p.requires_grad]
        if isinstance(self._factory, PyroOptim):
            if own:
                raise ValueError(
                    f"The balancer {str(self.balancer)!r} has parameters of its own; use a torch optimizer."
                )
            if distributed.world_size() > 1:
                raise ValueError("Several processes need a torch optimizer, and optim is a PyroOptim. Give a factory.")
            self._lr0 = 1.0
            return
        if isinstance(self.optimizer, Optimizer):
            held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
            missing = [name for key, name in self._parameter_names.items() if key not in held]
            missing += [f"balancer.{n}" for n, p in self.balancer.named_parameters() if id(p) not in held]
            if missing:
                raise ValueError(
                    f"The optimizer lacks parameters: {', '.join(missing)}. Some are made at the first batch (an "
                    "AutoGuide's, a balancer's own): give a factory, optim=functools.partial(torch.optim.Adam, lr=1e-3)."
                )
        else:
            self.optimizer = self._factory(self._parameters)  # type: ignore[operator]
            if not isinstance(self.optimizer, Optimizer):
                raise TypeError(f"The factory gave a {type(self.optimizer).__name__}, and a torch optimizer is wanted.")
            if own:
                group: dict[str, Any] = {"params": own, "lr": _OWN_LR}
                if "weight_decay" in self.optimizer.defaults:
                    group["weight_decay"] = 0.0
                if "fused" in self.optimizer.defaults and not self.optimizer.defaults.get("foreach"):
                    group["fused"] = True  # one number a task: the loop over them would cost more than the step
                self.optimizer.add_param_group(group)
        self._lr0 = float(self.optimizer.param_groups[0]["lr"])

    # ---- Steps ---------------------------------------------------------------------------------------------------

    def step(self, *args: Any, **kwargs: Any) -> StepRecord:
        """Takes one step on a batch.

        Args:
            *args: The batch, for guide and model alike.
            **kwargs: The batch, for guide and model alike.

        Raises:
            StepError: If the step cannot be taken and ``on_error="raise"``; parameters are unchanged.
        """
        start = time.perf_counter()
        self.zero_grad()
        record = self.backward(*args, **kwargs)
        if record.status != "skipped":
            self.update()
            self.after_step(*args, **kwargs)
        record.seconds["step"] = time.perf_counter() - start
        return record

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """All parameters of model and guide that are trained; known after the first batch."""
        return tuple(self._parameters)

    def zero_grad(self) -> None:
        """Forgets gradients."""
        for parameter in self._parameters:
            parameter.grad = None
        for parameter in self.balancer.parameters():
            parameter.grad = None

    def update(self) -> None:
        """Lets the optimizer step on the gradients that `backward` left."""
        if isinstance(self.optimizer, PyroOptim):
            self.optimizer(self._parameters)
        elif self.optimizer is not None and self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif self.optimizer is not None:
            self.optimizer.step()

    @torch.no_grad()
    def after_step(self, *args: Any, **kwargs: Any) -> None:
        """Shows the batch's losses at the new parameters to a balancer that asks for them (FAMO); free otherwise."""
        if not self.balancer.transform.second_forward:
            return
        with self._validation():
            losses = self.elbo.task_losses(self.model, self.guide, *args, **kwargs).arranged(self.names)
        terms = self._trained(ScaledLosses.of(losses, self.elbo, self._numbers))
        ctx = Context(terms.present, self.steps, self.epoch, self._batch, None, self._lr(), self._lr0)
        self.balancer.after_step(terms.values[terms.present], ctx)

    def backward(self, *args: Any, **kwargs: Any) -> StepRecord:
        """Adds the balanced gradient of a batch to the parameters and records the step, without the optimizer's part.

        For loops that clip, accumulate or scale gradients; `step` is `zero_grad`, `backward`, `update`.
        """
        start = time.perf_counter()
        self.initialise(*args, **kwargs)
        terms: ScaledLosses | Halves
        if self.balancer.halves:
            terms = Halves.of(*(self._terms(*half) for half in split(args, kwargs)))
        else:
            terms = self._terms(args, kwargs, cut=self.balancer.cut)
        elapsed = time.perf_counter() - start
        everything, terms = terms, self._trained(terms)
        values, rest, active = terms.values, terms.unweighted_terms, terms.present
        probed: dict[tuple[str, str], float] = {}
        scale = self.scale
        self._scale_own_gradients(1.0 / scale)
        ctx = Context(active, self.steps, self.epoch, self._batch, None, self._lr(), self._lr0)
        try:
            self._check_losses(terms.raw, values, rest)
            objective = self._objective(terms, scale)
            if objective.marks.cut:
                objective.rerun = functools.partial(self._again, objective.marks, self._autocast(), args, kwargs)
            with self._autocast(False):  # gradients' products are not for half precision
                if self.probe is not None and self.steps % self.probe.every == 0:
                    probed = self.probe.measure(self._objective(everything, scale))
                update = self.balancer.backward(objective, ctx)
            distributed.check_weights(torch.cat([update.weights, update.weights_heads]))
            distributed.average_gradients(self._parameters)
            self._scale_own_gradients(scale)
            self._check_gradients(objective.names)
        except StepError as error:
            self.zero_grad()
            error.args = (f"At step {self.steps}: {error}", *error.args[1:])
            overflow = isinstance(error, NonFinite) and scale > 1.0 and bool(values.isfinite().all())
            if overflow:
                self._lower_scale(scale)
            elif self.on_error == "raise":
                raise
            self.skipped += 1
            logger.log(logging.INFO if overflow else logging.WARNING, "A step was skipped. %s", error)
            record = self._record(values, rest, active, None, (str(error),))
        else:
            record = self._record(values, rest, active, update, tuple(update.events))
            self._epoch_sums += torch.where(active, values, 0.0)
            self._epoch_counts += active
        record.losses[everything.present] = values[everything.present]  # a probe's shadows too
        record.probed.update(probed)
        record.seconds["elbo"] = elapsed
        record.seconds["step"] = time.perf_counter() - start
        self.history.append(record)
        self.steps += 1
        self._batch += 1
        return record

    def _again(
        self,
        marks: SharedRepresentation,
        autocast: AbstractContextManager[Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Objective:
        """Runs guide and model once more from the marked tensors on."""
        with autocast:
            terms = self._terms(args, kwargs, cut=ReplayFromShared(marks.leaves))
        return self._objective(self._trained(terms), self.scale)

    def _autocast(self, enabled: bool = True) -> AbstractContextManager[Any]:
        """Autocast as it is now, to come back to it, or switched off."""
        device = self._parameters[0].device.type
        if not torch.is_autocast_enabled(device):
            return nullcontext()
        cached = torch.is_autocast_cache_enabled()
        return torch.autocast(device, torch.get_autocast_dtype(device), enabled, cached)

    def _objective(self, terms: ScaledLosses | Halves, scale: float) -> Objective:
        objective = terms.objective(self._parameter_names, scale)
        objective.parameters = self.parameters
        return objective

    @property
    def scale(self) -> float:
        """What losses and gradients are multiplied by: the scaler's scale, 1 without one."""
        if self.scaler is None:
            return 1.0
        return self.scaler.scale(
            torch.ones((), device=self._parameters[0].device)
        ).item()  # its own way to set itself up

    def _lower_scale(self, scale: float) -> None:
        assert self.scaler is not None
        self.scaler.update(max(1.0, scale * self.scaler.get_backoff_factor()))

    def _scale_own_gradients(self, factor: float) -> None:
        """A balancer's own parameters get their gradients without the scale; the optimizer's scaler wants it."""
        if factor != 1.0:
            for parameter in self.balancer.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)

    def _trained(self, terms: ScaledLosses | Halves) -> ScaledLosses | Halves:
        """The terms with a probe's shadows absent."""
        return terms if self.probe is None else terms.only(self.probe.trained(self.names))

    def _terms(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], cut: bool | SharedRepresentation = False
    ) -> ScaledLosses:
        """Runs guide and model on a batch, for a step."""
        with self._validation(), self._capturing():
            losses = self.elbo.task_losses(self.model, self.guide, *args, cut=cut, **kwargs)
        self._validated = True
        return ScaledLosses.of(losses.arranged(self.names), self.elbo, self._numbers)

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> Evaluation:
        """The losses of a batch, without a gradient or a step; each process's are its own."""
        self.initialise(*args, **kwargs)
        losses = self.elbo.task_losses(self.model, self.guide, *args, **kwargs).arranged(self.names)
        host = torch.stack([losses.nll, losses.counts, losses.labelled]).cpu().double()
        means = torch.where(host[1] > 0, host[0] / host[1], torch.nan)
        return Evaluation(
            means, host[2], ScaledLosses.of(losses, self.elbo, self._numbers, joined=False).unweighted_terms
        )

    def end_epoch(self) -> Tensor:
        """Tells the balancer that an epoch has ended; returns each task's mean training loss in it ``(K,)``."""
        mean = self._epoch_sums / self._epoch_counts  # 0/0 is NaN: a task without a label all epoch
        active = torch.ones(len(self.names), dtype=torch.bool)
        ctx = Context(active, self.steps, self.epoch, self._batch, self._batch, self._lr(), self._lr0)
        if self.names:
            self.balancer.end_epoch(mean, ctx)
        self._epoch_sums = torch.zeros_like(self._epoch_sums)
        self._epoch_counts = torch.zeros_like(self._epoch_counts)
        self._batch = 0
        self.epoch += 1
        return mean

    # ---- Checks and records --------------------------------------------------------------------------------------

    def _check_losses(self, losses: TaskLosses, values: Tensor, rest: float) -> None:
        if values.isfinite().all() and rest - rest == 0.0:
            return
        bad = [name for name, fine in zip(self.names, values.isfinite().tolist(), strict=True) if not fine]
        where = f"of {', '.join(map(repr, bad))}" if bad else "of the shared latents"
        sites = losses.nonfinite_sites()
        raise NonFinite(f"the loss {where} is NaN or infinite" + (f" (sites: {', '.join(sites)})." if sites else "."))

    def _check_gradients(self, names: tuple[str, ...]) -> None:
        gradients = [_entries(p.grad) for p in self._parameters if p.grad is not None]
        if all(fine.item() for fine in _finite(gradients)):
            return
        bad = [
            self._parameter_names[id(p)]
            for p in self._parameters
            if p.grad is not None and not _entries(p.grad).isfinite().all()
        ]
        if bad:  # else a norm overflowed, and the gradients are finite
            raise NonFinite(
                f"the gradient of {', '.join(bad)} is NaN or infinite (tasks in this batch: {', '.join(names)})."
            )

    def _record(
        self, values: Tensor, rest: float, active: Tensor, update: Update | None, events: tuple[str, ...]
    ) -> StepRecord:
        k = len(self.names)

        def scatter(found: Tensor | None) -> Tensor:
            if found is not None and len(found) == k:
                return found
            full = torch.full((k,), torch.nan, dtype=torch.float64)
            if found is not None:
                full[active] = found
            return full

        gram = None
        if update is not None and update.gram is not None:
            gram = torch.full((k, k), torch.nan, dtype=torch.float64)
            index = active.nonzero().squeeze(-1)
            gram[index[:, None], index] = update.gram
        solution = None if update is None else update.solution
        return StepRecord(
            step=self.steps,
            epoch=self.epoch,
            names=self.names,
            losses=torch.where(active, values, torch.nan),
            shared=rest,
            active=active,
            weights=scatter(None if update is None else update.weights),
            weights_heads=scatter(None if update is None else update.weights_heads),
            alpha=scatter(None if update is None else update.alpha),
            gram=gram,
            combination=solution is None or solution.direction is None,
            lr=self._lr() if isinstance(self.optimizer, Optimizer) else float("nan"),
            residual=float("nan") if solution is None else solution.residual,
            iterations=0 if solution is None else solution.iterations,
            status="skipped" if update is None else "ok" if solution is None else solution.status,
            length="" if update is None else update.length,
            fidelity=float("nan") if update is None else update.fidelity,
            seconds={} if update is None else update.seconds,
            events=events,
        )

    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"]) if isinstance(self.optimizer, Optimizer) else 1.0

    def _validation(self) -> AbstractContextManager[None]:
        """Pyro's shape and support checks in the first step only: they scan whole tensors."""
        return _unvalidated() if self._validated else nullcontext()

    def _capturing(self) -> AbstractContextManager[Any]:
        """Under a PyroOptim, parameters may appear at any step."""
        return self._capture() if isinstance(self.optimizer, PyroOptim) else nullcontext()

    @contextmanager
    def _capture(self) -> Iterator[None]:
        with poutine.trace(param_only=True) as capture:
            yield
        self._name_parameters(capture.trace)

    # ---- State ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next steps depend on, random number generators aside (see `bmtl.inference.checkpoint`).

        As with torch's own, the tensors are those in use: `copy.deepcopy` it to keep it beyond the next step.

        Raises:
            ValueError: Before the first batch, when there is nothing to save.
        """
        if not self.initialised:
            raise ValueError(
                "There is nothing to save before the first batch; call initialise(*batch) or step(*batch)."
            )
        optimizer = self.optimizer
        return {
            "names": list(self.names),
            **self.program_state(),
            "optimizer": optimizer.get_state() if isinstance(optimizer, PyroOptim) else optimizer.state_dict(),  # type: ignore[union-attr]
            "balancer": self.balancer.state_dict(),
            "epoch_sums": self._epoch_sums.clone(),
            "epoch_counts": self._epoch_counts.clone(),
            "steps": self.steps,
            "epoch": self.epoch,
            "batch": self._batch,
            "skipped": self.skipped,
            "lr0": self._lr0,
            "history": history_state(self.history),
            "scaler": {} if self.scaler is None else self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a saved state; before the first batch it is kept until then (an AutoGuide's parameters must exist).

        Raises:
            CheckpointError: If the state belongs to other tasks or another model; parameters are then unchanged.
        """
        if not self.initialised:
            self._pending = state
            return
        if list(self.names) != list(state["names"]):
            raise CheckpointError(
                f"The saved state has the tasks {state['names']}, and the model has {list(self.names)}."
            )
        # A module's own loading changes what fits before it says what does not.
        wrong = _differences(self.module.state_dict(), state["module"])
        wrong += _differences(self._store_parameters(), state["params"])
        if wrong:
            raise CheckpointError(f"The saved state belongs to another model or guide: {'; '.join(wrong)}.")
        try:
            self.balancer.load_state_dict(state["balancer"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"The saved state belongs to another balancer: {error}") from error
        self.load_program_state({"module": state["module"], "params": state["params"]})
        moments = copy.deepcopy(state["optimizer"])  # torch's optimizers would go on in the caller's tensors
        if isinstance(self.optimizer, PyroOptim):
            self.optimizer.set_state(moments)
        elif self.optimizer is not None:
            self.optimizer.load_state_dict(moments)
        self._epoch_sums = state["epoch_sums"].clone()
        self._epoch_counts = state["epoch_counts"].clone()
        self.steps, self.epoch, self._batch = state["steps"], state["epoch"], state["batch"]
        self.skipped, self._lr0 = state["skipped"], state["lr0"]
        self.history = history_from_state(state["history"])
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])

    def program_state(self) -> dict[str, dict[str, Any]]:
        """The parameters and buffers of model and guide: those of modules, and those of `pyro.param`."""
        return {
            "module": self.module.state_dict(),
            "params": {n: p.detach() for n, p in self._store_parameters().items()},
        }

    def load_program_state(self, state: dict[str, dict[str, Any]]) -> None:
        """The inverse of `program_state`."""
        self.module.load_state_dict(state["module"])
        own = self._store_parameters()
        with torch.no_grad():
            for name, value in state["params"].items():
                own[name].copy_(value)

    def _store_parameters(self) -> dict[str, Tensor]:
        """Parameters of `pyro.param` statements, which no module holds."""
        held = {id(p) for p in self.module.parameters()}
        return {self._parameter_names[id(p)]: p for p in self._parameters if id(p) not in held}


@contextmanager
def _unvalidated() -> Iterator[None]:
    """Validation switched off in torch and Pyro, and put back as it was."""
    before = (
        torch.distributions.Distribution._validate_args,
        pyro.distributions.util.is_validation_enabled(),
        pyro.infer.util.is_validation_enabled(),
        pyro.poutine.util.is_validation_enabled(),
    )
    if not any(before):
        yield
        return
    pyro.enable_validation(False)
    try:
        yield
    finally:
        pyro.distributions.enable_validation(before[1])
        torch.distributions.Distribution.set_default_validate_args(before[0])
        pyro.infer.enable_validation(before[2])
        pyro.poutine.enable_validation(before[3])


def _entries(gradient: Tensor) -> Tensor:
    """The entries that an embedding's sparse gradient holds, or any other's own."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _finite(gradients: list[Tensor]) -> Iterable[Tensor]:
    """Whether all gradients are finite, a tensor ``()`` for each device and dtype."""
    kinds = {(g.device, g.dtype) for g in gradients}
    for device, dtype in kinds:
        same = gradients if len(kinds) == 1 else [g for g in gradients if g.device == device and g.dtype == dtype]
        yield torch.stack(torch._foreach_norm(same)).isfinite().all()


def _differences(own: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """How two states differ in names and shapes."""
    found = [f"{name!r} is only in the saved state" for name in saved if name not in own]
    found += [f"{name!r} is not in the saved state" for name in own if name not in saved]
    for name in own:
        ours, theirs = getattr(own[name], "shape", None), getattr(saved.get(name), "shape", None)
        if name in saved and ours != theirs:
            found.append(f"{name!r} has the shape {tuple(theirs or ())} there and {tuple(ours or ())} here")
    return found


def _adopt(module: nn.Module) -> None:
    """Gives a PyroModule built before bmtl was used the module-local parameters it would have had.

    Raises:
        ValueError: If it has already run in Pyro's global mode, where its values are those of the global store.
    """
    for part in module.modules():
        if isinstance(part, nn.parallel.DistributedDataParallel):
            raise ValueError(
                "The model or the guide is wrapped in DistributedDataParallel, whose hooks know one backward of one loss. "
                "Give the bare module: BalancedSVI averages over the processes itself."
            )
        if isinstance(part, PyroModule) and not hasattr(part._pyro_context, "param_state"):
            if part._pyro_context.used:
                raise ValueError(
                    f"The PyroModule {type(part).__name__} has run in Pyro's global parameter mode, where models of one "
                    "class share values. Build it after `pyro.settings.set(module_local_params=True)`, which bmtl sets "
                    "when it is first used."
                )
            part._pyro_context.param_state = {"params": {}, "constraints": {}}
