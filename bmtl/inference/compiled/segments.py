"""Divides a captured graph into segments that can be compiled and operations that run as they are."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import fx

from bmtl.inference.compiled.capture import hand_on, shapeless

_LINEAR = {"linear", "addmm", "mm", "bmm", "matmul", "baddbmm", "conv1d", "conv2d", "conv3d", "convolution", "einsum"}
_FEW = 6  # operations, below which a segment of its own costs more than it saves


@dataclass
class Segment:
    """Operations that are compiled together.

    Attributes:
        nodes: The operations, in their order.
    """

    nodes: list[fx.Node] = field(default_factory=list)

    @property
    def inputs(self) -> list[fx.Node]:
        """What they use now: other segments' results may have taken the places of operations."""
        own = set(self.nodes)
        return list(dict.fromkeys(i for node in self.nodes for i in node.all_input_nodes if i not in own))

    @property
    def outputs(self) -> list[fx.Node]:
        """Those of them that are used elsewhere."""
        own = set(self.nodes)
        return [node for node in self.nodes if any(user not in own for user in node.users)]


def simplify(graph: fx.Graph) -> None:
    """Writes a captured graph without switches of the grad mode and without uses of what an operation has overwritten.

    Parts without autocast stay marked as such only where there is autocast.
    """
    enabled = True
    entries = [node for node in graph.nodes if node.target is torch.amp.autocast_mode._enter_autocast]
    if not any(node.args[2] or torch.is_autocast_enabled(node.args[0]) for node in entries):
        for node in entries:
            for user in list(node.users):  # where the part ends
                graph.erase_node(user)
            graph.erase_node(node)
    off: dict[fx.Node, None] = {}  # in their order, so that one program gives one text, by which segments are shared
    for node in list(graph.nodes):
        if node.target is torch._C._set_grad_enabled:
            enabled = bool(node.args[0])
            graph.erase_node(node)
        elif not enabled:
            off[node] = None
    for node in off:
        users = [user for user in node.users if user not in off]
        if users and node.op == "call_function" and not _is_tuple(node):
            with graph.inserting_after(node):
                detached = graph.call_function(torch.ops.aten.detach.default, (node,))
            node.replace_all_uses_with(detached, delete_user_cb=users.__contains__)
            detached.args = (node,)
    for node in graph.nodes:
        if node.target is torch.ops.aten.detach_.default:  # which writes no numbers
            node.target = torch.ops.aten.detach.default
            node.args[0].replace_all_uses_with(node, delete_user_cb=lambda user, node=node: user is not node)
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if _overwrites(node) and isinstance(node.args[0], fx.Node):
            old = node.args[0]
            old.replace_all_uses_with(node, delete_user_cb=lambda user, after=order[node]: order[user] > after)  # type: ignore[misc]


def drop_marks(graph: fx.Graph) -> None:
    """Leaves marks out."""
    for node in list(graph.nodes):
        if node.target is hand_on:
            node.replace_all_uses_with(node.args[1])
            graph.erase_node(node)


def segments_of(graph: fx.Graph, roots: Iterable[fx.Node | None], by_task: bool) -> list[Segment]:
    """The segments of a graph; what is in none runs as it is.

    Draws of random numbers, changes of buffers, marks, and the way from the last linear map to a mark (whose gradients
    balancers look at) are in none. With `by_task`, a segment's operations are used by the same losses and marks, so that
    what one task's loss depends on, and what lies before a mark, can be read from the graph as before, and a gradient costs
    no other task's pass.

    Args:
        graph: A simplified graph.
        roots: The outputs that are differentiated.
        by_task: Keep the losses' paths apart.
    """
    alone = in_turn(graph)
    reached = _reached(graph, roots) if by_task else {}
    depth: dict[fx.Node, int] = {}
    free: set[fx.Node] = set()  # operations outside of segments that wait for none
    place: dict[fx.Node, tuple[int, int]] = {}
    found: dict[tuple[int, int], Segment] = {}
    last, last_free = 0, True  # of the operations whose order counts
    for node in graph.nodes:
        if node.op != "call_function":
            depth[node] = 0
            free.add(node)
            continue
        given = node.all_input_nodes
        if node in alone:
            depth[node] = max([last, *(depth[i] for i in given)])
            if last_free and all(i in free for i in given):
                free.add(node)
            else:
                last_free = False
            last = depth[node]
            continue
        depth[node] = max((depth[i] + (i in alone and i not in free) for i in given), default=0)
        # A part of a result is taken where the result is made: segments hand on single tensors.
        place[node] = place[given[0]] if node.target is operator.getitem else (depth[node], reached.get(node, 0))
        found.setdefault(place[node], Segment()).nodes.append(node)
    return [segment for segment in found.values() if len(segment.nodes) >= _FEW]


