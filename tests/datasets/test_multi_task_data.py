import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from bmtl.datasets import MultiTaskData, Table
from bmtl.inputs import PerTask
from bmtl.targets import Binary, Classes, Count, LinearBaseline, Ordinal, Pixels, Real, Scaler, TimeToEvent, Vector

ROWS = {"train": [0, 1, 2, 3], "val": [4], "test": [5, 6]}


def small(**changes) -> MultiTaskData:
    """Seven rows, a regression with a gap and three classes with a gap."""
    arguments = {
        "name": "small",
        "x": np.arange(14.0).reshape(7, 2),
        "y": {"depth": [1.0, 3.0, np.nan, 5.0, 7.0, np.nan, 9.0], "colour": [0, 2, 1, -1, 0, 1, -1]},
        "rows": ROWS,
        "families": {"colour": 3},
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
    assert_array_equal(small(x=x).inputs.scaler.mean, small().inputs.scaler.mean)
    assert_array_equal(small().targets["depth"].scaler.mean, 3.0)


def test_classes_may_be_floats_with_nan_or_booleans():
    floats = small(y={"colour": [0.0, 2.0, 1.0, np.nan, 0.0, 1.0, np.nan]}, units="")
    assert_array_equal(floats.targets["colour"].values, small().targets["colour"].values)
    flags = small(y={"on": np.arange(7) > 2}, families={"on": 2}, units="")
    assert flags.tensors("train")[1]["on"].tolist() == [0, 0, 0, 1]


def test_units_default_to_one_and_classes_need_none():
    def units(given):
        return {name: target.unit for name, target in small(units=given).targets.items()}

    assert units("") == {"depth": "1", "colour": "1"}
    assert units("cm") == {"depth": "cm", "colour": "1"}
    assert units({"colour": "rgb"}) == {"depth": "1", "colour": "rgb"}


def test_the_fingerprint_knows_every_value_and_nothing_else():
    data, copy = small(), small(name="another", units={"depth": "cm"}, clip=2.0, citation="x")
    assert len(data.fingerprint) == 64
    assert data.fingerprint == copy.fingerprint
    x = data.inputs.x.copy()
    x[6, 1] = np.nextafter(x[6, 1], 99)
    colour = data.targets["colour"]
    y = {**data.targets, "colour": replace(colour, values=np.where(colour.values == 2, 1, colour.values))}
    kinds = {**data.targets, "colour": replace(colour, family=Ordinal())}
    rows = {**data.rows, "val": np.array([5]), "test": np.array([4, 6])}
    changed = [
        replace(data, inputs=replace(data.inputs, x=x)),
        replace(data, targets=y),
        replace(data, targets=kinds),
        replace(data, rows=rows),
        data.subset(["depth"]),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in changed)}) == 6


def test_the_fingerprint_tells_apart_equal_bytes_of_other_names():
    data = small()
    values = {name: target.values for name, target in data.targets.items()}
    renamed = small(y={"height": values["depth"], "colour": values["colour"]}, units="")
    assert renamed.fingerprint != data.fingerprint


def test_data_cannot_be_changed_in_place():
    source = np.arange(14.0).reshape(7, 2)
    data = small(x=source)
    source[0] = 99.0
    assert data.inputs.x[0, 0] == 0.0
    for array in (data.inputs.x, data.targets["depth"].values, data.rows["train"]):
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
    assert small().subset(["colour", "depth"]).tasks == ("colour", "depth")
    assert_array_equal(data.rows["test"], ROWS["test"])


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("depth", "sequence of names"),
        ([], "no name was given"),
        (["deep"], "'deep' is not a target.*depth, colour"),
        (["depth", "depth"], "is repeated"),
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
    assert kept.inputs is data.inputs
    assert kept.tensors_by_task("train")[1]["colour"].tolist() == data.tensors_by_task("train")[1]["colour"].tolist()
    gaps = {"depth": [1.0, 3, 4, 5, np.nan, np.nan, 2]}
    assert list(small(y=gaps, families=None).labelled().rows) == ["train", "test"]


