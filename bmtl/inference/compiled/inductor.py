"""Compiles the segments of a captured graph with torch's inductor."""

from __future__ import annotations

import copy
import operator
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from bmtl.inference.compiled.capture import Captured
from bmtl.inference.compiled.segments import Segment, drop_marks, segments_of, simplify
from bmtl.inference.shared_representation import SharedRepresentation

_KEPT = 32
_compiled: OrderedDict[Any, _Pair] = OrderedDict()
"""Compiled segments of this process: programs of one architecture share them, since tensors are their arguments."""


class _Like(NamedTuple):
    """What is known of a tensor before there is one."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    trained: bool

    @classmethod
    def of(cls, tensor: Tensor) -> _Like:
        kind = tensor.is_floating_point() or tensor.is_complex()
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad and kind)

    def empty(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


@dataclass
class _Pair:
    """A compiled segment: its forward pass, and its backward pass from what the forward saves.

    Attributes:
        forward: Inputs -> outputs and what is saved.
        backward: Saved and gradients of the trained outputs -> those of the trained inputs; None where nothing is trained.
        outputs: Of the outputs, which are trained.
        inputs: Of the inputs, which are trained.
        reach: For each trained input, which of the trained outputs depend on it.
    """

    forward: Callable[[list[Tensor]], Sequence[Any]]
    backward: Callable[[list[Tensor]], Sequence[Tensor | None]] | None
    outputs: list[bool]
    inputs: list[bool]
    reach: list[list[int]]


class _Run(torch.autograd.Function):
    """A segment in the autograd graph. An input that no given gradient reaches gets None, as in the graph it replaces."""

    @staticmethod
    def forward(ctx: Any, pair: _Pair, *inputs: Tensor) -> Any:
        found = pair.forward(list(inputs))
        count = len(pair.outputs)
        outputs = found[:count]
        ctx.pair = pair
        ctx.save_for_backward(*found[count:])
        ctx.like = [(t.shape, t.dtype, t.device) for t, trained in zip(outputs, pair.outputs, strict=True) if trained]
        ctx.mark_non_differentiable(*(t for t, trained in zip(outputs, pair.outputs, strict=True) if not trained))
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> Any:
        pair: _Pair = ctx.pair
        gradients = [g for g, trained in zip(given, pair.outputs, strict=True) if trained]
        filled = [
            torch.zeros(shape, dtype=dtype, device=device) if g is None else g.contiguous()
            for g, (shape, dtype, device) in zip(gradients, ctx.like, strict=True)
        ]
        assert pair.backward is not None
        found = iter(zip(pair.backward([*ctx.saved_tensors, *filled]), pair.reach, strict=True))
        result: list[Tensor | None] = [None]
        for trained in pair.inputs:
            if trained:
                gradient, reach = next(found)
                result.append(gradient if any(gradients[k] is not None for k in reach) else None)
            else:
                result.append(None)
        return tuple(result)


class _Compiled(nn.Module):
    """Runs a compiled segment."""

    def __init__(self, pair: _Pair) -> None:
        super().__init__()
        self.pair = pair

    def forward(self, *inputs: Tensor) -> Sequence[Tensor]:
        if self.pair.backward is None:
            return self.pair.forward(list(inputs))
        found: Sequence[Tensor] = _Run.apply(self.pair, *inputs)
        return found


def compile_captured(captured: Captured, tensors: Sequence[Tensor], by_task: bool) -> Captured:
    """The same run with compiled segments.

    Args:
        captured: A captured run.
        tensors: The tensors of a batch of its form.
        by_task: Whether its losses are differentiated task by task.
    """
    graph = fx.GraphModule(captured.graph, copy.deepcopy(captured.graph.graph))
    simplify(graph.graph)
    if not by_task:
        drop_marks(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    recorder = _Recorder(graph)
    recorder.run(SharedRepresentation(), *tensors)
    outputs = next(node for node in reversed(graph.graph.nodes) if node.op == "output").args[0]
    roots = [node if isinstance(node, fx.Node) else None for i, node in enumerate(outputs) if i not in (1, 2)]
    for i, segment in enumerate(segments_of(graph.graph, roots, by_task)):
        inputs = [recorder.likes[node] for node in segment.inputs]
        pair = _pair(_module(segment), inputs, [recorder.likes[node].trained for node in segment.outputs])
        graph.add_submodule(f"segment_{i}", _Compiled(pair))
        _insert(graph.graph, segment, f"segment_{i}", recorder.likes)
    _order(graph.graph)
    graph.recompile()
    return replace(captured, graph=graph)


class _Recorder(fx.Interpreter):
    """Runs a graph and notes what its tensors are like."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.likes: dict[fx.Node, _Like] = {}

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        if isinstance(found, Tensor):
            self.likes[n] = _Like.of(found)
        return found


