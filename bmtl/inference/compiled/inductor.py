"""Compiles the segments of a captured graph with torch's inductor."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from bmtl.inference.compiled.capture import Captured
from bmtl.inference.compiled.pair import Like, Pair, Run, RunToLeaves, compiled_pair
from bmtl.inference.compiled.segments import Segment, drop_marks, in_turn, segments_of, simplify
from bmtl.inference.shared_representation import SharedRepresentation


class _Compiled(nn.Module):
    """Runs a compiled segment."""

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.pair = pair

    def forward(self, *inputs: Tensor) -> Sequence[Tensor]:
        if self.pair.backward is None:
            return self.pair.forward(list(inputs))
        found: Sequence[Tensor] = Run.apply(self.pair, *inputs)
        return found


class _ToLeaves(_Compiled):
    """Runs a compiled segment whose trained inputs are parameters."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair)
        self.token = torch.zeros((), requires_grad=True)

    def forward(self, *inputs: Tensor) -> Sequence[Tensor]:
        leaves = [t for t, trained in zip(inputs, self.pair.inputs, strict=True) if trained]
        if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in leaves):
            return super().forward(*inputs)
        found: Sequence[Tensor] = RunToLeaves.apply(self.token, self.pair, leaves, inputs)
        return found


def compile_captured(captured: Captured, tensors: Sequence[Tensor], by_task: bool) -> tuple[Captured, Captured]:
    """The same run with compiled segments; and one for steps, whose losses can be differentiated by ``backward`` alone.

    Args:
        captured: A captured run.
        tensors: The tensors of a batch of its form.
        by_task: Whether its losses are differentiated task by task; the two runs are then one.
    """
    graph = fx.GraphModule(captured.graph, copy.deepcopy(captured.graph.graph))
    simplify(graph.graph)
    if not by_task:
        drop_marks(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    recorder = _Recorder(graph)
    recorder.run(SharedRepresentation(), *tensors, *captured.held)
    outputs = next(node for node in reversed(graph.graph.nodes) if node.op == "output").args[0]
    roots = [node if isinstance(node, fx.Node) else None for i, node in enumerate(outputs) if i not in (1, 2)]
    quick: list[tuple[str, Pair]] = []
    alone = in_turn(graph.graph)
    turns = [node for node in graph.graph.nodes if node in alone]
    for i, segment in enumerate(segments_of(graph.graph, roots, by_task)):
        inputs = [recorder.likes[node] for node in segment.inputs]
        pair = compiled_pair(_module(segment), inputs, [recorder.likes[node].trained for node in segment.outputs])
        graph.add_submodule(f"segment_{i}", _Compiled(pair))
        if pair.backward is not None and all(
            n.op == "placeholder" for n in segment.inputs if recorder.likes[n].trained
        ):
            quick.append((f"segment_{i}", pair))
        _insert(graph.graph, segment, f"segment_{i}", recorder.likes)
    _order(graph.graph, turns)
    graph.recompile()
    compiled = replace(captured, graph=graph)
    if by_task or not quick:
        return compiled, compiled
    graph = fx.GraphModule(graph, copy.deepcopy(graph.graph))
    for name, pair in quick:
        graph.add_submodule(name, _ToLeaves(pair))
    return compiled, replace(captured, graph=graph)


class _Recorder(fx.Interpreter):
    """Runs a graph and notes what its tensors are like."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.likes: dict[fx.Node, Like] = {}

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        if isinstance(found, Tensor):
            self.likes[n] = Like.of(found)
        return found


def _module(segment: Segment) -> fx.GraphModule:
    """A segment as a graph of its own."""
    inner = fx.Graph()
    places = {node: inner.placeholder(f"input_{i}") for i, node in enumerate(segment.inputs)}
    for node in segment.nodes:
        places[node] = inner.node_copy(node, places.__getitem__)
    inner.output(tuple(places[node] for node in segment.outputs))
    return fx.GraphModule(nn.Module(), inner)


def _insert(graph: fx.Graph, segment: Segment, name: str, likes: dict[fx.Node, Like]) -> None:
    """Puts a call in place of a segment's operations; `_order` moves it to where its inputs are known."""
    outputs = segment.outputs
    with graph.inserting_before(segment.nodes[-1]):
        call = graph.call_module(name, tuple(segment.inputs))
        for i, node in enumerate(outputs):
            result = graph.call_function(operator.getitem, (call, i))
            likes[result] = likes[node]
            node.replace_all_uses_with(result)
    for node in reversed(segment.nodes):
        graph.erase_node(node)


def _order(graph: fx.Graph, turns: Sequence[fx.Node]) -> None:
    """Puts operations behind those whose results they use; the others keep their order.

    Those of `turns`, such as draws of random numbers, keep theirs in any case: a dropout whose input is a segment's result
    draws before all draws that come after it, and not when these have been made.
    """
    done: set[fx.Node] = set()
    place = {node: turn for turn, node in enumerate(turns)}
    turn = 0
    waiting = [node for node in graph.nodes if node.op != "output"]
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    while waiting:
        later = []
        for node in waiting:
            if all(i in done for i in node.all_input_nodes) and place.get(node, turn) == turn:
                done.add(node)
                turn += node in place
                output.prepend(node)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise RuntimeError("the graph's segments depend on one another")
        waiting = later
