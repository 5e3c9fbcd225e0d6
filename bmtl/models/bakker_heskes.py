"""One normal prior for all tasks' heads, learnt with them: Bakker & Heskes (2003) as a Pyro program."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.guides import MeanField, PointMass
from bmtl.models.homoscedastic import Homoscedastic, Kind


class BakkerHeskes(Homoscedastic):
    """Regressions and classifications on a shared trunk whose heads come from one normal, with mean and covariance learnt.

    For head w_t of task t, ``(C, width + 1)`` with the bias in the last column, and row c of it:

        w_tc ~ Normal(m_c, L L')

    Mean and covariance are parameters and not latents: they follow from the tasks' posteriors alone (empirical Bayes),
    ``m = mean_t E[w_t]`` and ``L L' = mean_t E[(w_t - m)(w_t - m)']``. A narrow prior makes the tasks one task, a wide
    one leaves each to itself. A head's KL is its task's. Targets of one kind (regressions; classes of one number) have
    a prior together; a target that is the only one of its kind has one of its own, which is then its posterior.

    Args:
        trunk: Maps x to a representation ``(B, width)``, marked as shared.
        width: Width of the representation.
        targets: For each target "regression" or its number of classes; each is a task of that name.
        n_data: Number of data, for all targets or by target: the size of each plate.
        prior_scale: Standard deviation of the prior at the start, where its mean is 0; ``1 / sqrt(width)`` by default.
        generator: Draws the heads' initial weights; None uses torch's global generator.
        **likelihood: ``noise``, ``noise_prior``, ``likelihood`` and ``classification``, as for `Homoscedastic`.

    Raises:
        ValueError: As `Homoscedastic`.

    Source:
        Bakker & Heskes (2003), "Task Clustering and Gating for Bayesian Multitask Learning", section 2, with one cluster
        and no gating. Their EM over exact posteriors is here one ELBO; its fixed point is the same where the guide holds
        the exact posterior (regressions on a fixed trunk under ``guide("correlated")``).
    """

    def __init__(
        self,
        trunk: Callable[..., Tensor],
        width: int,
        targets: Mapping[str, Kind],
        n_data: int | Mapping[str, int],
        *,
        prior_scale: float | None = None,
        generator: torch.Generator | None = None,
        **likelihood: Any,
    ) -> None:
        super().__init__(
            trunk,
            width,
            targets,
            n_data,
            head="bayesian",
            prior_scale=prior_scale,
            generator=generator,
            **likelihood,
        )
        outputs = sorted({len(start) for start in self._head_start.values()})
        self.priors = nn.ModuleDict({str(n): _CommonPrior(n, width + 1, self.prior_scale) for n in outputs})

    def guide(
        self, kind: Literal["correlated", "normal", "point"] = "correlated", scale: float = 0.005
    ) -> MeanField | PointMass:
        """A guide for the heads, and the noises where they are latent.

        Args:
            kind: "correlated" has a full covariance for each row of a head, ``C (width + 1)^2`` numbers a task; "normal"
                is independent normals; "point" is point masses, under which a learnt covariance shrinks to nothing.
            scale: Starting standard deviation.
        """
        if kind not in ("correlated", "normal", "point"):
            raise ValueError(f"kind is one of 'correlated', 'normal', 'point', and {kind!r} was given.")
        guide = super().guide("point" if kind == "point" else "normal", scale)
        return guide if isinstance(guide, PointMass) else _NormalRows(guide, kind == "correlated")

    def prior(self, outputs: int = 1) -> tuple[Tensor, Tensor]:
        """The prior's mean ``(C, width + 1)`` and covariance ``(width + 1, width + 1)``.

        Args:
            outputs: Which: 1 for the regressions' heads, C for those of the targets of C classes.

        Raises:
            ValueError: If there is no such target.
        """
        if str(outputs) not in self.priors:
            raise ValueError(f"There are heads of {', '.join(self.priors)} outputs, and {outputs} was given.")
        common = self._common(outputs)
        return common.loc, common.scale_tril @ common.scale_tril.mT

    def _common(self, outputs: int) -> "_CommonPrior":
        common = self.priors[str(outputs)]
        assert isinstance(common, _CommonPrior)
        return common

    def _head_prior(self, name: str, h: Tensor) -> TorchDistribution:
        common = self._common(len(self._head_start[name]))
        return dist.MultivariateNormal(common.loc, scale_tril=common.scale_tril).to_event(1)


class _CommonPrior(nn.Module):
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


class _NormalRows(MeanField):
    """A `MeanField` whose matrices are multivariate normals row by row, so that their KL from such a prior is closed.

    Args:
        start: The mean field to begin with.
        correlated: Whether the entries of a row covary.
    """

    def __init__(self, start: MeanField, correlated: bool) -> None:
        nn.Module.__init__(self)
        self.latents, self.lr_multiplier, self.loc, self.rho = start.latents, start.lr_multiplier, start.loc, start.rho
        matrices = [loc for loc in self.loc if loc.dim() == 2] if correlated else []
        self.below = nn.ParameterList([nn.Parameter(loc.new_zeros(*loc.shape, loc.shape[-1])) for loc in matrices])

    def forward(self, *args: Any, **kwargs: Any) -> None:
        below = iter(self.below)
        for name, lr_multiplier, loc, rho in zip(self.latents, self.lr_multiplier, self.loc, self.rho, strict=True):
            scale = F.softplus(rho)
            if loc.dim() == 2:
                tril = torch.eye(loc.shape[-1], dtype=loc.dtype, device=loc.device).expand(*loc.shape, -1)
                if len(self.below):  # relative to the diagonal, as the prior's
                    tril = tril + next(below).tril(-1) / loc.shape[-1] ** 0.5
                tril = scale[..., None] * tril
                q: TorchDistribution = dist.MultivariateNormal(loc * lr_multiplier, scale_tril=tril).to_event(1)
            else:
                q = dist.Normal(loc * lr_multiplier, scale).to_event(loc.dim())
            pyro.sample(name, q)
