"""BalancedSVI against hand-written loops and formulas, and what it does when a step cannot be taken."""

import copy
import functools
import gc
import logging
import math
import weakref

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference.balancing import EW, UW, IGBv1
from bmtl.inference.errors import CheckpointError, NonFinite, NonPositiveLoss, StepError
from bmtl.inference.history import History
from bmtl.inference.record import history_arrays
from bmtl.inference.step import check_gradients
from bmtl.inference.svi import BalancedSVI
from bmtl.inputs import PerTask
from tests.inference.programs import (
    N_DATA,
    NAN,
    TASKS,
    Program,
    Regressions,
    Sites,
    SitesGuide,
    assert_same,
    batch,
    double,
    nothing,
    task_model,
)
from tests.inference.test_elbo import coins, coins_guide

Adam = functools.partial(torch.optim.Adam, lr=0.01)
SGD = functools.partial(torch.optim.SGD, lr=0.1)


@pytest.fixture(autouse=True)
def _empty_store():
    pyro.clear_param_store()


def regressions(balancer="ew", optim=Adam, seed=0, **options):
    torch.manual_seed(seed)
    return BalancedSVI(Regressions(), nothing, optim, balancer, **options)


def parameters(svi):
    return {name: p.detach().clone() for name, p in svi.module.named_parameters()}


def gradients(svi):
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in svi.module.named_parameters()}


def gradients_of(value, svi):
    named = dict(svi.module.named_parameters())
    found = torch.autograd.grad(value, list(named.values()), retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}


# ---- A step ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optim", [Adam, SGD])
def test_a_step_of_equal_weights_is_that_of_a_hand_written_loop(optim):
    svi = regressions(optim=optim)
    by_hand = copy.deepcopy(svi.model)
    optimizer = optim(by_hand.parameters())
    for step in range(6):
        x, y = batch(seed=step)
        record = svi.step(x, y)

        h = torch.tanh(by_hand.trunk(x))
        losses = []
        for name, head in by_hand.heads.items():
            seen = ~y[name].isnan()
            losses.append((head(h)[seen, 0] - y[name][seen]).square().sum() / 2 / len(x))
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()

        assert_close(record.losses, torch.stack(losses).detach().double(), rtol=1e-6, atol=1e-6)
        assert record.weights.tolist() == [1, 1, 1]
    assert_close(parameters(svi), {f"model.{n}": p.detach() for n, p in by_hand.named_parameters()}, rtol=0, atol=1e-6)


@pytest.mark.parametrize("balanced", ["likelihood", "elbo"])
@pytest.mark.parametrize(("estimator", "pyros"), [("mc", Trace_ELBO), ("analytic", TraceMeanField_ELBO)])
def test_the_gradient_of_equal_weights_is_that_of_pyros_elbo(estimator, pyros, balanced):
    with double():
        svi = BalancedSVI(Sites(), SitesGuide(), Adam, elbo=bmtl.TaskELBO(estimator, balanced=balanced))
        svi.initialise(*batch())
        torch.manual_seed(3)
        record = svi.backward(*batch())
        torch.manual_seed(3)
        loss = pyros().differentiable_loss(svi.model, svi.guide, *batch()) / N_DATA
        assert_close(gradients(svi), gradients_of(loss, svi))
        assert_close(record.losses.sum().item() + record.shared, loss.item())


@pytest.mark.parametrize("particles", [{}, {"num_particles": 3}, {"num_particles": 3, "vectorize_particles": True}])
@pytest.mark.parametrize("balanced", ["likelihood", "elbo"])
def test_so_it_is_with_latents_that_are_not_reparameterised(balanced, particles):
    with double():
        svi = coin_svi("ew", balanced, **particles)
        torch.manual_seed(3)
        svi.backward(*batch())
        torch.manual_seed(3)
        ours = Trace_ELBO(**particles)
        ours.max_plate_nesting = svi.elbo.max_plate_nesting
        loss = ours.differentiable_loss(svi.model, svi.guide, *batch()) / N_DATA
        assert_close(gradients(svi), gradients_of(loss, svi))


def coin_svi(balancer, balanced, **options):
    model = Program(coins, w0=0.4, tau=-0.2, sigma=0.1)
    guide = Program(coins_guide, loc=0.3, rho=-0.7, loc_v=-0.4, slope=0.6)
    svi = BalancedSVI(model, guide, Adam, balancer, bmtl.TaskELBO("mc", balanced=balanced, **options))
    svi.initialise(*batch())
    return svi


class Weighted(poutine.messenger.Messenger):
    """Scales the sites of the tasks: the observed ones alone, or the latents too."""

    def __init__(self, weights, owners, latents):
        super().__init__()
        self.weights, self.owners, self.latents = weights, owners, latents

    def _pyro_sample(self, msg):
        if msg["name"].endswith("_rows") or not (msg["is_observed"] or self.latents):
            return
        msg["scale"] = msg["scale"] * self.weights.get(self.owners.get(msg["name"]), 1.0)


