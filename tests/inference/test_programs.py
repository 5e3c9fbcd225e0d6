"""Runs of a program that are no step leave no trace, and programs may take derivatives themselves."""

import copy
import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

import bmtl
from bmtl.inference.programs import Programs, kept_state
from bmtl.inference.svi import BalancedSVI
from tests.inference.programs import Sites, assert_same, batch, nothing

SGD = functools.partial(torch.optim.SGD, lr=0.1)
ROWS = 8


@pytest.fixture(autouse=True)
def _empty_store():
    pyro.clear_param_store()


# ---- Derivatives inside a program ------------------------------------------------------------------------------------


class EnergyForces(nn.Module):
    """Energies by the head, forces by its derivative at the inputs."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(3, 6), nn.Tanh())
        self.head = nn.Linear(6, 1)
        self.options = options

    def energies_and_forces(self, x, mark=bmtl.shared):
        x = x.clone().requires_grad_()
        energy = self.head(mark(self.trunk(x))).squeeze(-1)
        return energy, -torch.autograd.grad(energy.sum(), x, create_graph=True, **self.options)[0]

    def forward(self, x, y):
        energy, force = self.energies_and_forces(x)
        with bmtl.task("energy"), pyro.plate("energy_rows", len(x)):
            bmtl.observe("y_energy", dist.Normal(energy, 1.0), y["energy"])
        with bmtl.task("force"), pyro.plate("force_rows", len(x)):
            bmtl.observe("y_force", dist.Normal(force, 1.0).to_event(1), y["force"])


def molecules(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, 3, generator=generator)
    return x, {"energy": torch.randn(ROWS, generator=generator), "force": torch.randn(ROWS, 3, generator=generator)}


def losses_by_hand(model, x, y):
    energy, force = model.energies_and_forces(x, mark=lambda h: h)
    constant = torch.log(torch.tensor(2 * torch.pi)) / 2
    return (
        ((energy - y["energy"]).square() / 2 + constant).mean(),
        ((force - y["force"]).square() / 2 + constant).sum(-1).mean(),
    )


@pytest.mark.parametrize("balancer", ["ew", "full >> mgda", "full(every=2) >> upgrad", "ew >> full(every=2)"])
def test_a_derivative_inside_the_program_is_trained_as_in_plain_torch(balancer):
    svi = BalancedSVI(EnergyForces(), nothing, SGD, balancer)
    for seed in range(3):
        x, y = molecules(seed)
        expected = losses_by_hand(svi.model, x, y)
        parameters = list(svi.model.parameters())
        rows = [torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in expected]
        before = [p.detach().clone() for p in parameters]
        record = svi.step(x, y)
        assert_close(record.losses, torch.stack(expected).detach().double(), rtol=1e-5, atol=1e-6)
        weights = record.weights.tolist()
        for p, old, one, two in zip(parameters, before, *rows, strict=True):
            if any(p is own for own in svi.model.trunk.parameters()):
                parts = [w * g for w, g in zip(weights, (one, two), strict=True) if g is not None]
                assert_close(p.detach(), old - 0.1 * sum(parts), rtol=1e-4, atol=1e-5)


def test_the_gram_matrix_is_of_parameters_and_not_of_inputs():
    svi = BalancedSVI(EnergyForces(), nothing, SGD, "full >> mgda")
    x, y = molecules()
    trunk = list(svi.model.trunk.parameters())
    rows = []
    for loss in losses_by_hand(svi.model, x, y):
        gradients = torch.autograd.grad(loss, trunk, retain_graph=True, allow_unused=True)
        rows.append(torch.cat([g.flatten() for g in gradients]).double())
    jacobian = torch.stack(rows)
    assert_close(svi.step(x, y).gram, jacobian @ jacobian.T, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("balancer", ["famo", "ew"])
def test_evaluation_and_second_forwards_take_the_derivative_too(balancer):
    svi = BalancedSVI(EnergyForces(), nothing, SGD, balancer)
    x, y = molecules()
    torch.manual_seed(3)
    drawn = torch.get_rng_state()
    for _ in range(2):
        found = svi.evaluate(x, y)
        assert_close(found.losses, torch.stack(losses_by_hand(svi.model, x, y)).detach().double(), rtol=1e-5, atol=1e-6)
        assert not found.losses.requires_grad
    assert torch.equal(torch.get_rng_state(), drawn)
    assert svi.step(x, y).losses.isfinite().all()
    with torch.no_grad():
        assert svi.evaluate(x, y).losses.isfinite().all()


def test_it_trains_and_validates_under_fit():
    svi = BalancedSVI(EnergyForces(), nothing, SGD, "full >> upgrad")
    data = [molecules(seed) for seed in range(3)]
    result = bmtl.fit(svi, data, data, max_epochs=3, progress=False)
    means = [sum(result.validation[name][epoch] for name in ("energy", "force")) for epoch in (0, 2)]
    assert means[1] < means[0]


def test_a_second_derivative_is_taken_as_well():
    class Curvature(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))

        def forward(self, x, y):
            x = x.clone().requires_grad_()
            value = self.net(x)
            slope = torch.autograd.grad(value.sum(), x, create_graph=True)[0]
            bend = torch.autograd.grad(slope.sum(), x, create_graph=True)[0]
            for name, mean in (("value", value), ("bend", bend)):
                with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                    bmtl.observe(f"y_{name}", dist.Normal(mean.squeeze(-1), 0.1), y[name])

    x = torch.linspace(-2, 2, 16)[:, None]
    y = {"value": torch.sin(x.squeeze(-1)), "bend": -torch.sin(x.squeeze(-1))}
    svi = BalancedSVI(Curvature(), nothing, functools.partial(torch.optim.Adam, lr=0.03), "full >> nash-mtl")
    first = svi.evaluate(x, y).losses
    for _ in range(60):
        svi.step(x, y)
    assert (svi.evaluate(x, y).losses < first).all()


@pytest.mark.parametrize("options", [{}, {"allow_unused": True}, {"materialize_grads": True}])
@pytest.mark.parametrize("balancer", ["last-layer >> nash-mtl", "representation >> mgda", "bayes-agg"])
def test_a_geometry_that_cuts_the_input_off_says_so_at_the_first_batch(balancer, options):
    """Torch's own answers are an error about an unused tensor, None, and forces of zero without a word."""
    model = EnergyForces(**options)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"the input is cut off.*'full'"):
        BalancedSVI(model, nothing, SGD, balancer).step(*molecules())
    assert_same(copy.deepcopy(model.state_dict()), before)


