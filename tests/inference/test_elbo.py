"""TaskELBO against Pyro's own estimators, in value and in every gradient, and what it says about each task."""

import logging
import math
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal, AutoNormalMessenger
from pyro.infer.reparam import LocScaleReparam
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference import TaskELBO
from tests.inference.programs import (
    N_DATA,
    NAN,
    TASKS,
    Plate,
    PlateGuide,
    Program,
    Sites,
    SitesGuide,
    batch,
    double,
    nothing,
)

PYRO = {"mc": Trace_ELBO, "analytic": TraceMeanField_ELBO}
PARTICLES = {"one": {}, "looped": {"num_particles": 4}, "vectorised": {"num_particles": 4, "vectorize_particles": True}}


@pytest.fixture(autouse=True)
def _float64():
    pyro.clear_param_store()
    with double():
        yield


def parameters_of(model, guide):
    modules = nn.ModuleList([m for m in (model, guide) if isinstance(m, nn.Module)])
    return {name: p for name, p in modules.named_parameters() if p.requires_grad}


def gradients(value, parameters):
    found = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), found, strict=True)}


def same_as_pyro(model, guide, estimator, particles, args=None):
    """Holds `TaskELBO` equal to Pyro's estimator with the same seed; returns the last batch's losses."""
    args = batch() if args is None else args
    ours, theirs = TaskELBO(estimator, **particles), PYRO[estimator](**particles)
    torch.manual_seed(0)
    with poutine.trace():
        guide(*args)  # sets an autoguide up
    for elbo in (ours, theirs):  # vectorised particles: the nesting is found in a run of its own
        elbo.loss(model, guide, *args)
    parameters = parameters_of(model, guide)

    torch.manual_seed(1)
    expected = theirs.differentiable_loss(model, guide, *args)
    drawn = torch.get_rng_state()
    torch.manual_seed(1)
    losses = ours.task_losses(model, guide, *args)
    assert torch.equal(torch.get_rng_state(), drawn), "TaskELBO must draw nothing of its own"

    assert_close(losses.total, expected)
    torch.manual_seed(1)
    assert_close(ours.loss(model, guide, *args), expected.item())
    # The terms themselves, not `total`: what is lost on the way to a row must show.
    terms = [*losses.nll_terms, *losses.kl_terms, losses.shared]
    if losses.score is not None:
        scores = [*losses.score.nll, *losses.score.kl, losses.score.shared]
        assert all(term == 0 for term in scores)
        terms += scores
    reference = gradients(expected, parameters)
    assert_close(gradients(sum(terms), parameters), reference, rtol=1e-9, atol=1e-9)
    assert_close(gradients(losses.total, parameters), reference, rtol=1e-9, atol=1e-9)
    assert sum(bool(g.abs().sum() > 0) for g in reference.values()) > 0
    return losses


GUIDES = {
    "hand": lambda program: {Sites: SitesGuide, Plate: PlateGuide}[type(program)](),
    "normal": AutoNormal,
    "multivariate": AutoMultivariateNormal,
    "delta": AutoDelta,
    "messenger": AutoNormalMessenger,  # runs the model itself
}


@pytest.mark.parametrize("particles", PARTICLES.values(), ids=PARTICLES)
@pytest.mark.parametrize("family", GUIDES.values(), ids=GUIDES)
@pytest.mark.parametrize("model", [Sites, Plate])
@pytest.mark.parametrize("estimator", PYRO)
def test_the_terms_add_up_to_pyros_estimator(estimator, model, family, particles):
    program = model()
    guide = family(program)
    losses = same_as_pyro(program, guide, estimator, particles)
    assert losses.names == TASKS
    assert losses.score is None
    assert losses.labelled.tolist() == [6, 4, 2]


# ---- Features, each a model and a guide ------------------------------------------------------------------------------
#
# A program gets its parameters p, x (6, 3) and y by task. Latents: w shared, v task a's.


def likelihood(v_a, v_b, x, y, scale=1.0):
    for name, v in (("a", v_a), ("b", v_b)):
        with bmtl.task(name), pyro.plate(f"{name}_rows", N_DATA, subsample=x):
            bmtl.observe(f"y_{name}", dist.Normal(x[:, 0] * v, scale), y[name])


def simple_model(p, x, y):
    w = pyro.sample("w", dist.Normal(p["w0"], 1.0))
    with bmtl.task("a"):
        v = pyro.sample("v", dist.Normal(w, p["tau"].exp()))
    likelihood(v, w, x, y, p["sigma"].exp())


def simple_guide(p, x, y):
    w = pyro.sample("w", dist.Normal(p["loc"], p["rho"].exp()))
    pyro.sample("v", dist.Normal(p["loc_v"] + p["slope"] * w, 0.3))


NORMAL = (simple_model, simple_guide)


def wrapped(how):
    """Model and guide under a handler."""
    return [lambda p, x, y, program=program: how(program)(p, x, y) for program in NORMAL]


def weights_of_rows(p, x, y):
    w = pyro.sample("w", dist.Normal(p["w0"], 1.0))
    with bmtl.task("a"):
        v = pyro.sample("v", dist.Normal(w, p["tau"].exp()))
    with poutine.scale(scale=torch.linspace(0.1, 2.0, len(x))):
        likelihood(v, w, x, y, p["sigma"].exp())


def masked_rows(p, x, y):
    w = pyro.sample("w", dist.Normal(p["w0"], 1.0))
    with bmtl.task("a"):
        v = pyro.sample("v", dist.Normal(w, p["tau"].exp()))
    with poutine.mask(mask=x[:, 1] > 0):
        likelihood(v, w, x, y, p["sigma"].exp())
    with bmtl.task("c"), pyro.plate("c_rows", len(x)):
        pyro.sample("y_c", dist.Normal(w, 1.0).mask(x[:, 2] > 0), obs=x[:, 2])
    with bmtl.task("d"), pyro.plate("d_rows", len(x)), poutine.mask(mask=x[:, 1] > 0):
        pyro.sample("y_d", dist.Normal(w, 1.0).mask(x[:, 2] > 0), obs=x[:, 2])


