"""What all heads have in common."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bmtl.models.guides import GuideKind, Latent
from bmtl.models.likelihoods import Likelihood
from bmtl.models.networks.layers import linear


class Heads(nn.Module):
    """The last layers of all targets.

    Called in this order by `TaskModel`: `joint` once, outside every task; then, for each target inside its task, `forward`.

    Attributes:
        kinds: Kinds of guide that its latents may have; the first is the default.

    Args:
        width: Width of the representation.
        likelihoods: By target, what the head's output is for.
        generator: Draws the initial weights; None uses torch's global generator.
    """

    kinds: ClassVar[tuple[GuideKind, ...]] = ("normal", "point")

    def __init__(
        self, width: int, likelihoods: Mapping[str, Likelihood], *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.width = width
        self.targets = tuple(likelihoods)

    def start_near_zero(self, share: float) -> None:
        """Multiplies the weights that training starts at, before guides are made. Nothing by default."""

    def joint_latents(self) -> dict[str, Latent]:
        """Latents of all targets together, by site."""
        return {}

    def latents(self, target: str) -> dict[str, Latent]:
        """Latents of one target, by site."""
        return {}

    def joint(self) -> Any:
        """Samples the joint latents; what it returns is handed to `forward`."""
        return None

    def forward(self, target: str, h: Tensor, joint: Any) -> Any:
        """The outputs f ``(..., B, outputs)`` from h ``(..., B, width)``; samples the target's own latents.

        A tuple of tensors, one per block of the likelihood, where blocks have their own weights: joined, each would be
        upstream of what is computed from another.
        """
        raise NotImplementedError

    def stacked_latents(self, targets: Sequence[str], label: str) -> dict[str, Latent]:
        """The latents of targets that are sampled together, by name, ``(K, 1, ...)``: those of a task plate with a label."""
        found: dict[str, dict[str, Latent]] = {}
        for target in targets:
            for site, latent in self.latents(target).items():
                found.setdefault(site.removesuffix(f"_{target}"), {})[target] = latent
        return {name: Latent.stacked(latents, label) for name, latents in found.items()}

    def stacked(self, targets: Sequence[str], h: Tensor, joint: Any, site: Callable[[str], str]) -> Any:
        """Samples the latents of targets in the plate of their tasks; what it returns is handed to `stacked_outputs`.

        Args:
            targets: The K targets, of one kind of likelihood.
            h: A representation, for dtype and device.
            joint: What `joint` returned.
            site: Makes a site's name of a latent's.
        """
        return None

    def row(self, sampled: Any, k: int) -> Any:
        """What `stacked` returned, for the k-th target alone."""
        return sampled if sampled is None else sampled.narrow(-4, k, 1)  # (..., K, 1, C, D + 1)

    def parameters_of(self, target: str) -> list[nn.Parameter]:
        """The parameters that are one target's alone."""
        return []

    def stacked_outputs(self, targets: Sequence[str], h: Tensor, joint: Any, sampled: Any) -> Tensor:
        """The outputs f ``(..., K, B, outputs)`` of targets from h; see `stacked` for the arguments."""
        each = [self(target, h, joint) for target in targets]
        # Under S particles h is (S, 1, B, width): the tasks' dimension is there already.
        return torch.stack(each) if each[0].dim() < 4 else torch.cat(each, -3)


def initial_layers(
    width: int, likelihoods: Mapping[str, Likelihood], generator: torch.Generator | None
) -> Iterator[tuple[str, nn.Linear]]:
    """A linear layer for each block of each target's head: all targets' first blocks, then their second ones."""
    blocks = {target: likelihood.blocks for target, likelihood in likelihoods.items()}
    for i in range(max(map(len, blocks.values()))):
        for target, widths in blocks.items():
            if i < len(widths):
                yield target, linear(width, widths[i], generator)


def affine_stacked(h: Tensor, weight: Tensor) -> Tensor:
    """``(..., K, B, C)`` from h ``(B, D)`` and K latent heads ``(..., K, 1, C, D + 1)``, their bias last.

    Under S particles h may be ``(S, 1, B, D)``.
    """
    weight = weight.squeeze(-3)
    return h @ weight[..., :-1].mT + weight[..., None, :, -1]


def affine(h: Tensor, weight: Tensor) -> Tensor:
    """``(..., B, C)`` from a representation ``(..., B, D)`` and a latent head ``(..., C, D + 1)``, its bias last.

    Vectorised particles of the head are ``(S, 1, C, D + 1)``: their plate leaves room for that of the rows.
    """
    if weight.dim() > 2:
        weight = weight.squeeze(-3)
    return h @ weight[..., :-1].mT + weight[..., None, :, -1]


def check_scale(prior_scale: float | None, width: int) -> float:
    """The prior's standard deviation, ``1 / sqrt(width)`` by default.

    Raises:
        ValueError: If it is not positive.
    """
    if prior_scale is None:
        return float(width**-0.5)
    if not 0 < prior_scale < math.inf:
        raise ValueError(f"prior_scale is a standard deviation, above 0, and {prior_scale} was given.")
    return prior_scale
