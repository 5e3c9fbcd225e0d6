"""Which task each term of `TaskELBO` belongs to."""

import logging

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch.testing import assert_close

import bmtl
from bmtl.inference import TaskELBO
from tests.inference.programs import (
    N_DATA,
    TASKS,
    Plate,
    PlateGuide,
    Program,
    Sites,
    SitesGuide,
    batch,
    double,
    gradients,
    nothing,
    parameters_of,
)
from tests.inference.test_elbo import NORMAL, PARTICLES, PYRO, programs, simple_guide


@pytest.fixture(autouse=True)
def _float64():
    pyro.clear_param_store()
    with double():
        yield


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
