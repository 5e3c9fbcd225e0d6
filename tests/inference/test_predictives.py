"""Predictives of several fitted models as one."""

import numpy as np
import pytest
import torch

from bmtl.inference.draws import draw
from bmtl.inference.predictives import Draws, merge_targets, mixture
from bmtl.targets.laws import distribution
from bmtl.targets.prediction import Law, Prediction
from tests.inference.programs import task_model

X = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
Y = {"a": torch.randn(9, generator=torch.Generator().manual_seed(1)), "c": torch.arange(9) % 3}


def member(seed, targets=("a", "c")):
    classes = {name: {"a": 0, "c": 3}[name] for name in targets}
    model = task_model(torch.nn.Identity(), 3, classes, 9, generator=torch.Generator().manual_seed(seed))
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


def predicted(law=None, **fields):
    """Draws of one target from fields of its prediction."""
    return Draws(targets={"a": Prediction(np.zeros((2, 3)), law=law, **fields)})


def test_sites_of_several_models_keep_their_names_apart():
    """Each model of one target has a latent of its own, though they are called alike."""
    one = Draws({"w": np.zeros((4, 2)), "noise_a": np.ones(4)}, {"a": Prediction(np.zeros((4, 3)))})
    two = Draws({"w": np.ones((4, 2))}, {"b": Prediction(np.zeros((4, 3)))})
    found = merge_targets([one, two])
    assert set(found.posterior) == {"w_a", "w_b", "noise_a"}
    assert (found.posterior["w_b"] == 1).all()
    assert found.log_p is None


def test_merged_draws_have_the_same_chains_and_targets_of_their_own():
    def chained(target, chains):
        return Draws({}, {target: Prediction(np.zeros((4, 3)))}, chains=chains)

    assert merge_targets([chained("a", 2), chained("b", 2)]).chains == 2
    with pytest.raises(ValueError, match=r"equally many chains; got \[2, 1\]"):
        merge_targets([chained("a", 2), chained("b", 1)])
    with pytest.raises(ValueError, match=r"targets of their own; got \[\['a'\], \['a'\]\]"):
        merge_targets([chained("a", 2), chained("a", 2)])


def test_what_one_member_lacks_the_mixture_lacks():
    one, two = (Law("poisson", {"rate": np.full((1, 3), rate)}) for rate in (1.0, 3.0))
    both = mixture([predicted(one, mean=np.ones(3)), predicted(two, mean=np.zeros(3))]).targets["a"]
    np.testing.assert_array_equal(both.law.parameters["rate"], [[1.0] * 3, [3.0] * 3])
    np.testing.assert_array_equal(both.mean, 0.5)
    assert both.log_likelihood is both.pit is both.aleatoric is both.probability is None
    assert mixture([predicted(one), predicted(None)]).targets["a"].law is None
    other = Law("laplace", {"loc": np.zeros((1, 3)), "scale": np.ones((1, 3))})
    assert mixture([predicted(one), predicted(other)]).targets["a"].law is None


def test_a_mixture_has_the_variance_of_its_law():
    """Members that differ in mean and variance, for counts and vectors: by the law of total variance."""
    random = np.random.default_rng(0)
    rates = random.gamma(2.0, size=(3, 4, 5))  # members, draws, rows
    counts = mixture(
        [
            predicted(Law("poisson", {"rate": rate}), mean=rate.mean(0), aleatoric=rate.mean(0), epistemic=rate.var(0))
            for rate in rates
        ]
    ).targets["a"]
    np.testing.assert_allclose(distribution(counts.law).variance(), counts.aleatoric + counts.epistemic)
    locs = random.normal(size=(3, 4, 5, 2))
    vectors = mixture(
        [
            predicted(
                Law("multivariate-normal", {"loc": loc, "scale_tril": np.eye(2)[None, None] * (1 + k)}),
                mean=loc.mean(0),
                aleatoric=np.full((5, 2), (1.0 + k) ** 2),
                epistemic=loc.var(0),
            )
            for k, loc in enumerate(locs)
        ]
    ).targets["a"]
    np.testing.assert_allclose(distribution(vectors.law).variance(), vectors.aleatoric + vectors.epistemic)
