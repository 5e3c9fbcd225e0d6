import functools
import math

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from pyro import poutine
from scipy import stats
from torch import nn

import bmtl
from bmtl.distributions import NormalInverseGamma
from bmtl.inputs import PerTask
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Evidential
from tests.models.programs import seeded

TARGETS = ("a", "b.1")
ADAM = functools.partial(torch.optim.Adam, lr=1e-2)


def program(targets=TARGETS, n_data=40, seed=0, bounds=None, **options):
    generator = seeded(seed)
    likelihoods = {name: Evidential(bounds=(bounds or {}).get(name), **options) for name in targets}
    return TaskModel(mlp(3, (6,), generator=generator), 6, likelihoods, n_data, generator=generator).double()


def batch(rows=20, seed=0, missing=0):
    generator = seeded(seed)
    x = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    y = {name: 3 * torch.randn(rows, generator=generator, dtype=torch.float64) for name in TARGETS}
    for labels in y.values():
        labels[:missing] = math.nan
    return x, y


def losses(model, x, y, **options):
    return bmtl.TaskELBO(**options).task_losses(model, model.guide(), x, y)


def heads(model, x):
    """The parameters of each target's distribution, written out."""
    h = model.representation.trunk(x)
    found = {}
    for name in model.names:
        point, evidence = model.heads.of(name)
        nu, excess, beta = (nn.functional.softplus(evidence(h)) + 1e-6).unbind(-1)
        found[name] = (point(h).squeeze(-1), nu, 1 + excess, beta)
    return found


def equation_7(model, x, y, c, kappa, threshold):
    """The paper's loss, summed over targets: equations 4, 5, 6 and 7 as printed, by digammas and branches."""
    total = 0.0
    for name, (g, v, a, b) in heads(model, x).items():
        seen = ~y[name].isnan()
        g, v, a, b, target = (t[seen] for t in (g, v, a, b, y[name]))
        e = target - g
        omega = 2 * b * (1 + v)
        nll = 0.5 * torch.log(math.pi / v) - a * omega.log() + (a + 0.5) * (e**2 * v + omega).log()
        nll = nll + torch.lgamma(a) - torch.lgamma(a + 0.5)
        u_nu = b * (v + 1) / (a * v)
        u_alpha = 2 * b * (1 + v) / v * (torch.exp(torch.digamma(a + 0.5) - torch.digamma(a)) - 1)
        u = torch.minimum(u_nu, u_alpha).detach()
        u = u.min() if threshold == "batch_min" else u
        mse = torch.where(e**2 < u, e**2, 2 * u.sqrt() * e.abs() - u) if threshold else e**2
        total = total + (nll + kappa * mse + c * e.abs() * (2 * v + a)).mean()
    return total


