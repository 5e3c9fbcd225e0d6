import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from bmtl.datasets import MultiTaskData, Scaler

ROWS = {"train": [0, 1, 2, 3], "val": [4], "test": [5, 6]}


def small(**changes) -> MultiTaskData:
    """Seven rows, a regression with a gap and three classes with a gap."""
    arguments = {
        "name": "small",
        "x": np.arange(14.0).reshape(7, 2),
        "y": {"depth": [1.0, 3.0, np.nan, 5.0, 7.0, np.nan, 9.0], "colour": [0, 2, 1, -1, 0, 1, -1]},
        "rows": ROWS,
        "kinds": {"colour": 3},
        "units": {"depth": "m"},
    }
    return MultiTaskData.from_arrays(**{**arguments, **changes})


def test_tensors_are_scaled_and_mark_missing_labels():
    data = small(clip=1.0)
    x, y = data.tensors("train")
    assert x.dtype == torch.float32
    assert x.shape == (4, 2)
    assert x.abs().max() == 1.0
    assert y["colour"].dtype == torch.int64
    assert y["colour"].tolist() == [0, 2, 1, -1]
    assert_allclose(y["depth"], (np.array([1, 3, np.nan, 5]) - 3) / np.std([1, 3, 5]), rtol=1e-6)
    assert data.tensors("test", torch.float64)[1]["depth"].dtype == torch.float64


def test_scalers_see_the_training_rows_only():
    x = np.arange(14.0).reshape(7, 2)
    x[4:] = 1e6
    assert_array_equal(small(x=x).x_scaler.mean, small().x_scaler.mean)
    assert_array_equal(small().y_scalers["depth"].mean, 3.0)


def test_classes_may_be_floats_with_nan_or_booleans():
    floats = small(y={"colour": [0.0, 2.0, 1.0, np.nan, 0.0, 1.0, np.nan]}, units=None)
    assert_array_equal(floats.y["colour"], small().y["colour"])
    flags = small(y={"on": np.arange(7) > 2}, kinds={"on": 2}, units=None)
    assert flags.tensors("train")[1]["on"].tolist() == [0, 0, 0, 1]


def test_units_default_to_one_and_classes_need_none():
    assert small(units=None).units == {"depth": "1"}
    assert small(units={"colour": "rgb"}).units == {"depth": "1", "colour": "rgb"}


def test_the_fingerprint_knows_every_value_and_nothing_else():
    data, copy = small(), small(name="another", units={"depth": "cm"}, clip=2.0, citation="x")
    assert len(data.fingerprint) == 64
    assert data.fingerprint == copy.fingerprint
    x = data.x.copy()
    x[6, 1] = np.nextafter(x[6, 1], 99)
    y = {**data.y, "colour": np.where(data.y["colour"] == 2, 1, data.y["colour"])}
    rows = {**data.rows, "val": np.array([5]), "test": np.array([4, 6])}
    changed = [replace(data, x=x), replace(data, y=y), replace(data, rows=rows), data.subset(["depth"])]
    assert len({data.fingerprint, *(other.fingerprint for other in changed)}) == 5


def test_the_fingerprint_tells_apart_equal_bytes_of_other_names():
    data = small()
    renamed = small(y={"height": data.y["depth"], "colour": data.y["colour"]}, units=None)
    assert renamed.fingerprint != data.fingerprint


def test_data_cannot_be_changed_in_place():
    source = np.arange(14.0).reshape(7, 2)
    data = small(x=source)
    source[0] = 99.0
    assert data.x[0, 0] == 0.0
    for array in (data.x, data.y["depth"], data.rows["train"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(FrozenInstanceError):
        data.name = "other"


def test_data_travels_between_processes():
    data = small()
    assert pickle.loads(pickle.dumps(data)).fingerprint == data.fingerprint


def test_subset_keeps_rows_and_order():
    data = small().subset(["colour"])
    assert data.tasks == ("colour",)
    assert data.y_scalers == {}
    assert small().subset(["colour", "depth"]).tasks == ("colour", "depth")
    assert_array_equal(data.rows["test"], ROWS["test"])


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("depth", "sequence of names"),
        ([], "no name was given"),
        (["deep"], "'deep' is not a target.*depth, colour"),
        (["depth", "depth"], "stands twice"),
    ],
)
def test_subset_refuses_bad_lists(tasks, message):
    with pytest.raises(ValueError, match=message):
        small().subset(tasks)


