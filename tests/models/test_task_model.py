import functools
import itertools
import math

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import integrate, optimize, stats
from torch import nn

import bmtl
from bmtl.inference.balancing import Context
from bmtl.inputs import PerTask
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Gaussian
from bmtl.models.representations import Bottleneck, Deterministic
from tests.models.programs import log_variance, losses, minimise, seeded, task_model

TARGETS = {"a": 0, "c": 3, "b": 0}  # number of classes, 0 for a real target
ADAM = functools.partial(torch.optim.Adam, lr=1e-2)


def program(targets=TARGETS, n_data=40, seed=0, **options):
    generator = seeded(seed)
    return task_model(mlp(3, (6,), generator=generator), 6, targets, n_data, generator=generator, **options)


def batch(rows=20, seed=0, missing=0):
    """Inputs and targets of TARGETS; the first `missing` labels of each are left out."""
    generator = seeded(seed)
    x = torch.randn(rows, 3, generator=generator)
    y = {
        "a": torch.randn(rows, generator=generator),
        "c": torch.randint(0, 3, (rows,), generator=generator),
        "b": torch.randn(rows, generator=generator),
    }
    for name, empty in (("a", math.nan), ("c", -1), ("b", math.nan)):
        y[name][:missing] = empty
    return x, y


def known_mean(width, targets, n_data, **options):
    """A program in float64 whose linear heads hand on column i of x for target i (a class: the logits), frozen."""
    model = task_model(nn.Identity(), width, targets, n_data, **options).double()
    column = 0
    for name, classes in targets.items():
        (head,) = model.heads.of(name)
        head.bias.data.zero_()
        head.weight.data = torch.eye(width, dtype=torch.float64)[column : column + (classes or 1)]
        head.requires_grad_(False)
        column += classes or 1
    return model


# ---- Every choice ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classification", ["exact", "kendall"])
@pytest.mark.parametrize("real", ["gaussian", "laplace"])
@pytest.mark.parametrize("head", ["linear", "bayesian"])
@pytest.mark.parametrize("noise", ["fixed", "parameter", "latent"])
def test_every_choice_trains_with_either_guide_and_predicts(noise, head, real, classification):
    x, y = batch(missing=5)
    for kind, estimator in itertools.product(("normal", "point"), ("mc", "analytic")):
        model = program(noise=noise, head=head, real=real, classification=classification)
        svi = bmtl.BalancedSVI(model, guide := model.guide(kind), ADAM, elbo=bmtl.TaskELBO(estimator))
        before = {name: p.detach().clone() for name, p in svi.module.named_parameters()}
        for _ in range(2):
            record = svi.step(x, y)
        assert record.names == tuple(TARGETS)
        assert record.losses.isfinite().all()
        still = {name for name, p in svi.module.named_parameters() if torch.equal(p, before[name])}
        assert not still, "every parameter has a gradient"
        trace = poutine.trace(poutine.replay(model, poutine.trace(guide).get_trace(x))).get_trace(x)
        drawn = {name: site["value"] for name, site in trace.nodes.items() if name.startswith("y_")}
        assert list(drawn) == ["y_a", "y_c", "y_b"]
        assert all(value.shape == (20,) for value in drawn.values())
        assert not trace.observation_nodes, "prediction observes nothing"


def test_latents_follow_the_models_order_and_names():
    model = program({"b.1": 0, "c": 3}, noise="latent", head="bayesian")
    x, y = torch.zeros(4, 3), {"b.1": torch.zeros(4), "c": torch.zeros(4, dtype=torch.long)}
    expected = ["head_b.1", "log_variance_b.1", "head_c", "log_variance_c"]
    assert list(model.guide().latents) == expected
    assert [n for n in poutine.trace(model).get_trace(x, y).stochastic_nodes if not n.endswith("_rows")] == expected


