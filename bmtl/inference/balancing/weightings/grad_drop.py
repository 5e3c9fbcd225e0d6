"""Gradient sign dropout."""

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.options import Fraction, Seed
from bmtl.inference.balancing.weightings.stateful import Seeded


class GradDrop(Seeded):
    """Keeps, in each coordinate, the gradients of one random sign (GradDrop).

    ``p = (1 + sum g / sum |g|) / 2`` is how positive a coordinate is over the tasks, U is uniform: where ``U < p`` its
    positive gradients are kept, elsewhere its negative ones; the others are multiplied by `leak`. Coordinates whose
    gradients agree in sign always pass.

    The update is not a combination of gradients. The weight reported for a task is the part of its gradient that passes,
    ``g_k'd_k / |g_k|^2``.

    Source: Chen et al. (2020), algorithm 1, on the gradients of the shared parameters, as in TorchJD. Differs from Samsung's
    code, which inverts `leak`, and from LibMTL's, which works on the representation. K rows are visited one by one; besides
    them only vectors of P numbers are held.

    Args:
        leak: What the dropped gradients are multiplied by, from 0 to 1; 1 is the plain sum.
        seed: Seeds the generator that this weighting owns. It draws P numbers a step on the host: the same on any device.

    Raises:
        ValueError: In a step, if the gradients are missing.
    """

    name = "grad-drop"
    paper = "Chen et al. 2020"
    cost = "K backwards"
    needs = "jacobian"

    def __init__(self, leak: Fraction = 0.0, seed: Seed = 0) -> None:
        super().__init__(seed)
        self.leak = leak

    def forward(self, m: Measured, ctx: Context) -> Solution:
        if m.J is None:
            raise ValueError(f"{self.name!r} works on the gradients themselves, which the geometry 'full' gives.")
        total, size = torch.zeros_like(m.J[0]), torch.zeros_like(m.J[0])
        for row in m.J:
            total += row
            size += row.abs()
        drawn = torch.rand(len(total), generator=self.generator, dtype=torch.float32).to(total)
        # U is below 1: what is all positive passes, and what is all negative too, 0 among the draws included.
        positive = drawn < (1.0 + total / size.clamp_min(torch.finfo(size.dtype).tiny)) / 2.0
        direction = torch.zeros_like(total)
        passed: list[Tensor] = []
        for row in m.J:
            kept = torch.where((row > 0) == positive, row, row * self.leak)
            direction += kept
            passed.append(torch.dot(row.double(), kept.double()))
        alpha = torch.stack(passed).cpu() / m.G.diagonal()
        return Solution(alpha, iterations=1, direction=direction)
