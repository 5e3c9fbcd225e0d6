"""The leaves at which a step's graph ends, and whether they can be others than in an earlier step."""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, NamedTuple

import pyro
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from bmtl.inference.closed_over import modules_of, tensors_of
from bmtl.inference.losses import TaskLosses

_WALK_EVERY = 16  # steps, where nothing says that the graph has changed


class Leaf(NamedTuple):
    """A leaf of the graph, the node at which its gradient ends, and the operation that uses it."""

    tensor: Tensor
    node: Any
    used_by: str


def leaves_of(losses: Iterable[TaskLosses], known: Container[Any]) -> list[Leaf]:
    """The leaves that losses reach, from a walk through their graph: half a microsecond a node.

    Args:
        losses: Of one step's runs. Where the graph is cut, its leaves at the cut are left out, and what lies before the
            marked tensors counts too.
        known: Nodes of leaves that are left out.
    """
    found: list[Leaf] = []
    seen: set[Any] = set()
    queue: list[tuple[Any, Any]] = []  # a node's children, and the node
    for one in losses:
        seen.update(get_gradient_edge(leaf).node for leaf in one.marks.leaves)
        roots = [(get_gradient_edge(root).node, 0) for root in _roots(one) if root.requires_grad]
        queue.append((roots, None))
    while queue:
        children, user = queue.pop()
        for node, _ in children:
            if node is None or node in known or node in seen:
                continue
            seen.add(node)
            below = node.next_functions
            if below:
                queue.append((below, node))
            elif hasattr(node, "variable"):  # only AccumulateGrad has one
                found.append(Leaf(node.variable, node, "" if user is None else user.name()))
    return found


def statements_of(losses: Iterable[TaskLosses]) -> Iterator[tuple[str, Tensor]]:
    """Names and unconstrained values of the `pyro.param` statements of programs that have run."""
    for one in losses:
        for traces in one.traces:
            for trace in reversed(traces):  # the guide ran first
                for name, site in trace.nodes.items():
                    if site["type"] == "param" and isinstance(site["value"], Tensor):
                        value: Any = site["value"]
                        unconstrained = value.unconstrained() if hasattr(value, "unconstrained") else value
                        yield pyro.params.param_store.normalize_param_name(name), unconstrained


class GraphWatch:
    """Says in a few microseconds that a step's graph ends at leaves that an earlier step's walk has found to be trained.

    It does where modules hold the same parameters, as many of them frozen, `pyro.param` statements give tensors that are
    known, and the programs made as many nodes as in a step that was walked; and where they refer to no tensor that could be
    trained and is not. What they use in a way that cannot be seen may still replace its like, node by node: every 16th step
    is walked nevertheless.

    Args:
        programs: Model and guide.
    """

    def __init__(self, *programs: Callable[..., Any]) -> None:
        self._programs = programs
        self._sure = False
        self._modules: tuple[nn.Module, ...] = ()
        self._parameters: list[Tensor | None] = []
        self._children: list[nn.Module | None] = []
        self._frozen: list[bool] = []
        self._sizes: set[int] = set()  # numbers of nodes of the graphs walked since modules have changed
        self._since = 0

    def unchanged(self, losses: Iterable[TaskLosses], nodes: Iterable[int], known: Container[int]) -> bool:
        """Whether a walk would find nothing new.

        Args:
            losses: Of one step's runs.
            nodes: How many nodes of the graph each of them made.
            known: What is trained, by `id`.
        """
        self._since += 1
        if not self._sure or self._since >= _WALK_EVERY or not self._as_it_was():
            return False
        return self._sizes.issuperset(nodes) and all(id(p) in known for _, p in statements_of(losses))

    def remember(self, nodes: Iterable[int], known: Container[int]) -> None:
        """Takes up that the walk through a step's graph has found nothing.

        Args:
            nodes: How many nodes of the graph each run of the step made.
            known: What is trained, by `id`.
        """
        self._since = 0
        if not self._modules or not self._as_it_was():
            self._modules = tuple(modules_of(*self._programs))
            others = (p for _, p in tensors_of(*self._programs) if id(p) not in known)
            self._sure = not any(p.requires_grad and p.is_leaf for p in others)
            self._parameters, self._children = self._parts()
            self._frozen = [p is None or not p.requires_grad for p in self._parameters]
            self._sizes.clear()
        self._sizes.update(nodes)

    def _as_it_was(self) -> bool:
        parameters, children = self._parts()
        return (
            (len(parameters), len(children)) == (len(self._parameters), len(self._children))
            and all(map(operator.is_, parameters, self._parameters))
            and all(map(operator.is_, children, self._children))
            and [p is None or not p.requires_grad for p in parameters] == self._frozen
        )

    def _parts(self) -> tuple[list[Tensor | None], list[nn.Module | None]]:
        parameters: list[Tensor | None] = []
        children: list[nn.Module | None] = []
        for module in self._modules:
            parameters += module._parameters.values()
            children += module._modules.values()
        return parameters, children


def _roots(losses: TaskLosses) -> Iterator[Tensor]:
    yield from (losses.nll, losses.kl, losses.shared)
    if losses.score is not None:
        yield from (losses.score.nll, losses.score.kl, losses.score.shared)
    if losses.marks.cut:
        yield from losses.marks.tensors