@pytest.mark.parametrize("balanced", ["likelihood", "elbo"])
def test_score_terms_carry_the_weight_of_the_task_whose_cost_they_are(balanced):
    """The oracle: Pyro's own estimator of the program whose densities are raised to the weights."""
    weights = {"a": 3.0, "b": 0.25}
    owners = {"y_a": "a", "d": "a", "v": "a", "y_b": "b", "e": "b"}
    with double():
        svi = coin_svi(EW(weights), balanced)
        torch.manual_seed(3)
        record = svi.backward(*batch())
        assert record.weights.tolist() == [3.0, 0.25]

        tempered = [Weighted(weights, owners, balanced == "elbo")(program) for program in (svi.model, svi.guide)]
        torch.manual_seed(3)
        loss = Trace_ELBO().differentiable_loss(*tempered, *batch()) / N_DATA
        assert_close(gradients(svi), gradients_of(loss, svi))


NUMBERS = {"a": 20, "b": 40, "c": 90}  # of data: their mean is 50


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("balanced", ["likelihood", "elbo"])
@pytest.mark.parametrize("normalize", ["per_datum", "task_mean"])
@pytest.mark.parametrize("given", [None, 10, {"a": 1, "b": 2, "c": 6, "another": 99}])
def test_what_a_balancer_sees_and_weighs(normalize, balanced, absent, given):
    weights = {"a": 2.0, "c": 0.5}
    with double():
        x, y = batch()
        if absent:
            y["b"] = torch.full_like(y["b"], NAN)
        elbo = bmtl.TaskELBO("analytic", normalize=normalize, balanced=balanced, n_data=given)
        svi = BalancedSVI(Sites(NUMBERS), SitesGuide(), Adam, EW(weights), elbo)
        svi.initialise(x, y)
        torch.manual_seed(1)
        record = svi.backward(x, y)
        torch.manual_seed(1)
        raw = svi.elbo.task_losses(svi.model, svi.guide, x, y)

        n = {None: [20, 40, 90], 10: [10, 10, 10]}.get(given if not isinstance(given, dict) else "", [1, 2, 6])
        rows = [6, 0 if absent else 4, 2]
        counts = [NUMBERS[name] / 6 * r for name, r in zip(TASKS, rows, strict=True)]
        present = [k for k in range(3) if rows[k]]
        if normalize == "task_mean" and given is None:  # estimated: a task without a label so far may have them all
            n = [counts[k] if rows[k] else n[k] for k in range(3)]
        mean = sum(n) / 3
        divisor = n if normalize == "task_mean" else [mean] * 3
        losses = {k: raw.nll[k] / divisor[k] for k in present}
        values = {k: raw.nll[k] / (counts[k] if normalize == "task_mean" else mean) for k in present}
        kl = [raw.kl[k] / divisor[k] for k in range(3)]
        rest = raw.shared / mean
        for k in range(3):
            if balanced == "elbo" and k in present:
                losses[k], values[k] = losses[k] + kl[k], values[k] + kl[k]
            else:
                rest = rest + kl[k]
        objective = rest + sum(weights.get(TASKS[k], 1.0) * loss for k, loss in losses.items())

        assert_close(gradients(svi), gradients_of(objective, svi))
        seen = torch.tensor([values[k].item() if k in values else NAN for k in range(3)])
        assert_close(record.losses, seen, equal_nan=True)
        assert_close(record.shared, rest.item())
        assert record.active.tolist() == [True, not absent, True]
        expected = [2.0, NAN if absent else 1.0, 0.5]
        assert_close(record.weights, torch.tensor(expected), equal_nan=True)


def test_with_tasks_alike_a_loss_is_the_mean_over_labelled_rows():
    svi = regressions(elbo=bmtl.TaskELBO(normalize="task_mean"))
    x, y = batch()
    svi.initialise(x, y)
    with torch.no_grad():
        h = torch.tanh(svi.model.trunk(x))
        means = [
            ((head(h)[:, 0] - y[name])[~y[name].isnan()].square() / 2).mean() for name, head in svi.model.heads.items()
        ]
    assert_close(svi.backward(x, y).losses, torch.stack(means).double(), rtol=1e-6, atol=1e-6)


def test_n_data_must_name_every_task():
    svi = regressions(elbo=bmtl.TaskELBO(n_data={"a": 3}))
    with pytest.raises(ValueError, match=r"\['b', 'c'\]"):
        svi.step(*batch())


def test_an_absent_tasks_own_parameters_are_not_touched():
    svi = regressions()
    for seed in range(3):  # with Adam, a gradient of zero would still move them
        svi.step(*batch(seed=seed))
    before = parameters(svi)
    x, y = batch()
    y["b"] = torch.full_like(y["b"], NAN)
    record = svi.step(x, y)
    moved = {name for name, p in parameters(svi).items() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if "heads.b" not in name}
    assert record.losses.isnan().tolist() == [False, True, False]


