"""Improvable-gap balancing, version 2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context, Transform
from bmtl.inference.balancing.soft_actor_critic import SoftActorCritic


class IGBv2(Transform):
    """Weights chosen by a soft actor-critic, rewarded for the least improvement of any task (IGBv2, Dai et al. 2023).

    Algorithm 2 of the paper. State is the losses, action the K weights ``a`` (positive, sum K), reward
    ``lr0 / lr * min_k (L_t - L_{t+1})_k / base_k`` (equation 4) with the learning rate of the step that made the decline,
    and the step trains on ``sum_k a_k log L_k``. In every batch, in this order:

    1. at the end of `base_epoch`, ``base`` becomes its mean losses (told by `BalancedSVI.end_epoch`);
    2. from the epoch after, the transition that ends in this batch goes into the replay buffer;
    3. from `update_epoch`, every 50 batches, the agent trains: ``int(25 k)`` updates on ``int(128 k)`` transitions each, k
       from 1 with an empty buffer to 2 with a full one;
    4. before `use_epoch`, the weights are K times the softmax of standard normals (`rlw`); then, a draw from the policy.

    The agent's action is in ``[-1, 1]^K``, and the weights are ``K softmax(scale * action)``: two weights differ by a factor
    of at most ``exp(2 scale)``, 403 at 3. The warm-up's normals are stored as actions and thus clipped to 3 (0.3 % of
    them). The paper gives an agent's learning rate of 3e-4, and 1e-4 when combined with MGDA, PCGrad or Nash-MTL.

    ``variant="corrected"`` mends what Algorithm 2 leaves open: K - 1 actions (a common shift of the logits does nothing),
    state ``log(L / base)``, one update every second batch instead of bursts, and when the learning rate changes, the stored
    rewards are rescaled to the factor of now, so that all rewards in the buffer are on one scale.

    Differs from the released code (IGB4MTL):

    * there the action is ``K softmax(u)``, u normal, but its log-density is that of ``tanh(u)``, so the entropy is wrong;
    * there the factor lr0 / lr is that of the epoch in which a transition ends, and in the QM9 experiment always 1;
    * there the entropy coefficient is updated after the actor, here (stable-baselines3) before the critics;
    * there "weights" are reported as a; the records here have the effective ones, a / L;
    * there heads follow the transform alone under PCGrad and CAGrad only; here, always (``heads=`` of the balancer);
    * there a run cannot be resumed, and the global random numbers are used. Here all is in ``state_dict``: networks,
      optimizer moments, replay buffer, random numbers.

    Sizes of the networks and of a burst, which the paper leaves out, are the released code's.

    An absent task enters state and reward with its last known loss; one never seen is left out of the reward and is 0 in
    the state. With a single task there is nothing to choose, and the agent is never built.

    Args:
        variant: As above.
        base_epoch: The epoch whose mean losses are the base.
        update_epoch: The first epoch in which the agent trains.
        use_epoch: The first epoch in which the agent acts.
        buffer: Transitions in the replay buffer.
        reward: The least decline of any task, or the mean one (the paper's ablation).
        lr_factor: Whether rewards are multiplied by lr0 / lr (False: the paper's ablation). Where a schedule ends near 0,
            the factor blows up the differences between batches, which do not shrink with the learning rate.
        scale: Of the logits, as above.
        deterministic: Take the policy's mean action instead of a draw. The warm-up stays random.
        sac_lr: The agent's learning rate.
        seed: Seeds the transform's own random numbers; the global ones are neither read nor moved.
        bound: What every loss must exceed; it is subtracted first, from the base too.

    Raises:
        ValueError: If an option is out of range.
        ImportError: At set-up, if stable-baselines3 is not installed and there are two or more tasks.
    """

    name = "igb-v2"
    paper = "Dai et al. 2023"
    cost = "1 backward, and the agent's updates"
    positive = True
    epochs = True

    def __init__(
        self,
        variant: Literal["paper", "corrected"] = "paper",
        base_epoch: int = 2,
        update_epoch: int = 4,
        use_epoch: int = 6,
        buffer: int = 10_000,
        reward: Literal["min", "mean"] = "min",
        lr_factor: bool = True,
        scale: float = 3.0,
        deterministic: bool = False,
        sac_lr: float = 3e-4,
        seed: int = 0,
        bound: float = 0.0,
    ) -> None:
        super().__init__(bound)
        if variant not in ("paper", "corrected"):
            raise ValueError(f"variant is 'paper' or 'corrected', and {variant!r} was given.")
        if reward not in ("min", "mean"):
            raise ValueError(f"reward is 'min' or 'mean', and {reward!r} was given.")
        if not 1 <= base_epoch < update_epoch <= use_epoch:
            raise ValueError(
                "Epochs count from 1; the agent trains after base_epoch and acts from update_epoch on at the earliest, and "
                f"base_epoch={base_epoch}, update_epoch={update_epoch}, use_epoch={use_epoch} were given."
            )
        if buffer < 1 or buffer != int(buffer):
            raise ValueError(f"buffer is a number of transitions, from 1, and {buffer} was given.")
        for option, value in (("scale", scale), ("sac_lr", sac_lr)):
            if not 0 < value < math.inf:
                raise ValueError(f"{option} is positive and finite, and {value} was given.")
        self.variant, self.reward, self.lr_factor, self.deterministic = variant, reward, lr_factor, deterministic
        self.base_epoch, self.update_epoch, self.use_epoch = base_epoch, update_epoch, use_epoch
        self.buffer, self.scale, self.sac_lr, self.seed = int(buffer), scale, sac_lr, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.agent: SoftActorCritic | None = None
        self.directions: Tensor | None = None
        self._start(0)

    def options(self) -> dict[str, object]:
        options = {
            "variant": (self.variant, "paper"),
            "base_epoch": (self.base_epoch, 2),
            "update_epoch": (self.update_epoch, 4),
            "use_epoch": (self.use_epoch, 6),
            "buffer": (self.buffer, 10_000),
            "reward": (self.reward, "min"),
            "lr_factor": (self.lr_factor, True),
            "scale": (self.scale, 3.0),
            "deterministic": (self.deterministic, False),
            "sac_lr": (self.sac_lr, 3e-4),
            "seed": (self.seed, 0),
            "bound": (self.bound, 0.0),
        }
        return {name: value for name, (value, default) in options.items() if value != default}

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
        if num_tasks < 2:
            return
        num_actions = num_tasks
        if self.variant == "corrected":
            num_actions -= 1
            self.directions = _without_shift(num_tasks)
        self.agent = SoftActorCritic(
            num_tasks, num_actions, buffer=self.buffer, learning_rate=self.sac_lr, seed=self.seed
        )

    def forward(self, losses: Tensor, ctx: Context) -> Tensor:
        if self.agent is None or not len(losses):
            return losses.log()
        before = self.known.clone()
        self.known[ctx.active] = losses.detach().to(self.known)
        factor = ctx.lr0 / ctx.lr if self.lr_factor and ctx.lr > 0 and ctx.lr0 > 0 else self.factor
        if self.variant == "corrected" and factor != self.factor:
            self.agent.scale_rewards(factor / self.factor)
            self.factor = factor
        if ctx.epoch > self.base_epoch:
            self._remember(self.agent, before)
        self.factor = factor
        if ctx.epoch >= self.update_epoch:
            self._train(self.agent, ctx.step)
        if ctx.epoch < self.use_epoch:
            self.action = self._random_action()
        else:
            self.action = self.agent.act(self._state(self.known), self.deterministic)
        return self.weights(self.action, ctx.active) * losses.log()

    def weights(self, action: Tensor, active: Tensor) -> Tensor:
        """Weights ``(K,)`` of the tasks present under an action ``(K,)``, or ``(K - 1,)`` if corrected; they sum to K."""
        logits = self.scale * action.double()
        if self.directions is not None:
            logits = self.directions @ logits
        logits = logits[active]
        return len(logits) * torch.softmax(logits, dim=0)

    def end_epoch(self, mean_losses: Tensor, ctx: Context) -> None:
        if ctx.epoch >= self.base_epoch:
            missing = self.base.isnan()
            self.base[missing] = mean_losses[missing]

    def _remember(self, agent: SoftActorCritic, before: Tensor) -> None:
        """Stores the transition from the batch before, whose losses were known to be these ``(K,)``."""
        declines = (before - self.known) / self.base
        declines = declines[~declines.isnan()]  # a task without a loss or a base says nothing
        if len(declines):
            decline = declines.min() if self.reward == "min" else declines.mean()
            agent.add(self._state(before), self.action, self.factor * decline.item(), self._state(self.known))

    def _train(self, agent: SoftActorCritic, step: int) -> None:
        if not agent.filled:
            return
        k = 1 + agent.filled / agent.capacity
        if self.variant == "corrected":
            if step % 2 == 0:
                agent.train(1, int(128 * k))
        elif step % 50 == 0:
            agent.train(int(25 * k), int(128 * k))

    def _state(self, losses: Tensor) -> Tensor:
        """What the agent sees of these losses: float32 ``(K,)``."""
        seen = (losses / self.base).log() if self.variant == "corrected" else losses
        return seen.nan_to_num(nan=0.0).float()

    def _random_action(self) -> Tensor:
        """The action whose weights are a softmax of standard normals, up to clipping."""
        logits = torch.randn(len(self.known), generator=self.generator, dtype=torch.float64)
        if self.directions is not None:
            logits = logits @ self.directions
        return (logits / self.scale).clamp(-1.0, 1.0).float()

    def get_extra_state(self) -> dict[str, Any]:
        # All in one entry and not in buffers, so that a transform that has not met its tasks yet can take it up.
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
    j = torch.arange(1, num_tasks, dtype=torch.float64)
    contrasts = torch.ones(num_tasks, num_tasks - 1, dtype=torch.float64).triu() - torch.diag(j, -1)[:, :-1]
    return contrasts / (j * (j + 1)).sqrt()
