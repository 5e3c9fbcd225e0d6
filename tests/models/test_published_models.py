"""The recipes repeat the classes that were written by hand before: losses and gradients of three steps.

``data/published_models.npz`` was written from `Homoscedastic`, `BakkerHeskes`, `MultilinearRelationship`,
`VariationalBottleneck`, `GaussianRegression` and `EvidentialRegression` as they were, on the data and with the seeds below:
for each case and step the losses and divergences of the tasks, the shared divergence, and the gradient of every parameter.
The classes are gone, and so the file cannot be written again; what it holds is what they computed.

    for step in range(3):
        torch.manual_seed(step)
        optim.zero_grad()                                    # Adam, 0.05, on all parameters of model and guide
        found = bmtl.TaskELBO("analytic").task_losses(model, guide, x, y)
        found.total.backward()
        rows.append(torch.cat([found.nll, found.kl, found.shared.reshape(1), *gradients]))
        optim.step()
    index = {"tasks": found.names, "parameters": {name: shape}}           # of a case; gradients come in this order
    np.savez_compressed(file, index=json.dumps({case: index}), values=np.concatenate(rows of all cases))
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import bmtl
from bmtl.inputs import PerTask
from bmtl.models import mlp, recipes
from bmtl.models.spec import DataSpec
from bmtl.targets import Classes, Real

FILE = np.load(Path(__file__).parent / "data" / "published_models.npz")
INDEX = json.loads(str(FILE["index"]))

KINDS = {"a": None, "c": 3, "b.1": None}  # number of classes, None for a real target
REAL = dict.fromkeys(("a", "b.1", "d"))
CLASSES = {"a": 3, "b.1": 3}
TWO = dict.fromkeys(("a", "b.1"))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(kinds, own):
    g = seeded(1)
    x = torch.randn(6, 2, generator=g, dtype=torch.float64)
    y = {}
    for i, (name, classes) in enumerate(kinds.items()):
        if classes is None:
            y[name] = 1.5 * torch.randn(6, generator=g, dtype=torch.float64)
            y[name][[i, 5]] = math.nan
        else:
            y[name] = torch.randint(0, classes, (6,), generator=g)
            y[name][[i, 4]] = -1
    if own:
        x = PerTask({name: x[: 4 + i] for i, name in enumerate(kinds)})
        y = {name: labels[: 4 + i] for i, (name, labels) in enumerate(y.items())}
    return x, y


def named(likelihood="gaussian", classification="exact", **options):
    """Options of the old classes as those of the recipes."""
    names = [*(["laplace"] if likelihood == "laplace" else []), *(["kendall"] if classification == "kendall" else [])]
    return {**options, **({"likelihood": names} if names else {})}


# Case -> recipe, its options, arguments of the guide, targets, whether each has inputs of its own.
CASES = {}
for noise in ("fixed", "parameter", "latent"):
    for head in ("linear", "bayesian"):
        for likelihood in ("gaussian", "laplace"):
            for classification in ("exact", "kendall"):
                options = named(likelihood, classification, noise=noise, head=head)
                name = f"homoscedastic {noise} {head} {likelihood} {classification}"
                CASES[name] = ("homoscedastic", options, (), KINDS, False)
CASES |= {
    "homoscedastic point": (
        "homoscedastic",
        {"noise": "latent", "head": "bayesian", "prior_scale": 0.7, "noise_prior": (0.3, 1.5)},
        ("point",),
        KINDS,
        False,
    ),
    "homoscedastic own": ("homoscedastic", {"noise": "latent", "head": "bayesian"}, ("normal", 0.3), KINDS, True),
    "bakker-heskes correlated": ("bakker_heskes", {}, ("correlated", 0.2), KINDS, False),
    "bakker-heskes normal": ("bakker_heskes", {"prior_scale": 0.8}, ("normal", 0.2), KINDS, False),
    "bakker-heskes point": ("bakker_heskes", {}, ("point",), KINDS, False),
    "bakker-heskes latent": (
        "bakker_heskes",
        named("laplace", "kendall", noise="latent"),
        ("correlated",),
        KINDS,
        False,
    ),
    "bakker-heskes own": ("bakker_heskes", {"noise": "fixed"}, ("correlated", 0.1), KINDS, True),
    "multilinear normal": ("multilinear", {}, ("normal", 0.2), REAL, False),
    "multilinear point": (
        "multilinear",
        {"noise": "fixed", "concentration": 2.0, "prior_scale": 0.6},
        ("point",),
        REAL,
        False,
    ),
    "multilinear classes": ("multilinear", named(classification="kendall"), ("normal",), CLASSES, False),
    "multilinear latent own": ("multilinear", named("laplace", noise="latent"), ("normal",), REAL, True),
    "bottleneck": ("bottleneck", {}, (), KINDS, False),
    "bottleneck own": ("bottleneck", {"latent": 2, "beta": 0.1}, (), KINDS, True),
    "bottleneck kendall": (
        "bottleneck",
        named("laplace", "kendall", latent=4, beta=2.0, noise="fixed"),
        (),
        KINDS,
        False,
    ),
    "gaussian": ("gaussian", {}, (), TWO, False),
    "gaussian own": ("gaussian", {}, (), TWO, True),
    "evidential nll": ("evidential", {"objective": "nll"}, (), TWO, False),
    "evidential nll+mse": ("evidential", {"objective": "nll+mse", "weight": 0.3, "regulariser": 0.05}, (), TWO, False),
    "evidential nll+lipschitz": ("evidential", {}, (), TWO, False),
    "evidential sample": ("evidential", {"threshold": "sample", "weight": 0.7}, (), TWO, False),
    "evidential inf": ("evidential", {"threshold": "inf", "regulariser": 0.0}, (), TWO, False),
    "evidential tie": ("evidential", {"tie": True, "regulariser": 0.1}, (), TWO, False),
    "evidential bounds": ("evidential", {"bounds": {"a": (-0.5, None), "b.1": (-1.0, 0.7)}}, (), TWO, False),
    "evidential nonnegative": (
        "evidential",
        {"min_scale": 0.2, "nonnegative": True, "objective": "nll"},
        (),
        TWO,
        False,
    ),
    "evidential own": ("evidential", {"regulariser": 0.02}, (), TWO, True),
}


def recorded():
    """By case, the steps ``(3, ...)``."""
    found, at = {}, 0
    for name, index in INDEX.items():
        size = 2 * len(index["tasks"]) + 1 + sum(math.prod(shape) for shape in index["parameters"].values())
        found[name] = FILE["values"][at : at + 3 * size].reshape(3, size)
        at += 3 * size
    assert at == len(FILE["values"])
    return found


RECORDED = recorded()


def parameters(model, guide, old_names, targets):
    """The parameters in the old classes' order, found by their old names."""
    kinds = {"1": None, "3": 3}

    def new(name):
        if match := re.fullmatch(r"scaled_log_variance\.(\d+)", name):
            return model.get_parameter(f"_likelihoods.{match[1]}.unknowns.log_variance.scaled")
        if match := re.fullmatch(r"heads\.(\d+)\.(.*)", name):
            return model.get_parameter(f"heads.layers.{match[1]}.{match[2]}")
        if match := re.fullmatch(r"(predictions|evidences)\.(\d+)\.(.*)", name):
            place = int(match[2]) + (len(targets) if match[1] == "evidences" else 0)
            return model.get_parameter(f"heads.layers.{place}.{match[3]}")
        if match := re.fullmatch(r"priors\.(\d)\.(.*)", name):
            target = next(t for t in targets if targets[t] == kinds[match[1]])
            return getattr(model.heads._common(target), match[2])
        if name in ("feature_factor", "class_factor"):
            return model.get_parameter(f"heads.{name}")
        if match := re.fullmatch(r"trunk\.(mean|spread)\.(.*)", name):
            return model.get_parameter(f"representation.trunk.{match[1]}.{match[2]}")
        if match := re.fullmatch(r"trunk\.trunk\.(.*)", name):
            return model.get_parameter(f"representation.trunk.trunk.{match[1]}")
        if match := re.fullmatch(r"trunk\.(.*)", name):
            return model.get_parameter(f"representation.trunk.{match[1]}")
        site, _, what = name.rpartition(".")
        return getattr(guide[site], what)

    return [new(name) for name in old_names]


