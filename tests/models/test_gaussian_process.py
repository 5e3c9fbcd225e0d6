import functools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from pyro import poutine

gpytorch = pytest.importorskip("gpytorch")

import bmtl  # noqa: E402
from bmtl.inputs import PerTask  # noqa: E402
from bmtl.models import mlp, recipes  # noqa: E402
from bmtl.models.gaussian_process import MultitaskGP, best_start  # noqa: E402
from bmtl.models.likelihoods import Gaussian, Poisson, StudentT  # noqa: E402
from bmtl.models.spec import DataSpec  # noqa: E402
from bmtl.targets import Count, Real  # noqa: E402

TARGETS = ("a", "b.1", "c")
ADAM = functools.partial(torch.optim.Adam, lr=3e-2)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def program(inputs=2, targets=TARGETS, n_data=40, seed=0, inducing=8, **options):
    if not isinstance(targets, dict):
        targets = {name: Gaussian() for name in targets}
    return MultitaskGP(inputs, targets, n_data, inducing=inducing, generator=seeded(seed), **options)


def noise_of(model, name):
    return model.likelihoods[name].sample(name)["log_variance"].exp()


def batch(rows=20, seed=0, missing=0):
    generator = seeded(seed)
    x = torch.randn(rows, 2, generator=generator)
    y = {name: torch.randn(rows, generator=generator) for name in TARGETS}
    for labels in y.values():
        labels[:missing] = math.nan
    return x, y


def losses(model, x, y, estimator="analytic", **options):
    return bmtl.TaskELBO(estimator, **options).task_losses(model, model.guide(), x, y)


def shaken(model, seed=0):
    """The program with random parameters, of no rows' place."""
    model.placed.fill_(True)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=seeded(seed + i)).to(parameter))
    return model


class Reference(gpytorch.models.ApproximateGP):
    """The same model in GPyTorch's own classes, at the parameters of a program."""

    def __init__(self, model, latents):
        ours = model.processes.values
        values = gpytorch.variational.CholeskyVariationalDistribution(
            len(model.processes.places), batch_shape=torch.Size([latents])
        )
        inner = gpytorch.variational.VariationalStrategy(self, model.processes.places.detach(), values)
        inner.variational_params_initialized.fill_(1)
        strategy = gpytorch.variational.LMCVariationalStrategy(
            inner, num_tasks=len(model.targets), num_latents=latents, latent_dim=-1, jitter_val=0.0
        )
        super().__init__(strategy)
        self.mean_module = gpytorch.means.ZeroMean(batch_shape=torch.Size([latents]))
        self.covar_module = model.processes.kernel
        self.double()
        values.variational_mean.data = ours.mean.detach().clone()
        values.chol_variational_covar.data = ours.factor.detach().clone()
        strategy.lmc_coefficients.data = torch.stack(list(model.coefficients)).detach().mT.clone()

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


# ---- Against GPyTorch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [5, 30])
@pytest.mark.parametrize(("kernel", "latents"), [("icm", 2), ("lmc", 2), ("lmc", 4)])
def test_it_is_gpytorchs_variational_elbo(kernel, latents, rows):
    n = 100
    x, y = batch(rows)
    x, y = x.double(), {name: value.double() for name, value in y.items()}
    model = shaken(program(n_data=n, kernel=kernel, latents=latents, joint=False).double())
    reference = Reference(model, latents)
    likelihood = gpytorch.likelihoods.MultitaskGaussianLikelihood(len(TARGETS), has_global_noise=False).double()
    likelihood.task_noises = torch.stack([noise_of(model, name) for name in TARGETS]).detach()
    elbo = gpytorch.mlls.VariationalELBO(likelihood, reference, num_data=n)
    offsets = torch.stack(list(model.offsets)).detach()
    expected = elbo(reference(x), torch.stack(list(y.values()), -1) - offsets).sum() * n
    found = losses(model, x, y)
    assert -found.total.item() == pytest.approx(expected.item(), rel=1e-8)
    assert found.shared.item() == pytest.approx(reference.variational_strategy.kl_divergence().item(), rel=1e-8)
    assert not found.kl.any(), "all latents are everybody's"


