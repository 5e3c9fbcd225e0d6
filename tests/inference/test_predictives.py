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
    means = np.stack([m.targets["a"].mean for m in members])
    variances = np.stack([m.targets["a"].aleatoric for m in members])
    np.testing.assert_allclose(found.targets["a"].mean, means.mean(0))
    total = (variances + means**2).mean(0) - means.mean(0) ** 2  # a mixture's variance
    np.testing.assert_allclose(found.targets["a"].aleatoric + found.targets["a"].epistemic, total, rtol=1e-6)
    densities = np.concatenate([m.targets["a"].log_likelihood for m in members])
    np.testing.assert_array_equal(found.targets["a"].log_likelihood, densities)
    assert found.targets["a"].law.parameters["loc"].shape == (4, 9)
    assert found.targets["c"].draws.shape == (80, 9)
    p = np.stack([m.targets["c"].probability for m in members])
    np.testing.assert_allclose(found.targets["c"].probability, p.mean(0))
    entropy = -(p.mean(0) * np.log(p.mean(0))).sum(-1)
    np.testing.assert_allclose(found.targets["c"].aleatoric + found.targets["c"].epistemic, entropy, rtol=1e-6)


def test_equal_members_know_all_that_can_be_known():
    found = mixture([member(0), member(0)])
    np.testing.assert_allclose(found.targets["a"].epistemic, 0, atol=1e-12)
    np.testing.assert_allclose(found.targets["c"].epistemic, 0, atol=1e-7)


def test_members_with_other_targets_are_refused():
    with pytest.raises(ValueError, match="same targets"):
        mixture([member(0), member(0, ["a"])])
    with pytest.raises(ValueError, match="same targets"):
        mixture([])


def test_targets_drawn_apart_stand_side_by_side():
    one, other = member(0, ["a"]), member(1, ["c"])
    found = merge_targets([one, other])
    assert list(found.targets) == ["a", "c"]
    np.testing.assert_array_equal(found.targets["a"].mean, one.targets["a"].mean)
    np.testing.assert_array_equal(found.targets["c"].probability, other.targets["c"].probability)