@pytest.mark.parametrize("scaling", ["all", "none"])
def test_scalers_may_be_fitted_otherwise_and_the_fingerprint_knows(scaling):
    data, usual = small(scaling=scaling), small()
    assert data.scaling == data.subset(["depth"]).scaling == scaling
    assert data.fingerprint != usual.fingerprint
    x = data.tensors("train")[0].numpy()
    depth = data.tensors("train", torch.float64)[1]["depth"].numpy()
    if scaling == "none":  # of inputs and targets alike
        assert_array_equal(x, data.inputs.x[[0, 1, 2, 3]])
        assert_array_equal(depth, [1.0, 3.0, np.nan, 5.0])
    else:
        assert_allclose(data.inputs.scaler.mean, data.inputs.x.mean(axis=0))
        assert_allclose(data.targets["depth"].scaler.mean, np.mean([1, 3, 5, 7, 9]))
        assert_allclose(depth[0], (1 - 5) / np.std([1, 3, 5, 7, 9]))


def test_rows_of_no_part_are_not_scaled_on():
    x = np.arange(14.0).reshape(7, 2)
    x[6] = 1e9
    data = small(x=x, rows={"train": [0, 1, 2, 3], "test": [4, 5]}, scaling="all")
    assert data.inputs.scaler.mean.max() < 10


def test_classes_may_have_names():
    data = small(families={"colour": Classes(("red", "green", "blue"))}, num_splits=5)
    assert data.targets["colour"].family.classes == ("red", "green", "blue")
    assert data.num_splits == 5
    assert data.fingerprint == small().fingerprint
    assert small(families={"colour": "ordinal(low,mid,high)"}).targets["colour"].family == Ordinal(
        ("low", "mid", "high")
    )


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
        ({"y": {}, "families": None, "units": ""}, "have no target"),
        ({"y": {"depth": np.zeros((7, 1))}, "families": None}, r"shape \(7\).*got \(7, 1\)"),
        ({"y": {"depth": np.zeros(6)}, "families": None}, r"got \(6,\)"),
        ({"y": {"depth": ["a"] * 7}, "families": None}, "must hold numbers"),
        ({"y": {"depth": [np.inf] * 7}, "families": None}, "row 0 of target 'depth' holds inf"),
        ({"y": {"a/b": np.zeros(7)}, "families": None, "units": ""}, "without a slash"),
        ({"y": {"": np.zeros(7)}, "families": None, "units": ""}, "non-empty name"),
        ({"y": {"a\0": np.zeros(7)}, "families": None, "units": ""}, "visible characters"),
        (
            {"y": {"e\u0301": np.zeros(7), "\xe9": np.zeros(7)}, "families": None, "units": ""},
            "Two targets have the name",
        ),
        ({"y": {"depth": [*[np.nan] * 4, 1, 2, 3]}, "families": None}, "no label in the 4 training rows"),
        ({"families": {"color": 3}}, "`families` names the unknown 'color'"),
        ({"families": {"colour": 2}}, "a class from 0 to 1.*row 1 of target 'colour' holds 2"),
        ({"families": {"colour": 1}}, "two classes or more; got the number 1"),
        ({"families": {"colour": "regression"}}, "is one of .*real, .*got 'regression'"),
        ({"families": {"colour": "count(a,b)"}}, "takes no classes"),
        ({"families": {"colour": True}}, "got True"),
        ({"families": {"colour": 3, "depth": 10}, "y": {"colour": [0] * 7, "depth": [0.5] * 7}}, "holds 0.5"),
        ({"units": {"deep": "m"}}, "`units` names the unknown 'deep'"),
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


def test_names_are_in_one_unicode_form():
    assert small(y={"e\u0301 ": np.zeros(7)}, families=None, units={"\xe9": "m"}).tasks == ("\xe9",)


