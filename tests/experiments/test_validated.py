"""Validation losses in a run's tree: each epoch's at its last recorded step."""

import numpy as np

from bmtl.experiments import run
from bmtl.experiments.collecting import validated
from tests.experiments.toys import BUDGET, EW, STL, toy


def test_an_epochs_loss_is_at_its_last_recorded_step():
    """Of a thinned history too; an epoch without a recorded step has no place."""
    epochs = np.array([1, 1, 2, 4, 4])
    found = validated(epochs, ["a", "b"], {"a": [0.5, 0.4, 0.3, 0.2]})
    np.testing.assert_array_equal(found[:, 0], [np.nan, 0.5, 0.4, np.nan, 0.2])
    assert np.isnan(found[:, 1]).all()


def test_every_task_of_single_task_and_joint_networks_has_them():
    for method in (STL, EW):
        group = run(toy(), method, 0, BUDGET)["training"]
        known = group["validation_losses"].dropna("step", how="all")
        assert known.sizes["step"] == BUDGET.epochs
        assert known["epoch"].values.tolist() == [1, 2]
        assert known.notnull().all()
