"""Transforms whose weights follow from the losses alone: RLW, DWA, UW-SO, GLS, STCH."""

import math

import pytest
import torch
from torch.testing import assert_close

from bmtl.inference.balancing import DWA, GLS, RLW, SI, STCH, UWSO, Context
from tests.inference.balancing.loop import NAN, Loop

LOSSES = torch.tensor([0.3, 2.0, 11.0], dtype=torch.float64)


def slopes(objective, losses=LOSSES):
    leaf = losses.clone().requires_grad_()
    objective(leaf).backward()
    return leaf.grad


def softmax(values):
    values = torch.as_tensor(values, dtype=torch.float64)
    return len(values) * torch.softmax(values, dim=0)


# ---- RLW ---------------------------------------------------------------------------------------------------------------


def test_rlw_weights_are_one_on_average_and_sum_to_the_number_of_tasks():
    rlw, ctx = RLW(seed=3), Context(torch.ones(4, dtype=torch.bool))
    ones = torch.ones(4, dtype=torch.float64)
    weights = torch.stack([rlw(ones, ctx) for _ in range(4_000)])
    assert_close(weights.sum(dim=1), torch.full((4_000,), 4.0, dtype=torch.float64))
    error = weights.std(dim=0) / 4_000**0.5
    assert ((weights.mean(dim=0) - 1).abs() < 4 * error).all()
    assert weights.std(dim=0).min() > 0.5  # drawn anew each step


def test_rlw_draws_do_not_depend_on_the_losses_but_on_the_seed():
    weights = Loop(RLW()).step(LOSSES)
    assert torch.equal(Loop(RLW()).step(LOSSES.flip(0)), weights)
    assert not torch.equal(Loop(RLW(seed=1)).step(LOSSES), weights)


def test_rlw_of_logarithms_reports_the_effective_weight():
    assert_close(Loop(RLW(phi="log")).step(LOSSES), Loop(RLW()).step(LOSSES) / LOSSES)


# ---- DWA ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"window": 2}, {"temp": 0.1}])
def test_dwa_gives_ones_at_constant_losses(options):
    loop = Loop(DWA(**options))
    for _ in range(6):
        assert_close(loop.step(LOSSES), torch.ones(3, dtype=torch.float64))
        loop.end_epoch(LOSSES)


def test_dwa_weighs_by_the_ratio_of_the_last_two_epochs():
    loop, ones = Loop(DWA(temp=0.5)), torch.ones(3, dtype=torch.float64)
    for means in ([4.0, 1.0, 2.0], [2.0, 1.0, 6.0]):
        assert_close(loop.step(LOSSES), ones)  # in epochs 1 and 2
        loop.end_epoch(means)
    assert_close(loop.step(LOSSES), softmax([0.5 / 0.5, 1.0 / 0.5, 3.0 / 0.5]))
    loop.end_epoch([1.0, NAN, 3.0])  # no label all epoch: its ratio stays
    assert_close(loop.step(LOSSES), softmax([0.5 / 0.5, 1.0 / 0.5, 0.5 / 0.5]))


def test_dwa_by_steps_compares_two_windows_of_a_task_s_own_losses():
    loop = Loop(DWA(window=2))
    for loss in (1.0, 2.0, NAN, 3.0):
        assert_close(loop.step([5.0, 5.0, loss])[:2], torch.ones(2, dtype=torch.float64))
    assert_close(loop.step([5.0, 5.0, 6.0]), softmax([0.5, 0.5, 0.5 * (3 + 6) / (1 + 2)]))
    assert not loop.transform.epochs
    assert DWA().epochs


def test_dwa_of_logarithms_reports_the_effective_weight():
    loop = Loop(DWA(phi="log"))
    loop.end_epoch([1.0, 1.0, 1.0])
    loop.end_epoch([1.0, 0.5, 2.0])
    assert_close(loop.step(LOSSES), softmax([0.5, 0.25, 1.0]) / LOSSES)


# ---- UW-SO -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temp", [0.5, 1.0, 20.0])
def test_uw_so_weighs_by_a_softmax_of_inverse_losses_held_constant(temp):
    expected = slopes(lambda leaf: softmax(1 / LOSSES / temp) @ leaf)
    assert_close(Loop(UWSO(temp)).step(LOSSES), expected)


def test_uw_so_of_a_tiny_loss_is_finite():
    assert_close(Loop(UWSO()).step([1e-300, 1.0, 2.0]), torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64))


# ---- GLS ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
def test_gls_weights_are_those_of_autograd(scale):
    losses = scale * LOSSES
    expected = slopes(lambda leaf: leaf.log().mean().exp(), losses)
    assert_close(Loop(GLS()).step(losses), expected)


def test_gls_reports_what_libmtl_does_not():
    expected = torch.tensor([1.0, 0.25], dtype=torch.float64)  # LibMTL: [0.0625, 0.25]
    assert_close(Loop(GLS(), "ab").step([2.0, 8.0]), expected)


# ---- STCH --------------------------------------------------------------------------------------------------------------

NADIR = torch.tensor([0.5, 1.0, 20.0], dtype=torch.float64)


def after_warmup(**options):
    loop = Loop(STCH(warmup=1, **options))
    for means in (2 * NADIR, NADIR):
        assert_close(loop.step(LOSSES), Loop(SI()).step(LOSSES))
        loop.end_epoch(means)
    return loop


@pytest.mark.parametrize("mu", [1e-3, 0.3, 1.0, 50.0])
def test_stch_weights_are_those_of_autograd(mu):
    expected = slopes(lambda leaf: 3 * mu * torch.logsumexp((leaf / NADIR).log() / mu, dim=0))
    assert_close(after_warmup(mu=mu).step(LOSSES), expected)


def test_stch_between_si_and_the_worst_task():
    assert_close(after_warmup(mu=1e9).step(LOSSES), 1 / LOSSES)
    worst = torch.tensor([0.0, 3.0, 0.0], dtype=torch.float64)  # 2.0 over 1.0 is the largest ratio
    assert_close(after_warmup(mu=1e-9).step(LOSSES), worst / LOSSES)


def test_stch_takes_the_nadir_from_the_epoch_after_warm_up():
    loop = Loop(STCH(warmup=2))
    for means in (2 * NADIR, 3 * NADIR, torch.tensor([0.5, NAN, 20.0]), torch.tensor([9.0, 1.0, 9.0]), NADIR):
        loop.end_epoch(means)
    assert_close(loop.transform.nadir, NADIR)  # a task without a label then: its first epoch after
    late = Loop(STCH(warmup=0))
    late.end_epoch([0.5, NAN, 20.0])
    expected = slopes(lambda leaf: 3 * torch.logsumexp((leaf / torch.tensor([0.5, 2.0, 20.0])).log(), dim=0))
    assert_close(late.step(LOSSES), expected)  # and a ratio of 1 until then


def test_stch_without_logarithms_takes_losses_of_any_sign():
    losses = torch.tensor([-3.0, 0.0, 1.0], dtype=torch.float64)
    ideal = torch.tensor([-4.0, 0.0, 0.5], dtype=torch.float64)
    loop = Loop(STCH(log=False, mu=0.2, ideal={"a": -4.0, "c": 0.5}))
    expected = slopes(lambda leaf: 0.2 * torch.logsumexp((leaf - ideal) / 3 / 0.2, dim=0), losses)
    assert_close(loop.step(losses), expected)
    assert math.isclose(expected.sum(), 1 / 3)
    with pytest.raises(ValueError, match="'d'"):
        Loop(STCH(log=False, mu=0.2, ideal={"d": 0.0}))
