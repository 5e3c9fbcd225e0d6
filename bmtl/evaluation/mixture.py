"""An equal-weight mixture of location-scale Student-t components for each row: what a regression predicts."""

from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from bmtl.evaluation import student

MEMORY = 1 << 20  # numbers held at once: components times rows times levels
ACCURACY = 1e-9  # of the quadrature, an interval, relative to the whole integral
COARSEST = 10  # length of an interval over a component's scale and its distance from it
NODES, WEIGHTS = np.polynomial.legendre.leggauss(10)


class StudentTMixture:
    """The mean of S Student-t distributions for each of N rows; a component is a posterior draw or a member.

    Args:
        loc: Locations ``(S, N)``; this and the others broadcast, and ``(N,)`` is one component.
        scale: Scales, not standard deviations; positive, in the unit of `loc`.
        df: Degrees of freedom, positive; infinite for a normal component.

    Methods take `y` of shape ``(..., N)`` (or a scalar for all rows) and give that shape back. A NaN in a row's
    parameters makes what is computed of that row NaN. Work is done in chunks of rows, so that memory stays bounded.

    Raises:
        ValueError: If a scale or a df is not positive, a scale or location is infinite, or the shapes do not broadcast
            to ``(S, N)``.
    """

    def __init__(self, loc: ArrayLike, scale: ArrayLike, df: ArrayLike = np.inf) -> None:
        arrays = [np.atleast_2d(np.asarray(values, dtype=float)) for values in (loc, scale, df)]
        shapes = [values.shape for values in arrays]
        try:
            self.loc, self.scale, self.df = np.broadcast_arrays(*arrays)
        except ValueError:
            raise ValueError(f"loc, scale and df have shapes {shapes}, which do not broadcast to (S, N).") from None
        if self.loc.ndim != 2 or not len(self.loc):
            raise ValueError(f"loc, scale and df have shapes {shapes}; expected (S, N), a component at least.")
        if (arrays[1] <= 0).any() or np.isinf(arrays[1]).any():
            raise ValueError(
                "A scale is zero, negative or infinite; a density needs a positive one: bound it from below."
            )
        if (arrays[2] <= 0).any():
            raise ValueError("A df is not positive; degrees of freedom are, with infinity for a normal component.")
        if np.isinf(arrays[0]).any():
            raise ValueError("A location is infinite; expected finite ones.")

    @property
    def components(self) -> int:
        """S, the number of components."""
        return self.loc.shape[0]

    @property
    def rows(self) -> int:
        """N, the number of rows."""
        return self.loc.shape[1]

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        """The mixture of some rows."""
        return type(self)(self.loc[:, rows], self.scale[:, rows], self.df[:, rows])

    def scaled(self, factor: ArrayLike) -> Self:
        """The mixture with every component's scale times `factor`, a number or ``(N,)``; locations stay."""
        return type(self)(self.loc, self.scale * np.asarray(factor, dtype=float), self.df)

    def mean(self) -> np.ndarray:
        """Mean ``(N,)``; NaN where a df is 1 or less."""
        return np.where(self.df > 1, self.loc, np.nan).mean(axis=0)

    def variance(self) -> np.ndarray:
        """Variance ``(N,)``: that of the components on average plus that of their locations; infinite for a df up to 2."""
        return self.within() + self.between()

    def within(self) -> np.ndarray:
        """Mean of the components' variances ``(N,)``."""
        return (self.scale**2 * student.variance(self.df)).mean(axis=0)

    def between(self) -> np.ndarray:
        """Variance of the components' locations ``(N,)``; zero for one component."""
        return self.loc.var(axis=0)

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Probability of a value up to `y`."""
        return self._by_rows(lambda part, at: student.cdf(*part._standardised(at)).mean(axis=0), self._labels(y))

    def component_log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log density at `y` ``(N,)`` under each component, ``(S, N)``."""
        values = self._labels(y)
        z, df = self._standardised(values)
        return student.log_pdf(z, df) - np.log(self._spread(self.scale, values.ndim))

    def log_prob(self, y: ArrayLike) -> np.ndarray:
        """Log density at `y`, per unit of `y`."""
        return self._by_rows(
            lambda part, at: logsumexp(part.component_log_prob(at), axis=0) - np.log(self.components), self._labels(y)
        )

    def moments_below(self, y: ArrayLike, about: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """``E[(Y - about)^k; Y <= y]`` for k = 1 and 2, each of the shape of `y`, which is finite.

        Args:
            y: Bounds ``(..., N)``.
            about: ``(N,)``; near the mean, lest digits cancel.
        """
        centre = np.broadcast_to(np.asarray(about, dtype=float), (self.rows,))

        def moment(order: int, part: Self, at: np.ndarray, about: np.ndarray) -> np.ndarray:
            z, df = part._standardised(at)
            shift = part._spread(part.loc - about, at.ndim)
            scale = part._spread(part.scale, at.ndim)
            below, first = student.cdf(z, df), scale * student.first_below(z, df)
            if order == 1:
                return (shift * below + first).mean(axis=0)
            return (shift**2 * below + 2 * shift * first + scale**2 * student.second_below(z, df)).mean(axis=0)

        values = self._labels(y)
        both = [self._by_rows(lambda part, at, c, k=k: moment(k, part, at, c), values, centre) for k in (1, 2)]
        return both[0], both[1]

    def quantile(self, p: ArrayLike) -> np.ndarray:
        """Value below which there is probability `p`: a scalar, ``(L, 1)`` for L levels of every row, or ``(..., N)``.

        Closed for one component. The quantile of a mixture lies between the smallest and the largest of its components'
        quantiles: from there by Newton's method, with bisection where that leaves the bracket or stalls, to 1e-12 of a
        scale. Upper levels are solved in the upper tail, so that both tails are equally exact.

        Raises:
            ValueError: If a level is outside [0, 1]. (Levels 0 and 1 give the infinite ends of the support.)
        """
        levels = np.asarray(p, dtype=float)
        if (levels < 0).any() or (levels > 1).any():
            raise ValueError(f"Levels range from {levels.min():.4g} to {levels.max():.4g}; they are in [0, 1].")
        if levels.ndim and levels.shape[-1] not in (1, self.rows):
            raise ValueError(f"Levels have shape {levels.shape}; expected a scalar, (L, 1) or (..., {self.rows}).")
        return self._by_rows(_solve, levels)

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end ``(N,)`` of the central interval that holds probability `level`, in (0, 1)."""
        if not 0 < level < 1:
            raise ValueError(f"The interval's level is {level}; expected one in (0, 1).")
        lower, upper = self.quantile(np.array([[(1 - level) / 2], [(1 + level) / 2]]))
        return lower, upper

    def sample(self, n: int, seed: int | np.random.Generator) -> np.ndarray:
        """Independent draws ``(n, N)``; a seed gives the same ones again."""
        random = np.random.default_rng(seed)
        chosen = random.integers(self.components, size=(n, self.rows))
        loc, scale, df = (np.take_along_axis(each, chosen, axis=0) for each in (self.loc, self.scale, self.df))
        normal = np.isinf(df)
        chi2 = 2 * random.standard_gamma(np.where(normal, 1, df) / 2)
        stretch = np.where(normal, 1, np.sqrt(np.where(normal, 1, df) / chi2))
        return loc + scale * stretch * random.standard_normal(df.shape)

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

        def core(part: Self, at: np.ndarray) -> np.ndarray:
            z, df = part._standardised(at)
            return (part._spread(part.scale, at.ndim) * student.mean_distance(z, df)).mean(axis=0)

        return self._by_rows(core, self._labels(y)) - self._half_mean_difference()

    def _half_mean_difference(self) -> np.ndarray:
        """``E|Y - Y'| / 2`` for each row, ``(N,)``."""
        if self.components == 1:
            return self.scale[0] * student.half_mean_difference(self.df[0])
        half = _half_of_pairs if np.isinf(self.df).all() else _integral
        return self._by_rows(lambda part, _: half(part), np.zeros(self.rows), held=20)

    def _labels(self, y: ArrayLike) -> np.ndarray:
        values = np.asarray(y, dtype=float)
        if values.ndim and values.shape[-1] != self.rows:
            raise ValueError(f"y has shape {values.shape}; expected (..., {self.rows}), the rows last.")
        return values if values.ndim else np.full(self.rows, values)

    def _standardised(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``(y - loc) / scale`` and df, both ``(S, ..., N)``."""
        loc, scale, df = (self._spread(each, y.ndim) for each in (self.loc, self.scale, self.df))
        return (y - loc) / scale, df

    def _spread(self, parameter: np.ndarray, dims: int) -> np.ndarray:
        """``(S, N)`` as ``(S, 1, ..., N)`` against values of `dims` dimensions."""
        return parameter.reshape(self.components, *(1,) * (dims - 1), self.rows)

    def _by_rows(self, core: Callable[..., np.ndarray], *arrays: np.ndarray, held: int = 1) -> np.ndarray:
        """`core` of the mixture and arrays ``(..., N)``, a chunk of rows at a time; `held`: times the memory of one."""
        shape = np.broadcast_shapes(*(each.shape for each in arrays), (self.rows,))
        given = [np.broadcast_to(each, np.broadcast_shapes(each.shape, (self.rows,))) for each in arrays]
        found = np.empty(shape)
        step = max(1, MEMORY // (held * self.components * max(1, int(np.prod(shape[:-1])))))
        for start in range(0, self.rows, step):
            rows = slice(start, start + step)
            found[..., rows] = core(self[rows], *(each[..., rows] for each in given))
        return found


def _solve(mixture: StudentTMixture, levels: np.ndarray) -> np.ndarray:
    """Quantiles at `levels` ``(..., N)``."""
    df = mixture._spread(mixture.df, levels.ndim)
    ends = mixture._spread(mixture.loc, levels.ndim) + mixture._spread(mixture.scale, levels.ndim) * student.ppf(
        levels, df
    )
    if mixture.components == 1:
        return ends[0]
    low, high, x = ends.min(axis=0).ravel(), ends.max(axis=0).ravel(), ends.mean(axis=0).ravel()
    p, row = levels.ravel(), np.broadcast_to(np.arange(mixture.rows), levels.shape).ravel()
    side = np.where(p > 0.5, -1.0, 1.0)
    tail = np.minimum(p, 1 - p)
    exact = 1e-12 * np.broadcast_to(mixture.scale.min(axis=0), levels.shape).ravel()
    active = np.flatnonzero((high > low) & np.isfinite(low) & np.isfinite(high))  # else the ends are the quantile
    before = np.zeros(x.shape)
    before[active] = high[active] - low[active]
    while active.size:
        part, at = mixture[row[active]], x[active]
        z, df = part._standardised(at)
        excess = side[active] * (student.cdf(side[active] * z, df).mean(axis=0) - tail[active])
        density = (np.exp(student.log_pdf(z, df)) / part.scale).mean(axis=0)
        low[active] = np.where(excess <= 0, at, low[active])
        high[active] = np.where(excess >= 0, at, high[active])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            newton = at - excess / density
        # A step must halve, or the bracket is halved instead: at most some 100 of either.
        good = (newton >= low[active]) & (newton <= high[active]) & (np.abs(newton - at) <= before[active] / 2)
        x[active] = np.where(good, newton, (low[active] + high[active]) / 2)
        before[active] = np.abs(x[active] - at)
        active = active[before[active] > exact[active] + 1e-15 * np.abs(at)]
    return x.reshape(levels.shape)


def _half_of_pairs(mixture: StudentTMixture) -> np.ndarray:
    """``E|Y - Y'| / 2`` of normal components: their differences are normal too, S (S + 1) / 2 pairs of them."""
    total = np.zeros(mixture.rows)
    for i in range(mixture.components):
        shift, spread = mixture.loc[i] - mixture.loc[i:], np.hypot(mixture.scale[i], mixture.scale[i:])
        distances = spread * student.mean_distance(shift / spread, np.inf)  # (S - i, N)
        total += distances[0] + 2 * distances[1:].sum(axis=0)
    return total / (2 * mixture.components**2)


def _integral(mixture: StudentTMixture) -> np.ndarray:
    """``E|Y - Y'| / 2`` for each row, as the integral of ``F (1 - F)``.

    In t, with ``x = centre + width sinh(t)``, heavy tails fall exponentially. Each interval is compared with its halves
    by Gauss-Legendre of 10 nodes and split where they differ, or where it is long beside a component's scale and its
    distance from it: narrow components far apart are stairs, whose steps nodes alone could miss.
    """
    centre, width = np.median(mixture.loc, axis=0), mixture.scale.min(axis=0)
    df = np.minimum(mixture.df, 50)  # beyond that, as far as with 50 is far enough
    reach = np.abs(mixture.loc - centre) + mixture.scale * np.sqrt(df) * 1e10 ** (1 / (df - 1))
    end = np.arcsinh(reach.max(axis=0) / width)

    def between(row: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        t = (left + right)[:, None] / 2 + (right - left)[:, None] / 2 * NODES  # (M, 10)
        x = centre[row, None] + width[row, None] * np.sinh(t)
        outwards = np.sign(t)
        z = (x - mixture.loc[:, row, None]) / mixture.scale[:, row, None]
        beyond = student.cdf(-outwards * z, mixture.df[:, row, None]).mean(axis=0)  # no digit is lost in either tail
        return (right - left) / 2 * width[row] * ((beyond * (1 - beyond) * np.cosh(t)) @ WEIGHTS)

    def coarse(row: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        first, last = (centre[row] + width[row] * np.sinh(t) for t in (left, right))
        loc = mixture.loc[:, row]
        distance = np.maximum(np.maximum(first - loc, loc - last), 0)
        return last - first > COARSEST * (mixture.scale[:, row] + distance).min(axis=0)

    def in_chunks(row: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        count = -(-row.size * mixture.components * len(NODES) // MEMORY)
        cuts = np.array_split(np.arange(row.size), count)
        return np.concatenate([between(row[cut], left[cut], right[cut]) for cut in cuts])

    pieces = 8
    edges = np.linspace(-end, end, pieces + 1)  # (9, N)
    row = np.tile(np.arange(mixture.rows), pieces)
    left, right = edges[:-1].ravel(), edges[1:].ravel()
    value = in_chunks(row, left, right)
    enough = ACCURACY * np.bincount(row, value, minlength=mixture.rows)
    total = np.zeros(mixture.rows)
    for _ in range(50):  # halvings: then an interval is as short as numbers can tell
        middle = (left + right) / 2
        halves = np.stack([in_chunks(row, left, middle), in_chunks(row, middle, right)])
        open_ = (np.abs(halves.sum(axis=0) - value) > enough[row]) | coarse(row, left, right)
        total += np.bincount(row[~open_], halves.sum(axis=0)[~open_], minlength=mixture.rows)
        if not open_.any():
            return total
        row, left, right = (
            np.tile(row[open_], 2),
            np.concatenate([left[open_], middle[open_]]),
            np.concatenate([middle[open_], right[open_]]),
        )
        value = halves[:, open_].ravel()
    return total + np.bincount(row, value, minlength=mixture.rows)