# ---- What is trained -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", ["per_datum", "task_mean"])
@pytest.mark.parametrize(
    ("objective", "threshold", "kappa"),
    [
        ("nll", None, 0.0),
        ("nll+mse", None, 0.3),
        ("nll+lipschitz", "batch_min", 1.0),
        ("nll+lipschitz", "sample", 0.7),
    ],
)
def test_equal_weights_are_equation_7(objective, threshold, kappa, normalize):
    """Value and gradients, to 1e-12; with missing labels the means are those of the labelled rows."""
    x, y = batch(missing=6 if normalize == "task_mean" else 0)
    options = {"threshold": threshold} if threshold else {}
    model = program(objective=objective, weight=kappa, regulariser=0.05, **options)
    svi = bmtl.BalancedSVI(model, model.guide(), ADAM, "ew", elbo=bmtl.TaskELBO(normalize=normalize))
    record = svi.backward(x, y)
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    expected = equation_7(model, x, y, 0.05, kappa, threshold)
    assert record.losses.sum().item() == pytest.approx(expected.item(), rel=1e-12)
    slopes = torch.autograd.grad(expected, list(model.parameters()))
    for (name, gradient), slope in zip(found.items(), slopes, strict=True):
        torch.testing.assert_close(gradient, slope, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("balancer", ["full >> pcgrad", "igb-v1 >> nash-mtl", "last-layer >> imtl-g", "uw"])
def test_any_balancer_weighs_the_two_objectives(balancer):
    x, y = batch(missing=3)
    model = program()
    svi = bmtl.BalancedSVI(model, model.guide(), ADAM, balancer)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(3):
        record = svi.step(x, y)
    assert record.names == ("a/nll", "a/mse", "b.1/nll", "b.1/mse") == model.tasks
    assert record.losses.isfinite().all()
    assert record.active.all()
    assert not any(torch.equal(value, before[name]) for name, value in model.named_parameters())


@pytest.mark.parametrize(("objective", "extra"), [("nll", None), ("nll+mse", "mse"), ("nll+lipschitz", "lipschitz")])
def test_sites_and_tasks(objective, extra):
    x, y = batch(missing=4)
    model = program(objective=objective)
    trace = poutine.trace(model).get_trace(x, y)
    marks = {name: trace.nodes[name].get("task") for name in trace.observation_nodes}
    expected = {}
    for target in TARGETS:
        first = f"{target}/nll" if extra else target  # one objective is a task of the target's name
        expected |= {f"y_{target}": first, f"{target}_evidence": first}
        if extra:
            expected[f"{target}_{extra}"] = f"{target}/mse"
    assert marks == expected
    terms = losses(model, x, y)
    assert terms.labelled.tolist() == [16] * len(terms.names), "a factor's rows count as data of their task"
    assert (terms.counts == 32).all()
    trace = poutine.trace(model).get_trace(x)
    assert not trace.observation_nodes
    assert [n for n in trace.stochastic_nodes if not n.endswith("_rows")] == [f"y_{t}" for t in TARGETS]
    assert not poutine.trace(model.guide()).get_trace(x).stochastic_nodes


@pytest.mark.parametrize("objective", ["nll", "nll+mse", "nll+lipschitz"])
def test_epochs_are_compared_by_the_likelihood_alone(objective):
    """Whatever is trained: validation is the mean negative log-likelihood of the labelled rows, and so is what is best."""
    x, y = batch(missing=4)
    model = program(objective=objective, regulariser=0.5)
    seen = {name: [] for name in TARGETS}

    class Spy(Callback):
        def on_validation_epoch_end(self, trainer, module):
            for name, (g, v, a, b) in heads(model, x).items():
                p = stats.t(*(t.detach().numpy() for t in (2 * a, g, (b * (1 + v) / (a * v)).sqrt())))
                seen[name].append(-np.nanmean(p.logpdf(y[name].numpy())))

    svi = bmtl.BalancedSVI(model, model.guide(), functools.partial(torch.optim.Adam, lr=0.3))
    found = bmtl.fit(svi, [(x, y)], [(x, y)], max_epochs=12, progress=False, callbacks=[Spy()], precision="64-true")
    likelihood = {name: name if objective == "nll" else f"{name}/nll" for name in TARGETS}
    assert found.validation.keys() == set(likelihood.values())
    for name in TARGETS:
        assert found.validation[likelihood[name]] == pytest.approx(seen[name], rel=1e-9)
    means = np.mean(list(seen.values()), axis=0)
    assert found.best_epoch == 1 + means.argmin()
    assert model.training
    names = TARGETS if objective == "nll" else [f"{name}/{of}" for name in TARGETS for of in ("nll", "mse")]
    assert svi.names == tuple(names)


def test_without_a_regulariser_there_is_no_penalty_site():
    x, y = batch()
    assert "a_evidence" not in poutine.trace(program(regulariser=0.0)).get_trace(x, y).nodes


def test_the_squared_error_reaches_trunk_and_prediction_only():
    x, y = batch()
    model = program(("a",))
    terms = losses(model, x, y)
    slopes = torch.autograd.grad(terms.nll_terms[1], list(model.parameters()), allow_unused=True)
    reached = {
        n for (n, _), slope in zip(model.named_parameters(), slopes, strict=True) if slope is not None and slope.any()
    }
    _, evidence = model.heads.of("a")
    assert reached == {n for n, p in model.named_parameters() if not any(p is q for q in evidence.parameters())}


def test_missing_labels_leave_their_rows_out():
    x, y = batch()
    model = program(n_data=20)
    hidden = {name: labels.clone() for name, labels in y.items()}
    for labels in hidden.values():
        labels[:8] = math.nan
    rest = program(n_data=12)
    found = losses(model, x, hidden).nll
    torch.testing.assert_close(found, losses(rest, x[8:], {n: v[8:] for n, v in y.items()}).nll)


def test_own_inputs_that_are_equal_give_what_common_inputs_give():
    x, y = batch(missing=3)
    model = program(n_data={"a": 40, "b.1": 50})
    common, own = losses(model, x, y), losses(model, PerTask(dict.fromkeys(TARGETS, x)), y)
    torch.testing.assert_close(common.nll, own.nll)
    torch.testing.assert_close(common.counts, own.counts)
    assert [h.shape for h in own.marks.tensors] == [(20, 6)] * 2


@pytest.mark.parametrize("min_scale", [1e-3, 0.2, 3.0])
def test_the_offset_keeps_the_likelihoods_loss_from_falling_below_0(min_scale):
    """Even where every label is met exactly, at the least scale and many degrees of freedom; gradients stay."""
    x, y = batch(missing=3)
    options = {"objective": "nll", "regulariser": 0.0, "min_scale": min_scale, "n_data": 20}
    plain, moved = program(**options), program(**options, nonnegative=True)
    terms = losses(plain, x, y), losses(moved, x, y)
    constant = 17 * max(-math.log(min_scale * math.sqrt(2 * math.pi)), 0.0)
    torch.testing.assert_close(terms[1].nll, terms[0].nll + constant)
    assert terms[0].counts.tolist() == terms[1].counts.tolist()
    slopes = [torch.autograd.grad(t.total, list(m.parameters())) for t, m in zip(terms, (plain, moved), strict=True)]
    torch.testing.assert_close(*slopes)
    with torch.no_grad():
        for layer in (moved.heads.of(name)[1] for name in TARGETS):
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor([1e4, 1e7, -1e4]))
        exact = {name: values[0] for name, values in heads(moved, x).items()}
    nll = losses(moved, x, exact).nll
    assert (nll >= -1e-9).all()
    if min_scale < 0.3:
        assert (nll < 1e-2).all(), "the bound is tight"


