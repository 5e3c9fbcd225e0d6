"""Guides for programs that declare their latents: a name, a starting value, and how the posterior is shaped."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, transforms
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.tasks import task_plate

GuideKind = Literal["normal", "correlated", "point"]

_CORRELATION_START = 0.1  # standard deviation of a correlation factor's normal, before the transform


@dataclass(frozen=True, eq=False)
class Latent:
    """Description of a latent of a program, for its guide.

    Attributes:
        start: Starting value of the posterior's location; its shape is the event shape.
        lr_multiplier: How many units the location moves where another parameter moves one.
        form: "entries" has a posterior for each entry. "rows" may let the entries of a row covary, and has a closed
            divergence from a multivariate normal over rows. "correlation" is the Cholesky factor of a correlation matrix,
            which starts at the identity.
        tasks: The tasks whose latent this is, in a task plate: the start is then ``(K, 1, ...)``.
        label: Of that plate.
    """

    start: Tensor
    lr_multiplier: float = 1.0
    form: Literal["entries", "rows", "correlation"] = "entries"
    tasks: tuple[str, ...] = ()
    label: str | None = None

    @property
    def batch_dims(self) -> int:
        """How many of the start's dimensions are those of plates."""
        return 2 if self.tasks else 0

    @classmethod
    def stacked(cls, latents: Mapping[str, "Latent"], label: str) -> "Latent":
        """The latents of several tasks, alike in all but their start, as one in a task plate.

        Args:
            latents: By task.
            label: Of the plate.
        """
        first = next(iter(latents.values()))
        start = torch.stack([latent.start for latent in latents.values()]).unsqueeze(1)
        return replace(first, start=start, tasks=tuple(latents), label=label)

    def posterior(self, kind: GuideKind, scale: float) -> nn.Module:
        """A module that returns the posterior's distribution.

        Args:
            kind: "normal" has independent normals, "correlated" a full covariance for each row where the form is "rows",
                and "point" point masses.
            scale: Starting standard deviation of the normals.
        """
        if self.form == "correlation":
            return CorrelationFactor(len(self.start), kind == "point")
        if kind == "point":
            return Point(self.start, self.lr_multiplier, self.batch_dims)
        if self.form == "rows":
            return NormalRows(self.start, scale, self.lr_multiplier, kind == "correlated")
        return Normal(self.start, scale, self.lr_multiplier, self.batch_dims)


# ---- Posteriors of one latent ----------------------------------------------------------------------------------------


class Normal(nn.Module):
    """Independent normals, one for each entry.

    Args:
        start: Starting value of the location.
        scale: Starting standard deviation.
        lr_multiplier: See `Latent`.
        batch_dims: How many of its dimensions are those of plates.

    Raises:
        ValueError: If `scale` is not positive.
    """

    def __init__(self, start: Tensor, scale: float, lr_multiplier: float = 1.0, batch_dims: int = 0) -> None:
        super().__init__()
        self.batch_dims = batch_dims
        if not 0 < scale < math.inf:
            raise ValueError(f"scale is a standard deviation, above 0, and {scale} was given.")
        self.lr_multiplier = lr_multiplier
        self.loc = nn.Parameter(start.detach() / lr_multiplier)
        self.rho = nn.Parameter(torch.full_like(start, _inverse_softplus(scale)))

    def forward(self) -> TorchDistribution:
        fn = dist.Normal(self.loc * self.lr_multiplier, F.softplus(self.rho))
        return fn.to_event(self.loc.dim() - self.batch_dims)


class NormalRows(Normal):
    """Multivariate normals, one for each row of a matrix.

    Args:
        start: Starting value of the location ``(C, H)``.
        scale: Starting standard deviation.
        lr_multiplier: See `Latent`.
        correlated: Whether the entries of a row covary: ``C H^2`` numbers.
    """

    def __init__(self, start: Tensor, scale: float, lr_multiplier: float = 1.0, correlated: bool = True) -> None:
        super().__init__(start, scale, lr_multiplier)
        self.below = nn.Parameter(start.new_zeros(*start.shape, start.shape[-1])) if correlated else None

    def forward(self) -> TorchDistribution:
        width = self.loc.shape[-1]
        tril = torch.eye(width, dtype=self.loc.dtype, device=self.loc.device).expand(*self.loc.shape, -1)
        if self.below is not None:
            # Relative to the diagonal and over sqrt(H): steps of one size on H entries must not swamp a row's variance.
            tril = tril + self.below.tril(-1) / width**0.5
        tril = F.softplus(self.rho)[..., None] * tril
        return dist.MultivariateNormal(self.loc * self.lr_multiplier, scale_tril=tril).to_event(1)


