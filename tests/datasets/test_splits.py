import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from bmtl.datasets import splits

seeds = st.integers(0, 2**32)
shares = st.floats(0.01, 0.99)


@settings(deadline=None)
@given(st.integers(1, 200), shares, seeds)
def test_a_draw_is_a_partition_in_proportion(number, proportion, seed):
    rows = np.arange(10, 10 + number)
    first, second = splits.draw(rows, proportion, seed)
    assert_array_equal(np.sort(np.concatenate([first, second])), rows)
    assert (np.diff(first) > 0).all()
    assert len(first) == 1 or abs(len(first) - proportion * number) <= 0.5 + 1e-9


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), shares, seeds)
def test_every_stratum_has_its_proportion_and_at_least_one_row(strata, proportion, seed):
    strata = np.array(strata)
    first, second = splits.draw(np.arange(len(strata)), proportion, seed, strata=strata)
    assert len(first) + len(second) == len(strata)
    for stratum in set(strata.tolist()):
        size, taken = (strata == stratum).sum(), (strata[first] == stratum).sum()
        assert taken >= 1
        assert taken == 1 or abs(taken - proportion * size) < 1
    small = sum(1 for stratum in set(strata.tolist()) if (strata == stratum).sum() * proportion < 1)
    assert -0.5 - 1e-9 <= len(first) - proportion * len(strata) <= small + 0.5


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=80), shares, seeds)
def test_no_group_is_parted(groups, proportion, seed):
    groups = np.array(groups)
    assume(len(set(groups.tolist())) > 1)
    first, second = splits.draw(np.arange(len(groups)), proportion, seed, groups=groups)
    assert not set(groups[first]) & set(groups[second])
    assert len(first)
    assert len(second)
    # Adding or leaving out one more group would not come nearer, so the proportion is met within the largest group.
    assert abs(len(first) - proportion * len(groups)) <= max(np.bincount(groups))


def test_draws_follow_from_the_seed():
    rows = np.arange(100)
    assert_array_equal(splits.draw(rows, 0.5, 3)[0], splits.draw(rows, 0.5, 3)[0])
    assert len({splits.draw(rows, 0.5, *seed)[0].tobytes() for seed in [(3,), (4,), (3, 0), (3, 1), (0, 3)]}) >= 4
    # Recorded: another version of numpy must draw the same rows.
    assert splits.draw(np.arange(12), 0.5, 7)[0].tolist() == [3, 4, 6, 9, 10, 11]


def test_every_row_is_as_likely_as_any_other():
    # 400 draws of half of 20 rows: each row's count is binomial(400, 1/2), of standard deviation 10; 5 of them.
    counts = np.bincount(np.concatenate([splits.draw(np.arange(20), 0.5, seed)[0] for seed in range(400)]))
    assert np.abs(counts - 200).max() < 50


def test_large_groups_are_no_likelier_to_come_first():
    groups = np.repeat(np.arange(10), [20] + [1] * 9)
    taken = [0 in groups[splits.draw(np.arange(29), 0.5, seed, groups=groups)[0]] for seed in range(400)]
    # With the rows shuffled instead of the groups it would be in nearly every time. Binomial(400, p): sd at most 10.
    assert 100 < sum(taken) < 300


CODES = np.array([1] * 6 + [0] * 10 + [-1] * 4)


def test_a_fixed_split_is_taken_as_it_is():
    found = splits.parts(np.arange(20), codes=CODES, validation=0)
    assert {part: rows.tolist() for part, rows in found.items()} == {
        "train": list(range(6)),
        "test": list(range(6, 16)),
    }


