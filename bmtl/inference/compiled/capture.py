"""Captures one run of guide, model and the per-task losses as a graph of torch's operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.overrides import TorchFunctionMode

from bmtl.inference.compiled.functions import as_they_are
from bmtl.inference.compiled.refusal import CannotCaptureError, current_statement, raising_statement
from bmtl.inference.losses import ScoreTerms, TaskLosses, TaskTerms
from bmtl.inference.programs import Batch, Programs
from bmtl.inference.shared_representation import SharedRepresentation

_READS = {
    getattr(Tensor, name)
    for name in ("item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__", "__complex__")
}
_DERIVATIVES = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}


@dataclass(frozen=True)
class Form:
    """How a run's losses are put together from a graph's outputs.

    Attributes:
        names: The tasks.
        sizes: As `TaskLosses.sizes`.
        rows: As `TaskLosses.rows`.
        joined: Whether likelihoods, and KL terms, are one tensor each.
        scored: Whether there are score-function terms.
    """

    names: tuple[str, ...]
    sizes: tuple[float, ...]
    rows: tuple[float, ...]
    joined: tuple[bool, bool]
    scored: bool

    @classmethod
    def of(cls, losses: TaskLosses) -> Form:
        """The form of a run's losses."""
        joined = losses.nll_terms.joined, losses.kl_terms.joined
        return cls(losses.names, losses.sizes, losses.rows, joined, losses.score is not None)

    def flat(self, losses: TaskLosses) -> list[Tensor]:
        """The tensors of a run's losses, in the order in which `losses` takes them."""
        found = [losses.shared, losses.labelled, losses.scales]
        for terms, joined in zip((losses.nll_terms, losses.kl_terms), self.joined, strict=True):
            found += [terms.vector] if joined else terms.parts
        if losses.score is not None:
            found += [losses.score.nll, losses.score.kl, losses.score.shared]
        return found

    def losses(self, flat: Sequence[Tensor], marks: SharedRepresentation) -> TaskLosses:
        """A run's losses from its tensors."""
        shared, labelled, scales, *rest = flat
        terms = []
        for joined in self.joined:
            count = 1 if joined else len(self.names)
            terms.append(TaskTerms(rest[0] if joined else rest[:count]))
            rest = rest[count:]
        score = ScoreTerms(*rest) if self.scored else None
        return TaskLosses(self.names, terms[0], terms[1], shared, labelled, scales, self.sizes, self.rows, score, marks)


@dataclass(frozen=True)
class Captured:
    """A captured run.

    Attributes:
        graph: Takes what handles the marks (`SharedRepresentation`), the batch's tensors and `held`, and gives the
            losses' tensors. Random numbers are drawn from torch's generators.
        held: What the program itself holds: parameters, buffers and constants, the tensors themselves.
        form: Puts the losses together.
    """

    graph: fx.GraphModule
    held: tuple[Tensor, ...]
    form: Form

    def run(self, marks: SharedRepresentation, tensors: Sequence[Tensor]) -> TaskLosses:
        """Replays the run on the tensors of another batch."""
        return self.form.losses(self.graph.forward(marks, *tensors, *self.held), marks)