@pytest.mark.parametrize("case", CASES)
def test_a_recipe_repeats_the_class_it_replaced(case):
    recipe, options, guide, kinds, own = CASES[case]
    x, y = batch(kinds, own)
    families = {name: Real() if of is None else Classes(tuple(map(str, range(of)))) for name, of in kinds.items()}
    n_data = {name: 9 + i for i, name in enumerate(kinds)} if own else 12
    g = seeded()
    spec = DataSpec(families, n_data, {"kind": "table", "width": 2})

    def trunk(**given):
        return mlp(2, (3,), activation=torch.nn.Tanh, generator=g, **given)

    model, _ = getattr(recipes, recipe)(spec, trunk=trunk, generator=g, **options)
    model.stacked = {}  # the recorded parameters are each target's own; `test_stacked` has the other form
    guide = model.guide(*guide).double()
    model = model.double()
    found = parameters(model, guide, INDEX[case]["parameters"], kinds)
    everything = {id(p) for module in (model, guide) for p in module.parameters()}
    assert everything == {id(p) for p in found}, "the same parameters, and no other"
    optim = torch.optim.Adam(found, lr=0.05)
    for step in range(3):
        torch.manual_seed(step)
        optim.zero_grad()
        terms = bmtl.TaskELBO("analytic").task_losses(model, guide, x, y)
        terms.total.backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in found]
        row = torch.cat([terms.nll, terms.kl, terms.shared.reshape(1), *(g.flatten() for g in gradients)])
        # The old prior of a latent noise was in float32, where 0.3 is not 0.3.
        tolerance = 1e-7 if "noise_prior" in options else 1e-9
        np.testing.assert_allclose(row.detach().numpy(), RECORDED[case][step], rtol=tolerance, atol=tolerance)
        optim.step()
    single = all(name.endswith("/nll") for name in INDEX[case]["tasks"])
    old_names = [name.removesuffix("/nll") if single else name for name in INDEX[case]["tasks"]]
    assert list(terms.names) == old_names, "one objective is a task of the target's name"


def test_every_case_that_was_recorded_is_repeated():
    assert set(CASES) == set(INDEX)
