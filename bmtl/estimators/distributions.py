"""Predictive distributions of several targets of numbers, as arrays of the shape that an estimator's `predict` has."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.laws.predictive import Predictive


class Distributions(Mapping[str, Predictive]):
    """The predictive distribution of each target, in its unit; ``distributions[target]`` is one target's.

    Arrays are ``(N, T)``, or ``(N,)`` where labels had one dimension.

    Args:
        by_target: Target -> its distribution over N rows.
        flat: Whether labels had one dimension.
    """

    def __init__(self, by_target: Mapping[str, Predictive], *, flat: bool = False) -> None:
        self._by_target, self._flat = dict(by_target), flat

    def __getitem__(self, target: str) -> Predictive:
        return self._by_target[target]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_target)

    def __len__(self) -> int:
        return len(self._by_target)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self._shape))
        offered = "mean(), std(), quantile(p), interval(level), cdf(y), sample(n)"
        return f"<Distributions of {', '.join(self)}: {shape}; {offered}>"

    def mean(self) -> np.ndarray:
        """Means ``(N, T)``."""
        return self._together(lambda of, _: of.mean())

    def std(self) -> np.ndarray:
        """Standard deviations ``(N, T)``."""
        return self._together(lambda of, _: np.sqrt(of.variance()))

    def quantile(self, p: ArrayLike) -> np.ndarray:
        """Quantiles ``(N, T)`` of a level, or ``(L, N, T)`` of several ``(L,)``.

        Raises:
            ValueError: If a level is not in (0, 1).
        """
        levels = np.asarray(p, dtype=float)
        return self._together(lambda of, _: of.quantile(levels[:, None] if levels.ndim else levels))

    def interval(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends ``(N, T)`` of central intervals.

        Raises:
            ValueError: If the level is not in (0, 1).
        """
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Probabilities ``(N, T)`` of values up to `y`, a number or ``(N, T)``; more of them come first, ``(L, N, T)``.

        Raises:
            ValueError: If `y` has another shape.
        """
        values = np.asarray(y, dtype=float)
        shape = (*values.shape[: -len(self._shape)], *self._shape)
        try:
            whole = np.broadcast_to(values, shape)
        except ValueError:
            raise ValueError(f"y is a number or has the shape {self._shape}, and {values.shape} was given.") from None
        return self._together(lambda of, i: of.cdf(whole if self._flat else whole[..., i]))

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """Independent draws ``(n, N, T)``."""
        seeds = np.random.SeedSequence(seed).spawn(len(self))
        return self._together(lambda of, i: of.sample(n, np.random.default_rng(seeds[i])))

    @property
    def _shape(self) -> tuple[int, ...]:
        rows = next(iter(self._by_target.values())).rows
        return (rows,) if self._flat else (rows, len(self))

    def _together(self, core: Callable[[Predictive, int], np.ndarray]) -> np.ndarray:
        found = [core(of, i) for i, of in enumerate(self._by_target.values())]
        return found[0] if self._flat else np.stack(found, axis=-1)
