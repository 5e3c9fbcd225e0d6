"""Compares a replayed run with one as Python: losses, gradients, draws and buffers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
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
    for one, other in zip(replayed.gradients, run.gradients, strict=True):
        if one is None or other is None:
            same = one is other
        else:
            same = _agree(one, other, 10 * tolerance)
        if not same:
            return "a gradient"
    for (_, a), (_, b) in zip(replayed.after.buffers, run.after.buffers, strict=True):
        if not _agree(a, b, tolerance):
            return "a buffer"
    return ""


def _agree(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = (t.to_dense().detach() for t in (a, b))
    if torch.equal(a, b):
        return True
    if tolerance and (a.is_floating_point() or a.is_complex()):
        least = 1e3 * torch.finfo(a.dtype).eps if torch.finfo(a.dtype).bits < 32 else 0.0
        finite = b[b.isfinite()].abs()
        size = float(finite.max()) if finite.numel() else 0.0
        return torch.allclose(a, b, rtol=0.0, atol=max(tolerance, least) * size, equal_nan=True)
    return a.is_floating_point() and bool(((a == b) | (a.isnan() & b.isnan())).all())


def changed_statement(before: Captured, after: Captured) -> str:
    """The first statement that two captured runs of one program do not have in common; "" if there is none."""
    pairs = itertools.zip_longest(before.graph.graph.nodes, after.graph.graph.nodes)
    for old, new in pairs:
        if new is None or old is None or not _alike(before, old, after, new):
            # What is new, or was left out, comes from a statement at or soon after the first difference.
            places = (node.meta.get("statement", "") for node in (*_onwards(new), *_onwards(old)))
            return next(filter(None, places), "")
    return ""


def _onwards(node: fx.Node | None) -> Iterator[fx.Node]:
    while node is not None and node.op != "root":
        yield node
        node = node.next


def _alike(before: Captured, old: fx.Node, after: Captured, new: fx.Node) -> bool:
    if (old.op, str(old.target)) != (new.op, str(new.target)):
        return False
    if old.op == "get_attr":
        a, b = (getattr(of.graph, str(node.target)) for of, node in ((before, old), (after, new)))
        # Users are named: a constant itself comes from no statement.
        return a is b or (a.shape == b.shape and torch.equal(a.detach(), b.detach()))
    return str((old.args, old.kwargs)) == str((new.args, new.kwargs))
