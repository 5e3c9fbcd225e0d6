"""The predictive of a target, rebuilt from a results tree: a mixture of Student-t components, or draws."""

from typing import Protocol, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.mixture import StudentTMixture

__all__ = ["EmpiricalPredictive", "Predictive", "StudentTMixture", "predictive_of", "regressions", "sample_crps"]


class Predictive(Protocol):
    """A distribution over y for each of N rows.

    `y` is ``(..., N)`` or a scalar; levels are a scalar, ``(L, 1)`` or ``(..., N)``.
    """

    @property
    def rows(self) -> int:
        """N."""
        ...

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        """Some of the rows."""
        ...

    def mean(self) -> np.ndarray:
        """Mean ``(N,)``."""
        ...

    def variance(self) -> np.ndarray:
        """Variance ``(N,)``."""
        ...

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Probability of a value up to `y`."""
        ...

    def quantile(self, p: ArrayLike) -> np.ndarray:
        """Value below which there is probability `p`."""
        ...

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends ``(N,)`` of the central interval that holds `level`."""
        ...

    def sample(self, n: int, seed: int | np.random.Generator) -> np.ndarray:
        """Draws ``(n, N)``."""
        ...

    def crps(self, y: ArrayLike) -> np.ndarray:
        """Continuous ranked probability score at `y`."""
        ...


