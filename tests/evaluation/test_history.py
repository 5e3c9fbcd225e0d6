import numpy as np
import pytest

from bmtl.evaluation.history import has, recorded, training_group


def test_shapes_say_which_dimensions_an_array_has():
    group = training_group(
        {
            "losses": np.ones((5, 2)),
            "cosine": np.ones((5, 2, 2), dtype=np.float32),
            "seconds": np.ones(5),
            "skipped": np.zeros(5, dtype=bool),
            "epoch": [1, 1, 1, 2, 2],
        },
        ["affinity/nll", "affinity/mse"],
    )
    assert group["losses"].dims == ("step", "task")
    assert group["cosine"].dims == ("step", "task", "task_bis")
    assert group["cosine"].dtype == np.float32
    assert group["skipped"].dims == ("step",)
    assert "epoch" in group.coords
    assert group["task_bis"].values.tolist() == ["affinity/nll", "affinity/mse"]
    assert group["step"].values.tolist() == [1, 2, 3, 4, 5]


def test_what_is_known_is_described():
    group = training_group({"projection": np.ones(2), "own": np.ones(2)}, ["a"])
    assert group["projection"].attrs["long_name"].startswith("least cosine")
    assert not group["own"].attrs


def test_steps_keep_their_own_numbers():
    assert training_group({"step": [10, 20], "seconds": [1.0, 1.0]}, ["a"])["step"].values.tolist() == [10, 20]


def test_as_many_steps_as_tasks_are_not_confused():
    group = training_group({"losses": np.ones((2, 2)), "cosine": np.ones((2, 2, 2)), "shared": np.ones(2)}, ["a", "b"])
    assert group["losses"].dims == ("step", "task")


def test_a_run_that_stopped_before_its_first_step_has_no_steps():
    assert training_group({"losses": np.zeros((0, 2))}, ["a", "b"])["losses"].shape == (0, 2)
    assert training_group({}, ["a"]).sizes["step"] == 0


@pytest.mark.parametrize(
    ("arrays", "tasks", "message"),
    [
        ({"losses": np.ones((5, 3))}, ["a", "b"], r"training\['losses'\] has shape \(5, 3\).*\(5, 2\)"),
        ({"losses": np.ones((5, 2)), "seconds": np.ones(4)}, ["a", "b"], r"training\['seconds'\] has shape \(4,\)"),
        ({"seconds": 1.0}, ["a"], r"shape \(\)"),
        ({"losses": np.ones((5, 2))}, ["a", "a"], "'a' is given more than once"),
        ({"nll/a": np.ones(5)}, ["a"], "without a slash"),
        ({"task": np.ones(5)}, ["a"], "the name of a dimension"),
    ],
)
def test_records_that_do_not_fit_are_refused(arrays, tasks, message):
    with pytest.raises(ValueError, match=message):
        training_group(arrays, tasks)


def test_what_a_run_did_not_record_is_none(make_tree):
    assert recorded(make_tree(cosine=False), "cosine") is None
    assert recorded(make_tree(training=None), "losses") is None
    assert recorded(make_tree(), "losses").dims == ("step", "task")


def test_an_array_of_nothing_but_nan_is_not_there(make_tree, run_arrays):
    training = run_arrays()["training"] | {"fidelity": np.full(30, np.nan)}
    tree = make_tree(training=training)
    assert has(tree, "losses")
    assert not has(tree, "fidelity")
    assert not has(tree, "projection")