def test_validation_and_test_rows_are_not_demanded():
    assert list(small(rows={"train": np.arange(7)}).rows) == ["train"]


def test_inputs_of_any_kind_are_taken_as_they_are():
    table = Table.fit(np.arange(14.0).reshape(7, 2), None)
    assert small(x=table).inputs is table
    with pytest.raises(ValueError, match="the inputs given have their own"):
        small(x=table, clip=3.0)


FAMILIES = {
    "real": (np.array([1.0, 2.0, np.nan, 4.0, 5.0, 6.0]), Real()),
    "censored": (
        np.array([[1, 1], [2, np.inf], [np.nan, np.nan], [-np.inf, 4], [5, 6], [1, 1.0]]),
        Real(censored=True),
    ),
    "binary": (np.array([0, 1, -1, 1, 0, 1]), Binary()),
    "classes": (np.array([0, 1, -1, 2, 0, 1]), Classes(("a", "b", "c"))),
    "ordinal": (np.array([0, 1, -1, 2, 0, 1]), Ordinal()),
    "count": (np.array([0.0, 3.0, np.nan, 10.0, 2.0, 0.0]), Count()),
    "time": (np.array([[1, 1], [2, np.inf], [np.nan, np.nan], [0, 4], [5, 6], [1, 1.0]]), TimeToEvent()),
    "vector": (np.array([[1, 2], [np.nan, 3], [np.nan, np.nan], [4, 5], [6, 7], [8, 9.0]]), Vector(("u", "v"))),
}


def every_family(**changes) -> MultiTaskData:
    return MultiTaskData.from_arrays(
        "all",
        np.arange(12.0).reshape(6, 2),
        {name: values for name, (values, _) in FAMILIES.items()},
        {"train": [0, 1, 2, 3], "test": [4, 5]},
        families={name: family for name, (_, family) in FAMILIES.items()},
        **changes,
    )


def test_labels_of_every_family_come_as_a_model_sees_them():
    data = every_family()
    _, y = data.tensors("train")
    for name, (values, family) in FAMILIES.items():
        labels = y[name]
        assert labels.dtype == (torch.int64 if values.dtype.kind == "i" else torch.float32)
        assert labels.shape == values[:4].shape
        # The one missing row is the third in all of them, and only there nothing is known.
        missing = (labels == -1) if labels.dtype == torch.int64 else labels.isnan()
        assert missing.reshape(4, -1).all(1).tolist() == [False, False, True, False]
        scaler = data.targets[name].scaler
        back = scaler.inverse(labels) if family.scaled else labels.numpy()
        assert_allclose(back, values[:4], rtol=1e-5)
    assert y["count"].tolist()[:2] == [0.0, 3.0]
    # Times are divided, never shifted: open ends stay, and zero stays zero.
    assert y["time"][1, 1] == np.inf
    assert y["time"][3, 0] == 0


def test_without_scaling_labels_are_the_given_ones():
    _, y = every_family(scaling="none").tensors("train", torch.float64)
    for name, (values, _) in FAMILIES.items():
        assert_array_equal(y[name].numpy(), values[:4])


def test_labels_may_be_images():
    depth = np.arange(24.0).reshape(4, 2, 3)
    depth[1] = np.nan
    labels = np.where(depth > 10, 1, 0)
    labels[1], labels[2] = 1, -1
    data = MultiTaskData.from_arrays(
        "scenes",
        np.zeros((4, 3, 2, 3)),
        {"depth": depth, "part": labels, "same": np.zeros((4, 2, 3))},
        {"train": [0, 1], "test": [2, 3]},
        families={"depth": Pixels(), "part": Pixels(Classes(("wall", "floor"))), "same": Pixels(Classes(("a", "b")))},
    )
    x, y = data.tensors("train")
    assert x.shape == (2, 3, 2, 3)
    assert y["depth"].shape == y["part"].shape == (2, 2, 3)
    assert y["part"].dtype == torch.int64
    assert_allclose(data.targets["depth"].scaler.inverse(y["depth"]), depth[:2], atol=1e-6)
    assert data.rows_by_task("train")["depth"].tolist() == [0]
    assert data.rows_by_task("test")["part"].tolist() == [3]
    _, warning = data.data_warnings()
    assert warning.startswith(
        "The target 'same' is the same image in all of its 2 training rows: nothing can be learnt"
    )
    assert data.describe_targets()[0] == "depth: pixels, 3 labels of 4 rows"