@pytest.mark.parametrize(
    ("latents", "kernel", "joint", "own"),
    [(1, "icm", None, False), (2, "lmc", None, False), (2, "icm", None, True), (2, "lmc", False, False)],
)
def test_at_the_best_guide_it_is_an_exact_gaussian_process(latents, kernel, joint, own):
    """Inducing points at all rows, labels missing or rows their own: means, variances and evidence.

    With an independent guide of several processes the means alone.
    """
    x = torch.randn(9, 2, generator=seeded(), dtype=torch.float64)
    y = {"a": torch.sin(2 * x[:, 0]), "b": torch.cos(x[:, 1])}
    y["a"][0], y["b"][3:7] = math.nan, math.nan
    model = program(
        targets=tuple(y), n_data=9, latents=latents, inducing=x.float(), kernel=kernel, joint=joint
    ).double()
    inputs, seen = x, {name: ~labels.isnan() for name, labels in y.items()}
    if own:
        inputs = PerTask({name: x[rows] for name, rows in seen.items()})
        model.n_data = {name: int(rows.sum()) for name, rows in seen.items()}
    with torch.no_grad():
        for likelihood, scale in zip(model.likelihoods.values(), (-0.2, -0.1), strict=True):
            next(likelihood.parameters()).fill_(scale)
        model.offsets[0].fill_(0.3)
        if kernel == "lmc":
            model.processes.kernel.lengthscale = torch.tensor([[[1.0, 2.0]], [[0.5, 0.7]]]).double()
    given = {name: labels[seen[name]] if own else labels for name, labels in y.items()}
    values = list(model.processes.values.parameters())
    search = torch.optim.LBFGS(
        values, max_iter=300, history_size=40, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )

    def closure():
        search.zero_grad()
        loss = -model.elbo(inputs, given)
        loss.backward()
        return loss

    search.step(closure)
    with torch.no_grad():
        places = torch.cat([x[seen["a"]], x[seen["b"]]])
        task = torch.tensor([0] * int(seen["a"].sum()) + [1] * int(seen["b"].sum()))
        noises = torch.stack([noise_of(model, name) for name in y])[task]
        level, labels = torch.stack(list(model.offsets)), torch.cat([y[name][seen[name]] for name in y])
        new = torch.randn(5, 2, generator=seeded(1), dtype=torch.float64)
        c, b = torch.stack(list(model.coefficients)).mT, model.task_covariance()

        def between(one, ones_task, other, others_task):
            parts = model.processes.kernel(one, other).to_dense().expand(latents, -1, -1)
            return (c[:, ones_task, None] * parts * c[:, None, others_task]).sum(0)

        covariance = between(places, task, places, task) + torch.diag(noises)
        exact = torch.distributions.MultivariateNormal(level[task], covariance)
        drawn = bmtl.draw(model, model.guide(), new, batch_size=2)
        for i, name in enumerate(y):
            across = between(new, torch.full((5,), i), places, task)
            mean = level[i] + across @ torch.linalg.solve(covariance, labels - level[task])
            variance = b[i, i] - (across * torch.linalg.solve(covariance, across.mT).mT).sum(1)
            np.testing.assert_allclose(drawn.targets[name].mean, mean.numpy(), atol=1e-3)
            np.testing.assert_allclose(drawn.targets[name].aleatoric, noise_of(model, name).item(), rtol=1e-6)
            ratio = drawn.targets[name].epistemic / variance.numpy()
            assert np.abs(ratio - 1).max() > 0.1 if joint is False else np.abs(ratio - 1).max() < 2e-3
        gap = exact.log_prob(labels).item() - model.elbo(inputs, given).item()
    assert gap > 0.01 if joint is False else 0 < gap < 2e-3


def test_drawn_kl_agrees_with_the_closed_form_and_losses_have_no_noise():
    x, y = batch()
    model = shaken(program(latents=2))
    exact = losses(model, x, y)
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = [losses(model, x, y, "mc", num_particles=50, vectorize_particles=True) for _ in range(20)]
    kl = torch.stack([terms.shared for terms in drawn])
    assert (kl.mean() - exact.shared).abs() < 4 * kl.std() / math.sqrt(len(kl))
    torch.testing.assert_close(drawn[0].nll, exact.nll)


@pytest.mark.parametrize("missing", [0, 6, 20])
def test_losses_are_expected_densities_of_the_labelled_rows(missing):
    """By Gauss-Hermite quadrature over each function's marginal; with N / B."""
    x, y = batch(missing=missing)
    model = shaken(program(n_data={"a": 40, "b.1": 60, "c": 100}))
    found = losses(model, x, y)
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    with torch.no_grad():
        mean, covariance = (part.double().numpy() for part in model.processes.moments(x))
    for i, name in enumerate(TARGETS):
        c = model.coefficients[i].detach().double().numpy()
        f, v = c @ mean + model.offsets[i].item(), covariance @ c @ c
        values = f[:, None] + np.sqrt(v)[:, None] * nodes
        s2 = noise_of(model, name).item()
        log_p = -0.5 * (y[name].numpy()[:, None] - values) ** 2 / s2 - 0.5 * math.log(2 * math.pi * s2)
        expected = -(log_p @ weights / weights.sum())[missing:].sum() * model.n_data[name] / 20
        assert found.nll[i].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert found.labelled.tolist() == [20 - missing] * 3