def test_a_generator_gives_the_same_program_and_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    for head in ("linear", "bayesian"):
        one, other = (nn.ModuleList([m := program(seed=3, head=head), m.guide()]) for _ in range(2))
        another = program(seed=4, head=head).guide() if head == "bayesian" else program(seed=4, head=head)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
        first = next(iter(one[1].parameters() if head == "bayesian" else one[0].heads.parameters()))
        against = next(iter(another.parameters() if head == "bayesian" else another.heads.parameters()))
        assert not torch.equal(first, against)
    assert torch.equal(before, torch.get_rng_state())


def test_linear_and_bayesian_heads_start_at_the_same_function():
    x, y = batch()
    linear, bayesian = (program(head=head, noise="fixed") for head in ("linear", "bayesian"))
    torch.testing.assert_close(losses(linear, x, y).nll, losses(bayesian, x, y, bayesian.guide("point")).nll)


@pytest.mark.parametrize("options", [{"noise": "latent"}, {"noise": "latent", "head": "bayesian"}, {"noise": "fixed"}])
def test_own_inputs_that_are_equal_give_what_common_inputs_give(options):
    x, y = batch(missing=3)
    model = program(n_data={"a": 40, "b": 50, "c": 60}, **options)
    guide = model.guide("point")
    common, own = losses(model, x, y, guide), losses(model, PerTask(dict.fromkeys(TARGETS, x)), y, guide)
    torch.testing.assert_close(common.nll, own.nll)
    torch.testing.assert_close(common.counts, own.counts)


def test_own_inputs_may_have_different_numbers_of_rows():
    model = program(noise="parameter")
    x = PerTask({name: torch.randn(rows, 3, generator=seeded(rows)) for name, rows in (("a", 5), ("c", 8), ("b", 2))})
    y = {"a": torch.zeros(5), "c": torch.zeros(8, dtype=torch.long), "b": torch.zeros(2)}
    found = losses(model, x, y)
    for i, name in enumerate(TARGETS):
        alone = losses(model, x[name], {n: y[name][:].to(y[n].dtype) for n in TARGETS})
        assert found.nll[i].item() == pytest.approx(alone.nll[i].item(), rel=1e-5)
    assert found.counts.tolist() == [40, 40, 40]


@pytest.mark.parametrize("own", [False, True])
def test_the_representation_is_marked_once_for_each_input(own):
    x, y = batch()
    marks = losses(program(), PerTask(dict.fromkeys(TARGETS, x)) if own else x, y).marks.tensors
    assert [h.shape for h in marks] == [(20, 6)] * (3 if own else 1)


# ---- Densities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("real", ["gaussian", "laplace"])
@pytest.mark.parametrize("missing", [0, 7, 20])
def test_losses_are_scipys_densities_of_the_labelled_rows(real, missing):
    x, y = batch(missing=missing)
    n_data = {"a": 40, "b": 100, "c": 60}
    model = program(n_data=n_data, noise="parameter", real=real)
    variances = dict(zip(TARGETS, (0.6, -0.8, 1.5), strict=True))
    for name, s in variances.items():
        log_variance(model, name).data.fill_(s / 10)
    found = losses(model, x, y)
    with torch.no_grad():
        h = model.representation.trunk(x)
        f = {name: model.heads(name, h, None).squeeze(-1).numpy() for name in TARGETS}
    family = stats.norm if real == "gaussian" else stats.laplace
    for i, name in enumerate(TARGETS):
        rows = slice(missing, None)
        if name == "c":
            logits = torch.tensor(f[name] * np.exp(-variances[name]))
            log_p = torch.log_softmax(logits, -1)[torch.arange(20), y[name].clamp_min(0)].numpy()[rows]
        else:
            log_p = family(f[name], np.exp(variances[name] / 2)).logpdf(y[name].numpy())[rows]
        assert found.nll[i].item() == pytest.approx(-log_p.sum() * n_data[name] / 20, rel=1e-5, abs=1e-6)
        assert found.counts[i].item() == pytest.approx((20 - missing) * n_data[name] / 20)


