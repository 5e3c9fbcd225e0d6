"""The energy score of vectors."""

import numpy as np
from numpy.typing import ArrayLike

MEMORY = 1 << 22  # numbers held at once: pairs of draws times rows times components


def energy_of_draws(y: ArrayLike, draws: ArrayLike, *, fair: bool = True) -> float:
    """Mean over rows of ``E|X - y| - E|X - X'| / 2`` with Euclidean norms: the CRPS of vectors.

    Args:
        y: Vectors ``(N, d)``. A NaN is a component that was not observed: the row is scored on the others.
        draws: Predictive draws ``(S, N, d)``.
        fair: Estimate the score of what the draws were drawn from, without bias; it can be negative.

    Returns:
        The score in the unit that all components share; NaN where a draw of an observed component is NaN, infinite where
        one is infinite.

    Raises:
        ValueError: If the shapes are others, a row has no component observed, or the fair score is asked of one draw.

    Source:
        Gneiting & Raftery (2007), section 4.3.
    """
    labels, drawn = np.asarray(y, dtype=float), np.asarray(draws, dtype=float)
    if labels.ndim != 2 or drawn.ndim != 3 or drawn.shape[1:] != labels.shape or not drawn.size:
        raise ValueError(
            f"y has shape {labels.shape} and draws {drawn.shape}; expected (N, d) and (S, N, d), a row and a draw at least."
        )
    count, rows, d = drawn.shape
    if fair and count < 2:
        raise ValueError("The fair score compares draws with each other; it needs two at least. Ask for fair=False.")
    seen = ~np.isnan(labels)
    if not seen.any(axis=1).all():
        raise ValueError(f"{int((~seen.any(axis=1)).sum())} rows have no component observed; leave them out.")
    endless = (np.isinf(drawn) & seen).any(axis=(0, 2)) | np.isinf(labels).any(axis=1)
    # Squares of large or small numbers leave the range of floats: a power of two by row changes no digit.
    largest = np.maximum(_largest(drawn).max(axis=0), _largest(labels))
    exponents = np.frexp(np.where(largest > 0, largest, 1.0))[1]
    labels, drawn = np.ldexp(labels, -exponents[:, None]), np.ldexp(drawn, -exponents[:, None])
    off = np.where(seen, drawn - np.where(seen, labels, 0), 0)
    with np.errstate(invalid="ignore"):
        first = np.linalg.norm(off, axis=-1).mean(axis=0)
        second = np.zeros(rows)
        step = max(1, MEMORY // (count * d))
        for start in range(0, rows, step):
            part = off[:, start : start + step]
            for i in range(count - 1):
                second[start : start + step] += np.linalg.norm(part[i + 1 :] - part[i], axis=-1).sum(axis=0)
        scores = np.ldexp(first - second / (count * (count - 1 if fair else count)), exponents)
    missing = np.isnan(off).any(axis=(0, 2))
    return float(np.where(missing, np.nan, np.where(endless, np.inf, scores)).mean())


def _largest(values: np.ndarray) -> np.ndarray:
    """Largest finite magnitude over the last axis; 0 where there is none."""
    return np.where(np.isfinite(values), np.abs(values), 0.0).max(axis=-1)