# ---- Training and predictions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["icm", "lmc"])
@pytest.mark.parametrize("balancer", ["ew", "full >> pcgrad", "last-layer >> nash-mtl", "representation >> imtl-g"])
def test_balancers_run_on_it_and_every_parameter_moves(balancer, kernel):
    x, y = batch(missing=3)
    model = program(kernel=kernel)
    svi = bmtl.BalancedSVI(model, model.guide(), ADAM, balancer, bmtl.TaskELBO("analytic"))
    before = None
    for i in range(3):
        record = svi.step(x if i else PerTask(dict.fromkeys(TARGETS, x)), y)
        assert record.losses.isfinite().all()
        if not i:
            before = {name: value.clone() for name, value in model.named_parameters()}
    assert not [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert model.tasks == record.names == TARGETS


def test_own_inputs_that_are_equal_give_what_common_inputs_give():
    x, y = batch(missing=3)
    model = shaken(program(n_data={"a": 40, "b.1": 50, "c": 60}))
    common, own = losses(model, x, y), losses(model, PerTask(dict.fromkeys(TARGETS, x)), y)
    torch.testing.assert_close(common.nll, own.nll)
    torch.testing.assert_close(common.counts, own.counts)
    assert len(common.marks.tensors) == 2
    assert len(own.marks.tensors) == 6


def test_vectorised_particles_are_the_looped_ones():
    x, y = batch(missing=4)
    model = shaken(program())
    one, many = (losses(model, x, y, **o) for o in ({}, {"num_particles": 3, "vectorize_particles": True}))
    for field in ("nll", "shared", "counts"):
        torch.testing.assert_close(getattr(many, field), getattr(one, field))


def test_a_deep_kernel_trains_its_trunk():
    x, y = batch()
    trunk = mlp(2, (4,), generator=seeded())
    model = program(4, trunk=trunk)
    svi = bmtl.BalancedSVI(model, model.guide(), ADAM, "last-layer >> nash-mtl", bmtl.TaskELBO("analytic"))
    for _ in range(2):  # at the prior, where the guide starts, a place says nothing
        svi.step(x, y)
    assert all(p.grad is not None and p.grad.any() for p in trunk.parameters())


def test_inducing_points_start_on_rows_of_the_first_batch_and_are_part_of_the_state():
    x, y = batch()
    model = program()
    given = torch.randn(5, 2, generator=seeded(9))
    fixed = program(inducing=given)
    for m in (model, fixed):
        with torch.no_grad():
            losses(m, x, y)
    assert all((place == x).all(-1).any() for place in model.processes.places)
    torch.testing.assert_close(fixed.processes.places, given)
    again = program(seed=1)
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        losses(again, x + 1, y)
    torch.testing.assert_close(again.processes.places, model.processes.places)


def test_predictions_follow_the_parameters_and_split_their_variance():
    """Nothing remembered from an earlier step, and one component without latents."""
    x, y = batch()
    model = program()
    svi = bmtl.BalancedSVI(model, model.guide(), ADAM, elbo=bmtl.TaskELBO("analytic"))
    svi.step(x, y)
    first = bmtl.draw(model, svi.guide, x, y, num_draws=5)
    for _ in range(3):
        svi.step(x, y)
    second = bmtl.draw(model, svi.guide, x, y, num_draws=5, batch_size=7)
    fresh = program(seed=3)
    fresh.load_state_dict(model.state_dict())
    third = bmtl.draw(fresh, fresh.guide(), x, y, num_draws=5)
    for name in TARGETS:
        assert np.abs(first.targets[name].mean - second.targets[name].mean).max() > 1e-4
        np.testing.assert_allclose(second.targets[name].mean, third.targets[name].mean, atol=1e-5)
        noise = noise_of(model, name).item()
        np.testing.assert_allclose(second.targets[name].aleatoric, noise, rtol=1e-5)
        scale = second.targets[name].law.parameters["scale"]
        assert scale.shape == (1, 20)
        np.testing.assert_allclose(
            scale[0] ** 2, second.targets[name].aleatoric + second.targets[name].epistemic, rtol=1e-4
        )
    far = bmtl.draw(model, svi.guide, x + 100)
    c = model.task_covariance().diagonal().detach().numpy()
    np.testing.assert_allclose([far.targets[name].epistemic[0] for name in TARGETS], c, rtol=1e-3)


def test_related_tasks_are_found_and_help_each_other():
    """Task b is task a with the sign turned, c is by itself; b's labels stop where a's go on."""
    n = 60
    x = 3 * torch.rand(n, 1, generator=seeded(0)) - 1.5
    noise = 0.1 * torch.randn(3, n, generator=seeded(1))
    a = torch.sin(3 * x[:, 0])
    y = {"a": a + noise[0], "b": -a + noise[1], "c": torch.cos(5 * x[:, 0]) + noise[2]}
    right = x[:, 0] > 0.5
    hidden = y["b"][right].clone()
    y["b"] = torch.where(right, torch.nan, y["b"])
    model = program(1, tuple(y), n, inducing=16, lengthscale=0.5, seed=2)
    svi = bmtl.BalancedSVI(model, model.guide(), ADAM, elbo=bmtl.TaskELBO("analytic"))
    for _ in range(120):
        svi.step(x, y)
    drawn = bmtl.draw(model, svi.guide, x, y)
    correlation = drawn.posterior["task_correlation"][0]
    np.testing.assert_allclose(correlation.diagonal(), 1, rtol=1e-5)
    assert correlation[0, 1] < -0.8
    error = np.abs(drawn.targets["b"].mean[right.numpy()] - hidden.numpy()).mean()
    assert error < 0.35, "their mean absolute value is 0.6"


@pytest.mark.parametrize("noise", ["parameter", "fixed"])
def test_labels_in_units_are_what_standardised_ones_are(noise):
    """A start at the labels' mean and spread: the same fit, the density per unit."""
    x, y = batch(missing=3)
    raw = {name: 100 + 7 * labels for name, labels in y.items()}
    ours = program(targets={name: Gaussian(noise) for name in TARGETS}, labels=y)
    theirs = program(targets={name: Gaussian(noise) for name in TARGETS}, labels=raw)
    units = [of.unit.item() for of in theirs.likelihoods.values()]
    same = losses(ours, x, {n: (v - v[3:].mean()) / v[3:].std(correction=0) for n, v in y.items()})
    for likelihood in ours.likelihoods.values():
        likelihood.location.zero_(), likelihood.unit.fill_(1.0)
    same = losses(ours, x, {n: (v - v[3:].mean()) / v[3:].std(correction=0) for n, v in y.items()})
    found = losses(theirs, x, raw)
    per_unit = 0.0 if noise == "fixed" else 34 * torch.tensor(units).log()
    torch.testing.assert_close(found.nll, same.nll + per_unit, rtol=1e-4, atol=1e-3)
    predicted = bmtl.draw(theirs, theirs.guide(), x).targets["a"]
    np.testing.assert_allclose(predicted.mean, theirs.likelihoods["a"].location.item(), rtol=1e-5)
    if noise == "fixed":
        assert theirs.noise_from_validation
        theirs.set_noise({"a": 3.0})
        np.testing.assert_allclose(bmtl.draw(theirs, theirs.guide(), x).targets["a"].aleatoric, 9.0, rtol=1e-5)
        theirs.calibrate(theirs.guide(), x, raw)
        drawn = bmtl.draw(theirs, theirs.guide(), x).targets["a"]
        residual = raw["a"][3:].numpy() - drawn.mean[3:]
        np.testing.assert_allclose(drawn.aleatoric, np.mean(residual**2), rtol=1e-4)


# ---- Where it starts -------------------------------------------------------------------------------------------------


def test_the_elbo_without_pyro_is_that_of_the_program():
    x, y = batch(missing=4)
    model = shaken(program(n_data={"a": 40, "b.1": 50, "c": 60}))
    for inputs in (x, PerTask(dict.fromkeys(TARGETS, x))):
        assert model.elbo(inputs, y).item() == pytest.approx(-losses(model, inputs, y).total.item(), rel=1e-5)


def test_coefficients_start_at_the_labels_correlations():
    """Of rows with both labels; what they do not decide, and targets with rows of their own, start apart."""
    _, y = batch(40)
    y["b.1"] = -0.9 * y["a"] + 0.3 * y["b.1"]
    y["b.1"][:20] = math.nan
    y["c"] = torch.where(y["b.1"].isnan(), y["c"], math.nan)  # no row has both
    found = program(labels=y).task_covariance()
    torch.testing.assert_close(found.diagonal(), torch.ones(3), atol=0.05, rtol=0)
    assert found[0, 1].item() == pytest.approx(
        torch.corrcoef(torch.stack([y["a"], y["b.1"]])[:, 20:])[0, 1].item(), abs=0.05
    )
    assert abs(found[1, 2]) < 0.05
    assert program(labels=y, latents=2).task_covariance().shape == (3, 3)
    wide = program(labels=y, latents=5)
    torch.testing.assert_close(wide.task_covariance(), found, atol=0.01, rtol=0)
    own = {name: labels[: 10 + i] for i, (name, labels) in enumerate(y.items())}
    torch.testing.assert_close(program(labels=own).task_covariance(), torch.eye(3), atol=0.01, rtol=0)


def half_hidden(seed=0, n=50, sign=1.0):
    """Two tasks with one function; b has no label in half of the space."""
    random = np.random.default_rng(seed)
    x = random.uniform(-2, 2, (n, 2))
    f = np.sin(2 * x[:, 0]) + 0.5 * x[:, 1] ** 2
    f = (f - f.mean()) / f.std()
    truth = sign * f + 0.05 * random.normal(size=n)
    hidden = x[:, 0] > 0
    y = {"a": f + 0.05 * random.normal(size=n), "b": np.where(hidden, np.nan, truth)}
    return torch.tensor(x).float(), {name: torch.tensor(v).float() for name, v in y.items()}, truth, hidden


@pytest.mark.parametrize(("seed", "sign"), [(0, 1.0), (1, -1.0), (3, 1.0)])
def test_half_of_a_tasks_labels_missing_is_no_matter_of_the_seed(seed, sign):
    """From random coefficients the error is about .05 on three seeds and .15 and more on two, as if b had no a."""
    x, y, truth, hidden = half_hidden(sign=sign)
    spec = DataSpec({"a": Real(), "b": Real()}, len(x), {"kind": "table", "width": 2}, support=(x, y))
    model, guide = recipes.gaussian_process(spec, trunk=None, generator=seeded(seed), inducing=25)
    torch.manual_seed(seed)
    svi = bmtl.BalancedSVI(model, guide, functools.partial(torch.optim.Adam, lr=0.02), elbo=bmtl.TaskELBO("analytic"))
    for _ in range(200):
        svi.step(x, y)
    error = np.abs(bmtl.draw(model, guide, x).targets["b"].mean - truth)[hidden].mean()
    assert error < 0.08


class TwoOptima(torch.nn.Module):
    """An ELBO with optima at -1 and at 1, which is the higher one; its target has no label in one row."""

    def __init__(self, start):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(start))
        self.placed_on = []

    def elbo(self, x, y):
        return (x * (0.3 * self.w - (self.w**2 - 1) ** 2)).sum()

    def means(self, x):
        return {"a": self.w * x}

    def place(self, x):
        self.placed_on.append(len(x))


