"""The training rows that other tasks' priors of z and amortised classifiers look up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from bmtl.inputs import PerTask

_NO_ROW = -2


class Support(nn.Module):
    """Inputs and labels of T tasks, padded to one length.

    Args:
        x: Any by task ``(N_t, D)``, or one tensor for all.
        y: Labels by task ``(N_t,)``.
        names: The tasks.

    Raises:
        ValueError: If a task is missing or has no labelled row, inputs are not vectors, or labels are not one number or
            class for each row.
    """

    x: Tensor
    label: Tensor
    members: Tensor
    is_member: Tensor

    def __init__(
        self,
        x: Tensor | PerTask,
        y: Mapping[str, Tensor],
        names: tuple[str, ...],
    ) -> None:
        super().__init__()
        inputs = dict(x) if isinstance(x, PerTask) else dict.fromkeys(names, x)
        missing = [name for name in names if name not in inputs or name not in y]
        if missing:
            raise ValueError(f"The support has no inputs or no labels for the tasks {missing}.")
        for name in names:
            if not isinstance(inputs[name], Tensor) or inputs[name].dim() != 2:
                raise ValueError(
                    f"The support of {name!r} has inputs {_shape(inputs[name])}; (N, D) is expected, since attention "
                    "compares inputs as vectors."
                )
            if y[name].dim() != 1:
                raise ValueError(
                    f"VMTL takes labels that are one number or class a row, and those of {name!r} are "
                    f"{' x '.join(map(str, y[name].shape[1:]))} numbers a row: intervals, as of censored labels and times "
                    "to an event, or vectors. Leave the target out, or choose another method."
                )
            if len(y[name]) != len(inputs[name]):
                raise ValueError(
                    f"The support of {name!r} has inputs {_shape(inputs[name])} and labels {tuple(y[name].shape)}: give as "
                    "many labels as rows."
                )
        kept = {name: y[name] != -1 if not y[name].is_floating_point() else ~y[name].isnan() for name in names}
        empty = [name for name in names if not kept[name].any()]
        if empty:
            raise ValueError(f"Tasks without a labelled row in the support have no answers: {empty}. Leave them out.")
        self.names = names
        self.discrete = all(not y[name].is_floating_point() for name in names)
        labels = [y[name][kept[name]] if self.discrete else torch.zeros(int(kept[name].sum())) for name in names]
        self.register_buffer("x", pad_sequence([inputs[n][kept[n]] for n in names], True), persistent=False)
        padded = pad_sequence([label.long() for label in labels], True, _NO_ROW)
        self.register_buffer("label", padded, persistent=False)
        if self.discrete:
            self._take_members()

    def _take_members(self) -> None:
        """Which rows have each class, ``(C, T, m)``, padded to the most that one has."""
        classes = torch.arange(int(self.label.max()) + 1, device=self.label.device)
        member = self.label == classes[:, None, None]
        most = int(member.sum(-1).max())
        found = member.int().topk(most, sorted=True)  # rows of the class first
        self.register_buffer("members", found.indices, persistent=False)
        self.register_buffer("is_member", found.values.bool(), persistent=False)

    def without(self, classes: int) -> dict[str, list[int]]:
        """The classes of which tasks have no row, by task."""
        present = (self.label[..., None] == torch.arange(classes, device=self.label.device)).any(1)
        return {
            name: (~row).nonzero().flatten().tolist()
            for name, row in zip(self.names, present, strict=True)
            if not row.all()
        }

    def class_means(self, classes: int) -> tuple[Tensor, Tensor]:
        """Mean inputs of each class ``(T, C, D)``, zero for one without a row, and which have one ``(T, C)``."""
        member = (self.label[..., None] == torch.arange(classes, device=self.label.device)).to(self.x)
        counts = member.sum(1)
        means = torch.einsum("tnc,tnd->tcd", member, self.x) / counts.clamp_min(1)[..., None]
        return means, counts > 0

    def attention(self, x: Tensor, sources: Tensor, label: Tensor | None) -> "AttentionWeights":
        """What tasks answer to inputs: their rows weighted by inner products with the input.

        The products are divided by their range over the rows, and then a softmax taken; there is no parameter.

        Args:
            x: ``(R, D)``.
            sources: Which tasks answer to each, ``(R, S)``.
            label: ``(R,)``: rows of that class answer only; to a missing label (-1), those of class 0. None asks all rows.
        """
        tasks = torch.arange(len(self.names), device=x.device)
        if label is None:
            group, members = torch.zeros_like(sources[:, 0]), torch.arange(self.x.shape[1], device=x.device)
            members, there = members.expand(1, len(tasks), -1), (self.label != _NO_ROW).unsqueeze(0)
        else:
            group = label.clamp(0, len(self.members) - 1)  # the likelihood refuses a label beyond the classes
            members, there = self.members, self.is_member
        where = group[:, None], sources
        scores = _Products.apply(x, self.x[tasks[:, None], members], group, sources)
        allowed = there[where]
        highest = scores.masked_fill(~allowed, -torch.inf).amax(-1, keepdim=True)
        lowest = scores.masked_fill(~allowed, torch.inf).amin(-1, keepdim=True)
        # Less the largest before the division: the quotient alone overflows where a class has equal rows.
        scores = ((scores - highest) / (highest - lowest + 1e-9)).masked_fill(~allowed, -torch.inf)
        return AttentionWeights(members[where] + self.x.shape[1] * sources[..., None], scores.softmax(-1))

    @property
    def packed(self) -> Tensor:
        """The inputs of all tasks, row after row as `AttentionWeights` counts them, ``(T N, D)``."""
        return self.x.flatten(0, 1)


class _Products(torch.autograd.Function):
    """Inner products of R inputs with the rows of their own group, ``(R, S, m)``.

    Inputs are sorted by group, so that each group has its own products only. How many are in the largest is a value, which
    a captured graph would not see; but this is one call in it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, keys: Tensor, group: Tensor, sources: Tensor) -> Tensor:
        order, counts = group.argsort(), group.bincount(minlength=len(keys))
        place = torch.empty_like(order)
        place[order] = torch.arange(len(x), device=x.device) - (counts.cumsum(0) - counts)[group[order]]
        queries = x.new_zeros(len(keys), int(counts.max()), x.shape[1])
        queries[group, place] = x
        ctx.save_for_backward(keys, group, place, sources)
        ctx.most = queries.shape[1]
        return torch.einsum("grd,gtnd->grtn", queries, keys)[group[:, None], place[:, None], sources]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        keys, group, place, sources = ctx.saved_tensors
        every = slope.new_zeros(len(keys), ctx.most, *keys.shape[1:3])
        every[group[:, None], place[:, None], sources] = slope
        of_queries = torch.einsum("grtn,gtnd->grd", every, keys.to(slope))
        return of_queries[group, place], None, None, None


@dataclass(frozen=True)
class AttentionWeights:
    """Averages of the support's rows: S to each of R inputs.

    Attributes:
        rows: Which rows, ``(R, S, m)``.
        weights: Theirs, ``(R, S, m)``, with sum 1.
    """

    rows: Tensor
    weights: Tensor

    @property
    def count(self) -> int:
        """How many averages there are, R S."""
        return self.rows.shape[0] * self.rows.shape[1]

    def average(self, values: Tensor) -> Tensor:
        """The averages ``(R S, D)`` of the support's values ``(T N, D)``."""
        rows, weights = self.rows.flatten(0, 1), self.weights.flatten(0, 1).to(values.dtype)
        return F.embedding_bag(rows, values, per_sample_weights=weights, mode="sum")


def _shape(x: object) -> str:
    return str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__