def test_a_penalty_of_an_absent_task_keeps_weight_one():
    def model(p, x, y):
        with bmtl.task("a"):
            pyro.factor("penalty", -p["m"].square())
            with pyro.plate("a_rows", N_DATA, subsample=x):
                bmtl.observe("y_a", dist.Normal(p["m"], 1.0), y["a"])
        with bmtl.task("b"), pyro.plate("b_rows", N_DATA, subsample=x):
            bmtl.observe("y_b", dist.Normal(p["m"], 1.0), y["b"])

    with double():
        x, y = batch()
        y["a"] = torch.full_like(y["a"], NAN)
        svi = BalancedSVI(Program(model, m=0.7), nothing, Adam, EW({"a": 5.0}))
        record = svi.backward(x, y)
        loss = Trace_ELBO().differentiable_loss(svi.model, nothing, x, y) / N_DATA
        assert_close(gradients(svi), gradients_of(loss, svi))
        assert_close(record.shared, 0.7**2 / N_DATA)
        assert record.active.tolist() == [False, True]


def test_a_batch_without_any_label_leaves_everything_but_the_prior():
    svi = regressions()
    x, y = batch()
    svi.step(x, y)
    y = {name: torch.full_like(values, NAN) for name, values in y.items()}
    before = parameters(svi)
    record = svi.step(x, y)
    assert not record.active.any()
    assert_close(parameters(svi), before, rtol=0, atol=0)

    with double():
        x, y = x.double(), {name: values.double() for name, values in y.items()}
        svi = BalancedSVI(Sites(), SitesGuide(), Adam, elbo=bmtl.TaskELBO("analytic"))
        svi.initialise(x, y)
        torch.manual_seed(0)
        svi.backward(x, y)
        torch.manual_seed(0)
        loss = TraceMeanField_ELBO().differentiable_loss(svi.model, svi.guide, x, y) / N_DATA
        assert_close(gradients(svi), gradients_of(loss, svi))


@pytest.mark.parametrize("noise", ["fixed", "parameter", "latent"])
@pytest.mark.parametrize("head", ["linear", "bayesian"])
def test_each_task_may_have_inputs_of_its_own(noise, head):
    generator = torch.Generator().manual_seed(0)
    x = PerTask({"a": torch.randn(4, 3, generator=generator), "b": torch.randn(7, 3, generator=generator)})
    y = {"a": torch.randn(4, generator=generator), "b": torch.randint(3, (7,), generator=generator)}
    y["a"][0], y["b"][1] = NAN, -1
    model = task_model(nn.Linear(3, 5), 5, {"a": 0, "b": 3}, {"a": 30, "b": 50}, noise=noise, head=head)
    svi = BalancedSVI(model, model.guide(), Adam, elbo=bmtl.TaskELBO("analytic"))
    svi.initialise(x, y)
    torch.manual_seed(0)
    svi.backward(x, y)
    torch.manual_seed(0)
    loss = TraceMeanField_ELBO().differentiable_loss(svi.model, svi.guide, x, y) / 40
    assert_close(gradients(svi), gradients_of(loss, svi))
    found = svi.evaluate(x, y)
    assert found.labelled.tolist() == [3, 6]


@pytest.mark.parametrize(
    ("balancer", "latents"),
    [
        ("ew", True),
        ("nash-mtl", True),
        ("last-layer >> nash-mtl", True),
        ("uw >> nash-mtl >> norm", False),  # a negative log-density has no logarithm
    ],
)
def test_a_step_leaves_no_graph_behind(balancer, latents):
    model = Sites() if latents else Regressions()
    svi = BalancedSVI(model, AutoNormal(model) if latents else nothing, Adam, balancer)
    left = []
    estimate = svi.elbo.task_losses

    def watched(*args, **kwargs):
        losses = estimate(*args, **kwargs)
        left.extend([weakref.ref(losses), weakref.ref(losses.marks.tensors[0])])
        return losses

    svi.elbo.task_losses = watched
    gc.disable()  # a reference cycle would hold a batch's activations until Python looks for cycles
    try:
        for seed in range(3):
            svi.step(*batch(seed=seed))
        svi.evaluate(*batch())
        assert not [reference for reference in left if reference() is not None]
    finally:
        gc.enable()


# ---- Set-up ----------------------------------------------------------------------------------------------------------


def test_an_autoguide_is_set_up_from_the_first_batch_without_moving_the_random_stream():
    torch.manual_seed(0)
    model = Sites()
    guide = AutoNormal(model)
    svi = BalancedSVI(model, guide, Adam)
    assert not list(guide.parameters())
    torch.manual_seed(7)
    before = torch.get_rng_state()
    svi.initialise(*batch())
    assert torch.equal(torch.get_rng_state(), before)
    held = {id(p) for group in svi.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in svi.module.parameters()}
    assert len(list(guide.parameters())) == 14

    start = parameters(svi)
    svi.step(*batch())
    after = torch.get_rng_state()
    torch.manual_seed(7)
    Trace_ELBO().loss(model, guide, *batch())
    assert torch.equal(torch.get_rng_state(), after)  # one pass of draws, no more
    assert all(not torch.equal(p, start[name]) for name, p in parameters(svi).items())


