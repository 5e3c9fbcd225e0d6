"""Comparisons at several shares of the labels, joined."""

import numpy as np
import pytest
import xarray as xr

from bmtl.evaluation import plots, results
from bmtl.evaluation.comparison import compare
from bmtl.evaluation.label_shares import by_label_share, conclusion, share_table
from tests.evaluation import trees

ERRORS = {
    1.0: {"stl": (1.0, 1.0), "ew": (2.0, 1.5), "uw": (0.5, 1.2)},
    0.1: {"stl": (4.0, 2.0), "ew": (2.0, 1.0), "uw": (3.0, 1.9)},
}
"""Share -> learner -> error in each of two splits, of every target."""


def compared(errors, baseline="stl"):
    """A comparison whose errors are known: predictions are off by the error times the target's scale."""
    labels = {"a": np.linspace(-1, 1, 20), "b": 100 * np.linspace(0, 1, 20)}
    made = {}
    for name, of_split in errors.items():
        for split, error in enumerate(of_split):
            offset = {task: error * (1 if task == "a" else 7) * (-1) ** np.arange(20) for task in labels}
            parameters = {
                task: {
                    "loc": (labels[task] + offset[task])[None],
                    "scale": np.ones((1, 20)),
                    "df": np.full((1, 20), np.inf),
                }
                for task in labels
            }
            mean = {task: labels[task] + offset[task] for task in labels}
            made[name, split] = trees.tree(observed=labels, distribution=parameters, predictive_mean=mean, method=name)
    return compare(made, baseline=baseline)


@pytest.fixture(scope="module")
def changes():
    return by_label_share({share: compared(errors) for share, errors in ERRORS.items()})


def test_changes_are_relative_to_the_baseline_of_the_same_split(changes):
    for share, errors in ERRORS.items():
        for name, of_split in errors.items():
            expected = [100 * (error / own - 1) for error, own in zip(of_split, errors["stl"], strict=True)]
            found = changes.sel(share=share, learner=name)
            np.testing.assert_allclose(found["delta_m"], expected, atol=1e-9)
            for task in ("a", "b"):
                np.testing.assert_allclose(found["change"].sel(task=task), expected, atol=1e-9)


def test_the_sentence_names_who_is_ahead_in_every_split(changes):
    assert conclusion(changes) == (
        "With all labels, ew has a larger error than stl in all 2 draws. With 10 % of the labels, ew and uw have a smaller "
        "error than stl in all 2 draws."
    )
    one = changes.isel(split=[0])
    assert conclusion(one).startswith(
        "With all labels, uw has a smaller error than stl in the only draw and ew has a larger one."
    )
    undecided = changes.sel(share=[1.0], learner=["stl", "uw"])
    assert conclusion(undecided) == "With all labels, no method is ahead or behind in all 2 draws."


def test_the_table_has_a_column_a_share(changes):
    header, *rows = share_table(changes)
    assert header == ["delta_m [%] ↓", "100 % of labels", "10 % of labels"]
    assert [row[0] for row in rows] == ["stl", "ew", "uw"]
    assert rows[0][1:] == ["–", "–"]
    assert rows[1] == ["ew", "75 ± 25", "−50"]


def test_it_is_kept_in_a_file_and_drawn(changes, tmp_path):
    results.write(changes, tmp_path / "changes.nc")
    again = results.read(tmp_path / "changes.nc").to_dataset()
    xr.testing.assert_equal(again["change"], changes["change"])
    (axes,) = plots.label_share_curves(changes).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["100 %", "10 %"]
    np.testing.assert_allclose(axes.containers[0].lines[0].get_ydata(), [75, -50])
    (axes,) = plots.changes_by_target(changes, 0.1).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_what_does_not_fit_together_is_refused():
    both = {share: compared(errors) for share, errors in ERRORS.items()}
    with pytest.raises(ValueError, match="differ in their learners"):
        by_label_share({1.0: both[1.0], 0.1: both[0.1].sel(learner=["stl", "ew"])})
    with pytest.raises(ValueError, match="no baseline"):
        by_label_share({1.0: compared(ERRORS[1.0], baseline=None)})
    with pytest.raises(ValueError, match="The baselines differ"):
        by_label_share({1.0: both[1.0], 0.1: compared(ERRORS[0.1], baseline="ew")})
    with pytest.raises(ValueError, match="no comparison"):
        by_label_share({})
