"""Heads with a normal prior on every weight and bias."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from bmtl.models.guides import Latent
from bmtl.models.heads.base import Heads, affine, affine_stacked, check_scale, initial_layers
from bmtl.models.likelihoods import Likelihood


class BayesianHeads(Heads):
    """``w_t ~ Normal(0, prior_scale)``: the latent ``head_<target>`` ``(outputs, width + 1)``, the bias in the last column.

    It is sampled inside its task, so that its divergence is the task's. Its guide starts at the weights that `LinearHeads`
    starts at.

    Args:
        width: Width of the representation.
        likelihoods: By target, what the output is for.
        prior_scale: Standard deviation of the prior; ``1 / sqrt(width)`` by default, which makes the prior variance of f of
            the order of the representation's mean square.
        generator: Draws the initial weights; None uses torch's global generator.

    Raises:
        ValueError: If `prior_scale` is not positive.
    """

    def __init__(
        self,
        width: int,
        likelihoods: Mapping[str, Likelihood],
        *,
        prior_scale: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(width, likelihoods)
        self.prior_scale = check_scale(prior_scale, width)
        parts: dict[str, list[Tensor]] = {target: [] for target in likelihoods}
        for target, layer in initial_layers(width, likelihoods, generator):
            parts[target].append(torch.cat([layer.weight, layer.bias[:, None]], 1).detach())
        self.starts = {target: torch.cat(rows) for target, rows in parts.items()}

    def start_near_zero(self, share: float) -> None:
        self.starts = {target: share * start for target, start in self.starts.items()}

    def latents(self, target: str) -> dict[str, Latent]:
        return {f"head_{target}": Latent(self.starts[target])}

    def prior_of(self, target: str, h: Tensor) -> TorchDistribution:
        """The prior of a target's head, event ``(outputs, width + 1)``."""
        zero, scale = h.new_zeros(()), h.new_tensor(self.prior_scale)
        return dist.Normal(zero, scale).expand(self.starts[target].shape).to_event(2)

    def forward(self, target: str, h: Tensor, joint: Any) -> Tensor:
        return affine(h, pyro.sample(f"head_{target}", self.prior_of(target, h)))

    def stacked(self, targets: Sequence[str], h: Tensor, joint: Any, site: Callable[[str], str]) -> Tensor:
        prior = self.prior_of(targets[0], h)
        found: Tensor = pyro.sample(site("head"), prior.expand((len(targets), 1)))
        return found

    def stacked_outputs(self, targets: Sequence[str], h: Tensor, joint: Any, sampled: Tensor) -> Tensor:
        return affine_stacked(h, sampled)