@pytest.mark.parametrize(("real", "loss"), [("gaussian", lambda r: r**2 / 2), ("laplace", abs)])
def test_fixed_noise_trains_on_errors_without_a_constant_whatever_is_set_for_predictions(real, loss):
    x, y = batch(missing=4)
    model = program({"a": 0, "b": 0}, noise="fixed", real=real)
    before = losses(model, x, y).nll
    model.set_noise({"a": 0.2})
    torch.testing.assert_close(losses(model, x, y).nll, before)
    f = model.heads("a", model.representation.trunk(x), None).squeeze(-1)
    assert before[0].item() == pytest.approx(2 * loss(f - y["a"])[4:].sum().item(), rel=1e-5)
    trace = poutine.trace(model).get_trace(x)
    spread = math.sqrt(2.0) if real == "laplace" else 1.0
    assert trace.nodes["y_a"]["fn"].stddev.unique().item() == pytest.approx(0.2 * spread)
    assert trace.nodes["y_b"]["fn"].stddev.unique().item() == pytest.approx(1.0 * spread)


def test_kendalls_approximation_is_its_formula_and_predictions_are_exact():
    x, y = batch(missing=6)
    model = program({"c": 3}, n_data=20, noise="parameter", classification="kendall")
    log_variance(model, "c").data.fill_(0.09)
    f = model.heads("c", model.representation.trunk(x), None)
    ce = nn.functional.cross_entropy(f[6:], y["c"][6:], reduction="none")
    assert losses(model, x, y).nll.item() == pytest.approx((ce * math.exp(-0.9) + 0.45).sum().item(), rel=1e-5)
    predicted = poutine.trace(model).get_trace(x).nodes["y_c"]["fn"]
    torch.testing.assert_close(predicted.probs, torch.softmax(f * math.exp(-0.9), -1))
    exact = program({"c": 3}, n_data=20, noise="parameter", classification="exact")
    log_variance(model, "c").data.zero_()
    torch.testing.assert_close(losses(model, x, y).nll, losses(exact, x, y).nll)  # exact at sigma = 1


def test_missing_labels_reach_no_gradient():
    for noise, classification in itertools.product(("fixed", "latent"), ("exact", "kendall")):
        model = program(noise=noise, head="bayesian", classification=classification)
        guide = model.guide("point")
        x, y = batch(missing=20)
        losses(model, x, y, guide).nll.sum().backward()
        assert all(p.grad is None or not p.grad.any() for p in (*model.parameters(), *guide.parameters()))


# ---- Where the KL goes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spread_out():
    """A program and a guide whose KLs are known and differ by task."""
    model = program(noise="latent", head="bayesian", prior_scale=0.7, noise_prior=(0.3, 1.5))
    guide = model.guide(scale=0.4)
    expected = {}
    with torch.no_grad():
        for i, (name, q) in enumerate(guide.items()):
            q.loc.copy_(torch.randn(q.loc.shape, generator=seeded(i)) / q.lr_multiplier)
            prior = torch.distributions.Normal(*((0.0, 0.7) if name.startswith("head") else (0.3, 1.5)))
            posterior = torch.distributions.Normal(q.loc * q.lr_multiplier, torch.tensor(0.4))
            task = name.removeprefix("head_").removeprefix("log_variance_")
            kl = torch.distributions.kl_divergence(posterior, prior).sum().item()
            expected[task] = expected.get(task, 0.0) + kl
    return model, guide, expected


def test_the_kl_of_a_latent_is_its_tasks(spread_out):
    model, guide, expected = spread_out
    found = losses(model, *batch(), guide)
    assert dict(zip(found.names, found.kl.tolist(), strict=True)) == pytest.approx(expected, rel=1e-5)
    assert found.shared.item() == 0.0
    assert len({round(value, 3) for value in expected.values()}) == 3


def test_drawn_kl_agrees_with_the_closed_form(spread_out):
    model, guide, expected = spread_out
    torch.manual_seed(0)
    with torch.no_grad():
        options = {"num_particles": 50, "vectorize_particles": True}
        drawn = torch.stack([losses(model, *batch(), guide, "mc", **options).kl for _ in range(30)])
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - torch.tensor([expected[n] for n in TARGETS])).abs() < 4 * error).all()