def in_turn(graph: fx.Graph) -> set[fx.Node]:
    """The operations that run as they are, one after the other in the order of the graph."""
    found: set[fx.Node] = set()
    autocasts = 0  # that the program itself has entered or left off; their order with what is inside counts
    for node in graph.nodes:
        target = node.target
        autocasts += (target is torch.amp.autocast_mode._enter_autocast) - (
            target is torch.amp.autocast_mode._exit_autocast
        )
        if autocasts and node.op == "call_function":
            found.add(node)
        if node.op != "call_function" or target is operator.getitem:
            if node.op == "call_function" and node.args[0] in found:
                found.add(node)
            continue
        if not isinstance(target, torch._ops.OpOverload):
            found.add(node)
        elif torch.Tag.nondeterministic_seeded in target.tags or _has_mask(node):
            found.add(node)
            if _overwrites(node) and isinstance(node.args[0], fx.Node) and node.args[0].op == "call_function":
                found.add(node.args[0])
        elif _changes_buffers(node):
            found.add(node)
        if target is hand_on:
            found |= _to_last_linear(node.args[1])
    return found | _before_first(graph, found)


def _before_first(graph: fx.Graph, alone: set[fx.Node]) -> set[fx.Node]:
    """The few operations on which the first of those that run as they are depend.

    If these run as they are too, a dropout of the batch's features does not wait for a segment, and all that comes after it
    is one segment with what does not depend on it.
    """
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node not in alone:
            continue
        before: set[fx.Node] = set()
        queue = [node]
        while queue:
            for given in queue.pop().all_input_nodes:
                if given.op == "call_function" and given not in before and given not in alone | found:
                    before.add(given)
                    queue.append(given)
        if len(found | before) >= _FEW:
            break
        found |= before
    return found


def _to_last_linear(start: fx.Node) -> set[fx.Node]:
    """The operations from a mark back to the nearest linear maps."""
    found: set[fx.Node] = set()
    queue = [start]
    while queue:
        node = queue.pop()
        if node in found or node.op != "call_function":
            continue
        found.add(node)
        name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
        if name not in _LINEAR:
            queue += node.all_input_nodes
    return found


def _has_mask(node: fx.Node) -> bool:
    """Whether an operation reads or writes the entries that a mask selects; inductor would not know how many there are."""
    if "index" not in node.target.overloadpacket.__name__:  # type: ignore[union-attr]
        return shapeless(node)
    given = (node.args[1] if len(node.args) > 1 else None) or ()
    indices = given if isinstance(given, list | tuple) else (given,)
    kinds = [index.meta["val"].dtype for index in indices if isinstance(index, fx.Node) and "val" in index.meta]
    return any(kind in (torch.bool, torch.uint8) for kind in kinds)


def _changes_buffers(node: fx.Node) -> bool:
    """Whether an operation writes to what the graph was given."""
    name = getattr(node.target, "overloadpacket", None).__name__  # type: ignore[union-attr]
    if "batch_norm" in name or "instance_norm" in name:
        return any(isinstance(given, fx.Node) for given in node.args[3:5])
    if not _overwrites(node):
        return False
    at: object = node.args[0]
    while isinstance(at, fx.Node) and at.op == "call_function" and at.args and _is_view(at):
        at = at.args[0]
    return isinstance(at, fx.Node) and at.op != "call_function"


def _overwrites(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_view(node: fx.Node) -> bool:
    """Whether a result shares memory with what an operation was given; composite operations may."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return True
    returns = node.target._schema.returns
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(node.target.name(), "CompositeImplicitAutograd")
    return composite or any(of.alias_info is not None for of in returns)


def _is_tuple(node: fx.Node) -> bool:
    return any(user.target is operator.getitem for user in node.users)


def _reached(graph: fx.Graph, roots: Iterable[fx.Node | None]) -> dict[fx.Node, int]:
    """Which of the roots depend on each operation, and which marks do, as bits."""
    found: dict[fx.Node, int] = {}
    marks = (node for node in graph.nodes if node.target is hand_on)
    for k, root in enumerate((*roots, *marks)):
        if root is not None:
            found[root] = found.get(root, 0) | (1 << k)
    for node in reversed(graph.nodes):
        for given in node.all_input_nodes if node.op == "call_function" else ():
            found[given] = found.get(given, 0) | found.get(node, 0)
    return found
