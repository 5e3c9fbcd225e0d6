"""The integral of ``F (1 - F)`` of a mixture, half the mean difference of two of its values, by adaptive quadrature."""

from typing import Protocol, Self

import numpy as np

from bmtl.targets.laws import mixture

ACCURACY = 1e-9  # of an interval, relative to the whole integral
COARSEST = 10  # length of an interval over a component's width and its distance from it
NODES, WEIGHTS = np.polynomial.legendre.leggauss(10)


class OnAxis(Protocol):
    """A mixture of S components for each of N rows, on an axis u along which its components look alike."""

    @property
    def components(self) -> int:
        """S."""
        ...

    @property
    def rows(self) -> int:
        """N."""
        ...

    def __getitem__(self, rows: np.ndarray) -> Self:
        """That of some rows."""
        ...

    def centres(self) -> np.ndarray:
        """Where each component is on the axis ``(S, N)``."""
        ...

    def widths(self) -> np.ndarray:
        """How wide each component is on the axis ``(S, N)``."""
        ...

    def from_axis(self, u: np.ndarray) -> np.ndarray:
        """Y of u."""
        ...

    def slope(self, u: np.ndarray) -> np.ndarray:
        """dy/du."""
        ...

    def component_tail(self, y: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Probability of each component ``(S, N)`` beyond y ``(N,)``: above it where `upper`, else up to it."""
        ...


def integral_of_spread(whole: OnAxis, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The integral of ``F (1 - F)`` for each row between `low` and `high` on the axis, each ``(N,)``.

    In t, with ``u = centre + width sinh(t)``, heavy tails fall exponentially. Each interval is compared with its halves by
    Gauss-Legendre of 10 nodes and split where they differ, or where it is long against a component's width and its
    distance from it: narrow components far apart are stairs, whose steps nodes alone could miss.
    """
    centres, widths = whole.centres(), whole.widths()
    middle, unit = np.median(centres, axis=0), widths.min(axis=0)
    middle = middle.clip(low, high)
    first, last = (np.arcsinh((end - middle) / unit) for end in (low, high))

    def between(row: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        t = (left + right)[:, None] / 2 + (right - left)[:, None] / 2 * NODES  # (M, 10)
        flat = np.repeat(row, len(NODES))
        u = middle[flat] + unit[flat] * np.sinh(t.ravel())
        part = whole[flat]
        beyond = part.component_tail(part.from_axis(u), t.ravel() > 0).mean(axis=0)  # no digit is lost in either tail
        inside = (beyond * (1 - beyond) * part.slope(u)).reshape(t.shape)
        return (right - left) / 2 * unit[row] * ((inside * np.cosh(t)) @ WEIGHTS)

    def coarse(row: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        start, end = (middle[row] + unit[row] * np.sinh(t) for t in (left, right))
        centre = centres[:, row]
        distance = np.maximum(np.maximum(start - centre, centre - end), 0)
        return np.asarray(end - start > COARSEST * (widths[:, row] + distance).min(axis=0))

    def in_chunks(row: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        count = -(-row.size * whole.components * len(NODES) // mixture.MEMORY)
        cuts = np.array_split(np.arange(row.size), count)
        return np.concatenate([between(row[cut], left[cut], right[cut]) for cut in cuts])

    pieces = 4  # on either side of the middle
    edges = np.concatenate([np.linspace(first, 0, pieces + 1), np.linspace(0, last, pieces + 1)[1:]])  # (9, N)
    row = np.tile(np.arange(whole.rows), 2 * pieces)
    left, right = edges[:-1].ravel(), edges[1:].ravel()
    some = ~(left == right)  # none where the middle is an end; NaN stays
    row, left, right = row[some], left[some], right[some]
    value = in_chunks(row, left, right)
    enough = ACCURACY * np.bincount(row, value, minlength=whole.rows)
    total = np.zeros(whole.rows)
    for _ in range(50):  # halvings: then an interval is at the resolution of the numbers
        half = (left + right) / 2
        halves = np.stack([in_chunks(row, left, half), in_chunks(row, half, right)])
        open_ = (np.abs(halves.sum(axis=0) - value) > enough[row]) | coarse(row, left, right)
        total += np.bincount(row[~open_], halves.sum(axis=0)[~open_], minlength=whole.rows)
        if not open_.any():
            return total
        row, left, right = (
            np.tile(row[open_], 2),
            np.concatenate([left[open_], half[open_]]),
            np.concatenate([half[open_], right[open_]]),
        )
        value = halves[:, open_].ravel()
    return total + np.bincount(row, value, minlength=whole.rows)
