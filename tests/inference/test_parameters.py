"""Parameters that appear late or that the optimizer lacks: they join, or are an error that names them. Nothing is silent."""

import copy
import functools
import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

import bmtl
from bmtl.inference import parameters
from bmtl.inference.parameters import NamedParameters
from bmtl.inference.svi import BalancedSVI
from tests.inference.programs import TASKS, Regressions, Sites, assert_same, batch, nothing

SGD = functools.partial(torch.optim.SGD, lr=0.1)
Adam = functools.partial(torch.optim.Adam, lr=0.01)
SPECS = (
    "ew",
    "uw",
    "full >> upgrad",
    "last-layer >> nash-mtl",
    "representation(every=2) >> mgda",
    "ew >> full(every=10)",
)


@pytest.fixture(autouse=True)
def _empty_store():
    pyro.clear_param_store()


def regressions(optim=SGD, balancer="ew", **options):
    torch.manual_seed(0)
    return BalancedSVI(Regressions(), nothing, optim, balancer, **options)


def held(svi):
    return {id(p) for group in svi.optimizer.param_groups for p in group["params"]}


def by_hand(model, optimizer, seeds):
    """The same training in plain torch, at equal weights."""
    for seed in seeds:
        x, y = batch(seed=seed)
        optimizer.zero_grad()
        h = torch.tanh(model.trunk(x))
        loss = 0.0
        for name, head in model.heads.items():
            seen = ~y[name].isnan()
            loss = loss + (head(h)[seen, 0] - y[name][seen]).square().sum() / 2 / len(x)
        loss.backward()
        optimizer.step()


# ---- Late parameters join the optimizer of a factory -----------------------------------------------------------------


@pytest.mark.parametrize("balancer", SPECS)
def test_an_unfrozen_layer_is_trained_from_the_next_step_on(balancer):
    svi = regressions(balancer=balancer)
    bias = svi.model.trunk.bias.requires_grad_(False)
    svi.step(*batch())
    start = bias.detach().clone()
    bias.requires_grad_(True)
    svi.step(*batch(seed=1))
    assert (bias.detach() - start).norm() > 1e-3
    assert id(bias) in held(svi)
    assert len(svi.parameters) == len(list(svi.model.parameters()))


