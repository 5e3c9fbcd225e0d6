"""A gradient scaler under BalancedSVI: float16's small gradients survive, and all else is as without it."""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch.testing import assert_close

import bmtl
from bmtl.inference.errors import NonFinite
from bmtl.inference.svi import BalancedSVI
from tests.inference.programs import (
    N_DATA,
    TASKS,
    Program,
    Regressions,
    Sites,
    SitesGuide,
    assert_same,
    batch,
    double,
    nothing,
)

Adam = functools.partial(torch.optim.Adam, lr=0.01)
SGD = functools.partial(torch.optim.SGD, lr=0.1)
SPECS = [
    *("ew", "uw", "famo", "igb-v1 >> nash-mtl", "grad-norm >> full", "full(every=2) >> upgrad", "full >> grad-drop"),
    *("full >> db-mtl", "full >> moco", "full(cross=True) >> sdm-grad", "last-layer(cross=True) >> sdm-grad"),
    *(
        "last-layer >> imtl-g",
        "representation(fidelity_every=1) >> mgda",
        "last-layer >> nash-mtl >> norm",
        "bayes-agg",
    ),
]


@pytest.fixture(autouse=True)
def _empty_store():
    pyro.clear_param_store()


def scaler(scale=2.0**10, **options):
    return torch.amp.GradScaler("cpu", init_scale=scale, **options)


def regressions(spec="ew", optim=SGD, heads="transform", **options):
    torch.manual_seed(0)
    return BalancedSVI(Regressions(N_DATA), nothing, optim, bmtl.balancer(spec, heads=heads), **options)


def latents(spec, **options):
    torch.manual_seed(0)
    elbo = bmtl.TaskELBO(balanced="elbo")
    return BalancedSVI(Sites(N_DATA), SitesGuide(), Adam, spec, elbo, **options)


def targets(seed):
    x, y = batch(12, seed, missing=False)
    return x, {name: 1.0 + values for name, values in y.items()}


def compare(svi, expected, steps=4):
    """Holds two runs equal, bit for bit."""
    for step in range(steps):
        for run in (svi, expected):
            torch.manual_seed(step)
            run.step(*targets(step))
        one, two = svi.history[-1], expected.history[-1]
        for field in ("losses", "weights", "weights_heads", "alpha", "gram", "shared", "fidelity", "status"):
            assert_same(getattr(one, field), getattr(two, field), f"{field} of step {step}")
    assert_same(svi.module.state_dict(), expected.module.state_dict())
    assert_same(svi.balancer.state_dict(), expected.balancer.state_dict())


@pytest.mark.parametrize("heads", ["transform", "alpha"])
@pytest.mark.parametrize("spec", SPECS)
def test_a_scale_that_is_a_power_of_two_changes_nothing(spec, heads):
    with double():
        compare(regressions(spec, heads=heads, scaler=scaler()), regressions(spec, heads=heads))


@pytest.mark.parametrize("spec", ["uw", "full >> imtl-g", "last-layer >> imtl-g", "bayes-agg"])
def test_nor_does_it_with_latents(spec):
    with double():
        compare(latents(spec, scaler=scaler()), latents(spec))


@pytest.mark.parametrize("balanced", ["likelihood", "elbo"])
def test_nor_with_latents_that_are_not_reparameterised(balanced):
    def coin(p, y=None):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        for name in ("a", "b"):
            with bmtl.task(name):
                c = pyro.sample(f"c_{name}", dist.Bernoulli(0.4))
                pyro.sample(f"y_{name}", dist.Normal(p["mean"] + z + c, 1.0), obs=torch.tensor(2.0))

    def guide(p, y=None):
        pyro.sample("z", dist.Bernoulli(logits=p["z"]))
        for name in ("a", "b"):
            pyro.sample(f"c_{name}", dist.Bernoulli(logits=p[name]))

    def make(**options):
        programs = Program(coin, mean=0.5), Program(guide, z=0.1, a=0.2, b=0.3)
        return BalancedSVI(*programs, SGD, "igb-v1", bmtl.TaskELBO(balanced=balanced), **options)

    with double():
        svi, expected = make(scaler=scaler()), make()
        for step in range(4):
            for run in (svi, expected):
                torch.manual_seed(step)
                run.step()
        assert_same(svi.module.state_dict(), expected.module.state_dict())


@pytest.mark.parametrize("spec", ["ew", "full >> imtl-g", "last-layer >> imtl-g", "representation >> imtl-g"])
def test_gradients_too_small_for_float16_survive(spec):
    def gradients(scale, autocast):
        svi = regressions(spec, scaler=scaler(scale))
        svi.model.n_data = dict.fromkeys(TASKS, 1)
        svi.elbo.n_data = 10**8  # a mean over a hundred million rows, each far below float16's smallest number
        with torch.autocast("cpu", torch.float16, enabled=autocast):
            record = svi.backward(*targets(0))
        return record, torch.cat([p.grad.reshape(-1) for p in svi.parameters]) / scale

    record, found = gradients(2.0**20, autocast=True)
    exact, expected = gradients(1.0, autocast=False)
    assert_close(record.weights, exact.weights, rtol=0.01, atol=0.0)
    assert_close(found, expected, rtol=0.02, atol=0.01 * expected.abs().max().item())
    lost = gradients(1.0, autocast=True)[1]
    assert (lost == 0).sum() > (found == 0).sum()