def test_each_family_knows_its_labelled_rows():
    data = every_family()
    assert {name: rows.tolist() for name, rows in data.rows_by_task("train").items()} == {
        name: [0, 1, 3] for name in FAMILIES
    }
    x, y = data.tensors_by_task("train")
    assert isinstance(x, PerTask)
    assert {len(part) for part in x.values()} == {len(part) for part in y.values()} == {3}


def test_arrays_for_estimators():
    data = small(clip=1.0)
    features, labels = data.features("train"), data.labels("train")
    assert_allclose(features, data.tensors("train", torch.float64)[0])
    assert features.dtype == np.float64
    assert_array_equal(labels["depth"], [1.0, 3.0, np.nan, 5.0])
    assert labels["colour"].tolist() == [0, 2, 1, -1]
    images = small(x=np.arange(7 * 2 * 3.0).reshape(7, 2, 3))
    assert images.features("test").shape == (2, 6)
    assert images.tensors("test")[0].shape == (2, 2, 3)


def test_targets_are_described():
    data = every_family(units={"real": "m"})
    lines = dict(zip(data.tasks, data.describe_targets(), strict=True))
    assert lines["real"] == "real [m]: real, 5 labels of 6 rows, 1 to 6"
    assert lines["censored"] == (
        "censored: real, 5 labels of 6 rows, 1 to 6, 1 right-censored, 1 left-censored, 1 interval-censored"
    )
    assert lines["binary"] == "binary: binary, 5 labels of 6 rows, 60.0% '1' (the event) and the rest '0'"
    assert lines["ordinal"] == "ordinal: ordinal, 5 labels of 6 rows, 3 classes 0 < 1 < 2"
    assert lines["classes"] == "classes: classes, 5 labels of 6 rows, 3 classes a, b, c"
    assert lines["count"] == "count: count, 5 labels of 6 rows, 0 to 10"
    assert lines["vector"] == "vector: vector, 5 labels of 6 rows, components u, v"
    large = MultiTaskData.from_arrays("s", np.ones((6, 1)), {"y": 1e9 + np.arange(6)}, data.rows)
    assert large.describe_targets() == ["y: real, 6 labels of 6 rows, 1000000000 to 1000000005"]
    way = {"way": np.eye(3)[[0, 1, 2, 0, 1, 2]]}
    of_directions = MultiTaskData.from_arrays("s", np.ones((6, 1)), way, data.rows, families={"way": "unit-vector"})
    assert of_directions.describe_targets() == ["way: unit-vector, 6 labels of 6 rows"]
    assert data.kind_hints()[0].startswith("real: whole numbers, taken as real.")
    grades = {f"school_{k}": np.arange(6.0) for k in range(9)}
    (hint,) = MultiTaskData.from_arrays("s", np.ones((6, 1)), grades, data.rows).kind_hints()
    assert hint.startswith("school_0, school_1, school_2, school_3, school_4, school_5 and 3 more: whole numbers")


def test_scalers_that_do_not_fit_are_refused():
    data = small()
    with pytest.raises(ValueError, match="columns of shape .3,., but x has .2,."):
        replace(data.inputs, scaler=Scaler(np.zeros(3), np.ones(3)))


@pytest.mark.parametrize(
    ("features", "message"), [(["a"], "names 1 columns, and x has shape"), (["a", "a"], "'a' more than once")]
)
def test_names_that_do_not_fit_the_columns_are_refused(features, message):
    assert small(features=["a", "b"]).inputs.features == ("a", "b")
    with pytest.raises(ValueError, match=message):
        small(features=features)