def test_with_equal_weights_it_takes_the_steps_of_a_torch_optimizer_that_had_it_all_along():
    svi = regressions(Adam)
    expected = copy.deepcopy(svi.model)
    svi.model.trunk.requires_grad_(False)
    expected.trunk.requires_grad_(False)
    optimizer = Adam(expected.parameters())
    for seeds in (range(3), range(3, 6)):
        for seed in seeds:
            svi.step(*batch(seed=seed))
        by_hand(expected, optimizer, seeds)
        for model in (svi.model, expected):
            model.trunk.requires_grad_(True)
    assert_close(dict(svi.model.named_parameters()), dict(expected.named_parameters()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("balancer", SPECS)
def test_a_replaced_head_is_trained_and_the_old_one_leaves_the_optimizer(balancer):
    svi = regressions(Adam, balancer)
    svi.step(*batch())
    old = list(svi.model.heads["a"].parameters())
    svi.model.heads["a"] = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    start = copy.deepcopy(svi.model.heads["a"].state_dict())
    svi.step(*batch(seed=1))
    assert all(not torch.equal(value, start[name]) for name, value in svi.model.heads["a"].state_dict().items())
    assert not {id(p) for p in old} & held(svi)
    assert all(p not in svi.optimizer.state for p in old)
    assert held(svi) >= {id(p) for p in svi.module.parameters()}


@pytest.mark.parametrize("normalise", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_parametrization_added_to_a_layer_is_trained(normalise):
    svi = regressions()
    svi.step(*batch())
    normalise(svi.model.trunk)
    own = dict(svi.model.trunk.named_parameters())
    before = {name: p.detach().clone() for name, p in own.items()}
    for seed in range(2):
        svi.step(*batch(seed=seed))
    assert all(not torch.equal(p, before[name]) for name, p in own.items())


def late_statement(p_late="late"):
    def model(x, y):
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        shift = pyro.param(p_late, torch.tensor(0.5)) if x.sum() > 0 else 0.0
        for name in ("a", "b"):
            with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                bmtl.observe(f"y_{name}", dist.Normal(shift + x[:, 0], scale), y[name])

    return model


POSITIVE = (torch.ones(4, 1), {"a": torch.zeros(4), "b": torch.zeros(4)})
NEGATIVE = (-torch.ones(4, 1), {"a": torch.zeros(4), "b": torch.zeros(4)})


@pytest.mark.parametrize(
    "optim", [SGD, lambda parameters: torch.optim.Adagrad(parameters, lr=0.1), pyro.optim.SGD({"lr": 0.1})]
)
def test_a_param_statement_first_met_in_a_later_batch_is_trained(optim):
    svi = BalancedSVI(late_statement(), nothing, optim)
    svi.step(*NEGATIVE)
    assert "late" not in pyro.get_param_store()
    svi.step(*POSITIVE)
    assert pyro.param("late").item() != 0.5
    before = pyro.param("late").item()
    svi.step(*POSITIVE)
    assert pyro.param("late").item() != before


def test_late_parameters_join_the_group_in_which_the_factory_puts_them():
    def factory(parameters):
        trunk = [p for name, p in parameters.items() if ".trunk." in name]
        rest = [p for name, p in parameters.items() if ".trunk." not in name]
        return torch.optim.SGD([{"params": trunk, "lr": 0.01}, {"params": rest}], lr=0.1)

    svi = regressions(factory, "uw")
    svi.model.trunk.weight.requires_grad_(False)
    svi.step(*batch())
    svi.optimizer.param_groups[0]["lr"] = 0.05  # as a scheduler does
    svi.model.trunk.weight.requires_grad_(True)
    svi.model.heads["c"] = nn.Linear(4, 1)
    svi.step(*batch(seed=1))
    trunk, rest, own = svi.optimizer.param_groups
    assert {id(p) for p in trunk["params"]} == {id(p) for p in svi.model.trunk.parameters()}
    assert {id(p) for p in rest["params"]} == {id(p) for p in svi.model.heads.parameters()}
    assert own["params"] == list(svi.balancer.parameters())
    assert (trunk["lr"], rest["lr"], own["lr"]) == (0.05, 0.1, 0.025)


def test_a_late_parameter_that_the_factory_gives_a_group_of_its_own_gets_one():
    def factory(parameters):
        biases = [p for name, p in parameters.items() if ".bias" in name]
        groups = [{"params": biases, "lr": 0.3}, {"params": [p for n, p in parameters.items() if ".bias" not in n]}]
        return torch.optim.SGD([group for group in groups if group["params"]], lr=0.1)

    svi = regressions(factory)
    for name, p in svi.model.named_parameters():
        p.requires_grad_("bias" not in name)
    svi.step(*batch())
    svi.model.requires_grad_(True)
    svi.step(*batch(seed=1))
    assert [(len(g["params"]), g["lr"]) for g in svi.optimizer.param_groups] == [(4, 0.1), (4, 0.3)]


def test_a_scheduler_goes_on_when_a_parameter_joins():
    svi = regressions()
    svi.model.trunk.requires_grad_(False)
    svi.step(*batch())
    scheduler = torch.optim.lr_scheduler.LambdaLR(svi.optimizer, lambda epoch: 0.5**epoch)
    svi.model.trunk.requires_grad_(True)
    svi.step(*batch(seed=1))
    scheduler.step()
    assert [group["lr"] for group in svi.optimizer.param_groups] == [0.05]


def test_optimizers_that_keep_names_get_those_of_late_parameters_and_of_the_balancers():
    svi = regressions(lambda parameters: torch.optim.Adam(parameters.items(), lr=0.01), "uw")
    svi.model.trunk.bias.requires_grad_(False)
    svi.step(*batch())
    svi.model.trunk.bias.requires_grad_(True)
    svi.step(*batch(seed=1))
    group, own = svi.optimizer.param_groups
    assert set(group["param_names"]) == {f"model.{name}" for name, _ in svi.model.named_parameters()}
    assert [id(p) for p in group["params"]] == [
        id(dict(svi.module.named_parameters())[name]) for name in group["param_names"]
    ]
    assert own["param_names"] == [f"balancer.{name}" for name, _ in svi.balancer.named_parameters()]


def test_named_parameters_are_a_list_of_tensors():
    pairs = [("a", torch.zeros(2)), ("b", torch.zeros(3))]
    found = NamedParameters(iter(pairs))
    assert found.names == ("a", "b")
    assert [p.numel() for p in found] == [2, 3]
    assert [(name, p.numel()) for name, p in found.items()] == [("a", 2), ("b", 3)]


def test_a_frozen_parameter_stays_where_it_is_and_may_be_unfrozen_again():
    svi = regressions(Adam)
    svi.step(*batch())
    svi.model.trunk.requires_grad_(False)
    before = svi.model.trunk.weight.detach().clone()
    svi.step(*batch(seed=1))
    assert torch.equal(svi.model.trunk.weight, before)
    svi.model.trunk.requires_grad_(True)
    svi.step(*batch(seed=2))
    assert not torch.equal(svi.model.trunk.weight, before)
    assert len(svi.optimizer.param_groups) == 1


def test_parameters_moved_to_another_precision_are_the_same_parameters():
    svi = regressions()
    svi.step(*batch())
    svi.module.double()
    x, y = batch(seed=1)
    svi.step(x.double(), {name: values.double() for name, values in y.items()})
    assert held(svi) == {id(p) for p in svi.module.parameters()}


# ---- A ready optimizer, and `refresh` --------------------------------------------------------------------------------


@pytest.mark.parametrize("balancer", SPECS)
def test_what_a_ready_optimizer_lacks_is_an_error_at_the_step_that_reaches_it_and_changes_nothing(balancer):
    torch.manual_seed(0)
    model = Regressions()
    model.trunk.bias.requires_grad_(False)
    weights = bmtl.balancer(balancer)
    weights.bind(TASKS)
    groups = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    own = list(weights.parameters())
    weights.names = ()
    optimizer = torch.optim.SGD([*groups, *([{"params": own}] if own else [])], lr=0.1)
    svi = BalancedSVI(model, nothing, optimizer, weights)
    svi.step(*batch())
    model.trunk.bias.requires_grad_(True)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"'model.trunk.bias' \(4,\).*add_param_group.*svi.refresh\(\)") as error:
        svi.step(*batch(seed=1))
    assert "weight" not in str(error.value)
    assert_same(copy.deepcopy(model.state_dict()), before)
    assert svi.steps == 1

    svi.optimizer.add_param_group({"params": [model.trunk.bias]})
    assert svi.refresh() == ("model.trunk.bias",)
    svi.step(*batch(seed=1))
    assert not torch.equal(model.trunk.bias, before["trunk.bias"])


def test_refresh_says_what_a_ready_optimizer_lacks():
    model = Regressions()
    svi = BalancedSVI(model, nothing, torch.optim.SGD(model.parameters(), lr=0.1))
    assert svi.refresh() == ()  # before the first batch there is nothing to do
    svi.step(*batch())
    model.heads["a"] = nn.Linear(4, 1)
    with pytest.raises(ValueError, match=r"lacks parameters: model.heads.a.weight, model.heads.a.bias"):
        svi.refresh()
    svi.optimizer.add_param_group({"params": model.heads["a"].parameters()})
    assert svi.refresh() == ("model.heads.a.weight", "model.heads.a.bias")
    assert held(svi) == {id(p) for p in model.parameters()}


def test_an_unfrozen_parameter_of_a_ready_optimizer_gets_fresh_gradients_in_every_step():
    """Its gradients were never set to zero, and grew from step to step: norms .48, .92, 1.33."""
    torch.manual_seed(0)
    model = Regressions()
    expected = copy.deepcopy(model)
    model.trunk.weight.requires_grad_(False)
    svi = BalancedSVI(model, nothing, torch.optim.SGD(model.parameters(), lr=0.1))
    svi.initialise(*batch())
    model.trunk.weight.requires_grad_(True)
    for seed in range(4):
        svi.step(*batch(seed=seed))
    by_hand(expected, torch.optim.SGD(expected.parameters(), lr=0.1), range(4))
    assert_close(dict(model.named_parameters()), dict(expected.named_parameters()), rtol=1e-5, atol=1e-6)


def test_a_late_param_statement_under_a_ready_optimizer_is_named():
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive).unconstrained()
    svi = BalancedSVI(late_statement(), nothing, torch.optim.SGD([scale], lr=0.1))
    svi.step(*NEGATIVE)
    with pytest.raises(ValueError, match=r"'late' \(\)"):
        svi.step(*POSITIVE)
    svi.optimizer.add_param_group({"params": [pyro.param("late").unconstrained()]})
    svi.refresh()
    svi.step(*POSITIVE)
    assert pyro.param("late").item() != 0.5


# ---- Factories that leave something out ------------------------------------------------------------------------------


def test_a_factory_that_leaves_the_heads_out_is_an_error_that_names_them():
    torch.manual_seed(0)
    model = Regressions()
    svi = BalancedSVI(model, nothing, lambda parameters: torch.optim.SGD(model.trunk.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="the factory made lacks parameters") as error:
        svi.step(*batch())
    for name in TASKS:
        assert f"model.heads.{name}.weight" in str(error.value)
    assert "trunk" not in str(error.value)


def test_a_factory_that_leaves_an_autoguides_parameters_out_is_an_error_that_names_them():
    model = Sites()
    svi = BalancedSVI(model, AutoNormal(model), lambda parameters: torch.optim.Adam(model.parameters()))
    with pytest.raises(ValueError, match=r"guide.locs.v_a_unconstrained"):
        svi.step(*batch())


def test_a_factory_that_leaves_a_late_parameter_out_is_an_error_that_names_it():
    model = Regressions()
    model.trunk.requires_grad_(False)
    svi = BalancedSVI(model, nothing, lambda parameters: torch.optim.SGD(model.heads.parameters(), lr=0.1))
    svi.step(*batch())
    model.trunk.requires_grad_(True)
    with pytest.raises(ValueError, match="lacks parameters: model.trunk.weight, model.trunk.bias"):
        svi.step(*batch())


# ---- What no module and no statement registers -----------------------------------------------------------------------


def closing_over(network, register=False):
    heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in ("a", "b")})

    def model(x, y):
        trunk = pyro.module("network", network) if register else network
        own = pyro.module("heads", heads)
        h = bmtl.shared(trunk(x))
        for name in ("a", "b"):
            with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                bmtl.observe(f"y_{name}", dist.Normal(own[name](h).squeeze(-1), 1.0), y[name])

    return model


