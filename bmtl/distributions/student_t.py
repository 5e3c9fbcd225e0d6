"""The Student-t, and what every distribution with a Student-t marginal has in common."""

from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from bmtl.distributions import t_functions


class StudentTMarginal(TorchDistribution):
    """Densities, tails, quantiles, scores and draws of a Student-t, from its location, half its degrees of freedom, and w.

    A subclass has the properties `loc`, `alpha` (degrees of freedom over 2) and `w` (degrees of freedom times squared
    scale), of the batch shape. Log densities, tails and quantiles keep their digits in float32 (an error below 1e-3 nats at
    1e5 degrees of freedom, where `torch.distributions.StudentT` is off by 1e-2), run on any device, and are differentiable
    in everything. Half precision is computed in float32.
    """

    support = constraints.real
    has_rsample = True

    loc: Tensor
    alpha: Tensor
    w: Tensor

    @property
    def df(self) -> Tensor:
        """Degrees of freedom."""
        return 2 * self.alpha

    @property
    def scale(self) -> Tensor:
        """Scale, which is not the standard deviation."""
        return (self.w / (2 * self.alpha)).sqrt()

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    def law(self) -> tuple[str, dict[str, Tensor]]:
        """Name and parameters of the predictive distribution, for reports."""
        return "student-t", {"loc": self.loc, "scale": self.scale, "df": self.df}

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return t_functions.log_density(self.alpha, self.w, value - self.loc)

    def log_cdf(self, value: Tensor) -> Tensor:
        """Log of the cdf; accurate, with a gradient, where the cdf itself underflows."""
        e, tail = self._tail(value)
        return torch.where(e <= 0, tail, torch.log1p(-tail.exp()))

    def log_survival(self, value: Tensor) -> Tensor:
        """Log of ``1 - cdf``, as exact as `log_cdf`."""
        e, tail = self._tail(value)
        return torch.where(e <= 0, torch.log1p(-tail.exp()), tail)

    def cdf(self, value: Tensor) -> Tensor:
        e, tail = self._tail(value)
        return torch.where(e <= 0, tail.exp(), 1 - tail.exp())

    def _tail(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Distance from the location, and the log probability beyond it, whose slope at 0 is that of negative distances."""
        if self._validate_args:
            self._validate_sample(value)
        e = value - self.loc
        return e, t_functions.log_tail(self.alpha, self.w, e)

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + t_functions.quantile(self.alpha, self.w, value)

    def partial_mean(self, bound: Tensor) -> Tensor:
        """``E[Y - loc; Y > bound]``, for more than 1 degree of freedom."""
        return t_functions.partial_mean(self.alpha, self.w, bound - self.loc)

    def entropy(self) -> Tensor:
        a = self.alpha
        step = (a + 0.5) * t_functions.digamma_step(a) - t_functions.log_gamma_step(a)
        return 0.5 * torch.log(torch.pi * self.w) + step

    def crps(self, value: Tensor) -> Tensor:
        """Continuous ranked probability score at a label, in the label's unit; 0 is best.

        ``scale [z (2 F(z) - 1) + 2 f(z) (n + z^2) / (n - 1) - G]``, from ``E|Y - y| - E|Y - Y'| / 2``; n is `df`, and G a
        ratio of gamma functions.
        """
        n, e = self.df, value - self.loc
        step = t_functions.log_gamma_step
        spread = 2 * (n / torch.pi).sqrt() * torch.exp(2 * step(self.alpha) - step(n - 0.5)) / (n - 1)
        return e * (2 * self.cdf(value) - 1) + 2 * self.partial_mean(value) - self.scale * spread

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        q = torch._standard_gamma(self.alpha.expand(shape))  # differentiable in alpha
        noise = torch.randn(shape, dtype=q.dtype, device=q.device)
        return self.loc + noise * (self.w / (2 * q)).sqrt()


class StudentT(StudentTMarginal):
    """The Student-t with a location and a scale.

    Args:
        df: Degrees of freedom, above 0. The mean exists above 1, the variance above 2.
        loc: Location; batch shapes broadcast.
        scale: Scale, above 0; not the standard deviation.

    Raises:
        ValueError: If a parameter lies outside its range, while validation is on.
    """

    arg_constraints = {  # noqa: RUF012
        "df": constraints.positive,
        "loc": constraints.real,
        "scale": constraints.positive,
    }

    def __init__(
        self,
        df: Tensor | float,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self._df, self.loc, self._scale = at_least_float32(*broadcast_all(df, loc, scale))
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = self._get_checked_instance(StudentT, _instance)
        for name in ("_df", "loc", "_scale"):
            setattr(new, name, getattr(self, name).expand(batch_shape))
        super(StudentT, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def df(self) -> Tensor:
        return self._df

    @property
    def scale(self) -> Tensor:
        return self._scale

    @property
    def alpha(self) -> Tensor:  # type: ignore[override]
        """Half the degrees of freedom."""
        return self._df / 2

    @property
    def w(self) -> Tensor:  # type: ignore[override]
        """Degrees of freedom times squared scale."""
        return self._df * self._scale.square()

    @property
    def variance(self) -> Tensor:
        """Infinite up to 2 degrees of freedom."""
        finite = self._df > 2
        n = torch.where(finite, self._df, 3.0)
        return torch.where(finite, self._scale.square() * n / (n - 2), torch.inf)


def at_least_float32(*parts: Tensor) -> tuple[Tensor, ...]:
    """The same, in float32 where they are in half precision, whose range is too small for squares."""
    return tuple(part.to(torch.promote_types(part.dtype, torch.float32)) for part in parts)
