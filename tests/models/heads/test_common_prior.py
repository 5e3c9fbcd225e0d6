import functools
import itertools
import math

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

import bmtl
from bmtl.inputs import PerTask
from bmtl.models import CommonPriorHeads, mlp
from tests.models.programs import log_variance, minimise, seeded, shaken, task_model

TARGETS = {"a": 0, "c": 3, "b.1": 0}  # number of classes, 0 for a real target
ADAM = functools.partial(torch.optim.Adam, lr=1e-2)


def heads_of(prior_scale=None):
    return functools.partial(CommonPriorHeads, prior_scale=prior_scale)


def program(targets=TARGETS, n_data=40, seed=0, prior_scale=None, **options):
    generator = seeded(seed)
    trunk = mlp(3, (6,), generator=generator)
    return task_model(trunk, 6, targets, n_data, head=heads_of(prior_scale), generator=generator, **options)


def batch(rows=20, seed=0, missing=0):
    generator = seeded(seed)
    x = torch.randn(rows, 3, generator=generator)
    y = {
        "a": torch.randn(rows, generator=generator),
        "c": torch.randint(0, 3, (rows,), generator=generator),
        "b.1": torch.randn(rows, generator=generator),
    }
    for name, empty in (("a", math.nan), ("c", -1), ("b.1", math.nan)):
        y[name][:missing] = empty
    return x, y


def losses(model, guide, x, y, estimator="analytic", **options):
    return bmtl.TaskELBO(estimator, **options).task_losses(model, guide, x, y)


def regressions(tasks, rows, width, seed=0, noise=0.5):
    """Linear regressions whose weights (bias last) come from one normal: inputs and labels by task, mean, covariance."""
    generator = np.random.default_rng(seed)
    mean = np.array([1.0, -2.0, 0.5])[: width + 1]
    factor = np.tril(generator.normal(size=(width + 1, width + 1))) + np.eye(width + 1)
    names = [f"t{t}" for t in range(tasks)]
    x = {n: torch.tensor(generator.normal(size=(rows, width))) for n in names}
    y = {}
    for n in names:
        w = mean + factor @ generator.normal(size=width + 1)
        y[n] = x[n] @ torch.tensor(w[:-1]) + w[-1] + noise * torch.tensor(generator.normal(size=rows))
    return PerTask(x), y, mean, factor @ factor.T


def on_identity(x, noise=0.5, **options):
    """The program on x itself in float64, its noise known."""
    rows = {name: len(part) for name, part in x.items()}
    width = next(iter(x.values())).shape[1]
    model = task_model(nn.Identity(), width, dict.fromkeys(x, 0), rows, head=heads_of(), generator=seeded(), **options)
    model = model.double()
    for name in x:
        log_variance(model, name).data.fill_(2 * math.log(noise) / 10)
        log_variance(model, name).requires_grad_(False)
    return model


