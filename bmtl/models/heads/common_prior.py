"""One normal prior for all tasks' heads, learnt with them: Bakker & Heskes (2003)."""

from collections.abc import Mapping
from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.guides import GuideKind, Latent
from bmtl.models.heads.bayesian import BayesianHeads
from bmtl.models.likelihoods import Likelihood


class CommonPriorHeads(BayesianHeads):
    """Heads from one normal, with mean and covariance learnt.

    For head w_t of task t, ``(C, width + 1)`` with the bias in the last column, and row c of it:

        w_tc ~ Normal(m_c, L L')

    Mean and covariance are parameters and not latents: they follow from the tasks' posteriors alone (empirical Bayes),
    ``m = mean_t E[w_t]`` and ``L L' = mean_t E[(w_t - m)(w_t - m)']``. A narrow prior makes the tasks one task, a wide
    one leaves each to itself. A head's KL is its task's. Targets of one likelihood and as many outputs have a prior
    together; a target that is the only one of its kind has one of its own, which is then its posterior.

    The guide "correlated" has a full covariance for each row of a head, ``C (width + 1)^2`` numbers a task; "normal" is
    independent normals; "point" is point masses, under which a learnt covariance shrinks to nothing.

    Args:
        width: Width of the representation.
        likelihoods: By target, what the output is for.
        prior_scale: Standard deviation of the prior at the start, where its mean is 0; ``1 / sqrt(width)`` by default.
        generator: Draws the initial weights; None uses torch's global generator.

    Raises:
        ValueError: If `prior_scale` is not positive.

    Source:
        Bakker & Heskes (2003), "Task Clustering and Gating for Bayesian Multitask Learning", section 2, with one cluster
        and no gating. Their EM over exact posteriors is here one ELBO; its fixed point is the same where the guide holds
        the exact posterior (Gaussian likelihoods on a fixed trunk under the guide "correlated").
    """

    kinds: ClassVar[tuple[GuideKind, ...]] = ("correlated", "normal", "point")

    def __init__(
        self,
        width: int,
        likelihoods: Mapping[str, Likelihood],
        *,
        prior_scale: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(width, likelihoods, prior_scale=prior_scale, generator=generator)
        self.kind_of = {name: f"{of.name}-{of.outputs}" for name, of in likelihoods.items()}
        outputs = {self.kind_of[name]: of.outputs for name, of in likelihoods.items()}
        priors = {kind: CommonPrior(outputs[kind], width + 1, self.prior_scale) for kind in sorted(outputs)}
        self.priors = nn.ModuleDict(priors)

    def latents(self, target: str) -> dict[str, Latent]:
        return {f"head_{target}": Latent(self.starts[target], form="rows")}

    def prior(self, target: str) -> tuple[Tensor, Tensor]:
        """The mean ``(outputs, width + 1)`` and covariance ``(width + 1, width + 1)`` of a target's prior.

        Raises:
            ValueError: If there is no such target.
        """
        if target not in self.kind_of:
            raise ValueError(f"The targets are {', '.join(self.targets)}, and {target!r} was given.")
        common = self._common(target)
        return common.loc, common.scale_tril @ common.scale_tril.mT

    def prior_of(self, target: str, h: Tensor) -> TorchDistribution:
        common = self._common(target)
        return dist.MultivariateNormal(common.loc, scale_tril=common.scale_tril).to_event(1)

    def _common(self, target: str) -> "CommonPrior":
        common = self.priors[self.kind_of[target]]
        assert isinstance(common, CommonPrior)
        return common


class CommonPrior(nn.Module):
    """The mean ``(C, H)`` of the heads and the covariance ``(H, H)`` of their rows, as parameters.

    Args:
        outputs: C.
        width: H, the bias included.
        scale: Standard deviation at the start; the mean starts at 0.
    """

    def __init__(self, outputs: int, width: int, scale: float) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(outputs, width))
        self.rho = nn.Parameter(torch.full((width,), scale).expm1().log())
        self.below = nn.Parameter(torch.zeros(width, width))

    @property
    def scale_tril(self) -> Tensor:
        """Cholesky factor of the rows' covariance."""
        # Relative to the diagonal and over sqrt(H): steps of one size on H entries a row must not swamp its variance.
        h = len(self.rho)
        unit = torch.eye(h, dtype=self.rho.dtype, device=self.rho.device)
        return F.softplus(self.rho)[:, None] * (unit + self.below.tril(-1) / h**0.5)
