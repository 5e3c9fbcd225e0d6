"""Guide and model with the optimizer of their parameters: set-up, parameters that appear late, and their state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

from bmtl.inference import distributed, optimizers
from bmtl.inference.balancing import Balancer
from bmtl.inference.balancing.graph import parameters_reached
from bmtl.inference.errors import CheckpointError
from bmtl.inference.leaves import Leaf
from bmtl.inference.losses import TaskLosses
from bmtl.inference.optimizers import Factory, Optimizer
from bmtl.inference.parameters import TrainedParameters
from bmtl.inference.programs import Batch, Programs
from bmtl.inference.state import differences


class OptimizedProgram:
    """A model, its guide and the optimizer that trains them.

    Args:
        module: Model and guide as one module.
        programs: Runs them.
        optim: A factory, a ready torch optimizer, or a PyroOptim.
        balancer: The balancer, whose own parameters are trained too.

    Attributes:
        trained: The parameters that are trained.
        optimizer: The optimizer; None before `set_up` with a factory.
    """

    def __init__(
        self, module: nn.Module, programs: Programs, optim: Factory | Optimizer | PyroOptim, balancer: Balancer
    ) -> None:
        self.module, self.programs, self.balancer = module, programs, balancer
        self.by_closure = False  # the optimizer evaluates its loss itself
        self._own: list[Tensor] | None = None
        self.trained = TrainedParameters(module, programs.model, programs.guide)
        self.optimizer: Optimizer | PyroOptim | None = optim if isinstance(optim, Optimizer | PyroOptim) else None
        self._factory: Factory | None = None if isinstance(optim, Optimizer | PyroOptim) else optim

    def set_up(self, batch: Batch) -> TaskLosses:
        """Runs the program once, finds its tasks and parameters, and makes the optimizer.

        Args:
            batch: The first batch.

        Returns:
            The run's losses, all processes' tasks among them.
        """
        losses = self.programs.first(batch)
        self.programs.refresh()  # an AutoGuide has its parts now
        # In the order in which the processes' first batches mention them.
        names = tuple(dict.fromkeys(name for theirs in distributed.gather(losses.names) for name in theirs))
        losses = losses.arranged(names)
        self.trained.collect((losses,), self._held())
        if not self.trained.named:
            raise ValueError("Neither the model nor the guide has a parameter to train.")
        self.balancer.bind(names)
        if self.balancer.cut:
            self._check_cut(losses, batch)
        self._make_optimizer()
        self.check_reached((losses,), (self.programs.nodes,), batch)
        tensors = {n: t for part in self.program_state().values() for n, t in part.items() if isinstance(t, Tensor)}
        distributed.share_state(tensors, self.balancer)
        return losses

    def _make_optimizer(self) -> None:
        if self._factory is not None:
            self.optimizer = optimizers.make(self._factory, self.trained.named)
            optimizers.add_own(self.optimizer, self.balancer)
        elif isinstance(self.optimizer, Optimizer):
            optimizers.check_ready(self.optimizer, self.trained.named, self.balancer)
        elif any(p.requires_grad for p in self.balancer.parameters()):
            raise ValueError(f"The balancer {str(self.balancer)!r} has parameters of its own; use a torch optimizer.")
        elif distributed.world_size() > 1:
            raise ValueError("Several processes need a torch optimizer, and optim is a PyroOptim. Give a factory.")
        self.by_closure = optimizers.needs_closure(self.optimizer)

    def _check_cut(self, losses: TaskLosses, batch: Batch) -> None:
        """Checks that the losses are the same where the graph is cut at the marked tensors."""
        if not losses.marks.tensors:
            raise ValueError(
                f"The balancer {str(self.balancer)!r} compares gradients at the shared representation, and the model marks "
                "none. Wrap the trunk's output: h = bmtl.shared(trunk(x)); or use the geometry 'full'."
            )
        if all(key in self.trained.names for key in parameters_reached(*losses.marks.tensors)):
            return  # parameters alone: the program takes no derivative by what lies before the mark
        message = (
            f"The balancer {str(self.balancer)!r} cuts the graph at the tensors marked by bmtl.shared, and the program "
            "takes a derivative by an input on the other side: the input is cut off, and the derivative is lost. Use the "
            "geometry 'full', which does not cut."
        )
        whole = self.programs.first(batch)
        try:
            cut = self.programs.first(batch, cut=True)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(message) from error
        pairs = ((whole.nll, cut.nll), (whole.kl, cut.kl), (whole.shared, cut.shared))
        if not all(torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True) for one, other in pairs):
            raise ValueError(message)

    # ---- Parameters that appear late -----------------------------------------------------------------------------

    def refresh(self, losses: Sequence[TaskLosses] = ()) -> tuple[str, ...]:
        """Takes up the parameters that there are now; what no module has any more leaves the optimizer.

        Processes that train together all call it, and those that are new get the first process's values.

        Args:
            losses: Of runs whose `pyro.param` statements count.

        Returns:
            The names of those that are new.

        Raises:
            ValueError: If the optimizer lacks some, or the processes have others.
        """
        self.programs.refresh()
        before = vars(self.trained).copy()
        new, gone = self.trained.collect(losses, self._held())
        if isinstance(self.optimizer, Optimizer):
            try:
                if new and self._factory is not None:
                    optimizers.join(self.optimizer, self._factory, self.trained.named, new)
                optimizers.check_ready(self.optimizer, self.trained.named, self.balancer)
            except ValueError:
                vars(self.trained).update(before)
                raise
            optimizers.drop(self.optimizer, gone)
        names = tuple(self.trained.names[id(p)] for p in new)
        distributed.share_parameters(dict(zip(names, new, strict=True)))
        return names

    def check_reached(self, losses: Sequence[TaskLosses], nodes: Sequence[int], batch: Batch) -> None:
        """Finds the leaves that the losses reach and nothing trains, and takes up those that may join.

        Args:
            losses: Of one step's runs, with their graph.
            nodes: How many nodes of the graph each run made.
            batch: What the programs were called with.

        Raises:
            ValueError: If there are others; names them.
        """
        leaves = self.trained.untrained(losses, nodes, batch)
        if not leaves:
            return
        held = self._held()
        named = {id(leaf.tensor): self.trained.name_of(leaf.tensor, losses) for leaf in leaves}
        joining = self._factory is not None or isinstance(self.optimizer, PyroOptim)
        if distributed.world_size() == 1 and all(key in held or (joining and name) for key, name in named.items()):
            self.refresh(losses)
        else:
            raise ValueError(self._of_strays(leaves, named))

    def _of_strays(self, leaves: Sequence[Leaf], named: dict[int, str | None]) -> str:
        known = [f"{name!r} {tuple(leaf.tensor.shape)}" for leaf in leaves if (name := named[id(leaf.tensor)])]
        others = [self.trained.described(leaf) for leaf in leaves if not named[id(leaf.tensor)]]
        told = ["The losses depend on parameters that the optimizer lacks, which would stay where they are."]
        if known:
            told.append(
                f"In the model or the guide: {', '.join(known)}. Add them to the optimizer, "
                "svi.optimizer.add_param_group({'params': [...]}), and call svi.refresh(); or give a factory in place of a "
                "ready optimizer; or freeze them, parameter.requires_grad_(False)."
            )
        if others:
            told.append(
                f"In no module of theirs: {', '.join(others)}. In a function, register the module, net = pyro.module('net', "
                "net), under a name that no other has had (else pyro.clear_param_store() first); in a module, make it an "
                "attribute. If it is an input that the program differentiates by, take a copy in the program: "
                "x = x.detach().clone().requires_grad_()."
            )
        if distributed.world_size() > 1:
            told.append(
                "Processes that train together take up what was unfrozen, replaced or added by svi.refresh() in all of "
                "them; a pyro.param statement must be met in the first batch of each."
            )
        return " ".join(told)

    def _held(self) -> dict[int, tuple[str, Tensor]]:
        """What a ready optimizer holds, the balancer's own parameters aside."""
        own = {id(p) for p in self.balancer.parameters()}
        held = optimizers.held_by(self.optimizer) if self._factory is None else {}
        return {key: pair for key, pair in held.items() if key not in own}

    # ---- Steps ---------------------------------------------------------------------------------------------------

    @property
    def tensors(self) -> list[Tensor]:
        """All that is trained, the balancer's own parameters included."""
        return [*self.trained.named, *self.own]

    @property
    def own(self) -> list[Tensor]:
        """The balancer's own parameters, which it has once it knows its tasks."""
        if self._own is None and self.balancer.names:
            self._own = list(self.balancer.parameters())
        return self._own or []

    @property
    def learning_rate(self) -> float:
        """That of the optimizer's first group; 1 without a torch optimizer."""
        return float(self.optimizer.param_groups[0]["lr"]) if isinstance(self.optimizer, Optimizer) else 1.0

    def update(self, scaler: torch.amp.GradScaler | None, closure: Callable[[], float] | None = None) -> None:
        """Lets the optimizer step."""
        if closure is not None and isinstance(self.optimizer, Optimizer):
            self.optimizer.step(closure)
        elif isinstance(self.optimizer, PyroOptim):
            self.optimizer(list(self.trained.named))
        elif self.optimizer is not None and scaler is not None:
            scaler.step(self.optimizer)
            scaler.update()
        elif self.optimizer is not None:
            self.optimizer.step()

    # ---- State ---------------------------------------------------------------------------------------------------

    def program_state(self) -> dict[str, dict[str, Any]]:
        """The parameters and buffers of model and guide: those of modules, and those of `pyro.param`."""
        return {
            "module": self.module.state_dict(),
            "params": {name: p.detach() for name, p in self.trained.outside_modules().items()},
        }

    def load_program_state(self, state: dict[str, dict[str, Any]]) -> None:
        """The inverse of `program_state`."""
        self.module.load_state_dict(state["module"])
        own = self.trained.outside_modules()
        with torch.no_grad():
            for name, value in state["params"].items():
                own[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Program and optimizer."""
        assert self.optimizer is not None
        return {**self.program_state(), "optimizer": optimizers.state_of(self.optimizer, self._names())}

    def gradients(self) -> dict[str, Tensor]:
        """The gradients that are there, by the names of what is trained."""
        names = self._names()
        found = {names[id(p)]: p.grad for p in self.tensors if p.grad is not None}
        return {name: gradient.to_dense().detach() for name, gradient in found.items()}

    def load_gradients(self, gradients: dict[str, Tensor]) -> None:
        """The inverse of `gradients`."""
        names = self._names()
        for p in self.tensors:
            if names[id(p)] in gradients:
                p.grad = gradients[names[id(p)]].to(p, copy=True)

    def check_state(self, state: dict[str, Any]) -> None:
        """Compares a saved state with this one.

        Raises:
            CheckpointError: If it is of another model, guide or optimizer.
        """
        assert self.optimizer is not None
        wrong = differences(self.module.state_dict(), state["module"])
        wrong += differences(self.trained.outside_modules(), state["params"])
        if wrong:
            raise CheckpointError(f"The saved state belongs to another model or guide: {'; '.join(wrong)}.")
        optimizers.check_state(self.optimizer, self._names(), state["optimizer"])
        names = self._names()
        trained = {names[id(p)]: p for p in self.tensors}
        wrong = differences({name: p for name, p in trained.items() if name in state["gradients"]}, state["gradients"])
        if wrong:
            raise CheckpointError(f"The saved gradients are of other parameters: {'; '.join(wrong)}.")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a state that `check_state` has accepted."""
        assert self.optimizer is not None
        self.load_program_state({"module": state["module"], "params": state["params"]})
        optimizers.take_up(self.optimizer, self._names(), state["optimizer"])

    def _names(self) -> dict[int, str]:
        """Names of all that the optimizer holds, by `id`."""
        own = {id(p): f"balancer.{name}" for name, p in self.balancer.named_parameters()}
        held = {key: name for key, (name, _) in optimizers.held_by(self.optimizer).items()}
        return held | own | self.trained.names
