"""A soft actor-critic without an environment loop: it is given transitions, asked for actions, and trained on demand.

Haarnoja et al. (2018), as implemented in stable-baselines3 (extra ``rl``). The agent has its own generator, and
every global setting that it changes is restored.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from torch import Tensor

from bmtl.inference.balancing.bounded_gaussian import BoundedGaussian

_ARRAYS = (
    "observations",
    "next_observations",
    "actions",
    "rewards",
)  # of a replay buffer; no transition ends an episode


class SoftActorCritic:
    """An agent with states in R^n and actions in ``(-limit, limit)^m``.

    Networks and rates are those of the IGB paper's code: two hidden layers of 128, discount 0.99, target networks that
    follow by 0.005 an update, and an entropy coefficient that starts at 0.2 and is learnt.

    It differs from stable-baselines3 in what it starts from, so that some thousand updates are enough. The actor's last
    layer is 0: the first policy has mean 0 and standard deviation 1 in every state. The critics' weights of the action are
    0: values depend on it as far as rewards do. And entropies count from the target's: a policy at the target earns no
    bonus, which would add its discounted sum to all values.

    Args:
        num_states: Numbers in a state.
        num_actions: Numbers in an action.
        limit: Bound of every number of an action.
        max_std: Bound of the policy's standard deviation, above 1.
        target_entropy: Entropy (in nats, of the density of actions) towards which the coefficient moves the policy.
        buffer: Transitions that are kept; beyond, the oldest are overwritten.
        learning_rate: Of Adam, for actor, critics and entropy coefficient.
        seed: Seeds the agent's random numbers.

    Raises:
        ImportError: If stable-baselines3 is not installed.
    """

    def __init__(
        self,
        num_states: int,
        num_actions: int,
        *,
        limit: float,
        max_std: float,
        target_entropy: float,
        buffer: int,
        learning_rate: float,
        seed: int,
    ) -> None:
        # Importing gymnasium adds to the list of warning filters.
        with warnings.catch_warnings():
            try:
                import gymnasium
                from stable_baselines3 import SAC
                from stable_baselines3.common.logger import Logger
            except ImportError as error:
                raise ImportError(
                    "'igb-v2' chooses weights by reinforcement learning, with stable-baselines3 and gymnasium, and "
                    f"{error.name or 'one of them'} is not installed. Install both: pip install bmtl[rl]"
                ) from error

        class Spaces(gymnasium.Env):
            """The sizes of states and actions; the agent never acts in it."""

            observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (num_states,))
            action_space = gymnasium.spaces.Box(-limit, limit, (num_actions,))

        self._random = _Random.seeded(seed)
        with self._apart():
            self._sac: Any = SAC(
                "MlpPolicy",
                Spaces(),
                buffer_size=buffer,
                learning_rate=learning_rate,
                tau=0.005,
                gamma=0.99,
                ent_coef="auto_0.2",
                target_entropy=0.0,  # of entropies that count from the target's
                # Fused: Adam's loop over small tensors is a tenth of an update.
                policy_kwargs={"net_arch": [128, 128], "optimizer_kwargs": {"fused": True}},
                device="cpu",
            )
        self._sac.set_logger(Logger(None, []))
        self._policy = BoundedGaussian(limit, max_std, target_entropy)
        self._start(num_states)
        self._sac.env = None  # holds closures, which can be neither copied nor pickled
        self._sac.critic.register_forward_pre_hook(_freeze)
        self._sac.critic.register_forward_hook(_thaw)

    @torch.no_grad()
    def _start(self, num_states: int) -> None:
        """Sets the first policy and the first values."""
        actor, critics = self._sac.actor, (self._sac.critic, self._sac.critic_target)
        actor.action_dist = self._policy
        for output in (actor.mu, actor.log_std):
            output.weight.zero_()
            output.bias.zero_()
        for critic in critics:
            for network in critic.q_networks:
                network[0].weight[:, num_states:] = 0.0

    @property
    def capacity(self) -> int:
        """Transitions that the replay buffer can hold."""
        return int(self._sac.replay_buffer.buffer_size)

    @property
    def filled(self) -> int:
        """Transitions in the replay buffer."""
        return int(self._sac.replay_buffer.size())

    @property
    def num_updates(self) -> int:
        """Updates made so far."""
        return int(self._sac._n_updates)

    def add(self, state: Tensor, action: Tensor, reward: float, next_state: Tensor) -> None:
        """Keeps a transition of an episode that never ends."""
        arrays = [value.numpy()[None] for value in (state, next_state, action)]
        self._sac.replay_buffer.add(*arrays, np.array([reward]), np.array([0.0]), [{}])

    def train(self, updates: int, batch: int) -> None:
        """Updates critics, actor and entropy coefficient on random transitions."""
        with self._apart():
            self._sac.train(gradient_steps=updates, batch_size=batch)

    def act(self, state: Tensor, explore: float = 0.0) -> Tensor:
        """An action for a state: float32 ``(m,)``.

        Args:
            state: The state ``(n,)``.
            explore: Factor of the policy's standard deviation: 0 gives the action of the policy's mean, 1 a draw.
        """
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            mean, x, _ = self._sac.actor.get_action_dist_params(state[None])
            u = mean[0]
            if explore:
                generator = torch.Generator()
                generator.set_state(self._random.torch)
                u = u + explore * self._policy.std(x[0]) * torch.randn(u.shape, generator=generator, dtype=u.dtype)
                self._random = self._random._replace(torch=generator.get_state())
            return self._policy.bounded(u)

    def state(self) -> dict[str, Any]:
        """All that later actions and updates depend on, as tensors and plain values."""
        buffer = self._sac.replay_buffer
        return {
            "parameters": copy.deepcopy(self._sac.get_parameters()),
            "log_ent_coef": self._sac.log_ent_coef.detach().clone(),  # which SB3 does not count as a parameter
            "num_updates": self.num_updates,
            "buffer": {name: torch.from_numpy(getattr(buffer, name)[: self.filled].copy()) for name in _ARRAYS},
            "capacity": self.capacity,
            "pos": buffer.pos,
            "full": buffer.full,
            "random": self._random.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave.

        Raises:
            ValueError: If the replay buffer was of another size.
            RuntimeError: If the networks were of another size.
        """
        if state["capacity"] != self.capacity:
            raise ValueError(
                f"The saved 'igb-v2' keeps {state['capacity']} transitions, and this one {self.capacity}: give buffer=."
            )
        # Optimizers take up the very tensors they are given.
        self._sac.set_parameters(copy.deepcopy(state["parameters"]), device="cpu")
        with torch.no_grad():
            self._sac.log_ent_coef.copy_(state["log_ent_coef"])
        self._sac._n_updates = state["num_updates"]
        buffer = self._sac.replay_buffer
        for name in _ARRAYS:
            saved = state["buffer"][name].cpu().numpy()
            array = getattr(buffer, name)
            array[: len(saved)], array[len(saved) :] = saved, 0.0
        buffer.pos, buffer.full = state["pos"], state["full"]
        self._random = _Random.of(state["random"])

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """The agent's own random numbers, one thread, single precision; all is put back afterwards."""
        threads, dtype, outside = torch.get_num_threads(), torch.get_default_dtype(), _Random.now()
        with ExitStack() as stack:
            stack.callback(outside.use)
            self._random.use()
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_num_threads, threads)
            torch.set_num_threads(1)  # a second one makes layers this small slower
            stack.enter_context(torch.autocast("cpu", enabled=False))
            stack.enter_context(pyro.settings.context(validate_distributions_torch=False))
            yield
            self._random = _Random.now()


