import numpy as np
import pytest

from bmtl.evaluation.groups import ScoredRows, posterior_group


def test_rows_without_a_label_are_dropped_per_target():
    rows = ScoredRows({"a": np.array([1.0, np.nan, 3.0]), "b": np.array([np.nan, np.nan, 6.0])})
    draws = rows.draws("predictive", {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(6.0).reshape(2, 3)})
    assert draws["y_a"].dims == ("chain", "draw", "obs_a")
    np.testing.assert_array_equal(draws["y_a"], [[[0, 2], [3, 5]]])
    np.testing.assert_array_equal(draws["y_b"], [[[2], [5]]])
    np.testing.assert_array_equal(draws["obs_a"], [0, 2])
    np.testing.assert_array_equal(rows.observations()["y_b"], [6.0])


def test_minus_one_is_no_class():
    rows = ScoredRows({"toxic": np.array([1, -1, 0])})
    np.testing.assert_array_equal(rows.observations()["y_toxic"], [1, 0])


def test_a_target_without_any_label_keeps_its_variable():
    rows = ScoredRows({"a": np.array([np.nan, np.nan])})
    assert rows.draws("predictive", {"a": np.zeros((4, 2))})["y_a"].shape == (1, 4, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 3, 1)), r"predictive\['a'\] has shape \(2, 3, 1\); expected \(draws, 3\)"),
        (np.zeros((2, 2)), r"predictive\['a'\] has shape \(2, 2\); expected \(draws, 3\)"),
        (np.zeros(3), r"has shape \(3,\)"),
        (np.zeros((0, 3)), r"at least one draw"),
    ],
)
def test_draws_of_another_shape_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        ScoredRows({"a": np.zeros(3)}).draws("predictive", {"a": given})


def test_values_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"pit\['a'\] has shape \(3, 1\); expected \(3,\)"):
        ScoredRows({"a": np.zeros(3)}).values("pit", {"a": np.zeros((3, 1))})


def test_targets_drawn_differently_often_are_refused():
    rows = ScoredRows({"a": np.zeros(3), "b": np.zeros(3)})
    with pytest.raises(ValueError, match="different numbers of draws, {'a': 2, 'b': 5}"):
        rows.draws("predictive", {"a": np.zeros((2, 3)), "b": np.zeros((5, 3))})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((3, 1)), r"shape \(3, 1\)"),
        (np.array(["x"]), "dtype <U1"),
        (np.array([1.0, np.inf]), "infinite label"),
    ],
)
def test_labels_that_are_no_numbers_a_row_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        ScoredRows({"a": labels})


def test_posterior_names_what_the_caller_does_not():
    group = posterior_group({"w": np.zeros((4, 2, 3)), "s": np.zeros(4)}, {"out": ["x", "y"]}, {"w": ["out", "in"]})
    assert group["w"].dims == ("chain", "draw", "out", "in")
    assert group["s"].dims == ("chain", "draw")
    assert group["out"].values.tolist() == ["x", "y"]
    assert posterior_group({"w": np.zeros((4, 2))}, {}, {})["w"].dims == ("chain", "draw", "w_dim_0")


@pytest.mark.parametrize(
    ("sites", "coords", "dims", "message"),
    [
        ({"w": np.zeros(())}, {}, {}, "a draw or more"),
        ({"w": np.zeros((0, 2))}, {}, {}, "a draw or more"),
        ({"w": np.zeros((4, 2))}, {}, {"w": []}, "expected 1 names"),
        ({"w": np.zeros((4, 2))}, {}, {"w": ["draw"]}, "none of them 'chain', 'draw'"),
        ({"w": np.zeros((4, 2))}, {"k": [1, 2, 3]}, {"w": ["k"]}, "2 entries along 'k', where coords has 3"),
        (
            {"w": np.zeros((4, 2)), "v": np.zeros((5, 2))},
            {},
            {},
            "5 entries along 'draw', where the other sites have 4",
        ),
        ({"layer/w": np.zeros(4)}, {}, {}, "must not hold a slash"),
        ({"k": np.zeros(4), "w": np.zeros((4, 2))}, {}, {"w": ["k"]}, "the name of another site's dimension"),
    ],
)
def test_a_posterior_that_does_not_fit_is_refused(sites, coords, dims, message):
    with pytest.raises(ValueError, match=message):
        posterior_group(sites, coords, dims)


def test_rows_may_be_called_by_numbers_of_their_own():
    """As those of one target are in a table that has others' rows too."""
    labels = {"a": np.array([1.0, np.nan, 3.0]), "b": np.zeros(2)}
    rows = ScoredRows(labels, {"a": np.array([4, 7, 9])})
    found = rows.observations()
    np.testing.assert_array_equal(found["obs_a"], [4, 9])
    np.testing.assert_array_equal(found["obs_b"], [0, 1])
    with pytest.raises(ValueError, match=r"row_numbers\['a'\] has shape \(2,\); expected \(3,\)"):
        ScoredRows(labels, {"a": np.array([4, 7])})
    with pytest.raises(ValueError, match="c"):
        ScoredRows(labels, {"c": np.zeros(2)})
