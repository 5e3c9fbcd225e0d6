"""bmtl's own runs have each PyroModule's own parameters; Pyro's programs beside them are as without bmtl."""

import copy
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference.svi import BalancedSVI
from tests.inference.programs import Regressions, Sites, assert_same, batch, nothing

SGD = functools.partial(torch.optim.SGD, lr=0.1)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _global_mode():
    pyro.clear_param_store()
    with pyro.settings.context(module_local_params=False):
        yield


def run(code):
    """The last line that a script prints in a fresh process, as JSON."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


ORDINARY = """
import functools, json, torch, pyro, pyro.distributions as dist
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn

torch.manual_seed(0)
net, x, y = nn.Linear(3, 1), torch.randn(8, 3), torch.randn(8)

def function(x, y):
    pyro.module("net", net)
    s = pyro.param("s", torch.tensor(1.0), constraint=dist.constraints.positive)
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("n", len(x)):
        pyro.sample("y", dist.Normal(net(x).squeeze(-1) + w, s), obs=y)

class Module(PyroModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 1)
        self.s = PyroParam(torch.tensor(2.0), constraint=dist.constraints.positive)

    def forward(self, x, y):
        extra = pyro.param("extra", torch.tensor(0.3))
        w = pyro.sample("v", dist.Normal(0.0, 1.0))
        with pyro.plate("n", len(x)):
            pyro.sample("y", dist.Normal(self.net(x).squeeze(-1) + w + extra, self.s), obs=y)

def ordinary(module):
    return [SVI(m, g, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO()) for m, g in ((function, AutoNormal(function)), module)]

def steps(svis, seed):
    torch.manual_seed(seed)
    return [svi.step(x, y) for _ in range(3) for svi in svis]
"""
BALANCED = """
import bmtl

def balanced():
    with torch.random.fork_rng():
        return made()

def made():
    class Own(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 1)
            self.s = PyroParam(torch.tensor(2.0), constraint=dist.constraints.positive)

        def forward(self, x, y):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
            with bmtl.task("a"), pyro.plate("n", len(x)):
                bmtl.observe("y_a", dist.Normal(self.net(x).squeeze(-1) + w, self.s), y)

    model = Own()
    return bmtl.BalancedSVI(model, AutoNormal(model), functools.partial(torch.optim.Adam, lr=0.1))

def balanced_steps(svi):
    with torch.random.fork_rng():
        for _ in range(2):
            svi.step(x, y)
        svi.evaluate(x, y)
"""


@pytest.fixture(scope="module")
def alone():
    """What ordinary programs come to without bmtl."""
    code = """
module = Module(); svis = ordinary((module, AutoNormal(module)))
found = steps(svis, 1) + steps(svis, 2) + steps(svis, 3)
print(json.dumps([found, {n: v.tolist() for n, v in pyro.get_param_store().items()}]))
"""
    return run(ORDINARY + code)


def test_ordinary_programs_before_after_and_between_bmtls_steps_are_as_without_it(alone):
    code = """
module = Module(); svis = ordinary((module, AutoNormal(module)))
before = dict(pyro.settings.get())
found = steps(svis, 1)
exec(BALANCED)
svi = balanced()
balanced_steps(svi); found += steps(svis, 2)
balanced_steps(svi); found += steps(svis, 3)
assert pyro.settings.get() == before
print(json.dumps([found, {n: v.tolist() for n, v in pyro.get_param_store().items()}]))
"""
    assert run(ORDINARY + f"BALANCED = {BALANCED!r}\n" + code) == alone


def test_so_they_are_where_bmtl_is_imported_and_trains_first(alone):
    code = """
svi = balanced(); balanced_steps(svi)
torch.manual_seed(0); net, x, y = nn.Linear(3, 1), torch.randn(8, 3), torch.randn(8)
module = Module(); svis = ordinary((module, AutoNormal(module)))
found = steps(svis, 1) + steps(svis, 2) + steps(svis, 3)
print(json.dumps([found, {n: v.tolist() for n, v in pyro.get_param_store().items()}]))
"""
    assert run(ORDINARY + BALANCED + code) == alone


def test_importing_all_of_bmtl_makes_no_setting():
    code = """