def masked_prior(p, x, y):
    w = pyro.sample("w", dist.Normal(p["w0"], 1.0).mask(False))
    with bmtl.task("a"):
        v = pyro.sample("v", dist.Normal(w, p["tau"].exp()).mask(False))
    likelihood(v, w, x, y, p["sigma"].exp())


def masked_latents(p, x, y):
    with pyro.plate("latents", 4), poutine.mask(mask=torch.tensor([True, True, False, True])):
        w = pyro.sample("w", dist.Normal(p["w0"], 1.0))
    with bmtl.task("a"), pyro.plate("latents_a", 3), poutine.mask(mask=torch.tensor([True, False, False])):
        v = pyro.sample("v", dist.Normal(0.0, p["tau"].exp()))
    likelihood(v.sum(-1, True), w.sum(-1, True), x, y, p["sigma"].exp())


def masked_latents_guide(p, x, y):
    with pyro.plate("latents", 4), poutine.mask(mask=torch.tensor([True, True, False, True])):
        pyro.sample("w", dist.Normal(p["loc"], p["rho"].exp()))
    with pyro.plate("latents_a", 3), poutine.mask(mask=torch.tensor([True, False, False])):
        pyro.sample("v", dist.Normal(p["loc_v"] + p["slope"], 0.3))


def factors(p, x, y):
    w = pyro.sample("w", dist.Normal(p["w0"], 1.0))
    pyro.factor("shared_penalty", -w.square() * p["sigma"])
    with bmtl.task("a"):
        v = pyro.sample("v", dist.Normal(w, p["tau"].exp()))
        pyro.factor("penalty", -(v - p["tau"]).abs())
        with pyro.plate("factor_rows", len(x)):
            pyro.factor("row_penalty", -(x[:, 0] * v).square())
    likelihood(v, w, x, y, p["sigma"].exp())


def factor_guide(p, x, y, has_rsample):
    simple_guide(p, x, y)
    pyro.factor("guide_factor", p["loc"] * p["slope"], has_rsample=has_rsample)
    with bmtl.task("a"):
        pyro.factor("guide_factor_a", p["loc_v"].square(), has_rsample=has_rsample)


def auxiliary_guide(p, x, y):
    """One auxiliary site feeds the shared latent, one feeds task a's, and one marks its owner itself."""
    u = pyro.sample("w_unconstrained", dist.Normal(p["loc"], p["rho"].exp()), infer={"is_auxiliary": True})
    pyro.sample("w", dist.Delta(u * p["slope"], log_density=-p["slope"].abs().log()))
    u = pyro.sample("noise", dist.Normal(p["loc_v"], 1.0), infer={"is_auxiliary": True})
    pyro.sample("v", dist.Delta(u.sinh(), log_density=-u.cosh().log()))
    with bmtl.task("b"):
        pyro.sample("idle", dist.Normal(p["loc_v"], p["rho"].exp()), infer={"is_auxiliary": True})


def guide_of_the_observed(p, x, y):
    """Draws what the model observes, in a task and (a datum of its own) in none."""
    simple_guide(p, x, y)
    with pyro.plate("a_rows", N_DATA, subsample=x):
        pyro.sample("y_a", dist.Normal(p["loc_v"] * x[:, 1], p["rho"].exp()))
    pyro.sample("total", dist.Normal(p["slope"], 1.0))


def model_with_a_total(p, x, y):
    simple_model(p, x, y)
    pyro.sample("total", dist.Normal(p["w0"], 1.0), obs=torch.tensor(0.3))


def coin_of_the_observed(p, x, y):
    """Draws what the model observes, without reparameterisation."""
    simple_guide(p, x, y)
    pyro.sample("side", dist.Bernoulli(logits=p["slope"]))


def model_with_a_coin(p, x, y):
    simple_model(p, x, y)
    with bmtl.task("b"):
        pyro.sample("side", dist.Bernoulli(logits=p["w0"]), obs=torch.tensor(1.0))


def guide_observes_too(p, x, y):
    simple_guide(p, x, y)
    pyro.sample("total", dist.Normal(p["slope"], 1.0), obs=torch.tensor(0.3))


def plate_of_the_observed(p, x, y):
    w = pyro.sample("w", dist.Normal(p["w0"], 1.0))
    with bmtl.task_plate(TASKS, dim=-2):
        v = pyro.sample("v", dist.Normal(w, p["tau"].exp()))
        with pyro.plate("rows", N_DATA, subsample=x, dim=-1):
            bmtl.observe("y", dist.Normal(x[:, 0] * v, p["sigma"].exp()), torch.stack([y[name] for name in TASKS]))


def plate_of_the_observed_guide(p, x, y):
    pyro.sample("w", dist.Normal(p["loc"], p["rho"].exp()))
    with bmtl.task_plate(TASKS, dim=-2):
        pyro.sample("v", dist.Normal(p["loc_v"], p["rho"].exp()))
        with pyro.plate("rows", N_DATA, subsample=x, dim=-1):
            pyro.sample("y", dist.Normal(p["slope"] * x[:, 1], p["rho"].exp()))


