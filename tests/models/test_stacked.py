"""Targets of one kind as one statement: losses, gradients, steps and draws are those of statements of their own."""

import functools

import numpy as np
import pyro.poutine as poutine
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inputs import PerTask
from bmtl.models import TaskModel
from bmtl.models.heads import BayesianHeads, CommonPriorHeads, LinearHeads, TensorNormalHeads
from bmtl.models.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    Laplace,
    NegativeBinomial,
    Ordinal,
    Poisson,
    StudentT,
    Weibull,
)
from bmtl.models.linear_part import LinearPart
from bmtl.models.networks import mlp
from bmtl.models.representations import Bottleneck, Deterministic, MCDropout
from tests.inference.programs import NAN

ROWS, WIDTH = 9, 5
SGD = functools.partial(torch.optim.SGD, lr=0.05)
Adam = functools.partial(torch.optim.Adam, lr=0.05)


def likelihoods(noise="parameter"):
    """Three real targets, two of classes, one of its own kind, in no order, one with a dot in its name."""
    return {
        "a": Gaussian(noise),
        "c": Categorical(3, noise),
        "b.1": Gaussian(noise),
        "count": Poisson(),
        "d": Categorical(3, noise),
        "e": Gaussian(noise),
    }


def data(seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, 4, generator=g, dtype=torch.float64)
    y = {
        "a": torch.randn(ROWS, generator=g, dtype=torch.float64),
        "c": torch.randint(3, (ROWS,), generator=g),
        "b.1": torch.randn(ROWS, generator=g, dtype=torch.float64),
        "count": torch.randint(5, (ROWS,), generator=g).double(),
        "d": torch.randint(3, (ROWS,), generator=g),
        "e": torch.randn(ROWS, generator=g, dtype=torch.float64),
    }
    y["a"][:3] = NAN
    y["d"][4:] = -1
    return x, y


def model_of(stack, of=None, head=LinearHeads, representation=Deterministic, n_data=40, dropout=0.0):
    torch.manual_seed(0)
    trunk = mlp(4, (WIDTH,), mc_dropout=dropout) if dropout else nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh())
    of = likelihoods() if of is None else of
    model = TaskModel(trunk, WIDTH, of, n_data, head=head, representation=representation, stack=stack).double()
    return model, model.guide().double()


def scattered(pair, other):
    """Gives a stacked and a separate guide the same values, which no two entries have alike."""
    (_, guide), (_, separate) = pair, other
    generator = torch.Generator().manual_seed(7)
    rows = {}
    for site, posterior in _own(separate):
        for name, p in posterior.named_parameters():
            p.data += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
            rows[site, name] = p.data
    for site, posterior in _own(guide):
        label, _, stem = site.partition("/")
        for name, p in posterior.named_parameters():
            if stem:
                plate = next(of for of in _stacked(guide) if of[1] == label)
                p.data.copy_(torch.stack([rows[f"{stem}_{task}", name] for task in plate[0]]).unsqueeze(1))
            else:
                p.data.copy_(rows[site, name])


def _guides(guide):
    return [guide.joint, *guide.own] if hasattr(guide, "own") else [guide]


def _own(guide):
    return [pair for each in _guides(guide) for pair in each.items()]


def _stacked(guide):
    return [of for each in _guides(guide) for of in each._stacked.values()]


def gradients_by_name(model, guide):
    """Gradients of the parameters, a stacked posterior's by target."""
    found = {name: p.grad for name, p in model.named_parameters()}
    plates = {label: tasks for tasks, label in _stacked(guide)}
    for site, posterior in _own(guide):
        label, _, stem = site.partition("/")
        for name, p in posterior.named_parameters():
            if not stem:
                found[site, name] = p.grad
                continue
            for task, row in zip(plates[label], [None] * 99 if p.grad is None else p.grad[:, 0], strict=False):
                found[f"{stem}_{task}", name] = row
    return found


