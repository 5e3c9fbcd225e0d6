import copy
import functools
import inspect
import io
import math
import pickle
import random
import sys

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn
from torch.distributions import AffineTransform, Normal, TanhTransform, TransformedDistribution

import bmtl
from bmtl.inference.balancing import RLW, Context, IGBv2, balancer
from bmtl.inference.balancing.bounded_gaussian import BoundedGaussian
from bmtl.inference.balancing.soft_actor_critic import SoftActorCritic
from bmtl.inference.balancing.transforms import igb_v2

pytest.importorskip("stable_baselines3", reason="needs the extra 'rl'")

FAST = {"base_epoch": 1, "update_epoch": 2, "use_epoch": 3}
"""Epochs in which a test of a few batches reaches every phase."""


class Training:
    """Shows losses to a transform as a training loop would; remembers each batch's weights of all tasks."""

    def __init__(self, transform, num_tasks=3, per_epoch=10):
        self.transform, self.per_epoch, self.step, self.epoch = transform, per_epoch, 0, 1
        transform.bind([f"t{k}" for k in range(num_tasks)])
        self.sums, self.counts = torch.zeros(2, num_tasks, dtype=torch.float64)
        self.weights = []

    def batch(self, losses, lr=1.0, lr0=1.0):
        """One batch; a loss of None is an absent task's."""
        active = torch.tensor([loss is not None for loss in losses])
        values = torch.tensor([loss for loss in losses if loss is not None], dtype=torch.float64)
        ctx = Context(active, self.step, self.epoch, self.step % self.per_epoch, None, lr, lr0)
        slopes = self.transform.loss_derivatives(values, ctx)
        weights = torch.full((len(active),), math.nan, dtype=torch.float64)
        weights[active] = slopes * values  # of the logarithms
        self.weights.append(weights)
        self.sums[active] += values
        self.counts += active
        self.step += 1
        if self.step % self.per_epoch == 0:
            self.transform.end_epoch(self.sums / self.counts, ctx)
            self.sums.zero_()
            self.counts.zero_()
            self.epoch += 1
        return weights

    def random(self, batches, seed=0):
        generator = torch.Generator().manual_seed(seed)
        k = len(self.sums)
        for losses in (1 + torch.rand(batches, k, generator=generator, dtype=torch.float64)).tolist():
            self.batch(losses)
        return torch.stack(self.weights[-batches:])


class Recorder:
    """Stands in for the agent and notes what it is asked."""

    def __init__(self, size, capacity=100):
        self.size, self.capacity, self.filled, self.calls, self.transitions = size, capacity, 0, [], []

    def add(self, state, action, reward, next_state):
        self.filled = min(self.filled + 1, self.capacity)
        self.calls.append(("add", self.filled))
        self.transitions.append((state, action, reward, next_state))

    def train(self, updates, batch):
        self.calls.append(("train", updates, batch))

    def act(self, state, explore):
        self.calls.append(("act", state, explore))
        return torch.zeros(self.size)


def recorded(num_tasks=3, per_epoch=10, **options):
    transform = IGBv2(**options)
    training = Training(transform, num_tasks, per_epoch)
    transform.agent = Recorder(num_tasks - 1)
    return training, transform.agent


def stored(transform):
    return transform.get_extra_state()["agent"]["buffer"]


# ---- Algorithm 2: order and epochs ---------------------------------------------------------------------------------


def test_each_batch_adds_trains_and_acts_in_this_order_from_the_epochs_given():
    training, agent = recorded(per_epoch=60)
    for step in range(7 * 60):
        agent.calls.clear()
        training.batch([1.0, 2.0, 3.0])
        epoch = step // 60 + 1
        expected = [
            *(["add"] if epoch >= 3 else []),
            *(["train"] if epoch >= 4 and step % 50 == 0 else []),
            *(["act"] if epoch >= 6 else []),
        ]
        assert [call[0] for call in agent.calls] == expected
        assert training.transform.base.isnan().all() == (step < 119)  # set at the end of epoch 2


