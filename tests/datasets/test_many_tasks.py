import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from bmtl.datasets.many_tasks import assemble

X = np.arange(40.0).reshape(20, 2)
TASK = np.repeat([0, 1], 10)
Y = np.tile([0, 1, 2, 1, 0], 4)


def ragged(**changes):
    """20 rows of two tasks of three classes."""
    return assemble(**{"name": "toy", "x": X, "y": Y, "task": TASK, **changes})


def test_a_row_of_one_task_has_no_label_for_the_others():
    data = ragged(y=Y + 0.5)
    assert data.tasks == ("task_0", "task_1")
    assert set(data.kinds.values()) == {"regression"}
    assert_array_equal(data.y["task_0"], np.where(TASK == 0, Y + 0.5, np.nan))
    assert_array_equal(data.y["task_1"], np.where(TASK == 1, Y + 0.5, np.nan))


def test_integers_are_classes_common_to_all_tasks():
    y = np.where(TASK == 0, 0, Y)  # task 0 has a single class
    data = ragged(y=y.astype(np.uint8), classes=["red", "green", "blue"])
    assert data.kinds == {"task_0": 3, "task_1": 3}
    assert data.classes["task_1"] == ("red", "green", "blue")
    assert_array_equal(data.y["task_1"], np.where(TASK == 1, Y, -1))
    assert ragged(y=y).kinds == {"task_0": 3, "task_1": 3}


def test_a_kind_may_be_given():
    assert ragged(kind="regression").kinds == {"task_0": "regression", "task_1": "regression"}
    # -1 is then a value like any other.
    assert_array_equal(ragged(y=Y - 1, kind="regression").y["task_0"][:10], (Y - 1)[:10])
    assert ragged(y=Y.astype(float), kind=5).kinds == {"task_0": 5, "task_1": 5}
    floats = ragged(y=np.where(Y == 2, np.nan, Y), kind=2)
    assert_array_equal(floats.y["task_0"][:10], np.where(Y == 2, -1, Y)[:10])
    assert ragged(y=Y > 0).kinds == {"task_0": 2, "task_1": 2}


def test_tasks_have_names_or_numbers():
    assert ragged(task_names=["a", "b"]).tasks == ("a", "b")
    named = ragged(task=np.where(TASK == 0, "zebra", "ape"))
    assert named.tasks == ("ape", "zebra")
    assert_array_equal(named.y["zebra"], ragged().y["task_0"])


def test_a_table_has_a_target_a_column():
    table = np.stack([Y + 0.5, np.where(Y == 1, np.nan, Y)], axis=1)
    data = assemble("toy", X, table, task_names=["a", "b"], units={"a": "m"})
    assert data.tasks == ("a", "b")
    assert data.units == {"a": "m", "b": "1"}
    assert_array_equal(data.y["b"], table[:, 1])
    assert assemble("toy", X, Y + 0.5).tasks == ("task_0",)
    assert assemble("toy", X, np.stack([Y, Y % 2], axis=1)).kinds == {"task_0": 3, "task_1": 3}


def test_dropped_targets_take_their_rows_along():
    for drop in ("task_0", ["task_0"]):
        data = ragged(drop=drop)
        assert data.tasks == ("task_1",)
        assert sorted(np.concatenate(list(data.rows.values())).tolist()) == list(range(10, 20))


def test_rows_without_a_label_are_in_no_part():
    y = np.where(np.arange(20) % 5 == 0, -1, Y)
    for data in (ragged(y=y), assemble("toy", X, y[:, None]), ragged(y=y, split=(np.arange(20) < 12).astype(int))):
        assert sorted(np.concatenate(list(data.rows.values())).tolist()) == [i for i in range(20) if i % 5]


labels = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=30, max_size=90)


