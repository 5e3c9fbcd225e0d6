"""Are the predictive cdfs at the labels uniform? Their ECDF within bands that hold for all points at once."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr
from scipy.stats import binom

from bmtl.targets.metrics.pit import LEVELS, checked_pit, rounding

POINTS = LEVELS[:-1]  # .01, .02, ..., .99: the cost of the bands does not grow with the number of rows
SIMULATIONS = 4000


class PitEcdf(NamedTuple):
    """The ECDF of PIT values at `points`, and between what it lies for a calibrated predictive; each ``(P,)``."""

    points: np.ndarray
    ecdf: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def inside(self) -> bool:
        """Whether the ECDF is within the bands at every point."""
        return bool(((self.ecdf >= self.lower) & (self.ecdf <= self.upper)).all())


def pit_ecdf(pit: ArrayLike, *, level: float = 0.95) -> PitEcdf:
    """ECDF of PIT values with simultaneous bands: a calibrated predictive stays inside *everywhere* in `level` of cases.

    At each point the count of values below is binomial. The bands are its central intervals at one common level, chosen by
    simulation (4,000 samples, always the same ones) such that a whole uniform ECDF is inside with probability `level`.

    Args:
        pit: Predictive cdf at the labels, ``(N,)`` in [0, 1].
        level: In (0, 1).

    Returns:
        Points .01 to .99, the ECDF there (NaN where a pit is NaN) and the bands.

    Raises:
        ValueError: If there is no row, a pit is outside [0, 1], or the level outside (0, 1).

    Source:
        Säilynoja, Bürkner & Vehtari (2022), Statistics and Computing 32, section 2.2, on a fixed grid.
    """
    values = checked_pit(pit)
    if not 0 < level < 1:
        raise ValueError(f"The level of the bands is {level}; expected one in (0, 1).")
    below = np.searchsorted(np.sort(values) - rounding(pit), POINTS, side="right") / values.size
    lower, upper = _bands(values.size, level)
    return PitEcdf(POINTS, np.full(POINTS.shape, np.nan) if np.isnan(values).any() else below, lower, upper)


@lru_cache(maxsize=256)
def _bands(rows: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the bands at `POINTS`, as shares of the rows."""
    random = np.random.default_rng(0)
    counts = random.multinomial(rows, np.full(POINTS.size + 1, 1 / (POINTS.size + 1)), size=SIMULATIONS)
    below = counts[:, :-1].cumsum(axis=1)  # (simulation, point)
    # bdtr is not defined for a count of -1, whose probability is zero
    less = np.where(below > 0, bdtr(np.maximum(below - 1, 0), rows, POINTS), 0.0)
    tails = np.minimum(bdtr(below, rows, POINTS), 1 - less).min(axis=1)
    tail = np.quantile(tails, 1 - level)  # a share `level` of the samples goes nowhere further out
    lower, upper = binom.ppf(tail, rows, POINTS) / rows, binom.isf(tail, rows, POINTS) / rows
    for ends in (lower, upper):
        ends.flags.writeable = False  # the cache hands them out again
    return lower, upper