def test_each_task_has_its_own_labelled_rows():
    data = small()
    assert {task: rows.tolist() for task, rows in data.rows_by_task("train").items()} == {
        "depth": [0, 1, 3],
        "colour": [0, 1, 2],
    }
    x, y = data.tensors_by_task("train")
    whole, labels = data.tensors("train")
    assert list(x) == list(y) == ["depth", "colour"]
    assert torch.equal(x["depth"], whole[[0, 1, 3]])
    assert torch.equal(y["depth"], labels["depth"][[0, 1, 3]])
    assert y["colour"].tolist() == [0, 2, 1]
    assert x["colour"].dtype == y["depth"].dtype == torch.float32
    assert data.tensors_by_task("train", torch.float64)[1]["depth"].dtype == torch.float64


def test_a_task_without_a_label_in_a_part_is_left_out_of_it():
    data = small(y={"depth": [1.0, 3.0, 4.0, 5.0, np.nan, 1.0, 2.0], "colour": [0, 2, 1, -1, 0, 1, -1]})
    x, y = data.tensors_by_task("val")
    assert list(x) == list(y) == ["colour"]
    assert x["colour"].shape == (1, 2)


def test_rows_without_any_label_can_be_left_out():
    data = small().subset(["colour"])
    kept = data.labelled()
    assert {part: rows.tolist() for part, rows in kept.rows.items()} == {"train": [0, 1, 2], "val": [4], "test": [5]}
    assert kept.x_scaler is data.x_scaler
    assert kept.tensors_by_task("train")[1]["colour"].tolist() == data.tensors_by_task("train")[1]["colour"].tolist()
    assert list(small(y={"depth": [1.0, 3, 4, 5, np.nan, np.nan, 2]}, kinds=None).labelled().rows) == ["train", "test"]


@pytest.mark.parametrize("scaling", ["all", "none"])
def test_scalers_may_be_fitted_otherwise_and_the_fingerprint_knows(scaling):
    data, usual = small(scaling=scaling), small()
    assert data.scaling == data.subset(["depth"]).scaling == scaling
    assert data.fingerprint != usual.fingerprint
    x = data.tensors("train")[0].numpy()
    if scaling == "none":
        assert_array_equal(x, data.x[[0, 1, 2, 3]])
        assert_array_equal(data.y_scalers["depth"].mean, usual.y_scalers["depth"].mean)
    else:
        assert_allclose(data.x_scaler.mean, data.x.mean(axis=0))
        assert_allclose(data.y_scalers["depth"].mean, np.mean([1, 3, 5, 7, 9]))


def test_rows_of_no_part_are_not_scaled_on():
    x = np.arange(14.0).reshape(7, 2)
    x[6] = 1e9
    data = small(x=x, rows={"train": [0, 1, 2, 3], "test": [4, 5]}, scaling="all")
    assert data.x_scaler.mean.max() < 10


def test_classes_may_have_names():
    data = small(classes={"colour": ["red", "green", "blue"]}, num_splits=5)
    assert data.classes == {"colour": ("red", "green", "blue")}
    assert data.num_splits == 5
    assert data.subset(["depth"]).classes == {}
    assert data.fingerprint == small().fingerprint