def capture(programs: Programs, batch: Batch, tensors: Sequence[Tensor]) -> Captured:
    """Runs guide and model once and records torch's operations.

    Random numbers are drawn and buffers change as in any run: the caller puts them back.

    Args:
        programs: Model and guide.
        batch: What they are called with.
        tensors: The tensors of the batch, which are the graph's inputs.

    Raises:
        CannotCaptureError: If the program reads a tensor's value, makes tensors whose shape depends on values, or does
            something else that a graph cannot hold; names the statement.
    """
    marks = _Recorder()
    forms: list[Form] = []

    def run(*_: Tensor) -> tuple[Tensor, ...]:
        with as_they_are(), _NoReads():
            losses = programs.run(batch, marks)
        forms.append(Form.of(losses))
        handed = [tensor for pair in marks.pairs for tensor in pair]
        return (*forms[0].flat(losses), *handed)

    try:
        graph = make_fx(run, pre_dispatch=True)(*tensors)
    except (CannotCaptureError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # Whatever it was: the program runs as Python, where an error of its own is raised again.
        reason = str(error).partition("\n")[0][:200]
        raise CannotCaptureError(f"{type(error).__name__}: {reason}", raising_statement(error.__traceback__)) from error
    _take_marks(graph, len(marks.pairs))
    constant = _constants(graph.graph)
    for node in graph.graph.nodes:
        if shapeless(node) and not constant.issuperset(_masks(node)):
            raise CannotCaptureError(
                f"the shape of a result of {node.target.overloadpacket.__name__} depends on values",
                node.meta.get("statement", ""),
            )
    held = _take_out(graph)
    graph.recompile()
    return Captured(graph, held, forms[0])


class _Recorder(SharedRepresentation):
    """Hands on a view of each marked tensor, so that the graph shows what comes after the mark."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def mark(self, h: Tensor) -> Tensor:
        view = h.view_as(h)
        self.pairs.append((h, view))
        return view


class _NoReads(TorchFunctionMode):
    """Refuses to give a tensor's value to Python: what is done with it would be done for ever.

    It also notes of each operation which statement it comes from.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        mode: Any = get_proxy_mode()
        tracked = {} if mode is None else mode.tracer.tensor_tracker
        if func in _READS:
            known = tracked.get(args[0])
            if known is None or known.constant is None:
                raise CannotCaptureError("it reads the value of a tensor", current_statement())
        if func in _DERIVATIVES:
            raise CannotCaptureError(
                "it takes derivatives while it runs, as TaskELBO('enum') does where a latent is of several tasks",
                current_statement(),
            )
        result = func(*args, **(kwargs or {}))
        made = result[0] if isinstance(result, tuple | list) and result else result
        known = tracked.get(made) if isinstance(made, Tensor) else None
        if known is not None:
            known.proxy.node.meta.setdefault("statement", current_statement())
        return result


def hand_on(marks: SharedRepresentation, h: Tensor) -> Tensor:
    """Stands in a captured graph where the program marks a tensor."""
    return marks.mark(h)


def _take_marks(graph: fx.GraphModule, count: int) -> None:
    """Puts the handling of marks in place of the views that the recorder made."""
    nodes = graph.graph
    output = next(node for node in reversed(nodes.nodes) if node.op == "output")
    flat = list(output.args[0])
    flat, handed = flat[: len(flat) - 2 * count], flat[len(flat) - 2 * count :]
    with nodes.inserting_before(next(iter(nodes.nodes))):
        marks = nodes.placeholder("marks")
    output.args = (tuple(flat),)
    for h, view in zip(handed[::2], handed[1::2], strict=True):
        with nodes.inserting_before(view):
            view.replace_all_uses_with(nodes.call_function(hand_on, (marks, h)))
        nodes.erase_node(view)
    nodes.set_codegen(fx.graph.CodeGen())


def _take_out(graph: fx.GraphModule) -> tuple[Tensor, ...]:
    """Makes what a graph refers to its last inputs; returns it."""
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    inputs: dict[str, fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            name = str(node.target)
            if name not in inputs:
                with graph.graph.inserting_after(last):
                    last = inputs[name] = graph.graph.placeholder(f"held_{len(inputs)}")
            node.replace_all_uses_with(inputs[name])
            graph.graph.erase_node(node)
    return tuple(getattr(graph, name) for name in inputs)


def shapeless(node: fx.Node) -> bool:
    """Whether the shape of an operation's result depends on values."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if target is torch.ops.aten.index.Tensor:
        return any(mask.meta["val"].dtype in (torch.bool, torch.uint8) for mask in _masks(node))
    return torch.Tag.dynamic_output_shape in target.tags


def _masks(node: fx.Node) -> list[fx.Node]:
    """What the shape of its result may depend on: the indices of an indexing, else all that it is given."""
    if node.target is not torch.ops.aten.index.Tensor:
        return node.all_input_nodes
    indices: Any = node.args[1]
    return [index for index in indices if isinstance(index, fx.Node) and "val" in index.meta]


def _constants(graph: fx.Graph) -> set[fx.Node]:
    """The operations whose results are the same in every run, such as a triangle's mask: nothing is given to them.

    What is overwritten somewhere is not among them, nor what is computed from it.
    """
    written: set[fx.Node] = set()
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            arguments = zip(node.target._schema.arguments, node.args, strict=False)
            queue: list[Any] = [arg for of, arg in arguments if of.alias_info is not None and of.alias_info.is_write]
            queue = [arg for arg in queue if isinstance(arg, fx.Node)]  # and all that these may be views of
            while queue:
                of = queue.pop()
                if of not in written:
                    written.add(of)
                    queue += of.all_input_nodes
    found: set[fx.Node] = set()
    for node in graph.nodes:
        target = node.target
        if isinstance(target, torch._ops.OpOverload):
            drawn = torch.Tag.nondeterministic_seeded in target.tags or target._schema.is_mutable
            if not drawn and node not in written and found.issuperset(node.all_input_nodes):
                found.add(node)
    return found
