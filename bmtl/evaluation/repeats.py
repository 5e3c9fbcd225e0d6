"""The repeated runs of a comparison, splits of the data or seeds, over which its intervals are taken."""

from dataclasses import dataclass

import xarray as xr

UNKNOWN = -1  # of a seed that a run did not record
FEWEST = 3
"""Runs of a method below which nothing is decided: no method is marked best."""


@dataclass(frozen=True)
class Repeats:
    """How often each method was run, and what differed.

    Attributes:
        runs: Entries of the dimension ``split``.
        splits: Different data among them; 0 where the runs did not record it.
        seeds: Different seeds among them; 0 where the runs did not record them.
    """

    runs: int
    splits: int
    seeds: int

    @classmethod
    def of(cls, comparison: xr.Dataset) -> "Repeats":
        """Those of a comparison."""
        prints, seeds = comparison["data_fingerprint"].values.tolist(), comparison["seed"].values.tolist()
        return cls(
            comparison.sizes["split"],
            0 if "" in prints else len(set(prints)),
            0 if UNKNOWN in seeds else len(set(seeds)),
        )

    @property
    def noun(self) -> str:
        """What one of them is: "split", "seed", or "run" where both differ or neither is known."""
        if self.splits == self.runs > 1:
            return "split"
        return "seed" if self.splits == 1 and self.seeds == self.runs > 1 else "run"

    @property
    def nouns(self) -> str:
        """The same of several."""
        return f"{self.noun}s"

    @property
    def counted(self) -> str:
        """How many of what: "5 seeds of one split", "3 splits", "6 runs (3 splits, 2 seeds each)"."""
        if self.runs == 1:
            return "one run"
        if self.noun == "split":
            return f"{self.runs} splits"
        if self.noun == "seed":
            return f"{self.runs} seeds of one split"
        if self.splits > 1 and self.runs % self.splits == 0:
            return f"{self.runs} runs ({self.splits} splits, {self.runs // self.splits} seeds each)"
        return f"{self.runs} runs"

    @property
    def decisive(self) -> bool:
        """Whether there are enough of them for an interval to decide anything."""
        return self.runs >= FEWEST

    def interval(self) -> str:
        """The interpretation of an interval over them, as a sentence; empty for a single run."""
        if self.runs == 1:
            return ""
        if self.noun == "seed":
            return "Intervals are over seeds and hold no variance of the data."
        if self.noun == "split":
            return "Intervals are over splits, which share rows, and are approximate."
        return "Intervals are over runs."
