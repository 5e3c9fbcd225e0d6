"""Gaussian regression whose noise depends on the input: the network of deep ensembles."""

from collections.abc import Callable, Mapping, Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.guides import PointMass
from bmtl.models.networks.mlp import linear
from bmtl.models.rows import data_by_target, rows_by_target
from bmtl.tasks import check_names, observe, task

_FLOOR = 1e-6


class GaussianRegression(nn.Module):
    """Regressions on a shared trunk, each with a mean and a variance: ``y ~ Normal(f(x), sqrt(softplus(v(x)) + 1e-6))``.

    A deep ensemble is several of these from different initial weights, and its predictive the mixture of theirs.

    Args:
        trunk: Maps x to a representation ``(B, width)``, marked as shared.
        width: Width of the representation.
        targets: Names, each a task of that name; labels should be standardised.
        n_data: Number of data, for all targets or by target: the size of each plate.
        generator: Draws the heads' initial weights; None uses torch's global generator.

    Raises:
        ValueError: If `n_data` lacks a target or is below 1.

    Source:
        Lakshminarayanan, Pritzel & Blundell (2017), "Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles", section 2.2.1.
    """

    def __init__(
        self,
        trunk: Callable[..., Tensor],
        width: int,
        targets: Sequence[str],
        n_data: int | Mapping[str, int],
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.targets = check_names(tuple(targets))
        self.n_data = data_by_target(self.targets, n_data)
        self.trunk = trunk
        # Module names must not hold a dot, target names may: keyed by position.
        self.heads = nn.ModuleList([linear(width, 2, generator) for _ in self.targets])

    def guide(self) -> PointMass:
        """The guide: empty, since every parameter is a point mass already."""
        return PointMass({})

    def forward(self, x: Tensor | Mapping[str, Tensor], y: Mapping[str, Tensor] | None = None) -> None:
        """The program.

        Args:
            x: Inputs, ``(B, ...)`` for all targets, or each target's own.
            y: Labels ``(B,)`` by name, NaN where one is missing; None predicts.
        """
        for i, (name, h, plate, labels) in enumerate(rows_by_target(self.trunk, self.n_data, x, y)):
            mean, raw = self.heads[i](h).unbind(-1)
            with task(name), plate:
                observe(f"y_{name}", dist.Normal(mean, (F.softplus(raw) + _FLOOR).sqrt()), labels)
