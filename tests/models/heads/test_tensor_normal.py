import functools
import math

import numpy as np
import pyro
import pytest
import torch
from torch import nn
from torch.distributions import LKJCholesky, Normal, kl_divergence

import bmtl
from bmtl.models import TensorNormalHeads, mlp
from tests.models.programs import seeded, shaken, task_model

CLASSES = {"a": 3, "b.1": 3}
REAL = {"a": 0, "b.1": 0, "c": 0}  # number of classes, 0 for a real target
ADAM = functools.partial(torch.optim.Adam, lr=1e-2)


def heads_of(**options):
    return functools.partial(TensorNormalHeads, **options)


def program(targets=REAL, n_data=40, seed=0, concentration=1.0, prior_scale=None, **options):
    generator = seeded(seed)
    trunk = mlp(3, (6,), generator=generator)
    head = heads_of(concentration=concentration, prior_scale=prior_scale)
    return task_model(trunk, 6, targets, n_data, head=head, generator=generator, **options)


def batch(targets=REAL, rows=20, missing=0):
    generator = seeded()
    x = torch.randn(rows, 3, generator=generator)
    y = {}
    for name, kind in targets.items():
        if not kind:
            y[name] = torch.randn(rows, generator=generator)
            y[name][:missing] = math.nan
        else:
            y[name] = torch.randint(0, kind, (rows,), generator=generator)
            y[name][:missing] = -1
    return x, y


def losses(model, guide, x, y, estimator="analytic", **options):
    return bmtl.TaskELBO(estimator, **options).task_losses(model, guide, x, y)


@pytest.mark.parametrize("targets", [REAL, CLASSES])
@pytest.mark.parametrize("noise", ["fixed", "latent"])
@pytest.mark.parametrize("kind", ["normal", "point"])
def test_every_choice_trains_and_predicts(kind, noise, targets):
    x, y = batch(targets, missing=4)
    model = program(targets, noise=noise)
    guide = model.guide(kind)
    svi = bmtl.BalancedSVI(model, guide, ADAM, "last-layer >> nash-mtl", bmtl.TaskELBO("analytic"))
    for _ in range(2):
        record = svi.step(x, y)
    assert record.names == tuple(targets)
    assert record.losses.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in svi.module.parameters())
    drawn = bmtl.draw(model, guide, x, y, num_draws=5)
    tasks = len(targets)
    outputs = 1 if targets is REAL else 3
    assert drawn.posterior["heads"].shape == (5, tasks, outputs, 7)
    correlation = drawn.posterior["task_correlation"]
    assert correlation.shape == (5, tasks, tasks)
    np.testing.assert_allclose(np.diagonal(correlation, axis1=1, axis2=2), 1, rtol=1e-5)
    factor = drawn.posterior["task_cholesky"]
    np.testing.assert_allclose(correlation, factor @ factor.swapaxes(1, 2), atol=1e-6)


def test_the_kl_is_everybodys_and_that_of_its_parts():
    model = program()
    guide = shaken(model.guide(scale=0.3))
    expected = 0.0
    with torch.no_grad():
        for site, prior in (("task_log_scale", Normal(math.log(6**-0.5), 1.0)), ("heads", Normal(0.0, 1.0))):
            q = Normal(guide[site].loc, nn.functional.softplus(guide[site].rho))
            expected += kl_divergence(q, prior).sum().item()
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(5):  # the factor's divergence has no closed form
            terms = losses(model, guide, *batch())
            assert not terms.kl.any()
            p, q = (trace.nodes["task_cholesky"] for trace in terms.traces[0])
            ratio = q["fn"].log_prob(q["value"]) - LKJCholesky(3, 1.0).log_prob(p["value"])
            assert terms.shared.item() == pytest.approx(expected + ratio.item(), rel=1e-4)


