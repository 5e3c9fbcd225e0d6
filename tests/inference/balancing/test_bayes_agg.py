import copy
import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference.balancing import SLOTS, BayesAgg, Context, Measured, balancer
from bmtl.inference.balancing.geometry.head_draws import HeadDraws
from bmtl.inputs import PerTask
from bmtl.models import mlp
from tests.inference.programs import Regressions, assert_same, batch, nothing, task_model

TASKS = ("a", "b", "c")
SGD = functools.partial(torch.optim.SGD, lr=0.1)


@pytest.fixture(autouse=True)
def _double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


class Linear(PyroModule):
    """A trunk and linear heads (3,) that the guide draws; squared errors."""

    def __init__(self, n_data=20, order=TASKS):
        super().__init__()
        self.n_data, self.order = n_data, order
        self.trunk = nn.Sequential(nn.Linear(3, 3), nn.Tanh())

    def forward(self, x, y):
        h = bmtl.shared(self.trunk(x))
        for name in self.order:
            with bmtl.task(name):
                w = pyro.sample(f"w_{name}", dist.Normal(torch.zeros(3), 1.0).to_event(1))
                with pyro.plate(f"{name}_rows", self.n_data, subsample=x):
                    bmtl.observe(f"y_{name}", dist.Normal(h @ w, 1.0), y[name])


class Heads(PyroModule):
    """Normal heads; keeps what it drew."""

    def __init__(self, scale=0.5):
        super().__init__()
        self.loc = nn.ParameterDict({name: nn.Parameter(torch.randn(3)) for name in TASKS})
        self.scale, self.drawn = scale, []

    def forward(self, x, y):
        self.drawn.append(
            {
                name: pyro.sample(f"w_{name}", dist.Normal(loc, self.scale).to_event(1)).detach()
                for name, loc in self.loc.items()
            }
        )


def svi_of(model, guide, spec, optim=SGD):
    return bmtl.BalancedSVI(model, guide, optim, spec)


def grads(svi, x, y, seed=1):
    """The gradients of a step, without the step."""
    svi.initialise(x, y)
    svi.zero_grad()
    if isinstance(svi.guide, Heads):
        svi.guide.drawn.clear()
    torch.manual_seed(seed)
    record = svi.backward(x, y)
    return {n: p.grad.clone() for n, p in svi.module.named_parameters() if p.grad is not None}, record


# ---- The formula -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [(), ("some",), ("some", "all")])
@pytest.mark.parametrize("weights", [{}, {"a": 2.0, "b": 0.5}])
def test_the_trunk_gets_the_precision_weighted_mean_of_the_tasks(missing, weights):
    model, guide = Linear(), Heads()
    x, y = batch(missing=False)
    if "some" in missing:
        y["b"][:2] = math.nan
        y["c"][1:] = math.nan
    if "all" in missing:
        y["a"][:] = math.nan
    svi = svi_of(model, guide, f"ew(weights={weights}) >> bayes-agg(power=0.7, draws=5)")
    found, record = grads(svi, x, y)
    assert len(guide.drawn) == 5
    h = model.trunk(x)
    scale = {name: weights.get(name, 1.0) for name in TASKS}
    each = torch.stack(  # (S, K, B, d)
        [
            torch.stack([scale[name] * ((h @ w[name] - y[name])[:, None] * w[name]) for name in TASKS])
            for w in guide.drawn
        ]
    ).detach()
    labelled = ~torch.stack([y[name] for name in TASKS]).isnan()[..., None]  # (K, B, 1)
    mean = torch.where(labelled, each.mean(0), 0.0)
    precision = torch.where(labelled, each.var(0).clamp_min(1e-8).pow(-0.7), 0.0)
    share = labelled.sum(0) * precision / precision.sum(0).clamp_min(1e-30)
    direction = (share * mean).sum(0) / len(x)
    for (name, _), gradient in zip(
        model.trunk.named_parameters(), torch.autograd.grad(h, list(model.trunk.parameters()), direction), strict=True
    ):
        assert_close(found[f"model.trunk.{name}"], gradient)
    here = labelled.flatten(1).any(1)
    expected = ((share * mean * mean).sum((1, 2)) / mean.square().sum((1, 2)))[here]
    assert_close(record.alpha[here], expected)
    assert_close(record.weights[here], expected * torch.tensor(list(scale.values()))[here])
    assert record.weights[~here].isnan().all()


def test_heads_follow_their_own_losses():
    x, y = batch(missing=False)
    model, guide = Linear(), Heads()
    found, _ = grads(svi_of(model, guide, "bayes-agg"), x, y)
    plain, _ = grads(svi_of(model, guide, "ew"), x, y)
    for name, gradient in plain.items():
        assert torch.allclose(found[name], gradient) == ("loc" in name)


