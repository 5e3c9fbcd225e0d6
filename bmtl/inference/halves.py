"""Two independent samples of the task gradients: guide and model run on either half of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bmtl import inputs
from bmtl.inference.balancing.base import Objective
from bmtl.inference.losses import TaskLosses, TaskTerms
from bmtl.inference.scaled_losses import ScaledLosses
from bmtl.inference.shared_representation import SharedRepresentation
from bmtl.inputs import PerTask


def split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The first and the second half of a batch, each as ``(args, kwargs)``.

    Everything that has rows (`bmtl.inputs`), also inside mappings, lists and tuples, is cut in two; numbers, strings and
    None go to both halves. The two are independent samples where the batch's rows are in random order.

    Raises:
        TypeError: If something is of a type that `bmtl.inputs` does not support.
        ValueError: If something has fewer than two rows, or nothing was there to split.
    """
    found: list[Any] = []
    one, two = _halves((args, kwargs), found)
    if not found:
        raise ValueError(
            "cross=True halves the batch, and it holds no tensor with rows. Give it as tensors, or in mappings of them."
        )
    return one, two


def _halves(value: Any, found: list[Any]) -> list[Any]:
    """Both halves of a part of a batch; what was cut is added to `found`."""
    if value is None or isinstance(value, int | float | str) or (isinstance(value, Tensor) and not value.dim()):
        return [value, value]
    if isinstance(value, Mapping) and inputs.is_structure(value):  # labels of tasks may differ in rows
        by_key = {key: _halves(part, found) for key, part in value.items()}
        return [{key: both[half] for key, both in by_key.items()} for half in (0, 1)]
    if isinstance(value, list) or inputs.is_structure(value):
        both = zip(*(_halves(part, found) for part in value), strict=True) if value else ((), ())
        return [type(value)(*half) if hasattr(value, "_fields") else type(value)(half) for half in both]
    if not inputs.countable(value):
        raise TypeError(
            f"cross=True halves the batch, and how to halve {type(value).__name__} is not known. Register it with "
            "bmtl.inputs.count and take."
        )
    found.append(value)
    if min(value.counts().values() if isinstance(value, PerTask) else [inputs.count(value)]) < 2:
        given = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(type(value).__name__)
        raise ValueError(
            f"cross=True halves the batch, and {given} has fewer than two rows. Give larger batches (the loader's last one "
            "too: drop_last=True)."
        )
    return inputs.split(value, 2)


@dataclass(frozen=True)
class Halves:
    """The terms of both halves of a batch, with the interface of `ScaledLosses`: each value is the mean of the two.

    A task is present if it has labels in both halves; one that has them in one half only is absent from the step.
    """

    one: ScaledLosses
    two: ScaledLosses

    @classmethod
    def of(cls, one: ScaledLosses, two: ScaledLosses) -> Halves:
        """Both halves, with the same tasks present in both."""
        present = one.present & two.present
        return cls(one.only(present), two.only(present))

    def only(self, present: Tensor) -> Halves:
        """Both halves with these tasks present ``(K,)`` at most, as `ScaledLosses.only`."""
        return Halves(self.one.only(present), self.two.only(present))

    @property
    def raw(self) -> TaskLosses:
        """The first half's terms, with the traces of both."""
        return replace(self.one.raw, traces=self.one.raw.traces + self.two.raw.traces)

    @property
    def values(self) -> Tensor:
        return (self.one.values + self.two.values) / 2

    @property
    def unweighted_terms(self) -> float:
        return (self.one.unweighted_terms + self.two.unweighted_terms) / 2

    @property
    def present(self) -> Tensor:
        return self.one.present

    def objective(self, parameter_names: Mapping[int, str], scale: float = 1.0) -> Objective:
        """The mean of the halves' objectives, which keeps both; arguments as those of `ScaledLosses.objective`."""
        one, two = (half.objective(parameter_names, scale) for half in (self.one, self.two))
        pairs = zip(one.rows, two.rows, one.per_datum_scale.tolist(), two.per_datum_scale.tolist(), strict=True)
        marks = SharedRepresentation()
        marks.tensors = one.marks.tensors + two.marks.tensors
        return Objective(
            names=one.names,
            losses=(one.losses + two.losses) / 2,
            rows=TaskTerms([(a * u + b * v) / 2 for a, b, u, v in pairs]),
            per_datum_scale=torch.ones_like(one.per_datum_scale),
            unweighted_terms=_mean(one.unweighted_terms, two.unweighted_terms),
            scores=_mean(
                *(o.scores if o.scores is None else o.scores * o.per_datum_scale.to(o.scores) for o in (one, two))
            ),
            marks=marks,
            parameter_names=parameter_names,
            scale=scale,
            halves=(one, two),
        )


def _mean(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    terms = [term for term in (a, b) if term is not None]
    return sum(terms[1:], start=terms[0]) / 2 if terms else None