@pytest.mark.parametrize("balancer", ["last-layer >> nash-mtl", "representation >> mgda"])
def test_a_derivative_before_the_mark_is_no_hindrance(balancer):
    """The features are slopes of a network, and the tasks part after them."""

    class Slopes(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))
            self.last = nn.Linear(3, 4)
            self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in "ab"})

        def forward(self, x, y):
            x = x.clone().requires_grad_()
            slopes = torch.autograd.grad(self.trunk(x).sum(), x, create_graph=True)[0]
            h = bmtl.shared(self.last(slopes))
            for name, head in self.heads.items():
                with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                    bmtl.observe(f"y_{name}", dist.Normal(head(h).squeeze(-1), 1.0), y[name])

    svi = BalancedSVI(Slopes(), nothing, SGD, balancer)
    before = svi.model.trunk[0].weight.detach().clone()
    x, y = batch(missing=False)
    for _ in range(2):
        assert svi.step(x, y).status == "ok"
    assert not torch.equal(svi.model.trunk[0].weight, before)


def test_an_error_of_the_program_itself_comes_through():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3))

        def forward(self, x, y):
            if len(x) < 4:
                raise RuntimeError("what the program says")
            with bmtl.task("a"), pyro.plate("a_rows", len(x)):
                bmtl.observe("y_a", dist.Normal(x @ self.w, 1.0), y["a"])

    svi = BalancedSVI(Broken(), nothing, SGD)
    svi.step(*batch())
    for run in (svi.evaluate, svi.step):
        with pytest.raises(RuntimeError, match="what the program says"):
            run(*batch(2))
    assert svi.evaluate(*batch()).losses.isfinite().all()


# ---- Buffers ---------------------------------------------------------------------------------------------------------


