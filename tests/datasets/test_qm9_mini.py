"""Facts about the shipped molecules, from the data's own description."""

import gzip
import shutil
from importlib.resources import as_file, files

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from bmtl.datasets import load, qm9_mini
from bmtl.targets import Real


@pytest.fixture(scope="module")
def data():
    return load("qm9-mini")


def test_shape_and_order(data):
    assert data.inputs.x.shape == (2000, 34)
    assert data.tasks == ("mu", "alpha", "homo", "lumo", "r2", "zpve", "u0", "u298", "h298", "g298", "cv")
    assert {target.family for target in data.targets.values()} == {Real()}
    assert all(target.labelled.all() for target in data.targets.values())


def test_means_are_those_of_the_published_table(data):
    y = {name: target.values for name, target in load("qm9-mini", energies="total").targets.items()}
    assert_allclose(y["mu"].mean(), 2.7046, atol=5e-5)
    assert_allclose(y["mu"].std(), 1.5718, atol=5e-5)
    assert_allclose(y["alpha"].mean(), 75.501, atol=5e-4)
    assert_allclose(y["u0"].mean() / 27211.386, -411.355, atol=5e-4)


def test_energies_are_in_mev_and_the_rest_as_they_were(data):
    # The first molecule of the file, propiolamide: homo -0.2629, zpve 0.054731 Hartree.
    first = {name: target.values[0] for name, target in data.targets.items()}
    assert_allclose(first["homo"], -0.2629 * 27211.386)
    assert_allclose(first["zpve"], 0.054731 * 27211.386)
    assert (first["mu"], first["alpha"], first["r2"], first["cv"]) == (3.7167, 38.29, 390.4619, 18.527)
    assert {name for name, target in data.targets.items() if target.unit == "meV"} == {
        *("homo", "lumo", "zpve", "u0", "u298", "h298", "g298")
    }


def test_features_are_atom_counts_and_a_falling_spectrum(data):
    counts, spectrum = data.inputs.x[:, :5], data.inputs.x[:, 5:]
    assert (counts == np.round(counts)).all()
    assert counts[0].tolist() == [3, 3, 1, 1, 0]
    assert counts.sum(axis=1).max() <= 29
    assert (np.diff(np.abs(spectrum), axis=1) <= 0).all()


def test_the_split_is_a_partition(data):
    assert {part: len(rows) for part, rows in data.rows.items()} == {"train": 1400, "val": 300, "test": 300}
    assert sorted(np.concatenate(list(data.rows.values())).tolist()) == list(range(2000))


def test_the_split_is_the_one_that_was_drawn(data):
    drawn = np.repeat(list(qm9_mini.SPLIT), list(qm9_mini.SPLIT.values()))
    drawn = drawn[np.random.default_rng(qm9_mini.SPLIT_SEED).permutation(2000)]
    for part, rows in data.rows.items():
        assert np.array_equal(rows, np.flatnonzero(drawn == part))


def test_training_targets_are_standardised(data):
    _, y = data.tensors("train", torch.float64)
    for values in y.values():
        assert_allclose(values.mean(), 0.0, atol=1e-9)
        assert_allclose(values.std(correction=0), 1.0)


def test_every_part_is_clipped_at_five_standard_deviations(data):
    for part in data.rows:
        assert data.tensors(part)[0].abs().max() <= 5.0
    # Without the clip a few rows would stand out far.
    scaler = data.inputs.scaler
    assert np.abs((data.inputs.x - scaler.mean) / scaler.std).max() > 30


def test_targets_come_back_in_their_units(data):
    _, y = data.tensors("test", torch.float64)
    for name, target in data.targets.items():
        assert_allclose(target.scaler.inverse(y[name]), target.values[data.rows["test"]])


def test_the_arrays_are_the_published_ones(digest_of_arrays):
    # Recorded when the file was first shipped; a change means other numbers in every report.
    assert (
        digest_of_arrays(load("qm9-mini", energies="total"))
        == "33d2947de422ddc928f2f614ae21bea71f2101d33c34d5f96322591ec0127a6f"
    )


def test_the_notice_is_shipped():
    assert "MIT License" in (files("bmtl.datasets") / "data" / "LICENSE-qm9pack.txt").read_text()


def test_a_copy_elsewhere_is_read_and_a_changed_one_refused(tmp_path, data):
    for name in (qm9_mini.TABLE, qm9_mini.PARTS):
        with as_file(files("bmtl.datasets") / "data" / name) as source:
            shutil.copy(source, tmp_path / name)
    assert load("qm9-mini", root=tmp_path).fingerprint == data.fingerprint

    table = tmp_path / qm9_mini.TABLE
    table.write_bytes(gzip.compress(gzip.decompress(table.read_bytes()).replace(b"3.7167", b"3.7168")))
    with pytest.raises(ValueError, match="is not the published file"):
        load("qm9-mini", root=tmp_path)
