"""How soft a draw of weights is, by step."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Temperature:
    """A temperature that falls: at each step n that is a multiple of `every` it is multiplied by ``exp(-rate n repeats)``.

    Attributes:
        start: At first.
        rate: Of the decay.
        every: Steps between two changes.
        floor: The lowest.
        repeats: How often each change is made.

    Raises:
        ValueError: If `start` or `floor` is not positive, `rate` is negative, or `every` or `repeats` is below 1.
    """

    start: float = 1.0
    rate: float = 0.0
    every: int = 1
    floor: float = 1e-3
    repeats: int = 1

    def __post_init__(self) -> None:
        if not (self.start > 0 and self.floor > 0 and self.rate >= 0 and self.every >= 1 and self.repeats >= 1):
            raise ValueError(
                f"A temperature starts and ends above 0, falls at a rate from 0, and counts from 1; {self} was given."
            )

    def at(self, step: Tensor) -> Tensor:
        """The temperature ``()`` at a step ``()`` that is counted from 0."""
        if not self.rate:
            return step.new_tensor(self.start, dtype=torch.float64)
        changes = step // self.every
        # The factors' exponents add up: every * (1 + 2 + ... + changes).
        decay = self.rate * self.repeats * self.every / 2 * (changes * (changes + 1)).double()
        return (self.start * torch.exp(-decay)).clamp_min(min(self.floor, self.start))


RELEASED: dict[str, Any] = {"start": 1.0, "rate": 3e-5, "every": 1000, "floor": 0.5}
"""The schedule of the released code, which runs it once for each task: ``Temperature(**RELEASED, repeats=T)``."""