class Normed(nn.Module):
    """A trunk with a batch norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 4))
        self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in "ab"})

    def forward(self, x, y):
        h = bmtl.shared(self.trunk(x))
        for name, head in self.heads.items():
            with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                bmtl.observe(f"y_{name}", dist.Normal(head(h).squeeze(-1), 1.0), y[name])


def full_batch(seed=0):
    x, y = batch(ROWS, seed, missing=False)
    return x + 1.0, {name: y[name] for name in "ab"}


EXTRA = (
    "ew",
    "famo",
    "bayes-agg",
    "last-layer >> nash-mtl",
    "full >> upgrad",
    "last-layer(every=2,fidelity_every=1) >> mgda",
)


@pytest.mark.parametrize("balancer", EXTRA)
def test_running_means_are_those_of_a_torch_loop(balancer):
    """One step left .409 in torch, .777 with "ew" and 2.51 with "bayes-agg" here."""
    model = Normed()
    svi = BalancedSVI(model, AutoNormal(model) if balancer == "bayes-agg" else nothing, SGD, balancer)
    for seed in range(3):
        expected = copy.deepcopy(model.trunk)
        x, y = full_batch(seed)
        expected(x)
        svi.step(x, y)
        svi.evaluate(x, y)
        for name, buffer in expected.named_buffers():
            assert_close(dict(model.trunk.named_buffers())[name], buffer, rtol=1e-6, atol=1e-7)
    assert model.trunk[1].num_batches_tracked == 3


def test_setting_up_and_evaluating_change_no_buffer():
    model = Normed()
    before = copy.deepcopy(model.state_dict())
    svi = BalancedSVI(model, nothing, SGD, "last-layer >> nash-mtl")
    svi.initialise(*full_batch())
    svi.evaluate(*full_batch(1))
    assert_same(copy.deepcopy(model.state_dict()), before)
    assert all(buffer is model.state_dict(keep_vars=True)[name] for name, buffer in model.named_buffers())


def test_a_batch_norm_that_a_function_closes_over_is_left_alone_too():
    net = Normed()

    def model(x, y):
        pyro.module("net", net)(x, y)

    svi = BalancedSVI(model, nothing, SGD, "famo")
    expected = copy.deepcopy(net.trunk)
    expected(full_batch()[0])
    svi.step(*full_batch())
    assert_close(net.trunk[1].running_mean, expected[1].running_mean)


def test_the_vectors_of_a_spectral_norm_move_once_a_step():
    model = Normed()
    parametrizations.spectral_norm(model.trunk[3])
    expected = copy.deepcopy(model.trunk)
    svi = BalancedSVI(model, nothing, SGD, "famo")
    svi.step(*full_batch())
    expected(full_batch()[0])
    for name, buffer in expected.named_buffers():
        assert_close(dict(model.trunk.named_buffers())[name], buffer)


class Counting(Normed):
    """Counts its runs in a buffer that it replaces, and in its extra state."""

    def __init__(self):
        super().__init__()
        self.runs = 0
        self.register_buffer("count", torch.zeros(()))

    def get_extra_state(self):
        return {"runs": self.runs}

    def set_extra_state(self, state):
        self.runs = state["runs"]

    def forward(self, x, y):
        self.runs += 1
        self.count = self.count + 1
        super().forward(x, y)


@pytest.mark.parametrize("balancer", ["ew", "famo", "bayes-agg"])
def test_what_a_model_counts_itself_counts_steps(balancer):
    model = Counting()
    svi = BalancedSVI(model, AutoNormal(model), SGD, balancer)
    for seed in range(3):
        svi.step(*full_batch(seed))
        svi.evaluate(*full_batch(seed))
    assert model.runs == model.count == 3


def test_buffers_that_modules_share_stay_shared():
    one, two = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    two.running_mean = one.running_mean
    with kept_state([one, two]):
        assert two.running_mean is one.running_mean
        one(torch.randn(4, 2))
    assert two.running_mean is one.running_mean
    assert one.running_mean.tolist() == [0, 0]


def test_lazy_modules_are_made_by_the_first_run():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.LazyLinear(1))

        def forward(self, x, y):
            with bmtl.task("a"), pyro.plate("a_rows", len(x)):
                bmtl.observe("y_a", dist.Normal(self.net(x).squeeze(-1), 1.0), y["a"])

    svi = BalancedSVI(Lazy(), nothing, SGD)
    assert svi.step(*full_batch()).status == "ok"


def test_programs_run_validated_once():
    model = Sites()
    programs = Programs(model, AutoNormal(model), bmtl.TaskELBO())
    seen = []
    original = programs.elbo.task_losses

    def watched(*args, **kwargs):
        seen.append((pyro.infer.util.is_validation_enabled(), torch.distributions.Distribution._validate_args))
        return original(*args, **kwargs)

    programs.elbo.task_losses = watched
    for seed in range(2):
        programs.run((batch(seed=seed), {}))
    assert seen == [(True, True), (False, False)]
    assert pyro.infer.util.is_validation_enabled()