def trunk():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh())


@pytest.mark.parametrize("balancer", SPECS)
def test_a_network_closed_over_without_being_registered_is_found_by_name_and_shape(balancer):
    network = trunk()
    with pytest.raises(ValueError, match=r"'network.0.weight' \(4, 3\).*register the module") as error:
        BalancedSVI(closing_over(network), nothing, SGD, balancer).step(*batch())
    assert "'network.0.bias' (4,)" in str(error.value)
    assert "heads" not in str(error.value)

    pyro.clear_param_store()
    before = copy.deepcopy(network.state_dict())
    BalancedSVI(closing_over(network, register=True), nothing, SGD, balancer).step(*batch())
    assert not torch.equal(network[0].weight, before["0.weight"])


def test_a_second_module_of_a_name_in_pyros_store_is_found_too():
    """Pyro goes on with the first one's tensors, and the second's own would stay where they are."""
    BalancedSVI(closing_over(trunk(), register=True), nothing, SGD).step(*batch())
    with pytest.raises(ValueError, match=r"'network.0.weight' \(4, 3\).*clear_param_store"):
        BalancedSVI(closing_over(trunk(), register=True), nothing, SGD).step(*batch())


def test_one_that_is_used_in_a_later_batch_only_is_found_there():
    first, second = trunk(), trunk()
    heads = nn.Linear(4, 2)

    def model(x, y):
        pyro.module("first", first)
        pyro.module("heads", heads)
        means = heads(second(x) if len(x) > 4 else first(x))
        for k, name in enumerate(("a", "b")):
            with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                bmtl.observe(f"y_{name}", dist.Normal(means[:, k], 1.0), y[name])

    svi = BalancedSVI(model, nothing, SGD)
    svi.step(*batch(4))
    with pytest.raises(ValueError, match="second.0.weight"):
        svi.step(*batch(6))