@pytest.mark.parametrize("spec", ["ew", "full >> upgrad", "representation >> upgrad"])
def test_an_overflow_skips_the_step_and_lowers_the_scale(spec):
    svi = regressions(spec, scaler=scaler(2.0**60, growth_interval=3))
    taken = []
    for step in range(60):
        before = {name: p.clone() for name, p in svi.module.state_dict().items()}
        with torch.autocast("cpu", torch.float16):
            record = svi.step(*targets(step))
        taken.append(record.status != "skipped")
        if not taken[-1]:
            assert "NaN or infinite" in record.events[0]
            assert_same(dict(svi.module.state_dict()), before)
    assert not taken[0]
    assert sum(taken) > 5
    assert svi.skipped == 60 - sum(taken)
    assert svi.scale >= 1.0


def test_without_a_scale_to_lower_a_gradient_that_is_nan_is_an_error():
    def program(p, x):
        for name in ("a", "b"):
            with bmtl.task(name), pyro.plate(f"{name}_rows", 1):
                pyro.factor(f"y_{name}", (p["w"] - p["w"]).abs().sqrt())

    svi = BalancedSVI(Program(program, w=1.0), nothing, SGD, scaler=scaler(8.0))
    for expected in (4.0, 2.0, 1.0):
        assert svi.step(0).status == "skipped"
        assert svi.scale == expected
    with pytest.raises(NonFinite, match="At step 3.*'?p.w"):
        svi.step(0)


def test_a_loss_that_is_infinite_is_an_error_at_any_scale():
    svi = regressions(scaler=scaler())
    x, y = targets(0)
    y["b"][0] = torch.inf
    with pytest.raises(NonFinite, match="'b'"):
        svi.step(x, y)
    assert svi.scale == 2.0**10


def test_backward_leaves_gradients_for_the_scaler_to_unscale():
    svi, expected = regressions("uw", scaler=scaler()), regressions("uw")
    for run in (svi, expected):
        run.backward(*targets(0))
        run.backward(*targets(1))
    svi.scaler.unscale_(svi.optimizer)
    own = [list(run.balancer.parameters()) for run in (svi, expected)]
    for one, two in zip([*svi.parameters, *own[0]], [*expected.parameters, *own[1]], strict=True):
        assert_close(one.grad, two.grad, rtol=1e-5, atol=1e-7)


def test_the_scale_is_part_of_the_state():
    svi = regressions(scaler=scaler(2.0**10, growth_interval=2))
    for step in range(4):
        svi.step(*targets(step))
    assert svi.scale == 2.0**12
    other = regressions(scaler=scaler())
    other.load_state_dict(svi.state_dict())
    other.step(*targets(4))
    svi.step(*targets(4))
    assert other.scale == svi.scale
    assert_same(other.module.state_dict(), svi.module.state_dict())
    assert other.scaler.state_dict() == svi.scaler.state_dict()


def test_a_scaler_that_is_switched_off_is_none():
    compare(regressions("full >> nash-mtl", scaler=scaler(enabled=False)), regressions("full >> nash-mtl"))


def test_a_joint_guides_terms_of_weight_one_are_scaled_too():
    def make(**options):
        torch.manual_seed(0)
        model = Sites(N_DATA)
        return BalancedSVI(model, AutoNormal(model), Adam, "last-layer >> upgrad", **options)

    with double():
        compare(make(scaler=scaler()), make())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_products_of_gradients_are_not_taken_in_half_precision(dtype):
    svi = regressions("full")  # compares for the record; the update is the plain sum
    with torch.autocast("cpu", dtype):
        record = svi.backward(*targets(0))
    trunk = torch.cat([p.grad.reshape(-1).double() for p in svi.model.trunk.parameters()])
    assert_close(record.gram.sum(), trunk @ trunk, rtol=1e-5, atol=0.0)


def test_under_autocast_draws_are_drawn_again_as_the_first_were():
    kinds = []

    class Told(Regressions):
        def forward(self, x, y=None):
            kinds.append(torch.is_autocast_enabled("cpu"))
            super().forward(x, y)

    torch.manual_seed(0)
    svi = BalancedSVI(Told(N_DATA), nothing, SGD, "bayes-agg(draws=3)")
    with torch.autocast("cpu", torch.bfloat16):
        svi.step(*targets(0))
    assert kinds == [True] * 4  # one to set up, three draws