@pytest.mark.parametrize("targets", [REAL, CLASSES])
def test_heads_have_the_tensor_normals_covariance(targets):
    """Over draws of the prior's Z at fixed covariances: the Kronecker product of the three."""
    model = shaken(program(targets))
    tasks, outputs = len(targets), 1 if targets is REAL else 3
    chol = torch.linalg.cholesky(torch.eye(tasks) * 0.6 + 0.4)
    log_scale = torch.linspace(-1, 0.5, tasks)
    torch.manual_seed(1)
    z = torch.randn(20_000, 1, tasks, outputs, 7)
    fixed = {
        "task_cholesky": chol.expand(20_000, 1, tasks, tasks),
        "task_log_scale": log_scale.expand(20_000, 1, tasks),
        "heads": z,
    }
    with torch.no_grad(), pyro.plate("num_particles_vectorized", 20_000, dim=-2), pyro.condition(data=fixed):
        w = model.heads.joint().flatten(1)

    def correlation(factor):
        root = nn.functional.normalize(factor.tril(-1) / len(factor) ** 0.5 + torch.eye(len(factor)), dim=-1)
        return root @ root.mT

    with torch.no_grad():
        expected = torch.outer(log_scale.exp(), log_scale.exp()) * (chol @ chol.mT)
        if model.heads.class_factor is not None:
            expected = torch.kron(expected, correlation(model.heads.class_factor))
        features = correlation(model.heads.feature_factor)
        expected = torch.kron(expected, features)
    assert torch.trace(features).item() == pytest.approx(7, rel=1e-5)
    size = expected.diagonal().sqrt()
    error = (torch.cov(w.mT) - expected) / torch.outer(size, size)
    assert error.abs().max() < 6 * math.sqrt(2 / 20_000)


def test_vectorised_particles_are_the_looped_ones():
    for targets in (REAL, CLASSES):
        x, y = batch(targets, missing=4)
        model = shaken(program(targets, noise="latent"))
        guide = model.guide("point")
        one, many = (losses(model, guide, x, y, **o) for o in ({}, {"num_particles": 3, "vectorize_particles": True}))
        for field in ("nll", "kl", "shared", "counts"):
            torch.testing.assert_close(getattr(many, field), getattr(one, field))


def test_permuting_tasks_permutes_the_losses():
    """With an exchangeable correlation: the factor of another order is that of a permuted matrix, which is the same."""
    x, y = batch()
    model = program()
    order = ["c", "a", "b.1"]
    other = program(dict.fromkeys(order, 0))
    other.load_state_dict(model.state_dict())
    guide, again = model.guide("point"), other.guide("point")
    again["heads"].value.data = guide["heads"].value.data[[2, 0, 1]]
    found, permuted = losses(model, guide, x, y), losses(other, again, x, y)
    mine, theirs = (dict(zip(t.names, t.nll.tolist(), strict=True)) for t in (found, permuted))
    assert mine == pytest.approx(theirs, rel=1e-5)
    assert found.shared.item() == pytest.approx(permuted.shared.item(), rel=1e-5)


def test_it_finds_which_tasks_are_related_and_in_which_direction():
    """b has a's weights with the sign turned, c its own; 24 features tell, to about 1 / sqrt(24)."""
    rows, width = 60, 24
    generator = seeded()
    weights = torch.randn(2, width, generator=generator)
    w = {"a": weights[0], "b.1": -weights[0], "c": weights[1]}
    x = torch.randn(rows, width, generator=generator)
    y = {n: x @ v + 0.3 * torch.randn(rows, generator=generator) for n, v in w.items()}
    truth = torch.corrcoef(torch.stack(list(w.values()))).numpy()
    model = task_model(nn.Identity(), width, REAL, rows, head=heads_of(prior_scale=1.0), generator=generator)
    optim = functools.partial(torch.optim.Adam, lr=3e-2)
    svi = bmtl.BalancedSVI(model, model.guide(), optim, elbo=bmtl.TaskELBO("analytic"))
    torch.manual_seed(0)
    for _ in range(300):
        svi.step(x, y)
    found = bmtl.draw(model, svi.guide, x, sites=["task_correlation"]).posterior["task_correlation"].mean(0)
    assert found[0, 1] < -0.8
    assert abs(found[0, 2] - truth[0, 2]) < 0.35
    assert abs(found[1, 2] - truth[1, 2]) < 0.35


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": {"a": 0}}, "two or more targets"),
        ({"targets": {"a": 0, "b": 3}}, "one likelihood and as many outputs"),
        ({"targets": {"a": 2, "b": 3}}, "one likelihood and as many outputs"),
        ({"concentration": 0.0}, "concentration is above 0 and finite, and 0.0"),
        ({"n_data": {"a": 3}}, "n_data lacks the targets"),
        ({"prior_scale": -1.0}, "prior_scale is a standard deviation, above 0"),
    ],
)
def test_a_wrong_option_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        program(**options)


def test_a_guide_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="kind is one of 'normal', 'point', and 'delta'"):
        program().guide("delta")
