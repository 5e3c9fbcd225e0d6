"""Facts about the images and lists, from the data's own description."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bmtl.datasets import load
from bmtl.datasets.office_caltech10 import DEEP_FILE, FILE, VALIDATION_SEED


@pytest.fixture
def root(data_root):
    return data_root(FILE)


def by_class(data, part) -> np.ndarray:
    """Images per task and class, (4, 10)."""
    return np.array(
        [np.bincount(data.targets[task].values[rows], minlength=10) for task, rows in data.rows_by_task(part).items()]
    )


@pytest.mark.parametrize(
    ("proportion", "train", "others", "neither"),
    [(0.05, [24, 29, 10, 15], 2433, 22), (0.1, [48, 57, 16, 30], 2381, 1), (0.2, [96, 113, 32, 59], 2233, 0)],
)
def test_the_official_lists(root, proportion, train, others, neither):
    data = load("office-caltech10", root=root, proportion=proportion)
    assert data.tasks == ("amazon", "caltech10", "dslr", "webcam")
    (family,) = {target.family for target in data.targets.values()}
    assert family.name == "classes"
    assert len(family.classes) == 10
    assert family.classes[0] == "backpack"
    assert by_class(data, "train").sum(axis=1).tolist() == train
    assert by_class(data, "train").min() >= 1
    assert len(data.rows["val"]) + len(data.rows["test"]) == others
    assert sum(map(len, data.rows.values())) == 2533 - neither


@pytest.mark.parametrize("proportion", [0.05, 0.1, 0.2])
def test_validation_is_a_stratified_fifth_of_the_others(root, proportion):
    data = load("office-caltech10", root=root, proportion=proportion)
    val, test = by_class(data, "val"), by_class(data, "test")
    assert (np.abs(val - 0.2 * (val + test)) < 1).all()
    assert abs(val.sum() - 0.2 * (val + test).sum()) <= 0.5
    assert test.min() >= 1


def test_it_is_read_like_any_set_in_one_file(root):
    options = {"x": "surf", "y": "label", "task": "domain", "names": "domains", "split": "split_10"}
    data = load(f"npz:{FILE}", root=root, validation_from="test", seed=VALIDATION_SEED, **options)
    assert data.fingerprint == load("office-caltech10", root=root, proportion=0.1).fingerprint


def test_the_splits_are_fixed(root, digest_of_arrays):
    # Recorded: scores are comparable between versions only as long as these rows stay what they are.
    found = [digest_of_arrays(load("office-caltech10", root=root, proportion=p))[:16] for p in (0.05, 0.1, 0.2)]
    assert found == ["38a2c3cba19acd28", "e2997a6a725c8d96", "29f5f15ee1d1f78e"]


def test_the_default_is_five_percent_of_counts(root):
    data = load("office-caltech10", root=root)
    assert data.fingerprint == load("office-caltech10", root=root, proportion=0.05, scale="counts").fingerprint
    assert data.inputs.x.shape == (2533, 800)
    assert data.inputs.x.max() == 115


def test_square_roots_of_shares_have_length_one(root):
    data = load("office-caltech10", root=root, scale="sqrt", clip=5.0)
    assert_allclose(np.linalg.norm(data.inputs.x, axis=1), 1.0)
    counts = load("office-caltech10", root=root).inputs.x
    assert_array_equal(data.inputs.x == 0, counts == 0)
    assert data.tensors("test")[0].abs().max() == 5.0


def test_deep_features_have_the_same_rows_labels_and_parts(root, data_root):
    data_root(DEEP_FILE)
    options = {"root": root, "proportion": 0.1}
    deep, surf = (load("office-caltech10", features=name, **options) for name in ("deep", "surf"))
    assert deep.inputs.x.shape == (2533, 1280)
    assert deep.rows.keys() == surf.rows.keys()
    for part in deep.rows:
        assert_array_equal(deep.rows[part], surf.rows[part])
    for task in deep.tasks:
        assert_array_equal(deep.targets[task].values, surf.targets[task].values)
    unit = load("office-caltech10", features="deep", scale="unit", **options).inputs.x
    assert_allclose(np.linalg.norm(unit, axis=1), 1.0, rtol=1e-6)
    assert_allclose(unit * np.linalg.norm(deep.inputs.x, axis=1, keepdims=True), deep.inputs.x, rtol=1e-5)


def test_another_draw_has_as_many_training_images_of_each_task_and_class(root):
    official = load("office-caltech10", root=root, proportion=0.1)
    drawn = [load("office-caltech10", root=root, proportion=0.1, draw=seed) for seed in (1, 1, 2)]
    assert drawn[0].fingerprint == drawn[1].fingerprint != drawn[2].fingerprint
    for data in drawn:
        assert_array_equal(by_class(data, "train"), by_class(official, "train"))
        assert sum(map(len, data.rows.values())) == 2533  # the lists leave an image out
        assert 0 < len(np.intersect1d(data.rows["train"], official.rows["train"])) < 0.5 * len(data.rows["train"])
        assert len(np.unique(np.concatenate(list(data.rows.values())))) == 2533


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proportion": 0.3}, "0.05, 0.1 and 0.2; got 0.3"),
        ({"scale": "all"}, "'counts', 'sqrt' or 'unit'; got 'all'"),
        ({"features": "vgg16"}, "'surf' or 'deep'; got 'vgg16'"),
    ],
)
def test_unknown_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        load("office-caltech10", root=tmp_path, **options)


def test_a_missing_file_is_named_with_its_source(tmp_path):
    expected = "office_caltech10.npz in .*github.com/LeoGautheron.*github.com/thuml/MTlearn.*SHA-256 .* 90eaa4ea"
    with pytest.raises(FileNotFoundError, match=expected):
        load("office-caltech10", root=tmp_path)
