"""Facts about the schools, from the data's own description."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bmtl.datasets import load
from bmtl.datasets.school import FILE


@pytest.fixture
def root(data_root):
    return data_root(FILE)


def test_139_schools_with_pupils_of_their_own(root):
    data = load("school", root=root)
    assert len(data.tasks) == 139
    assert data.inputs.x.shape == (15362, 27)
    assert data.one_label_a_row
    assert {target.unit for target in data.targets.values()} == {"points"}
    sizes = np.array([target.labelled.sum() for target in data.targets.values()])
    assert (sizes.min(), sizes.max(), sizes.sum()) == (22, 251, 15362)
    assert_allclose(sum(np.nansum(t.values) for t in data.targets.values()) / 15362, 20.597, atol=5e-4)
    assert (data.inputs.x.std(axis=0) > 0).all()  # the constant is left out


def test_the_parts_are_drawn_within_each_school(root):
    data = load("school", root=root)
    sizes = {part: np.array([len(rows) for rows in data.rows_by_task(part).values()]) for part in data.rows}
    every = sum(sizes.values())
    assert (np.abs(sizes["test"] - every / 4) < 1).all()
    assert (np.abs(sizes["val"] - (every - sizes["test"]) / 5) < 1.5).all()
    assert all(len(found) == 139 and found.min() > 0 for found in sizes.values())


def test_the_seed_and_the_proportion(root):
    data, same, other = (load("school", root=root, seed=seed) for seed in (0, 0, 1))
    assert data.fingerprint == same.fingerprint != other.fingerprint
    half = load("school", root=root, proportion=0.5, validation=0.5)
    assert abs(len(half.rows["train"]) - 15362 / 4) < 139
    with pytest.raises(ValueError, match="between 0 and 1|proportion"):
        load("school", root=root, proportion=1.5)
