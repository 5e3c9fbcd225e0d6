"""The tensors that a run trains, by name, and those that its losses reach nevertheless."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from bmtl import inputs
from bmtl.inference.balancing.graph import parameters_reached
from bmtl.inference.closed_over import tensors_of
from bmtl.inference.leaves import GraphWatch, Leaf, leaves_of, statements_of
from bmtl.inference.losses import TaskLosses


class NamedParameters(list[Tensor]):
    """A list of tensors with their names: the argument of an optimizer's factory.

    ``torch.optim.Adam(parameters)`` takes it as it is; ``parameters.items()`` gives pairs of name and tensor, for groups by
    name, and for optimizers that keep the names (``torch.optim.Adam(parameters.items())``).

    Args:
        pairs: Names and tensors.

    Attributes:
        names: The names, in the tensors' order.

    Example:
        >>> import torch
        >>> found = NamedParameters([("trunk.weight", torch.zeros(2)), ("head.weight", torch.zeros(3))])
        >>> [tuple(p.shape) for name, p in found.items() if name.startswith("trunk")]
        [(2,)]
    """

    def __init__(self, pairs: Iterable[tuple[str, Tensor]]) -> None:
        pairs = list(pairs)
        super().__init__(tensor for _, tensor in pairs)
        self.names = tuple(name for name, _ in pairs)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Pairs of name and tensor."""
        return zip(self.names, self, strict=True)


class TrainedParameters:
    """What a run trains: parameters of the model's and the guide's modules, and those of `pyro.param` statements.

    Args:
        module: Model and guide as one module.
        model: The model.
        guide: The guide.

    Attributes:
        named: Those that are trained.
        names: Their names by `id`.
    """

    def __init__(self, module: nn.Module, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        self.module, self.model, self.guide = module, model, guide
        self.named = NamedParameters(())
        self.names: dict[int, str] = {}
        self._outside: dict[int, tuple[str, Tensor]] = {}  # of no module, by `id`
        self._nodes: dict[Any, Tensor] = {}  # at which the gradients of those trained end
        self._met: dict[int, weakref.ref[Tensor]] = {}  # leaves of the step before that are not parameters
        self._watch = GraphWatch(model, guide)

    def collect(
        self, losses: Iterable[TaskLosses] = (), held: Mapping[int, tuple[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Reads again what there is to train; a parameter that was trained and is frozen now stays.

        Args:
            losses: Of programs that have run, whose `pyro.param` statements count.
            held: What a ready optimizer holds, with names to use where the program has none, by `id`.

        Returns:
            Those that are new, and those that no module has any more.
        """
        losses = tuple(losses)
        before = {id(p): p for p in self.named}
        found: dict[int, tuple[str, Tensor]] = {id(p): (name, p) for name, p in self.module.named_parameters()}
        own = set(found)
        stated = dict(statements_of(losses))
        replaced = {key for key, (name, p) in self._outside.items() if stated.get(name, p) is not p}  # store cleared
        for key, pair in (*self._outside.items(), *((id(p), (name, p)) for name, p in stated.items())):
            if key not in replaced:
                found.setdefault(key, pair)
        for key, pair in (held or {}).items():
            if key not in before or key in found:  # what a module has given up has no name any more
                found.setdefault(key, pair)
        self._outside = {key: pair for key, pair in found.items() if key not in own}
        pairs = [pair for key, pair in found.items() if pair[1].requires_grad or key in before]
        self.named = NamedParameters(pairs)
        self.names = {id(p): name for name, p in pairs}
        self._nodes = {get_gradient_edge(p).node: p for p in self.named if p.requires_grad}
        self._watch = GraphWatch(self.model, self.guide)
        new = [p for p in self.named if id(p) not in before]
        return new, [p for key, p in before.items() if key not in self.names]

    def outside_modules(self) -> dict[str, Tensor]:
        """Those that no module holds: of `pyro.param` statements, or of a ready optimizer alone."""
        return {name: p for name, p in self.named.items() if id(p) in self._outside}

    # ---- Leaves of the graph that are not trained ----------------------------------------------------------------

    def untrained(
        self, losses: Sequence[TaskLosses], nodes: Sequence[int], batch: tuple[tuple[Any, ...], dict[str, Any]]
    ) -> list[Leaf]:
        """The leaves that these losses reach and nothing trains.

        Tensors by which the program takes derivatives itself are left out: those of the batch, and those that it made in
        this run. One that is met in two steps was made in neither.

        Args:
            losses: Of one step's runs, with their graph.
            nodes: How many nodes of the graph each run made.
            batch: What the programs were called with.
        """
        if not self._met and self._watch.unchanged(losses, nodes, self.names):
            return []
        found = leaves_of(losses, self._nodes)
        if not found:
            self._met = {}
            self._watch.remember(nodes, self.names)
            return []
        strays, others = [], []
        buffers = set(map(id, self.module.buffers()))
        declared = {id(p) for _, p in statements_of(losses)}
        for leaf in found:
            if id(leaf.tensor) in self.names:  # it has moved to another device or precision, or was frozen
                self._nodes[leaf.node] = leaf.tensor
            elif isinstance(leaf.tensor, nn.Parameter) or id(leaf.tensor) in declared:
                strays.append(leaf)
            elif id(leaf.tensor) not in buffers:
                others.append(leaf)
        if others:
            given = {key for tensor in _tensors(batch) for key in (id(tensor), *parameters_reached(tensor))}
            others = [leaf for leaf in others if id(leaf.tensor) not in given]
        before, self._met = self._met, {id(leaf.tensor): weakref.ref(leaf.tensor) for leaf in others}
        return strays + [leaf for leaf in others if before.get(id(leaf.tensor), lambda: None)() is leaf.tensor]

    def name_of(self, tensor: Tensor, losses: Iterable[TaskLosses] = ()) -> str | None:
        """A tensor's name in the modules or in a `pyro.param` statement; None if it is in neither."""
        names = {id(p): name for name, p in [*statements_of(losses), *self.module.named_parameters()]}
        return names.get(id(tensor))

    def described(self, leaf: Leaf) -> str:
        """What can be said of a leaf that has no name in the program."""
        for name, tensor in tensors_of(self.model, self.guide):
            if tensor is leaf.tensor:
                return f"{name!r} {tuple(tensor.shape)}"
        used = leaf.used_by.rstrip("0123456789").removesuffix("Backward")
        return f"a tensor {tuple(leaf.tensor.shape)}" + (f" (used by {used})" if used else "")


def _tensors(batch: tuple[tuple[Any, ...], dict[str, Any]]) -> Iterator[Tensor]:
    args, kwargs = batch
    for part in (*args, *kwargs.values()):
        with suppress(TypeError):  # what is not a structure of tensors has none
            yield from inputs.parts(part).values()
