import numpy as np
import xarray as xr

from bmtl.evaluation.marking import marked
from bmtl.evaluation.statistics import not_worse_than_best


def scores(values):
    """Learner by split."""
    array = np.asarray(values, dtype=float)
    return xr.DataArray(array, dims=("learner", "split"), coords={"learner": [f"m{i}" for i in range(len(array))]})


CLEAR = [[1.0, 1.1, 0.9, 1.05], [1.02, 1.08, 0.93, 1.04], [2.0, 2.1, 1.95, 2.2]]


def test_marks_are_those_that_are_not_worse_than_the_best():
    found = marked(scores(CLEAR))
    assert found.values.tolist() == [True, True, False]
    np.testing.assert_array_equal(found, not_worse_than_best(scores(CLEAR)))
    assert marked(-scores(CLEAR), higher_is_better=True).values.tolist() == [True, True, False]


def test_two_runs_mark_nothing():
    two = scores(CLEAR).isel(split=[0, 1])
    assert not_worse_than_best(two).any()
    assert not marked(two).any()
    counted = xr.DataArray([True, False, True, False], dims="split")
    assert not marked(scores(CLEAR), counted=counted).any()


def test_what_every_method_would_have_is_no_mark():
    alike = scores([[1.0, 2.0, 3.0, 4.0], [1.1, 1.9, 3.1, 3.9]])
    assert not_worse_than_best(alike).all()
    assert not marked(alike).any()


def test_targets_are_marked_each_by_itself():
    both = xr.concat(
        [scores(CLEAR), scores(CLEAR).isel(learner=[0, 0, 0]).assign_coords(learner=["m0", "m1", "m2"])], "task"
    )
    assert marked(both).transpose("task", "learner").values.tolist() == [[True, True, False], [False, False, False]]


def test_a_method_that_diverged_makes_no_other_one_best():
    values = np.array([*CLEAR[:2], [1.0, np.nan, 1.0, 1.0]])
    assert not marked(scores(values)).any()