class Hidden(nn.Module):
    """Layers in a plain list, which torch does not register."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(3, 4)]
        self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in TASKS})

    def forward(self, x, y):
        h = bmtl.shared(torch.tanh(self.layers[0](x)))
        for name, head in self.heads.items():
            with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                bmtl.observe(f"y_{name}", dist.Normal(head(h).squeeze(-1), 1.0), y[name])


def test_layers_in_a_plain_list_are_found():
    with pytest.raises(ValueError, match=r"'layers\[0\].weight' \(4, 3\)"):
        BalancedSVI(Hidden(), nothing, SGD).step(*batch())


class Kept:
    """An object that bmtl cannot look into."""

    def __init__(self):
        self.inner = {"x": nn.Linear(3, 1)}

    __slots__ = ("inner",)


def test_what_cannot_be_named_is_described_by_its_shape_and_use():
    kept = Kept()

    def model(p, x, y):
        mean = kept.inner["x"](x).squeeze(-1) + pyro.param("shift", torch.tensor(0.0))
        with bmtl.task("a"), pyro.plate("a_rows", len(x)):
            bmtl.observe("y_a", dist.Normal(mean, 1.0), y["a"])

    with pytest.raises(ValueError, match=r"a tensor \(1, 3\) \(used by T\)"):
        BalancedSVI(functools.partial(model, None), lambda *args: None, SGD).step(*batch())


def test_a_ready_optimizer_may_hold_what_nothing_registers_and_checkpoints_hold_it_too():
    network = trunk()
    heads_known = closing_over(network)
    params = [p for name, p in network.named_parameters()]
    svi = BalancedSVI(heads_known, nothing, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    with pytest.raises(ValueError, match="network"):
        svi.step(*batch())
    heads_known(*batch())  # registers the heads
    registered = [p for _, p in pyro.get_param_store().named_parameters()]
    svi = BalancedSVI(heads_known, nothing, torch.optim.SGD([*registered, *params], lr=0.1))
    before = network[0].weight.detach().clone()
    svi.step(*batch())
    assert not torch.equal(network[0].weight, before)
    assert any(value.shape == (4, 3) for value in svi.state_dict()["params"].values())


# ---- Leaves that are no parameters -----------------------------------------------------------------------------------


class Derivative(nn.Module):
    """Its second task is the derivative of the first by the inputs, which it gets in one way or another."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.register_buffer("points", torch.linspace(-1, 1, 6)[:, None])
        self.own = torch.linspace(-1, 1, 6)[:, None].requires_grad_()

    def inputs(self, x):
        if self.way == "copy":
            return x.clone().requires_grad_()
        if self.way == "in place":
            return x.requires_grad_()
        if self.way == "buffer":
            return self.points.requires_grad_()
        return self.own if self.way == "attribute" else x

    def forward(self, x, y):
        x = self.inputs(x)
        value = self.net(x)
        slope = torch.autograd.grad(value.sum(), x, create_graph=True)[0]
        for name, mean in (("value", value), ("slope", slope)):
            with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                bmtl.observe(f"y_{name}", dist.Normal(mean.squeeze(-1), 1.0), y[name])


