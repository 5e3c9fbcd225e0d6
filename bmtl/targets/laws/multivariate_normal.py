"""A mixture of multivariate normal components."""

from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from bmtl.targets.laws.mixture import central_interval
from bmtl.targets.laws.student_t import StudentTMixture
from bmtl.targets.scaler import Scaler

MEMORY = 1 << 20  # numbers held at once


class MultivariateNormalMixture:
    """The mean of S multivariate normal distributions of d numbers for each of N rows.

    ``mean``, ``variance``, ``cdf``, ``quantile``, ``interval`` and ``crps`` apply to each component separately, and are
    ``(..., N, d)``; ``log_prob`` and ``sample`` of all together.

    Args:
        loc: Means ``(S, N, d)``.
        scale_tril: Lower Cholesky factors of the covariances ``(S, N, d, d)``; of either, the first two axes may have size
            1 where they are the same for all.

    Raises:
        ValueError: If the shapes do not fit, a mean is infinite, or a factor has a diagonal that is not positive or an
            entry above it.
    """

    name: ClassVar[str] = "multivariate-normal"

    def __init__(self, loc: ArrayLike, scale_tril: ArrayLike) -> None:
        means, factors = np.asarray(loc, dtype=float), np.asarray(scale_tril, dtype=float)
        d = means.shape[-1] if means.ndim == 3 else 0
        if factors.ndim != 4 or not d or not len(means) or factors.shape[2:] != (d, d):
            raise ValueError(
                f"loc has shape {means.shape} and scale_tril {factors.shape}; expected (S, N, d) and (S, N, d, d)."
            )
        try:
            shape = np.broadcast_shapes(means.shape[:2], factors.shape[:2])
        except ValueError:
            raise ValueError(
                f"loc has shape {means.shape} and scale_tril {factors.shape}, whose first axes do not broadcast."
            ) from None
        if np.isinf(means).any():
            raise ValueError("A loc is infinite; expected finite ones.")
        if (np.diagonal(factors, axis1=-2, axis2=-1) <= 0).any() or (np.triu(factors, 1) != 0).any():
            raise ValueError(
                "A scale_tril has a diagonal that is not positive or entries above it; give lower Cholesky factors."
            )
        self.loc, self.scale_tril = np.broadcast_to(means, (*shape, d)), factors

    @classmethod
    def to_units(cls, parameters: dict[str, np.ndarray], scaler: Scaler) -> dict[str, np.ndarray]:
        """Parameters of ``mean + std * y`` from those of y."""
        std = np.broadcast_to(scaler.std, parameters["loc"].shape[-1:])
        return {"loc": scaler.restored(parameters["loc"]), "scale_tril": parameters["scale_tril"] * std[:, None]}

    @property
    def components(self) -> int:
        """S, the number of components."""
        return self.loc.shape[0]

    @property
    def rows(self) -> int:
        """N, the number of rows."""
        return self.loc.shape[1]

    @property
    def dimension(self) -> int:
        """D."""
        return self.loc.shape[2]

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        """The mixture of some rows."""
        factors = self.scale_tril if self.scale_tril.shape[1] == 1 else self.scale_tril[:, rows]
        return type(self)(self.loc[:, rows], factors)

    def marginal(self, component: int) -> StudentTMixture:
        """The law of one of the d numbers: a mixture of normals."""
        spread = np.sqrt(np.square(self.scale_tril[:, :, component]).sum(axis=-1))
        return StudentTMixture(self.loc[:, :, component], spread)

    def mean(self) -> np.ndarray:
        """Means ``(N, d)``."""
        return np.asarray(self.loc.mean(axis=0))

    def covariance(self) -> np.ndarray:
        """Covariances ``(N, d, d)``: those of the components on average plus that of their means."""
        within = (self.scale_tril @ np.swapaxes(self.scale_tril, -1, -2)).mean(axis=0)  # (N or 1, d, d)
        centred = self.loc - self.loc.mean(axis=0)
        return np.asarray(within + np.einsum("sni,snj->nij", centred, centred) / self.components)

    def variance(self) -> np.ndarray:
        """Variances ``(N, d)``."""
        return np.stack([self.marginal(k).variance() for k in range(self.dimension)], axis=-1)

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Probability of each number up to `y` ``(..., N, d)``."""
        values = np.asarray(y, dtype=float)
        return np.stack([self.marginal(k).cdf(values[..., k]) for k in range(self.dimension)], axis=-1)

    def survival(self, y: ArrayLike) -> np.ndarray:
        """Probability of each number above `y` ``(..., N, d)``."""
        values = np.asarray(y, dtype=float)
        return np.stack([self.marginal(k).survival(values[..., k]) for k in range(self.dimension)], axis=-1)

    def quantile(self, p: ArrayLike) -> np.ndarray:
        """Quantiles ``(..., N, d)`` of each number at levels that are a scalar, ``(L, 1)`` or ``(..., N)``."""
        return np.stack([self.marginal(k).quantile(p) for k in range(self.dimension)], axis=-1)

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends ``(N, d)`` of each number's central interval of a level in (0, 1)."""
        return central_interval(self.quantile, level)

    def sample(self, n: int, seed: int | np.random.Generator) -> np.ndarray:
        """Independent draws ``(n, N, d)``; a seed gives the same ones again."""
        random = np.random.default_rng(seed)
        chosen, row = random.integers(self.components, size=(n, self.rows)), np.arange(self.rows)
        s, r = self.scale_tril.shape[:2]
        factors = self.scale_tril[chosen if s > 1 else 0, row if r > 1 else 0]
        noise = random.standard_normal((n, self.rows, self.dimension, 1))
        return np.asarray(self.loc[chosen, row] + (factors @ noise)[..., 0])

    def crps(self, y: ArrayLike) -> np.ndarray:
        """Continuous ranked probability score of each number ``(..., N, d)``."""
        values = np.asarray(y, dtype=float)
        return np.stack([self.marginal(k).crps(values[..., k]) for k in range(self.dimension)], axis=-1)

    def component_log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log density of ``(N, d)`` under each component, ``(S, N)``.

        A NaN is a number that was not observed: the row's density is the marginal of those that were; 0 with none.
        """
        values = np.asarray(y, dtype=float)
        if values.shape != (self.rows, self.dimension):
            raise ValueError(f"y has shape {values.shape}; expected ({self.rows}, {self.dimension}).")
        seen = ~np.isnan(values)
        found = np.zeros((self.components, self.rows))
        for pattern in np.unique(seen, axis=0):
            at = np.flatnonzero((seen == pattern).all(axis=1))
            if not pattern.any():
                continue
            step = max(1, MEMORY // (self.components * self.dimension**2))
            for start in range(0, at.size, step):
                rows = at[start : start + step]
                found[:, rows] = self[rows]._log_prob_of(values[rows], np.flatnonzero(pattern))
        return found

    def log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log density of ``(N, d)``, ``(N,)``; NaN entries are integrated out."""
        return np.asarray(logsumexp(self.component_log_prob(y), axis=0) - np.log(self.components))

    def _log_prob_of(self, y: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Log density ``(S, N)`` of the numbers `kept`, all of them observed."""
        factor = self.scale_tril
        if kept.size < self.dimension:
            some = factor[..., kept, :]
            factor = np.linalg.cholesky(some @ np.swapaxes(some, -1, -2))
        error = y[:, kept] - self.loc[..., kept]  # (S, N, k)
        z = np.zeros(np.broadcast_shapes(error.shape[:2], factor.shape[:2]) + error.shape[2:])
        for k in range(kept.size):  # forward substitution
            z[..., k] = (error[..., k] - (factor[..., k, :k] * z[..., :k]).sum(axis=-1)) / factor[..., k, k]
        logs = np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)
        return np.asarray(-0.5 * np.square(z).sum(axis=-1) - logs - 0.5 * kept.size * np.log(2 * np.pi))