class EmpiricalPredictive:
    """A predictive known by its draws: each row's law is theirs, an S-th of the probability on each.

    It has no density, and so no ``log_prob``; the rest is as in `StudentTMixture`.

    Args:
        draws: ``(S, N)``, a draw a row. A NaN makes what is computed of its column NaN.

    Raises:
        ValueError: If it is not ``(S, N)`` with a draw at least.
    """

    def __init__(self, draws: ArrayLike) -> None:
        values = np.asarray(draws, dtype=float)
        if values.ndim != 2 or not len(values):
            raise ValueError(f"draws have shape {values.shape}; expected (S, N), a draw at least.")
        self.draws = np.sort(values, axis=0)  # NaN last
        self.missing = np.isnan(self.draws[-1])

    @property
    def rows(self) -> int:
        """N, the number of rows."""
        return self.draws.shape[1]

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        """The predictive of some rows."""
        return type(self)(self.draws[:, rows])

    def scaled(self, factor: ArrayLike) -> Self:
        """Draws at `factor` times their distance from their mean, a number or ``(N,)``."""
        mean = self.mean()
        return type(self)(mean + np.asarray(factor, dtype=float) * (self.draws - mean))

    def mean(self) -> np.ndarray:
        """Mean of the draws ``(N,)``."""
        return self.draws.mean(axis=0)

    def variance(self) -> np.ndarray:
        """Variance of the draws ``(N,)``, over S."""
        return self.draws.var(axis=0)

    def cdf(self, y: ArrayLike) -> np.ndarray:
        """Share of draws up to `y`."""
        values = np.asarray(y, dtype=float)
        if values.ndim and values.shape[-1] != self.rows:
            raise ValueError(f"y has shape {values.shape}; expected (..., {self.rows}), the rows last.")
        columns = np.broadcast_to(values, np.broadcast_shapes(values.shape, (self.rows,)))
        found = np.empty(columns.shape)
        for row in range(self.rows):
            found[..., row] = np.searchsorted(self.draws[:, row], columns[..., row], side="right")
        return np.where(self.missing | np.isnan(columns), np.nan, found / len(self.draws))

    def quantile(self, p: ArrayLike) -> np.ndarray:
        """The smallest draw up to which there is a share `p` of them.

        Raises:
            ValueError: If a level is outside [0, 1].
        """
        levels = np.asarray(p, dtype=float)
        if (levels < 0).any() or (levels > 1).any():
            raise ValueError(f"Levels range from {levels.min():.4g} to {levels.max():.4g}; they are in [0, 1].")
        if levels.ndim and levels.shape[-1] not in (1, self.rows):
            raise ValueError(f"Levels have shape {levels.shape}; expected a scalar, (L, 1) or (..., {self.rows}).")
        at = np.broadcast_to(levels, np.broadcast_shapes(levels.shape, (self.rows,)))
        # A level that is a share of draws must not be rounded up to the next draw.
        index = np.ceil(np.nan_to_num(at) * len(self.draws) * (1 - 1e-15)).astype(int) - 1
        found = self.draws[index.clip(0), np.arange(self.rows)]
        return np.where(self.missing | np.isnan(at), np.nan, found)

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends ``(N,)`` of the central interval of a level in (0, 1), both of them draws."""
        if not 0 < level < 1:
            raise ValueError(f"The interval's level is {level}; expected one in (0, 1).")
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    def sample(self, n: int, seed: int | np.random.Generator) -> np.ndarray:
        """``(n, N)`` of the draws, with replacement."""
        chosen = np.random.default_rng(seed).integers(len(self.draws), size=(n, self.rows))
        return np.take_along_axis(self.draws, chosen, axis=0)

    def crps(self, y: ArrayLike) -> np.ndarray:
        """The fair score ``(N,)``: without bias for the score of what the draws were drawn from; it can be negative.

        Raises:
            ValueError: If there is one draw only.
        """
        values = np.asarray(y, dtype=float)
        return sample_crps(np.broadcast_to(values, (self.rows,)), self.draws, fair=True)


def sample_crps(y: np.ndarray, draws: np.ndarray, *, fair: bool) -> np.ndarray:
    """Continuous ranked probability score of draws ``(S, N)`` at y ``(N,)``, for each row, in the unit of y.

    Mean of ``|x_s - y|`` less half the mean of ``|x_s - x_t|``: over all S^2 pairs for the score of the empirical
    distribution, over the S (S - 1) of different draws for the fair score. S log S by sorting.
    """
    count = len(draws)
    if fair and count < 2:
        raise ValueError("The fair CRPS compares draws with each other; it needs two at least. Ask for fair=False.")
    # Distances from y, and not the draws themselves: their differences are the same, and no digits cancel.
    distances = np.sort(draws - y, axis=0)
    ranks = (2 * np.arange(count) - count + 1)[:, None]
    pairs = (ranks * distances).sum(axis=0) / (count * (count - 1 if fair else count))
    return np.abs(distances).mean(axis=0) - pairs


def regressions(tree: xr.DataTree) -> list[str]:
    """Names of the scored targets that are no classifications."""
    if "observed_data" not in tree.children:
        raise ValueError(f"The results tree has no group 'observed_data'; it has {list(tree.children)}.")
    names = [str(name).removeprefix("y_") for name in tree["observed_data"].data_vars]
    classes = tree["probability"].data_vars if "probability" in tree.children else ()
    return [name for name in names if f"y_{name}" not in classes]


def predictive_of(tree: xr.DataTree, target: str) -> StudentTMixture | EmpiricalPredictive:
    """The predictive of one target's scored rows.

    Args:
        tree: A results tree.
        target: The name of a regression.

    Returns:
        The mixture in ``predictive_distribution``; where the tree holds none for this target, the draws of
        ``posterior_predictive``.

    Raises:
        ValueError: If there is no such regression, or the tree has neither group for it.
    """
    if target not in regressions(tree):
        raise ValueError(f"The tree has no regression {target!r}; it has {regressions(tree)}.")
    if "predictive_distribution" in tree.children and f"loc_{target}" in tree["predictive_distribution"]:
        group = tree["predictive_distribution"].variables
        parts = (group[f"{name}_{target}"] for name in ("loc", "scale", "df"))
        return StudentTMixture(*(part.transpose("component", f"obs_{target}").values for part in parts))
    if "posterior_predictive" in tree.children and f"y_{target}" in tree["posterior_predictive"]:
        draws = tree["posterior_predictive"].variables[f"y_{target}"].transpose("chain", "draw", f"obs_{target}")
        chains, count, rows = draws.shape
        return EmpiricalPredictive(draws.values.reshape(chains * count, rows))
    raise ValueError(
        f"The tree holds neither predictive_distribution nor posterior_predictive of {target!r}; "
        "give one of them to to_datatree."
    )
