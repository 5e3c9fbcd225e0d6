"""Compares a replayed run with one as Python: losses, gradients, draws and buffers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx

from bmtl.inference.compiled.capture import Captured, Form
from bmtl.inference.compiled.moment import Moment
from bmtl.inference.losses import TaskLosses


class Outcome(NamedTuple):
    """What a run gives.

    Attributes:
        form: How its losses are made of `values`.
        values: The tensors of its losses.
        gradients: Of a sum of all of them, by the parameters; None without a gradient, empty where not compared.
        after: The state that it has left.
    """

    form: Form
    values: list[Tensor]
    gradients: list[Tensor | None]
    after: Moment


def outcome(losses: TaskLosses, after: Moment, parameters: Sequence[Tensor]) -> Outcome:
    """Reads what a run gives; its graph stays.

    Args:
        losses: The run's losses.
        after: The state that it has left.
        parameters: Those whose gradients are compared.
    """
    form = Form.of(losses)
    values = form.flat(losses)
    roots = [*values, *(losses.marks.tensors if losses.marks.cut else ())]
    # Coefficients that differ, so that no two errors cancel.
    terms = [(root / (3 + i)).sum() for i, root in enumerate(roots) if root.requires_grad]
    gradients: list[Tensor | None] = []
    if parameters and terms:
        gradients = list(
            torch.autograd.grad(sum(terms[1:], terms[0]), parameters, retain_graph=True, allow_unused=True)
        )
    return Outcome(form, [value.detach().clone() for value in values], gradients, after)


def difference(replayed: Outcome, run: Outcome, tolerance: float) -> str:
    """What differs between a replayed run and one as Python; "" if nothing does.

    Args:
        replayed: Of the captured graph.
        run: Of the program.
        tolerance: Largest difference relative to the largest entry; 0 compares bit for bit.
    """
    if replayed.form != run.form:
        return "the tasks, or their numbers of rows"
    if not replayed.after.has_same_generators(run.after):
        return "the random numbers drawn"
    names = ["the shared terms", "the number of labels", "the scale of the plates"]
    for what, joined in zip(("likelihood", "KL term"), run.form.joined, strict=True):
        tasks = ["every task"] if joined else map(repr, run.form.names)
        names += [f"the {what} of {task}" for task in tasks]
    for name, a, b in zip(
        itertools.chain(names, itertools.repeat("a score term")), replayed.values, run.values, strict=False
    ):
        if not _agree(a, b, tolerance):
            return name
    # A bias before a batch norm has a gradient of rounding errors alone.
    least = 1e-2 * max(
        (float(g.to_dense().abs().max()) for g in run.gradients if g is not None and g.numel()), default=0.0
    )
    for one, other in zip(replayed.gradients, run.gradients, strict=True):
        if one is None or other is None:
            same = one is other
        else:
            same = _agree(one, other, 10 * tolerance, least)
        if not same:
            return "a gradient"
    for (_, a), (_, b) in zip(replayed.after.buffers, run.after.buffers, strict=True):
        if not _agree(a, b, tolerance):
            return "a buffer"
    return ""


def _agree(a: Tensor, b: Tensor, tolerance: float, size: float = 0.0) -> bool:
    """Whether tensors are equal, or differ by a tolerance times their largest entry, or times `size` if that is larger."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = (t.to_dense().detach() for t in (a, b))
    if torch.equal(a, b):
        return True
    if tolerance and (a.is_floating_point() or a.is_complex()):
        least = 1e3 * torch.finfo(a.dtype).eps if torch.finfo(a.dtype).bits < 32 else 0.0
        finite = b[b.isfinite()].abs()
        size = max(float(finite.max()) if finite.numel() else 0.0, size)
        return torch.allclose(a, b, rtol=0.0, atol=max(tolerance, least) * size, equal_nan=True)
    return a.is_floating_point() and bool(((a == b) | (a.isnan() & b.isnan())).all())


def changed_statement(before: Captured, after: Captured) -> str:
    """The first statement that two captured runs of one program do not have in common; "" if there is none."""
    for old, new in itertools.zip_longest(before.graph.graph.nodes, after.graph.graph.nodes):
        if new is None or old is None or not _alike(old, new):
            # What is new, or was left out, comes from a statement at or soon after the first difference.
            return _statement(new) or _statement(old)
    constants = [node for node in after.graph.graph.nodes if node.op == "placeholder"][-len(after.held) :]
    for node, a, b in zip(constants, before.held, after.held, strict=True):
        if a is not b and not _agree(a, b, 0.0):
            return next((found for user in node.users if (found := _statement(user))), "")
    return ""


def _statement(node: fx.Node | None) -> str:
    while node is not None and node.op != "root":
        if found := node.meta.get("statement", ""):
            return str(found)
        node = node.next
    return ""


def _alike(old: fx.Node, new: fx.Node) -> bool:
    found = [(node.op, str(node.target), str((node.args, node.kwargs))) for node in (old, new)]
    return found[0] == found[1]
