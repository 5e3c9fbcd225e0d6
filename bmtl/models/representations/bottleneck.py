"""A stochastic representation that keeps little of x: Qian et al. (2020), multi-task variational information bottleneck."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor, nn

from bmtl.models.networks.gaussian import LEAST_VARIANCE, GaussianEncoder, above_floor, marked
from bmtl.models.representations.base import Representation
from bmtl.models.rows import Rows
from bmtl.tasks import task


class Bottleneck(Representation):
    """A latent z for each row, ``z ~ Normal(0, I)``, in the guide ``z ~ Normal(mu(x), s2(x))``.

    mu and s2 are linear (and a softplus) on the trunk. The divergence of z is an upper bound on the mutual information of z
    and x; `beta` weights it. With 1 the objective is the evidence lower bound.

    With common inputs a row has one z for all targets, and its KL belongs to all of them together; with own inputs each
    target's rows have theirs, and the KL is that task's. A row without any label has none. Mean and variance are marked as
    shared.

    Args:
        trunk: Maps inputs of B rows to ``(B, width)``.
        width: Width of the trunk's output.
        latent: Width of z; that of the trunk's output by default.
        beta: Weight of z's divergence, above 0.
        generator: Draws initial weights; None uses torch's global generator.

    Raises:
        ValueError: If `beta` is not positive. When called, if inputs are common and numbers of data differ.

    Source:
        Qian, Chen & Gechter (2020), "Multi-Task Variational Information Bottleneck".
    """

    has_latents: ClassVar[bool] = True
    has_row_latents: ClassVar[bool] = True

    def __init__(
        self,
        trunk: nn.Module,
        width: int,
        *,
        latent: int | None = None,
        beta: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        if not 0 < beta < float("inf"):
            raise ValueError(f"beta is above 0 and finite, and {beta} was given.")
        latent = width if latent is None else latent
        super().__init__(GaussianEncoder(trunk, width, latent, generator), latent)
        self.beta = beta

    def forward(self, rows: Rows) -> Tensor:
        like = next(self.trunk.parameters())
        prior = dist.Normal(like.new_zeros(()), like.new_ones(())).expand([rows.count, self.width])
        with self._latent_rows(rows):
            z: Tensor = pyro.sample(_site(rows), prior.to_event(1))
        return z

    def guide(self, rows: Rows) -> None:
        mean, variance = marked(above_floor(self.trunk(rows.x), LEAST_VARIANCE))
        assert variance is not None
        with self._latent_rows(rows):
            pyro.sample(_site(rows), dist.Normal(mean, variance.sqrt()).to_event(1))

    @contextmanager
    def _latent_rows(self, rows: Rows) -> Iterator[None]:
        """Where z is sampled: its task's if it is one task's, its divergence weighted and left out of unlabelled rows."""
        with ExitStack() as stack:
            if rows.own:
                stack.enter_context(task(rows.targets[0]))
            stack.enter_context(rows.plate)
            stack.enter_context(poutine.scale(scale=self.beta))
            if rows.labelled is not None:
                stack.enter_context(poutine.mask(mask=rows.labelled))  # type: ignore[call-overload]
            yield


def _site(rows: Rows) -> str:
    return f"z_{rows.targets[0]}" if rows.own else "z"
