"""A fixed random subsample of numbered rows, whatever the batches they come in."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Subsample:
    """The rows whose hashed numbers are the smallest: the same rows for every learner, order and division into batches.

    Args:
        size: How many rows are kept.
        seed: Another seed keeps other rows.
    """

    size: int
    seed: int = 0
    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def choose(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Adds rows and says which are kept.

        Args:
            numbers: Of the new rows ``(M,)``, each of them once in all batches.

        Returns:
            Which of the rows kept so far stay, and which of the new rows are kept, as positions; both in the order in which
            the kept rows now are: first those that stay.
        """
        every = np.concatenate([self.numbers, np.asarray(numbers, dtype=np.int64)])
        kept = np.arange(every.size)
        if every.size > self.size:
            kept = np.sort(np.argpartition(hashed(every, self.seed), self.size - 1)[: self.size])
        old = self.numbers.size
        self.numbers = every[kept]
        return kept[kept < old], kept[kept >= old] - old


def hashed(numbers: np.ndarray, seed: int = 0) -> np.ndarray:
    """Numbers ``(M,)`` mixed to uniform 64-bit integers, different for different numbers.

    Source:
        The finaliser of SplitMix64: Steele, Lea & Flood (2014), Fast splittable pseudorandom number generators.
    """
    mixed = np.asarray(numbers).astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