def test_the_best_start_is_that_of_the_highest_elbo_and_disagreement_is_said(caplog):
    x, y = torch.ones(3), {"a": torch.tensor([0.5, 1.5, math.nan])}
    found = best_start({"left": lambda: TwoOptima(-0.4), "right": lambda: TwoOptima(0.2)}, x, y)
    assert found.w.item() == pytest.approx(0.2), "as it was before the steps"
    assert not found.placed_on
    assert "disagree where labels are missing" in caplog.text
    assert "best (right) by {'left': 3." in caplog.text  # 2 apart, and labels have a spread of a half
    caplog.clear()
    best_start({"one": lambda: TwoOptima(0.3), "another": lambda: TwoOptima(1.5)}, x, y)
    best_start(
        {"left": lambda: TwoOptima(-0.4), "right": lambda: TwoOptima(0.2)}, x, {"a": torch.tensor([0.5, 1.5, 1.0])}
    )
    caplog.clear()
    for labels in ([0.5, 0.5, math.nan], [math.nan, 0.5, math.nan]):  # in the labels' unit, where they do not spread
        best_start({"left": lambda: TwoOptima(-0.4), "right": lambda: TwoOptima(0.2)}, x, {"a": torch.tensor(labels)})
        assert "{'left': 1.9" in caplog.text
        caplog.clear()
    assert best_start({"alone": lambda: TwoOptima(-0.4)}, x, y).w.item() == pytest.approx(-0.4)
    assert not caplog.text


