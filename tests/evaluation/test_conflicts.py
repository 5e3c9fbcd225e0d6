import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bmtl.evaluation.conflicts import (
    compared,
    conflict_share,
    conflicts,
    cosine_trends,
    mean_cosine,
    mean_magnitude_similarity,
)
from bmtl.evaluation.history import moving_average

NAN = float("nan")


@pytest.fixture
def tree_of(make_tree, run_arrays):
    """A tree whose tasks a and b have these cosines, step by step."""

    def make(values, similarity=None):
        values = np.asarray(values, dtype=float)
        cosine = np.where(np.isnan(values)[:, None, None], NAN, np.eye(2))
        cosine[:, 0, 1] = cosine[:, 1, 0] = values
        training = {"losses": np.ones((len(values), 2)), "cosine": cosine.astype(np.float32)}
        if similarity is not None:
            training["magnitude_similarity"] = np.broadcast_to(similarity, cosine.shape)
        return make_tree(targets=("a", "b"), training=training)

    return make


def pair(square):
    assert square.dims[-2:] == ("task", "task_bis")
    np.testing.assert_array_equal(square.sel(task="a", task_bis="b"), square.sel(task="b", task_bis="a"))
    return square.sel(task="a", task_bis="b").values


def test_the_share_counts_measured_steps_only(tree_of):
    share = conflict_share(tree_of([-0.5, NAN, 0.5, -0.1, 0.0]))
    assert pair(share) == pytest.approx(0.5)
    assert np.isnan(share.sel(task="a", task_bis="a"))


def test_means_leave_out_what_was_not_measured(tree_of):
    tree = tree_of([0.4, NAN, -0.2], similarity=[[1.0, 0.25], [0.25, 1.0]])
    assert pair(mean_cosine(tree)) == pytest.approx(0.1)
    assert float(mean_cosine(tree).sel(task="a", task_bis="a")) == 1
    assert pair(mean_magnitude_similarity(tree)) == pytest.approx(0.25)


def test_steps_can_be_chosen(tree_of):
    tree = tree_of([1.0, 1.0, -1.0, -0.5])
    assert pair(mean_cosine(tree, slice(-2, None))) == pytest.approx(-0.75)
    assert pair(conflict_share(tree, slice(2))) == 0


def test_trends_average_over_measured_steps(tree_of):
    trend = cosine_trends(tree_of([0.0, NAN, 0.3, NAN, 0.6, 0.9]), window=3)
    assert trend["step"].values.tolist() == [1, 3, 5, 6]
    assert pair(trend) == pytest.approx([0.15, 0.3, 0.6, 0.75])


def test_all_of_it_as_a_tidy_table(make_tree, eleven):
    found = conflicts(make_tree(targets=eleven))
    frame = found.to_dataframe()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == 121
    assert list(found.data_vars) == ["mean_cosine", "conflict_share", "measured"]  # this run's Gram was not kept
    assert (found["measured"] == 30).all()
    xr.testing.assert_equal(found["mean_cosine"], mean_cosine(make_tree(targets=eleven)))


def test_magnitudes_are_in_the_table_where_they_were_recorded(tree_of):
    assert pair(conflicts(tree_of([0.1], similarity=0.5))["mean_magnitude_similarity"]) == 0.5


def test_what_was_not_recorded_is_told(make_tree, tree_of):
    with pytest.raises(ValueError, match="recorded no cosine of task gradients.*'ew >> full"):
        conflict_share(make_tree(cosine=False))
    with pytest.raises(ValueError, match="no magnitude similarity"):
        mean_magnitude_similarity(tree_of([0.1]))
    with pytest.raises(ValueError, match="None of the steps"):
        mean_cosine(tree_of([0.1, NAN]), slice(1, None))
    with pytest.raises(ValueError, match="window counts steps, from 1, and 0"):
        cosine_trends(tree_of([0.1]), window=0)


def test_a_value_a_step_is_compared_too(make_tree, run_arrays):
    training = run_arrays()["training"] | {"projection": np.where(np.arange(30) % 3, NAN, 0.5)}
    assert compared(make_tree(training=training), "projection").sizes["step"] == 10


@pytest.mark.parametrize("window", [1, 2, 3, 8, 100])
def test_a_moving_average_is_the_mean_of_what_is_there(window):
    random = np.random.default_rng(window)
    values = random.normal(size=(40, 2, 3))
    values[random.uniform(size=values.shape) < 0.3] = NAN
    found = moving_average(values, window)
    for i in range(40):
        around = values[max(0, i - window // 2) : i + (window - 1) // 2 + 1]
        expected = [
            np.mean(column[np.isfinite(column)]) if np.isfinite(column).any() else NAN for column in cells(around)
        ]
        np.testing.assert_allclose(found[i].ravel(), expected, atol=1e-12)


def cells(values):
    return values.reshape(len(values), -1).T