def coins(p, x, y):
    """Latents without reparameterisation: shared, task a's, and one per datum of task b."""
    c = pyro.sample("c", dist.Bernoulli(p["w0"].sigmoid()))
    w = pyro.sample("w", dist.Normal(c, 1.0))
    with bmtl.task("a"):
        d = pyro.sample("d", dist.Bernoulli(logits=p["tau"] + w))
        v = pyro.sample("v", dist.Normal(d, 1.0))
        with pyro.plate("a_rows", N_DATA, subsample=x):
            bmtl.observe("y_a", dist.Normal(x[:, 0] * v + c, p["sigma"].exp()), y["a"])
    with bmtl.task("b"), pyro.plate("b_rows", N_DATA, subsample=x):
        e = pyro.sample("e", dist.Bernoulli(logits=x[:, 1] + p["w0"]))
        bmtl.observe("y_b", dist.Normal(x[:, 0] * w + e + d, p["sigma"].exp()), y["b"])


def coins_guide(p, x, y):
    pyro.sample("c", dist.Bernoulli(logits=p["loc"]))
    pyro.sample("w", dist.Normal(p["loc"], p["rho"].exp()))
    pyro.sample("d", dist.Bernoulli(logits=p["slope"]))
    pyro.sample("v", dist.Normal(p["loc_v"], 1.0))
    with pyro.plate("b_rows", N_DATA, subsample=x):
        pyro.sample("e", dist.Bernoulli(logits=p["slope"] * x[:, 2]))


def plate_of_coins(p, x, y):
    """Latents without reparameterisation: shared, one a row of the task plate, and one a datum in every row."""
    c = pyro.sample("c", dist.Bernoulli(p["w0"].sigmoid()))
    with pyro.plate("rows_of_all", len(x), dim=-1):
        f = pyro.sample("f", dist.Bernoulli(logits=x[:, 2]))
    with bmtl.task_plate(TASKS, dim=-2):
        d = pyro.sample("d", dist.Bernoulli(logits=p["tau"] + c))
        v = pyro.sample("v", dist.Normal(d, 1.0))
        with pyro.plate("rows", N_DATA, subsample=x, dim=-1):
            e = pyro.sample("e", dist.Bernoulli(logits=x[:, 1] + p["w0"]))
            y_all = torch.stack([y[name] for name in TASKS])
            bmtl.observe("y", dist.Normal(x[:, 0] * v + e + c + f, p["sigma"].exp()), y_all)


def plate_of_coins_guide(p, x, y):
    pyro.sample("c", dist.Bernoulli(logits=p["loc"]))
    with pyro.plate("rows_of_all", len(x), dim=-1):
        pyro.sample("f", dist.Bernoulli(logits=p["slope"] * x[:, 0]))
    with bmtl.task_plate(TASKS, dim=-2):
        pyro.sample("d", dist.Bernoulli(logits=p["slope"]))
        pyro.sample("v", dist.Normal(p["loc_v"], p["rho"].exp()))
        with pyro.plate("rows", N_DATA, subsample=x, dim=-1):
            pyro.sample("e", dist.Bernoulli(logits=p["slope"] * x[:, 2]))


def inner_task_plate(p, x, y):
    """The task plate is the inner one here, at dim -1."""
    with pyro.plate("rows", len(x), dim=-2):
        e = pyro.sample("e", dist.Bernoulli(logits=x[:, 1:2] + p["w0"]))
        with bmtl.task_plate(TASKS, dim=-1):
            g = pyro.sample("g", dist.Bernoulli(logits=p["tau"]))
            y_all = torch.stack([y[name] for name in TASKS], -1)
            bmtl.observe("y", dist.Normal(x[:, :1] * p["sigma"] + e + g, 1.0), y_all)


def inner_task_plate_guide(p, x, y):
    with pyro.plate("rows", len(x), dim=-2):
        pyro.sample("e", dist.Bernoulli(logits=p["slope"] * x[:, 2:]))
        with bmtl.task_plate(TASKS, dim=-1):
            pyro.sample("g", dist.Bernoulli(logits=p["loc"]))


def auxiliary_coin_guide(p, x, y):
    coin = pyro.sample("coin", dist.Bernoulli(logits=p["slope"]), infer={"is_auxiliary": True})
    pyro.sample("w", dist.Normal(p["loc"] + coin, p["rho"].exp()))
    pyro.sample("v", dist.Normal(p["loc_v"], 0.3))


def loops(p, x, y):
    """Plates that are looped over: of data, and of tasks."""
    w = pyro.sample("w", dist.Normal(p["w0"], 1.0))
    with bmtl.task("a"):
        v = pyro.sample("v", dist.Normal(w, p["tau"].exp()))
        for i in pyro.plate("a_rows", N_DATA, subsample=torch.arange(3)):
            pyro.sample(f"y_a{i}", dist.Normal(x[i, 0] * v, p["sigma"].exp()), obs=y["a"][i])
    for k in bmtl.task_plate(["b", "c"]):
        name = ("b", "c")[k]
        with pyro.plate(f"{name}_rows", N_DATA, subsample=x):
            bmtl.observe(f"y_{name}", dist.Normal(x[:, 0] * w, 1.0), y[name])


def nested_plates(p, x, y):
    w = pyro.sample("w", dist.Normal(p["w0"], 1.0))
    with bmtl.task("a"):
        v = pyro.sample("v", dist.Normal(w, p["tau"].exp()))
        with pyro.plate("rows", N_DATA, subsample=x, dim=-2), pyro.plate("channels", 3, dim=-1):
            bmtl.observe("y_a", dist.Normal(x * v, p["sigma"].exp()), torch.where(x > 1, NAN, x.sin()))
    with bmtl.task("b"), pyro.plate("b_rows", len(x)):
        pyro.sample("y_b", dist.MultivariateNormal(x * w, torch.eye(3)), obs=x.cos())


