import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from bmtl.datasets.many_tasks import assemble
from bmtl.targets import Binary, Classes, Count, Ordinal, Real, TimeToEvent, Vector, numbered

X = np.arange(40.0).reshape(20, 2)
TASK = np.repeat([0, 1], 10)
Y = np.tile([0, 1, 2, 1, 0], 4)


def families(data) -> dict:
    return {name: target.family for name, target in data.targets.items()}


def labels_of(data, name) -> np.ndarray:
    return data.targets[name].values


def ragged(**changes):
    """20 rows of two tasks of three classes."""
    return assemble(**{"name": "toy", "x": X, "y": Y, "task": TASK, **changes})


def test_a_row_of_one_task_has_no_label_for_the_others():
    data = ragged(y=Y + 0.5)
    assert data.tasks == ("task_0", "task_1")
    assert families(data) == {"task_0": Real(), "task_1": Real()}
    assert_array_equal(labels_of(data, "task_0"), np.where(TASK == 0, Y + 0.5, np.nan))
    assert_array_equal(labels_of(data, "task_1"), np.where(TASK == 1, Y + 0.5, np.nan))


def test_integers_are_classes_common_to_all_tasks():
    y = np.where(TASK == 0, 0, Y)  # task 0 has a single class
    data = ragged(y=y.astype(np.uint8), classes=["red", "green", "blue"])
    assert set(families(data).values()) == {Classes(("red", "green", "blue"))}
    assert_array_equal(labels_of(data, "task_1"), np.where(TASK == 1, Y, -1))
    assert set(families(ragged(y=y)).values()) == {Classes(numbered(3))}


def test_a_kind_may_be_given():
    # -1 is then a value like any other.
    real = ragged(y=Y - 1, kinds="real")
    assert set(families(real).values()) == {Real()}
    assert_array_equal(labels_of(real, "task_0")[:10], (Y - 1)[:10])
    assert set(families(ragged(y=Y.astype(float), kinds=5)).values()) == {Classes(numbered(5))}
    floats = ragged(y=np.where(Y == 2, np.nan, Y), kinds=2)
    assert set(families(floats).values()) == {Binary()}
    assert_array_equal(labels_of(floats, "task_0")[:10], np.where(Y == 2, -1, Y)[:10])
    assert set(families(ragged(y=Y > 0)).values()) == {Binary(("false", "true"))}
    counts = ragged(y=np.where(Y == 2, -1, Y), kinds="count")
    assert set(families(counts).values()) == {Count()}
    assert_array_equal(labels_of(counts, "task_0")[:10], np.where(Y == 2, np.nan, Y)[:10])
    mixed = ragged(kinds={"task_0": "count", "task_1": "ordinal"})
    assert families(mixed) == {"task_0": Count(), "task_1": Ordinal()}


def test_each_column_is_of_its_own_kind():
    table = np.stack([Y, Y % 2, np.where(Y == 0, -1, Y + 2)], axis=1)
    found = assemble("toy", X, table, task_names=["a", "b", "c"])
    # Classes are the labels there are: 3 and 4 in the last column, where -1 is missing.
    assert families(found) == {"a": Classes(numbered(3)), "b": Binary(), "c": Binary(("3", "4"))}
    assert_array_equal(labels_of(found, "c"), np.where(Y == 0, -1, Y - 1))
    graded = assemble("toy", X, table, task_names=["a", "b", "c"], kinds={"a": "ordinal", "b": "count", "c": "real"})
    assert families(graded) == {"a": Ordinal(), "b": Count(), "c": Real()}


def test_arrays_by_name_are_of_their_own_types():
    y = {
        "depth": Y + 0.5,
        "on": Y > 0,
        "colour": Y,
        "when": np.stack([Y + 1.0, np.full(20, np.inf)], axis=1),
        "wind": np.stack([Y + 1.0, Y], axis=1),
    }
    found = assemble("toy", X, y, kinds={"when": "time-to-event", "wind": "vector"}, units={"depth": "m"})
    assert families(found) == {
        "depth": Real(),
        "on": Binary(("false", "true")),
        "colour": Classes(numbered(3)),
        "when": TimeToEvent(),
        "wind": Vector(("0", "1")),
    }
    assert found.targets["depth"].unit == "m"


def test_numbers_of_tasks_need_not_be_consecutive():
    """Numbers as large as 310007 once made an array of every number below."""
    found = ragged(task=np.where(TASK == 0, 25400, 310007))
    assert found.tasks == ("task_25400", "task_310007")
    assert_array_equal(labels_of(found, "task_310007"), labels_of(ragged(), "task_1"))


