"""Transforms that observe the task gradients: ExcessMTL, GradNorm."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

import bmtl
from bmtl.inference.balancing import Context, ExcessMTL, GradNorm, Measured
from tests.inference.balancing.loop import NAN, Loop
from tests.inference.programs import Regressions, batch, nothing

ONES = torch.ones(3, dtype=torch.float64)


def draws(steps, seed=0, size=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, 3, size, generator=generator, dtype=torch.float64)


# ---- ExcessMTL ---------------------------------------------------------------------------------------------------------


def test_excess_mtl_equals_a_plain_loop():
    loop = Loop(ExcessMTL(eta=0.7))
    sums, first, weights = torch.zeros(3, 6), None, ONES.clone()
    for gradients in draws(8):
        sums = sums + gradients.square()
        risk = torch.stack([g @ (g / (s + 1e-7).sqrt()) for g, s in zip(gradients, sums, strict=True)])
        first = risk if first is None else first
        weights = weights * torch.exp(0.7 * risk / first)
        weights = 3 * weights / weights.sum()
        update = loop.update(ONES, gradients)
        assert_close(update.weights, weights)  # in this very step
        assert torch.equal(update.weights_heads, update.weights)
        assert_close(loop.grad, weights @ gradients)


def test_excess_mtl_leaves_the_weights_where_excess_risks_are_equal():
    loop = Loop(ExcessMTL(eta=5.0))
    for gradients in draws(5):
        assert_close(loop.step(ONES, gradients[0].expand(3, -1)), ONES)


def test_excess_mtl_gives_weight_to_the_task_whose_gradients_do_not_vanish():
    loop = Loop(ExcessMTL(eta=0.2))
    for t, gradients in enumerate(draws(10)):
        fading = torch.tensor([1.0, 0.5**t, 0.5**t], dtype=torch.float64)
        weights = loop.step(ONES, gradients * fading[:, None])
    assert weights[0] > 1.5 * weights[1:].max()


def test_excess_mtl_of_a_zero_gradient_and_of_a_huge_ratio_is_finite():
    loop = Loop(ExcessMTL(eta=1.0))
    gradients = draws(1)[0] * torch.tensor([[1e-6], [0.0], [1.0]])
    assert loop.step(ONES, gradients).isfinite().all()
    weights = loop.step(
        ONES, draws(1)[0]
    )  # the first task's risk is now 1e9 times its first, the second's is its first
    assert_close(weights, torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64))
    assert loop.transform.log_weights.isfinite().all()


def test_excess_mtl_measures_a_late_task_by_its_own_first_risk():
    loop = Loop(ExcessMTL(eta=0.5))
    losses = torch.tensor([1.0, 1.0, NAN])
    gradients = draws(2)
    loop.step(losses, gradients[0])
    kept = loop.transform.log_weights[2].clone()
    loop.step(losses, gradients[1])
    assert torch.equal(loop.transform.log_weights[2], kept)
    loop.step(ONES, gradients[0])
    assert loop.transform.first.isfinite().all()


def test_excess_mtl_says_so_when_the_shared_parameters_change():
    loop = Loop(ExcessMTL())
    loop.step(ONES, torch.ones(3, 4))
    with pytest.raises(ValueError, match="reach 5"):
        loop.step(ONES, torch.ones(3, 5))
    with pytest.raises(ValueError, match="'full'"):
        loop.transform.refine(Measured(torch.eye(3)), Context(torch.ones(3, dtype=torch.bool)))


# ---- GradNorm ----------------------------------------------------------------------------------------------------------


def test_grad_norm_equals_a_plain_loop_with_torch_s_adam():
    generator = torch.Generator().manual_seed(1)
    loop = Loop(GradNorm(a=1.5))
    w = ONES.clone().requires_grad_()
    optimizer = torch.optim.Adam([w], lr=0.025)
    first = None
    for gradients in draws(25):
        losses = 0.5 + torch.rand(3, generator=generator, dtype=torch.float64)
        first = losses if first is None else first
        assert_close(loop.step(losses, gradients), w.detach())  # the weights from before this step
        norms = gradients.norm(dim=1)
        ratio = losses / first / (losses / first).mean()
        target = (w * norms).mean().detach() * ratio**1.5 / (ratio**1.5).mean()
        optimizer.zero_grad()
        (w * norms - target).abs().sum().backward()
        optimizer.step()
        with torch.no_grad():
            w.clamp_(min=1e-3)
            w.mul_(3 / w.sum())


@pytest.mark.parametrize("a", [0.0, 1.0, 1.5])
def test_grad_norm_settles_where_norms_follow_the_training_rates(a):
    norms = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64)
    losses = torch.tensor([0.6, 3.0, 12.0], dtype=torch.float64)
    ctx = Context(torch.ones(3, dtype=torch.bool))
    transform = GradNorm(a=a, lr=0.005)
    transform.bind("abc")
    transform(torch.tensor([2.0, 2.0, 10.0], dtype=torch.float64), ctx)  # the first losses
    for _ in range(1_500):
        weights = transform(ONES, ctx)
        transform.refine(Measured(torch.diag((weights * norms).square()), losses=losses), ctx)
    rates = torch.tensor([0.3, 1.5, 1.2], dtype=torch.float64)
    share = weights * norms / rates**a
    assert_close(share / share.mean(), ONES, rtol=1e-2, atol=0)
    assert_close(weights.sum(), torch.tensor(3.0, dtype=torch.float64))


def test_grad_norm_keeps_weights_above_zero():
    loop = Loop(GradNorm(lr=0.5))
    gradients = torch.diag(torch.tensor([1e4, 1.0, 1.0]))
    for _ in range(12):
        weights = loop.step(ONES, gradients)
    assert 0 < weights[0] < 2e-3
    assert_close(weights.sum(), torch.tensor(3.0, dtype=torch.float64))


def test_grad_norm_leaves_a_task_without_a_gradient_out():
    loop = Loop(GradNorm())
    assert_close(loop.step(ONES, torch.zeros(3, 2)), ONES)
    gradients = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    weights = [loop.step(ONES, gradients) for _ in range(5)][-1]
    pair = Loop(GradNorm(), "ac")
    alone = [pair.step(ONES[:2], gradients[[0, 2]]) for _ in range(5)][-1]
    assert_close(weights, torch.stack([alone[0], ONES[1], alone[1]]))
    with pytest.raises(ValueError, match="lack the losses"):
        loop.transform.refine(Measured(torch.eye(3)), Context(torch.ones(3, dtype=torch.bool)))


@pytest.mark.parametrize("spec", ["grad-norm >> last-layer", "grad-norm >> nash-mtl", "excess-mtl >> nash-mtl"])
def test_they_work_in_a_real_step_with_other_slots(spec):
    torch.manual_seed(0)
    svi = bmtl.BalancedSVI(Regressions(), nothing, partial(torch.optim.Adam, lr=0.05), spec)
    records = [svi.step(*batch(seed=t, missing=t % 2 == 0)) for t in range(8)]
    if "nash" not in spec:
        assert_close(records[1].weights.sum(), torch.tensor(3.0, dtype=torch.float64))
    assert (records[-1].weights[records[-1].active] > 0).all()
    assert not torch.equal(records[-1].weights_heads, torch.ones_like(records[-1].weights_heads))
