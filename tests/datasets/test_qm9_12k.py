"""Facts about the 12,000 molecules, from the data's own description."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bmtl.datasets import load
from bmtl.datasets.qm9_12k import FILE


@pytest.fixture
def root(data_root):
    return data_root(FILE)


def test_shape_units_and_means(root):
    data, mini = load("qm9-12k", root=root), load("qm9-mini")
    y = {name: target.values for name, target in data.targets.items()}
    assert data.inputs.x.shape == (12000, 34)
    assert [target.unit for target in data.targets.values()] == [target.unit for target in mini.targets.values()]
    assert data.tasks == mini.tasks
    assert data.inputs.scaler.clip == mini.inputs.scaler.clip
    assert_allclose([y["mu"].mean(), y["mu"].std()], [2.6773, 1.5054], atol=5e-5)
    assert_allclose(y["alpha"].mean(), 75.327, atol=5e-4)
    assert_allclose(y["r2"].mean(), 1190.26, atol=5e-3)
    # The two files hold different molecules of one kind: energies are in meV in both.
    assert_allclose(y["u0"].mean(), mini.targets["u0"].values.mean(), rtol=0.01)


def test_the_split_is_the_recorded_one(root, digest_of_arrays):
    data = load("qm9-12k", root=root, energies="total")
    assert {part: len(rows) for part, rows in data.rows.items()} == {"train": 10_000, "val": 1_000, "test": 1_000}
    # Recorded before this reader was written, when examples/igb_qm9.py drew the split itself.
    assert digest_of_arrays(data) == "3be2913fc55fe25fd8d9432deb3b788f8c941e797e28cdd65f8cd4404cacbb90"


def test_sizes_and_seed_are_options(root):
    sizes = {"train": 400, "val": 100, "test": 100}
    data = load("qm9-12k", root=root, sizes=sizes)
    assert {part: len(rows) for part, rows in data.rows.items()} == sizes
    # The same order, cut elsewhere.
    order = np.concatenate(list(load("qm9-12k", root=root).rows.values()))
    assert np.array_equal(np.concatenate(list(data.rows.values())), order[:600])
    assert data.fingerprint != load("qm9-12k", root=root, sizes=sizes, seed=1).fingerprint


def test_too_many_molecules_are_refused(root):
    with pytest.raises(ValueError, match="need 12,001 molecules; there are 12,000"):
        load("qm9-12k", root=root, sizes={"train": 12_001})


def test_a_missing_file_is_named_with_its_source(tmp_path):
    with pytest.raises(FileNotFoundError, match="qm9_12k.npz in .*qm9pack==1.0.3.*SHA-256 .* f7e0ff1c"):
        load("qm9-12k", root=tmp_path)
