"""One segment of a captured graph as compiled forward and backward passes, and its place in the autograd graph."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

_KEPT = 32
_compiled: OrderedDict[Any, Pair] = OrderedDict()
"""Compiled segments of this process: programs of one architecture share them, since tensors are their arguments."""


class Like(NamedTuple):
    """What is known of a tensor before there is one."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    trained: bool

    @classmethod
    def of(cls, tensor: Tensor) -> Like:
        """Of a tensor."""
        kind = tensor.is_floating_point() or tensor.is_complex()
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad and kind)

    def empty(self) -> Tensor:
        """A tensor like it, of any values."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


@dataclass
class Pair:
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


class Run(torch.autograd.Function):
    """A segment in the autograd graph. An input that no given gradient reaches gets None, as in the graph it replaces."""

    @staticmethod
    def forward(ctx: Any, pair: Pair, *inputs: Tensor) -> Any:
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
        pair: Pair = ctx.pair
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


class RunToLeaves(torch.autograd.Function):
    """As `Run`, for a segment that reaches parameters alone: its backward pass adds to their ``.grad`` itself.

    Its first input is a tensor that is trained, so that autograd calls the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, token: Tensor, pair: Pair, leaves: Sequence[Tensor], inputs: Sequence[Tensor]) -> Any:
        ctx.leaves = leaves
        return Run.forward(ctx, pair, *inputs)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> Any:
        found = (g for g, trained in zip(Run.backward(ctx, *given)[1:], ctx.pair.inputs, strict=True) if trained)
        for leaf, gradient in zip(ctx.leaves, found, strict=True):
            if gradient is not None:
                leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
        return None, None, None, None


def compiled_pair(inner: fx.GraphModule, inputs: list[Like], trained: list[bool]) -> Pair:
    """Compiles a segment, or takes an equal one that was compiled before.

    Args:
        inner: The segment's operations, from its inputs to a tuple of outputs.
        inputs: What its inputs are like.
        trained: Which of its outputs have a gradient.
    """
    precision = tuple(torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda"))
    key = (inner.code, tuple(inputs), tuple(trained), precision, torch.get_num_threads())
    if key in _compiled:
        _compiled.move_to_end(key)
        return _compiled[key]
    pair = _compiled[key] = _compile(inner, inputs, trained)
    while len(_compiled) > _KEPT:
        _compiled.popitem(last=False)
    return pair


def _compile(inner: fx.GraphModule, inputs: list[Like], trained: list[bool]) -> Pair:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of what it uses itself
        return _compile_both(inner, inputs, trained)


def _compile_both(inner: fx.GraphModule, inputs: list[Like], trained: list[bool]) -> Pair:
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    fake = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(), static_shapes=True)
    # One thread: the workers of inductor's pool take longer to start than these few kernels to compile. With a tracing
    # context it finds what an earlier process has compiled.
    # Sizes and strides are part of a run's form and need no check.
    options = {"fallback_random": True, "compile_threads": 1, "size_asserts": False, "alignment_asserts": False}
    if config.cpp.vec_isa_ok is None:  # the processor's vector instructions, without trials that take six seconds
        options["cpp.vec_isa_ok"] = True
    with config.patch(options), tracing(TracingContext(fake)):
        from torch._functorch.partitioners import min_cut_rematerialization_partition

        with fake:
            graph, examples, reach = _joint(inner, inputs, trained)
            if not reach:
                return Pair(_lowered(graph), None, trained, [False] * len(inputs), [])
            forward, backward = min_cut_rematerialization_partition(graph, examples, num_fwd_outputs=len(trained))
            passes = _lowered(forward), _lowered(backward, is_backward=True)
    return Pair(*passes, trained, [like.trained for like in inputs], reach)


def _joint(
    inner: fx.GraphModule, inputs: list[Like], trained: list[bool]
) -> tuple[fx.GraphModule, list[Tensor], list[list[int]]]:
    """Both passes as one graph, what it is called with, and `Pair.reach`."""
    from torch._inductor.decomposition import select_decomp_table

    which = [i for i, like in enumerate(inputs) if like.trained]
    roots = [i for i, of in enumerate(trained) if of]
    kind = inputs[0].device.type if inputs else "cpu"

    def both(primals: list[Tensor], tangents: list[Tensor]) -> list[Any]:
        outputs = inner(*primals)
        found: Sequence[Any] = ()
        if roots:
            with torch.autocast(kind, enabled=False):
                wanted, given = [primals[i] for i in which], [outputs[i] for i in roots]
                found = torch.autograd.grad(given, wanted, tangents, allow_unused=True)
        return [*(output.detach() for output in outputs), *found]

    def primals() -> list[Tensor]:
        return [like.empty().requires_grad_(like.trained) for like in inputs]

    with torch.enable_grad():
        given = primals()
        outputs = inner(*given)
        tangents = [torch.empty(outputs[i].shape, dtype=outputs[i].dtype, device=outputs[i].device) for i in roots]
        reach = _reach([outputs[i] for i in roots], [given[i] for i in which])
        graph = _flat(make_fx(both, decomposition_table=select_decomp_table())(primals(), tangents), len(inputs))
    examples = [*(like.empty() for like in inputs), *tangents]
    if any(isinstance(n.target, torch._ops.OpOverload) and n.target._schema.is_mutable for n in graph.graph.nodes):
        graph = _flat(make_fx(torch.func.functionalize(graph, remove="mutations"))(*examples), len(inputs))
    return graph, examples, reach


def _reach(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[list[int]]:
    """For each input, which of the outputs depend on it."""
    found: list[list[int]] = [[] for _ in inputs]
    for k, output in enumerate(outputs if inputs else ()):
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
    _skip_same(graph.graph, output)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _skip_same(graph: fx.Graph, output: fx.Node) -> None:
    """Leaves out views that are the tensors themselves.

    With them the partitioner takes a tensor that is saved anyway for another one, and saves the mask of a ReLU too, which
    takes longer to write than the layer's product.
    """
    aten = torch.ops.aten
    for node in list(graph.nodes):
        if node.target not in (aten.alias.default, aten.detach.default, aten.expand.default, aten.view.default):
            continue
        source, given, found = node.args[0], node.args[0].meta.get("val"), node.meta.get("val")
        if given is None or found is None or given.shape != found.shape or given.stride() != found.stride():
            continue
        node.replace_all_uses_with(source, delete_user_cb=lambda user: user is not output)


def _lowered(graph: fx.GraphModule, **options: Any) -> Callable[[list[Tensor]], Any]:
    """Inductor's function of a graph: it takes a list, which it empties, and gives a sequence."""
    from torch._inductor.compile_fx import compile_fx_inner

    examples = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    found: Callable[[list[Tensor]], Any] = compile_fx_inner(graph, examples, **options)
    return found
