"""Task noise as task weight: Kendall, Gal & Cipolla (2018) as a generative program."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from bmtl.labels import check_targets
from bmtl.models.guides import MeanField, PointMass
from bmtl.models.networks.mlp import linear
from bmtl.tasks import check_names, observe, shared, task

Kind = Literal["regression"] | int


# A log-variance travels over ten units where a weight travels over a tenth, and Adam's steps are of one size for both.
_NOISE_LR_MULTIPLIER = 10.0


class Homoscedastic(nn.Module):
    """Regressions and classifications on a shared trunk, each with a noise of its own that does not depend on x.

    With ``s_t = log sigma_t^2`` and a task's head output f_t(x):

    * regression: ``y ~ Normal(f, sigma)``, or ``Laplace(f, sigma)``;
    * classification of C classes: ``y ~ Categorical(logits = f / sigma^2)``.

    A small noise is a large weight: at a fixed mean loss L the maximum-likelihood weight of a task is ``1 / (2 L)`` up to
    the likelihood's constant, and so learning the noise balances the tasks.

    Args:
        trunk: Maps x to a representation ``(B, width)``, marked as shared.
        width: Width of the representation.
        targets: For each target "regression" or its number of classes; each is a task of that name.
        n_data: Number of data, for all targets or by target: the size of each plate.
        noise: "fixed" trains at sigma = 1 on squared errors / 2 (the deterministic baseline; `set_noise` sets it for
            predictions); "parameter" learns s_t; "latent" gives it the prior ``s_t ~ Normal(noise_prior)`` inside its
            task, so that its KL is the task's.
        head: "linear" has point-mass weights, "bayesian" the prior ``Normal(0, prior_scale)`` on every weight and bias.
        prior_scale: Standard deviation of the head weights' prior; ``1 / sqrt(width)`` by default, which makes the prior
            variance of f of the order of the representation's mean square.
        noise_prior: Mean and standard deviation of s_t's prior, for standardised targets.
        likelihood: Of the regressions.
        classification: "exact" as above. "kendall" trains on the paper's approximation ``CE(f) / sigma^2 + log sigma``,
            which is no density; predictions then still use the exact form.
        generator: Draws the heads' initial weights; None uses torch's global generator.

    Raises:
        ValueError: If a target is neither "regression" nor 2 or more classes, `n_data` lacks a target, or an option is
            unknown; if `n_data` is below 1 or a prior's standard deviation is not positive.

    Source:
        Kendall, Gal & Cipolla (2018), section 3. Their approximation of the softmax's normaliser is exact at sigma = 1
        only; "exact" keeps the normaliser, and is temperature scaling.
    """

    def __init__(
        self,
        trunk: Callable[..., Tensor],
        width: int,
        targets: Mapping[str, Kind],
        n_data: int | Mapping[str, int],
        *,
        noise: Literal["fixed", "parameter", "latent"] = "parameter",
        head: Literal["linear", "bayesian"] = "linear",
        prior_scale: float | None = None,
        noise_prior: tuple[float, float] = (0.0, 2.0),
        likelihood: Literal["gaussian", "laplace"] = "gaussian",
        classification: Literal["exact", "kendall"] = "exact",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        names = check_names(tuple(targets))
        _check_option("noise", noise, ("fixed", "parameter", "latent"))
        _check_option("head", head, ("linear", "bayesian"))
        _check_option("likelihood", likelihood, ("gaussian", "laplace"))
        _check_option("classification", classification, ("exact", "kendall"))
        for name, kind in targets.items():
            if kind != "regression" and not (isinstance(kind, int) and kind >= 2):
                raise ValueError(
                    f"Target {name!r} is 'regression' or a number of classes from 2, and {kind!r} was given."
                )
        if isinstance(n_data, Mapping) and set(names) - set(n_data):
            raise ValueError(f"n_data lacks the targets {sorted(set(names) - set(n_data))}.")
        self.trunk = trunk
        self.targets = dict(targets)
        self.n_data = {name: n_data[name] if isinstance(n_data, Mapping) else n_data for name in names}
        if min(self.n_data.values()) < 1:
            raise ValueError(f"n_data is a number of data, from 1, and {n_data} was given.")
        for option, sd in (("prior_scale", prior_scale), ("noise_prior", noise_prior[1])):
            if sd is not None and not 0 < sd < math.inf:
                raise ValueError(f"{option} has a positive standard deviation, and {sd} was given.")
        self.noise, self.head, self.likelihood, self.classification = noise, head, likelihood, classification
        self.prior_scale = width**-0.5 if prior_scale is None else prior_scale
        self.noise_prior = noise_prior
        heads = {name: linear(width, 1 if kind == "regression" else kind, generator) for name, kind in targets.items()}
        if head == "linear":
            # Module names must not hold a dot, target names may: keyed by position.
            self.heads = nn.ModuleList(heads.values())
        else:
            self._head_start = {n: torch.cat([h.weight, h.bias[:, None]], 1).detach() for n, h in heads.items()}
        if noise == "parameter":
            self.scaled_log_variance = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in names])
        elif noise == "fixed":
            self.fixed_log_variance = nn.Buffer(torch.zeros(len(names)))

    def guide(self, kind: Literal["normal", "point"] = "normal", scale: float = 0.005) -> MeanField | PointMass:
        """A guide for this program's latents: independent normals, or point masses.

        Args:
            kind: "normal" or "point".
            scale: Starting standard deviation of the normals.
        """
        _check_option("kind", kind, ("normal", "point"))
        latents: dict[str, Tensor] = {}
        for name in self.targets:
            if self.head == "bayesian":
                latents[f"head_{name}"] = self._head_start[name]
            if self.noise == "latent":
                latents[f"log_variance_{name}"] = torch.full((), float(self.noise_prior[0]))
        lr_multiplier = {f"log_variance_{name}": _NOISE_LR_MULTIPLIER for name in self.targets}
        return MeanField(latents, scale, lr_multiplier) if kind == "normal" else PointMass(latents, lr_multiplier)

    @torch.no_grad()
    def set_noise(self, sigma: Mapping[str, float]) -> None:
        """Sets the fixed noise of the named targets, for predictions of a program that was trained at sigma = 1.

        Raises:
            ValueError: If the noise is not fixed, a target is unknown, or a sigma is not positive.
        """
        if self.noise != "fixed":
            raise ValueError(f"Only a fixed noise is set by hand, and this program's noise is {self.noise!r}.")
        index = {name: i for i, name in enumerate(self.targets)}
        for name, value in sigma.items():
            if name not in index or not 0 < value < math.inf:
                raise ValueError(f"sigma maps targets among {list(index)} to positive numbers; {name!r}: {value}.")
            self.fixed_log_variance[index[name]] = 2 * math.log(value)

    def forward(self, x: Tensor | Mapping[str, Tensor], y: Mapping[str, Tensor] | None = None) -> None:
        """The program.

        Args:
            x: Inputs, ``(B, ...)`` for all targets, or each target's own.
            y: Targets ``(B,)`` by name, NaN (regression) or -1 (classes) where a label is missing; None predicts.
        """
        own_inputs = isinstance(x, Mapping)
        h = None if own_inputs else shared(self.trunk(x))
        rows: dict[int, pyro.plate] = {}  # targets with common inputs and as many data have one plate
        for i, (name, kind) in enumerate(self.targets.items()):
            if y is not None and name not in y:
                raise ValueError(f"The batch has targets {sorted(y)}, and the program also has {name!r}.")
            n = self.n_data[name]
            if isinstance(x, Mapping):
                if name not in x:
                    raise ValueError(f"x has inputs for {sorted(x)}, and the program also has {name!r}.")
                h = shared(self.trunk(x[name]))
            if own_inputs or n not in rows:
                rows[n] = pyro.plate(f"{name}_rows", n, subsample=h)
            assert h is not None
            with task(name):
                f = self._head(i, name, kind, h)
                s = self._log_variance(i, name)
                with rows[n]:
                    self._observe(name, kind, f, s, None if y is None else y[name])

    def _head(self, i: int, name: str, kind: Kind, h: Tensor) -> Tensor:
        """f: ``(B,)`` for a regression, ``(B, C)`` for C classes; S vectorised particles stand left of B."""
        if self.head == "linear":
            f = self.heads[i](h)
        else:
            f = affine(h, pyro.sample(f"head_{name}", self._head_prior(name, h)))
        return f.squeeze(-1) if kind == "regression" else f

    def _head_prior(self, name: str, h: Tensor) -> TorchDistribution:
        shape = self._head_start[name].shape
        return dist.Normal(h.new_zeros(()), h.new_tensor(self.prior_scale)).expand(shape).to_event(2)

    def _log_variance(self, i: int, name: str) -> Tensor:
        if self.noise == "parameter":
            return self.scaled_log_variance[i] * _NOISE_LR_MULTIPLIER
        if self.noise == "fixed":
            return self.fixed_log_variance[i]
        return pyro.sample(f"log_variance_{name}", dist.Normal(*self.noise_prior))

    def _observe(self, name: str, kind: Kind, f: Tensor, s: Tensor, y: Tensor | None) -> None:
        site = f"y_{name}"
        if y is not None and kind == "regression" and self.noise == "fixed":
            # Trained at sigma = 1 and without the density's constant: balancers that take logarithms or ratios of losses
            # would see it.
            check_targets(site, f.shape, y, discrete=False)
            seen = ~y.isnan()
            error = torch.where(seen, y, 0.0) - f
            _factor(site, error.abs() if self.likelihood == "laplace" else error.square() / 2, seen)
        elif y is not None and kind != "regression" and self.classification == "kendall":
            check_targets(site, f.shape[:-1], y, discrete=True, categorical=True)
            seen = y != -1
            try:
                loss = -dist.Categorical(logits=f).log_prob(torch.where(seen, y, 0))
            except ValueError as error:  # a class that there is not
                raise ValueError(f"At site {site!r}: {error}") from error
            _factor(site, loss * torch.exp(-s) + 0.5 * s, seen)
        elif kind == "regression":
            scale = torch.exp(0.5 * s)
            observe(site, (dist.Normal if self.likelihood == "gaussian" else dist.Laplace)(f, scale), y)
        else:
            observe(site, dist.Categorical(logits=f * torch.exp(-s)[..., None]), y)


def affine(h: Tensor, weight: Tensor) -> Tensor:
    """``(..., B, C)`` from a representation ``(B, D)`` and a latent head ``(..., C, D + 1)`` whose last column is the bias.

    Vectorised particles of the head are ``(S, 1, C, D + 1)``: their plate leaves room for that of the rows.
    """
    if weight.dim() > 2:
        weight = weight.squeeze(-3)
    return h @ weight[..., :-1].mT + weight[..., None, :, -1]


def _factor(site: str, loss: Tensor, seen: Tensor) -> None:
    with poutine.mask(mask=seen):  # type: ignore[call-overload]
        pyro.factor(site, -loss)


def _check_option(name: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise ValueError(f"{name} is one of {', '.join(map(repr, options))}, and {value!r} was given.")
