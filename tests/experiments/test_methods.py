import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from bmtl.experiments import METHODS, Method, method
from bmtl.experiments.configuration import configuration
from bmtl.experiments.methods import build
from bmtl.experiments.registry import MODELS
from bmtl.experiments.rows import spec_of
from bmtl.experiments.training import program
from bmtl.targets import Real
from tests.experiments.toys import BUDGET, domains, mixed

INSTALLED = [name for name, method in METHODS.items() if method.model != "gaussian-process" or find_spec("gpytorch")]
OF_CLASSES = "vmtl-ac"  # has no form for regressions


def suited(data, name):
    """Data that a method takes: of classes, or with a bound that some labels are at."""
    if METHODS[name].options.get("censored"):
        targets = {
            task: replace(t, family=Real(bounds=(float(np.nanmedian(t.values)), None)))
            for task, t in data.targets.items()
        }
        return replace(data, targets=targets)
    return domains() if name == OF_CLASSES else data


def test_methods_are_named_as_they_are_keyed():
    assert {name: method.name for name, method in METHODS.items()} == {name: name for name in METHODS}
    assert {method.model for method in METHODS.values()} == set(MODELS)


@pytest.mark.parametrize("name", INSTALLED)
def test_every_method_takes_a_step(data, name):
    data = suited(data, name)
    _, svi, batches = program(data, METHODS[name], 0, BUDGET)
    svi.step(*next(iter(batches)))
    names = [objective.partition("/")[0] for objective in svi.history[0].names]  # some have several for a target
    assert tuple(dict.fromkeys(names)) == data.tasks


@pytest.mark.parametrize("name", INSTALLED)
def test_the_seed_decides_the_initial_weights(data, name):
    spec = spec_of(domains() if METHODS[name].model == "vmtl" else suited(data, name), METHODS[name])

    def weights(seed):
        torch.manual_seed(torch.seed())  # of another state every time
        model, _ = build(METHODS[name], spec, (6,), seed)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    torch.testing.assert_close(weights(1), weights(1), rtol=0, atol=0)
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("name", INSTALLED)
def test_settings_are_plain_values_that_make_the_method_again(name):
    settings = json.loads(json.dumps(METHODS[name].settings()))
    assert settings.pop("code") == {}  # all of it is bmtl's own
    assert Method(**settings) == METHODS[name]
    json.dumps(configuration(METHODS[name], BUDGET))


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("evidential", mixed().subset(["kind", "sign"]), "is for real targets, and the data have none"),
        ("gaussian", mixed().subset(["sign"]), "is for real targets, and the data have none"),
        (
            "gaussian-process",
            mixed(),
            "takes likelihoods whose expected density has a closed form.*Target 'kind' has 'categorical'",
        ),
    ],
)
def test_models_of_real_targets_refuse_others(model, data, message):
    with pytest.raises(ValueError, match=message):
        program(data, Method("m", model=model), 0, BUDGET)


def test_targets_that_are_not_real_have_their_own_likelihood_in_an_evidential_model():
    model, svi, _ = program(mixed(), METHODS["mt-enet"], 0, BUDGET)
    svi.step(*mixed().tensors("train"))
    assert model.tasks == ("length/nll", "length/mse", "kind", "sign")


def test_a_method_is_found_by_its_name_or_its_balancer():
    assert method("bayesian") is METHODS["bayesian"]
    assert method("cagrad(c=0.4)") == Method("cagrad(c=0.4)", "cagrad(c=0.4)", options={"noise": "fixed"})
    with pytest.raises(
        ValueError, match="no method and no balancer 'nonsense'. The methods are: stl, ew.*shows the balancers too"
    ):
        method("nonsense")


def test_a_method_under_another_balancer_says_so():
    changed = METHODS["bayesian"].balanced_by("si")
    assert (changed.name, changed.balancer) == ("bayesian (si)", "si")
    assert changed.options == METHODS["bayesian"].options


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"balancer": "no-such"}, "No balancer is called 'no-such'"),
        ({"model": "forest"}, "no model 'forest'. The names are: homoscedastic"),
        ({"ensemble_size": 0}, "ensemble_size is a number of networks, from 1"),
        ({"weight_decay": -1.0}, "weight_decay is 0 or more"),
        ({"weight_decay": float("nan")}, "weight_decay is 0 or more"),
    ],
)
def test_a_method_that_there_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Method("m", **wrong)


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="depth"):
        program(mixed(), Method("m", options={"depth": 3}), 0, BUDGET)