def test_whether_each_row_is_one_targets():
    rows = {"train": np.arange(4)}
    x = np.arange(8.0).reshape(4, 2)
    nan = np.nan
    apart = {"a": [1.0, nan, 2.0, nan], "b": [nan, 3.0, nan, nan]}

    def found(**targets):
        families = {name: 2 for name in targets if name == "c"}
        return MultiTaskData.from_arrays("toy", x, targets, rows, families=families).one_label_a_row

    assert found(**apart)
    assert found(a=apart["a"], c=[-1, 1, -1, 0])
    assert not found(a=apart["a"], c=[0, 1, -1, 0])
    assert not found(a=apart["a"])  # one target shares its rows with no other


def test_targets_of_which_there_is_nothing_to_learn_are_warned_of():
    x = np.arange(12.0).reshape(6, 2)
    y = {
        "still": [1.5, 1.5, np.nan, 1.5, 2.0, 3.0],  # in the training rows
        "moving": [1.0, 2.0, 1.0, 1.0, 1.0, 1.0],
        "one": [np.nan, 4.0, np.nan, np.nan, 1.0, 1.0],
        "named": [1, 1, 1, -1, 0, 0],
        "numbered": [2, 2, 2, 2, 1, 0],
        "none": [0.0, 0.0, 0.0, 0.0, 1.0, 2.0],
        "early": np.tile([0.0, 3.0], (6, 1)),
    }
    families = {"named": Binary(("low", "high")), "numbered": 3, "none": "count", "early": "time-to-event"}
    rows = {"train": np.arange(4), "test": np.array([4, 5])}
    data = MultiTaskData.from_arrays("toy", x, y, rows, families=families)
    assert [warning.partition(":")[0] for warning in data.data_warnings()] == [
        "The number of test rows is 2",
        "The target 'still' is 1.5 in all of its 3 training rows",
        "The target 'named' is 'high' in all of its 3 training rows",
        "The target 'numbered' is 2 in all of its 4 training rows",
        "The target 'none' is 0 in all of its 4 training rows",
        "The target 'early' is [0.0, 3.0] in all of its 4 training rows",
    ]


def test_targets_without_a_label_in_the_test_rows_are_warned_of():
    y = {"a": np.arange(6.0), "b": np.array([1.0, 2.0, 3.0, np.nan, np.nan, np.nan])}
    rows = {"train": np.arange(3), "test": np.arange(3, 6)}
    data = MultiTaskData.from_arrays("toy", np.arange(12.0).reshape(6, 2), y, rows)
    assert data.data_warnings()[1:] == ["No test row has a label of b: trained on, and not scored."]


def test_test_rows_that_are_training_rows_are_warned_of():
    x = np.array([[1.0], [2.0], [1.0], [1.0], [3.0], [2.0]])
    y = {"a": [0.5, np.nan, 0.5, 0.5, 1.0, np.nan], "b": [1, -1, 1, 0, 1, -1]}
    rows = {"train": np.array([0]), "val": np.array([1]), "test": np.arange(2, 6)}
    data = MultiTaskData.from_arrays("toy", x, y, rows, families={"b": "binary"})
    _, warning = data.data_warnings()
    assert warning.startswith("2 of 4 test rows equal a row of training or validation in all inputs and labels.")
    assert data.subset(["b"]).data_warnings()[1:] == [warning]
    y["a"][2] = y["b"][5] = 0
    assert MultiTaskData.from_arrays("toy", x, y, rows, families={"b": "binary"}).data_warnings()[1:] == []


