import functools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import bmtl
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Gaussian, JointNormal
from tests.models.programs import losses, seeded

COVARIANCE = np.array([[0.25, 0.18, 0.0], [0.18, 0.36, -0.1], [0.0, -0.1, 1.0]])


def errors(rows, seed=0, missing=0.0):
    """Labels without a mean, ``(rows, 3)``, of which a share is missing."""
    random = np.random.default_rng(seed)
    y = random.multivariate_normal(np.zeros(3), COVARIANCE, rows)
    y[random.random(y.shape) < missing] = math.nan
    return torch.tensor(y)


def silent(likelihood, rows):
    """A program whose heads give 0, frozen: only the noise is learnt."""
    model = TaskModel(nn.Identity(), 1, {"v": likelihood}, rows).double()
    for head in model.heads.of("v"):
        nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
        head.requires_grad_(False)
    return model


def learnt_covariance(model, y, steps=300):
    x = torch.zeros(len(y), 1, dtype=torch.float64)
    svi = bmtl.BalancedSVI(model, model.guide(), functools.partial(torch.optim.Adam, lr=0.05))
    for _ in range(steps):
        svi.step(x, {"v": y})
    likelihood = model.likelihoods["v"]
    tril = likelihood.distribution(torch.zeros(1, 3).double(), likelihood.sample("v")).scale_tril[0].detach()
    return (tril @ tril.mT).numpy()


def test_the_covariance_is_that_of_the_residuals():
    y = errors(400)
    found = learnt_covariance(silent(JointNormal(3), 400), y)
    np.testing.assert_allclose(found, (y.mT @ y / 400).numpy(), atol=2e-3)


def test_a_row_with_gaps_teaches_of_what_it_has():
    """With a third of the labels missing the maximum of the marginal likelihood is found, and it is near the truth."""
    y = errors(1500, missing=0.33)
    found = learnt_covariance(silent(JointNormal(3), 1500), y)

    def nll(covariance):
        total = 0.0
        for row in y.numpy():
            there = ~np.isnan(row)
            if there.any():
                law = stats.multivariate_normal(np.zeros(there.sum()), covariance[np.ix_(there, there)])
                total -= law.logpdf(row[there])
        return total

    best = nll(found)
    assert best < nll(COVARIANCE)
    random = np.random.default_rng(0)
    for _ in range(5):
        turned = found + 0.01 * (lambda a: a + a.T)(random.normal(size=(3, 3)))
        assert best < nll(turned)
    np.testing.assert_allclose(found, COVARIANCE, atol=0.1)


def test_one_label_tells_of_the_other_through_the_correlation():
    """What is predicted is the joint distribution: b's mean given a's label moves by the regression of b on a."""
    likelihood = JointNormal(2).double()
    chol = torch.linalg.cholesky(torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64))
    p = likelihood.distribution(torch.zeros(1, 2).double(), {"log_variance": torch.zeros(2), "correlation": chol})
    given = p.covariance_matrix[0, 1, 0] / p.covariance_matrix[0, 0, 0]
    assert given.item() == pytest.approx(0.8)


def test_without_correlation_it_is_gaussians_side_by_side():
    y = errors(30, missing=0.2)
    x = torch.randn(30, 2, generator=seeded(), dtype=torch.float64)
    g = seeded()
    joint = TaskModel(mlp(2, (4,), generator=g), 4, {"v": JointNormal(3)}, 30, generator=g).double()
    apart = TaskModel(joint.representation.trunk, 4, {n: Gaussian() for n in "abc"}, 30).double()
    (head,) = joint.heads.of("v")
    for i, name in enumerate("abc"):
        (own,) = apart.heads.of(name)
        own.weight.data, own.bias.data = head.weight.data[i : i + 1], head.bias.data[i : i + 1]
    together = losses(joint, x, {"v": y}).nll.sum()
    torch.testing.assert_close(together, losses(apart, x, dict(zip("abc", y.unbind(-1), strict=True))).nll.sum())


@pytest.mark.parametrize("noise", ["fixed", "parameter", "latent"])
def test_several_targets_of_a_table_are_one_task_and_are_predicted_each_by_itself(noise):
    y = errors(40, missing=0.2)
    labels = dict(zip(("a", "b", "c"), y.unbind(-1), strict=True))
    x = torch.randn(40, 2, generator=seeded(), dtype=torch.float64)

    def program(likelihoods):
        g = seeded()
        return TaskModel(mlp(2, (4,), generator=g), 4, likelihoods, 40, generator=g).double()

    of_targets = program({"a+b+c": JointNormal(3, noise, components=("a", "b", "c"))})
    of_vectors = program({"a+b+c": JointNormal(3, noise)})
    guides = [model.guide("point").double() for model in (of_targets, of_vectors)]
    one, other = losses(of_targets, x, labels, guides[0]), losses(of_vectors, x, {"a+b+c": y}, guides[1])
    assert one.names == ("a+b+c",)
    torch.testing.assert_close(one.total, other.total)
    drawn = bmtl.draw(of_targets, guides[0], x, labels, num_draws=5)
    vector = bmtl.draw(of_vectors, guides[1], x, {"a+b+c": y}, num_draws=5).targets["a+b+c"]
    assert set(drawn.targets) == {"a", "b", "c"}
    for i, name in enumerate("abc"):
        np.testing.assert_allclose(drawn.targets[name].mean, vector.mean[:, i], rtol=1e-6)
        np.testing.assert_array_equal(np.isnan(drawn.targets[name].log_likelihood[0]), labels[name].isnan().numpy())
    with pytest.raises(ValueError, match="the program also has 'c'"):
        losses(of_targets, x, {"a": labels["a"], "b": labels["b"]}, guides[0])


def test_the_latent_correlation_has_an_lkj_prior():
    """Its divergence is the task's; a strong prior holds the correlation back."""
    y = errors(200)
    x = torch.zeros(200, 1, dtype=torch.float64)
    found = {}
    for concentration in (1.0, 1e4):
        model = silent(JointNormal(3, "latent", concentration=concentration), 200)
        guide = model.guide("normal", scale=0.05).double()
        svi = bmtl.BalancedSVI(
            model, guide, functools.partial(torch.optim.Adam, lr=0.05), elbo=bmtl.TaskELBO("analytic")
        )
        torch.manual_seed(0)
        for _ in range(200):
            svi.step(x, {"v": y})
        drawn = bmtl.draw(model, guide, x, num_draws=50).posterior
        factor = drawn["correlation_v"]
        found[concentration] = (factor @ factor.swapaxes(-1, -2)).mean(0)[0, 1]
        assert drawn["log_variance_v"].shape == (50, 3)
    assert found[1.0] == pytest.approx(0.18 / math.sqrt(0.25 * 0.36), abs=0.1)
    assert abs(found[1e4]) < 0.1


def test_vectors_in_units_start_at_their_own():
    y = errors(100, missing=0.1)
    raw = torch.tensor([10.0, -200.0, 3.0]).double() + torch.tensor([1.0, 50.0, 1e-3]).double() * y
    likelihood = JointNormal(3).double()
    likelihood.start(raw)
    p = likelihood.distribution(torch.zeros(1, 3).double(), likelihood.sample("v"))
    torch.testing.assert_close(p.mean[0], raw.nanmean(0))
    seen = [column[~column.isnan()].std(correction=0) for column in raw.unbind(-1)]
    torch.testing.assert_close(p.variance[0].sqrt(), torch.stack(seen))