def test_a_start_that_ends_nowhere_is_not_the_best(caplog):
    x, y = torch.ones(3), {"a": torch.tensor([0.5, 1.5, math.nan])}
    found = best_start({"lost": lambda: TwoOptima(1e30), "left": lambda: TwoOptima(-0.4)}, x, y)
    assert found.w.item() == pytest.approx(-0.4)


def test_starts_are_tried_on_a_few_hundred_rows_of_each_target():
    tried = []

    class Watched(TwoOptima):
        def place(self, x):
            tried.append({name: len(part) for name, part in x.items()} if isinstance(x, PerTask) else len(x))

        def elbo(self, x, y):
            return -self.w.square()

        def means(self, x):
            return {}

    makes = dict.fromkeys(("one", "another"), lambda: Watched(1.0))
    best_start(makes, torch.ones(5000, 2), {"a": torch.ones(5000)}, steps=1)
    own = PerTask({"a": torch.ones(5000, 2), "b": torch.ones(7, 2)})
    best_start(makes, own, {"a": torch.ones(5000), "b": torch.ones(7)}, steps=1)
    assert tried == [256, 256, {"a": 256, "b": 7}, {"a": 256, "b": 7}]


def test_the_recipe_names_what_it_cannot_take():
    x, y, *_ = half_hidden()
    spec = DataSpec({"a": Real(), "b": Count()}, len(x), {"kind": "table", "width": 2}, support=(x, y))
    with pytest.raises(ValueError, match="Target 'b' has 'poisson'"):
        recipes.gaussian_process(spec, trunk=None, generator=seeded())
    with pytest.raises(ValueError, match="restarts is a number of starts, from 1"):
        recipes.gaussian_process(spec, trunk=None, generator=seeded(), restarts=0)
    assert recipes.gaussian_process.requires_support
    assert not recipes.gaussian_process.keeps_support, "a fitted one has no start to choose"