@settings(deadline=None, max_examples=50)
@given(labels, st.floats(0.2, 0.8), st.integers(0, 1000))
def test_every_class_of_every_task_has_its_proportion(pairs, proportion, seed):
    y, task = np.array(pairs).T
    y[:3] = task[:3] = range(3)  # each task has a row
    x = np.arange(len(y))[:, None]
    data = assemble("toy", x, y, task=task, proportion=proportion, validation=0, seed=seed)
    train = np.zeros(len(y), dtype=bool)
    train[data.rows["train"]] = True
    assert sorted([*data.rows["train"], *data.rows["test"]]) == list(range(len(y)))
    for mine in ((task == t) & (y == c) for t in range(3) for c in range(3)):
        taken = (mine & train).sum()
        assert not mine.any() or taken == 1 or abs(taken - proportion * mine.sum()) < 1


def test_tasks_without_classes_have_their_proportion_too():
    task = np.repeat([0, 1, 2], [4, 40, 100])
    data = assemble("toy", np.arange(144)[:, None], np.arange(144.0), task=task, proportion=0.75, validation=0)
    assert [len(rows) for rows in data.rows_by_task("train").values()] == [3, 30, 75]
    assert [len(rows) for rows in data.rows_by_task("test").values()] == [1, 10, 25]


def test_rows_with_several_labels_are_drawn_as_they_are():
    table = np.stack([Y, Y[::-1]], axis=1)
    data = assemble("toy", X, table, proportion=0.5, validation=0)
    assert [len(rows) for rows in data.rows.values()] == [10, 10]


def test_a_group_is_on_one_side():
    groups = np.arange(20) // 3
    for seed in range(20):
        data = assemble("toy", X, np.stack([Y, Y], axis=1), groups=groups, seed=seed, proportion=0.6)
        found = [set(groups[rows]) for rows in data.rows.values()]
        assert sum(map(len, found)) == 7


def test_a_split_follows_from_the_seed_and_changes_nothing_else():
    first, again, other = ragged(seed=1), ragged(seed=1), ragged(seed=2)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert_array_equal(first.y["task_0"], other.y["task_0"])


def test_scalers_see_the_training_rows_of_the_tasks_that_are_left():
    data = ragged(drop="task_0", y=Y + 0.5)
    assert data.x_scaler.mean[0] >= 20
    assert_array_equal(data.x_scaler.mean, X[data.rows["train"]].mean(axis=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": Y.astype(str)}, "Labels must be numbers.*Number the classes from 0"),
        ({"y": Y[:19]}, r"y must have one entry per row of x, which has 20; got \(19,\)"),
        ({"y": np.array(1.0)}, "y must have one entry per row"),
        ({"task": TASK[:3]}, "task must have one entry"),
        ({"split": np.ones((20, 1))}, r"split must have one entry .*got \(20, 1\)"),
        ({"groups": TASK[:3]}, "groups must have one entry"),
        ({"y": np.stack([Y, Y], axis=1)}, r"With task, y must hold one label a row, \(N,\); got \(20, 2\)"),
        ({"task": None, "y": np.zeros((20, 2, 2))}, r"\(N,\) or \(N, K\); got \(20, 2, 2\)"),
        ({"task": None, "task_names": ["a", "b"]}, "There are 1 targets, but 2 names: a, b"),
        ({"task": TASK - 1}, "one number per name; got -1 to 0"),
        ({"task_names": ["a"]}, "task must hold 0 to 0.*got 0 to 1"),
        ({"task_names": ["a", "a"]}, "names must differ; got a, a"),
        ({"task": TASK + 0.5}, "task must hold numbers from 0, or names; got dtype float64"),
        ({"task_names": ["a", "b", "c"]}, "'c' has no label in the .* training rows. Leave it out"),
        ({"drop": "task_2"}, "Cannot drop 'task_2': the targets are task_0, task_1"),
        ({"drop": ["task_0", "task_1"]}, "No target is left of 'toy'"),
        ({"classes": ["a", "b"]}, "labels are 0 to 1.*got 2"),
        ({"split": np.ones(20), "proportion": 0.5}, "Give either a split or the proportion"),
        ({"kind": 1}, "number of classes >= 2; got 1"),
        ({"kind": "ordinal"}, "got 'ordinal'"),
        ({"y": Y - 2}, "got -2"),
        ({"y": Y + 1990}, "1993 are more than the 20 rows.*kind='regression'"),
        ({"units": {"task_7": "m"}, "kind": "regression"}, "`units`.*unknown"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ragged(**changes)
