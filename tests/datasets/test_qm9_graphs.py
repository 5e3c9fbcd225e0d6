"""Facts about QM9's molecules with positions."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bmtl.datasets import load, qm9_12k
from bmtl.datasets.qm9_graphs import WHOLE
from bmtl.datasets.qm9_properties import COUNTS
from tests.datasets.test_molecules import sdf

SIZES = {"train": 300, "val": 50, "test": 50}


@pytest.fixture(scope="module")
def root(data_root):
    return data_root(qm9_12k.FILE)


@pytest.fixture(scope="module")
def data(root):
    return load("qm9-graphs", root=root)


def test_rows_labels_and_split_are_those_of_the_table(data, root):
    table = load("qm9-12k", root=root)
    assert data.tasks == table.tasks
    for name, target in table.targets.items():
        assert_allclose(data.targets[name].values, target.values, rtol=1e-12)
        assert data.targets[name].unit == target.unit
    for part, rows in table.rows.items():
        assert_array_equal(data.rows[part], rows)
    assert_array_equal(data.inputs.numbers(COUNTS), table.inputs.numbers(COUNTS))
    assert data.inputs.atomic_numbers.shape == (12_000, 29)


@pytest.mark.parametrize("name", ["qm9-mini", "qm9-12k", "qm9-graphs"])
def test_residual_targets_lack_what_atom_counts_tell(name, root):
    options = {} if name == "qm9-mini" else {"root": root}
    plain, residual = load(name, **options), load(name, **options, residual=True)
    assert plain.fingerprint != residual.fingerprint
    train = plain.rows["train"]
    counts = np.column_stack([plain.inputs.numbers(COUNTS), np.ones(len(plain.inputs))])
    for task, target in residual.targets.items():
        assert_array_equal(target.values, plain.targets[task].values)  # labels stay in units
        seen = target.scaled(train)
        assert_allclose(counts[train].T @ seen / len(train), 0, atol=1e-7)  # normal equations of least squares
        fitted = counts @ np.linalg.lstsq(counts[train], target.values[train])[0]
        assert_allclose(target.offset, fitted, atol=1e-6 * np.ptp(target.values))


def test_residual_energies_do_not_depend_on_the_atoms_energies(root):
    free, total = (
        load("qm9-graphs", root=root, residual=True, energies=energies, sizes=SIZES)
        for energies in ("atomization", "total")
    )
    for task in ("u0", "g298"):
        rows = free.rows["test"]
        assert_allclose(free.targets[task].scaled(rows), total.targets[task].scaled(rows), atol=1e-5)
        assert np.abs(free.targets[task].values - total.targets[task].values).min() > 1e6


def test_all_of_qm9_is_read_from_the_files_that_pyg_keeps(data, root, tmp_path):
    folder, rows = tmp_path / WHOLE[0], np.arange(0, 12_000, 100)
    folder.mkdir(parents=True)
    numbers, positions = data.inputs.atomic_numbers[rows], data.inputs.positions[rows]
    text = "".join(sdf(z[z > 0], x[z > 0]) for z, x in zip(numbers, positions, strict=True))
    (folder / "gdb9.sdf").write_text(text)
    raw = np.load(root / qm9_12k.FILE, allow_pickle=False)
    table = pd.DataFrame(raw["y"][rows], columns=raw["y_names"])
    table.insert(0, "mol_id", [f"gdb_{row}" for row in rows])
    table.to_csv(folder / "gdb9.sdf.csv", index=False)
    (folder / "uncharacterized.txt").write_text(
        "List of molecules\n\n    2  CCO  C C O\n   11  N  N N\n\n5 compounds\n"
    )
    found = load("qm9-graphs", root=tmp_path, whole=True, sizes={"train": 100, "test": 18})
    kept = np.setdiff1d(np.arange(120), [1, 10])
    assert len(found.inputs) == 118
    assert_allclose(found.targets["u0"].values, data.targets["u0"].values[rows[kept]], rtol=1e-12)
    width = found.inputs.positions.shape[1]
    assert_allclose(found.inputs.positions, positions[kept][:, :width], atol=6e-5)  # SD files have four decimals

    (folder / "gdb9.sdf.csv").write_text("mol_id,mu\ngdb_1,0.0\n")
    with pytest.raises(ValueError, match=r"gdb9.sdf has 120 molecules, and gdb9.sdf.csv 1 rows"):
        load("qm9-graphs", root=tmp_path, whole=True)
    (folder / "gdb9.sdf.csv").unlink()
    with pytest.raises(FileNotFoundError, match="gdb9.sdf.csv .*torch_geometric.datasets.QM9"):
        load("qm9-graphs", root=tmp_path, whole=True)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="qm9_12k.npz"):
        load("qm9-graphs", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="QM9/raw or qm9/raw or raw"):
        load("qm9-graphs", root=tmp_path, whole=True)
