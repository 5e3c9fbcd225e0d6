"""Runs guide and model of a step as a graph that was captured once, where that gives what Python would."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor
from torch._C._autograd import _get_sequence_nr

from bmtl.inference.compiled.batch_form import form_of
from bmtl.inference.compiled.capture import Captured, capture
from bmtl.inference.compiled.choosing import Mode, Pace, check_mode, missing_compiler
from bmtl.inference.compiled.comparison import changed_statement, difference, outcome
from bmtl.inference.compiled.inductor import compile_captured
from bmtl.inference.compiled.moment import Moment
from bmtl.inference.compiled.program_state import ProgramState, precision_now, rounding_now
from bmtl.inference.compiled.refusal import CannotCaptureError
from bmtl.inference.losses import TaskLosses
from bmtl.inference.programs import Batch, Programs
from bmtl.inference.shared_representation import SharedRepresentation

logger = logging.getLogger(__name__)

_EVERY = 64  # runs of one form between two comparisons, once they are far apart
_MOST = 16  # captured forms that are kept
_PATIENCE = 16  # runs of forms that were not seen before
_LATER = "The steps since the last comparison may have repeated what it did before."


@dataclass
class _Entry:
    """A form of the programs' runs: as captured, and as it runs in steps that are not compared."""

    captured: Captured | None = None
    quick: Captured | None = None
    runs: int = 0
    tolerance: float = 0.0
    by_inductor: bool = False

    @property
    def is_due(self) -> bool:
        """Whether the next run is compared: the first two, then ever fewer."""
        return self.runs < 2 or (self.runs & (self.runs - 1) == 0 and self.runs < _EVERY) or self.runs % _EVERY == 0