def test_a_burst_is_of_25_to_50_updates_that_grow_with_the_buffer():
    training, agent = recorded(per_epoch=50)
    seen = []
    for _ in range(5 * 50):
        training.batch([1.0, 2.0, 3.0])
        seen += [(agent.filled, *call[1:]) for call in agent.calls if call[0] == "train"]
        agent.calls.clear()
    assert seen == [(51, int(25 * 1.51), int(128 * 1.51)), (100, 50, 256)]


def test_nothing_is_trained_while_the_buffer_is_empty():
    transform = IGBv2(**FAST)
    transform.bind(["a", "b"])
    everyone = torch.ones(2, dtype=torch.bool)
    transform(torch.ones(2, dtype=torch.float64), Context(everyone, step=0, epoch=5))  # no epoch's end was told
    assert transform.agent.num_updates == 0 == transform.agent.filled


def test_the_warm_up_is_random_weighting_with_normals_clipped_at_three():
    training, _ = recorded(seed=4)
    found = training.random(20)
    everyone = torch.ones(3, dtype=torch.bool)
    reference = RLW("log", seed=4)
    drawn = torch.stack(
        [reference.loss_derivatives(torch.ones(3, dtype=torch.float64), Context(everyone)) for _ in range(20)]
    )
    torch.testing.assert_close(found, drawn, rtol=1e-5, atol=0.0)  # actions are in single precision


def test_normals_beyond_the_bound_are_clipped(monkeypatch):
    monkeypatch.setattr(igb_v2, "_LIMIT", 0.01)
    training, agent = recorded(seed=4, **FAST)
    spread = training.random(20).log()
    assert (spread.amax(1) - spread.amin(1)).max() <= 0.01 * math.sqrt(2) * math.sqrt(2) + 1e-8
    assert max(transition[1].abs().max().item() for transition in agent.transitions) == pytest.approx(0.01)


@pytest.mark.parametrize("explore", [0.0, 1.0])
@pytest.mark.parametrize("num_tasks", [2, 3, 11])
def test_weights_are_positive_and_sum_to_the_number_of_tasks(num_tasks, explore):
    training = Training(IGBv2(explore, **FAST), num_tasks)
    found = training.random(40)
    assert (found > 0).all()
    torch.testing.assert_close(found.sum(1), torch.full((40,), float(num_tasks), dtype=torch.float64))
    # Logits of at most 3 in each of K - 1 orthogonal directions.
    longest = 3.0 * math.sqrt(num_tasks - 1) * math.sqrt(2)
    assert (found.amax(1) / found.amin(1) <= math.exp(longest) * (1 + 1e-9)).all()


@pytest.mark.parametrize("explore", [0.0, 0.2, 1.0])
def test_a_stored_action_gives_the_very_weights_that_were_applied(explore):
    transform = IGBv2(explore, **FAST)
    training = Training(transform)
    applied = training.random(40)
    actions = stored(transform)["actions"][:, 0]
    everyone = torch.ones(3, dtype=torch.bool)
    assert len(actions) == 30  # epochs 2 to 4, both drawn and chosen; that of the last batch waits for the next
    again = torch.stack([transform.weights(action, everyone) for action in actions])
    # Exactly, but for the product and quotient with the loss that took the weights out of the slopes.
    torch.testing.assert_close(again, applied[9:39], rtol=1e-14, atol=0.0)


