"""A mixture of location-scale Student-t components, normal where the degrees of freedom are infinite."""

from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.laws import student
from bmtl.targets.laws.continuous import ContinuousMixture
from bmtl.targets.laws.mixture import Parameter, finite, positive
from bmtl.targets.scaler import Scaler


class StudentTMixture(ContinuousMixture):
    """The mean of S Student-t distributions for each of N rows; a component is a posterior draw or a member.

    Args:
        loc: Locations ``(S, N)``; this and the others broadcast, and ``(N,)`` is one component.
        scale: Scales, not standard deviations; positive, in the unit of `loc`.
        df: Degrees of freedom, positive; infinite for a normal component.

    Raises:
        ValueError: If a scale or a df is not positive, a scale or location is infinite, or the shapes do not broadcast
            to ``(S, N)``.
    """

    name: ClassVar[str] = "student-t"
    loc = Parameter()
    scale = Parameter()
    df = Parameter()

    def __init__(self, loc: ArrayLike, scale: ArrayLike, df: ArrayLike = np.inf) -> None:
        super().__init__(loc=finite("loc", loc), scale=positive("scale", scale), df=positive("df", df, infinite=True))

    @classmethod
    def to_units(cls, parameters: dict[str, np.ndarray], scaler: Scaler) -> dict[str, np.ndarray]:
        return parameters | {"loc": scaler.restored(parameters["loc"]), "scale": scaler.widened(parameters["scale"])}

    def scaled(self, factor: ArrayLike) -> Self:
        """The mixture with every component's scale times `factor`, a number or ``(N,)``; locations stay."""
        return type(self)(self.loc, self.scale * np.asarray(factor, dtype=float), self.df)

    def component_mean(self) -> np.ndarray:
        """Locations ``(S, N)``; NaN where a df is 1 or less."""
        return np.where(self.df > 1, self.loc, np.nan)

    def component_variance(self) -> np.ndarray:
        """Variances ``(S, N)``, infinite for a df up to 2, undefined (NaN) up to 1."""
        return self.scale**2 * student.variance(self.df)

    def component_cdf(self, y: np.ndarray) -> np.ndarray:
        return student.cdf(*self._standardised(y))

    def component_survival(self, y: np.ndarray) -> np.ndarray:
        z, df = self._standardised(y)
        return student.cdf(-z, df)

    def component_log_prob(self, y: np.ndarray) -> np.ndarray:
        z, df = self._standardised(y)
        return student.log_pdf(z, df) - np.log(self.spread(y.ndim)[1])

    def component_quantile(self, p: np.ndarray) -> np.ndarray:
        loc, scale, df = self.spread(p.ndim)
        return loc + scale * student.ppf(p, df)

    def component_distance(self, y: np.ndarray) -> np.ndarray:
        z, df = self._standardised(y)
        return self.spread(y.ndim)[1] * student.mean_distance(z, df)

    def component_half_difference(self) -> np.ndarray:
        return self.scale * student.half_mean_difference(self.df)

    def centres(self) -> np.ndarray:
        return self.loc

    def widths(self) -> np.ndarray:
        return self.scale

    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        df = np.minimum(self.df, 50)  # beyond that, as far as with 50 is far enough
        far = self.scale * np.sqrt(df) * 1e10 ** (1 / (df - 1))
        return (self.loc - far).min(axis=0), (self.loc + far).max(axis=0)

    def draw(self, random: np.random.Generator) -> np.ndarray:
        normal = np.isinf(self.df)
        chi2 = 2 * random.standard_gamma(np.where(normal, 1, self.df) / 2)
        stretch = np.where(normal, 1, np.sqrt(np.where(normal, 1, self.df) / chi2))
        return self.loc + self.scale * stretch * random.standard_normal(self.df.shape)

    def crps(self, y: ArrayLike) -> np.ndarray:
        """Continuous ranked probability score at `y`, in its unit: ``E|Y - y| - E|Y - Y'| / 2``.

        Closed for one component and for mixtures of normals. For other mixtures the first term is closed and the second,
        the integral of ``F (1 - F)``, is by adaptive quadrature, within 1e-8 of itself.

        Raises:
            ValueError: If a df is 1 or less (for a quadrature, 1.1), where the terms do not (or hardly) exist.
        """
        least = 1.0 if self.components == 1 else 1.1
        if (self.df <= least).any():
            raise ValueError(
                f"The CRPS needs degrees of freedom above {least:g}; the smallest is {np.nanmin(self.df):.4g}."
            )
        return super().crps(y)

    def half_difference(self) -> np.ndarray:
        """``E|Y - Y'| / 2`` ``(N,)``, closed for one component and for mixtures of normals."""
        if self.components == 1 or not np.isinf(self.df).all():
            return super().half_difference()
        return self.by_rows(lambda part, _: _half_of_pairs(part), np.zeros(self.rows), held=20)

    def partial_mean(self, y: ArrayLike, about: ArrayLike) -> np.ndarray:
        """``E[Y - about; Y <= y]`` of the shape of `y`, which is finite.

        Args:
            y: Bounds ``(..., N)``.
            about: ``(N,)``; near the mean, lest digits cancel.
        """
        centre = np.broadcast_to(np.asarray(about, dtype=float), (self.rows,))

        def moment(part: Self, at: np.ndarray, about: np.ndarray) -> np.ndarray:
            z, df = part._standardised(at)
            loc, scale, _ = part.spread(at.ndim)
            return np.asarray(((loc - about) * student.cdf(z, df) + scale * student.first_below(z, df)).mean(axis=0))

        return self.by_rows(moment, self.labels(y), centre)

    def _standardised(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(y - loc) / scale`` and df, both ``(S, ..., N)``."""
        loc, scale, df = self.spread(y.ndim)
        return (y - loc) / scale, df


def _half_of_pairs(mixture: StudentTMixture) -> np.ndarray:
    """``E|Y - Y'| / 2`` of normal components: their differences are normal too, S (S + 1) / 2 pairs of them."""
    total = np.zeros(mixture.rows)
    for i in range(mixture.components):
        shift, spread = mixture.loc[i] - mixture.loc[i:], np.hypot(mixture.scale[i], mixture.scale[i:])
        distances = spread * student.mean_distance(shift / spread, np.inf)  # (S - i, N)
        total += distances[0] + 2 * distances[1:].sum(axis=0)
    return total / (2 * mixture.components**2)