class CompiledPrograms:
    """Runs a program as a captured graph; as Python where that is not possible, with one warning.

    A run is captured for each form: structure, shapes and types of the batch, training mode, flags and numbers that modules
    hold as attributes and that functions refer to, the tensors that they hold, and torch's precision. The first two runs of
    a form, and fewer later on (at last every 64th), are compared with a run as Python: losses, the random numbers drawn,
    buffers, and in the first two the gradients. Where they differ, all further runs are as Python.

    A form other than the first is captured when it is seen for the second time: an epoch's last batch may be its only one.

    Args:
        programs: Model and guide.
        mode: As `BalancedSVI`'s `compile`.
        by_task: Whether the next run's losses are differentiated task by task.

    Attributes:
        nodes: How many nodes of the autograd graph the last run made.
        compiles: Whether a form has been compiled.
        replayed: Whether the last run was a replay that was not compared, which reaches the parameters that the captured one
            has reached.
        pace: Knows how many steps are left.

    Raises:
        RuntimeError: If the mode is "inductor" and there is no C++ compiler.
    """

    def __init__(self, programs: Programs, mode: Mode, by_task: Callable[[], bool]) -> None:
        self.programs = programs
        self.nodes, self.replayed, self.compiles = 0, False, False
        self.pace = Pace()
        self._by_task = by_task
        self._state = ProgramState(programs.model, programs.guide)
        self._entries: OrderedDict[tuple[Hashable, ...], _Entry] = OrderedDict()
        self._replays = self._unseen = 0
        self._reason = ""
        self._compiler = True
        self._warned = False
        self.mode = mode

    @property
    def mode(self) -> Mode:
        """How steps run; another one may be chosen between any two steps."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        check_mode(mode)
        self._mode, self._reason = mode, ""
        self._entries.clear()
        if mode == "auto" and (missing := missing_compiler()):
            self._compiler = False
            logger.info("Steps are traced and not compiled to C++: %s.", missing)

    @property
    def reason(self) -> str:
        """Why the program runs as Python for good; "" if it does not."""
        return self._reason

    def run(self, batch: Batch, cut: bool | SharedRepresentation = False) -> TaskLosses:
        """Runs guide and model on a batch, as `Programs.run`."""
        self.replayed = False
        if not self._mode or self._reason or not torch.is_grad_enabled() or self._is_handled():
            return self._as_python(batch, cut)
        try:
            form, tensors = form_of(batch)
        except CannotCaptureError as error:
            return self._give_up(str(error), batch, cut)
        elbo = self.programs.elbo
        version = self._state.version()
        way = (elbo.estimator, elbo.num_particles, elbo.vectorize_particles, elbo.alpha)
        key = (form, version, precision_now(), way, self._by_task())
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry()
            if len(self._entries) > 1:  # the first form is captured at once
                self._unseen += 1
                if self._unseen >= _PATIENCE and self._unseen > self._replays:
                    return self._give_up(self._what_varies(key), batch, cut)
                while len(self._entries) > _MOST:
                    self._entries.popitem(last=False)
                return self._as_python(batch, cut)
        self._entries.move_to_end(key)
        marks = cut if isinstance(cut, SharedRepresentation) else SharedRepresentation(cut)
        if entry.is_due:
            return self._compared(entry, batch, marks, tensors)
        assert entry.captured is not None
        if self._mode == "auto":
            self.pace.tick()
            if self._compiler and not entry.by_inductor and self.pace.repays(len(entry.captured.graph.graph.nodes)):
                entry.runs = 0
                return self._compared(entry, batch, marks, tensors, by_inductor=True)
        entry.runs += 1
        self._replays += 1
        before = _get_sequence_nr()
        try:
            losses = (entry.quick or entry.captured).run(marks, tensors)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            return self._give_up(f"replayed, it fails: {error}", batch, cut)
        self.nodes, self.replayed = _get_sequence_nr() - before, True
        return losses

    def _is_handled(self) -> bool:
        """Whether the step lies inside Pyro handlers, which may change what the program does; warns once."""
        handlers = pyro.poutine.runtime._PYRO_STACK
        if handlers and not self._warned:
            self._warned = True
            logger.warning(
                "The step is inside a Pyro handler (%s), and such steps are not compiled. Put the handler around the model.",
                ", ".join(type(handler).__name__ for handler in handlers),
            )
        return bool(handlers)

    def _as_python(self, batch: Batch, cut: bool | SharedRepresentation) -> TaskLosses:
        losses = self.programs.run(batch, cut)
        self.nodes = self.programs.nodes
        return losses

    def _compared(
        self,
        entry: _Entry,
        batch: Batch,
        marks: SharedRepresentation,
        tensors: Sequence[Tensor],
        by_inductor: bool = False,
    ) -> TaskLosses:
        """Runs as a graph, which is captured or compiled first, and as Python; gives the latter's losses."""
        start = Moment(self.programs.modules)
        parameters = [p for p in self._state.trained if p.requires_grad] if entry.runs < 2 else []
        reason = ""
        try:
            if entry.captured is None:
                entry.captured = self._capture(batch, tensors)
                start.restore()
                by_inductor = self._mode == "inductor"
            if by_inductor:
                entry.captured, entry.quick = compile_captured(entry.captured, tensors, self._by_task())
                self.compiles = entry.by_inductor = True
                entry.tolerance = rounding_now()
                start.restore()
            aside = SharedRepresentation(marks.cut)
            replayed = outcome(entry.captured.run(aside, tensors), Moment(self.programs.modules), parameters)
        except torch.OutOfMemoryError:
            raise
        except CannotCaptureError as error:
            reason = str(error)
        except Exception as error:  # of torch's compiler; what is wrong with the program itself is raised below
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        start.restore()
        losses = self._as_python(batch, marks)
        if not reason:
            found = outcome(losses, Moment(self.programs.modules), parameters)
            what = difference(replayed, found, entry.tolerance)
            if what:
                reason = f"a replay differs from a run as Python ({what}), since "
                reason += "what it does has changed" if entry.runs > 1 else "it depends on what a graph does not see"
                reason += self._where_changed(entry, batch, tensors)
                reason += f". {_LATER}" if entry.runs > 1 else ""
        if reason:
            self._stop(reason)
        entry.runs += 1
        self._replays += 1
        return losses

    def _capture(self, batch: Batch, tensors: Sequence[Tensor]) -> Captured:
        """Captures a run, after which flags and numbers are what they were."""
        before = Moment(self.programs.modules)
        try:
            captured = capture(self.programs, batch, tensors)
        finally:
            changed = self._state.put_back()
        changed += [f"the state of {name}" for name in before.changed_state()]
        if changed:
            raise CannotCaptureError(f"{', '.join(changed)} changes while the program runs")
        return captured

    def _where_changed(self, entry: _Entry, batch: Batch, tensors: Sequence[Tensor]) -> str:
        """The statement at which the program no longer does what was captured, in brackets."""
        assert entry.captured is not None
        now = Moment(self.programs.modules)
        try:
            statement = changed_statement(entry.captured, self._capture(batch, tensors))
        except CannotCaptureError as error:
            statement = str(error)
        finally:
            now.restore()
        return f" ({statement})" if statement else ""

    def _what_varies(self, key: tuple[Any, ...]) -> str:
        """Why no form comes back."""
        others = list(self._entries)
        if len({other[0] for other in others}) > len(others) // 2:
            return "almost every batch has shapes of its own, or numbers (give what changes in every step as a tensor)"
        names = ", ".join(self._state.changed[:20])
        return f"what it holds changes almost every step{names and f' ({names})'}"

    def _give_up(self, reason: str, batch: Batch, cut: bool | SharedRepresentation) -> TaskLosses:
        self._stop(reason)
        return self._as_python(batch, cut)

    def _stop(self, reason: str) -> None:
        """All further runs are as Python."""
        self._reason = reason
        self._entries.clear()
        logger.warning("The program is not compiled, and its steps run as Python: %s", reason)