# ---- Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "rbf"}, "kernel is one of 'icm', 'lmc', and 'rbf'"),
        ({"latents": 0}, "latents is above 0, and 0 was given"),
        ({"inducing": 0}, "inducing is above 0"),
        ({"lengthscale": -1.0}, "lengthscale is above 0, and -1.0"),
        ({"inducing": torch.zeros(4, 3)}, r"Inducing points are \(M, 2\), and \(4, 3\)"),
        ({"n_data": {"a": 3}}, "n_data lacks the targets"),
        ({"targets": {"a": StudentT()}}, "Target 'a' has 'student-t' with noise='parameter'"),
        ({"targets": {"a": Gaussian(), "b": Poisson()}}, "Target 'b' has 'poisson'"),
        ({"targets": {"a": Gaussian("latent")}}, "Target 'a' has 'gaussian' with noise='latent'"),
        ({"targets": {"a": Gaussian(censored=True)}}, "Gaussian ones of exact labels"),
    ],
)
def test_a_wrong_option_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        program(**options)


def test_a_wrong_batch_is_told():
    x, y = batch()
    model = program()
    for inputs, labels, error, message in (
        (PerTask({"a": x}), y, ValueError, r"x has inputs for \['a'\], and the program also has 'b.1'"),
        (x, {"a": y["a"]}, ValueError, r"The batch has targets \['a'\], and the program also has 'b.1'"),
        (x, y | {"c": y["c"][:, None]}, ValueError, r"'y_c' was given targets of shape \(20, 1\)"),
        (x, y | {"c": y["c"].long()}, TypeError, "'y_c' has a continuous distribution"),
    ):
        with pytest.raises(error, match=message):
            losses(model, inputs, labels)


def test_a_generator_gives_the_same_program_and_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    x, y = batch()
    one, other, another = (losses(program(seed=s), x, y).nll for s in (3, 3, 4))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not torch.equal(one, another)
    trace = poutine.trace(program()).get_trace(x)
    assert not trace.nodes["y_a"]["is_observed"]
    assert not list(poutine.trace(program().guide()).get_trace(x).stochastic_nodes)
    torch.set_rng_state(before)


def test_the_models_import_without_gpytorch():
    code = "import sys; sys.modules['gpytorch'] = None; import bmtl.models\ntry:\n    import bmtl.models.gaussian_process\n"
    code += "except ImportError as error:\n    assert 'bmtl[gp]' in str(error)\nelse:\n    raise AssertionError"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
