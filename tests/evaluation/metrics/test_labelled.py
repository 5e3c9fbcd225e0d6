import numpy as np
import pytest

from bmtl.evaluation import metrics, results
from bmtl.evaluation.metrics.labelled import per_target


def test_a_missing_group_is_named():
    tree = results.to_datatree(observed={"a": np.zeros(2)})
    with pytest.raises(ValueError, match="no group 'pit'; it has"):
        metrics.ece(tree)
    with pytest.raises(ValueError, match="no group 'predictive_mean'"):
        metrics.mae(tree)


def test_rows_are_counted_per_target(make_tree, run_arrays):
    y = run_arrays()["observed"]
    y["mu"][:15] = np.nan
    assert metrics.rows(make_tree(observed=y))["rows"].values.tolist() == [45, 60, 60]


def test_cores_get_draws_as_one_axis(make_tree):
    shapes = []
    per_target(
        make_tree(),
        ("observed_data", "log_likelihood"),
        lambda y, density: shapes.append((y.shape, density.shape)) or 0,
    )
    assert shapes == [((60,), (20, 60))] * 3


def test_a_target_whose_name_begins_like_a_variable_keeps_it():
    tree = results.to_datatree(observed={"y_y": np.zeros(2)}, predictive_mean={"y_y": np.ones(2)})
    assert metrics.mae(tree)["mae"].sel(task="y_y") == 1