@pytest.mark.parametrize(
    "options", [{"noise": "latent"}, {"head": "bayesian"}, {"noise": "latent", "head": "bayesian"}]
)
@pytest.mark.parametrize("classification", ["exact", "kendall"])
def test_vectorised_particles_are_the_looped_ones(options, classification):
    """With point masses every particle is the same: shapes and values must agree exactly."""
    x, y = batch(missing=4)
    model = program(classification=classification, **options)
    guide = model.guide("point")
    one = losses(model, x, y, guide)
    many = losses(model, x, y, guide, num_particles=3, vectorize_particles=True)
    for field in ("nll", "kl", "counts"):
        torch.testing.assert_close(getattr(many, field), getattr(one, field))


# ---- What is learnt, against the exact answer ------------------------------------------------------------------------


@pytest.mark.parametrize("real", ["gaussian", "laplace"])
def test_learnt_noise_is_that_of_the_residuals(real):
    n, truth = 4000, {"a": 0.5, "b": 3.0}
    generator = np.random.default_rng(0)
    family = stats.norm if real == "gaussian" else stats.laplace
    x = torch.tensor(generator.normal(size=(n, 2)))
    kinds = dict.fromkeys(truth, 0)
    y = {
        t: x[:, i] + torch.tensor(family.rvs(scale=s, size=n, random_state=i)) for i, (t, s) in enumerate(truth.items())
    }
    model = known_mean(2, kinds, n, noise="parameter", real=real)
    minimise(lambda: losses(model, x, y).total / n, model.parameters())
    for i, (name, sigma) in enumerate(truth.items()):
        found = torch.exp(log_variance(model, name) * 10 / 2).item()
        residual = (y[name] - x[:, i]).abs()
        at_rest = residual.square().mean().sqrt() if real == "gaussian" else residual.mean()
        assert found == pytest.approx(at_rest.item(), rel=1e-5)
        assert found == pytest.approx(sigma, rel=0.05)


def test_learnt_noise_trains_by_balanced_svi_too():
    n = 512
    x = torch.randn(n, 2, generator=seeded(0))
    noise = torch.randn(2, n, generator=seeded(1))
    y = {"a": x @ torch.tensor([1.0, -1.0]) + 0.1 * noise[0], "b": x @ torch.tensor([0.0, 2.0]) + 2.0 * noise[1]}
    model = task_model(nn.Identity(), 2, dict.fromkeys(y, 0), n, generator=seeded(2))
    svi = bmtl.BalancedSVI(model, model.guide(), functools.partial(torch.optim.Adam, lr=3e-2))
    for _ in range(250):
        svi.step(x, y)
    sigma = [torch.exp(log_variance(model, name) * 5).item() for name in y]
    assert sigma == pytest.approx([0.1 * noise[0].std().item(), 2.0 * noise[1].std().item()], rel=0.03)