def test_actions_cannot_shift_all_logits():
    transform = IGBv2()
    transform.bind("abcde")
    v = transform.directions
    torch.testing.assert_close(v.T @ v, torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(v.sum(0), torch.zeros(4, dtype=torch.float64))
    z = torch.tensor([0.5, -1.0, 2.0, 0.1])
    expected = 5 * torch.softmax(v @ z.double(), 0)
    torch.testing.assert_close(transform.weights(z, torch.ones(5, dtype=torch.bool)), expected)


# ---- States and rewards --------------------------------------------------------------------------------------------

FIRST, SECOND, THIRD = [2.0, 4.0, 8.0], [1.0, 3.0, 8.5], [0.5, 3.5, 7.0]
DECLINES = torch.tensor([[1 / 2, 1 / 4, -0.5 / 8], [0.5 / 2, -0.5 / 4, 1.5 / 8]])  # relative to the base, FIRST


def rewards_of(*, lrs=(1.0, 1.0, 1.0), **options):
    training, agent = recorded(per_epoch=1, **(FAST | {"update_epoch": 9, "use_epoch": 9} | options))
    for losses, lr in zip((FIRST, SECOND, THIRD), lrs, strict=True):
        training.batch(losses, lr=lr)
    return training, agent, torch.tensor([transition[2] for transition in agent.transitions])


def test_the_reward_is_the_least_decline_relative_to_the_base():
    training, agent, rewards = rewards_of()
    torch.testing.assert_close(rewards, DECLINES.amin(1))
    state, action, _, next_state = agent.transitions[1]
    torch.testing.assert_close(state, torch.tensor(SECOND))
    torch.testing.assert_close(next_state, torch.tensor(THIRD))
    everyone = torch.ones(3, dtype=torch.bool)
    torch.testing.assert_close(training.transform.weights(action, everyone), training.weights[1])


def test_without_min_the_reward_is_the_mean_decline():
    torch.testing.assert_close(rewards_of(reward="mean")[2], DECLINES.mean(1))


def test_a_reward_is_multiplied_by_the_factor_of_the_step_that_earned_it():
    rewards = rewards_of(lrs=(0.5, 0.1, 0.1), lr_factor=True)[2]
    torch.testing.assert_close(rewards, DECLINES.amin(1) * torch.tensor([2.0, 10.0]))


def test_without_the_factor_the_learning_rate_does_not_matter():
    torch.testing.assert_close(rewards_of(lrs=(0.5, 0.1, 0.1))[2], DECLINES.amin(1))


def test_a_learning_rate_of_zero_keeps_the_factor():
    rewards = rewards_of(lrs=(0.5, 0.0, 0.0), lr_factor=True)[2]
    torch.testing.assert_close(rewards, 2 * DECLINES.amin(1))


def test_stored_rewards_stay_as_they_were():
    transform = IGBv2(lr_factor=True, **(FAST | {"update_epoch": 9, "use_epoch": 9}))
    training = Training(transform, per_epoch=1)
    for losses, lr in ((FIRST, 1.0), (SECOND, 0.25), (THIRD, 0.5)):
        training.batch(losses, lr=lr)
    torch.testing.assert_close(
        stored(transform)["rewards"][:, 0], (DECLINES.amin(1) * torch.tensor([1.0, 4.0])).float()
    )


def test_the_scaled_state_is_the_logarithm_of_the_loss_over_the_base():
    agent = rewards_of(state="scaled")[1]
    torch.testing.assert_close(agent.transitions[1][0], (torch.tensor(SECOND) / torch.tensor(FIRST)).log())
    torch.testing.assert_close(agent.transitions[1][3], (torch.tensor(THIRD) / torch.tensor(FIRST)).log())


def test_the_bound_is_subtracted_from_the_base():
    made = balancer("igb-v2(bound=-1.0)")
    made.bind(["a", "b"])
    made.end_epoch(torch.tensor([1.0, 3.0], dtype=torch.float64), Context(torch.ones(2, dtype=torch.bool), epoch=2))
    assert made.transform.base.tolist() == [2.0, 4.0]


def test_the_buffer_forgets_the_oldest():
    transform = IGBv2(buffer=7, **FAST)
    training = Training(transform)
    generator = torch.Generator().manual_seed(0)
    losses = 1 + torch.rand(40, 3, generator=generator, dtype=torch.float64)
    for row in losses.tolist():
        training.batch(row)
    assert transform.agent.filled == transform.agent.capacity == 7
    found = stored(transform)["next_observations"][:, 0]
    torch.testing.assert_close(found.sort(0).values, losses[-7:].float().sort(0).values)


# ---- Absent tasks, a single task -----------------------------------------------------------------------------------


def test_an_absent_task_enters_with_its_last_known_loss():
    training, agent = recorded(per_epoch=1, **(FAST | {"update_epoch": 9, "use_epoch": 9}))
    training.batch(FIRST)
    weights = training.batch([1.0, None, 7.0])
    assert weights[1].isnan()
    assert weights.nansum().item() == pytest.approx(2.0)
    training.batch([0.5, 3.0, None])
    (s0, _, r0, s1), (t0, _, r1, t1) = agent.transitions
    assert (s0.tolist(), s1.tolist(), r0) == (FIRST, [1.0, 4.0, 7.0], 0.0)
    assert (t0.tolist(), t1.tolist(), r1) == ([1.0, 4.0, 7.0], [0.5, 3.0, 7.0], 0.0)


@pytest.mark.parametrize("state", ["raw", "scaled"])
def test_a_task_never_seen_is_left_out_of_the_reward(state):
    training, agent = recorded(per_epoch=1, state=state, **(FAST | {"update_epoch": 9, "use_epoch": 9}))
    training.batch([2.0, 4.0, None])
    training.batch([1.0, 3.0, None])
    training.batch([0.5, 2.0, 6.0])  # seen, but its base is the mean of this epoch
    training.batch([0.25, 1.0, 3.0])
    assert [transition[2] for transition in agent.transitions] == [0.25, 0.25, 0.125]
    state, _, _, next_state = agent.transitions[0]
    assert state[2] == next_state[2] == 0.0
    training.batch([0.0625, 0.5, 3.0])
    assert agent.transitions[-1][2] == 0.0  # the third's


def test_a_batch_without_any_label_leaves_no_trace():
    training, agent = recorded(per_epoch=1, **(FAST | {"update_epoch": 9, "use_epoch": 9}))
    training.batch(FIRST)
    before, action = training.transform.known.clone(), training.transform.action
    training.transform.loss_derivatives(
        torch.zeros(0, dtype=torch.float64), Context(torch.zeros(3, dtype=torch.bool), epoch=2)
    )
    assert torch.equal(training.transform.known, before)
    assert torch.equal(training.transform.action, action)
    assert agent.transitions == []


def test_a_single_task_has_weight_one_and_needs_no_agent(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    transform = IGBv2(**FAST)
    found = Training(transform, num_tasks=1).random(40)
    assert torch.equal(found.round(decimals=12), torch.ones(40, 1, dtype=torch.float64))
    assert transform.agent is None
    fresh = IGBv2(**FAST)
    fresh.load_state_dict(transform.state_dict())
    fresh.bind(["a"])


def test_without_stable_baselines3_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    made = balancer("igb-v2 >> nash-mtl")
    with pytest.raises(ImportError, match=r"stable_baselines3 is not installed.* pip install bmtl\[rl\]"):
        made.bind(["a", "b"])


# ---- The agent -----------------------------------------------------------------------------------------------------


def everything_global():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        np.random.get_state()[2:],  # noqa: NPY002
        random.getstate(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.distributions.Distribution._validate_args,
        torch.is_grad_enabled(),
    )


@pytest.mark.parametrize("explore", [0.0, 1.0])
def test_global_random_numbers_and_settings_are_neither_read_nor_moved(explore):
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        torch.set_num_threads(seed)
        before = everything_global()
        try:
            training = Training(IGBv2(explore, **FAST))
            runs.append(training.random(52))
            assert everything_global() == before
        finally:
            torch.set_num_threads(1)
        assert training.transform.agent.num_updates > 0
    assert torch.equal(*runs)


def test_the_surroundings_do_not_change_the_agent():
    expected = Training(IGBv2(**FAST)).random(52)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            training = Training(IGBv2(**FAST))  # as when the first batch is one of `evaluate`
        with torch.autocast("cpu", torch.bfloat16):
            found = training.random(52)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def test_a_draw_is_that_of_the_policys_own_distribution():
    transform = IGBv2(**FAST)
    Training(transform).random(52)
    agent = transform.agent
    state = torch.tensor([1.0, 2.0, 0.5])
    actor = agent._sac.actor
    with torch.no_grad():
        mean, x, _ = actor.get_action_dist_params(state[None])
        assert torch.equal(agent.act(state, 0.0), actor(state[None], deterministic=True)[0])
        torch.testing.assert_close(agent.act(state, 0.0), 3.0 * torch.tanh(mean[0] / 3.0))
        draws = torch.stack([agent.act(state, 1.0) for _ in range(1000)])
        again = torch.stack([actor(state[None])[0] for _ in range(1000)])
        near = torch.stack([agent.act(state, 0.2) for _ in range(1000)])
    u = 3.0 * torch.atanh(draws / 3.0)
    # Of 1,000 draws: four standard errors of a mean, a standard deviation.
    assert ((u.mean(0) - mean[0]).abs() <= 4 * u.std(0) / 1000**0.5).all()
    assert (u.std(0) / agent._policy.std(x[0]) - 1).abs().max() <= 4 / 2000**0.5
    assert ((draws.mean(0) - again.mean(0)).abs() <= 4 * 2**0.5 * draws.std(0) / 1000**0.5).all()
    u = 3.0 * torch.atanh(near / 3.0)
    assert (u.std(0) / (0.2 * agent._policy.std(x[0])) - 1).abs().max() <= 4 / 2000**0.5


@pytest.mark.parametrize("entropy", [0.0, 1.7])
def test_the_policys_density_is_that_of_bounded_logits(entropy):
    policy = BoundedGaussian(3.0, 1.05, entropy)
    mean, x = torch.tensor([[0.4, -1.0]]).double(), torch.tensor([[0.0, -2.0]]).double()
    torch.manual_seed(0)
    z, log_prob = policy.log_prob_from_params(mean.expand(500, 2), x.expand(500, 2))
    std = policy.std(x)
    assert std[0, 0].item() == pytest.approx(1.0)
    assert policy.std(torch.tensor(50.0)).item() == pytest.approx(1.05)
    transforms = [AffineTransform(0.0, 1 / 3.0), TanhTransform(cache_size=1), AffineTransform(0.0, 3.0)]
    oracle = TransformedDistribution(Normal(mean, std), transforms)
    torch.testing.assert_close(log_prob, oracle.log_prob(z).sum(1) + entropy, rtol=1e-9, atol=1e-9)
    # It integrates to 1 over the box, and to exp(entropy) where entropies count from there.
    grid = torch.linspace(-3, 3, 20001, dtype=torch.float64)[1:-1]
    one = TransformedDistribution(Normal(mean[0, 0], std[0, 0]), transforms)
    assert torch.trapezoid(one.log_prob(grid).exp(), grid).item() == pytest.approx(1.0, abs=1e-4)


def test_far_draws_keep_a_finite_density():
    policy = BoundedGaussian(3.0, 1.05)
    mean = torch.tensor([[200.0, -200.0]], requires_grad=True)
    z, log_prob = policy.log_prob_from_params(mean, torch.zeros(1, 2))
    assert z.abs().max() <= 3.0
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert mean.grad.isfinite().all()


def test_frozen_critics_change_nothing():
    transform = IGBv2(**FAST)
    Training(transform).random(30)
    plain = copy.deepcopy(transform.agent)
    plain._sac.critic._forward_pre_hooks.clear()
    plain._sac.critic._forward_hooks.clear()
    for agent in (plain, transform.agent):
        agent.train(3, 64)
    assert_same(plain.state(), transform.agent.state())


def test_the_agent_is_the_released_one_in_size_and_rates():
    transform = IGBv2()
    transform.bind("abcde")
    sac = transform.agent._sac
    shapes = [tuple(p.shape) for p in sac.actor.parameters() if p.dim() == 2]
    assert shapes == [(128, 5), (128, 128), (4, 128), (4, 128)]
    shapes = [tuple(p.shape) for p in sac.critic.parameters() if p.dim() == 2]
    assert shapes == 2 * [(128, 9), (128, 128), (1, 128)]
    assert (sac.gamma, sac.tau, sac.learning_rate) == (0.99, 0.005, 3e-4)
    assert sac.replay_buffer.buffer_size == 10_000
    assert sac.log_ent_coef.exp().item() == pytest.approx(0.2)


def test_the_target_entropy_is_that_of_logits_of_sd_06():
    transform = IGBv2()
    transform.bind("abcde")
    policy, sac = transform.agent._policy, transform.agent._sac
    assert policy.entropy == pytest.approx(4 * Normal(0.0, 0.6).entropy().item())
    assert sac.target_entropy == 0.0  # from which the policy's densities count
    # The coefficient falls while the policy is wider than that, and rises where it is narrower.
    for x, sign in ((0.0, -1), (-3.0, 1)):
        transform = IGBv2(**FAST)
        training = Training(transform)
        training.random(15)
        agent = transform.agent
        torch.nn.init.constant_(agent._sac.actor.log_std.bias, x)
        before = agent._sac.log_ent_coef.item()
        agent.train(3, 64)
        assert (agent._sac.log_ent_coef.item() - before) * sign > 0


def test_the_first_policy_is_equal_weights_with_a_standard_deviation_of_1():
    transform = IGBv2()
    transform.bind("abcd")
    agent = transform.agent
    for state in (torch.ones(4), torch.tensor([0.1, 5.0, 2.0, 1e-3])):
        assert torch.equal(agent.act(state), torch.zeros(3))
        with torch.no_grad():
            _, x, _ = agent._sac.actor.get_action_dist_params(state[None])
            torch.testing.assert_close(agent._policy.std(x), torch.ones(1, 3))
            for critics in (agent._sac.critic, agent._sac.critic_target):
                values = [torch.cat(critics(state[None], action)) for action in (torch.zeros(1, 3), torch.ones(1, 3))]
                assert torch.equal(*values)
    assert torch.equal(transform.weights(torch.zeros(3), torch.ones(4, dtype=torch.bool)), torch.ones(4).double())


def test_by_default_weights_depend_on_the_losses_alone():
    transform = IGBv2(**FAST)
    training = Training(transform)
    training.random(25)
    first, second = training.batch([1.0, 2.0, 3.0]), training.batch([1.0, 2.0, 3.0])
    assert torch.equal(first, second)
    transform.explore = 1.0
    first, second = training.batch([1.0, 2.0, 3.0]), training.batch([1.0, 2.0, 3.0])
    assert not torch.equal(first, second)


def weights_of_the_needy(transform, needy, batches=600, threshold=1.3):
    """Weights of one of two tasks, which improves only while its weight is above the threshold; the other always does.

    Every option but `explore` is published (Dai et al. 2023, sections 3.2 and 4.1, and Table 3's "full reward"). The
    learning rate is small beside the first one: the factor lr0 / lr brings rewards to +-0.2 while losses hardly move.
    """
    training = Training(transform, num_tasks=2, per_epoch=50)
    losses = torch.ones(2, dtype=torch.float64)
    for _ in range(batches):
        weights = training.batch(losses.tolist(), lr=1e-4)
        declines = torch.full((2,), 2e-5, dtype=torch.float64)
        if weights[needy] < threshold:
            declines[needy] *= -1
        losses = losses - declines
    return torch.stack(training.weights)[:, needy]


PUBLISHED = {"update_epoch": 4, "use_epoch": 6, "buffer": 10_000, "reward": "min", "lr_factor": True, "sac_lr": 3e-4}


@pytest.mark.parametrize(("needy", "explore", "at_least"), [(0, 0.0, 1.7), (1, 0.0, 1.7), (0, 1.0, 1.6)])
def test_a_task_that_improves_only_under_high_weight_gains_weight(needy, explore, at_least):
    found = weights_of_the_needy(IGBv2(explore, **PUBLISHED), needy)
    # Random weights of two tasks have mean 1 and standard deviation 0.52: over 200 batches, 1.3 is eight standard errors
    # away. Either task must get there, so a leaning of the untrained policy does not pass for learning. Over three seeds
    # and both tasks the batches from 400 on had a mean of 1.84 or more, 1.74 with explore=1. Two logits 3 tanh(u), u normal,
    # without their part in the density, end at 1.53 to 1.56: their noise outweighs what the agent learns.
    assert found[:150].mean() < 1.3
    assert found[-200:].mean() > at_least
    if not explore:
        assert (found[-200:] > 1.3).all()


@pytest.mark.parametrize("explore", [0.0, 1.0])
def test_a_policy_that_does_not_learn_fails_that_test(monkeypatch, explore):
    monkeypatch.setattr(SoftActorCritic, "train", lambda self, updates, batch: None)
    for needy in (0, 1):
        assert weights_of_the_needy(IGBv2(explore, **PUBLISHED), needy)[-200:].mean() < 1.3


# ---- State ---------------------------------------------------------------------------------------------------------


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(
            a.nan_to_num(-1.0) if a.is_floating_point() else a, b.nan_to_num(-1.0) if b.is_floating_point() else b
        )
    else:
        assert a == b


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(
    ("explore", "batches", "bound_before"), [(0.0, 15, False), (0.0, 55, True), (1.0, 25, False), (1.0, 12, True)]
)
def test_a_run_is_taken_up_bit_for_bit_by_a_fresh_object(explore, batches, bound_before):
    options = {"explore": explore, "buffer": 200, "seed": 3} | FAST
    whole = Training(IGBv2(**options))
    whole.random(batches)
    state = through_a_file(whole.transform.state_dict())
    kept = copy.deepcopy(state)
    expected = whole.random(50, seed=1)

    fresh = IGBv2(**(options | {"seed": 8}))
    if bound_before:
        Training(fresh).random(21, seed=5)
    fresh.load_state_dict(state)
    rest = Training(fresh)
    rest.step, rest.epoch = batches, batches // 10 + 1
    # The epoch's mean losses are the trainer's to keep; the base does not need them any more.
    assert torch.equal(rest.random(50, seed=1), expected)
    assert_same(fresh.state_dict(), whole.transform.state_dict())
    assert_same(state, kept)  # what was loaded is not written to


def test_a_state_is_a_snapshot():
    transform = IGBv2(**FAST)
    training = Training(transform)
    training.random(30)
    state = transform.state_dict()
    kept = copy.deepcopy(state)
    training.random(30)
    assert_same(state, kept)


def test_a_balancer_takes_up_the_state_before_its_first_batch():
    made = balancer("igb-v2(base_epoch=1, update_epoch=2, use_epoch=3) >> nash-mtl")
    made.bind(["a", "b", "c"])
    Training(made.transform).random(30)
    fresh = balancer(str(made))
    fresh.load_state_dict(through_a_file(made.state_dict()))
    fresh.bind(["a", "b", "c"])
    assert_same(fresh.transform.state_dict(), made.transform.state_dict())


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_transform_can_be_copied(again):
    transform = IGBv2(**FAST)
    Training(transform).random(30)
    twin = again(transform)
    everyone, losses = torch.ones(3, dtype=torch.bool), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    ctx = Context(everyone, step=50, epoch=4)
    assert torch.equal(twin.loss_derivatives(losses, ctx), transform.loss_derivatives(losses, ctx))
    assert_same(twin.state_dict(), transform.state_dict())


def test_a_state_of_another_kind_is_refused():
    transform = IGBv2(**FAST)
    Training(transform).random(12)
    state = transform.state_dict()
    with pytest.raises(ValueError, match="keeps 10000 transitions, and this one 20"):
        IGBv2(buffer=20).load_state_dict(state)
    other = IGBv2()
    other.load_state_dict(state)
    with pytest.raises(ValueError, match="has 3 tasks, and the model has 2"):
        other.bind(["a", "b"])
    other = IGBv2()
    other.bind(["a", "b"])
    with pytest.raises(ValueError, match="has 3 tasks, and this one 2"):
        other.load_state_dict(state)


# ---- Options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"update_epoch": 2}, {"use_epoch": 3}, {"base_epoch": 4}, {"base_epoch": 5, "update_epoch": 5}]
)
def test_epochs_in_another_order_are_refused(options):
    name, value = next(reversed(options.items()))
    with pytest.raises(
        ValueError, match=f"agent trains after base_epoch and acts from update_epoch on.*{name}={value}"
    ):
        IGBv2(**options)


def test_the_options_are_those_of_the_contract():
    expected = {
        "explore": 0.0,
        "update_epoch": 4,
        "use_epoch": 6,
        "buffer": 10_000,
        "reward": "min",
        "lr_factor": False,
    }
    parameters = inspect.signature(IGBv2.__init__).parameters
    assert {name: parameters[name].default for name in (*expected, "state")} == expected | {"state": "raw"}
    assert not {"variant", "scale", "deterministic"} & set(parameters)


def test_the_string_form_is_that_of_the_object():
    assert str(balancer("igb-v2")) == "igb-v2"
    text = "igb-v2(explore=1.0, buffer=1000000, reward='mean', lr_factor=True, state='scaled')"
    assert str(balancer(text.replace("1000000", "1e6"))) == text


# ---- In training ---------------------------------------------------------------------------------------------------


class Regressions(PyroModule):
    """Three regressions of unit variance: their losses are positive."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(2, 4)
        self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in "abc"})

    def forward(self, x, y):
        h = bmtl.shared(torch.tanh(self.trunk(x)))
        for name, head in self.heads.items():
            with bmtl.task(name), pyro.plate(f"{name}_rows", 100, subsample=x):
                bmtl.observe(f"y_{name}", dist.Normal(head(h).squeeze(-1), 1.0), y[name])


def svi():
    torch.manual_seed(0)
    model = Regressions()
    options = "base_epoch=1, update_epoch=2, use_epoch=3, bound=-1.0"
    optim = functools.partial(torch.optim.Adam, lr=1e-2)
    return bmtl.BalancedSVI(model, AutoNormal(model), optim, f"igb-v2({options}) >> nash-mtl")


def train(run, batches, start):
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(8, 2, generator=generator)
    y = {name: x.sum(1) * (k + 1) for k, name in enumerate("abc")}
    y["b"][4:] = math.nan
    for step in range(start, start + batches):
        absent = {"c": torch.full((8,), math.nan)} if step % 7 == 3 else {}
        run.step(x, y | absent)
        if step % 20 == 19:
            run.end_epoch()


def test_it_trains_a_pyro_program_with_a_gradient_weighting_and_resumes(tmp_path):
    run = svi()
    train(run, 55, 0)
    bmtl.inference.checkpoint.save(run, tmp_path / "run.ckpt")
    train(run, 10, 55)
    for record in run.history:
        lambdas = record.weights_heads * (record.losses + 1.0)  # the bound is -1
        assert lambdas.nansum().item() == pytest.approx(2.0 if record.step % 7 == 3 else 3.0)
        assert record.status == "ok"
    assert run.history[-1].losses.nansum() < run.history[0].losses.nansum()
    assert run.balancer.transform.agent.num_updates == 25

    again = svi()
    bmtl.inference.checkpoint.load(again, tmp_path / "run.ckpt")
    train(again, 10, 55)
    for ours, theirs in zip(again.history, run.history, strict=True):
        assert torch.equal(ours.weights.nan_to_num(-1.0), theirs.weights.nan_to_num(-1.0))
        assert torch.equal(ours.losses.nan_to_num(-1.0), theirs.losses.nan_to_num(-1.0))
