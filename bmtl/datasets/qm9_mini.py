"""QM9-mini: 2,000 small organic molecules with eleven computed properties.

Source: R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, "Quantum chemistry structures and properties of 134
kilo molecules", Scientific Data 1, 140022 (2014), through the Python package qm9pack 1.0.3.
"""

import csv
import gzip
import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np

from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.qm9_properties import (
    CITATION,
    COUNTS,
    LICENCE,
    UNITS,
    Energies,
    atom_count_baselines,
    properties,
)

FEATURES = (*COUNTS, *(f"cm{i}" for i in range(29)))
"""Atom counts, then the sorted eigenvalues of the Coulomb matrix, zero-padded."""

# Drawn once with numpy's default_rng(2014) and recorded in PARTS, row by row of TABLE: numpy does not promise the same
# permutation in every version.
SPLIT = {"train": 1400, "val": 300, "test": 300}
SPLIT_SEED = 2014

# The last Coulomb columns are zero but for a few large molecules, whose rows standardise to |z| near 37 in this split.
CLIP = 5.0

TABLE = "qm9_mini_2k.csv.gz"
PARTS = "qm9_mini_2k_split.csv"
SHA256 = {
    TABLE: "2bf552b06bd7a9a6fa77a5fa3ea01c52e034aa72cb2f980e0c3d95279a8dfa27",
    PARTS: "f17f3cf74266cc7338210e86bff20c3451bbbe61342c9105e4a5299500326f1f",
}


def read(
    root: str | Path | None = None, *, energies: Energies = "atomization", residual: bool = False
) -> MultiTaskData:
    """The 2,000 molecules, 34 features and 11 targets in the units of `qm9_properties`.

    Args:
        root: Folder with other copies of the two files; the default is the package's own.
        energies: ``"atomization"``: u0, u298, h298 and g298 without the energies of the free atoms, as in the paper;
            ``"total"``: with them.
        residual: Least squares on the numbers of atoms, fitted on the training rows, are subtracted from every target
            before it is scaled, and added back in units.

    Raises:
        FileNotFoundError: If `root` lacks a file.
        ValueError: If a file is not the published one, byte for byte, or `energies` is something else.
    """
    folder = files("bmtl.datasets") / "data" if root is None else Path(root)
    table = _columns(gzip.decompress(_verified(folder, TABLE)))
    parts = _columns(_verified(folder, PARTS))
    x = np.stack([_floats(table[feature]) for feature in FEATURES], axis=1)  # (N, 34)
    hartree = {task: _floats(table[f"y_{task}"]) for task in UNITS}
    counts = x[:, : len(COUNTS)]
    y = properties(hartree, counts, energies)
    rows = {name: np.flatnonzero(np.array(parts["part"]) == name) for name in SPLIT}
    return MultiTaskData.from_arrays(
        "qm9-mini",
        x,
        y,
        rows,
        units=UNITS,
        features=FEATURES,
        clip=CLIP,
        citation=CITATION,
        licence=LICENCE,
        baselines=atom_count_baselines(y, counts, rows["train"]) if residual else None,
    )


def _verified(folder: Path | Traversable, name: str) -> bytes:
    file = folder / name
    if not file.is_file():
        raise FileNotFoundError(
            f"qm9-mini needs the file {name}, which is not in {folder}. Leave `root` out to use ours."
        )
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise ValueError(
            f"{file} is not the published file: its SHA-256 is {found}, expected {SHA256[name]}. Reinstall bmtl, or "
            "fetch the file again without newline conversion."
        )
    return content


def _columns(content: bytes) -> dict[str, list[str]]:
    names, *rows = csv.reader(content.decode().splitlines())
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _floats(column: list[str]) -> np.ndarray:
    # Python's float() rounds correctly everywhere, which a fast CSV parser need not: the fingerprint depends on it.
    return np.array([float(text) for text in column])