def test_noise_in_the_program_is_uncertainty_weighting_outside_it():
    """Point sigma with EW is the unit-variance program with UW on L = 2 NLL, at every sigma; see Kendall et al."""
    x, y = batch()
    del y["c"]
    kinds = dict.fromkeys(y, 0)
    s = torch.tensor([0.7, -1.1])
    inside = program(kinds, noise="parameter")
    for name, value in zip(kinds, s, strict=True):
        log_variance(inside, name).data.fill_(value / 10)
    terms = losses(inside, x, y)
    (terms.nll / terms.counts).sum().backward()

    outside = program(kinds, noise="fixed")
    uw = bmtl.balancer("uw").transform
    uw.bind(tuple(kinds))
    nn.utils.vector_to_parameters(s.double(), uw.parameters())
    terms_1 = losses(outside, x, y)
    unit = 2 * terms_1.nll / terms_1.counts
    objective = uw(unit.double(), Context(torch.ones(2, dtype=torch.bool)))
    objective.sum().backward()

    constant = 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close((terms.nll / terms.counts - constant).double(), objective, rtol=1e-5, atol=1e-6)
    same = zip((*inside.representation.parameters(), *inside.heads.parameters()), outside.parameters(), strict=True)
    for one, other in same:
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)
    slow = torch.stack([log_variance(inside, name).grad for name in kinds])
    own = torch.cat([parameter.grad.reshape(-1) for parameter in uw.parameters()])
    torch.testing.assert_close(slow / 10, own.float(), rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def latent_noise():
    """The best normal for s = log sigma^2 given 30 residuals, found by training, and the residuals."""
    n = 30
    residual = np.random.default_rng(0).normal(scale=0.5, size=n)
    model = known_mean(1, {"a": 0}, n, noise="latent", noise_prior=(0.0, 2.0))
    guide = model.guide(scale=0.3).double()
    x, y = torch.zeros(n, 1, dtype=torch.float64), {"a": torch.tensor(residual)}

    def loss():
        torch.manual_seed(0)  # the same particles each time make the loss deterministic
        return losses(model, x, y, guide, num_particles=4000, vectorize_particles=True).total

    minimise(loss, guide.parameters(), steps=40)
    fn = poutine.trace(guide).get_trace(x).nodes["log_variance_a"]["fn"]
    return fn.mean.item(), fn.stddev.item(), residual


def test_latent_noise_is_the_best_normal(latent_noise):
    """Under q(s) = N(m, v) the expected loss is closed: (a e^(-m + v/2) + n m) / 2 + KL, a the residuals' sum of squares."""
    mean, sd, residual = latent_noise
    n, a = len(residual), (residual**2).sum()

    def objective(p):
        m, v = p[0], math.exp(2 * p[1])
        kl = 0.5 * ((v + m * m) / 4 - 1 - math.log(v / 4))
        return 0.5 * (a * math.exp(-m + v / 2) + n * m) + kl

    best = optimize.minimize(objective, [0.0, -1.0], tol=1e-10).x
    assert mean == pytest.approx(best[0], abs=0.02)
    assert sd == pytest.approx(math.exp(best[1]), rel=0.03)


def test_latent_noise_is_near_its_exact_posterior(latent_noise):
    mean, sd, residual = latent_noise
    grid = np.linspace(-4, 2, 4001)
    log_p = stats.norm(0, 2).logpdf(grid) - 0.5 * (len(residual) * grid + (residual**2).sum() * np.exp(-grid))
    p = np.exp(log_p - log_p.max())
    p /= integrate.trapezoid(p, grid)
    exact_mean = integrate.trapezoid(p * grid, grid)
    exact_sd = math.sqrt(integrate.trapezoid(p * (grid - exact_mean) ** 2, grid))
    assert mean == pytest.approx(exact_mean, abs=0.1 * exact_sd)
    assert sd == pytest.approx(exact_sd, rel=0.05)


@pytest.fixture(scope="module")
def linear_gaussian():
    """A Bayesian head at sigma = 1 is Bayesian linear regression: precision and mean of its exact posterior."""
    n, width, scale = 25, 2, 0.8
    x = torch.randn(n, width, generator=seeded(0), dtype=torch.float64)
    y = {"a": x @ torch.tensor([1.0, -2.0], dtype=torch.float64) + torch.randn(n, generator=seeded(1))}
    model = task_model(nn.Identity(), width, {"a": 0}, n, noise="fixed", head="bayesian", prior_scale=scale)
    design = torch.cat([x, torch.ones(n, 1)], 1)
    precision = design.T @ design + torch.eye(width + 1) / scale**2
    return model, x, y, precision, torch.linalg.solve(precision, design.T @ y["a"])


def test_a_point_mass_on_the_head_is_the_maximum_a_posteriori(linear_gaussian):
    model, x, y, _, exact = linear_gaussian
    guide = model.guide("point").double()
    minimise(lambda: losses(model, x, y, guide).total, guide.parameters())
    torch.testing.assert_close(guide["head_a"].value.detach()[0], exact, rtol=1e-6, atol=1e-8)


def test_a_point_mass_on_latent_noise_is_the_maximum_a_posteriori():
    residual = np.random.default_rng(0).normal(scale=0.5, size=30)
    model = known_mean(1, {"a": 0}, 30, noise="latent")
    guide = model.guide("point").double()
    x, y = torch.zeros(30, 1, dtype=torch.float64), {"a": torch.tensor(residual)}
    minimise(lambda: losses(model, x, y, guide).total, guide.parameters())

    def negative_log_joint(s):
        return -stats.norm(0, 2).logpdf(s) - stats.norm(0, np.exp(s / 2)).logpdf(residual).sum()

    best = optimize.minimize_scalar(negative_log_joint, bounds=(-5, 5), method="bounded", options={"xatol": 1e-10})
    assert (guide["log_variance_a"].value * 10).item() == pytest.approx(best.x, abs=1e-6)
    assert losses(model, x, y, guide).total.item() == pytest.approx(best.fun, rel=1e-6)


def test_the_bayesian_head_is_the_best_mean_field(linear_gaussian):
    """The best independent normals have the exact means and the inverse diagonal of the exact precision."""
    model, x, y, precision, exact = linear_gaussian
    guide = model.guide(scale=0.2).double()

    def loss():
        torch.manual_seed(0)
        return losses(model, x, y, guide, num_particles=3000, vectorize_particles=True).total

    minimise(loss, guide.parameters(), steps=40)
    fn = poutine.trace(guide).get_trace(x).nodes["head_a"]["fn"]
    sd = precision.diagonal().rsqrt()
    assert ((fn.mean[0] - exact).abs() < 0.1 * sd).all()
    torch.testing.assert_close(fn.variance.sqrt()[0].detach(), sd, rtol=0.05, atol=0)


@pytest.fixture(scope="module")
def tempered():
    """Classes drawn at temperature sigma^2 = 2.5 from known logits."""
    n = 6000
    logits = 3 * torch.randn(n, 4, generator=seeded(0), dtype=torch.float64)
    drawn = torch.multinomial(torch.softmax(logits / 2.5, -1), 1, generator=seeded(1)).squeeze(-1)
    return logits, {"c": drawn}


@pytest.mark.parametrize("classification", ["exact", "kendall"])
def test_classification_noise_is_the_temperature_only_if_exact(tempered, classification):
    logits, y = tempered
    model = known_mean(4, {"c": 4}, len(logits), noise="parameter", classification=classification)
    minimise(lambda: losses(model, logits, y).total / len(logits), model.parameters())
    variance = torch.exp(log_variance(model, "c") * 10).item()
    ce = nn.functional.cross_entropy(logits, y["c"]).item()
    if classification == "exact":
        assert variance == pytest.approx(2.5, rel=0.05)
        p = torch.softmax(logits / variance, -1)  # at rest the mean logit under the model is that of the labels
        labelled = logits[torch.arange(len(logits)), y["c"]]
        assert (p * logits).sum(-1).mean().item() == pytest.approx(labelled.mean().item(), rel=1e-4)
    else:
        assert variance == pytest.approx(2 * ce, rel=1e-4)
        assert abs(variance - 2.5) > 0.1


# ---- What does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "learnt"}, "noise is one of 'fixed', 'parameter', 'latent', 'heteroscedastic', and 'learnt'"),
        ({"targets": {"a": 1}}, "There are 2 or more classes, and 1 was given"),
        ({"targets": {}}, "at least one name"),
        ({"n_data": {"a": 4, "b": 4}}, r"n_data lacks the targets \['c'\]"),
        ({"n_data": 0}, "n_data is a number of data, from 1, and 0"),
        ({"n_data": {"a": 4, "b": 4, "c": -1}}, "n_data is a number of data"),
        ({"head": "bayesian", "prior_scale": 0.0}, "prior_scale is a standard deviation, above 0"),
        ({"noise": "latent", "noise_prior": (0.0, -1.0)}, "A prior has a positive standard deviation, and -1.0"),
    ],
)
def test_a_wrong_option_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        program(**options)


