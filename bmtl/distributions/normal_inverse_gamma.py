"""The evidential head's distribution: a normal-inverse-gamma over mean and variance, integrated out."""

from typing import Any, Self

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn import functional as F

from bmtl.distributions import t_functions
from bmtl.distributions.student_t import StudentTMarginal, at_least_float32

_FLOOR = 1e-6  # added after softplus, which underflows; a clamp would stop the gradient


class NormalInverseGamma(StudentTMarginal):
    """Label whose mean and variance are unknown, with a normal-inverse-gamma over them.

    ``s2 ~ InverseGamma(alpha, beta)``, ``mu ~ Normal(gamma, sqrt(s2 / nu))``, ``y ~ Normal(mu, sqrt(s2))``. As a
    distribution of y alone it is a Student-t with ``df = 2 alpha`` degrees of freedom, location `gamma` and squared scale
    ``beta (1 + nu) / (alpha nu)``. Everything here is of that marginal, in closed form; `joint` is the program with both
    latents. The variance splits into `aleatoric` E[s2] and `epistemic` Var[mu].

    **The split is no property of the data.** A likelihood sees nu and beta only through ``beta (1 + nu) / nu``: to move
    along that ridge changes no prediction, while epistemic / aleatoric is 1 / nu exactly. Where on the ridge training
    ends is decided by the penalty (`evidence_penalty` pushes nu down), the starting weights and the optimizer. Compare
    epistemic variances within one model; tying nu to alpha (the evidential likelihood's ``tie=True``) identifies the split.
    In trained networks nu varies less between rows than the noise does, and the epistemic variance mostly ranks rows as
    the aleatoric one (``docs/mt_enet.md``); 1 / nu is the part of it that is not the predicted noise.

    Args:
        gamma: Location; batch shapes broadcast.
        nu: Pseudo-observations of the mean, above 0.
        alpha: Half the degrees of freedom, above 1, so that the variance exists.
        beta: Scale of the variance, above 0.
        excess: alpha - 1, where it is known to more digits than alpha itself holds (see `from_raw`).

    Raises:
        ValueError: If a parameter lies outside its range, while validation is on.

    Source:
        Amini et al. (2020), "Deep Evidential Regression". Oh & Shin (2022), "Improving Evidential Deep Learning via
        Multi-Task Learning", equations 1 to 5; their t(y; l, s, n) has the *squared* scale in place of s.
    """

    arg_constraints = {  # noqa: RUF012
        "gamma": constraints.real,
        "nu": constraints.positive,
        "alpha": constraints.greater_than(1.0),
        "beta": constraints.positive,
    }

    def __init__(
        self,
        gamma: Tensor | float,
        nu: Tensor | float,
        alpha: Tensor | float,
        beta: Tensor | float,
        *,
        excess: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.gamma, self.nu, self.alpha, self.beta = at_least_float32(*broadcast_all(gamma, nu, alpha, beta))
        self.excess = self.alpha - 1 if excess is None else at_least_float32(excess)[0].expand(self.alpha.shape)
        super().__init__(self.gamma.shape, validate_args=validate_args)

    @classmethod
    def from_raw(cls, raw: Tensor, min_scale: float = 0.0) -> Self:
        """The distribution of a head's four outputs, whatever they are.

        gamma is linear; nu, alpha - 1 and beta are softplus plus 1e-6. Without that floor a float32 softplus is 0 below
        -104 (infinite loss, NaN gradient), and ``1 + softplus`` is 1 below -17 (infinite variance). The floors presume
        standardised labels. Half precision, in which 1e-6 has one digit, becomes float32 first.

        Args:
            raw: ``(..., 4)``, in the order gamma, nu, alpha, beta.
            min_scale: Lower bound on the Student-t's scale; the resolution of the labels over their standard deviation
                keeps the density of repeated labels finite.

        Raises:
            ValueError: If `raw` has not four outputs, or `min_scale` is negative.
        """
        if not raw.dim() or raw.shape[-1] != 4:
            raise ValueError(f"raw is (..., 4), one output a parameter, and its shape is {tuple(raw.shape)}.")
        return cls.from_outputs(raw[..., 0], raw[..., 1:], min_scale)

    @classmethod
    def from_outputs(cls, gamma: Tensor, evidence: Tensor, min_scale: float = 0.0) -> Self:
        """As `from_raw`, of two heads: a loss of the prediction alone then does not reach the other one's parameters.

        Args:
            gamma: ``(...)``.
            evidence: ``(..., 3)``, in the order nu, alpha, beta.
            min_scale: As for `from_raw`.

        Raises:
            ValueError: If `evidence` has not three outputs, or `min_scale` is negative.
        """
        if evidence.shape[-1:] != (3,):
            raise ValueError(f"evidence is (..., 3): nu, alpha, beta; its shape is {tuple(evidence.shape)}.")
        if not 0 <= min_scale < float("inf"):
            raise ValueError(f"min_scale is a scale, from 0, and {min_scale} was given.")
        (evidence,) = at_least_float32(evidence)
        nu, excess, beta = (F.softplus(evidence) + _FLOOR).unbind(-1)
        alpha = 1 + excess
        if min_scale:
            beta = beta + min_scale**2 * alpha * nu / (1 + nu)
        return cls(gamma, nu, alpha, beta, excess=excess)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = self._get_checked_instance(NormalInverseGamma, _instance)
        for name in ("gamma", "nu", "alpha", "beta", "excess"):
            setattr(new, name, getattr(self, name).expand(batch_shape))
        super(NormalInverseGamma, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    # ---- The marginal Student-t ----------------------------------------------------------------------------------

    @property
    def loc(self) -> Tensor:  # type: ignore[override]
        """Location of the marginal Student-t: gamma."""
        return self.gamma

    @property
    def w(self) -> Tensor:  # type: ignore[override]
        """``df * scale^2 = 2 beta (1 + nu) / nu``."""
        return 2 * self.beta * (1 + self.nu) / self.nu

    @property
    def aleatoric(self) -> Tensor:
        """Expected noise variance E[s2]."""
        return self.beta / self.excess

    @property
    def epistemic(self) -> Tensor:
        """Variance of the unknown mean, Var[mu]."""
        return self.beta / (self.nu * self.excess)

    @property
    def variance(self) -> Tensor:
        return self.aleatoric + self.epistemic

    # ---- Training signals (Oh & Shin, proposition 2) -------------------------------------------------------------

    def residual(self, value: Tensor) -> Tensor:
        """Label minus prediction."""
        return value - self.gamma

    @property
    def u_nu(self) -> Tensor:
        """Squared error above which a step on the NLL lowers nu, and beta grows: the squared `scale`."""
        return self.w / (2 * self.alpha)

    @property
    def u_alpha(self) -> Tensor:
        """Squared error above which a step on the NLL lowers alpha.

        Above `u_nu` always (digamma(a) - log(a) increases, so the digamma difference is above log(1 + 1 / (2 a))): the
        smaller of the two, which equation 6 asks for, is `u_nu`. A diagnostic.
        """
        return self.w * torch.expm1(t_functions.digamma_step(self.alpha))

    # ---- With its latents ----------------------------------------------------------------------------------------

    def latents(self, name: str) -> tuple[Tensor, Tensor]:
        """Samples the sites ``<name>_s2`` (variance) and ``<name>_mu`` (mean), and returns them in this order."""
        s2 = pyro.sample(f"{name}_s2", dist.InverseGamma(self.alpha, self.beta))
        return s2, pyro.sample(f"{name}_mu", dist.Normal(self.gamma, (s2 / self.nu).sqrt()))

    def joint(self, name: str, value: Tensor | None = None) -> Tensor:
        """The hierarchical program: `latents`, then the site `name` given them.

        Its best guide is exact, ``p.posterior(y).latents(name)``: a single sample of `pyro.infer.Trace_ELBO` then has the
        value and the gradient of the marginal log density.

        Args:
            name: Name of the label's site.
            value: Labels, without missing ones (fill and mask them first); None samples.
        """
        s2, mu = self.latents(name)
        return pyro.sample(name, dist.Normal(mu, s2.sqrt()), obs=value)

    def posterior(self, value: Tensor) -> "NormalInverseGamma":
        """The posterior of mean and variance after one label: of the same family, since the prior is conjugate."""
        e, nu = value - self.gamma, self.nu
        return NormalInverseGamma(
            (nu * self.gamma + value) / (nu + 1),
            nu + 1,
            self.alpha + 0.5,
            self.beta + nu * e.square() / (2 * (nu + 1)),
            excess=self.excess + 0.5,
        )