FEATURES = {
    "as it is": (NORMAL, "both"),
    "scaled": (wrapped(lambda program: poutine.scale(program, scale=0.3)), "both"),
    "scaled by a tensor": (wrapped(lambda program: poutine.scale(program, scale=torch.tensor(2.5))), "both"),
    "scaled model": ((wrapped(lambda program: poutine.scale(program, scale=0.3))[0], simple_guide), "both"),
    "weights of rows": ((weights_of_rows, simple_guide), "both"),
    "masked rows": ((masked_rows, simple_guide), "both"),
    "masked prior": ((masked_prior, simple_guide), "both"),
    "masked latents": ((masked_latents, masked_latents_guide), "both"),
    "factors": ((factors, simple_guide), "both"),
    "guide factor": ((factors, partial(factor_guide, has_rsample=True)), "both"),
    "guide factor, scored": ((factors, partial(factor_guide, has_rsample=False)), "mc"),
    "auxiliary": ((simple_model, auxiliary_guide), "both"),
    "auxiliary coin": ((simple_model, auxiliary_coin_guide), "mc"),
    "coins": ((coins, coins_guide), "mc"),
    "coins in a task plate": ((plate_of_coins, plate_of_coins_guide), "mc"),
    "inner task plate": ((inner_task_plate, inner_task_plate_guide), "mc"),
    "guide of the observed": ((model_with_a_total, guide_of_the_observed), "both"),
    "guide of the observed in a task plate": ((plate_of_the_observed, plate_of_the_observed_guide), "both"),
    "guide of an observed coin": ((model_with_a_coin, coin_of_the_observed), "mc"),
    "guide that observes too": ((model_with_a_total, guide_observes_too), "both"),
    "loops": ((loops, simple_guide), "both"),
    "nested plates": ((nested_plates, simple_guide), "both"),
}


def programs(feature):
    (model, guide), _ = FEATURES[feature]
    return (
        Program(model, w0=0.4, tau=-0.2, sigma=0.1),
        Program(guide, loc=0.3, rho=-0.7, loc_v=-0.4, slope=0.6),
    )


def runs():
    for feature, (_, estimators) in FEATURES.items():
        for estimator in ("mc", "analytic") if estimators == "both" else (estimators,):
            for name, particles in PARTICLES.items():
                yield pytest.param(feature, estimator, particles, id=f"{feature}-{estimator}-{name}")


@pytest.mark.filterwarnings("ignore:Found non-auxiliary vars in guide but not model")
@pytest.mark.parametrize(("feature", "estimator", "particles"), list(runs()))
def test_the_terms_add_up_with(feature, estimator, particles):
    losses = same_as_pyro(*programs(feature), estimator, particles)
    scored = {"guide factor, scored", "auxiliary coin", "coins", "coins in a task plate", "inner task plate"}
    scored.add("guide of an observed coin")
    assert (losses.score is not None) == (feature in scored)


@pytest.mark.parametrize("particles", PARTICLES.values(), ids=PARTICLES)
def test_the_terms_add_up_with_a_single_task_in_the_plate(particles):
    def model(p, x, y):
        c = pyro.sample("c", dist.Bernoulli(logits=p["w0"]))
        with bmtl.task_plate(["only"], dim=-2):
            d = pyro.sample("d", dist.Bernoulli(logits=p["w0"] + c))
            with pyro.plate("rows", N_DATA, subsample=x, dim=-1):
                bmtl.observe("y", dist.Normal(c + d * x[:, 0], 1.0), y["b"][None])

    def guide(p, x, y):
        pyro.sample("c", dist.Bernoulli(logits=p["loc"]))
        with bmtl.task_plate(["only"], dim=-2):
            pyro.sample("d", dist.Bernoulli(logits=p["slope"]))

    losses = same_as_pyro(Program(model, w0=0.3), Program(guide, loc=0.1, slope=-0.3), "mc", particles)
    assert losses.names == ("only",)
    assert losses.labelled.tolist() == [4]


@pytest.mark.parametrize("particles", PARTICLES.values(), ids=PARTICLES)
@pytest.mark.parametrize("estimator", PYRO)
def test_the_terms_add_up_for_a_reparameterised_model(estimator, particles):
    program = Sites()
    model = poutine.reparam(program, config={"w": LocScaleReparam(0.0), "v_a": LocScaleReparam(0.5)})
    guide = AutoNormal(model)
    losses = same_as_pyro(model, guide, estimator, particles)
    assert losses.names == TASKS
    assert losses.labelled.tolist() == [6, 4, 2]  # the decentred latents are no data
    assert losses.scales.tolist() == [N_DATA / 6] * 3


# ---- Whose is what ---------------------------------------------------------------------------------------------------


def known_kls(p, x, y):
    """q means 0, 1, 2 against N(0, 1): KLs 0, 1/2, 2; the shared latent's is 9/2."""
    pyro.sample("w", dist.Normal(0.0, 1.0))
    for name in TASKS:
        with bmtl.task(name):
            pyro.sample(f"v_{name}", dist.Normal(0.0, 1.0))


def known_kls_guide(p, x, y):
    for name, mean in zip(("w", "v_c", "v_a", "v_b"), (3.0, 2.0, 0.0, 1.0), strict=True):  # in an order of its own
        pyro.sample(name, dist.Normal(p["zero"] + mean, 1.0))


def known_kls_plate(p, x, y):
    pyro.sample("w", dist.Normal(0.0, 1.0))
    with bmtl.task_plate(TASKS):
        pyro.sample("v", dist.Normal(0.0, 1.0))


def known_kls_plate_guide(p, x, y):
    pyro.sample("w", dist.Normal(p["zero"] + 3.0, 1.0))
    with pyro.plate("task", 3):
        pyro.sample("v", dist.Normal(p["zero"] + torch.arange(3.0), 1.0))