def test_a_constant_head_finds_the_student_t_of_greatest_likelihood():
    """Against scipy's own maximum, on draws of a Student-t of 5 degrees of freedom."""
    y = torch.tensor(stats.t.rvs(5, loc=1.5, scale=0.6, size=3000, random_state=0))
    model = TaskModel(nn.Identity(), 1, {"a": Evidential(objective="nll", regulariser=0.0)}, 3000).double()
    x = torch.zeros(3000, 1, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=300, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = losses(model, x, {"a": y}).total / 3000
        loss.backward()
        return loss

    optimizer.step(closure)
    df, loc, scale = stats.t.fit(y.numpy())
    best = stats.t(df, loc=loc, scale=scale).logpdf(y).mean()
    assert closure().item() == pytest.approx(-best, abs=1e-6)
    (g, v, a, b), *_ = heads(model, x[:1]).values()
    assert g.item() == pytest.approx(loc, abs=1e-3)
    assert 2 * a.item() == pytest.approx(df, rel=1e-2)
    assert (b * (1 + v) / (a * v)).sqrt().item() == pytest.approx(scale, rel=1e-2)


# ---- Predictions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"min_scale": 0.1}, {"tie": True}])
def test_it_predicts_its_heads_distribution(options):
    x, _ = batch()
    model = program(**options)
    trace = poutine.trace(model).get_trace(x)
    h = model.representation.trunk(x)
    for name in TARGETS:
        p = trace.nodes[f"y_{name}"]["fn"]
        assert isinstance(p, NormalInverseGamma)
        torch.testing.assert_close(p.gamma, model.heads.of(name)[0](h).squeeze(-1))
        if options.get("min_scale"):
            assert (p.scale >= 0.1).all()
        if options.get("tie"):
            torch.testing.assert_close(p.nu, p.excess)
            assert [layer.out_features for layer in model.heads.of(name)] == [1, 2]
        else:
            torch.testing.assert_close(torch.stack([p.nu, p.alpha]), torch.stack(heads(model, x)[name][1:3]))


def test_draws_are_those_of_the_closed_form():
    x, y = batch(missing=2)
    model = program()
    draws = bmtl.draw(model, model.guide(), x, y, num_draws=500)
    assert not draws.posterior
    for name in TARGETS:
        p = poutine.trace(model).get_trace(x).nodes[f"y_{name}"]["fn"]
        assert draws.targets[name].draws.shape == (500, 20)
        torch.testing.assert_close(torch.tensor(draws.targets[name].mean), p.mean.detach())
        exact = stats.t(p.df.detach(), loc=p.loc.detach(), scale=p.scale.detach())
        torch.testing.assert_close(torch.tensor(draws.targets[name].pit[2:]), torch.tensor(exact.cdf(y[name]))[2:])
        torch.testing.assert_close(
            torch.tensor(draws.targets[name].log_likelihood[0, 2:]), torch.tensor(exact.logpdf(y[name]))[2:]
        )


def test_labels_at_a_bound_are_scored_by_their_probability():
    x, y = batch()
    y = {name: labels.clamp_min(0.5) for name, labels in y.items()}
    model = program(bounds={"a": (0.5, None)}, objective="nll", regulariser=0.0, n_data=20)
    g, v, a, b = (t.detach() for t in heads(model, x)["a"])
    exact = stats.t(2 * a, loc=g, scale=(b * (1 + v) / (a * v)).sqrt())
    at_bound = y["a"] == 0.5
    expected = torch.where(at_bound, torch.tensor(exact.logcdf(0.5)), torch.tensor(exact.logpdf(y["a"])))
    found = losses(model, x, y)
    assert at_bound.any()
    assert found.nll[0].item() == pytest.approx(-expected.sum().item(), rel=1e-9)
    trace = poutine.trace(model).get_trace(x)
    assert (trace.nodes["y_a"]["value"] >= 0.5).all()
    assert trace.nodes["y_a"]["fn"].lower.unique().item() == 0.5
    assert isinstance(trace.nodes["y_b.1"]["fn"], NormalInverseGamma)


def test_a_generator_gives_the_same_program():
    before = torch.get_rng_state()
    one, other, third = program(seed=1), program(seed=1), program(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), third.parameters(), strict=True))
    assert torch.equal(before, torch.get_rng_state())


