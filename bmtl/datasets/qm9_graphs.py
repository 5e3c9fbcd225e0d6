"""QM9 as molecules with positions: 12,000 of them, or all in the layout in which PyTorch Geometric keeps them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bmtl.datasets import qm9_12k
from bmtl.datasets.files import Archive, find
from bmtl.datasets.molecule_files.sdf import of_sdf
from bmtl.datasets.molecules import Layout, Molecules, padded
from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.qm9_properties import (
    CITATION,
    COUNTS,
    ELEMENTS,
    LICENCE,
    UNITS,
    Energies,
    atom_count_baselines,
    properties,
)

WHOLE = ("QM9/raw", "qm9/raw", "raw")
"""Where the whole of QM9 is looked for, with gdb9.sdf, gdb9.sdf.csv and uncharacterized.txt."""

WHOLE_SPLIT = {"train": 110_000, "val": 10_000, "test": 10_000}

WHOLE_SOURCE = (
    "They are the files gdb9.sdf, gdb9.sdf.csv and uncharacterized.txt that torch_geometric.datasets.QM9(root) downloads to "
    "its folder raw."
)


def read(
    root: str | Path | None = None,
    *,
    energies: Energies = "atomization",
    residual: bool = False,
    layout: Layout = "dense",
    whole: bool = False,
    sizes: Mapping[str, int] | None = None,
    seed: int = qm9_12k.SPLIT_SEED,
) -> MultiTaskData:
    """Molecules with positions and 11 targets in the units of `qm9_properties`; the rows of ``qm9-12k``, in its order.

    Args:
        root: Folder of the data; the default is what the environment variable ``BMTL_DATA`` says.
        energies: ``"atomization"``: u0, u298, h298 and g298 without the energies of the free atoms, as in the paper;
            ``"total"``: with them.
        residual: Least squares on the numbers of atoms, fitted on the training rows, are subtracted from every target
            before it is scaled, and added back in units.
        layout: ``"dense"``: batches padded to their largest molecule; ``"pyg"``: a ``Batch`` of PyTorch Geometric.
        whole: All of QM9, without the molecules of uncharacterized.txt, from the files that PyTorch Geometric keeps.
        sizes: Part -> number of molecules; the default is 10,000 for training and 1,000 each for validation and test, of
            the whole 110,000 and 10,000 each.
        seed: Of the order from which the parts are taken one after the other.

    Raises:
        FileNotFoundError: If `root` does not hold the files.
        ValueError: If there are not as many molecules, a file is damaged, or an option is something else.
        ImportError: If PyTorch Geometric is requested and not installed.
    """
    numbers, positions, hartree = _whole(root) if whole else _12k(root)
    inputs = Molecules(numbers, positions, tuple(ELEMENTS.values()), layout)
    counts = inputs.numbers(COUNTS)
    y = properties(hartree, counts, energies)
    rows = qm9_12k.split(len(inputs), sizes or (WHOLE_SPLIT if whole else None), seed)
    return MultiTaskData.from_arrays(
        "qm9-graphs",
        inputs,
        y,
        rows,
        units=UNITS,
        citation=CITATION,
        licence=LICENCE if not whole else "",
        baselines=atom_count_baselines(y, counts, rows["train"]) if residual else None,
    )


def _12k(root: str | Path | None) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    archive = Archive(find("qm9-graphs", [qm9_12k.FILE], root, qm9_12k.SOURCE + " It needs Z and pos too."))
    names, y = archive.array("y_names").tolist(), archive.array("y")
    return archive.array("Z"), archive.array("pos"), {task: y[:, names.index(task)] for task in UNITS}


def _whole(root: str | Path | None) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    folder = find("qm9-graphs", WHOLE, root, WHOLE_SOURCE)
    for name in ("gdb9.sdf", "gdb9.sdf.csv", "uncharacterized.txt"):
        find("qm9-graphs", [name], folder, WHOLE_SOURCE)
    molecules = of_sdf((folder / "gdb9.sdf").read_text(encoding="utf-8"), str(folder / "gdb9.sdf"))
    table = pd.read_csv(folder / "gdb9.sdf.csv")
    if len(table) != len(molecules) or not set(UNITS) <= set(table.columns):
        raise ValueError(
            f"{folder}: gdb9.sdf has {len(molecules):,} molecules, and gdb9.sdf.csv {len(table):,} rows with the columns "
            f"{', '.join(table.columns)}; as many are expected, with {', '.join(UNITS)}. Fetch the files again."
        )
    # Molecules whose geometries are not those of their SMILES: lines that begin with their numbers, from 1, and at the end
    # how many they are.
    lines = [line.split() for line in (folder / "uncharacterized.txt").read_text(encoding="utf-8").splitlines()]
    left_out = [int(words[0]) - 1 for words in lines if words and words[0].isdigit() and words[1:] != ["compounds"]]
    kept = np.setdiff1d(np.arange(len(molecules)), left_out)
    numbers, positions = padded([molecules[row] for row in kept])
    return numbers, positions, {task: table[task].to_numpy(np.float64)[kept] for task in UNITS}
