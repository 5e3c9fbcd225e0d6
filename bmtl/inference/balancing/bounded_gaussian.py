"""The distribution of a policy with bounded actions."""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus


class BoundedGaussian:
    """The policy's distribution: ``z = c tanh(u / c)`` with u Gaussian, so that every coordinate is in ``(-c, c)``.

    It has the two methods by which a stable-baselines3 actor uses its distribution. The density is that of z: it has the
    Jacobian of the tanh, ``dz/du = 1 - tanh(u / c)^2``.

    The standard deviation of u is ``b sigmoid(x + log(1 / (b - 1)))`` of the actor's second output x: 1 at x = 0, and below
    b. Without a bound, the entropy's part in the objective spreads u until z fills the box evenly, where no transition has
    been seen.

    Args:
        limit: c.
        bound: b, above 1.
        entropy: Is added to every log-density: in units of volume ``exp(entropy)``, a policy of this entropy has entropy 0.
    """

    def __init__(self, limit: float, bound: float, entropy: float = 0.0) -> None:
        self.limit, self.bound, self.entropy = limit, bound, entropy

    def actions_from_params(self, mean: Tensor, x: Tensor, deterministic: bool = False) -> Tensor:
        """Actions ``(B, m)`` for the actor's two outputs ``(B, m)``: drawn, or those of the means."""
        return self.bounded(mean if deterministic else mean + self.std(x) * torch.randn_like(mean))

    def log_prob_from_params(self, mean: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Drawn actions ``(B, m)`` and the logarithms of their densities ``(B,)``."""
        std, noise = self.std(x), torch.randn_like(mean)
        u = mean + std * noise
        gaussian = -0.5 * noise.square() - std.log() - 0.5 * math.log(2 * math.pi)
        v = u / self.limit
        log_slope = 2.0 * (math.log(2.0) - v - softplus(-2.0 * v))  # log(1 - tanh(v)^2)
        return self.bounded(u), (gaussian - log_slope).sum(dim=1) + self.entropy

    def bounded(self, u: Tensor) -> Tensor:
        """``c tanh(u / c)``."""
        return self.limit * torch.tanh(u / self.limit)

    def std(self, x: Tensor) -> Tensor:
        """The standard deviation of u."""
        return self.bound * torch.sigmoid(x - math.log(self.bound - 1.0))