def test_a_balancers_own_parameters_get_a_group_of_their_own():
    optim = functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)
    svi = regressions(UW(), optim)
    svi.step(*batch())
    model, own = svi.optimizer.param_groups
    assert own["params"] == list(svi.balancer.parameters())
    assert (own["lr"], own["weight_decay"]) == (0.025, 0.0)
    assert (model["lr"], model["weight_decay"]) == (0.01, 0.1)
    assert all(s != 0 for s in svi.balancer.transform.s)


def test_a_ready_optimizer_is_used_as_it_is():
    torch.manual_seed(0)
    model = Regressions()
    optimizer = torch.optim.SGD(
        [{"params": model.trunk.parameters()}, {"params": model.heads.parameters(), "lr": 0.0}], lr=0.1
    )
    svi = BalancedSVI(model, nothing, optimizer)
    before = parameters(svi)
    svi.step(*batch())
    assert svi.optimizer is optimizer
    moved = {name for name, p in parameters(svi).items() if not torch.equal(p, before[name])}
    assert moved == {"model.trunk.weight", "model.trunk.bias"}


def test_a_ready_optimizer_that_lacks_parameters_is_an_error_that_names_them():
    model = Sites()
    svi = BalancedSVI(model, AutoNormal(model), torch.optim.Adam(model.parameters()))
    with pytest.raises(ValueError, match="lacks parameters") as error:
        svi.step(*batch())
    assert "guide.locs.v_a_unconstrained" in str(error.value)
    assert "trunk" not in str(error.value)
    assert "functools.partial" in str(error.value)

    model = Regressions()
    svi = BalancedSVI(model, nothing, torch.optim.Adam(model.parameters()), "uw")
    with pytest.raises(ValueError, match="lacks parameters: balancer.transform.s"):
        svi.step(*batch())


def conjugate(y_a, y_b):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    for name, part in (("a", y_a), ("b", y_b)):
        with bmtl.task(name), pyro.plate(f"{name}_rows", len(part)):
            bmtl.observe(f"y_{name}", dist.Normal(w, 1.0), part)


def conjugate_guide(y_a, y_b):
    loc = pyro.param("loc", lambda: torch.tensor(-1.0))
    scale = pyro.param("scale", lambda: torch.tensor(1.0), constraint=dist.constraints.positive)
    pyro.sample("w", dist.Normal(loc, scale))


@pytest.mark.parametrize("optim", [functools.partial(torch.optim.Adam, lr=0.05), pyro.optim.Adam({"lr": 0.05})])
def test_plain_functions_with_param_statements_find_a_known_posterior(optim):
    torch.manual_seed(0)
    data = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])
    elbo = bmtl.TaskELBO("analytic", num_particles=10, vectorize_particles=True)
    svi = BalancedSVI(conjugate, conjugate_guide, optim, elbo=elbo)
    for _ in range(200):
        svi.step(*data)
    assert_close(pyro.param("loc").detach(), torch.tensor(6.5 / 5), rtol=0, atol=0.1)
    assert_close(pyro.param("scale").detach(), torch.tensor(5.0).rsqrt(), rtol=0, atol=0.1)
    assert {id(p) for p in svi.parameters} == {id(pyro.param(n).unconstrained()) for n in ("loc", "scale")}


def test_both_kinds_of_optimizer_take_the_same_steps():
    data = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])
    found = []
    for optim in (functools.partial(torch.optim.Adam, lr=0.05), pyro.optim.Adam({"lr": 0.05})):
        pyro.clear_param_store()
        svi = BalancedSVI(conjugate, conjugate_guide, optim, elbo=bmtl.TaskELBO("analytic"))
        torch.manual_seed(0)
        for _ in range(5):
            svi.step(*data)
        found.append((pyro.param("loc").item(), pyro.param("scale").item()))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_pyro_optimizer_takes_up_parameters_that_appear_later():
    def guide(y_a, y_b):
        conjugate_guide(y_a, y_b)
        if y_a.sum() > 10:
            pyro.factor("late_factor", -pyro.param("late", torch.tensor(1.0)).square(), has_rsample=True)

    svi = BalancedSVI(conjugate, guide, pyro.optim.Adam({"lr": 0.05}))
    svi.step(torch.tensor([1.0, 2.0]), torch.tensor([0.5]))
    svi.step(torch.tensor([10.0, 2.0]), torch.tensor([0.5]))
    assert pyro.param("late").item() != 1.0