@pytest.mark.parametrize("particles", PARTICLES.values(), ids=PARTICLES)
@pytest.mark.parametrize("pair", [(known_kls, known_kls_guide), (known_kls_plate, known_kls_plate_guide)])
@pytest.mark.filterwarnings("ignore:Failed to verify mean field")
def test_each_known_kl_lands_in_its_own_task(pair, particles):
    model, guide = (Program(program, zero=0.0) for program in pair)
    losses = TaskELBO("analytic", **particles).task_losses(model, guide, *batch())
    assert losses.names == TASKS
    assert_close(losses.kl, torch.tensor([0.0, 0.5, 2.0]), rtol=0, atol=1e-12)
    assert_close(losses.shared, torch.tensor(4.5), rtol=0, atol=1e-12)
    assert (losses.nll == 0).all()


@pytest.mark.parametrize("pair", [(known_kls, known_kls_guide), (known_kls_plate, known_kls_plate_guide)])
def test_a_drawn_kl_is_log_q_minus_log_p_at_its_own_draw(pair):
    model, guide = (Program(program, zero=0.0) for program in pair)
    torch.manual_seed(3)
    losses = TaskELBO("mc").task_losses(model, guide, *batch())
    torch.manual_seed(3)
    trace = poutine.trace(guide).get_trace(*batch())
    draws = {n: s["value"] for n, s in trace.nodes.items() if s["type"] == "sample" and n not in ("task", "_INPUT")}
    if "v" in draws:
        draws |= {f"v_{name}": value for name, value in zip(TASKS, draws["v"], strict=True)}
    expected = [
        dist.Normal(mean, 1.0).log_prob(draws[name]) - dist.Normal(0.0, 1.0).log_prob(draws[name])
        for name, mean in (("v_a", 0.0), ("v_b", 1.0), ("v_c", 2.0), ("w", 3.0))
    ]
    assert_close([*losses.kl, losses.shared], expected)


def test_an_autoguides_entropy_lands_in_the_task_of_its_latent():
    program = Sites()
    guide = AutoNormal(program, init_scale=0.1)
    elbo = TaskELBO()
    elbo.loss(program, guide, *batch())
    losses = elbo.task_losses(program, guide, *batch())
    own = parameters_of(guide, None)
    for k, name in enumerate(TASKS):
        reached = {n for n, g in gradients(losses.kl_terms[k], own).items() if g.abs().sum() > 0}
        assert reached == {f"0.{part}.{v}_{name}_unconstrained" for part in ("locs", "scales") for v in "vs"}
    reached = {n for n, g in gradients(losses.shared, own).items() if g.abs().sum() > 0}
    assert reached == {"0.locs.w_unconstrained", "0.scales.w_unconstrained"}


def test_auxiliary_sites_belong_to_the_task_that_they_feed():
    model, guide = programs("auxiliary")
    torch.manual_seed(0)
    losses = TaskELBO().task_losses(model, guide, *batch())
    own = parameters_of(guide, None)
    reach = {
        name: {n.removeprefix("0.p.") for n, g in gradients(term, own).items() if g.abs().sum() > 0}
        for name, term in [*zip(losses.names, losses.kl_terms, strict=True), ("shared", losses.shared)]
    }
    assert losses.names == ("a", "b")
    assert reach == {"a": {"loc", "rho", "loc_v", "slope"}, "b": {"rho"}, "shared": {"loc", "rho", "slope"}}


@pytest.mark.parametrize("estimator", PYRO)
@pytest.mark.parametrize("particles", PARTICLES.values(), ids=PARTICLES)
def test_no_tasks_loss_reaches_what_is_local_to_another(estimator, particles):
    args = batch()
    guide = SitesGuide()
    losses = TaskELBO(estimator, **particles).task_losses(Sites(), guide, *args)
    own = parameters_of(guide, None)
    for k, name in enumerate(TASKS):
        for term in (losses.nll_terms[k], losses.kl_terms[k]):
            reached = {n for n, g in gradients(term, own).items() if g.abs().sum() > 0}
            assert {n for n in reached if n[-1] in TASKS} == {n for n in own if n.endswith(f"_{name}")}

    guide = PlateGuide()
    losses = TaskELBO(estimator, **particles).task_losses(Plate(), guide, *args)
    own = parameters_of(guide, None)
    for k in range(len(TASKS)):
        for term in (losses.nll_terms[k], losses.kl_terms[k]):
            for name, gradient in gradients(term, own).items():
                if not name.endswith("w"):
                    rows = gradient.flatten(1).abs().sum(1) > 0
                    assert rows.tolist() == [k == other for other in range(3)]


def test_a_task_plate_and_tagged_sites_give_the_same_losses():
    torch.manual_seed(0)
    sites, plate = Sites(), Plate()
    plate.trunk.load_state_dict(sites.trunk.state_dict())
    trace = poutine.trace(sites).get_trace(*batch())
    draws = {n: site["value"] for n, site in trace.nodes.items() if n[:2] in ("w", "v_", "s_")}
    rows = {v: torch.stack([draws[f"{v}_{name}"] for name in TASKS])[:, None] for v in "vs"}
    losses = [
        TaskELBO("analytic").task_losses(poutine.condition(model, data=data), nothing, *batch())
        for model, data in ((sites, draws), (plate, {"w": draws["w"], **rows}))
    ]
    assert_close(losses[0].nll, losses[1].nll)
    assert_close(losses[0].labelled, losses[1].labelled)
    assert_close(losses[0].scales, losses[1].scales)
    assert losses[0].sizes == losses[1].sizes == (N_DATA,) * 3