import json, pkgutil, importlib, pyro
before = dict(pyro.settings.get())
import bmtl, bmtl.models, bmtl.inference, bmtl.datasets, bmtl.experiments
for name in bmtl.__all__: getattr(bmtl, name)
print(json.dumps(pyro.settings.get() == before))
"""
    assert run(code) is True


def test_a_task_elbo_under_pyros_own_svi_takes_guides_and_programs_of_the_global_mode():
    net = nn.Linear(3, 1)

    def model(x, y):
        pyro.module("net", net)
        s = pyro.param("s", torch.tensor(1.0), constraint=dist.constraints.positive)
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with bmtl.task("a"), pyro.plate("n", len(x)):
            pyro.sample("y", dist.Normal(net(x).squeeze(-1) + w, s), obs=y["a"])

    guide = AutoNormal(model)
    for elbo in (Trace_ELBO(), bmtl.TaskELBO()):
        before = net.weight.detach().clone()
        loss = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo).step(*batch())
        assert loss == loss
        assert not torch.equal(net.weight, before)
    assert set(pyro.get_param_store()) >= {"s", "net$$$weight", "AutoNormal.locs.w"}


class Constrained(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = PyroParam(torch.tensor(0.5))
        self.scale = PyroParam(torch.tensor(2.0), constraint=dist.constraints.positive)

    def forward(self, x, y):
        extra = pyro.param("extra", torch.tensor(0.3))
        with bmtl.task("a"), pyro.plate("a_rows", len(x)):
            bmtl.observe("y_a", dist.Normal(self.loc + extra, self.scale), y["a"])


def test_two_models_of_a_class_share_nothing_and_the_store_stays_empty():
    models = [Constrained(), Constrained()]
    svis = [BalancedSVI(model, nothing, SGD) for model in models]
    svis[0].step(*batch())
    assert models[0].loc.item() != 0.5
    assert models[1].loc.item() == 0.5
    svis[1].step(*batch())
    assert_close(models[0].loc, models[1].loc)
    assert not dict(pyro.get_param_store())


def test_a_param_statement_inside_a_pyro_module_is_trained_and_saved():
    model = Constrained()
    svi = BalancedSVI(model, nothing, SGD)
    svi.step(*batch())
    value = svi.state_dict()["params"]["extra"]
    assert value.item() != pytest.approx(0.3)
    before = value.item()
    svi.step(*batch(seed=1))
    assert svi.state_dict()["params"]["extra"].item() != before


def test_a_module_that_has_run_in_the_global_mode_goes_on_with_its_values():
    model = Constrained()
    for _ in range(3):
        SVI(model, nothing, pyro.optim.SGD({"lr": 0.01}), bmtl.TaskELBO()).step(*batch())
    names = ("loc", "scale", "extra")
    trained = {name: pyro.param(name).item() for name in names}
    assert trained["extra"] != pytest.approx(0.3)
    svi = BalancedSVI(model, nothing, functools.partial(torch.optim.SGD, lr=0.0))
    svi.step(*batch())
    assert {n: p.item() for n, p in svi.state_dict()["params"].items()} == {"extra": trained["extra"]}
    assert (model.loc.item(), model.scale.item()) == (trained["loc"], trained["scale"])


def trained_pair(guide):
    """Two models with guides of one name, trained differently."""
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = Sites()
        svi = BalancedSVI(model, guide(model), SGD)
        for step in range(3):
            svi.step(*batch(seed=step))
        found.append(svi)
    return found


@pytest.mark.parametrize("guide", [AutoNormal, AutoDiagonalNormal])
def test_guides_of_one_name_keep_their_values_when_other_code_runs_them(guide):
    """In Pyro's global mode the second would take the first's values from the store."""
    one, two = trained_pair(guide)
    states = [copy.deepcopy(svi.program_state()) for svi in (one, two)]
    drawn = []
    for svi in (one, two, one):
        torch.manual_seed(0)
        drawn.append(Predictive(svi.model, guide=svi.guide, num_samples=3, return_sites=["w"])(*batch())["w"])
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
    for svi, state in zip((one, two), states, strict=True):
        assert_same(copy.deepcopy(svi.program_state()), state)
    x, _ = batch()

    def draws(svi, local):
        with pyro.settings.context(module_local_params=local):
            torch.manual_seed(0)
            return {name: site.detach().clone() for name, site in svi.guide(x, batch()[1]).items()}

    assert_same(draws(two, False), draws(two, True))


def test_running_a_guide_in_between_changes_no_step():
    runs = []
    for between in (False, True):
        pyro.clear_param_store()
        torch.manual_seed(0)
        model = Sites()
        svi = BalancedSVI(model, AutoNormal(model), SGD)
        for seed in range(4):
            torch.manual_seed(seed)
            svi.step(*batch(seed=seed))
            if between:
                Predictive(model, guide=svi.guide, num_samples=2)(*batch())
        runs.append(copy.deepcopy(svi.program_state()))
    assert_same(*runs)


def test_pyros_own_svi_and_bmtl_take_turns_on_one_module():
    model = Constrained()
    balanced = BalancedSVI(model, nothing, SGD)
    ordinary = SVI(model, nothing, pyro.optim.SGD({"lr": 0.01}), Trace_ELBO())
    seen = [model.loc.item()]
    for _ in range(2):
        balanced.step(*batch())
        seen.append(model.loc.item())
        ordinary.step(*batch())
        seen.append(model.loc.item())
    assert len(set(seen)) == 5
    assert pyro.param("loc").item() == model.loc.item()
    assert pyro.param("extra").item() == balanced.state_dict()["params"]["extra"].item()


class Bayesian(PyroModule):
    def __init__(self):
        super().__init__()
        self.layer = PyroModule[nn.Linear](3, 1)
        self.layer.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))

    def forward(self, x):
        return self.layer(x).squeeze(-1)


def test_pyro_modules_that_a_function_closes_over_are_run_too():
    network = Bayesian()

    def model(x, y):
        mean = network(x)
        with bmtl.task("a"), pyro.plate("a_rows", len(x)):
            bmtl.observe("y_a", dist.Normal(mean, 1.0), y["a"])

    svi = BalancedSVI(model, AutoNormal(model), SGD)
    before = network.layer.bias.detach().clone()
    for seed in range(2):
        assert svi.step(*batch(seed=seed)).losses.isfinite().all()
    assert not torch.equal(network.layer.bias, before)


def test_a_pyro_module_that_joins_later_is_run_too():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Bayesian()

        def forward(self, x, y):
            mean = self.net(x)
            with bmtl.task("a"), pyro.plate("a_rows", len(x)):
                bmtl.observe("y_a", dist.Normal(mean, 1.0), y["a"])

    model = Plain()
    svi = BalancedSVI(model, AutoNormal(model), SGD)
    svi.step(*batch())
    model.net = Bayesian()
    before = model.net.layer.bias.detach().clone()
    svi.step(*batch())
    assert not torch.equal(model.net.layer.bias, before)


def test_one_that_cannot_be_found_is_an_error_that_says_so():
    class Box:
        __slots__ = ("network",)

    box = Box()
    box.network = Bayesian()

    def model(x, y):
        mean = box.network(x)
        with bmtl.task("a"), pyro.plate("a_rows", len(x)):
            bmtl.observe("y_a", dist.Normal(mean, 1.0), y["a"])

    with pytest.raises(ValueError, match="Make it an attribute of the model"):
        BalancedSVI(model, AutoNormal(model), SGD).step(*batch())


def test_settings_are_put_back_after_an_error_too():
    settings = dict(pyro.settings.get())
    svi = BalancedSVI(Regressions(), nothing, SGD)
    for wrong in (batch()[1] | {"a": torch.zeros(2, 2)}, {}):
        with pytest.raises(Exception, match=r"\w"):
            svi.step(batch()[0], wrong)
        assert pyro.settings.get() == settings
    svi.step(*batch())
    assert pyro.settings.get() == settings
    with pyro.settings.context(module_local_params=True, validate_infer=False):
        svi.step(*batch())
        assert pyro.settings.get("module_local_params")
        assert not pyro.settings.get("validate_infer")
    assert pyro.settings.get() == settings


def test_draws_are_of_the_guides_own_values():
    one, two = trained_pair(AutoNormal)
    x, _ = batch()
    for svi in (one, two):  # leaves the first's values in the store
        svi.guide(*batch())
    first, second = (bmtl.draw(Predicting(svi.model), svi.guide, x, num_draws=4) for svi in (one, two))
    for svi, drawn in ((one, first), (two, second)):
        locs = svi.guide.locs.w.detach().numpy()
        assert abs(drawn.posterior["w"].mean(0) - locs).max() < 3.0
    assert (first.posterior["w"] != second.posterior["w"]).all()


class Predicting(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y=None):
        self.model(x, dict.fromkeys(("a", "b", "c")) if y is None else y)
