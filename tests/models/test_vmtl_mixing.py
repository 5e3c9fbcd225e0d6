"""Weights of the other tasks: on the simplex, and with the divergences they should have."""

import functools
import math

import pyro
import pytest
import torch
from pyro import poutine
from scipy import integrate, special
from torch import nn

import bmtl
from bmtl.models.likelihoods import Gaussian
from bmtl.models.vmtl import VMTL, PointEncoder, Temperature
from bmtl.models.vmtl.mixing import RELEASED, WEIGHTS, mixing

LATENT = ("dirichlet", "logistic_normal", "concrete")


def traces(weights, tasks=3, temperature=1.0, step=0):
    """The traces of guide and program of weights in a task plate, and the weights."""
    names, step = [f"t{i}" for i in range(tasks)], torch.tensor(step)
    found = []

    def guide():
        with bmtl.task_plate(names, dim=-2):
            weights.sample_guide("alpha", step)

    def program():
        with bmtl.task_plate(names, dim=-2):
            found.append(weights.weights("alpha", step))

    proposed = poutine.trace(guide).get_trace()
    replayed = poutine.trace(poutine.replay(program, trace=proposed)).get_trace()
    return proposed, replayed, found[0]


@pytest.mark.parametrize("tasks", [2, 3, 7])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_lie_on_the_simplex_of_the_others(name, tasks):
    weights = mixing(name, tasks)
    *_, drawn = traces(weights, tasks)
    assert drawn.shape == (tasks, 1, tasks - 1)
    assert (drawn >= 0).all()
    torch.testing.assert_close(drawn.sum(-1), torch.ones(tasks, 1))
    assert weights.expected().shape == (tasks, tasks - 1)
    torch.testing.assert_close(weights.expected(), torch.full((tasks, tasks - 1), 1 / (tasks - 1)))


@pytest.mark.parametrize("name", ["mean", "learned", "gumbel"])
def test_weights_without_a_posterior_add_nothing(name):
    proposed, replayed, _ = traces(mixing(name, 4), 4)
    for trace in (proposed, replayed):
        trace.compute_log_prob()
        assert sum(site.get("log_prob_sum", 0.0) for site in trace.nodes.values()) == 0.0


def test_gumbel_noise_is_the_softmax_of_log_weights_and_noise(monkeypatch):
    weights = mixing("gumbel", 3, 0.7)
    weights.logits.data = torch.tensor([[[0.3, -1.0]], [[2.0, 0.0]], [[0.0, 0.5]]])
    uniform = torch.tensor([[[0.2, 0.6]], [[0.5, 0.9]], [[0.1, 0.3]]])
    monkeypatch.setattr("torch.distributions.relaxed_categorical.clamp_probs", lambda u: uniform)
    *_, drawn = traces(weights)
    g = -(-uniform.log()).log()
    torch.testing.assert_close(drawn, ((weights.logits.log_softmax(-1) + g) / 0.7).softmax(-1))


@pytest.mark.parametrize("name", LATENT)
def test_a_posterior_equal_to_the_prior_costs_nothing_and_another_costs_what_draws_say(name):
    weights = mixing(name, 3)

    class Model(nn.Module):
        """The weights alone, with something to observe."""

        def __init__(self):
            super().__init__()
            self.weights = weights

        def guide(self):
            with bmtl.task_plate("abc", dim=-2):
                weights.sample_guide("alpha", torch.tensor(0))

        def forward(self):
            with bmtl.task_plate("abc", dim=-2):
                weights.weights("alpha", torch.tensor(0))

    def kl(estimator, particles=1):
        pyro.set_rng_seed(0)
        elbo = bmtl.TaskELBO(estimator, num_particles=particles, vectorize_particles=particles > 1, max_plate_nesting=2)
        return elbo.task_losses(model, model.guide).kl.detach()

    model = Model()
    torch.testing.assert_close(kl("mc", 400), torch.zeros(3), atol=2e-3, rtol=0)
    torch.manual_seed(1)
    for parameter in weights.parameters():
        parameter.data += torch.randn_like(parameter)
    drawn = torch.stack([kl("mc", 2000) for _ in range(1)]).mean(0)
    assert (drawn > 0).all()
    torch.testing.assert_close(drawn, kl("analytic", 2000), rtol=0.1, atol=0.05)


