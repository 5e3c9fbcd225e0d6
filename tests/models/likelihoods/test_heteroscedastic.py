import functools
import math

import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import nn

import bmtl
from bmtl.inputs import PerTask
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Heteroscedastic
from tests.models.programs import seeded


def program(targets=("a", "b"), n_data=40, seed=0):
    generator = seeded(seed)
    likelihoods = {name: Heteroscedastic() for name in targets}
    return TaskModel(mlp(3, (6,), generator=generator), 6, likelihoods, n_data, generator=generator)


def batch(rows=20, missing=0):
    generator = seeded(5)
    x = torch.randn(rows, 3, generator=generator)
    y = {name: torch.randn(rows, generator=generator) for name in ("a", "b")}
    for labels in y.values():
        labels[:missing] = math.nan
    return x, y


def losses(model, x, y):
    return bmtl.TaskELBO().task_losses(model, model.guide(), x, y)


@pytest.mark.parametrize("missing", [0, 7, 20])
def test_losses_are_scipys_densities_of_the_labelled_rows(missing):
    x, y = batch(missing=missing)
    model = program(n_data={"a": 40, "b": 100})
    found = losses(model, x, y)
    assert found.names == ("a", "b")
    for i, name in enumerate(("a", "b")):
        mean, raw = model.heads(name, model.representation.trunk(x), None).detach().double().numpy()[missing:].T
        sd = (nn.functional.softplus(torch.tensor(raw)) + 1e-6).sqrt().numpy()
        log_p = stats.norm(mean, sd).logpdf(y[name].numpy()[missing:])
        assert found.nll[i].item() == pytest.approx(-log_p.sum() * model.n_data[name] / 20, rel=1e-5, abs=1e-6)
        assert found.counts[i].item() == pytest.approx((20 - missing) * model.n_data[name] / 20)


def test_it_learns_mean_and_noise_of_each_group():
    """One-hot inputs: at the maximum of the likelihood each group has its own mean and variance."""
    generator = seeded(0)
    group = torch.arange(300) % 3
    x = nn.functional.one_hot(group, 3).double()
    y = torch.tensor([0.0, 2.0, -1.0])[group] + torch.tensor([0.1, 1.0, 4.0])[group] * torch.randn(
        300, generator=generator
    )
    y = y.double()
    model = TaskModel(nn.Identity(), 3, {"a": Heteroscedastic()}, 300, generator=generator).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = losses(model, x, {"a": y}).total / 300
        loss.backward()
        return loss

    optimizer.step(closure)
    p = poutine.trace(model).get_trace(torch.eye(3, dtype=torch.float64)).nodes["y_a"]["fn"]
    for k in range(3):
        assert p.mean[k].item() == pytest.approx(y[group == k].mean().item(), abs=1e-3)
        assert p.stddev[k].item() == pytest.approx(y[group == k].std(correction=0).item(), rel=1e-3)


def test_any_head_has_a_finite_loss_and_gradient():
    model = TaskModel(nn.Identity(), 2, {"a": Heteroscedastic()}, 1)
    model.heads.of("a")[0].weight.data = torch.eye(2)
    ends = torch.tensor([-1e4, -110.0, 0.0, 110.0, 1e4])
    x = torch.cartesian_prod(ends, ends).requires_grad_()
    loss = losses(model, x, {"a": torch.zeros(25)}).total
    (slope,) = torch.autograd.grad(loss, x)
    assert loss.isfinite()
    assert slope.isfinite().all()


def test_it_trains_and_predicts():
    x, y = batch(missing=3)
    model = program()
    svi = bmtl.BalancedSVI(model, model.guide(), functools.partial(torch.optim.Adam, lr=1e-2), "full >> pcgrad")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):
        svi.step(x, y)
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters())
    draws = bmtl.draw(model, model.guide(), x, y, num_draws=7)
    assert draws.targets["a"].draws.shape == (7, 20)
    trace = poutine.trace(model).get_trace(x)
    assert not trace.observation_nodes
    stacked = model.stacked["b"]
    mean = trace.nodes[stacked.site("y")]["fn"].mean.detach()[stacked.names.index("b")]
    torch.testing.assert_close(torch.tensor(draws.targets["b"].mean).float(), mean)


def test_own_inputs_that_are_equal_give_what_common_inputs_give():
    x, y = batch()
    model = program(n_data={"a": 40, "b": 50})
    torch.testing.assert_close(losses(model, x, y).nll, losses(model, PerTask({"a": x, "b": x}), y).nll)


def test_a_wrong_program_or_batch_is_told():
    with pytest.raises(ValueError, match=r"n_data lacks the targets \['b'\]"):
        program(n_data={"a": 3})
    with pytest.raises(ValueError, match="at least one name"):
        program(targets=())
    x, y = batch()
    with pytest.raises(ValueError, match="and the program also has 'b'"):
        losses(program(), x, {"a": y["a"]})
    with pytest.raises(ValueError, match="x has inputs for"):
        losses(program(), PerTask({"b": x}), y)