@pytest.mark.parametrize("given", ["gaussian", Gaussian])
def test_what_is_no_likelihood_is_told(given):
    with pytest.raises(
        TypeError, match=r"The likelihood of 'a' is an object of .* such as Gaussian\(\), and .*aussian"
    ):
        TaskModel(nn.Linear(3, 4), 4, {"a": given}, 10)


@pytest.mark.parametrize("noise", ["fixed", "parameter", "latent"])
@pytest.mark.parametrize("classification", ["exact", "kendall"])
def test_a_wrong_batch_is_told(noise, classification):
    model = program(noise=noise, classification=classification)
    x, y = batch()
    wrong = [
        (x, {"a": y["a"], "c": y["c"]}, ValueError, r"targets \['a', 'c'\], and the program also has 'b'"),
        (x, y | {"b": y["b"][:, None]}, ValueError, r"'y_b' was given targets of shape \(20, 1\)"),
        (x, y | {"b": y["b"][:7]}, ValueError, r"'y_b' was given targets of shape \(7,\)"),
        (x, y | {"c": y["c"][:, None]}, ValueError, r"'y_c' was given targets of shape \(20, 1\)"),
        (x, y | {"c": y["c"].float()}, TypeError, "'y_c' is categorical, and its targets are torch.float32"),
        (x, y | {"b": y["c"]}, TypeError, "'y_b' has a continuous distribution, and its targets are torch.int64"),
        (x, y | {"c": y["c"] + 1}, ValueError, "'y_c': Expected value argument"),
        (x, y | {"b": y["b"].numpy()}, TypeError, "'y_b' was given targets of type ndarray"),
        (PerTask({"a": x, "b": x}), y, ValueError, r"x has inputs for \['a', 'b'\], and the program also has 'c'"),
        (dict.fromkeys(TARGETS, x), y, ValueError, r"x is a dict of the targets .*give bmtl.inputs.PerTask\(x\)"),
    ]
    for inputs, targets, error, message in wrong:
        with pytest.raises(error, match=message):
            losses(model, inputs, targets)