@pytest.mark.parametrize("balancer", ["ew", "full >> upgrad"])
@pytest.mark.parametrize("way", ["copy", "in place", "buffer", "given"])
def test_an_input_by_which_a_program_differentiates_is_no_parameter(way, balancer):
    svi = BalancedSVI(Derivative(way), nothing, SGD, balancer)
    x = torch.linspace(-1, 1, 6)[:, None]
    y = {"value": torch.sin(x.squeeze(-1)), "slope": torch.cos(x.squeeze(-1))}
    for _ in range(3):
        record = svi.step(x.requires_grad_() if way == "given" else x, y)
    assert record.losses.isfinite().all()
    assert len(svi.parameters) == 4


def test_a_leaf_that_lives_from_step_to_step_is_an_error_that_says_what_to_do():
    svi = BalancedSVI(Derivative("attribute"), nothing, SGD)
    x = torch.linspace(-1, 1, 6)[:, None]
    y = {"value": torch.sin(x.squeeze(-1)), "slope": torch.cos(x.squeeze(-1))}
    with pytest.raises(ValueError, match=r"requires_grad_\(\)"):
        svi.step(x, y)

    w = torch.zeros((), requires_grad=True)

    def model(x, y):
        shift = pyro.param("shift", torch.tensor(0.0))
        with bmtl.task("a"), pyro.plate("a_rows", len(x)):
            bmtl.observe("y_a", dist.Normal(shift + w * x[:, 0], 1.0), y["a"])

    with pytest.raises(ValueError, match=r"'w' \(\)"):
        BalancedSVI(model, nothing, SGD).step(*batch())