class _Random(NamedTuple):
    """States of the three global random number generators (of torch, the one of the host)."""

    torch: Tensor
    numpy: Any
    python: Any

    @classmethod
    def seeded(cls, seed: int) -> _Random:
        generator = torch.Generator().manual_seed(seed)
        a, b, c = torch.randint(2**31, (3,), generator=generator).tolist()  # three streams that do not run in step
        states = torch.Generator().manual_seed(a).get_state(), np.random.RandomState(b).get_state()
        return cls(*states, random.Random(c).getstate())

    @classmethod
    def now(cls) -> _Random:
        return cls(torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002 (SB3 draws from it)

    def use(self) -> None:
        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)  # noqa: NPY002 (SB3 draws from it)
        random.setstate(self.python)

    def state(self) -> dict[str, Any]:
        name, keys, *rest = self.numpy
        version, words, spare = self.python
        return {
            "torch": self.torch.clone(),
            "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
            "python": [version, list(words), spare],
        }

    @classmethod
    def of(cls, state: dict[str, Any]) -> _Random:
        name, keys, *rest = state["numpy"]
        version, words, spare = state["python"]
        return cls(
            state["torch"].cpu().clone(),
            (name, keys.cpu().numpy().astype(np.uint32), *rest),
            (version, tuple(words), spare),
        )


def _freeze(critic: Any, args: Any) -> None:
    # The actor's loss needs the critics' gradient in the action alone; that in their parameters would be thrown away.
    if args[1].requires_grad:
        critic.requires_grad_(False)


def _thaw(critic: Any, args: Any, output: Any) -> None:
    if args[1].requires_grad:
        critic.requires_grad_(True)