class CorrelationFactor(nn.Module):
    """The Cholesky factor of a correlation matrix: normals through a transform, from the identity.

    Args:
        size: Number of rows.
        point: Whether it is a point mass.
    """

    def __init__(self, size: int, point: bool) -> None:
        super().__init__()
        entries = size * (size - 1) // 2
        self.loc = nn.Parameter(torch.zeros(entries))
        self.rho = None if point else nn.Parameter(torch.full((entries,), _CORRELATION_START).expm1().log())

    def forward(self) -> TorchDistribution:
        to_factor = transforms.CorrCholeskyTransform()
        if self.rho is None:
            return dist.Delta(to_factor(self.loc), event_dim=2)
        normal = dist.Normal(self.loc, F.softplus(self.rho)).to_event(1)
        return dist.TransformedDistribution(normal, [to_factor])


class Point(nn.Module):
    """A point mass.

    Args:
        start: Starting value.
        lr_multiplier: See `Latent`.
        batch_dims: How many of its dimensions are those of plates.
    """

    def __init__(self, start: Tensor, lr_multiplier: float = 1.0, batch_dims: int = 0) -> None:
        super().__init__()
        self.lr_multiplier, self.batch_dims = lr_multiplier, batch_dims
        self.value = nn.Parameter(start.detach() / lr_multiplier)

    def forward(self) -> TorchDistribution:
        return dist.Delta(self.value * self.lr_multiplier, event_dim=self.value.dim() - self.batch_dims)


def _inverse_softplus(scale: float) -> float:
    return scale + math.log(-math.expm1(-scale))  # without overflow


# ---- Guides ----------------------------------------------------------------------------------------------------------


class Guide(nn.Module):
    """Independent posteriors of latents, in the model's order. ``guide[site]`` is the posterior's module.

    A program without latents has an empty guide: its parameters are point masses already.

    Args:
        posteriors: By site, a module that returns the posterior's distribution.
        stacked: Those of the latents that are in a task plate, by site.
    """

    def __init__(self, posteriors: Mapping[str, nn.Module], stacked: Mapping[str, Latent] | None = None) -> None:
        super().__init__()
        self.latents = tuple(posteriors)
        self._stacked = {site: (of.tasks, of.label) for site, of in (stacked or {}).items() if of.tasks}
        # Module names must not hold a dot, sites may: by position.
        self.posteriors = nn.ModuleList(posteriors.values())

    @classmethod
    def of(cls, latents: Mapping[str, Latent], kind: GuideKind, scale: float) -> "Guide":
        """The guide of latents by site; see `Latent.posterior` for the arguments."""
        return cls({site: latent.posterior(kind, scale) for site, latent in latents.items()}, latents)

    @classmethod
    def joined(cls, guides: Sequence["Guide"]) -> "Guide":
        """One guide of the latents of several."""
        made = cls({site: q for guide in guides for site, q in guide.items()})
        for guide in guides:
            made._stacked |= guide._stacked
        return made

    def __getitem__(self, site: str) -> nn.Module:
        if site not in self.latents:
            raise ValueError(f"The guide has the sites {list(self.latents)}, and {site!r} was asked for.")
        return self.posteriors[self.latents.index(site)]

    def items(self) -> Iterator[tuple[str, nn.Module]]:
        """Sites and their posteriors, in order."""
        return zip(self.latents, self.posteriors, strict=True)

    def forward(self, *args: Any, **kwargs: Any) -> None:
        plates = {label: task_plate(tasks, dim=-2, label=label) for tasks, label in set(self._stacked.values())}
        for site, posterior in self.items():
            with plates[self._stacked[site][1]] if site in self._stacked else nullcontext():
                pyro.sample(site, posterior())


class MeanField(Guide):
    """Independent normals, one for each entry of each latent, in the model's order.

    Guide sites and model sites are both normal (or of a family with a registered divergence), so `TaskELBO` with
    ``estimator="analytic"`` takes their KL in closed form.

    Args:
        latents: Starting value of each latent's location, by site name; its shape is the event shape.
        scale: Starting standard deviation. Small, so that training starts near the point-mass model: an optimizer that
            takes steps of one size, as Adam does, needs thousands of them to quieten a noisy start.
        lr_multiplier: By site name, how many units a location moves where another parameter moves one; 1 for
            sites not named.

    Raises:
        ValueError: If `scale` is not positive.
    """

    def __init__(
        self, latents: Mapping[str, Tensor], scale: float = 0.005, lr_multiplier: Mapping[str, float] | None = None
    ) -> None:
        pace = lr_multiplier or {}
        super().__init__({name: Normal(start, scale, pace.get(name, 1.0)) for name, start in latents.items()})


class PointMass(Guide):
    """One value for each latent: maximum a posteriori, or maximum likelihood where the prior is masked.

    Args:
        latents: Starting value of each latent, by site name; its shape is the event shape.
        lr_multiplier: As for `MeanField`.
    """

    def __init__(self, latents: Mapping[str, Tensor], lr_multiplier: Mapping[str, float] | None = None) -> None:
        pace = lr_multiplier or {}
        super().__init__({name: Point(start, pace.get(name, 1.0)) for name, start in latents.items()})