def test_a_module_registered_in_a_plain_function_is_trained():
    network = nn.Linear(3, 1)

    def model(x, y):
        net = pyro.module("net", network)
        with bmtl.task("a"), pyro.plate("a_rows", len(x)):
            bmtl.observe("y_a", dist.Normal(net(x).squeeze(-1), 1.0), y["a"])

    svi = BalancedSVI(model, nothing, SGD)
    before = copy.deepcopy(network.state_dict())
    svi.step(*batch())
    assert all(not torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("optim", [pyro.optim.Adam({"lr": 0.1})])
def test_a_pyro_optimizer_is_refused_where_it_cannot_serve(optim):
    with pytest.raises(ValueError, match="plain functions"):
        BalancedSVI(Regressions(), nothing, optim)
    svi = BalancedSVI(conjugate, conjugate_guide, optim, "uw")
    with pytest.raises(ValueError, match="parameters of its own"):
        svi.step(torch.zeros(2), torch.zeros(2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optim": 0.01}, TypeError, "optim is a factory"),
        ({"optim": lambda parameters: "adam"}, TypeError, "gave a str"),
        ({"elbo": Trace_ELBO()}, TypeError, "TaskELBO"),
        ({"on_error": "ignore"}, ValueError, "'raise' or 'skip'"),
        ({"balancer": "nash"}, ValueError, "nash"),
    ],
)
def test_unusable_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        BalancedSVI(**{"model": Regressions(), "guide": nothing, "optim": Adam} | options).step(*batch())


def test_a_model_without_parameters_is_refused():
    def model(x, y):
        with bmtl.task("a"):
            pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    with pytest.raises(ValueError, match="has a parameter to train"):
        BalancedSVI(model, nothing, Adam).step(*batch())


def test_a_cheap_geometry_without_a_mark_says_what_to_do():
    def model(p, x, y):
        for name in ("a", "b"):
            with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                bmtl.observe(f"y_{name}", dist.Normal(p["m"], 1.0), y[name])

    svi = BalancedSVI(Program(model, m=0.0), nothing, Adam, "last-layer >> nash-mtl")
    with pytest.raises(ValueError, match=r"h = bmtl.shared\(trunk\(x\)\)"):
        svi.step(*batch())


# ---- Wrong input -----------------------------------------------------------------------------------------------------


def test_targets_of_a_wrong_shape_are_an_error_that_names_the_site_and_changes_nothing():
    model = Sites()
    svi = BalancedSVI(model, SitesGuide(), Adam)
    x, y = batch()
    before = parameters(svi)
    with pytest.raises(ValueError, match="'y_b'.*squeeze or reshape"):
        svi.step(x, y | {"b": y["b"][:, None]})
    with pytest.raises(TypeError, match="'y_a'.*Give floats"):
        svi.step(x, y | {"a": y["a"].long()})
    assert_close(parameters(svi), before, rtol=0, atol=0)
    assert svi.step(x, y).status == "ok"  # a good batch then starts it
    with pytest.raises(ValueError, match="'y_c'.*squeeze or reshape"):  # and so it is in any later step
        svi.step(x, y | {"c": y["c"][:, None]})


def changing(names):
    """A program that visits the tasks that `names` lists now."""

    def model(p, x, y):
        for name in names:
            with bmtl.task(name), pyro.plate(f"{name}_rows", N_DATA, subsample=x):
                bmtl.observe(f"y_{name}", dist.Normal(p[name] * p["m"], 1.0), y[name])

    return Program(model, m=0.5, a=0.1, b=0.2, c=0.3)


def test_a_task_that_shows_up_late_is_an_error_that_names_it():
    names = ["a", "b"]
    svi = BalancedSVI(changing(names), nothing, Adam)
    svi.step(*batch())
    names.append("c")
    before = parameters(svi)
    with pytest.raises(ValueError, match=r"did not show: \['c'\]"):
        svi.step(*batch())
    assert_close(parameters(svi), before, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"did not show: \['c'\]"):
        svi.evaluate(*batch())


def test_tasks_keep_their_weights_in_whatever_order_a_batch_visits_them():
    names = list(TASKS)
    weights = {"a": 4.0, "b": 2.0, "c": 1.0}
    svi = BalancedSVI(changing(names), nothing, SGD, EW(weights))
    first = svi.backward(*batch())
    expected = gradients(svi)
    names.reverse()
    svi.zero_grad()
    again = svi.backward(*batch())
    assert again.names == TASKS
    assert again.weights.tolist() == [4, 2, 1]
    assert_close(again.losses, first.losses)
    assert_close(gradients(svi), expected)


def test_a_task_that_a_batch_leaves_out_is_absent_and_the_divisor_stays():
    names = list(TASKS)
    svi = BalancedSVI(changing(names), nothing, SGD, "uw")
    whole = svi.backward(*batch())
    names.remove("b")
    part = svi.backward(*batch())
    assert part.active.tolist() == [True, False, True]
    assert_close(part.losses[[0, 2]], whole.losses[[0, 2]])
    assert_close(part.weights, torch.tensor([0.5, NAN, 0.5]).double(), equal_nan=True)
    assert svi.evaluate(*batch()).labelled.tolist() == [6, 0, 2]


def test_a_batch_that_says_nothing_of_a_tasks_size_keeps_the_divisor():
    seen = [True]

    def model(p, x, y):
        with bmtl.task("a"):
            v = pyro.sample("v", dist.Normal(0.0, 1.0))
            if seen[0]:
                with pyro.plate("a_rows", 80, subsample=x):
                    bmtl.observe("y_a", dist.Normal(v, 1.0), y["a"])
        with bmtl.task("b"), pyro.plate("b_rows", 20, subsample=x):
            bmtl.observe("y_b", dist.Normal(p["m"], 1.0), y["b"])

    def guide(p, x, y):
        pyro.sample("v", dist.Normal(p["loc"], 1.0))

    svi = BalancedSVI(Program(model, m=0.0), Program(guide, loc=0.0), SGD, elbo=bmtl.TaskELBO("analytic"))
    whole = svi.backward(*batch())
    seen[0] = False
    part = svi.backward(*batch())
    assert part.losses[1] == whole.losses[1]
    assert part.shared == whole.shared


# ---- Steps that cannot be taken --------------------------------------------------------------------------------------


def broken(p, x, y, fault=None):
    """Task b's loss, its gradient or the shared prior can be made to fail."""
    pyro.factor("prior", -p["m"].square() * (math.inf if fault == "shared" else 1.0))
    for name in ("a", "b"):
        with bmtl.task(name), pyro.plate(f"{name}_rows", N_DATA, subsample=x):
            mean = p["m"] * x[:, 0] + p[name]
            if name == "b" and fault == "loss":
                mean = mean / 0.0
            if name == "b" and fault == "gradient":
                mean = mean + (p["zero"] * x[:, 0].abs()).sqrt() * 0.0  # 0 in value, NaN in gradient
            error = torch.where(y[name].isnan(), 0.0, mean - y[name])
            with poutine.mask(mask=~y[name].isnan()):
                pyro.factor(f"y_{name}", -error.square() / 2 + (30.0 if name == "b" and fault == "negative" else 0.0))


def breakable(balancer="ew", **options):
    model = Program(broken, m=0.5, a=0.1, b=0.2, zero=0.0)
    svi = BalancedSVI(model, nothing, Adam, balancer, **options)
    for seed in range(3):  # so that Adam's moments are there to be kept
        svi.step(*batch(seed=seed))
    return svi


FAULTS = [
    ("ew", "loss", NonFinite, ["'b'", "y_b", "step 3"]),
    ("ew", "shared", NonFinite, ["shared", "prior", "step 3"]),
    ("ew", "gradient", NonFinite, ["model.p.zero", "step 3"]),
    ("nash-mtl", "loss", NonFinite, ["'b'", "y_b", "step 3"]),
    ("nash-mtl", "gradient", NonFinite, ["step 3"]),
    ("si", "negative", NonPositiveLoss, ["'b'", "'si'", "step 3"]),
    ("igb-v1", "negative", NonPositiveLoss, ["'b'", "'igb-v1'", "step 3"]),
    ("uw", "loss", NonFinite, ["'b'", "step 3"]),
    ("igb-v1 >> nash-mtl", "negative", NonPositiveLoss, ["'b'", "'igb-v1'", "step 3"]),
]


def trained(svi):
    """All that an optimizer moves, and its moments."""
    return copy.deepcopy((svi.module.state_dict(), svi.optimizer.state_dict(), list(svi.balancer.parameters())))


def everything(svi):
    return copy.deepcopy((svi.module.state_dict(), svi.optimizer.state_dict(), svi.balancer.state_dict()))


@pytest.mark.parametrize(("balancer", "fault", "kind", "told"), FAULTS)
def test_a_step_that_cannot_be_taken_raises_and_changes_nothing(balancer, fault, kind, told):
    svi = breakable(balancer)
    before = trained(svi)
    with pytest.raises(kind) as error:
        svi.step(*batch(), fault=fault)
    assert isinstance(error.value, StepError)
    for word in told:
        assert word in str(error.value)
    assert_same(trained(svi), before)
    assert all(p.grad is None for p in svi.parameters)
    assert (svi.steps, svi.skipped, len(svi.history)) == (3, 0, 3)


@pytest.mark.parametrize(("balancer", "fault", "kind", "told"), FAULTS)
def test_a_skipped_step_changes_nothing_is_counted_and_recorded(balancer, fault, kind, told, caplog):
    svi, other = (breakable(balancer, on_error="skip") for _ in range(2))
    before = trained(svi)
    with caplog.at_level(logging.WARNING):
        record = svi.step(*batch(), fault=fault)
    assert record.status == "skipped"
    assert svi.history[-1] is record
    assert (svi.steps, svi.skipped) == (4, 1)
    for word in told:
        assert word in record.events[0]
        assert word in caplog.text
    assert record.weights.isnan().all()
    assert_same(trained(svi), before)

    svi.step(*batch(seed=9))  # and training goes on as if the step had not been
    other.step(*batch(seed=9))
    assert_same(trained(svi), trained(other))
    assert_close(svi.end_epoch(), other.end_epoch(), rtol=0, atol=0)


def test_a_gradient_whose_norm_overflows_is_still_finite():
    def model(p, x, y):
        with bmtl.task("a"), pyro.plate("a_rows", len(x)):
            pyro.factor("y_a", p["m"].sum() * 1e30 - x[:, 0].square())

    svi = BalancedSVI(Program(model, m=torch.full((2,), 0.5)), nothing, SGD)
    assert svi.step(*batch()).status == "ok"
    (gradient,) = gradients(svi).values()
    assert gradient.norm().isinf()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("bad", [NAN, float("inf"), -float("inf")])
def test_one_entry_that_is_not_finite_is_found_and_finite_gradients_stay_bit_for_bit(dtype, bad):
    least = torch.finfo(dtype).smallest_normal / 2
    given = [torch.randn(3, 4, dtype=dtype), torch.tensor([-0.0, least, 1.0], dtype=dtype), torch.zeros(0, dtype=dtype)]
    parameters = [torch.nn.Parameter(torch.zeros_like(of)) for of in given]
    for parameter, of in zip(parameters, given, strict=True):
        parameter.grad = of.clone()
    names = {id(parameter): f"p{i}" for i, parameter in enumerate(parameters)}
    check_gradients(parameters, names, ("a",))
    for parameter, of in zip(parameters, given, strict=True):
        assert parameter.grad.view(torch.uint8).equal(of.view(torch.uint8))
    parameters[1].grad[1] = bad
    with pytest.raises(NonFinite, match="gradient of p1 is NaN or infinite"):
        check_gradients(parameters, names, ("a",))


# ---- Epochs, evaluation, records -------------------------------------------------------------------------------------


def test_the_mean_of_an_epoch_is_over_the_steps_in_which_a_task_was_present():
    svi = regressions()
    seen = []
    for seed in range(4):
        x, y = batch(seed=seed)
        if seed % 2:
            y["b"] = torch.full_like(y["b"], NAN)
        y["c"] = torch.full_like(y["c"], NAN)
        seen.append(svi.step(x, y).losses.numpy())
    mean = svi.end_epoch().numpy()
    assert mean[0] == pytest.approx(np.mean([s[0] for s in seen]))
    assert mean[1] == pytest.approx(np.mean([seen[0][1], seen[2][1]]))
    assert np.isnan(mean[2])
    assert svi.epoch == 2

    alone = svi.step(*batch(seed=7)).losses
    assert_close(svi.end_epoch(), alone)


def test_a_transform_is_told_the_ends_of_epochs():
    svi = regressions(IGBv1(base_epoch=1))
    losses = torch.stack([svi.step(*batch(seed=seed)).losses for seed in range(3)])
    svi.end_epoch()
    assert_close(svi.balancer.transform.base, losses.mean(0))
    record = svi.step(*batch(seed=5))
    weights = 3 * torch.softmax(record.losses / losses.mean(0), 0) / record.losses
    assert_close(record.weights, weights)


def test_evaluation_is_per_labelled_row_and_changes_nothing():
    svi = regressions()
    svi.step(*batch())
    before, drawn = everything(svi), torch.get_rng_state()
    x, y = batch(seed=3)
    y["a"] = torch.full_like(y["a"], NAN)
    found = svi.evaluate(x, y)
    with torch.no_grad():
        h = torch.tanh(svi.model.trunk(x))
        errors = {name: (head(h)[:, 0] - y[name]).square() / 2 for name, head in svi.model.heads.items()}
    assert_close(found.losses, torch.tensor([e[~e.isnan()].mean() for e in errors.values()]).double(), equal_nan=True)
    assert found.labelled.tolist() == [0, 4, 2]
    assert_same(everything(svi), before)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert (svi.steps, len(svi.history)) == (1, 1)


def test_evaluation_may_come_first():
    model = Sites()
    svi = BalancedSVI(model, AutoNormal(model), Adam)
    found = svi.evaluate(*batch())
    assert svi.names == TASKS
    assert found.losses.isfinite().all()
    assert svi.step(*batch()).step == 0


def test_a_history_as_arrays():
    svi = regressions("uw >> nash-mtl >> norm", on_error="skip")
    for seed in range(4):
        x, y = batch(seed=seed)
        if seed == 1:
            y["b"] = torch.full_like(y["b"], NAN)
        if seed == 2:
            y["a"] = y["a"] + math.inf
        svi.step(x, y)
        if seed == 2:
            svi.end_epoch()
    arrays = history_arrays(svi.history)
    assert {name: a.shape for name, a in arrays.items()} == {
        **dict.fromkeys(("step", "epoch", "shared", "residual", "fidelity", "seconds", "skipped"), (4,)),
        **dict.fromkeys(("lr", "projection"), (4,)),
        **dict.fromkeys(("losses", "weights", "weights_heads", "effective_lr"), (4, 3)),
        **dict.fromkeys(("gram", "cosine", "magnitude_similarity"), (4, 3, 3)),
    }
    assert arrays["step"].tolist() == [0, 1, 2, 3]
    assert arrays["epoch"].tolist() == [1, 1, 1, 2]
    assert arrays["skipped"].tolist() == [False, False, True, False]
    assert np.isnan(arrays["losses"]).tolist()[1] == [False, True, False]
    cosine = arrays["cosine"]
    assert np.diagonal(cosine[0]) == pytest.approx(1)
    assert np.isnan(cosine[1, 1]).all()
    assert np.isnan(cosine[1, :, 1]).all()
    assert cosine[1, 0, 2] == pytest.approx(
        arrays["gram"][1, 0, 2] / math.sqrt(svi.history[1].gram.diagonal()[[0, 2]].prod())
    )
    assert np.isnan(arrays["gram"][2]).all()
    assert (arrays["seconds"] > 0).all()
    with pytest.raises(ValueError, match="no step"):
        history_arrays([])

    again = History()
    again.load_state_dict(svi.history.state_dict())
    for one, other in zip(again, svi.history, strict=True):
        assert one.names == other.names
        assert (one.events, one.status, one.seconds) == (other.events, other.status, other.seconds)
    for name, values in history_arrays(again).items():
        np.testing.assert_array_equal(values, arrays[name])


# ---- State -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balancer", ["ew", "uw", "igb-v1", "igb-v1 >> last-layer >> nash-mtl"])
def test_a_saved_state_is_taken_up_in_place_and_before_the_first_batch(balancer):
    svi = regressions(balancer)
    for seed in range(3):
        svi.step(*batch(seed=seed))
    svi.end_epoch()
    svi.step(*batch(seed=3))
    state = copy.deepcopy(svi.state_dict())

    def go_on(one):
        for seed in range(4, 7):
            one.step(*batch(seed=seed))
        one.end_epoch()
        return everything(one), history_arrays(one.history)["weights"], (one.steps, one.epoch)

    expected, weights, counters = go_on(svi)
    fresh = regressions(balancer, seed=99)
    fresh.load_state_dict(state)  # kept until its first batch
    svi.load_state_dict(state)  # at once
    for one in (svi, fresh):
        found, again, counted = go_on(one)
        assert_same(found, expected)
        np.testing.assert_array_equal(again, weights)
        assert counted == counters


def test_param_statements_are_saved_under_both_kinds_of_optimizer():
    data = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])
    for optim in (lambda: functools.partial(torch.optim.Adam, lr=0.05), lambda: pyro.optim.Adam({"lr": 0.05})):
        pyro.clear_param_store()
        svi = BalancedSVI(conjugate, conjugate_guide, optim(), elbo=bmtl.TaskELBO("analytic"))
        torch.manual_seed(0)
        for _ in range(3):
            svi.step(*data)
        state, drawn = copy.deepcopy(svi.state_dict()), torch.get_rng_state()
        for _ in range(3):
            svi.step(*data)
        expected = pyro.param("loc").item(), pyro.param("scale").item()

        pyro.clear_param_store()
        svi = BalancedSVI(conjugate, conjugate_guide, optim(), elbo=bmtl.TaskELBO("analytic"))
        svi.load_state_dict(state)
        torch.set_rng_state(drawn)
        for _ in range(3):
            svi.step(*data)
        assert (pyro.param("loc").item(), pyro.param("scale").item()) == expected


