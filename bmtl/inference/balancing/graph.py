"""Reads the autograd graph: which parameters does a loss reach, and which layer comes last before a tensor?"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import get_gradient_edge


def parameters_reached(*tensors: Tensor) -> dict[int, Tensor]:
    """The leaf parameters that these tensors depend on, by `id`, nearest first."""
    found: dict[int, Tensor] = {}
    queue = deque(t.grad_fn for t in tensors if t.grad_fn is not None)
    for t in tensors:
        if t.grad_fn is None and t.requires_grad:
            found[id(t)] = t
    seen = set(queue)
    while queue:
        for node, _ in queue.popleft().next_functions:
            if node is None or node in seen:
                continue
            seen.add(node)
            variable = getattr(node, "variable", None)  # only AccumulateGrad has one
            if variable is not None:
                found[id(variable)] = variable
            queue.append(node)
    return found


def trained(found: dict[int, Tensor], parameters: Sequence[Tensor]) -> dict[int, Tensor]:
    """Those of the leaves found that are parameters of a run, all where its parameters are not given.

    Left out are inputs by which a program takes derivatives itself: they are leaves too.
    """
    if not parameters:
        return found
    keys = {id(p) for p in parameters}
    return {key: p for key, p in found.items() if key in keys}


def parameters_by_tensor(tensors: Iterable[Tensor]) -> tuple[list[dict[int, Tensor]], dict[int, Tensor]]:
    """The leaf parameters that one of these tensors alone depends on, for each of them, and those of two or more, by `id`.

    A node's inputs are followed twice at most, however many tensors share it.
    """
    first: dict[Any, int] = {}  # by node: the first tensor that depends on it
    meeting: dict[Any, None] = {}
    own: list[dict[int, Tensor]] = []
    for k, tensor in enumerate(tensors):
        own.append({})
        queue = deque([get_gradient_edge(tensor).node] if tensor.requires_grad else [])
        while queue:
            node = queue.popleft()
            if node not in first:
                first[node] = k
                queue.extend(child for child, _ in node.next_functions if child is not None)
            elif first[node] != k:
                meeting[node] = None
    queue, several = deque(meeting), dict.fromkeys(meeting)
    while queue:
        for child, _ in queue.popleft().next_functions:
            if child is not None and child not in several:
                several[child] = None
                queue.append(child)
    common = {id(node.variable): node.variable for node in several if hasattr(node, "variable")}
    for node, k in first.items():
        if node not in several and hasattr(node, "variable"):  # only AccumulateGrad has one
            own[k][id(node.variable)] = node.variable
    return own, common


def nodes_upstream(start: Any) -> Iterator[Any]:
    """The graph's nodes upstream of a tensor or a node, nearest first, its own included."""
    node = start.grad_fn if isinstance(start, Tensor) else start
    if node is None:
        return
    seen, queue = {node}, deque([node])
    while queue:
        node = queue.popleft()
        yield node
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                queue.append(child)