def _module(segment: Segment) -> fx.GraphModule:
    """A segment as a graph of its own."""
    inner = fx.Graph()
    places = {node: inner.placeholder(f"input_{i}") for i, node in enumerate(segment.inputs)}
    for node in segment.nodes:
        places[node] = inner.node_copy(node, places.__getitem__)
    inner.output(tuple(places[node] for node in segment.outputs))
    return fx.GraphModule(nn.Module(), inner)


def _insert(graph: fx.Graph, segment: Segment, name: str, likes: dict[fx.Node, _Like]) -> None:
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


def _order(graph: fx.Graph) -> None:
    """Puts operations behind those whose results they use; the others keep their order."""
    done: set[fx.Node] = set()
    waiting = [node for node in graph.nodes if node.op != "output"]
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    while waiting:
        later = []
        for node in waiting:
            if all(i in done for i in node.all_input_nodes):
                done.add(node)
                output.prepend(node)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise RuntimeError("the graph's segments depend on one another")
        waiting = later


def _pair(inner: fx.GraphModule, inputs: list[_Like], trained: list[bool]) -> _Pair:
    """Compiles a segment, or takes an equal one that was compiled before."""
    precision = tuple(torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda"))
    key = (inner.code, tuple(inputs), tuple(trained), precision, torch.get_num_threads())
    if key in _compiled:
        _compiled.move_to_end(key)
        return _compiled[key]
    pair = _compiled[key] = _compile(inner, inputs, trained)
    while len(_compiled) > _KEPT:
        _compiled.popitem(last=False)
    return pair


def _compile(inner: fx.GraphModule, inputs: list[_Like], trained: list[bool]) -> _Pair:
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses import FakeTensorMode

    which = [i for i, like in enumerate(inputs) if like.trained]
    roots = [i for i, of in enumerate(trained) if of]
    kind = inputs[0].device.type if inputs else "cpu"

    def joint(primals: list[Tensor], tangents: list[Tensor]) -> list[Any]:
        outputs = inner(*primals)
        with torch.autocast(kind, enabled=False):
            found: Sequence[Any] = ()
            if roots:
                found = torch.autograd.grad(
                    [outputs[i] for i in roots], [primals[i] for i in which], tangents, allow_unused=True
                )
        return [*(output.detach() for output in outputs), *found]

    def fake(likes: Sequence[_Like]) -> list[Tensor]:
        return [like.empty().requires_grad_(like.trained) for like in likes]

    with FakeTensorMode(allow_non_fake_inputs=True), torch.enable_grad():
        primals = fake(inputs)
        outputs = inner(*primals)
        tangents = [torch.empty(outputs[i].shape, dtype=outputs[i].dtype, device=outputs[i].device) for i in roots]
        reach = _reach([outputs[i] for i in roots], [primals[i] for i in which])
        graph = make_fx(joint, decomposition_table=select_decomp_table())(fake(inputs), tangents)
        graph = _flat(graph, len(inputs))
        if any(isinstance(n.target, torch._ops.OpOverload) and n.target._schema.is_mutable for n in graph.graph.nodes):
            plain = [t.detach() for t in (*primals, *tangents)]
            graph = _flat(make_fx(torch.func.functionalize(graph, remove="mutations"))(*plain), len(inputs))
        with config.patch(fallback_random=True):
            if not roots:
                return _Pair(_inner(compile_fx_inner, graph), None, trained, [False] * len(inputs), [])
            forward, backward = min_cut_rematerialization_partition(
                graph, [*primals, *tangents], num_fwd_outputs=len(trained)
            )
            pair = (_inner(compile_fx_inner, forward), _inner(compile_fx_inner, backward, is_backward=True))
    return _Pair(*pair, trained, [like.trained for like in inputs], reach)


def _reach(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[list[int]]:
    """For each input, which of the outputs depend on it."""
    found: list[list[int]] = [[] for _ in inputs]
    for k, output in enumerate(outputs):
        ones = torch.empty_like(output)
        gradients = torch.autograd.grad(output, inputs, ones, retain_graph=True, allow_unused=True)
        for reach, gradient in zip(found, gradients, strict=True):
            if gradient is not None:
                reach.append(k)
    return found


def _flat(graph: fx.GraphModule, primals: int) -> fx.GraphModule:
    """A graph with the partitioner's names of inputs and with one tuple of outputs."""
    output = next(node for node in reversed(graph.graph.nodes) if node.op == "output")
    output.args = (tuple(pytree.tree_leaves(output.args[0], is_leaf=lambda leaf: leaf is None)),)
    for i, node in enumerate(node for node in graph.graph.nodes if node.op == "placeholder"):
        name = f"primals_{i + 1}" if i < primals else f"tangents_{i + 1 - primals}"
        node.name = node.target = name
    graph.graph.set_codegen(fx.graph.CodeGen())
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _inner(compiler: Callable[..., Any], graph: fx.GraphModule, **options: Any) -> Callable[[list[Tensor]], Any]:
    """Inductor's function of a graph: it takes a list, which it empties, and gives a sequence."""
    examples = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    found: Callable[[list[Tensor]], Any] = compiler(graph, examples, **options)
    return found
