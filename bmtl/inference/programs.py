"""Runs a training's guide and model: in a step, and in the further runs that must leave no trace."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch._C._autograd import _get_sequence_nr
from torch.nn.parameter import is_lazy

from bmtl import inputs
from bmtl.inference.closed_over import modules_of
from bmtl.inference.elbo import TaskELBO
from bmtl.inference.losses import TaskLosses
from bmtl.inference.parameter_mode import adopt, own_parameters
from bmtl.inference.shared_representation import SharedRepresentation

Batch = tuple[tuple[Any, ...], dict[str, Any]]


class Programs:
    """A model and its guide under an ELBO.

    Args:
        model: The task model.
        guide: Its guide.
        elbo: How losses are estimated.

    Attributes:
        modules: The modules that the two are made of, those that they close over included.
        nodes: How many nodes of the autograd graph the last run made.
        shows_layers: Whether runs must show each layer in the autograd graph; parts that `torch.compile` has made then run
            as they were written.
    """

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any], elbo: TaskELBO) -> None:
        self.model, self.guide, self.elbo = model, guide, elbo
        self.modules: tuple[nn.Module, ...] = ()
        self.nodes = 0
        self._validate = True  # in the first run
        self._needs_graph = False
        self.shows_layers = False
        self._has_compiled = False
        self.refresh()

    def refresh(self) -> None:
        """Looks for modules again."""
        adopt(self.model, self.guide)
        self.modules = (*modules_of(self.model, self.guide), self.elbo.averages)
        self._has_compiled = any(type(module).__name__ == "OptimizedModule" for module in self.modules)

    @contextmanager
    def _compiled_parts(self) -> Iterator[None]:
        """What parts made by `torch.compile` need."""
        if not self._has_compiled:
            yield
        elif self.shows_layers:
            with torch.compiler.set_stance("force_eager"):
                yield
        else:  # their backward passes are run more than once, and must not free what they have used
            with torch._functorch.config.patch(donated_buffer=False):
                yield

    def run(self, batch: Batch, cut: bool | SharedRepresentation = False) -> TaskLosses:
        """Runs guide and model on a batch, as a step does.

        Args:
            batch: Positional and keyword arguments of both.
            cut: As `TaskELBO.task_losses`.
        """
        args, kwargs = batch
        before = _get_sequence_nr()
        try:
            with own_parameters(validate=self._validate), self._compiled_parts():
                losses = self.elbo.task_losses(self.model, self.guide, *args, cut=cut, **kwargs)
        except AttributeError as error:
            if "param_state" not in str(error):
                raise
            # A PyroModule that was not there when the programs were looked through.
            known = set(map(id, self.modules))
            self.refresh()
            if set(map(id, self.modules)) == known:
                raise ValueError(
                    "The model or the guide runs a PyroModule that bmtl cannot find, and it was built in Pyro's global "
                    "parameter mode. Make it an attribute of the model or the guide, or a variable that the function closes "
                    "over."
                ) from error
            return self.run(batch, cut)
        self._validate = False
        self.nodes = _get_sequence_nr() - before
        return losses

    def run_aside(self, batch: Batch, cut: bool | SharedRepresentation = False) -> TaskLosses:
        """As `run`, and leaves buffers (a batch norm's running means) and modules' extra state as they were."""
        with kept_state(self.modules):
            return self.run(batch, cut)

    def first(self, batch: Batch, cut: bool = False) -> TaskLosses:
        """As `run_aside`, with a graph whatever mode the caller is in, and random generators are left unchanged."""
        with forked_generators(), torch.inference_mode(False), torch.enable_grad():
            return self.run_aside(_ordinary(batch), cut)

    def evaluate(self, batch: Batch) -> TaskLosses:
        """As `run_aside`, without a graph, unless the program takes derivatives itself and needs one."""
        if not self._needs_graph:
            before = generators()
            try:
                with torch.no_grad():
                    return self.run_aside(batch)
            except RuntimeError as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                set_generators(before)
                try:
                    losses = self._with_graph(batch)
                except RuntimeError:
                    raise error from None
                self._needs_graph = True
                return losses
        return self._with_graph(batch)

    def _with_graph(self, batch: Batch) -> TaskLosses:
        with torch.inference_mode(False), torch.enable_grad():
            return self.run_aside(_ordinary(batch))


@contextmanager
def kept_state(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Lets programs run on copies of the modules' buffers, and puts extra state back; parameters are theirs."""
    copies: dict[int, Tensor] = {}
    buffers: list[tuple[nn.Module, str, Tensor]] = []
    extra: list[tuple[nn.Module, Any]] = []
    for module in modules:
        for name, buffer in module._buffers.items():
            if buffer is not None and not is_lazy(buffer):
                buffers.append((module, name, buffer))
                if id(buffer) not in copies:
                    copies[id(buffer)] = buffer.clone()
                module._buffers[name] = copies[id(buffer)]
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            extra.append((module, copy.deepcopy(module.get_extra_state())))
    try:
        yield
    finally:
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        for module, state in extra:
            module.set_extra_state(state)


@contextmanager
def forked_generators() -> Iterator[None]:
    """Torch's random generators are put back afterwards."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        yield


def generators() -> tuple[Tensor, list[Tensor]]:
    """The states of torch's random generators."""
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def set_generators(states: tuple[Tensor, list[Tensor]]) -> None:
    """Puts them back."""
    torch.set_rng_state(states[0])
    if states[1]:
        torch.cuda.set_rng_state_all(states[1])


def _ordinary(batch: Batch) -> Batch:
    """The batch without tensors of inference mode, which no graph can hold."""

    def ordinary(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.is_inference() else tensor

    def part(given: Any) -> Any:
        try:
            named = inputs.parts(given)
        except TypeError:  # not inputs, or of a type whose tensors only its own class knows
            return apply_to_collection(given, Tensor, ordinary, allow_frozen=True)
        changed = {name: ordinary(tensor) for name, tensor in named.items()}
        return inputs.with_parts(given, changed) if any(changed[name] is not named[name] for name in named) else given

    args, kwargs = batch
    return tuple(map(part, args)), {key: part(given) for key, given in kwargs.items()}