def test_an_unknown_part_is_named():
    with pytest.raises(ValueError, match="no part 'valid'; its parts are: train, val, test"):
        small().tensors("valid")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros(7)}, r"shape \(N, D\)"),
        ({"x": np.zeros((0, 2))}, r"got \(0, 2\)"),
        ({"x": np.full((7, 1), "a")}, "must be numbers"),
        ({"x": np.where(np.eye(7), np.nan, 1.0)}, r"7 values are not, the first at \(0, 0\)"),
        ({"y": {}, "kinds": None, "units": None}, "has no target"),
        ({"y": {"depth": np.zeros((7, 1))}, "kinds": None}, r"shape \(7,\).*got \(7, 1\)"),
        ({"y": {"depth": np.zeros(6)}, "kinds": None}, r"got \(6,\)"),
        ({"y": {"depth": ["a"] * 7}, "kinds": None}, "must hold numbers"),
        ({"y": {"depth": [np.inf] * 7}, "kinds": None}, "infinite"),
        ({"y": {"a/b": np.zeros(7)}, "kinds": None, "units": None}, "without a slash"),
        ({"y": {"": np.zeros(7)}, "kinds": None, "units": None}, "non-empty name"),
        ({"y": {"depth": [*[np.nan] * 4, 1, 2, 3]}, "kinds": None}, "no label in the 4 training rows"),
        ({"kinds": {"color": 3}}, "`kinds` must name the same targets as y; it has the unknown"),
        ({"kinds": {"colour": 2}}, "labels are 0 to 1.*got 2"),
        ({"kinds": {"colour": 1}}, "number of classes >= 2; got 1"),
        ({"kinds": {"colour": "classes"}}, "got 'classes'"),
        ({"kinds": {"colour": 3, "depth": 10}, "y": {"colour": [0] * 7, "depth": [0.5] * 7}}, "got 0.5"),
        ({"units": {"deep": "m"}}, "`units`.*unknown"),
        ({"classes": {"color": ["r", "g", "b"]}}, "the classes of 'color', which is not a target"),
        ({"classes": {"depth": ["r", "g", "b"]}}, "the classes of 'depth', which is a regression"),
        ({"classes": {"colour": ["r", "g"]}}, "'colour' has 3 classes, but `classes` gives .'r', 'g'"),
        ({"classes": {"colour": "rgb"}}, "'colour' has 3 classes, but `classes` gives 'rgb'"),
        ({"scaling": "test"}, "fitted on 'train', 'all', 'none'; got 'test'"),
        ({"rows": {"test": [0]}}, "needs a part 'train'"),
        ({"rows": {"train": []}}, "non-empty list"),
        ({"rows": {"train": np.arange(7) > 2}}, "flatnonzero"),
        ({"rows": {"train": [0, -1]}}, "rows 0 to 6; got -1 to 0"),
        ({"rows": {"train": [0, 7]}}, "got 0 to 7"),
        ({"rows": {"train": [0, 1, 1]}}, "more than once"),
        ({"rows": {"train": [0, 1], "test": [1, 2]}}, "'train' and 'test' share 1 rows, the first being 1"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_scalers_that_do_not_fit_are_refused():
    data = small()
    with pytest.raises(ValueError, match="columns of shape .3,., but x has .2,."):
        replace(data, x_scaler=Scaler(np.zeros(3), np.ones(3)))
    with pytest.raises(ValueError, match="`y_scalers`.*lacks"):
        replace(data, y_scalers={})


@pytest.mark.parametrize(
    ("features", "message"), [(["a"], "names 1 columns, and x has shape"), (["a", "a"], "'a' more than once")]
)
def test_names_that_do_not_fit_the_columns_are_told(features, message):
    assert small(features=["a", "b"]).features == ("a", "b")
    with pytest.raises(ValueError, match=message):
        small(features=features)


def test_whether_each_row_is_one_targets():
    rows = {"train": np.arange(4)}
    x = np.arange(8.0).reshape(4, 2)
    nan = np.nan
    apart = {"a": [1.0, nan, 2.0, nan], "b": [nan, 3.0, nan, nan]}

    def found(**targets):
        kinds = {name: 2 for name in targets if name == "c"}
        return MultiTaskData.from_arrays("toy", x, targets, rows, kinds=kinds).one_label_a_row

    assert found(**apart)
    assert found(a=apart["a"], c=[-1, 1, -1, 0])
    assert not found(a=apart["a"], c=[0, 1, -1, 0])
    assert not found(a=apart["a"])  # one target has nobody to share its rows with


def test_targets_of_which_there_is_nothing_to_learn_are_remarked():
    x = np.arange(12.0).reshape(6, 2)
    y = {
        "still": [1.5, 1.5, np.nan, 1.5, 2.0, 3.0],  # in the training rows
        "moving": [1.0, 2.0, 1.0, 1.0, 1.0, 1.0],
        "one": [np.nan, 4.0, np.nan, np.nan, 1.0, 1.0],
        "named": [1, 1, 1, -1, 0, 0],
        "numbered": [2, 2, 2, 2, 1, 0],
    }
    kinds, rows = {"named": 2, "numbered": 3}, {"train": np.arange(4), "test": np.array([4, 5])}
    data = MultiTaskData.from_arrays("toy", x, y, rows, kinds=kinds, classes={"named": ["low", "high"]})
    assert data.data_warnings() == [
        "The target 'still' is 1.5 in all of its 3 training rows.",
        "The target 'named' is 'high' in all of its 3 training rows.",
        "The target 'numbered' is 2 in all of its 4 training rows.",
    ]