def test_a_run_without_such_leaves_keeps_nothing_alive():
    svi = BalancedSVI(Derivative("copy"), nothing, SGD)
    x = torch.linspace(-1, 1, 6)[:, None]
    for _ in range(2):
        svi.step(x, {"value": x.squeeze(-1), "slope": x.squeeze(-1)})
    assert all(reference() is None for reference in svi._program.trained._met.values())


def test_masked_out_tasks_and_absent_ones_raise_no_false_alarm():
    svi = regressions(balancer="last-layer >> nash-mtl")
    for seed in range(3):
        x, y = batch(seed=seed)
        y["b"] = torch.full_like(y["b"], math.nan)
        with poutine.mask(mask=True):
            assert svi.step(x, y).status == "ok"


# ---- What it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balancer", ["ew", "full >> upgrad", "last-layer >> nash-mtl"])
def test_an_ordinary_step_walks_no_graph(balancer, monkeypatch):
    svi = regressions(balancer=balancer)
    for seed in range(3):
        svi.step(*batch(seed=seed))
    walks = []
    walk = parameters.leaves_of
    monkeypatch.setattr(parameters, "leaves_of", lambda *args: walks.append(svi.steps) or walk(*args))
    for seed in range(64):
        svi.step(*batch(seed=seed))
    assert len(walks) == 4  # every 16th, all the same
    svi.model.heads["c"] = nn.Linear(4, 1)
    svi.step(*batch())
    assert walks[-1] == 67


def test_batches_of_changing_makeup_are_walked_until_each_is_known(monkeypatch):
    svi = regressions()
    walks = []
    walk = parameters.leaves_of
    monkeypatch.setattr(parameters, "leaves_of", lambda *args: walks.append(svi.steps) or walk(*args))
    x, y = batch()
    absent = {name: values for name, values in y.items() if name != "b"}
    del svi.model.heads["b"]
    svi.step(x, absent)
    first = len(walks)
    for _ in range(5):
        svi.step(x, absent)
    assert len(walks) - first <= 1


def test_what_no_sign_tells_of_is_found_within_sixteen_steps():
    """A tensor that bmtl cannot see replaces another, node by node."""
    kept = Kept()
    kept.inner = {"x": torch.zeros(3)}

    def model(x, y):
        shift = pyro.param("shift", torch.tensor([0.0]))
        with bmtl.task("a"), pyro.plate("a_rows", len(x)):
            bmtl.observe("y_a", dist.Normal(shift * (kept.inner["x"] * x).sum(-1), 1.0), y["a"])

    svi = BalancedSVI(model, nothing, SGD)
    for _ in range(20):
        svi.step(*batch())
    kept.inner["x"].requires_grad_(True)

    def go_on():
        for _ in range(18):
            svi.step(*batch())

    with pytest.raises(ValueError, match=r"a tensor \(3,\) \(used by Mul\)"):
        go_on()
