"""Gram matrices as norms and cosines."""

import numpy as np
from scipy.linalg import lapack

Array = np.ndarray


def unit_diagonal(gram: Array) -> tuple[Array, Array]:
    """Splits a Gram matrix into gradient norms ``(K,)`` and cosines ``(K, K)``, symmetric with unit diagonal.

    A Gram matrix of float32 gradients has eigenvalues below 0 by rounding; the cosines returned have none, and those as
    small as the rounding that these show are 0.
    """
    norms = np.sqrt(np.diagonal(gram))
    cosine = gram / norms[:, None] / norms
    cosine = (cosine + cosine.T) / 2
    np.fill_diagonal(cosine, 1.0)
    if not _is_definite(cosine, 1e-13):
        cosine = _without_noise(cosine)
        scale = np.sqrt(np.diagonal(cosine))
        cosine = cosine / scale[:, None] / scale
        np.fill_diagonal(cosine, 1.0)
    return norms, cosine


def cancelled(cosine: Array, x: Array, fraction: float = 1e-7) -> bool:
    """Whether a combination of unit gradients is at most this fraction of the lengths that it adds up."""
    return bool(x @ cosine @ x <= (fraction * np.abs(x).sum()) ** 2)


def _without_noise(matrix: Array) -> Array:
    """A symmetric matrix without the eigenvalues that are rounding: the negative ones, and positive ones of that size."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > -2.0 * values[0]
    clean = (vectors[:, kept] * values[kept]) @ vectors[:, kept].T
    return (clean + clean.T) / 2


def _is_definite(cosine: Array, ridge: float) -> bool:
    ridged = cosine.copy()
    np.fill_diagonal(ridged, 1.0 + ridge)
    return bool(lapack.dpotrf(ridged, clean=0, overwrite_a=1)[1] == 0)