@pytest.mark.filterwarnings("ignore:Found non-auxiliary vars in guide but not model")
def test_log_q_of_what_the_model_observes_counts_in_the_task_that_observes_it():
    def guide(p, x, y):
        simple_guide(p, x, y)
        with pyro.plate("a_rows", N_DATA, subsample=x):
            pyro.sample("y_a", dist.Normal(0.0, p["rho"].exp()))

    (model, plain), seed = NORMAL, 5
    found = []
    for program in (plain, guide):
        torch.manual_seed(seed)
        modules = (
            Program(model, w0=0.4, tau=-0.2, sigma=0.1),
            Program(program, loc=0.3, rho=-0.7, loc_v=-0.4, slope=0.6),
        )
        found.append(TaskELBO().task_losses(*modules, *batch()))
    torch.manual_seed(seed)
    drawn = poutine.trace(Program(guide, loc=0.3, rho=-0.7, loc_v=-0.4, slope=0.6)).get_trace(*batch()).nodes["y_a"]
    log_q = drawn["fn"].log_prob(drawn["value"]).sum() * N_DATA / 6
    assert found[0].names == found[1].names == ("a", "b")
    assert_close(found[1].kl - found[0].kl, torch.stack([log_q, torch.zeros(())]))
    assert_close([found[1].nll, found[1].shared], [found[0].nll, found[0].shared])


def test_a_joint_guide_warns_once_and_its_entropy_counts_as_shared(caplog):
    program = Sites()
    guide = AutoMultivariateNormal(program)
    elbo = TaskELBO()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            losses = elbo.task_losses(program, guide, *batch())
    (record,) = [r for r in caplog.records if r.name == "bmtl.inference.program_warnings"]
    assert "(a, b, c)" in record.getMessage()
    assert gradients(losses.shared, parameters_of(guide, None))["0.scale_unconstrained"].abs().sum() > 0


def test_a_joint_guide_of_one_tasks_latents_belongs_to_it(caplog):
    program = Sites()
    guide = pyro.infer.autoguide.AutoGuideList(program)
    for name in TASKS:
        guide.append(AutoMultivariateNormal(poutine.block(program, expose=[f"v_{name}", f"s_{name}"])))
    guide.append(AutoNormal(poutine.block(program, expose=["w"])))
    with caplog.at_level(logging.WARNING):
        torch.manual_seed(0)
        losses = TaskELBO().task_losses(program, guide, *batch())
    assert not [r for r in caplog.records if r.name == "bmtl.inference.program_warnings"]
    own = parameters_of(guide, None)
    for k in range(3):
        reached = {n for n, g in gradients(losses.kl_terms[k], own).items() if g.abs().sum() > 0}
        assert {n.split(".")[1] for n in reached} == {str(k)}


# ---- Counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("particles", PARTICLES.values(), ids=PARTICLES)
@pytest.mark.parametrize("model", [Sites, Plate])
def test_labels_are_counted_once_per_row_whatever_the_particles(model, particles):
    program = model()
    guide = {Sites: SitesGuide, Plate: PlateGuide}[model]()
    losses = TaskELBO(**particles).task_losses(program, guide, *batch())
    assert losses.labelled.tolist() == [6, 4, 2]
    assert_close(losses.scales, torch.full((3,), N_DATA / 6))
    assert_close(losses.counts, torch.tensor([6.0, 4.0, 2.0]) * N_DATA / 6)
    assert losses.sizes == (N_DATA,) * 3


def counted(model, *args):
    losses = TaskELBO().task_losses(model, nothing, *(args or batch()))
    return {
        name: (losses.labelled[k].item(), round(losses.counts[k].item(), 9), losses.sizes[k])
        for k, name in enumerate(losses.names)
    }