def test_rows_that_name_their_task_are_put_in_the_order_of_the_names():
    named = ragged(task=np.where(TASK == 0, "zebra", "ape"), task_names=["zebra", "ape"])
    assert named.tasks == ("zebra", "ape")
    with pytest.raises(ValueError, match="task names 'zebra', which is not among the names ape"):
        ragged(task=np.where(TASK == 0, "zebra", "ape"), task_names=["ape"])


def test_more_labels_than_memory_holds_are_refused():
    x, rows = np.zeros((40_000, 1)), np.arange(40_000)
    with pytest.raises(ValueError, match="task has 40,000 different values in 40,000 rows.*number of a row"):
        assemble("toy", x, rows.astype(float), task=rows)


def test_tasks_have_names_or_numbers():
    assert ragged(task_names=["a", "b"]).tasks == ("a", "b")
    named = ragged(task=np.where(TASK == 0, "zebra", "ape"))
    assert named.tasks == ("ape", "zebra")
    assert_array_equal(labels_of(named, "zebra"), labels_of(ragged(), "task_0"))


def test_a_table_has_a_target_a_column():
    table = np.stack([Y + 0.5, np.where(Y == 1, np.nan, Y)], axis=1)
    assert families(assemble("toy", X, np.where(Y == 2, np.nan, Y))) == {"task_0": Binary()}  # 0, 1 and gaps
    data = assemble("toy", X, table, task_names=["a", "b"], units={"a": "m"})
    assert data.tasks == ("a", "b")
    assert {name: target.unit for name, target in data.targets.items()} == {"a": "m", "b": "1"}
    assert_array_equal(labels_of(data, "b"), table[:, 1])
    assert assemble("toy", X, Y + 0.5).tasks == ("task_0",)


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
    assert_array_equal(labels_of(first, "task_0"), labels_of(other, "task_0"))


def test_scalers_see_the_training_rows_of_the_tasks_that_are_left():
    data = ragged(drop="task_0", y=Y + 0.5)
    assert data.inputs.scaler.mean[0] >= 20
    assert_array_equal(data.inputs.scaler.mean, X[data.rows["train"]].mean(axis=0))


def test_whole_labels_of_many_values_are_no_classes():
    years = np.arange(60) + 1990
    with pytest.raises(
        ValueError, match="60 different whole labels in 60 rows, too many for classes.*real, count or ordinal"
    ):
        assemble("toy", np.zeros((60, 1)), years)
    assert families(assemble("toy", np.arange(60)[:, None], years, kinds="real")) == {"task_0": Real()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": Y.astype(str)}, "must hold numbers; got dtype <U.*Number the classes from 0"),
        ({"y": Y[:19]}, r"y must have one entry per row of x, which has 20; got \(19,\)"),
        ({"y": np.array(1.0)}, "y must have one entry per row"),
        ({"task": TASK[:3]}, "task must have one entry"),
        ({"split": np.ones((20, 1))}, r"split must have one entry .*got \(20, 1\)"),
        ({"groups": TASK[:3]}, "groups must have one entry"),
        ({"y": np.stack([Y, Y], axis=1)}, r"With task, y must hold one label a row, \(N,\); got \(20, 2\)"),
        ({"task": None, "y": np.zeros((20, 2, 2))}, r"\(N,\) or \(N, K\); got \(20, 2, 2\)"),
        ({"task": None, "task_names": ["a", "b"]}, "There are 1 targets, but 2 names: a, b"),
        ({"task": TASK - 1}, "task must hold numbers from 0, or names; got -1"),
        ({"task_names": ["a"]}, "task must hold 0 to 0.*got 0 to 1"),
        ({"task_names": ["a", "a"]}, "names must differ; got a, a"),
        ({"task": TASK + 0.5}, "task must hold numbers from 0, or names; got dtype float64"),
        ({"task_names": ["a", "b", "c"]}, "'c' has no label in the .* training rows. Leave it out"),
        ({"drop": "task_2"}, "`drop` names the unknown 'task_2'; the targets are: task_0, task_1"),
        ({"drop": ["task_0", "task_1"]}, "have no target"),
        ({"classes": ["a", "b"]}, "a class from 0 to 1.*holds 2"),
        ({"split": np.ones(20), "proportion": 0.5}, "Give either a split or the proportion"),
        ({"kinds": 1}, "two classes or more; got the number 1"),
        ({"kinds": "regression"}, "got 'regression'"),
        ({"kinds": {"task_2": "count"}}, "`kinds` names the unknown 'task_2'"),
        ({"y": Y * 0 + 7}, "the one class 7 in all of its labels"),
        ({"units": {"task_7": "m"}, "kinds": "real"}, "`units` names the unknown 'task_7'"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ragged(**changes)