def test_targets_that_the_program_does_not_have_are_left_alone():
    x, y = batch()
    model = program()
    torch.testing.assert_close(losses(model, x, y | {"d": y["a"]}).nll, losses(model, x, y).nll)


def test_noise_is_set_by_hand_only_where_it_is_fixed():
    with pytest.raises(ValueError, match="Only what is fixed in training is set afterwards, and this is 'parameter'"):
        program(noise="parameter").set_noise({"a": 1.0})
    with pytest.raises(ValueError, match="sigma maps targets among"):
        program(noise="fixed").set_noise({"z": 1.0})
    for sigma in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="A noise is a standard deviation, above 0"):
            program(noise="fixed").set_noise({"a": sigma})


def test_a_guide_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="kind is one of 'normal', 'point', and 'delta'"):
        program(noise="latent").guide("delta")


def test_set_noise_is_part_of_the_state():
    model, fresh = program(noise="fixed"), program(noise="fixed", seed=1)
    model.set_noise({"a": 0.25})
    fresh.load_state_dict(model.state_dict())
    x, _ = batch()
    pyro.set_rng_seed(0)
    scale = poutine.trace(fresh).get_trace(x).nodes["y_a"]["fn"].stddev
    assert scale.unique().item() == pytest.approx(0.25)


@pytest.mark.parametrize("representation", [Deterministic, Bottleneck])
def test_a_trunk_of_another_width_is_named(representation):
    model = TaskModel(mlp(3, (5,)), 4, {"a": Gaussian()}, 6, representation=representation)
    x, y, guide = torch.zeros(6, 3), {"a": torch.zeros(6)}, model.guide()
    of = guide if representation is Bottleneck else model
    with pytest.raises(ValueError, match=r"width was given as 4, and the trunk returns features of the shape \(6, 5\)"):
        of(x, y)
