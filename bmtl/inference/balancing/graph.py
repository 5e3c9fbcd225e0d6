"""Reads the autograd graph: which parameters does a loss reach, and which layer comes last before a tensor?"""

from collections import deque
from collections.abc import Iterator
from typing import Any

from torch import Tensor


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
