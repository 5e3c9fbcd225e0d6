"""Class probabilities: what is asked of them, and what they predict."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

TOLERANCE = 1e-4  # of a row's sum: float32 softmaxes, averaged over draws


def checked(labels: ArrayLike, probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``(N,)`` as integers and probabilities ``(N, C)`` in double precision, after a check that they fit.

    NaN passes: it is for each score to be NaN then. Nothing is normalised.

    Raises:
        ValueError: If there is no row or fewer than two classes, labels are not integers or outside the classes, or a
            row of probabilities leaves [0, 1] or does not sum to one.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=float)
    if p.ndim != 2 or not len(p) or p.shape[1] < 2 or y.shape != p.shape[:1]:
        raise ValueError(
            f"labels has shape {y.shape} and probabilities {p.shape}; expected (N,) and (N, C), a row and two classes "
            "at least. (For two classes, give the probabilities of both.)"
        )
    if y.dtype.kind not in "biu":
        raise ValueError(
            f"labels are of type {y.dtype}; expected integers from 0 to {p.shape[1] - 1}. "
            "Drop rows without a label, then give labels.astype(int)."
        )
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(
            f"labels range from {y.min()} to {y.max()}; with {p.shape[1]} classes they are 0 to {p.shape[1] - 1}. "
            "Drop rows without a label (-1)."
        )
    if (p < -TOLERANCE).any() or (p > 1 + TOLERANCE).any():
        raise ValueError(f"probabilities range from {np.nanmin(p):.4g} to {np.nanmax(p):.4g}; expected [0, 1].")
    sums = p.sum(axis=1)
    off = np.abs(sums - 1) > TOLERANCE  # false for NaN
    if off.any():
        raise ValueError(
            f"{off.sum()} of {len(p)} rows of probabilities do not sum to one, the first to {sums[off][0]:.6g}. "
            "Give probabilities and not logits; for a mean over draws, average probabilities."
        )
    return y.astype(np.intp), p


def predicted_class(probabilities: np.ndarray) -> np.ndarray:
    """The most probable class ``(N,)``; of several equally probable ones the first."""
    return probabilities.argmax(axis=1)


def entropy_of_probabilities(probabilities: ArrayLike) -> np.ndarray:
    """Entropy ``(N,)`` in nats of probabilities ``(N, C)``, from 0 to ``log C``; NaN where a row holds NaN."""
    return entr(np.asarray(probabilities, dtype=float).clip(0, 1)).sum(axis=-1)
