"""TaskELBO against Pyro's own estimators, in value and in every gradient."""

from functools import partial

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
    gradients,
    parameters_of,
)

PYRO = {"mc": Trace_ELBO, "analytic": TraceMeanField_ELBO}
PARTICLES = {"one": {}, "looped": {"num_particles": 4}, "vectorised": {"num_particles": 4, "vectorize_particles": True}}


@pytest.fixture(autouse=True)
def _float64():
    pyro.clear_param_store()
    with double():
        yield


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
