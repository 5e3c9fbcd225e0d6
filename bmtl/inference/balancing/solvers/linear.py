"""Problems that linear algebra alone solves: IMTL-G's and ConFIG's equation, Aligned-MTL's transformation."""

import numpy as np
from scipy.linalg import lapack

from bmtl.inference.balancing.solvers.cosines import Array


def equal_projections(cosine: Array, eps: float = 2.3e-16) -> tuple[Array, float]:
    """The combination ``v`` ``(K,)`` of unit gradients whose projections on all of them are 1, ``C v = e``.

    Where gradients depend on each other there may be none: then the pseudo-inverse's, whose projections differ.

    Args:
        cosine: Cosines ``(K, K)``.
        eps: Relative precision of the gradients: what it makes of dependent ones must not be divided by.

    Returns:
        The combination, and the largest ``|C v - e|``.
    """
    ones = np.ones(len(cosine))
    _, v, info = lapack.dposv(cosine, ones)
    residual = np.abs(cosine @ v - 1.0).max()
    if info == 0 and residual <= 1e-6 and eps * np.abs(v).sum() <= 1e-3:
        return v, float(residual)
    values, vectors = np.linalg.eigh(cosine)
    kept = values > max(1e-10, len(cosine) * eps) * values[-1]
    vectors = vectors[:, kept]
    v = vectors @ (vectors.sum(axis=0) / values[kept])
    return v, float(np.abs(cosine @ v - 1.0).max())


def aligned(gram: Array, scale: str, eps: float = 2.3e-16) -> tuple[Array, Array, float]:
    """The symmetric ``B = sqrt(s) V S^-1/2 V'`` of a Gram matrix ``V S V'``: the gradients ``B J`` are orthogonal.

    Args:
        gram: Gram matrix ``(K, K)``.
        scale: Which eigenvalue s they get: the "min", the "median" or the mean ("rmse").
        eps: Relative precision of the gradients; eigenvalues below K times this are cut off.

    Returns:
        B ``(K, K)``, the eigenvalues kept, relative to the trace and ascending, and how far ``B G B`` is from s times a
        projector, relative to s.
    """
    relative = gram / np.trace(gram)
    values, vectors = np.linalg.eigh((relative + relative.T) / 2)
    kept = values > len(gram) * eps * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    s = {"min": values[0], "median": values[(len(values) - 1) // 2], "rmse": values.mean()}[scale]
    balance = (vectors * np.sqrt(s / values)) @ vectors.T
    error = balance @ relative @ balance - s * (vectors @ vectors.T)
    return balance, values, float(np.abs(error).max() / s)
