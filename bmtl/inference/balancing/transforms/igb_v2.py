"""Improvable-gap balancing, version 2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context
from bmtl.inference.balancing.options import Count, Fraction, Positive, Seed
from bmtl.inference.balancing.soft_actor_critic import SoftActorCritic
from bmtl.inference.balancing.transforms.base import Transform

_LIMIT = 3.0  # c: of a logit in each of the K - 1 directions
_MAX_STD = 1.05  # of the policy: its draws are never much wider than those of random weights
_TARGET_STD = 0.6  # standard deviation of a normal logit whose entropy is the target


class IGBv2(Transform):
    """Weights chosen by a soft actor-critic, rewarded for the least improvement of any task (IGBv2, Dai et al. 2023).

    Algorithm 2 of the paper. State is the losses, action the weights ``a`` (positive, sum K), reward
    ``min_k (L_t - L_{t+1})_k / base_k`` (equation 4), and the step trains on ``sum_k a_k log L_k``. In every batch, in this
    order:

    1. at the end of `base_epoch`, ``base`` becomes its mean losses (`BalancedSVI.end_epoch`);
    2. from the epoch after, the transition that ends in this batch goes into the replay buffer;
    3. from `update_epoch`, every 50 batches, the agent trains: ``int(25 k)`` updates on ``int(128 k)`` transitions each, k
       from 1 with an empty buffer to 2 with a full one;
    4. before `use_epoch`, the weights are K times the softmax of standard normals (`rlw`); then, the policy's.

    The map from actions to weights: an action is K - 1 logits ``z = c tanh(u / c)``, c = 3, u Gaussian with the policy's
    mean and standard deviation (1 at the start), and the weights are ``K softmax(V z)``. The columns of V (K, K - 1) are
    orthonormal and sum to 0, since a shift of all logits changes no weight. The density of z has the Jacobian of the tanh,
    the entropy coefficient starts at 0.2 and is learnt, and the target entropy is that of normal logits of standard
    deviation 0.6. The bound keeps the mean where transitions have been seen: with unbounded logits the critic extrapolates
    and the mean diverges. The warm-up's normals are stored as actions and clipped to 3 in each direction (0.3 % of them).

    The agent starts from equal weights in every state and from values that do not depend on the action, since a run gives it
    a few thousand updates only. As many move the coefficient by a factor of 0.2 to 0.6 at its learning rate, and rewards of
    some tenths would let the policy fill the whole box: its standard deviation is bounded by 1.05, so that draws are those
    of `rlw` at most.

    By default the weights are those of the policy's mean. Drawing them, as the paper's text has it, is ``explore=1``: a
    standard deviation near 1 in the logits is that of `rlw`, and costs what `rlw` costs in accuracy. Numbers between 0 and 1
    multiply the policy's standard deviation.

    The paper gives an agent's learning rate of 3e-4, and 1e-4 when combined with MGDA, PCGrad or Nash-MTL. Sizes of the
    networks and of a burst of updates, which the paper leaves out, are the released code's.

    Differs from the paper in the default ``explore=0`` and in ``lr_factor=False``: rewards are not multiplied by lr0 / lr,
    which multiplies the differences between batches too. Differs from the released code (IGB4MTL) in that

    * there the action is ``K softmax(u)``, u Gaussian in K dimensions, and its log-density that of ``tanh(u)``: the entropy
      is not the policy's;
    * there the target entropy is -K;
    * there the factor lr0 / lr is that of the epoch in which a transition ends, and in the QM9 experiment always 1;
    * there the entropy coefficient is updated after the actor, here (stable-baselines3) before the critics;
    * there "weights" are reported as a; the records here have the effective ones, a / L;
    * there heads follow the transform alone under PCGrad and CAGrad only; here, always (``heads=`` of the balancer);
    * there a run cannot be resumed, and the global random numbers are used. Here networks, optimizer moments, replay buffer
      and random numbers are in ``state_dict``.

    An absent task enters state and reward with its last known loss; one never seen is left out of the reward and is 0 in
    the state. With a single task there is nothing to choose, and the agent is never built.

    Args:
        explore: Factor of the policy's standard deviation when it acts: 0 (its mean) to 1 (a draw).
        base_epoch: The epoch whose mean losses are the base.
        update_epoch: The first epoch in which the agent trains.
        use_epoch: The first epoch in which the agent acts.
        buffer: Transitions in the replay buffer.
        reward: The least decline of any task, or the mean one (the paper's ablation).
        lr_factor: Multiply rewards by lr0 / lr, with the learning rate of the step that made the decline.
        state: The losses, or ``log(L / base)`` ("scaled").
        sac_lr: The agent's learning rate.
        seed: Seeds the transform's own random numbers; the global ones are neither read nor moved.
        bound: What every loss must exceed; it is subtracted first, from the base too.

    Raises:
        ValueError: If the epochs are in another order.
        ImportError: At set-up, if stable-baselines3 is not installed and there are two or more tasks.
    """

    name = "igb-v2"
    paper = "Dai et al. 2023"
    cost = "1 backward, and the agent's updates"
    domain = "nonnegative"
    epochs = True

    def __init__(
        self,
        explore: Fraction = 0.0,
        base_epoch: Count = 2,
        update_epoch: Count = 4,
        use_epoch: Count = 6,
        buffer: Count = 10_000,
        reward: Literal["min", "mean"] = "min",
        lr_factor: bool = False,
        state: Literal["raw", "scaled"] = "raw",
        sac_lr: Positive = 3e-4,
        seed: Seed = 0,
        bound: float = 0.0,
    ) -> None:
        super().__init__(bound)
        if not base_epoch < update_epoch <= use_epoch:
            raise ValueError(
                "The agent trains after base_epoch and acts from update_epoch on at the earliest, and "
                f"base_epoch={base_epoch}, update_epoch={update_epoch}, use_epoch={use_epoch} were given."
            )
        self.explore, self.reward, self.lr_factor, self.state = explore, reward, lr_factor, state
        self.base_epoch, self.update_epoch, self.use_epoch = base_epoch, update_epoch, use_epoch
        self.buffer, self.sac_lr, self.seed = buffer, sac_lr, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.agent: SoftActorCritic | None = None
        self._start(0)

    def bind(self, names: Sequence[str]) -> None:
        if not len(self.known):
            self._start(len(names))
        if len(self.known) != len(names):
            raise ValueError(f"The saved 'igb-v2' has {len(self.known)} tasks, and the model has {len(names)}.")

    def _start(self, num_tasks: int) -> None:
        """Sets up the state for this number of tasks; 0 is for the time before they are known."""
        self.known = torch.full((num_tasks,), torch.nan, dtype=torch.float64)  # last known losses
        self.base = self.known.clone()
        self.factor = 1.0  # lr0 / lr of the last batch
        self.action = torch.zeros(0)  # of the last batch
        self.directions = _without_shift(num_tasks)
        if num_tasks < 2:
            return
        entropy = (num_tasks - 1) * (math.log(_TARGET_STD) + 0.5 * math.log(2 * math.pi * math.e))
        self.agent = SoftActorCritic(
            num_tasks,
            num_tasks - 1,
            limit=_LIMIT,
            max_std=_MAX_STD,
            target_entropy=entropy,
            buffer=self.buffer,
            learning_rate=self.sac_lr,
            seed=self.seed,
        )

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        if self.agent is None or not len(losses):
            return self.log_of(losses)
        before = self.known.clone()
        self.known[ctx.active] = losses.detach().to(self.known)
        if ctx.epoch > self.base_epoch:
            self._remember(self.agent, before)
        if self.lr_factor and ctx.lr > 0 and ctx.lr0 > 0:
            self.factor = ctx.lr0 / ctx.lr
        if ctx.epoch >= self.update_epoch:
            self._train(self.agent, ctx.step)
        if ctx.epoch < self.use_epoch:
            self.action = self._random_action()
        else:
            self.action = self.agent.act(self._state(self.known), self.explore)
        return self.weights(self.action, ctx.active) * self.log_of(losses)

    def weights(self, action: Tensor, active: Tensor) -> Tensor:
        """Weights ``(K,)`` of the tasks present under an action ``(K_all - 1,)``; they sum to K."""
        logits = (self.directions @ action.double())[active]
        return len(logits) * torch.softmax(logits, dim=0)

    def end_epoch(self, mean_losses: Tensor, ctx: Context) -> None:
        if ctx.epoch >= self.base_epoch:
            missing = self.base.isnan()
            self.base[missing] = mean_losses[missing]

    def _remember(self, agent: SoftActorCritic, before: Tensor) -> None:
        """Stores the transition from the batch before, whose losses were known to be these ``(K,)``."""
        declines = (before - self.known) / self.base
        declines = declines[~declines.isnan()]  # without a task that has no loss or no base
        if len(declines):
            decline = declines.min() if self.reward == "min" else declines.mean()
            agent.add(self._state(before), self.action, self.factor * decline.item(), self._state(self.known))

    def _train(self, agent: SoftActorCritic, step: int) -> None:
        if not agent.filled:
            return
        k = 1 + agent.filled / agent.capacity
        if step % 50 == 0:
            agent.train(int(25 * k), int(128 * k))

    def _state(self, losses: Tensor) -> Tensor:
        """The agent's observation of these losses: float32 ``(K,)``."""
        seen = self.log_of(losses / self.base) if self.state == "scaled" else losses
        return seen.nan_to_num(nan=0.0).float()

    def _random_action(self) -> Tensor:
        """The action whose weights are a softmax of standard normals, up to clipping."""
        logits = torch.randn(len(self.known), generator=self.generator, dtype=torch.float64)
        return (logits @ self.directions).clamp(-_LIMIT, _LIMIT).float()

    def get_extra_state(self) -> dict[str, Any]:
        # All in one entry and not in buffers, so that a transform that has not met its tasks yet can load it.
        return {
            "known": self.known.clone(),
            "base": self.base.clone(),
            "action": self.action.clone(),
            "factor": self.factor,
            "generator": self.generator.get_state(),
            "agent": None if self.agent is None else self.agent.state(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        num_tasks = len(state["known"])
        if not len(self.known):
            self._start(num_tasks)
        if len(self.known) != num_tasks:
            raise ValueError(f"The saved 'igb-v2' has {num_tasks} tasks, and this one {len(self.known)}.")
        if self.agent is not None:
            self.agent.load(state["agent"])
        self.known, self.base, self.action = (state[name].cpu().clone() for name in ("known", "base", "action"))
        self.factor = state["factor"]
        self.generator.set_state(state["generator"].cpu())


def _without_shift(num_tasks: int) -> Tensor:
    """Orthonormal directions that leave the sum of the logits as it is ``(K, K - 1)``: Helmert's contrasts."""
    if num_tasks < 2:
        return torch.zeros(num_tasks, 0, dtype=torch.float64)
    j = torch.arange(1, num_tasks, dtype=torch.float64)
    contrasts = torch.ones(num_tasks, num_tasks - 1, dtype=torch.float64).triu() - torch.diag(j, -1)[:, :-1]
    return contrasts / (j * (j + 1)).sqrt()
