"""Labels that are known up to an interval, of any location-scale distribution."""

from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from bmtl.distributions import tails
from bmtl.distributions.interval_labels import IntervalLabels


class Censored(IntervalLabels):
    """A location-scale distribution whose labels may be intervals, and may stop at a bound.

    With intervals ``(B, 2)`` as labels the information is given row by row: see `IntervalLabels`.

    With bounds it is what a measurement that stops there reports, ``clip(y, lower, upper)``: an exact label at or beyond a
    bound counts with the *probability* beyond it, and draws and mean are those of the clipped label. Affinities have such
    bounds: 70 % of the Davis data are "no binding up to 10 uM", stored as exactly 5.0, and their plain density is
    unbounded.

    Log-likelihoods mix probabilities and densities: compare only models that were scored on the same labels.

    Args:
        base: The label without censoring: a normal, Laplace, `StudentT` or `NormalInverseGamma`.
        lower: Bound below, in the label's unit; -inf for none.
        upper: Bound above; inf for none.
        intervals: Whether labels are intervals ``(B, 2)``; by default they are where there are no bounds.

    Raises:
        ValueError: If bounds are not in order.
    """

    arg_constraints = {"lower": constraints.dependent, "upper": constraints.dependent}  # noqa: RUF012
    support = constraints.real
    has_rsample = True
    fill = 0.0

    def __init__(
        self,
        base: TorchDistribution,
        lower: Tensor | float = -torch.inf,
        upper: Tensor | float = torch.inf,
        *,
        intervals: bool | None = None,
        validate_args: bool | None = None,
    ) -> None:
        loc, self.lower, self.upper = broadcast_all(base.loc, lower, upper)
        if not (self.lower < self.upper).all():
            raise ValueError(f"A lower bound is below the upper one; lower={lower} and upper={upper} were given.")
        # Whether there are bounds at all is asked often; a tensor would have to come from the device each time.
        self.bounded = any(isinstance(bound, Tensor) or abs(bound) < torch.inf for bound in (lower, upper))
        self._takes_intervals(not self.bounded if intervals is None else intervals)
        self.base = base.expand(loc.shape)
        super().__init__(loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new: Self = self._expanded(("base", "lower", "upper"), batch_shape, _instance)
        new.bounded = self.bounded
        new._takes_intervals(self.intervals)
        return new

    def _takes_intervals(self, intervals: bool) -> None:
        self.intervals = intervals
        self.label_shape = torch.Size((2,) if intervals else ())

    def holds_intervals(self, value: Tensor) -> bool:
        return self.intervals and super().holds_intervals(value)

    def law(self) -> tuple[str, dict[str, Tensor]] | None:
        """That of the label without censoring; None where it is clipped at bounds."""
        if self.bounded:
            return None
        law = getattr(self.base, "law", None)
        if law is not None:
            return law()
        loc, scale = self.base.loc, self.base.scale
        if isinstance(self.base, torch.distributions.Laplace):
            return "laplace", {"loc": loc, "scale": scale}
        return "student-t", {"loc": loc, "scale": scale, "df": torch.full_like(loc, torch.inf)}

    def log_density(self, value: Tensor) -> Tensor:
        if not self.bounded:
            return self.base.log_prob(value)
        lower, upper = self._finite()
        log_prob = self.base.log_prob(value)
        log_prob = torch.where(value <= self.lower, tails.log_cdf(self.base, lower), log_prob)
        return torch.where(value >= self.upper, tails.log_survival(self.base, upper), log_prob)

    def log_between(self, lower: Tensor, upper: Tensor) -> Tensor:
        if self.bounded:
            lower = torch.where(lower < self.lower, -torch.inf, lower)
            upper = torch.where(upper > self.upper, torch.inf, upper)
        return tails.log_between(self.base, lower, upper)

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of at most `value`: jumps at the bounds, where a PIT has to be randomised over the jump."""
        cdf = tails.log_cdf(self.base, value).exp()
        return torch.where(value >= self.upper, 1.0, torch.where(value < self.lower, 0.0, cdf))

    def icdf(self, value: Tensor) -> Tensor:
        return self._clip(self.base.icdf(value))

    @property
    def mean(self) -> Tensor:
        """Mean of the clipped label, which is not the location: this is what to predict where errors are squared."""
        if not self.bounded:
            return self.base.mean
        lower, upper = self._finite()
        below, above = (tails.log_cdf(self.base, lower).exp(), tails.log_survival(self.base, upper).exp())
        below, above = torch.where(self.lower.isinf(), 0.0, below), torch.where(self.upper.isinf(), 0.0, above)
        moment = torch.where(self.lower.isinf(), 0.0, tails.partial_mean(self.base, lower))
        moment = moment - torch.where(self.upper.isinf(), 0.0, tails.partial_mean(self.base, upper))
        return lower * below + upper * above + self.base.loc * (1 - below - above) + moment

    @property
    def variance(self) -> Tensor:
        """Variance of the label *without* censoring, which is what the inputs determine."""
        return self.base.variance

    @property
    def aleatoric(self) -> Tensor:
        """Variance of the noise of the label without censoring."""
        return getattr(self.base, "aleatoric", self.base.variance)

    @property
    def epistemic(self) -> Tensor:
        """Variance of the unknown mean of the label without censoring; 0 where the base has none."""
        return getattr(self.base, "epistemic", torch.zeros_like(self.lower))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self._clip(self.base.rsample(sample_shape))

    def residual(self, value: Tensor) -> Tensor:
        """Label minus prediction; 0 where the label is censored and the prediction lies in its interval.

        Args:
            value: Labels ``(B,)`` or intervals ``(B, 2)``, without missing ones.
        """
        loc = self.base.loc
        if self.holds_intervals(value):
            lower, upper = self._clip(value[..., 0]), self._clip(value[..., 1])
            return torch.where(loc < lower, lower - loc, torch.where(loc > upper, upper - loc, 0.0))
        e = self._clip(value) - loc
        e = torch.where(value <= self.lower, e.clamp_max(0.0), e)
        return torch.where(value >= self.upper, e.clamp_min(0.0), e)

    def _clip(self, value: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(value, self.lower), self.upper) if self.bounded else value

    def _finite(self) -> tuple[Tensor, Tensor]:
        """The bounds, with the location where there is none: an infinity in an unused branch would spoil its gradient."""
        location = self.base.loc.detach()
        return (
            torch.where(self.lower.isinf(), location, self.lower),
            torch.where(self.upper.isinf(), location, self.upper),
        )
