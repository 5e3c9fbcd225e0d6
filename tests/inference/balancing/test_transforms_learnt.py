"""Transforms that learn their weights from the losses: IMTL-L, FAMO, LDC."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bmtl.inference.balancing import FAMO, IMTLL, LDC
from tests.inference.balancing.loop import NAN, Loop

LOSSES = torch.tensor([0.3, 2.0, 11.0], dtype=torch.float64)


def own_gradients(loop):
    """Gradients of a transform's own parameters (K,), of which one is left by the last step."""
    return torch.stack([p.grad for p in loop.transform.parameters()])


# ---- IMTL-L ------------------------------------------------------------------------------------------------------------


def test_imtl_l_brings_every_scaled_loss_to_one():
    loop = Loop(IMTLL())
    for _ in range(600):
        weights = loop.step(LOSSES)
    assert_close(weights * LOSSES, torch.ones(3, dtype=torch.float64), rtol=1e-2, atol=0)


@pytest.mark.parametrize("weighting", ["", " >> nash-mtl"])
def test_imtl_l_slopes_and_own_gradients_are_those_of_autograd(weighting):
    leaf = LOSSES.clone().requires_grad_()
    s = torch.full((3,), 0.4, dtype=torch.float64, requires_grad=True)
    (s.exp() * leaf - s).sum().backward()
    loop = Loop("imtl-l(s0=0.4)" + weighting)
    update = loop.update(LOSSES, gradients=torch.eye(3) + 0.1)
    assert_close(update.weights_heads, leaf.grad)
    assert_close(own_gradients(loop), s.grad)  # whatever the weighting's weights


# ---- FAMO --------------------------------------------------------------------------------------------------------------


class AuthorsFAMO:
    """The rule of the paper's code, with torch's Adam (and K times its objective)."""

    def __init__(self, k, gamma=1e-3):
        self.w = torch.zeros(k, dtype=torch.float64, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.w], lr=0.025, weight_decay=gamma)

    def step(self, losses, after):
        leaf = losses.clone().requires_grad_()
        z = torch.softmax(self.w.detach(), dim=0)
        d = leaf + 1e-8
        c = (z / d).sum().detach()
        (len(z) * (d.log() * z / c).sum()).backward()
        delta = (losses + 1e-8).log() - (after + 1e-8).log()
        self.w.grad = torch.autograd.grad(torch.softmax(self.w, dim=0), self.w, grad_outputs=delta)[0]
        self.optimizer.step()
        return leaf.grad


def test_famo_equals_its_authors_rule_step_by_step():
    generator = torch.Generator().manual_seed(0)
    loop, authors = Loop(FAMO()), AuthorsFAMO(3)
    for _ in range(30):
        losses, after = 0.1 + 3 * torch.rand(2, 3, generator=generator, dtype=torch.float64)
        weights = loop.step(losses, after=after)
        assert_close(weights, authors.step(losses, after))
        assert_close(weights.sum(), torch.tensor(3.0, dtype=torch.float64))


def test_famo_gives_weight_to_the_task_that_improved_least():
    loop = Loop(FAMO())
    ones = torch.ones(3)
    first = loop.step(ones)
    assert_close(first, torch.ones(3, dtype=torch.float64))
    for _ in range(10):
        last = loop.step(ones, after=[0.5, 0.99, 0.7])
    assert last[1] > last[2] > last[0]


def test_famo_survives_a_step_to_the_bound_or_astray():
    loop = Loop(FAMO(bound=-1.0))
    loop.step([1.0, 1.0, 1.0], after=[-1.0, -2.0, 0.9])
    before = loop.transform.w.clone()
    assert before.isfinite().all()
    assert before[2] > before[0] == before[1]
    loop.step([1.0, 1.0, 1.0], after=[NAN, 0.5, 0.5])
    loop.step([1.0, 1.0, 1.0], after=[float("inf"), 0.5, 0.5])
    assert torch.equal(loop.transform.w, before)


# ---- LDC ---------------------------------------------------------------------------------------------------------------


def objective(losses, first, v, lam):
    w = torch.sigmoid(torch.relu(v))
    weighted = w * (losses / first).log()
    apart = (weighted[:-1] - weighted[1:]).abs().sum()
    return weighted.sum() / w.sum().detach() + lam * apart


@pytest.mark.parametrize("lam", [0.0, 0.05, 2.0])
def test_ldc_slopes_and_own_gradients_are_those_of_autograd(lam):
    loop = Loop(LDC(lam=lam))
    first = torch.tensor([1.0, 5.0, 6.0], dtype=torch.float64)
    loop.step(first)
    for losses in (LOSSES, 2 * LOSSES.flip(0)):
        leaf = losses.clone().requires_grad_()
        v = torch.stack([*loop.transform.v]).detach().requires_grad_()
        # Each sees the other held constant, which changes no derivative.
        objective(leaf, first, v.detach(), lam).backward()
        objective(losses, first, v, lam).backward()
        assert_close(loop.step(losses), leaf.grad)
        assert_close(own_gradients(loop), v.grad)


def test_ldc_has_no_penalty_where_weighted_losses_are_equal():
    one, other = Loop(LDC(lam=3.0)), Loop(LDC(lam=0.0))
    for loop in (one, other):
        for v in loop.transform.v:
            nn.init.constant_(v, 0.5)
        loop.step([1.0, 4.0, 0.5])
    assert_close(one.step([2.0, 8.0, 1.0]), other.step([2.0, 8.0, 1.0]))
    assert_close(own_gradients(one), own_gradients(other))


def test_ldc_keeps_the_first_loss_of_each_task_for_good():
    loop = Loop(LDC())
    loop.step([1.0, NAN, 3.0])
    loop.end_epoch([1.0, NAN, 3.0])
    loop.step([4.0, 2.0, 5.0])
    assert loop.transform.first.tolist() == [1.0, 2.0, 3.0]


def test_ldc_compares_neighbours_in_the_recorded_order():
    loop = Loop(LDC())
    loop.step([1.0, 1.0, 1.0])
    turned = Loop(LDC(), "bac")
    turned.step([1.0, 1.0, 1.0])
    assert not torch.allclose(loop.step([1.0, 2.0, 4.0]), turned.step([2.0, 1.0, 4.0])[[1, 0, 2]])
    with pytest.raises(ValueError, match="belongs to the tasks"):
        turned.balancer.load_state_dict(loop.balancer.state_dict())


def test_ldc_starts_from_weights_between_a_half_and_one_that_the_seed_decides():
    starts = torch.stack([*Loop(LDC(), [*"abcdefgh"]).transform.v]).detach()
    assert ((starts > 0.2) & (starts < 1.0)).all()
    assert len(starts.unique()) == 8
    again, other = (torch.stack([*Loop(LDC(seed=seed), [*"abcdefgh"]).transform.v]).detach() for seed in (0, 1))
    assert torch.equal(again, starts)
    assert not torch.equal(other, starts)
