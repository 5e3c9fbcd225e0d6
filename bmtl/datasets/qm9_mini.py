"""QM9-mini: 2,000 small organic molecules with eleven computed properties.

Source: R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, "Quantum chemistry structures and properties of 134
kilo molecules", Scientific Data 1, 140022 (2014), through the Python package qm9pack 1.0.3.

The gap is left out, being lumo - homo. Reference energies of the atoms are not subtracted, so u0, u298, h298 and g298
are all but one task (correlation above 0.99999999): never report an average over tasks alone.
"""

import csv
import gzip
import hashlib
from collections.abc import Mapping
from importlib.abc import Traversable
from importlib.resources import files
from pathlib import Path

import numpy as np

from bmtl.datasets.multi_task_data import MultiTaskData

FEATURES = (*(f"n{atom}" for atom in "HCNOF"), *(f"cm{i}" for i in range(29)))
"""Atom counts, then the sorted eigenvalues of the Coulomb matrix, zero-padded."""

MEV_PER_HARTREE = 27211.386

# In the order, and the units, of Table 2 of the IGB paper.
UNITS = {
    "mu": "D",
    "alpha": "bohr^3",
    "homo": "meV",
    "lumo": "meV",
    "r2": "bohr^2",
    "zpve": "meV",
    "u0": "meV",
    "u298": "meV",
    "h298": "meV",
    "g298": "meV",
    "cv": "cal/(mol K)",
}

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

CITATION = (
    "R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, Quantum chemistry structures and properties of 134 "
    "kilo molecules, Scientific Data 1, 140022 (2014)."
)
LICENCE = "MIT (qm9pack 1.0.3), notice in bmtl/datasets/data/LICENSE-qm9pack.txt"


def read(root: str | Path | None = None) -> MultiTaskData:
    """The 2,000 molecules, 34 features and 11 targets in their reported units.

    Args:
        root: Folder with other copies of the two files; the default is the package's own.

    Raises:
        FileNotFoundError: If `root` lacks a file.
        ValueError: If a file is not the published one, byte for byte.
    """
    folder = files("bmtl.datasets") / "data" if root is None else Path(root)
    table = _columns(gzip.decompress(_verified(folder, TABLE)))
    parts = _columns(_verified(folder, PARTS))
    y = {task: _floats(table[f"y_{task}"]) for task in UNITS}
    return MultiTaskData.from_arrays(
        "qm9-mini",
        x=np.stack([_floats(table[feature]) for feature in FEATURES], axis=1),  # (N, 34)
        y=in_units(y),
        rows={name: np.flatnonzero(np.array(parts["part"]) == name) for name in SPLIT},
        units=UNITS,
        features=FEATURES,
        clip=CLIP,
        citation=CITATION,
        licence=LICENCE,
    )


def in_units(y: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Properties ``(N,)`` with energies in Hartree, in the units of `UNITS`."""
    return {task: values * (MEV_PER_HARTREE if UNITS[task] == "meV" else 1.0) for task, values in y.items()}


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