def test_a_split_of_names_may_have_its_own_validation():
    named = np.array(["train"] * 6 + ["test"] * 4 + ["val"] * 3 + [""] * 7)
    found = splits.parts(np.arange(20), codes=named, validation=0.5)
    assert {part: rows.tolist() for part, rows in found.items()} == {
        "train": list(range(6)),
        "val": [10, 11, 12],
        "test": [6, 7, 8, 9],
    }
    without = np.where(named == "val", "", named)
    assert len(splits.parts(np.arange(20), codes=without, validation=0.5)["val"]) == 3
    numbers = np.select([named == "train", named == "test"], [1, 0], -1)
    for part, rows in splits.parts(np.arange(20), codes=numbers, validation=0.5).items():
        assert_array_equal(rows, splits.parts(np.arange(20), codes=without, validation=0.5)[part])
    with pytest.raises(ValueError, match="parts train, val and test; got 'dev'"):
        splits.parts(np.arange(20), codes=np.where(named == "val", "dev", named))
    with pytest.raises(ValueError, match="1 groups both in train and in val, the first being 0"):
        splits.parts(np.arange(20), codes=named, groups=np.array([0, *range(1, 10), 0, *range(11, 20)]))


@pytest.mark.parametrize(("source", "sizes"), [("train", (5, 1, 10)), ("test", (6, 2, 8))])
def test_validation_comes_from_either_side(source, sizes):
    found = splits.parts(np.arange(20), codes=CODES, validation=0.2, validation_from=source)
    assert list(found) == ["train", "val", "test"]
    assert tuple(map(len, found.values())) == sizes
    of = {"train": set(range(6)), "test": set(range(6, 16))}
    assert set(found["val"]) <= of[source]
    assert set(found["val"]) | set(found[source]) == of[source]


def test_rows_that_are_not_given_are_in_no_part():
    found = splits.parts(np.array([0, 3, 5, 7, 9, 11, 13]), validation=0.25)
    assert sorted(np.concatenate(list(found.values())).tolist()) == [0, 3, 5, 7, 9, 11, 13]


@settings(deadline=None)
@given(st.lists(st.integers(1, 3), min_size=10, max_size=30), seeds, st.sampled_from(["train", "test"]))
def test_groups_hold_for_validation_too(sizes, seed, source):
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    found = splits.parts(np.arange(len(groups)), proportion=0.5, seed=seed, groups=groups, validation_from=source)
    assert len(found) == 3
    assert sum(len(set(groups[rows])) for rows in found.values()) == len(sizes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proportion": 1.0}, "between 0 and 1; got 1.0"),
        ({"proportion": 0.0}, "between 0 and 1; got 0.0"),
        ({"proportion": "half"}, "between 0 and 1; got 'half'"),
        ({"validation": "half"}, "from 0 to below 1; got 'half'"),
        ({"validation": np.nan}, "from 0 to below 1; got nan"),
        ({"seed": -1}, "A seed is a whole number from 0; got -1"),
        ({"seed": "one"}, "got 'one'"),
        ({"seed": 0.5}, "got 0.5"),
        ({"validation": 1.0}, "validation is a proportion from 0 to below 1; got 1.0"),
        ({"validation": -0.1}, "got -0.1"),
        ({"validation": 0.01}, "validation=0.01 of 16 rows is not one row"),
        ({"validation_from": "val"}, "'train' or 'test'; got 'val'"),
        ({"codes": np.array([0, 1, 2] + [0] * 17)}, r"1 \(training\), 0 \(test\) and -1 \(neither\), one a row; got 2"),
        ({"codes": np.ones(20)}, "20 would be for training and 0 for test"),
        ({"proportion": 0.99}, "20 would be for training and 0 for test"),
        ({"codes": CODES, "groups": np.arange(20) // 4}, "1 groups both in train and in test, the first being 1"),
        ({"groups": np.zeros(20)}, "All rows are of one group"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        splits.parts(np.arange(20), **options)


def test_rows_that_name_no_group_are_apart():
    """NaN is equal to NaN for numpy's unique: they were one group, and in one part."""
    groups = np.where(np.arange(60) < 30, np.nan, np.arange(60) // 5)
    found = splits.parts(np.arange(60), groups=groups, seed=1)
    unknown = {part: np.isnan(groups[rows]).sum() for part, rows in found.items()}
    assert all(unknown.values())
    known = [set(groups[rows][~np.isnan(groups[rows])]) for rows in found.values()]
    assert sum(map(len, known)) == 6
    codes = np.where(np.arange(60) % 2, "train", "test")
    codes[30:] = "train"
    assert len(splits.parts(np.arange(60), codes=codes, groups=groups)["test"]) == 15
