"""Evidential labels that are known only to lie at or beyond a bound."""

from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from bmtl.models.distributions import student_t
from bmtl.models.distributions.normal_inverse_gamma import NormalInverseGamma


class CensoredNormalInverseGamma(TorchDistribution):
    """What a measurement that stops at a bound reports of a `NormalInverseGamma` label: ``clip(y, lower, upper)``.

    A label at or beyond a bound contributes the *probability* beyond it, any other its density. Affinities have such
    bounds: 70 % of the Davis data are "no binding up to 10 uM", stored as exactly 5.0, and their plain density is
    unbounded.

    Log-likelihoods mix probabilities and densities: compare only models that were scored with the same bounds.

    Args:
        base: The label without censoring.
        lower: Bound below, in the label's unit; -inf for none.
        upper: Bound above; inf for none.

    Raises:
        ValueError: If there is neither bound, or they are not in order.
    """

    arg_constraints = {"lower": constraints.dependent, "upper": constraints.dependent}  # noqa: RUF012
    support = constraints.real
    has_rsample = True

    def __init__(
        self,
        base: NormalInverseGamma,
        lower: Tensor | float = -torch.inf,
        upper: Tensor | float = torch.inf,
        *,
        validate_args: bool | None = None,
    ) -> None:
        gamma, self.lower, self.upper = broadcast_all(base.gamma, lower, upper)
        if not (self.lower < self.upper).all() or (self.lower.isinf() & self.upper.isinf()).any():
            raise ValueError(
                f"Give lower, upper or both, lower below upper; lower={lower} and upper={upper} were given."
            )
        self.base = base.expand(gamma.shape)
        super().__init__(gamma.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = self._get_checked_instance(CensoredNormalInverseGamma, _instance)
        new.base = self.base.expand(batch_shape)
        new.lower, new.upper = self.lower.expand(batch_shape), self.upper.expand(batch_shape)
        super(CensoredNormalInverseGamma, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        lower, upper = self._finite()
        log_prob = self.base.log_prob(value)
        log_prob = torch.where(value <= self.lower, self.base.log_cdf(lower), log_prob)
        return torch.where(value >= self.upper, self.base.log_survival(upper), log_prob)

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of at most `value`: jumps at the bounds, where a PIT has to be randomised over the jump."""
        return torch.where(value >= self.upper, 1.0, torch.where(value < self.lower, 0.0, self.base.cdf(value)))

    def icdf(self, value: Tensor) -> Tensor:
        return self._clip(self.base.icdf(value))

    @property
    def mean(self) -> Tensor:
        """Mean of the clipped label, which is not gamma: this is what to predict where errors are squared."""
        lower, upper = self._finite()
        below, above = (self.base.log_cdf(lower).exp(), self.base.log_survival(upper).exp())
        below, above = torch.where(self.lower.isinf(), 0.0, below), torch.where(self.upper.isinf(), 0.0, above)
        moment = torch.where(self.lower.isinf(), 0.0, self._partial(lower))
        moment = moment - torch.where(self.upper.isinf(), 0.0, self._partial(upper))
        return lower * below + upper * above + self.base.gamma * (1 - below - above) + moment

    @property
    def aleatoric(self) -> Tensor:
        """Expected noise variance of the label *without* censoring, which is what the inputs tell about."""
        return self.base.aleatoric

    @property
    def epistemic(self) -> Tensor:
        """Variance of the unknown mean of the label without censoring."""
        return self.base.epistemic

    def _partial(self, bound: Tensor) -> Tensor:
        """``E[(Y - gamma); Y > bound]``: scale f(z) (n + z^2) / (n - 1)."""
        n, scale = self.base.df, self.base.scale
        z = (bound - self.base.gamma) / scale
        return scale * torch.exp(student_t.log_density(self.base.alpha, n, z)) * (n + z.square()) / (n - 1)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self._clip(self.base.rsample(sample_shape))

    def residual(self, value: Tensor) -> Tensor:
        """Label minus prediction; 0 where the label is censored and the prediction lies beyond its bound."""
        e = self.base.residual(self._clip(value))
        e = torch.where(value <= self.lower, e.clamp_max(0.0), e)
        return torch.where(value >= self.upper, e.clamp_min(0.0), e)

    def _clip(self, value: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(value, self.lower), self.upper)

    def _finite(self) -> tuple[Tensor, Tensor]:
        """The bounds, with the location where there is none: an infinity in an unused branch would spoil its gradient."""
        location = self.base.gamma.detach()
        return (
            torch.where(self.lower.isinf(), location, self.lower),
            torch.where(self.upper.isinf(), location, self.upper),
        )
