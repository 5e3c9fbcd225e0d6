"""Runs on random views of images."""

import numpy as np
import pytest
import torch

from bmtl.datasets import load
from bmtl.experiments import Budget, method
from bmtl.experiments.training import program

ROOMS = {"train": 4, "val": 2, "test": 2, "height": 16, "width": 16}
BUDGET = Budget(epochs=1, batch_size=2, augment=True)


def test_a_budget_says_whether_images_are_seen_in_views():
    data = load("rooms", **ROOMS)
    _, _, loader = program(data, method("ew"), 0, BUDGET)
    _, _, plain = program(data, method("ew"), 0, Budget(epochs=1, batch_size=2))
    (views, labels), (images, _) = next(iter(loader)), next(iter(plain))
    assert views.shape == images.shape
    assert not torch.equal(views, images)
    np.testing.assert_allclose(labels["normal"].norm(dim=-1), 1, atol=1e-5)


def test_what_has_no_views_is_refused_before_training():
    with pytest.raises(ValueError, match="'qm9-mini' has inputs of the kind 'table', which have no random views"):
        program(load("qm9-mini"), method("ew"), 0, Budget(epochs=1, augment=True))
    with pytest.raises(ValueError, match="Read the data with scale='none'"):
        program(load("rooms", **ROOMS, scale="train"), method("ew"), 0, BUDGET)
