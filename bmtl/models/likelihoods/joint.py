"""Several real labels of a row under one normal distribution, whose correlation is learnt."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from bmtl.distributions import MultivariateNormal
from bmtl.labels import read_labels
from bmtl.models.correlation import correlation_factor
from bmtl.models.guides import Latent
from bmtl.models.likelihoods.base import Likelihood, Values, factor, location_and_unit, minimise
from bmtl.models.likelihoods.unknown import Noise, Unknown
from bmtl.targets import Family, Vector
from bmtl.tasks import observe


class JointNormal(Likelihood):
    """``y ~ MultivariateNormal(f, D R D)``: d real labels of a row, with one noise ``log D^2`` each and a correlation R.

    A row with some labels missing counts with the marginal density of those present, and teaches about the others
    through R. The noise's correlation is that of what the inputs do not explain.

    It serves a target that is a vector, or several real targets of a table: see `components`. It is one task either way.

    Args:
        count: Number of labels d, from 2.
        noise: What ``log D^2`` and R are: "parameter"; "latent" with normal and LKJ priors; "fixed" is the identity in
            training, where the loss is half the sum of squared errors.
        noise_prior: Mean and standard deviation of the prior of each ``log D^2``, for standardised labels.
        concentration: Of R's LKJ prior: 1 is uniform over correlation matrices, more draws it to the identity.
        components: Names of d real targets, whose labels it takes from the batch; each is predicted as its own target,
            with its marginal. None takes vectors ``(B, d)`` as labels.

    Raises:
        ValueError: If there are fewer than two labels, or an option is unknown or out of range.

    Source:
        Lewandowski, Kurowicka & Joe (2009), "Generating random correlation matrices based on vines and extended onion
        method", for the prior.
    """

    name = "joint-normal"
    families = ("vector",)

    def __init__(
        self,
        count: int,
        noise: Noise = "parameter",
        noise_prior: tuple[float, float] = (0.0, 2.0),
        *,
        concentration: float = 1.0,
        components: Sequence[str] | None = None,
    ) -> None:
        if count < 2 or (components is not None and len(components) != count):
            raise ValueError(f"A joint distribution is of 2 or more labels; count={count}, components={components}.")
        if not 0 < concentration < math.inf:
            raise ValueError(f"concentration is above 0 and finite, and {concentration} was given.")
        start = torch.full((count,), noise_prior[0] if noise == "latent" else 0.0)
        correlation = Correlation(count, noise, concentration)
        super().__init__(count, noise, {"log_variance": Unknown(start, noise, noise_prior)})
        self.unknowns["correlation"] = correlation
        self.components = None if components is None else tuple(components)
        self.location, self.unit = nn.Buffer(torch.zeros(count)), nn.Buffer(torch.ones(count))

    @classmethod
    def of(cls, family: Family, **options: Any) -> Self:
        if not isinstance(family, Vector):
            raise ValueError(f"A joint distribution needs a target of vectors, and its family is {family.name!r}.")
        return cls(len(family.components), **options)

    def targets(self, name: str) -> tuple[str, ...]:
        return (name,) if self.components is None else self.components

    def gather(self, name: str, y: Mapping[str, Tensor]) -> Tensor:
        return y[name] if self.components is None else torch.stack([y[c] for c in self.components], -1)

    def labelled(self, y: Tensor) -> Tensor:
        return ~y.isnan().all(-1)

    @torch.no_grad()
    def start(self, y: Tensor) -> None:
        for i, column in enumerate(y.unbind(-1)):
            found = location_and_unit(column)
            if found is not None:
                self.location[i], self.unit[i] = found

    def distribution(self, f: Tensor, values: Values) -> MultivariateNormal:
        scale = self.unit * torch.exp(0.5 * values["log_variance"])
        tril = scale[..., None] * values["correlation"]
        return MultivariateNormal(self.location + self.unit * f, scale_tril=tril)

    def observe(self, target: str, f: Tensor, values: Values, y: Tensor | None, objective: str) -> None:
        p = self.distribution(f, values)
        if y is None and self.components is not None:
            pyro.sample(f"y_{target}", p, infer={"components": self.components})  # type: ignore[arg-type]
        elif y is None or not self.trains_on_deviance:
            observe(f"y_{target}", p, y)
        else:
            labels = read_labels(f"y_{target}", p, y)
            loss = self.deviance(f, labels.value)
            factor(f"y_{target}", torch.where(y.isnan(), 0.0, loss).sum(-1), labels)

    def deviance(self, f: Tensor, y: Tensor) -> Tensor:
        """That of each label, ``(..., B, d)``."""
        return ((y - self.location) / self.unit - f).square() / 2

    def calibrate(self, f: Tensor, y: Tensor) -> None:
        rows = self.labelled(y)
        if not self.needs_calibration or not rows.any():
            return
        wide, labels = f[rows].detach().double(), y[rows].double()
        unknowns = dict(self._unknowns())
        log_variance: Tensor = unknowns["log_variance"].value.double().clone().requires_grad_()
        below = torch.zeros(self.outputs, self.outputs, dtype=torch.float64, device=f.device, requires_grad=True)

        def loss() -> Tensor:
            values = {"log_variance": log_variance, "correlation": correlation_factor(below)}
            found = read_labels(f"y_{self.name}", self.distribution(wide, values), labels)
            nll: Tensor = -found.fn.log_prob(found.value).mean()
            return nll - unknowns["log_variance"].log_prior(log_variance) / len(labels)

        minimise(loss, [log_variance, below])
        unknowns["log_variance"].set(log_variance.detach())
        unknowns["correlation"].set(correlation_factor(below.detach()))


class Correlation(nn.Module):
    """The Cholesky factor of a correlation matrix ``(d, d)``: the identity, a parameter, or latent under an LKJ prior.

    Args:
        count: d.
        noise: "fixed", "parameter" or "latent".
        concentration: Of the prior.
    """

    def __init__(self, count: int, noise: Noise, concentration: float) -> None:
        super().__init__()
        self.noise, self.concentration = noise, concentration
        self.start = nn.Buffer(torch.eye(count))
        if noise == "parameter":
            self.below = nn.Parameter(torch.zeros(count, count))
        elif noise == "fixed":
            self.value = nn.Buffer(torch.eye(count))

    def latent(self) -> Latent | None:
        """As `Unknown.latent`."""
        return Latent(self.start, form="correlation") if self.noise == "latent" else None

    def forward(self, site: str) -> Tensor:
        if self.noise == "parameter":
            return correlation_factor(self.below)
        if self.noise == "fixed":
            return self.value
        prior = dist.LKJCholesky(len(self.start), self.start.new_tensor(self.concentration))
        found: Tensor = pyro.sample(site, prior)
        return found

    @torch.no_grad()
    def set(self, value: Tensor) -> None:
        """As `Unknown.set`."""
        self.value.copy_(value)
