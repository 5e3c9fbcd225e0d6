"""A cell of a comparison's grid: one run, where its files lie, and whether it is there already."""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bmtl.datasets import MultiTaskData
from bmtl.evaluation import results
from bmtl.evaluation.attributes import decode_attributes
from bmtl.evaluation.parts import reported_targets
from bmtl.experiments.budgets import Budget
from bmtl.experiments.configuration import configuration
from bmtl.experiments.methods import Method

_LONGEST = 120  # letters of a folder's name; file systems allow 255 bytes

Splits = MultiTaskData | Sequence[MultiTaskData]
"""One data set, or one for each split."""


@dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    Attributes:
        method: The method to train.
        seed: The run's seed.
        split: Which of the data's splits; None where there is one.
        lr: Learning rate, where it is not the budget's.
        trained: Of an outcome: whether it was trained now, or its results were there already. No part of what a cell is.
    """

    method: Method
    seed: int
    split: int | None = None
    lr: float | None = None
    trained: bool = field(default=True, compare=False)

    def folder(self, out: Path) -> Path:
        """Where its files are, always inside `out`."""
        return out / folder_name(self.method.name) / self.place(self.split, self.seed)

    @staticmethod
    def place(split: int | None, seed: int) -> str:
        """Folder of a split and seed below that of a method."""
        return f"seed-{seed}" if split is None else f"split-{split}-seed-{seed}"

    def __str__(self) -> str:
        split = "" if self.split is None else f"split {self.split}, "
        rate = "" if self.lr is None else f", lr {self.lr:g}"
        return f"{self.method.name} ({split}seed {self.seed}{rate})"


@dataclass(frozen=True)
class Failure:
    """A cell that failed, with the reason in one line. The full traceback is in its folder as ``error.txt``."""

    cell: Cell
    reason: str


def by_reason(failures: Sequence[Failure]) -> dict[str, str]:
    """Failures that are alike as one: the runs of a method that failed for the same reason -> that reason."""
    alike: dict[tuple[str, str], list[Cell]] = {}
    for failure in failures:
        alike.setdefault((failure.cell.method.name, failure.reason), []).append(failure.cell)
    return {
        f"{cells[0]} and {len(cells) - 1} more run{'s' * (len(cells) > 2)} of it"
        if cells[1:]
        else str(cells[0]): reason
        for (_, reason), cells in alike.items()
    }


@dataclass(frozen=True, eq=False)
class Job:
    """A cell with its data and budget."""

    data: MultiTaskData
    cell: Cell
    budget: Budget
    out: Path
    trust: bool = False

    @classmethod
    def of(cls, data: Splits, cell: Cell, budget: Budget, out: Path, trust: bool = False) -> "Job":
        """The job of a cell of a grid."""
        own = data if isinstance(data, MultiTaskData) else data[cell.split or 0]
        budget = (budget if cell.lr is None else replace(budget, lr=cell.lr)).of(own)
        return cls(own, cell, budget, out, trust)

    @property
    def folder(self) -> Path:
        return self.cell.folder(self.out)

    def finished(self) -> bool:
        """Whether its results can be read and are of the same data, method, seed and budget."""
        asked = configuration(self.cell.method, self.budget)
        return written_for(self.folder / "results.nc", asked, self.cell.seed, self.data, trust=self.trust)


def written_for(path: Path, asked: object, seed: int, data: MultiTaskData, *, trust: bool = False) -> bool:
    """Whether a results file can be read and has this configuration, seed and data, its targets' families and units too.

    Args:
        path: The file.
        asked: The configuration.
        seed: The run's seed.
        data: The run's data.
        trust: Whether the run must include draws for the training rows too.
    """
    if not path.is_file():
        return False
    try:
        tree = results.read(path)
        known = reported_targets(tree)
    except ValueError:  # a damaged file, or one without targets
        return False
    about = decode_attributes(tree)
    if trust and not about.get("trust"):
        return False
    found = tuple(about.get(name) for name in ("configuration", "seed", "data_fingerprint", "input_options"))
    same = all(
        (of.family, of.unit) == (data.targets[name].family.of_rows, data.targets[name].unit)
        for name, of in known.items()
        if name in data.targets
    )
    asked = json.loads(json.dumps(asked))  # tuples become lists
    return same and found == (asked, seed, data.fingerprint, data.inputs.options())


def folder_name(method: str) -> str:
    """A method's name as a folder's: a balancer's string form holds characters that file systems do not.

    Raises:
        ValueError: If nothing is left of the name, or it is too long.
    """
    name = unicodedata.normalize("NFC", method).replace(" >> ", "+").replace(" ", "_")
    safe = "".join(c if c.isalnum() or c in "-_.+()," else "_" for c in name).strip("._")
    if not safe or len(safe) > _LONGEST:
        raise ValueError(
            f"A method's name is a folder's too: 1 to {_LONGEST} letters, digits and the like; {method!r} was given."
        )
    return safe