def test_the_concrete_divergence_does_not_depend_on_the_temperature():
    """A change of variables that both laws share: equal noise gives equal log ratios."""
    found = []
    for temperature in (0.5, 1.0, 2.0):
        weights = mixing("concrete", 3, temperature)
        weights.logits.data = torch.tensor([[[0.3, -1.0]], [[2.0, 0.0]], [[0.0, 0.5]]])
        pyro.set_rng_seed(0)
        proposed, replayed, _ = traces(weights)
        for trace in (proposed, replayed):
            trace.compute_log_prob()
        found.append(proposed.nodes["alpha"]["log_prob"] - replayed.nodes["alpha"]["log_prob"])
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[2], found[1], rtol=1e-3, atol=1e-4)


def test_the_released_schedule():
    temperature = Temperature(**RELEASED, repeats=4)
    assert [round(temperature.at(torch.tensor(step)).item(), 3) for step in (0, 999, 1000, 2000, 3000, 15_000)] == [
        1,
        1,
        0.887,
        0.698,
        0.5,
        0.5,
    ]
    assert Temperature(0.3).at(torch.tensor(10**6)) == 0.3


def test_a_schedule_multiplies_step_by_step():
    schedule = Temperature(2.0, rate=1e-3, every=7, floor=0.2, repeats=3)
    tau = 2.0
    for step in range(1, 200):
        if step % 7 == 0:
            for _ in range(3):
                tau = max(tau * math.exp(-1e-3 * step), 0.2)
        assert schedule.at(torch.tensor(step)).item() == pytest.approx(tau)


@pytest.mark.parametrize("bad", [{"start": 0.0}, {"rate": -1.0}, {"every": 0}, {"floor": 0.0}, {"repeats": 0}])
def test_bad_schedules_are_named(bad):
    with pytest.raises(ValueError, match="temperature"):
        Temperature(**bad)


@pytest.mark.parametrize("temperature", [0.3, Temperature(1.0, rate=1e-4)])
def test_concrete_weights_need_a_constant_temperature_that_does_not_underflow(temperature):
    with pytest.raises(ValueError, match="constant temperature"):
        mixing("concrete", 3, temperature)


def test_dirichlet_weights_reach_the_posterior_that_is_known():
    """Under "log-linear-pool" the best posterior of alpha is ``p(alpha) exp(-sum_i alpha_i KL_i)``; one integral.

    Its mean is (1/d - 1/(e^d - 1)) on the farther source, d the difference of the divergences.
    """
    model = VMTL(
        1,
        {name: Gaussian() for name in "abc"},
        1,
        encoder=PointEncoder(nn.Identity()),
        latent=1,
        latent_z="point",
        weights="dirichlet",
        anchor=0.0,
        scale_w=1.0,
    )
    q = model.classifiers
    q.loc.data = torch.tensor([0.0, 1.0, 2.0])[:, None, None]
    q.rho.data.fill_(math.log(math.e - 1))
    q.requires_grad_(False)
    x, y = torch.zeros(1, 1), {name: torch.full((1,), math.nan) for name in "abc"}
    elbo = bmtl.TaskELBO("analytic", num_particles=30, vectorize_particles=True)
    optim = functools.partial(torch.optim.Adam, lr=0.05)
    bmtl.BalancedSVI(model, model.guide(), optim, elbo=elbo).initialise(x, y)
    optimizer = optim(model.priors.parameters())
    pyro.set_rng_seed(0)
    mean = torch.zeros(2)
    for step in range(400):
        optimizer.zero_grad()
        elbo.task_losses(model, model.guide(), x, y).kl[0].backward()
        optimizer.step()
        mean += model.priors.mixings["alpha_w"].expected()[0] * (step >= 200) / 200
    d = 0.5 * (2**2 - 1**2)
    z = integrate.quad(lambda a: math.exp(-d * a), 0, 1)[0]
    exact = integrate.quad(lambda a: a * math.exp(-d * a), 0, 1)[0] / z  # on the source at 2
    assert mean[1].item() == pytest.approx(exact, abs=0.03)
    assert exact == pytest.approx(1 / d - 1 / special.expm1(d))
