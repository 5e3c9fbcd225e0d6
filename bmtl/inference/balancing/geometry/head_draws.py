"""Gradients at the shared representation, example by example, over draws of the heads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import torch
from torch import Tensor

from bmtl.inference import distributed
from bmtl.inference.balancing.base import Measured, Objective
from bmtl.inference.balancing.geometry.at_shared_representation import AtSharedRepresentation, check_marks
from bmtl.inference.balancing.gradients import gram_matrix, like, number_of_entries, real_entries
from bmtl.inference.balancing.options import Range, Seed

Draws = Annotated[int, Range(at_least=2)]


class HeadDraws(AtSharedRepresentation):
    """Mean and variance of each task's gradient at the marked tensors over draws of all latents downstream of them.

    ``Measured.J`` is the mean of the gradients, ``(K, B d)`` over all marks; ``Measured.variance`` is that of each example's
    own gradient, which is B times as large, and infinite where a task has no gradient at an example: no label there.

    The gradient at row b of a marked tensor is taken for that of example b: nothing downstream of the mark may couple rows
    (batch norm, attention among examples).

    Args:
        draws: Number of draws, from 2; the step's own is one of them.
        seed: Seeds the generator that the other draws follow; torch's global one stays where it is.
    """

    name = "head-draws"
    cost = "1 backward + draws x (1 forward + K heads)"

    def __init__(self, draws: Draws = 8, seed: Seed = 0) -> None:
        super().__init__()
        self.draws, self.seed = draws, seed
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def gives(self) -> frozenset[str]:
        return super().gives | {"own"}

    def measure(self, objective: Objective, loss_derivatives: Tensor) -> Measured:
        check_marks(objective)
        leaves = objective.marks.leaves
        mean = _flat(self.at_leaves(objective, loss_derivatives), leaves)  # (K, P)
        squares, named = torch.zeros_like(mean), mean != 0
        if len(mean) > 1:  # one task alone is not compared
            if objective.rerun is None:
                raise ValueError(f"{self.name!r} runs guide and model several times: use it in bmtl.BalancedSVI.")
            with self._randomness():
                for number in range(2, self.draws + 1):
                    drawn = _flat(self.at_leaves(objective.rerun(), loss_derivatives), leaves)
                    named |= drawn != 0
                    before = drawn - mean
                    mean += before / number
                    squares += before * (drawn - mean)  # Welford's sum, which does not cancel
        sizes = [number_of_entries(leaf) for leaf in leaves]
        variance = squares / (self.draws - 1)
        for leaf, part, seen in zip(leaves, variance.split(sizes, 1), named.split(sizes, 1), strict=True):
            rows = len(leaf) if leaf.dim() else 1
            absent = ~seen.reshape(len(mean), rows, -1).any(dim=2, keepdim=True)
            part.mul_(rows**2).view(len(mean), rows, -1).masked_fill_(absent, torch.inf)
        self.deltas = [[like(part, leaf) for part, leaf in zip(row.split(sizes), leaves, strict=True)] for row in mean]
        gram = distributed.inner_products(gram_matrix([mean], len(mean)))
        if objective.scale == 1.0:
            return Measured(gram, mean, variance=variance)
        return Measured(gram / objective.scale**2, mean / objective.scale, variance=variance / objective.scale**2)

    def squared_length(self, direction: Tensor) -> float:
        squared = torch.tensor(super().squared_length(direction), dtype=torch.float64)
        return distributed.inner_products(squared).item()

    @contextmanager
    def _randomness(self) -> Iterator[None]:
        """Torch's global generators seeded from our own, and restored."""
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
            yield

    def get_extra_state(self) -> Tensor:
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu())


def _flat(deltas: Sequence[Sequence[Tensor | None]], leaves: Sequence[Tensor]) -> Tensor:
    """Gradients at the marked tensors as one matrix ``(K, P)``, float32 at least; 0 where a task does not reach one."""
    rows = []
    for row in deltas:
        parts = [torch.zeros_like(h) if delta is None else delta for h, delta in zip(leaves, row, strict=True)]
        rows.append(torch.cat([real_entries(part) for part in parts]))
    found = torch.stack(rows)
    return found.to(torch.promote_types(found.dtype, torch.float32))
