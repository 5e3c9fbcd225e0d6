"""Stochastic variational inference in which a balancer weights the tasks."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

from bmtl.inference import distributed
from bmtl.inference.arguments import check_program, choice, positive_number
from bmtl.inference.balancing import Balancer, Context, Pipeline, Slot
from bmtl.inference.balancing import balancer as as_balancer
from bmtl.inference.balancing.base import Objective
from bmtl.inference.compiled import MODES, CompiledPrograms, Mode
from bmtl.inference.compiled.fused import fuse
from bmtl.inference.elbo import TaskELBO
from bmtl.inference.errors import CheckpointError, NonFinite, StepError
from bmtl.inference.half_precision import autocast_now, lower_scale, multiply_gradients, scale_of
from bmtl.inference.halves import Halves, split
from bmtl.inference.history import History
from bmtl.inference.numbers_of_data import NumbersOfData
from bmtl.inference.optimized_program import OptimizedProgram
from bmtl.inference.optimizers import Factory, Optimizer, check_closure
from bmtl.inference.probe import ConflictProbe
from bmtl.inference.programs import Batch, Programs, generators
from bmtl.inference.record import Evaluation, StepRecord
from bmtl.inference.repeated_loss import RepeatedLoss
from bmtl.inference.scaled_losses import ScaledLosses, declared_sizes
from bmtl.inference.shared_representation import ReplayFromShared, SharedRepresentation
from bmtl.inference.state import balancer_state, check_balancer, check_structure, on_host
from bmtl.inference.step import GradientsBefore, check_gradients, check_losses, make_record

logger = logging.getLogger(__name__)


class BalancedSVI:
    """Trains a task model and its guide by SVI, the tasks weighted by a balancer.

    Model and guide run with each PyroModule's own parameters (Pyro's setting ``module_local_params``, which is restored
    after each run): other Pyro programs of the process are not affected. Runs outside steps (the first batch's set-up,
    `evaluate`, a second forward, the draws of BayesAgg) leave buffers, such as a batch norm's running means, unchanged.

    Every step checks that the optimizer holds all trainable leaves of its graph. Parameters that appear late (unfrozen,
    replaced, a `pyro.param` of a later batch) are added automatically if the optimizer was made by a factory; otherwise an
    error names them, and `refresh` adds them. The graph is walked if modules, `pyro.param` statements or its number of
    nodes have changed, and at every 16th step: a tensor that is in no module, in no statement and in no variable of the
    functions may be found up to 16 steps late.

    Under torch.distributed, every process makes one and steps on its own rows; in all of them the step equals that of one
    process on the joined batch. At the first batch all take the first process's parameters and balancer. Each draws its
    own latents: seed the processes differently (``torch.manual_seed(seed + rank)``). A plate's size, or `n_data`, is the
    number of data of all processes together.

    Args:
        model: The task model: a `PyroModule`, any module or a function with Pyro statements, marked with `bmtl.task`. A
            function registers the modules that it uses: ``pyro.module("net", net)``.
        guide: Its guide: a module, a function, or an AutoGuide (set up from the first batch).
        optim: A factory such as ``functools.partial(torch.optim.Adam, lr=1e-3)``, called with all parameters (a list whose
            ``items()`` are pairs of name and tensor; `ParameterGroups` makes groups by patterns of names); a ready torch
            optimizer; or, for plain functions with `pyro.param` alone, a `pyro.optim.PyroOptim`. LBFGS works too, see
            `closure`.
        balancer: Anything that `bmtl.balancer` takes.
        elbo: How losses are estimated; `TaskELBO()` by default.
        on_error: What happens if a step cannot be taken (a loss or gradient that is not finite, a loss outside a
            transform's domain, a solver that fails): "raise", or "skip" it, with an event in its record. Parameters, and
            gradients accumulated before, stay unchanged in both cases.
        scaler: For float16: the losses are multiplied by its scale, so that gradients do not vanish, and compared without
            it. `backward` leaves scaled gradients, as ``scaler.scale(loss).backward()`` would, for ``scaler.unscale_``;
            `update` steps through it. If gradients overflow, the step is skipped and the scale lowered, down to 1.
        history_mib: Limit of the history's memory, in MiB: when it is reached, every other record is dropped, and every
            second step recorded from then on; and so on. 8 MiB hold about 25,000 steps of three tasks. None keeps all.
        compile: How guide, model and losses of a step run: False as Python; "trace" as the graph of torch's operations that
            was captured from the first step, equal bit for bit; "inductor" as that graph compiled to machine code, equal to
            about 1e-5, with torch's fused updates where the optimizer leaves them open (needs a C++ compiler; some ten
            seconds once); "auto" traced, and compiled where the steps that are left repay it. What a graph cannot repeat is
            found, and runs as Python with one warning (docs/howto.md).

    Attributes:
        names: The tasks, known after the first batch.
        history: One `StepRecord` per step, or every n-th step's (`History`).
        skipped: Number of steps skipped.
        probe: A `ConflictProbe` that watches the steps, or None.
        compiled: Runs the steps' programs: ``compiled.mode`` may be set, ``compiled.reason`` says why they run as Python.
        optimizer: The optimizer, built at the first batch from a factory.
        accumulated: Whether `backward` has added gradients that the optimizer has not used, as in the middle of an
            accumulation; a saved state holds them then. `zero_grad` and `update` end it: set it to False in a loop that
            calls ``svi.optimizer.step()`` and keeps the gradients.

    Raises:
        TypeError: For an argument of the wrong type.
        ValueError: For an unknown option, an empty model, a guide that does not fit, or an optimizer that lacks parameters.
            Most need a first batch to be found.
        RuntimeError: For ``compile="inductor"`` without a C++ compiler.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: Factory | Optimizer | PyroOptim,
        balancer: str | Slot | Pipeline | Balancer = "ew",
        elbo: TaskELBO | None = None,
        *,
        on_error: Literal["raise", "skip"] = "raise",
        scaler: torch.amp.GradScaler | None = None,
        history_mib: float | None = 8.0,
        compile: Mode = False,
    ) -> None:
        if compile is not False:
            choice("compile", compile, MODES)
        choice("on_error", on_error, ("raise", "skip"))
        for name, program in (("model", model), ("guide", guide)):
            check_program(name, program)
        if not isinstance(optim, Optimizer | PyroOptim) and not callable(optim):
            raise TypeError(
                f"optim is a factory such as functools.partial(torch.optim.Adam, lr=1e-3), or an optimizer; "
                f"{type(optim).__name__} was given."
            )
        if elbo is not None and not isinstance(elbo, TaskELBO):
            raise TypeError(f"elbo is a bmtl.TaskELBO, and {type(elbo).__name__} was given.")
        if scaler is not None and not isinstance(scaler, torch.amp.GradScaler):
            raise TypeError(f"scaler is a torch.amp.GradScaler, and {type(scaler).__name__} was given.")
        if history_mib is not None:
            history_mib = positive_number("history_mib", history_mib, "a size in MiB")
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
        self.module = self.elbo(model, guide)
        self.names: tuple[str, ...] = ()
        self.history = History(history_mib)
        self.skipped = 0
        self.accumulated = False
        self.probe: ConflictProbe | None = None
        self.steps = 0
        self.epoch = 1
        self._programs = Programs(model, guide, self.elbo)
        self._programs.shows_layers = self.balancer.compares and self.balancer.geometry.reads_layers
        self.compiled = CompiledPrograms(self._programs, compile, self._differentiates_by_task)
        self._program = OptimizedProgram(self.module, self._programs, optim, self.balancer)
        self._numbers = NumbersOfData()
        self._fused = False
        self._lr0 = 0.0
        self._batch = 0
        self._epoch_sums = torch.zeros(0, dtype=torch.float64)
        self._epoch_counts = torch.zeros(0, dtype=torch.float64)
        self._pending: dict[str, Any] | None = None
        self._evaluated: RepeatedLoss | None = None  # of the last step, for `closure`

    # ---- Set-up --------------------------------------------------------------------------------------------------

    @property
    def initialised(self) -> bool:
        """Whether a first batch has been seen."""
        return bool(self.names)

    @property
    def optimizer(self) -> Optimizer | PyroOptim | None:
        """The optimizer; with a factory None before the first batch."""
        return self._program.optimizer

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """All parameters of model and guide that are trained; known after the first batch."""
        return tuple(self._program.trained.named)

    @torch.inference_mode(False)
    def initialise(self, *args: Any, **kwargs: Any) -> None:
        """Runs guide and model once on a batch: AutoGuides make their parameters, tasks are found.

        Neither random draws made here nor buffers that change shift those of training. Called by the first `step` or
        `evaluate`.
        """
        if not self.initialised:
            losses = self._program.set_up((args, kwargs))
            self.names = losses.names
            if self._program.by_closure and isinstance(self.optimizer, Optimizer):
                check_closure(self.optimizer, self.balancer, self.scaler)
            self._lr0 = self._program.learning_rate
            self._numbers.declare(losses.names, declared_sizes(losses), self.elbo.n_data)
            self._epoch_sums = torch.zeros(len(losses.names), dtype=torch.float64)
            self._epoch_counts = torch.zeros_like(self._epoch_sums)
        if self._pending is not None:
            self.load_state_dict(self._pending)
            self._pending = None

    def refresh(self) -> tuple[str, ...]:
        """Updates the optimizer to the current parameters of model and guide.

        Call it after a layer was unfrozen, replaced or added. A factory is called again, and new parameters are added to
        the group where the factory puts them. A ready optimizer must already hold them: call
        ``svi.optimizer.add_param_group`` first. Parameters that no module has any more are removed. With a factory, steps
        do this automatically for any parameter on which a loss depends. Processes that train together must all call it
        after the same change, since their steps do not add parameters; new ones get the first process's values.

        Returns:
            The names of the parameters that are new.

        Raises:
            ValueError: If the optimizer lacks parameters, or the processes have different ones; names them.
        """
        return self._program.refresh() if self.initialised else ()

    def zero_grad(self) -> None:
        """Clears all gradients."""
        self.accumulated = False
        if self._pending is not None:
            self._pending = {**self._pending, "gradients": {}}
        for parameter in self._program.tensors:
            parameter.grad = None

    def scale_gradients(self, factor: float) -> None:
        """Multiplies all gradients, the balancer's own parameters' included: a mean from a sum."""
        multiply_gradients(self._program.tensors, factor)

    # ---- Steps ---------------------------------------------------------------------------------------------------

    def step(self, *args: Any, **kwargs: Any) -> StepRecord:
        """Takes one step on a batch.

        Args:
            *args: The batch, for both guide and model.
            **kwargs: The batch, for both guide and model.

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

    def update(self) -> None:
        """Lets the optimizer step on the gradients that `backward` left."""
        self._program.update(self.scaler, self.closure())
        self.accumulated = False

    def closure(self) -> Callable[[], float] | None:
        """The closure for an optimizer that evaluates its loss several times per step, such as LBFGS; None for any other.

        It is the loss of the batch of the last `backward`, with the draws of latents and the weights of that step, so that a
        line search sees one function. Its first call gives what `backward` has found.
        """
        if not self._program.by_closure:
            return None
        assert self._evaluated is not None, "backward comes first"

        def run(batch: Batch) -> ScaledLosses:
            losses = self._programs.run_aside(batch).arranged(self.names)
            return ScaledLosses.of(losses, self.elbo, self._numbers)

        return self._evaluated.closure(run, lambda terms: self._objective(terms, 1.0), self.zero_grad)

    def after_step(self, *args: Any, **kwargs: Any) -> None:
        """Passes the batch's losses at the new parameters to a balancer that needs them (FAMO); no cost otherwise."""
        if not self.balancer.transform.second_forward:
            return
        losses = self._programs.evaluate((args, kwargs)).arranged(self.names)
        with torch.no_grad():
            terms = self._shown(ScaledLosses.of(losses, self.elbo, self._numbers))
            self.balancer.after_step(terms.values[terms.present], self._context(terms.present))

    def backward(self, *args: Any, **kwargs: Any) -> StepRecord:
        """Adds the balanced gradient of a batch to the parameters and records the step, without the optimizer's part.

        For loops that clip, accumulate or scale gradients; `step` is `zero_grad`, `backward`, `update`. A step that is
        skipped leaves the gradients unchanged: the mean over the others divides by their number.
        """
        start = time.perf_counter()
        if not self.names or self._pending is not None:
            self.initialise(*args, **kwargs)
        batch = args, kwargs
        draws = generators() if self._program.by_closure else None
        terms: ScaledLosses | Halves
        if self.balancer.halves:
            runs = [self._terms(half) for half in split(args, kwargs)]
            terms = Halves.of(*(run for run, _ in runs))
        else:
            runs = [self._terms(batch, cut=self.balancer.cut)]
            terms = runs[0][0]
        if self.compiled.compiles and not self._fused:
            fuse(self.optimizer)
            self._fused = True
        if not self.compiled.replayed:  # else it reaches what the captured run has reached
            self._program.check_reached([run.raw for run, _ in runs], [nodes for _, nodes in runs], batch)
        elapsed = time.perf_counter() - start
        everything, terms = terms, self._shown(terms)
        values, rest, active = terms.values, terms.unweighted_terms, terms.present
        probed: dict[tuple[str, str], float] = {}
        scale = self.scale
        before = GradientsBefore(self._program.tensors)
        own = self._program.own  # whose gradients have no scale; the optimizer's scaler wants it
        multiply_gradients(own, 1.0 / scale)
        update = None
        try:
            check_losses(self.names, terms.raw, values, rest)
            objective = self._objective(terms, scale)
            if objective.marks.cut:
                objective.rerun = functools.partial(self._again, objective.marks, autocast_now(self._device), batch)
            with autocast_now(self._device, False):  # gradients' products are not for half precision
                if self.probe is not None and self.steps % self.probe.every == 0:
                    probed = self.probe.measure(self._objective(everything, scale))
                update = self.balancer.backward(objective, self._context(active))
            if len(objective.names) < len(self.names):
                before.leave_out(self._of_absent(active))
            if distributed.world_size() > 1:
                distributed.check_weights(torch.cat([update.weights, update.weights_heads]))
                distributed.average_gradients(self._program.trained.named)
            multiply_gradients(own, scale)
            check_gradients(self._program.trained.named, self._program.trained.names, objective.names)
        except StepError as error:
            update, events = None, self._failed(error, before, scale, values)
        else:
            events, self.accumulated = tuple(update.events), True
            if draws is not None:
                first = float(update.weights @ values[active]) + rest
                self._evaluated = RepeatedLoss(batch, draws, update.weights, active, first)
            self._epoch_sums += values if len(objective.names) == len(values) else torch.where(active, values, 0.0)
            self._epoch_counts += active
        lr = self._program.learning_rate if isinstance(self.optimizer, Optimizer) else float("nan")
        record = make_record(self.names, values, rest, active, update, events, step=self.steps, epoch=self.epoch, lr=lr)
        if self.probe is not None:  # its shadows have losses too
            record.losses[everything.present] = values[everything.present]
        record.probed.update(probed)
        record.seconds["elbo"] = elapsed
        record.seconds["step"] = time.perf_counter() - start
        self.history.append(record)
        self.steps += 1
        self._batch += 1
        return record

    def _of_absent(self, active: Tensor) -> list[Tensor]:
        """The parameters of absent tasks that a statement of several tasks reaches nevertheless, as the model names them."""
        of = getattr(self.model, "parameters_of", None)
        if of is None:
            return []
        return [p for name, here in zip(self.names, active.tolist(), strict=True) if not here for p in of(name)]

    def _failed(self, error: StepError, before: GradientsBefore, scale: float, values: Tensor) -> tuple[str, ...]:
        """Leaves the gradients as they were before a step that cannot be taken, and says so or raises."""
        error.args = (f"At step {self.steps}: {error}", *error.args[1:])
        overflow = isinstance(error, NonFinite) and scale > 1.0 and bool(values.isfinite().all())
        if overflow and self.scaler is not None:
            lower_scale(self.scaler, scale)
        before.put_back(self.scale / scale)
        if not overflow and self.on_error == "raise":
            raise error
        self.skipped += 1
        logger.log(logging.INFO if overflow else logging.WARNING, "A step was skipped. %s", error)
        return (str(error),)

    def _terms(self, batch: Batch, cut: bool = False) -> tuple[ScaledLosses, int]:
        """Runs guide and model on a batch, for a step; with the number of nodes of the run's graph."""
        losses, nodes = self.compiled.run(batch, cut), self.compiled.nodes
        return ScaledLosses.of(losses.arranged(self.names), self.elbo, self._numbers, training=True), nodes

    def _differentiates_by_task(self) -> bool:
        return self.balancer.compares or self.probe is not None

    def _again(self, marks: SharedRepresentation, autocast: AbstractContextManager[Any], batch: Batch) -> Objective:
        """Runs guide and model once more from the marked tensors on."""
        with autocast:
            losses = self._programs.run_aside(batch, ReplayFromShared(marks)).arranged(self.names)
            terms = ScaledLosses.of(losses, self.elbo, self._numbers)
        return self._objective(self._shown(terms), self.scale)

    def _shown(self, terms: ScaledLosses | Halves) -> ScaledLosses | Halves:
        """The terms that a balancer is shown, with a probe's shadows absent."""
        return terms if self.probe is None else terms.only(self.probe.trained(self.names))

    def _objective(self, terms: ScaledLosses | Halves, scale: float) -> Objective:
        objective = terms.objective(self._program.trained.names, scale)
        objective.parameters = self.parameters
        return objective

    def _context(self, active: Tensor) -> Context:
        return Context(active, self.steps, self.epoch, self._batch, None, self._program.learning_rate, self._lr0)

    @property
    def _device(self) -> torch.device:
        return self._program.trained.named[0].device

    @property
    def scale(self) -> float:
        """The factor of losses and gradients: the scaler's scale, 1 without one."""
        return scale_of(self.scaler, self._device)

    def evaluate(self, *args: Any, **kwargs: Any) -> Evaluation:
        """The losses of a batch, without a gradient or a step; in each process those of its own rows."""
        self.initialise(*args, **kwargs)
        losses = self._programs.evaluate((args, kwargs)).arranged(self.names)
        with torch.no_grad():
            host = torch.stack([losses.nll, losses.counts, losses.labelled]).cpu().double()
            means = torch.where(host[1] > 0, host[0] / host[1], torch.nan)
            rest = ScaledLosses.of(losses, self.elbo, self._numbers, joined=False).unweighted_terms
        return Evaluation(means, host[2], rest)

    def end_epoch(self) -> Tensor:
        """Tells the balancer that an epoch has ended; returns each task's mean training loss in it ``(K,)``."""
        mean = self._epoch_sums / self._epoch_counts  # 0/0 is NaN: a task without a label all epoch
        if self.names:
            ctx = self._context(torch.ones(len(self.names), dtype=torch.bool))
            ctx = Context(ctx.active, ctx.step, ctx.epoch, self._batch, self._batch, ctx.lr, ctx.lr0)
            self.balancer.end_epoch(mean, ctx)
        self._epoch_sums = torch.zeros_like(self._epoch_sums)
        self._epoch_counts = torch.zeros_like(self._epoch_counts)
        self._batch = 0
        self.epoch += 1
        return mean

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
        return {
            "names": list(self.names),
            **self._program.state_dict(),
            "balancer": balancer_state(self.balancer),
            "epoch_sums": self._epoch_sums.clone(),
            "epoch_counts": self._epoch_counts.clone(),
            "steps": self.steps,
            "epoch": self.epoch,
            "batch": self._batch,
            "skipped": self.skipped,
            "numbers": self._numbers.state(),
            "lr0": self._lr0,
            "history": self.history.state_dict(),
            "scaler": {} if self.scaler is None else self.scaler.state_dict(),
            "gradients": self._program.gradients() if self.accumulated else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads a saved state; before the first batch it is kept until then (an AutoGuide's parameters must exist).

        Everything is compared first: tasks, parameters, the optimizer's class and options, the balancer's choices and
        options.

        Raises:
            CheckpointError: If the state is damaged or belongs to another run. Nothing has changed then.
        """
        check_structure(state)
        check_balancer(self.balancer, state["balancer"])
        if not self.initialised:
            self._pending = state
            return
        if list(self.names) != list(state["names"]):
            raise CheckpointError(
                f"The saved state has the tasks {state['names']}, and the model has {list(self.names)}."
            )
        self._program.check_state(state)
        before = on_host(self.state_dict())
        try:
            self._take_up(state)
        except Exception as error:
            self._take_up(before)
            raise CheckpointError(f"The saved state cannot be loaded: {error}") from error

    def _take_up(self, state: dict[str, Any]) -> None:
        self.balancer.load_state_dict(state["balancer"]["state"])
        self._program.load_state_dict(state)
        self._epoch_sums = state["epoch_sums"].clone()
        self._epoch_counts = state["epoch_counts"].clone()
        self.steps, self.epoch, self._batch = state["steps"], state["epoch"], state["batch"]
        self.skipped, self._lr0 = state["skipped"], state["lr0"]
        self._numbers.load_state(state["numbers"])
        self.history.load_state_dict(state["history"])
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.accumulated or state["gradients"]:
            self.load_gradients(state["gradients"])

    def load_gradients(self, gradients: dict[str, Tensor]) -> None:
        """Replaces all gradients by those of a saved state, as accumulated ones.

        Args:
            gradients: The state's entry ``gradients``, by names of parameters.
        """
        self.zero_grad()
        self._program.load_gradients(gradients)
        self.accumulated = bool(gradients)

    def program_state(self) -> dict[str, dict[str, Any]]:
        """The parameters and buffers of model and guide: those of modules, and those of `pyro.param`."""
        return self._program.program_state()

    def load_program_state(self, state: dict[str, dict[str, Any]]) -> None:
        """The inverse of `program_state`."""
        self._program.load_program_state(state)
