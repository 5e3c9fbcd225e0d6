import numpy as np
import pytest

from bmtl.evaluation.groups import PredictedRows, part_groups, split_chains
from bmtl.evaluation.results import ReportedTarget
from bmtl.targets import Classes, Law, Prediction, Real

TARGETS = {"a": ReportedTarget(Real()), "b": ReportedTarget(Real()), "kind": ReportedTarget(Classes(("x", "y")))}


def groups(chains=1, **given):
    return part_groups("test", given, TARGETS, chains)


def rows(labels, draws, numbers=None, **fields):
    return PredictedRows(Prediction(np.asarray(draws), **fields), np.asarray(labels), numbers)


def test_rows_without_a_label_are_dropped_per_target():
    made = groups(
        a=rows([1.0, np.nan, 3.0], np.arange(6.0).reshape(2, 3)), b=rows([np.nan, np.nan, 6.0], np.ones((2, 3)))
    )
    draws = made["posterior_predictive"]
    assert draws["y_a"].dims == ("chain", "draw", "obs_a")
    np.testing.assert_array_equal(draws["y_a"], [[[0, 2], [3, 5]]])
    np.testing.assert_array_equal(draws["y_b"], [[[1], [1]]])
    np.testing.assert_array_equal(made["observed_data"]["obs_a"], [0, 2])
    np.testing.assert_array_equal(made["observed_data"]["y_b"], [6.0])


def test_minus_one_is_no_class():
    made = groups(kind=rows([1, -1, 0], np.zeros((1, 3)), probability=np.full((3, 2), 0.5)))
    np.testing.assert_array_equal(made["observed_data"]["y_kind"], [1, 0])
    assert made["probability"]["y_kind"].shape == (2, 2)


def test_a_target_without_any_label_keeps_its_variables():
    made = groups(a=rows([np.nan, np.nan], np.zeros((4, 2)), mean=np.zeros(2)))
    assert made["posterior_predictive"]["y_a"].shape == (1, 4, 0)
    assert made["predictive_mean"]["y_a"].shape == (0,)


def test_all_rows_are_kept_without_a_copy():
    draws = np.zeros((4, 3))
    made = groups(a=rows([1.0, 2.0, 3.0], draws))
    assert np.shares_memory(made["posterior_predictive"]["y_a"].values, draws)


def test_rows_may_have_numbers_of_their_own():
    """As those of one target have in a table that has others' rows too."""
    made = groups(
        a=rows([1.0, np.nan, 3.0], np.zeros((1, 3)), np.array([4, 7, 9])), b=rows([0.0, 0.0], np.zeros((1, 2)))
    )
    np.testing.assert_array_equal(made["observed_data"]["obs_a"], [4, 9])
    np.testing.assert_array_equal(made["observed_data"]["obs_b"], [0, 1])


def test_groups_and_targets_may_be_left_out():
    made = groups(a=rows([1.0], np.empty((0, 1)), mean=np.ones(1)), b=rows([1.0], np.ones((3, 1))))
    assert list(made) == ["observed_data", "posterior_predictive", "predictive_mean"]
    assert list(made["posterior_predictive"].data_vars) == ["y_b"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean": np.zeros(4)}, r"Target 'a' of the part 'test': mean has shape \(4,\); expected \(3,\)"),
        ({"aleatoric": np.zeros((3, 1)), "epistemic": np.zeros(3)}, r"aleatoric has shape \(3, 1\)"),
        ({"log_likelihood": np.zeros((2, 2))}, r"log_likelihood has shape \(2, 2\); expected \(draws, 3\)"),
        (
            {"law": Law("poisson", {"rate": np.ones((2, 4))})},
            r"the law's rate has shape \(2, 4\); expected \(2, 3, ...\)",
        ),
        ({"law": Law("poisson", {"rate": np.ones(3)})}, r"the law's rate has shape \(3,\)"),
        ({"mean": np.array([1.0, 2.0, object()])}, "mean of Target 'a' of the part 'test' has dtype object"),
    ],
)
def test_arrays_of_another_shape_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        groups(a=rows([1.0, 2.0, 3.0], np.zeros((2, 3)), **fields))


def test_chains_come_one_after_the_other():
    draws = split_chains("w", np.arange(6), 2)
    assert draws.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="of 4 chains of equal length"):
        split_chains("w", np.arange(6), 4)
    with pytest.raises(ValueError, match=r"w has shape \(0,\)"):
        split_chains("w", np.zeros(0), 1)