# ---- Training, predictions, who owns what ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["correlated", "normal", "point"])
@pytest.mark.parametrize("noise", ["fixed", "parameter", "latent"])
def test_every_choice_trains_and_predicts(noise, kind):
    x, y = batch(missing=5)
    for estimator in ("mc", "analytic"):
        model = program(noise=noise)
        guide = model.guide(kind)
        svi = bmtl.BalancedSVI(model, guide, ADAM, elbo=bmtl.TaskELBO(estimator))
        for _ in range(2):
            record = svi.step(x, y)
        assert record.names == tuple(TARGETS)
        assert record.losses.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in svi.module.parameters())
    drawn = bmtl.draw(model, guide, x, y, num_draws=7)
    assert {name: value.shape for name, value in drawn.posterior.items() if name.startswith("head")} == {
        "head_a": (7, 1, 7),
        "head_c": (7, 3, 7),
        "head_b.1": (7, 1, 7),
    }
    assert list(drawn.targets) == list(TARGETS)
    np.testing.assert_allclose(drawn.targets["c"].probability.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("balancer", ["last-layer >> nash-mtl", "full >> pcgrad", "representation >> imtl-g"])
def test_balancers_run_on_it(balancer):
    x, y = batch(missing=2)
    model = program()
    svi = bmtl.BalancedSVI(model, model.guide(), ADAM, balancer, bmtl.TaskELBO("analytic"))
    for _ in range(3):
        record = svi.step(PerTask(dict.fromkeys(TARGETS, x)), y)
    assert record.weights.isfinite().all()


@pytest.mark.parametrize("kind", ["correlated", "normal"])
def test_the_kl_of_a_head_is_its_tasks_in_closed_form(kind):
    model = shaken(program(noise="parameter"))
    guide = shaken(model.guide(kind, scale=0.3), 10)
    found = losses(model, guide, *batch())
    trace = found.traces[0][1]
    for i, name in enumerate(TARGETS):
        q = trace.nodes[f"head_{name}"]["fn"].base_dist
        common = model.heads._common(name)
        expected = kl_divergence(q, MultivariateNormal(common.loc, scale_tril=common.scale_tril)).sum()
        assert found.kl[i].item() == pytest.approx(expected.item(), rel=1e-4)
        diagonal = q.covariance_matrix - q.covariance_matrix.diagonal(dim1=-2, dim2=-1).diag_embed()
        assert bool(diagonal.abs().max() > 1e-4) == (kind == "correlated")
    assert len({round(value, 2) for value in found.kl.tolist()}) == 3
    assert found.shared.item() == 0.0, "mean and covariance are parameters"


def test_drawn_kl_agrees_with_the_closed_form():
    model = shaken(program())
    guide = shaken(model.guide(scale=0.3), 10)
    expected = losses(model, guide, *batch()).kl
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = torch.stack(
            [losses(model, guide, *batch(), "mc", num_particles=50, vectorize_particles=True).kl for _ in range(30)]
        )
    assert ((drawn.mean(0) - expected).abs() < 4 * drawn.std(0) / math.sqrt(len(drawn))).all()


def test_vectorised_particles_are_the_looped_ones():
    x, y = batch(missing=4)
    model = program()
    guide = model.guide("point")
    one, many = (losses(model, guide, x, y, **o) for o in ({}, {"num_particles": 3, "vectorize_particles": True}))
    for field in ("nll", "kl", "counts"):
        torch.testing.assert_close(getattr(many, field), getattr(one, field))


def test_the_prior_before_training_is_that_of_bayesian_heads():
    """The same starts, and a mean of 0 with independent entries: the same terms as those of `BayesianHeads`."""
    x, y = batch()
    trunk = mlp(3, (6,), generator=seeded())
    make = functools.partial(torch.Generator().manual_seed, 4)
    ours = task_model(trunk, 6, TARGETS, 40, head=CommonPriorHeads, generator=make())
    theirs = task_model(trunk, 6, TARGETS, 40, head="bayesian", generator=make())
    a, b = losses(ours, ours.guide("normal"), x, y), losses(theirs, theirs.guide(), x, y)
    torch.testing.assert_close(a.kl, b.kl, rtol=1e-5, atol=1e-3)


def test_permuting_tasks_permutes_the_terms():
    x, y, *_ = regressions(4, 6, 2)
    order = ["t2", "t0", "t3", "t1"]
    model = shaken(on_identity(x))
    guide = shaken(model.guide("point").double(), 3)
    other = on_identity(PerTask({name: x[name] for name in order}))
    other.heads.priors.load_state_dict(model.heads.priors.state_dict())
    permuted = other.guide("point").double()
    for name in order:
        permuted[f"head_{name}"].value.data = guide[f"head_{name}"].value.data
        log_variance(other, name).data = log_variance(model, name).data
    found = losses(model, guide, x, y)
    again = losses(other, permuted, PerTask({n: x[n] for n in order}), {n: y[n] for n in order})
    for field in ("nll", "kl"):
        mine, theirs = (dict(zip(t.names, getattr(t, field).tolist(), strict=True)) for t in (found, again))
        assert mine == pytest.approx(theirs, rel=1e-9)


# ---- What is learnt, against the exact answer ------------------------------------------------------------------------


def exact_posteriors(x, y, mean, covariance, noise):
    """Posterior of each task's weights under the prior, in closed form."""
    precision = np.linalg.inv(covariance)
    found = []
    for name in x:
        design = np.column_stack([x[name].numpy(), np.ones(len(x[name]))])
        s = np.linalg.inv(precision + design.T @ design / noise**2)
        found.append((s @ (precision @ mean + design.T @ y[name].numpy() / noise**2), s))
    return found


def empirical_bayes(x, y, noise, steps=3000):
    """EM over exact posteriors, as in the paper."""
    width = next(iter(x.values())).shape[1] + 1
    mean, covariance = np.zeros(width), np.eye(width)
    for _ in range(steps):
        posteriors = exact_posteriors(x, y, mean, covariance, noise)
        mean = np.mean([m for m, _ in posteriors], 0)
        covariance = np.mean([s + np.outer(m - mean, m - mean) for m, s in posteriors], 0)
    return mean, covariance


@pytest.fixture(scope="module")
def simulated():
    x, y, mean, covariance = regressions(200, 8, 2)
    return x, y, mean, covariance, *empirical_bayes(x, y, 0.5, 60)


def test_em_itself_recovers_the_truth(simulated):
    _, _, mean, covariance, fitted_mean, fitted = simulated
    error = np.sqrt(covariance.diagonal() / 200)
    assert (np.abs(fitted_mean - mean) < 4 * error).all()
    assert np.linalg.norm(fitted - covariance) < 0.3 * np.linalg.norm(covariance)  # sd of a variance: sqrt(2 / 200)


def put(common, mean, covariance):
    factor = torch.tensor(np.linalg.cholesky(covariance))
    h = len(factor)
    common.loc.data = torch.tensor(mean)[None]
    scale = factor.diagonal()
    common.rho.data = scale + (-torch.expm1(-scale)).log()
    common.below.data = (factor / factor.diagonal()[:, None]).tril(-1) * h**0.5
    torch.testing.assert_close(common.scale_tril, factor)


def put_row(q, mean, covariance):
    factor = torch.tensor(np.linalg.cholesky(covariance))
    scale = factor.diagonal()
    q.loc.data = torch.tensor(mean)[None]
    q.rho.data = (scale + (-torch.expm1(-scale)).log())[None]
    q.below.data = ((factor / scale[:, None]).tril(-1) * len(factor) ** 0.5)[None]


def expected_nll(x, y, guide, noise):
    """Expected negative log density of the labels, in closed form."""
    total = 0.0
    sites = poutine.trace(guide).get_trace(x).nodes
    for name in x:
        q = sites[f"head_{name}"]["fn"].base_dist
        design = torch.cat([x[name], torch.ones(len(x[name]), 1, dtype=torch.float64)], 1)
        error = y[name] - design @ q.mean[0]
        total = total + (error.square() + ((design @ q.covariance_matrix[0]) * design).sum(-1)).sum() / (2 * noise**2)
        total = total + len(x[name]) * 0.5 * math.log(2 * math.pi * noise**2)
    return total


def test_at_ems_answer_the_elbo_rests_and_is_the_log_evidence():
    """With exact posteriors in the guide: no gradient for prior or guide, and the evidence by scipy's density."""
    x, y, *_ = regressions(5, 100, 2, seed=1)  # many rows: EM is fast
    mean, covariance = empirical_bayes(x, y, 0.5, 100)
    model = on_identity(x)
    put(model.heads._common("t0"), mean, covariance)
    guide = model.guide("correlated").double()
    for name, (m, s) in zip(x, exact_posteriors(x, y, mean, covariance, 0.5), strict=True):
        put_row(guide[f"head_{name}"], m, s)
    loss = expected_nll(x, y, guide, 0.5) + losses(model, guide, x, y).kl.sum()
    evidence = 0.0
    for name in x:
        design = np.column_stack([x[name].numpy(), np.ones(100)])
        law = stats.multivariate_normal(design @ mean, design @ covariance @ design.T + 0.25 * np.eye(100))
        evidence += law.logpdf(y[name].numpy())
    assert -loss.item() == pytest.approx(evidence, rel=1e-8)
    loss.backward()
    moving = {
        name: p.grad.abs().max().item() for name, p in [*model.heads.named_parameters(), *guide.named_parameters()]
    }
    assert all(slope < 1e-6 for slope in moving.values()), moving


def fitted_points(x, y, mean, scale):
    """The heads at their best under a prior of this standard deviation; its mean is learnt if `mean` is None."""
    model = on_identity(x)
    put(model.heads._common("t0"), np.zeros(3) if mean is None else mean, np.eye(3) * scale**2)
    guide = model.guide("point").double()
    parameters = [*guide.parameters(), *([model.heads._common("t0").loc] if mean is None else [])]
    minimise(lambda: losses(model, guide, x, y).total, parameters, tolerance=1e-9)
    return np.stack([q.value.detach().numpy()[0] for _, q in guide.items()])


def least_squares(x, y):
    design = np.column_stack([np.asarray(x), np.ones(len(x))])
    return np.linalg.lstsq(design, np.asarray(y), rcond=None)[0]


def test_a_narrow_prior_pools_the_tasks_and_a_wide_one_separates_them():
    x, y, *_ = regressions(4, 10, 2, seed=2)
    alone = np.stack([least_squares(x[n], y[n]) for n in x])
    np.testing.assert_allclose(fitted_points(x, y, np.zeros(3), 1e4), alone, rtol=1e-4, atol=1e-5)
    pooled = least_squares(torch.cat(list(x.values())), torch.cat(list(y.values())))
    found = fitted_points(x, y, None, 0.01)
    np.testing.assert_allclose(found, np.tile(pooled, (4, 1)), rtol=0.02, atol=0.01)
    between = fitted_points(x, y, alone.mean(0), 1.0)
    assert np.var(found, 0).sum() < np.var(between, 0).sum() < np.var(alone, 0).sum()


def test_map_heads_are_those_of_the_closed_form():
    x, y, mean, covariance = regressions(3, 4, 2, seed=3)
    model = on_identity(x)
    put(model.heads._common("t0"), mean, covariance)
    expected = np.stack([m for m, _ in exact_posteriors(x, y, mean, covariance, 0.5)])
    guide = model.guide("point").double()
    for (_, q), m in zip(guide.items(), expected, strict=True):
        q.value.data = torch.tensor(m)[None]
    losses(model, guide, x, y).total.backward()
    for value in guide.parameters():
        assert value.grad.abs().max() < 1e-9


# ---- Bad input -------------------------------------------------------------------------------------------------------


def test_bad_options_are_told():
    with pytest.raises(ValueError, match="kind is one of 'correlated', 'normal', 'point', and 'delta'"):
        program().guide("delta")
    with pytest.raises(ValueError, match="The targets are a, c, b.1, and 'd' was given"):
        program().heads.prior("d")
    with pytest.raises(ValueError, match="n_data lacks the targets"):
        program(n_data={"a": 3})
    x, y = batch()
    model = program()
    for inputs, labels, message in (
        (PerTask({"a": x}), y, r"x has inputs for \['a'\]"),
        (x, {"a": y["a"]}, "and the program also has 'c'"),
    ):
        with pytest.raises(ValueError, match=message):
            losses(model, model.guide(), inputs, labels)


def test_a_generator_gives_the_same_program_and_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    one, other, another = (program(seed=s).guide() for s in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in itertools.zip_longest(one.parameters(), another.parameters()))
    assert torch.equal(before, torch.get_rng_state())


def test_targets_of_one_likelihood_and_as_many_outputs_have_a_prior_together():
    model = program({"a": 0, "b": 0, "c": 3, "d": 3, "e": 4})
    priors = {name: model.heads._common(name) for name in "abcde"}
    assert priors["a"] is priors["b"]
    assert priors["c"] is priors["d"]
    assert len({id(prior) for prior in priors.values()}) == 3
    assert len(list(model.heads.priors)) == 3
    mean, covariance = model.heads.prior("e")
    assert mean.shape == (4, 7)
    torch.testing.assert_close(covariance, torch.eye(7) / 6)