def test_there_is_nothing_to_save_before_the_first_batch():
    with pytest.raises(ValueError, match="nothing to save"):
        regressions().state_dict()


def wider():
    torch.manual_seed(0)
    return BalancedSVI(Regressions(width=5), nothing, Adam)


def fewer_tasks():
    return BalancedSVI(Regressions(tasks=("a", "b")), nothing, Adam)


def momentum():
    return regressions(optim=functools.partial(torch.optim.Adam, lr=0.01, betas=(0.8, 0.9)))


def with_latents():
    return BalancedSVI(Sites(), SitesGuide(), Adam)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (wider, r"model.trunk.weight.*\(4, 3\).*\(5, 3\)"),
        (fewer_tasks, "tasks"),
        (with_latents, "guide.loc.w.* is not in the saved state"),
        (momentum, "optimizer was made with"),
    ],
)
def test_a_state_of_something_else_is_refused_and_changes_nothing(other, message):
    svi = regressions()
    svi.step(*batch())
    state = copy.deepcopy(svi.state_dict())
    target = other()
    target.step(*batch())
    before = everything(target)
    with pytest.raises(CheckpointError, match=message):
        target.load_state_dict(state)
    assert_same(everything(target), before)
    assert target.steps == 1

    late = other()
    late.load_state_dict(state)
    with pytest.raises(CheckpointError, match=message):
        late.step(*batch())