def test_what_counts_as_labelled():
    def model(x, y):
        with bmtl.task("plain"), pyro.plate("p1", len(x)):
            pyro.sample("y1", dist.Normal(0.0, 1.0), obs=x[:, 0])
        with bmtl.task("two sites, same rows"), pyro.plate("p2", 60, subsample=x):
            pyro.sample("y2", dist.Normal(0.0, 1.0), obs=x[:, 0])
            bmtl.observe("y2b", dist.Normal(0.0, 1.0), y["c"])
        with bmtl.task("factor alone"), pyro.plate("p3", 60, subsample=x), poutine.mask(mask=~y["b"].isnan()):
            pyro.factor("y3", -x[:, 0].square())
        with bmtl.task("no label, penalty first"):
            pyro.factor("penalty", torch.tensor(-1.0))
            with pyro.plate("p4", 60, subsample=x):
                bmtl.observe("y4", dist.Normal(0.0, 1.0), torch.full((6,), NAN))
        with bmtl.task("no label, penalty last"):
            with pyro.plate("p5", 60, subsample=x):
                bmtl.observe("y5", dist.Normal(0.0, 1.0), torch.full((6,), NAN))
            pyro.factor("penalty last", torch.tensor(-1.0))
        with bmtl.task("masked away"), pyro.plate("p6", 60, subsample=x):
            pyro.sample("y6", dist.Normal(0.0, 1.0).mask(False), obs=x[:, 0])
        with bmtl.task("masked by a handler"), pyro.plate("p7", 60, subsample=x), poutine.mask(mask=False):
            pyro.sample("y7", dist.Normal(0.0, 1.0), obs=x[:, 0])
        with bmtl.task("weighted rows"), pyro.plate("p8", 60, subsample=x), poutine.scale(scale=torch.arange(1.0, 7.0)):
            bmtl.observe("y8", dist.Normal(0.0, 1.0), y["b"])
        with bmtl.task("events"), pyro.plate("p9", 60, subsample=x):
            bmtl.observe("y9", dist.Normal(torch.zeros(3), 1.0).to_event(1), x)
        with bmtl.task("deterministic"), pyro.plate("p10", 60, subsample=x):
            pyro.deterministic("mean", x[:, 0])
            bmtl.observe("y10", dist.Normal(0.0, 1.0), y["c"])
        with bmtl.task("loop"):
            for i in pyro.plate("p11", 60, subsample=torch.arange(5)):
                pyro.sample(f"y11_{i}", dist.Normal(0.0, 1.0), obs=x[i, 0])
        with bmtl.task("rows, then their mean"):
            with pyro.plate("p12", 60, subsample=x):
                pyro.sample("y12", dist.Normal(0.0, 1.0), obs=x[:, 0])
            pyro.sample("y12_mean", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))
        with bmtl.task("single"):
            pyro.sample("y13", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    assert counted(model) == {
        "plain": (6, 6, 6),
        "two sites, same rows": (6, 60, 60),
        "factor alone": (4, 40, 60),
        "no label, penalty first": (0, 0, 60),
        "no label, penalty last": (0, 0, 60),
        "masked away": (0, 0, 60),
        "masked by a handler": (0, 0, 60),
        "weighted rows": (4, 10 * (3 + 4 + 5 + 6), 60),
        "events": (6, 60, 60),
        "deterministic": (2, 20, 60),
        "loop": (5, 60, 60),
        "rows, then their mean": (6, 60, 60),
        "single": (1, 1, 1),
    }


def test_factors_and_weights_in_a_task_plate():
    def model(x, y):
        with bmtl.task_plate(["a", "b"], dim=-2):
            pyro.factor("penalty", torch.tensor([[-1.0], [-2.0]]))
            with pyro.plate("rows", 60, subsample=x, dim=-1), poutine.scale(scale=torch.arange(1.0, 7.0)):
                bmtl.observe("y", dist.Normal(0.0, 1.0), torch.stack([y["b"], torch.full((6,), NAN)]))

    assert counted(model) == {"a": (4, 10 * (3 + 4 + 5 + 6), 60), "b": (0, 0, 60)}


def test_a_task_without_an_observed_site_declares_no_number_of_data():
    def model(x, y):
        with bmtl.task("latent"):
            pyro.sample("v", dist.Normal(0.0, 1.0))
        with bmtl.task("seen"), pyro.plate("rows", 60, subsample=x):
            bmtl.observe("y", dist.Normal(0.0, 1.0), y["a"])

    def guide(x, y):
        pyro.sample("v", dist.Normal(0.0, 2.0))

    losses = TaskELBO("analytic").task_losses(model, guide, *batch())
    assert losses.names == ("latent", "seen")
    assert losses.sizes == (0, 60)
    assert losses.counts.tolist() == [0, 60]
    assert losses.nll[0] == 0
    assert_close(losses.kl, torch.tensor([1.5 - math.log(2), 0.0]))


def test_an_absent_task_has_no_loss_and_no_nan_reaches_a_gradient():
    x, y = batch()
    y["b"] = torch.full_like(y["b"], NAN)
    model, guide = Sites(), SitesGuide()
    losses = TaskELBO("analytic").task_losses(model, guide, x, y)
    assert losses.nll[1] == 0
    assert losses.labelled.tolist() == [6, 0, 2]
    assert losses.kl[1] > 0  # its prior stays
    found = gradients(losses.total, parameters_of(model, guide))
    assert all(g.isfinite().all() for g in found.values())


def test_the_marked_tensors_of_all_particles_are_kept():
    model, guide = Sites(), SitesGuide()
    assert len(TaskELBO().task_losses(model, guide, *batch()).marks.tensors) == 1
    assert len(TaskELBO(num_particles=3).task_losses(model, guide, *batch()).marks.tensors) == 3
    for _ in range(2):  # the first run, which finds the nesting of plates, leaves no mark
        elbo = TaskELBO(num_particles=3, vectorize_particles=True)
        (h,) = elbo.task_losses(model, guide, *batch()).marks.tensors
        assert h.shape == (3, 6, 2)
    autoguide = AutoNormal(model)  # nor does the run that sets an autoguide up
    assert len(TaskELBO().task_losses(model, autoguide, *batch()).marks.tensors) == 1


# ---- A Pyro ELBO -----------------------------------------------------------------------------------------------------


def test_it_makes_a_module_of_model_and_guide():
    model, guide = Sites(), SitesGuide()
    module = TaskELBO("analytic")(model, guide)
    assert isinstance(module, nn.Module)
    assert {id(p) for p in module.parameters()} == {id(p) for p in parameters_of(model, guide).values()}
    torch.manual_seed(0)
    loss = module(*batch())
    loss.backward()
    torch.manual_seed(0)
    assert_close(loss, TraceMeanField_ELBO().differentiable_loss(model, guide, *batch()))
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("estimator", PYRO)
def test_pyros_svi_finds_a_known_posterior_with_it(estimator):
    y = torch.tensor([1.0, 2.0, 0.5, 3.0])

    def model():
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        for name, part in (("a", y[:1]), ("b", y[1:])):
            with bmtl.task(name), pyro.plate(f"{name}_rows", len(part)):
                pyro.sample(f"y_{name}", dist.Normal(w, 1.0), obs=part)

    def guide():
        loc = pyro.param("loc", torch.tensor(-1.0))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        pyro.sample("w", dist.Normal(loc, scale))

    torch.manual_seed(0)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99}), loss=TaskELBO(estimator))
    for _ in range(300):
        svi.step()
    assert_close(pyro.param("loc"), y.sum() / 5, rtol=0, atol=0.05)
    assert_close(pyro.param("scale"), torch.tensor(5.0).rsqrt(), rtol=0, atol=0.05)


# ---- What cannot be taken --------------------------------------------------------------------------------------------


def untagged(x, y):
    pyro.sample("w", dist.Normal(0.0, 1.0))


