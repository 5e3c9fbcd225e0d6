"""Predictives of several fitted models as one."""

import numpy as np
import pytest
import torch

from bmtl.inference.draws import draw
from bmtl.inference.predictives import merge_targets, mixture
from bmtl.models import Homoscedastic

X = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
Y = {"a": torch.randn(9, generator=torch.Generator().manual_seed(1)), "c": torch.arange(9) % 3}


def member(seed, targets=("a", "c")):
    kinds = {"a": "regression", "c": 3}
    model = Homoscedastic(
        torch.nn.Identity(),
        3,
        {name: kinds[name] for name in targets},
        9,
        noise="parameter",
        generator=torch.Generator().manual_seed(seed),
    )
    return draw(model, model.guide(), X, {name: Y[name] for name in targets}, num_draws=20, seed=seed)


def test_an_ensemble_is_the_equal_mixture_of_its_members():
    members = [member(seed) for seed in range(4)]
    found = mixture(members)
    means = np.stack([m.mean["a"] for m in members])
    variances = np.stack([m.aleatoric["a"] for m in members])
    np.testing.assert_allclose(found.mean["a"], means.mean(0))
    total = (variances + means**2).mean(0) - means.mean(0) ** 2  # a mixture's variance
    np.testing.assert_allclose(found.aleatoric["a"] + found.epistemic["a"], total, rtol=1e-6)
    densities = np.concatenate([m.log_likelihood["a"] for m in members])
    np.testing.assert_array_equal(found.log_likelihood["a"], densities)
    assert found.distribution["a"]["loc"].shape == (4, 9)
    assert found.predictive["c"].shape == (80, 9)
    p = np.stack([m.probability["c"] for m in members])
    np.testing.assert_allclose(found.probability["c"], p.mean(0))
    entropy = -(p.mean(0) * np.log(p.mean(0))).sum(-1)
    np.testing.assert_allclose(found.aleatoric["c"] + found.epistemic["c"], entropy, rtol=1e-6)


def test_equal_members_know_all_that_can_be_known():
    found = mixture([member(0), member(0)])
    np.testing.assert_allclose(found.epistemic["a"], 0, atol=1e-12)
    np.testing.assert_allclose(found.epistemic["c"], 0, atol=1e-7)


def test_members_with_other_targets_are_refused():
    with pytest.raises(ValueError, match="same targets"):
        mixture([member(0), member(0, ["a"])])
    with pytest.raises(ValueError, match="same targets"):
        mixture([])


def test_targets_drawn_apart_stand_side_by_side():
    one, other = member(0, ["a"]), member(1, ["c"])
    found = merge_targets([one, other])
    assert found.targets == ("a", "c")
    np.testing.assert_array_equal(found.mean["a"], one.mean["a"])
    np.testing.assert_array_equal(found.probability["c"], other.probability["c"])