# ---- What does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "mse"}, "objective is one of 'nll', 'nll[+]mse', 'nll[+]lipschitz', and 'mse'"),
        ({"threshold": "batch-min"}, "threshold is one of 'batch_min', 'sample', 'inf', and 'batch-min'"),
        ({"weight": -1.0}, "weight is 0 or more and finite, and -1.0"),
        ({"regulariser": math.nan}, "regulariser is 0 or more"),
        ({"min_scale": -0.1}, "min_scale is 0 or more"),
        ({"nonnegative": True}, "nonnegative=True needs a min_scale above 0"),
        ({"targets": ()}, "at least one name"),
        ({"n_data": {"a": 4}}, r"n_data lacks the targets \['b.1'\]"),
        ({"n_data": 0}, "n_data is a number of data, from 1, and 0"),
        ({"bounds": {"a": (None, None)}}, r"one of them at least; \(None, None\)"),
        ({"bounds": {"a": (1.0, 0.5)}}, r"one of them at least; \(1.0, 0.5\)"),
    ],
)
def test_a_wrong_option_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        program(**options)


def test_a_wrong_batch_is_told():
    model = program()
    x, y = batch()
    wrong = [
        (x, {"a": y["a"]}, ValueError, r"targets \['a'\], and the program also has 'b.1'"),
        (x, y | {"a": y["a"][:, None]}, ValueError, r"'y_a' was given targets of shape \(20, 1\)"),
        (x, y | {"a": y["a"].long()}, TypeError, "'y_a' has a continuous distribution"),
        (PerTask({"a": x}), y, ValueError, r"x has inputs for \['a'\], and the program also has 'b.1'"),
    ]
    for inputs, targets, error, message in wrong:
        with pytest.raises(error, match=message):
            losses(model, inputs, targets)