def coin_in_a(x, y):
    with bmtl.task("a"):
        pyro.sample("v", dist.Bernoulli(0.3))
    pyro.sample("w", dist.Normal(0.0, 1.0))


def enumerated(x, y):
    with bmtl.task("a"):
        pyro.sample("v", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})


def twice_owned(x, y):
    with bmtl.task_plate(["a", "b"]), bmtl.task("c"):
        pyro.sample("v", dist.Normal(0.0, 1.0))


def part_of_the_tasks(x, y):
    with pyro.plate("task", 4, subsample_size=2, dim=-2), pyro.plate("rows", len(x), dim=-1):
        pyro.sample("v", dist.Normal(x[:, 0], 1.0), obs=y["a"])


def part_of_the_tasks_in_a_loop(x, y):
    for i in pyro.plate("task", 4, subsample_size=2):
        pyro.sample(f"v{i}", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))


def out_of_shape(x, y):
    with bmtl.task("a"), pyro.plate("rows", len(x)):
        pyro.sample("y_a", dist.Normal(x, 1.0), obs=x)


def out_of_support(x, y):
    with bmtl.task("a"), pyro.plate("rows", len(x)):
        pyro.sample("y_a", dist.LogNormal(x[:, 0], 1.0), obs=x[:, 1])


def guide_of_v_and_w(x, y):
    pyro.sample("v", dist.Bernoulli(0.3))
    pyro.sample("w", dist.Normal(0.0, 1.0))


def guide_with_a_coin(x, y):
    coin = pyro.sample("coin", dist.Bernoulli(0.3), infer={"is_auxiliary": True})
    pyro.sample("w", dist.Normal(coin, 1.0))


def tagged_w(x, y):
    with bmtl.task("a"):
        pyro.sample("w", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("estimator", "model", "guide", "message"),
    [
        ("mc", untagged, untagged, "has no task"),
        ("mc", coin_in_a, nothing, r"no site for the model's latents \['v', 'w'\]"),
        ("mc", enumerated, enumerated, "asks for enumeration"),
        ("analytic", coin_in_a, guide_of_v_and_w, "'v' is not reparameterised"),
        ("analytic", tagged_w, guide_with_a_coin, "'coin' is not reparameterised"),
        ("mc", twice_owned, twice_owned, "at once"),
        ("mc", part_of_the_tasks, nothing, "cannot be subsampled"),
        ("mc", part_of_the_tasks_in_a_loop, nothing, "cannot be subsampled"),
        ("mc", out_of_shape, nothing, "y_a"),
        ("mc", out_of_support, nothing, "'y_a'"),
    ],
)
def test_what_cannot_be_taken_is_an_error_that_names_it(estimator, model, guide, message):
    with pytest.raises(ValueError, match=message):
        TaskELBO(estimator).task_losses(model, guide, *batch())


def test_a_missing_guide_site_is_told_without_validation_too():
    with (
        pyro.settings.context(validate_infer=False),
        pytest.raises(ValueError, match="no site for the model's latents"),
    ):
        TaskELBO().task_losses(coin_in_a, nothing, *batch())


def test_two_task_plates_of_different_tasks_are_refused():
    names = iter([["a", "b"], ["a", "c"]])

    def model():  # Pyro refuses two plates of one name in one run
        with bmtl.task_plate(next(names)):
            pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.zeros(2))

    with pytest.raises(ValueError, match="different tasks"):
        TaskELBO(num_particles=2).task_losses(model, nothing)


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (ValueError, {"estimator": "exact"}),
        (ValueError, {"balanced": "kl"}),
        (ValueError, {"normalize": "rows"}),
        (ValueError, {"num_particles": 0}),
        (ValueError, {"num_particles": -1}),
        (TypeError, {"num_particles": 2.0}),
        (TypeError, {"num_particles": True}),
        (TypeError, {"num_particles": NAN}),
        (TypeError, {"vectorize_particles": 1}),
        (TypeError, {"vectorize_particles": "yes"}),
        (ValueError, {"max_plate_nesting": -1}),
        (TypeError, {"max_plate_nesting": 1.5}),
        (ValueError, {"n_data": -1}),
        (ValueError, {"n_data": 0}),
        (TypeError, {"n_data": 5.0}),
        (TypeError, {"n_data": NAN}),
        (TypeError, {"n_data": True}),
        (TypeError, {"n_data": "5"}),
        (TypeError, {"n_data": [5, 6]}),
        (TypeError, {"n_data": torch.tensor(5)}),
        (ValueError, {"n_data": {}}),
        (ValueError, {"n_data": {"a": 5, "b": 0}}),
        (ValueError, {"n_data": {"a": 5, "b": -2}}),
        (TypeError, {"n_data": {"a": 5, "b": 2.5}}),
        (TypeError, {"n_data": {"a": 5, "b": NAN}}),
        (TypeError, {"n_data": {"a": 5, "b": True}}),
        (TypeError, {"n_data": {0: 5}}),
        (TypeError, {"n_data": {"": 5}}),
    ],
)
def test_options_of_another_kind_or_sign_are_refused_by_name(error, options):
    (name,) = options
    with pytest.raises(error, match=name) as raised:
        TaskELBO(**options)
    wrong = options[name]
    if isinstance(wrong, dict) and wrong:
        wrong = list(wrong.values())[-1] if all(isinstance(key, str) and key for key in wrong) else next(iter(wrong))
    assert str(wrong) in str(raised.value) or wrong == {}


@pytest.mark.parametrize("n_data", [None, 5, np.int64(5), {"a": 5, "b": np.int32(3)}])
def test_numbers_of_data_are_integers_of_any_kind(n_data):
    assert TaskELBO(n_data=n_data).n_data == n_data