def fixed_draw(monkeypatch):
    """Every latent is half a standard deviation above its mean, in whatever order it is drawn."""
    half = lambda shape, dtype, device: torch.full(shape, 0.5, dtype=dtype, device=device)  # noqa: E731
    monkeypatch.setattr(torch.distributions.normal, "_standard_normal", half)
    monkeypatch.setattr(torch.distributions.multivariate_normal, "_standard_normal", half)


CASES = {
    "points": {},
    "fixed": {"of": "fixed"},
    "latent": {"of": "latent"},
    "bayesian": {"of": "latent", "head": BayesianHeads},
    "common prior": {"of": "parameter", "head": CommonPriorHeads},
    "bottleneck": {"of": "latent", "representation": Bottleneck},
    "dropout": {"of": "parameter", "representation": MCDropout, "dropout": 0.1},
}


def pair_of(case):
    options = dict(CASES[case])
    noise = options.pop("of", "parameter")
    return tuple(model_of(stack, likelihoods(noise), **options) for stack in (True, False))


@pytest.mark.parametrize("estimator", ["mc", "analytic"])
@pytest.mark.parametrize("case", [case for case in CASES if case != "dropout"])
def test_losses_and_gradients_are_those_of_separate_statements(case, estimator, monkeypatch):
    stacked, separate = pair_of(case)
    scattered(stacked, separate)
    fixed_draw(monkeypatch)
    x, y = data()
    found = []
    for model, guide in (stacked, separate):
        losses = bmtl.TaskELBO(estimator).task_losses(model, guide, x, y).arranged(tuple(y))
        (losses.nll @ torch.arange(1.0, 7.0).double() + losses.kl.sum() + losses.shared).backward()
        found.append((losses, gradients_by_name(model, guide)))
    (one, gradients), (two, expected) = found
    for name in ("nll", "kl", "shared", "labelled", "scales"):
        assert_close(getattr(one, name), getattr(two, name), rtol=1e-10, atol=1e-10)
    assert one.sizes == two.sizes
    assert one.rows == two.rows
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (gradient is None) == (gradients[name] is None), name
        if gradient is not None:
            assert_close(gradients[name], gradient, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("balancer", ["ew", "full >> upgrad", "last-layer >> nash-mtl"])
def test_steps_are_those_of_separate_statements(case, balancer, monkeypatch):
    """Two steps with Adam, the second without a label of a target: parameters by target, and weights."""
    stacked, separate = pair_of(case)
    if case == "bottleneck" and balancer != "ew":
        balancer = balancer.replace("last-layer", "representation")
    scattered(stacked, separate)
    fixed_draw(monkeypatch)
    x, y = data()
    missing = {**y, "e": torch.full_like(y["e"], NAN)}
    runs = []
    for model, guide in (stacked, separate):
        if case == "dropout":
            model.eval()
        svi = bmtl.BalancedSVI(model, guide, Adam, balancer, bmtl.TaskELBO("analytic"))
        svi.initialise(x, y)
        records = [svi.step(x, y), svi.step(x, missing)]
        values = {name: p.detach().clone() for name, p in model.named_parameters()}
        plates = {label: tasks for tasks, label in _stacked(guide)}
        for site, posterior in _own(guide):
            label, _, stem = site.partition("/")
            for name, p in posterior.named_parameters():
                rows = {f"{stem}_{task}": row for task, row in zip(plates[label], p[:, 0], strict=True)} if stem else {}
                values |= {(of, name): row.detach() for of, row in (rows or {site: p}).items()}
        runs.append((records, values))
    (records, values), (expected_records, expected) = runs
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(values[name], value, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    for one, two in zip(records, expected_records, strict=True):
        place = [one.names.index(name) for name in two.names]
        for field in ("losses", "weights", "weights_heads", "active"):
            assert_close(getattr(one, field)[place], getattr(two, field), rtol=1e-8, atol=1e-10, equal_nan=True)


def test_an_absent_target_keeps_values_and_moments():
    model, guide = model_of(True)
    svi = bmtl.BalancedSVI(model, guide, Adam, "ew")
    x, y = data()
    for _ in range(3):
        svi.step(x, y)
    own = model.parameters_of("e")
    assert len(own) == 3
    before = [(p.detach().clone(), {k: v.clone() for k, v in svi.optimizer.state[p].items()}) for p in own]
    missing = {**y, "e": torch.full_like(y["e"], NAN)}
    others = model.parameters_of("b.1")[0].detach().clone()
    for _ in range(3):
        svi.step(x, missing)
    for p, (value, state) in zip(own, before, strict=True):
        assert torch.equal(p, value)
        assert all(torch.equal(svi.optimizer.state[p][key], kept) for key, kept in state.items())
    assert not torch.equal(model.parameters_of("b.1")[0], others)


@pytest.mark.parametrize("case", ["latent", "bayesian", "common prior"])
def test_draws_have_the_names_and_values_of_separate_statements(case, monkeypatch):
    stacked, separate = pair_of(case)
    scattered(stacked, separate)
    fixed_draw(monkeypatch)
    x, y = data()
    found, expected = (bmtl.draw(model, guide, x, y=y, num_draws=2, seed=3) for model, guide in (stacked, separate))
    assert set(found.posterior) == set(expected.posterior)
    for name, values in expected.posterior.items():
        np.testing.assert_allclose(found.posterior[name], values, rtol=1e-12, err_msg=name)
    assert set(found.targets) == set(expected.targets)
    for name, prediction in expected.targets.items():
        np.testing.assert_allclose(found.targets[name].log_likelihood, prediction.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(found.log_p, expected.log_p)
    np.testing.assert_allclose(found.log_q, expected.log_q)


KINDS = {
    "laplace": (Laplace, lambda g: torch.randn(ROWS, generator=g)),
    "student-t": (StudentT, lambda g: torch.randn(ROWS, generator=g)),
    "bernoulli": (Bernoulli, lambda g: torch.randint(2, (ROWS,), generator=g)),
    "ordinal": (functools.partial(Ordinal, 4), lambda g: torch.randint(4, (ROWS,), generator=g)),
    "poisson": (Poisson, lambda g: torch.randint(7, (ROWS,), generator=g).float()),
    "negative-binomial": (NegativeBinomial, lambda g: torch.randint(7, (ROWS,), generator=g).float()),
    "weibull": (Weibull, lambda g: torch.rand(ROWS, 1, generator=g).add(0.1).repeat(1, 2)),
}


@pytest.mark.parametrize("noise", ["fixed", "parameter", "latent"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_likelihood_stacks(kind, noise, monkeypatch):
    """With starts of their own, from labels on scales of their own."""
    make, labels = KINDS[kind]
    g = torch.Generator().manual_seed(1)
    y = {"p": labels(g), "q": labels(g)}
    if y["q"].is_floating_point() and kind != "weibull":
        y["q"] = 3 * y["q"]
    x = torch.randn(ROWS, 4, generator=g)
    fixed_draw(monkeypatch)
    losses = []
    for stack in (True, False):
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh())
        model = TaskModel(trunk, WIDTH, {name: make(noise=noise) for name in y}, 40, stack=stack, labels=y)
        assert len({id(of) for of in model.stacked.values()}) == int(stack)
        losses.append(bmtl.TaskELBO("mc").task_losses(model, model.guide(), x, y))
    assert_close(losses[0].nll, losses[1].nll, rtol=1e-5, atol=1e-4)
    assert_close(losses[0].kl, losses[1].kl, rtol=1e-5, atol=1e-5)


def test_a_linear_part_is_added_to_each():
    x, y = data()
    labels = {name: y["a"].nan_to_num() + k for k, name in enumerate(("a", "b"))} | {"c": y["c"], "d": y["c"]}
    of = {"a": Gaussian(), "b": Gaussian(), "c": Categorical(3), "d": Categorical(3)}
    losses = []
    for stack in (True, False):
        model, guide = model_of(stack, of)
        model.linear_part = LinearPart(4, of, 5.0)
        model.linear_part.fit(x, labels, of)
        model.double()
        losses.append(bmtl.TaskELBO().task_losses(model, guide, x, labels))
        assert model.linear_part.weight("a").abs().sum() > 0
        assert model.linear_part.weight("d").abs().sum() > 0
    assert losses[0].names == losses[1].names
    assert_close(losses[0].nll, losses[1].nll)


def test_what_is_one_statement_and_what_is_not():
    of = {
        "a": Gaussian(),
        "b": Gaussian(),
        "fixed": Gaussian("fixed"),
        "bounded": Gaussian(bounds=(0.0, None)),
        "three": Categorical(3),
        "two": Categorical(2),
        "fewer": Gaussian(),
    }
    model, _ = model_of(True, of, n_data={name: 20 if name == "fewer" else 40 for name in of})
    assert set(model.stacked) == {"a", "b"}
    x, y = data()
    labels = dict.fromkeys(of, y["a"]) | {"three": y["c"], "two": y["c"].clamp(max=1)}
    trace = poutine.trace(model).get_trace(x, labels)
    observed = list(trace.observation_nodes)
    assert observed == ["gaussian/y", "y_fixed", "y_bounded", "y_three", "y_two", "y_fewer"]


def test_two_groups_of_one_likelihood_have_labels_of_their_own():
    of = {"a": Gaussian(), "b": Gaussian(), "c": Gaussian("fixed"), "d": Gaussian("fixed")}
    model, guide = model_of(True, of)
    x, y = data()
    labels = dict.fromkeys(of, y["a"])
    losses = bmtl.TaskELBO().task_losses(model, guide, x, labels)
    assert losses.names == ("a", "b", "c", "d")
    assert {of.label for of in model.stacked.values()} == {"gaussian_1", "gaussian_2"}
    assert set(bmtl.draw(model, guide, x, num_draws=2).targets) == set(of)


@pytest.mark.parametrize("case", ["points", "bayesian"])
def test_inputs_of_each_target_have_statements_of_their_own(case, monkeypatch):
    stacked, separate = pair_of(case)
    scattered(stacked, separate)
    fixed_draw(monkeypatch)
    x, y = data()
    own = PerTask({name: x + k for k, name in enumerate(y)})
    one, two = (bmtl.TaskELBO("analytic").task_losses(model, guide, own, y) for model, guide in (stacked, separate))
    one = one.arranged(two.names)
    assert_close(one.nll, two.nll)
    assert_close(one.kl, two.kl)


def test_labels_of_several_types_are_observed_one_by_one():
    stacked, separate = (model_of(stack, {"a": Poisson(), "b": Poisson()}) for stack in (True, False))
    x, _ = data()
    y = {"a": torch.tensor([2] * 8 + [-1]), "b": torch.full((ROWS,), 3.0, dtype=torch.float64)}
    one, two = (bmtl.TaskELBO().task_losses(model, guide, x, y) for model, guide in (stacked, separate))
    assert one.labelled.tolist() == two.labelled.tolist() == [8, 9]
    assert_close(one.nll, two.nll)


@pytest.mark.parametrize("head", [LinearHeads, BayesianHeads, TensorNormalHeads])
@pytest.mark.parametrize("representation", [Deterministic, Bottleneck])
def test_vectorised_particles_broadcast(head, representation):
    """Their mean is that of as many draws one by one, within the noise of either."""
    of = {"a": Gaussian("latent"), "b": Gaussian("latent")}
    model, guide = model_of(True, of, head=head, representation=representation)
    x, y = data()
    labels = {"a": y["a"], "b": y["e"]}
    with torch.no_grad():
        found = []
        for vectorised in (True, False):
            torch.manual_seed(1)
            elbo = bmtl.TaskELBO(num_particles=40, vectorize_particles=vectorised, max_plate_nesting=2)
            found.append(elbo.task_losses(model, guide, x, labels))
        assert_close(found[0].nll, found[1].nll, rtol=0.1, atol=4.0)
        assert found[0].labelled.tolist() == found[1].labelled.tolist()