@pytest.mark.parametrize("missing", [False, True])
def test_heads_without_variance_give_equal_weights(missing):
    x, y = batch(missing=missing)
    model = Regressions()
    found, record = grads(svi_of(model, nothing, "bayes-agg(power=1.0)"), x, y)
    plain, _ = grads(svi_of(model, nothing, "ew"), x, y)
    assert found.keys() == plain.keys()
    for name, gradient in plain.items():
        assert_close(found[name], gradient)
    assert record.weights.min() > 0.99


class Apart(PyroModule):
    """Tasks that pull the representation in opposite directions, each dimension by itself."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3))

    def forward(self, x, y):
        h = bmtl.shared(x + self.shift)
        for name, target in y.items():
            with bmtl.task(name):
                w = pyro.sample(f"w_{name}", dist.Normal(torch.ones(3), 1.0).to_event(1))
                with pyro.plate(f"{name}_rows", len(x)):
                    pyro.sample(f"y_{name}", dist.Normal(h * w, 1.0).to_event(1), obs=target)


@pytest.mark.parametrize("diffuse", ["a", "b"])
def test_a_diffuse_head_loses_influence_where_it_is_diffuse(diffuse):
    def guide(x, y):
        for name in ("a", "b"):
            scale = torch.full((3,), 0.01)
            if name == diffuse:
                scale[1] = 0.5
            pyro.sample(f"w_{name}", dist.Normal(torch.ones(3), scale).to_event(1))

    x, ones = torch.zeros(400, 3), torch.ones(400, 3)
    found, _ = grads(svi_of(Apart(), guide, "bayes-agg(power=0.5, draws=20)"), x, {"a": ones, "b": -ones})
    pull = found["model.shift"]  # a's is -1, b's is 1
    sign = 1.0 if diffuse == "a" else -1.0
    assert sign * pull[1] > 1.5  # of 2: the other's alone
    assert (pull[[0, 2]].abs() < 0.8).all()


def test_without_power_all_count_alike():
    x, y = batch(missing=False)
    _, record = grads(svi_of(Linear(), Heads(), "bayes-agg(power=0.0)"), x, y)
    assert_close(record.weights, torch.ones(3))


# ---- Invariances -----------------------------------------------------------------------------------------------------


def test_tasks_may_come_in_any_order():
    generator = torch.Generator().manual_seed(0)
    mean, variance = (torch.randn(3, 12, generator=generator) for _ in range(2))
    order = [2, 0, 1]
    here = Context(torch.ones(3, dtype=torch.bool))
    one = BayesAgg().weigh(Measured(mean @ mean.T, mean, variance=variance.square()), here)[0]
    mixed = mean[order]
    other = BayesAgg().weigh(Measured(mixed @ mixed.T, mixed, variance=variance.square()[order]), here)[0]
    assert_close(other.alpha, one.alpha[order])
    assert_close(other.direction, one.direction)

    x, y = batch(missing=True)
    model, guide = Linear(), Heads()
    turned = Linear(order=("c", "a", "b"))
    turned.load_state_dict(model.state_dict())
    found, record = grads(svi_of(model, guide, "bayes-agg"), x, y)
    again, other = grads(svi_of(turned, guide, "bayes-agg"), x, y)
    for name, gradient in found.items():
        assert_close(again[name], gradient)
    assert_close(other.weights, record.weights[order])


@pytest.mark.parametrize("power", [0.3, 40.0])
def test_a_common_scale_of_the_gradients_scales_the_update(power):
    mean, variance = torch.randn(3, 12).float(), torch.rand(3, 12).float() + 0.1
    here = Context(torch.ones(3, dtype=torch.bool))
    one, other = (
        BayesAgg(power).weigh(Measured((s * s * mean @ mean.T).double(), s * mean, variance=s * s * variance), here)[0]
        for s in (1.0, 128.0)
    )
    assert one.direction.isfinite().all()
    assert_close(other.direction, 128 * one.direction)
    assert_close(other.alpha, one.alpha)


def test_a_task_alone_has_its_own_gradient():
    x, y = batch(missing=False)
    y["a"][:], y["c"][:] = math.nan, math.nan
    model, guide = Linear(), Heads()
    found, record = grads(svi_of(model, guide, "bayes-agg"), x, y)
    assert len(guide.drawn) == 1
    plain, _ = grads(svi_of(model, guide, "ew"), x, y)
    for name, gradient in plain.items():
        assert_close(found[name], gradient)
    assert record.weights[1] == 1
    y["b"][:] = math.nan
    _, record = grads(svi_of(model, guide, "bayes-agg"), x, y)
    assert record.status == "ok"


def test_lengths_hold():
    x, y = batch(missing=False)
    model, guide = Linear(), Heads()
    plain, as_is = grads(svi_of(model, guide, "bayes-agg"), x, y)
    found, record = grads(svi_of(model, guide, "bayes-agg >> sum"), x, y)
    assert record.alpha.sum().item() == pytest.approx(3)
    assert_close(found["model.trunk.0.weight"], plain["model.trunk.0.weight"] * 3 / as_is.alpha.sum())


# ---- State and randomness --------------------------------------------------------------------------------------------


def test_the_draws_leave_the_global_generator_where_a_plain_step_does():
    x, y = batch()
    states = []
    for spec in ("ew", "bayes-agg"):
        grads(svi_of(Linear(), Heads(), spec), x, y)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_the_seed_matters_and_repeats():
    x, y = batch()
    model, guide = Linear(), Heads()
    one, again, other = (
        grads(svi_of(model, guide, f"bayes-agg(seed={s})"), x, y)[0]["model.trunk.0.bias"] for s in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


def test_a_run_is_taken_up_bit_for_bit():
    x, y = batch()
    torch.manual_seed(5)
    whole = svi_of(Linear(), Heads(), "bayes-agg")
    for _ in range(3):
        whole.step(x, y)
    state, generator = copy.deepcopy(whole.state_dict()), torch.get_rng_state()
    for _ in range(3):
        whole.step(x, y)
    fresh = svi_of(Linear(), Heads(), "bayes-agg")
    fresh.initialise(x, y)
    fresh.load_state_dict(state)
    torch.set_rng_state(generator)
    for _ in range(3):
        fresh.step(x, y)
    assert_same(fresh.program_state(), whole.program_state())
    assert_same(fresh.balancer.state_dict(), whole.balancer.state_dict())


# ---- On programs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_inputs", [False, True])
@pytest.mark.parametrize("spec", ["bayes-agg(draws=3)", "si >> bayes-agg(draws=3)"])
def test_it_trains_bayesian_heads(spec, own_inputs):
    classes = {"a": 0, "b": 3, "c": 0}
    model = task_model(mlp(3, (6,)), 6, classes, 40, head="bayesian", noise="fixed")
    guide = model.guide(scale=0.1)
    x = torch.randn(40, 3)
    y = {"a": x[:, 0] + 1.0, "b": (x[:, 1] > 0).long(), "c": x[:, 2].clone()}
    y["a"][:5] = math.nan
    inputs = PerTask({name: x + 0.1 * i for i, name in enumerate(classes)}) if own_inputs else x
    svi = svi_of(model, guide, spec, functools.partial(torch.optim.Adam, lr=1e-2))
    start = svi.evaluate(inputs, y).losses.sum()
    for _ in range(40):
        record = svi.step(inputs, y)
        assert record.weights.isfinite().all()
        assert record.status == "ok"
    assert svi.evaluate(inputs, y).losses.sum() < start
    if own_inputs:  # no example has two tasks
        assert_close(record.alpha, torch.ones(3))


# ---- The choice ------------------------------------------------------------------------------------------------------


def test_it_is_read_from_its_string_form():
    made = balancer("igb-v1 >> bayes-agg(power=0.5, draws=4, seed=2) >> norm")
    assert str(made) == "igb-v1 >> bayes-agg(power=0.5, draws=4, seed=2) >> norm"
    assert isinstance(made.geometry, HeadDraws)
    assert (made.geometry.draws, made.geometry.seed) == (4, 2)
    assert str(balancer("bayes-agg")) == "bayes-agg"
    assert SLOTS["bayes-agg"] is BayesAgg
    assert "head-draws" not in SLOTS


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("full >> bayes-agg", "bayes-agg is weighting and geometry in one, and full was chosen too"),
        ("bayes-agg >> representation", "and representation was chosen too: leave it out"),
        ("nash-mtl >> bayes-agg", "nash-mtl and bayes-agg are both a weighting"),
    ],
)
def test_what_it_does_not_take(spec, message):
    with pytest.raises(ValueError, match=message):
        balancer(spec)


def test_it_needs_draws_and_a_mark(step):
    trunk, heads = nn.Linear(3, 4), nn.Linear(4, 2)
    x = torch.randn(5, 3)
    with pytest.raises(ValueError, match=r"runs guide and model several times: use it in bmtl\.BalancedSVI"):
        step("bayes-agg", lambda: list(heads(bmtl.shared(trunk(x))).square().mean(0).unbind()))
    with pytest.raises(ValueError, match="works on the gradients themselves"):
        BayesAgg().solve(torch.eye(2))
    with pytest.raises(ValueError, match="the geometry that it brings"):
        BayesAgg().weigh(Measured(torch.eye(2, dtype=torch.float64)), Context(torch.ones(2, dtype=torch.bool)))


def test_a_program_that_marks_something_else_when_run_again_is_refused():
    model = Linear()
    runs = []

    class Growing(nn.Module):
        def forward(self, h):
            runs.append(1)
            return h if len(runs) < 3 else torch.cat([h, h])

    model.trunk.append(Growing())
    x, y = batch(missing=False)
    svi = svi_of(model, Heads(), "bayes-agg")
    svi.initialise(x, y)
    with pytest.raises(ValueError, match="Let every run mark the same tensors"):
        svi.step(x, y)
    assert torch.is_grad_enabled()