def test_a_thousand_tasks_are_taken_apart_quickly():
    """Not checked anew a thousand times: what a subset holds is the very same."""
    labels = np.where(np.arange(400) // 2 == np.arange(200)[:, None], 1.0, np.nan)
    data = MultiTaskData.from_arrays(
        "many", np.arange(400.0)[:, None], {f"t{i}": row for i, row in enumerate(labels)}, {"train": np.arange(400)}
    )
    one = data.subset(["t7"])
    assert one.inputs is data.inputs
    assert one.targets["t7"].values is data.targets["t7"].values
    assert one.rows["train"] is data.rows["train"]
    assert one.labelled().rows["train"].tolist() == [14, 15]
    assert one.fingerprint != data.fingerprint


def toys():
    """Real, class, count and censored labels of 200 rows, some missing."""
    random = np.random.default_rng(0)
    y = {
        "price": random.normal(50, 10, 200),
        "grade": random.integers(0, 3, 200),
        "visits": random.poisson(3.0, 200).astype(float),
        "days": random.exponential(10.0, (200, 1)).repeat(2, axis=1),
    }
    y["price"][::9] = np.nan
    y["grade"][::7] = -1
    y["days"][::4, 1] = np.inf
    rows = {"train": np.arange(100), "val": np.arange(100, 150), "test": np.arange(150, 200)}
    families = {"grade": 3, "visits": "count", "days": "time-to-event"}
    return MultiTaskData.from_arrays("toys", random.normal(size=(200, 2)), y, rows, families=families)


@pytest.mark.parametrize("share", [1.0, 0.3, 0.01])
def test_a_share_of_the_labels(share):
    """Of each target and part that share stays, scalers know no others, and what is taken away depends on the seed."""
    data = toys()
    few = data.with_share_of_labels(share, seed=1)
    for name, target in data.targets.items():
        for part in ("train", "val"):
            before, after = data.has_label(name, part), few.has_label(name, part)
            assert after.sum() == max(round(share * before.sum()), 1)
            assert not (after & ~before).any()
        np.testing.assert_array_equal(few.has_label(name, "test"), data.has_label(name, "test"))
        kept = few.rows_by_task("train")[name]
        np.testing.assert_array_equal(few.targets[name].values[kept], target.values[kept])
    if 0.1 < share < 1:
        labels = few.targets["price"].values[few.rows_by_task("train")["price"]]
        assert few.targets["price"].scaler.mean == pytest.approx(labels.mean())
        again, other = (data.with_share_of_labels(share, seed=seed) for seed in (1, 2))
        assert again.fingerprint == few.fingerprint != other.fingerprint
        kept = [few.has_label(name, "train") for name in data.tasks[:2]]
        assert (kept[0] != kept[1]).any()  # each target by itself


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_of_the_labels_is_above_0_and_1_at_most(share):
    with pytest.raises(ValueError, match="share is"):
        toys().with_share_of_labels(share)


def test_a_share_of_the_labels_keeps_baselines_fitted_on_what_is_left():
    """Those that were fitted are fitted again, without the labels that are taken away; those that were given stay."""
    random = np.random.default_rng(0)
    x, rows = random.normal(size=(60, 2)), {"train": np.arange(40), "val": np.arange(40, 60)}
    y = {name: 100 * x[:, 0] + random.normal(size=60) for name in ("fitted", "given")}
    known = {
        "fitted": LinearBaseline.fit(("a",), x[:40, :1], y["fitted"][:40]),
        "given": LinearBaseline(("a",), np.array([100.0])),
    }
    data = MultiTaskData.from_arrays("toy", x, y, rows, features=("a", "b"), baselines=known)
    few = data.with_share_of_labels(0.2)
    left = few.rows["train"][few.has_label("fitted", "train")]
    refit = LinearBaseline.fit(("a",), x[left, :1], y["fitted"][left])
    np.testing.assert_allclose(few.targets["fitted"].offset, refit.of(x[:, :1]))
    np.testing.assert_array_equal(few.targets["given"].offset, data.targets["given"].offset)
    for target in few.targets.values():
        assert target.scaler.std < 5  # of what is left of the labels, and not of 100 x
