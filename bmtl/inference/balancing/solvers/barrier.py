"""Nash-MTL's and FairGrad's equation."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from bmtl.inference.balancing.solvers.cosines import Array


class Barrier(NamedTuple):
    """The result of `barrier_newton`.

    Attributes:
        alpha: The weights ``(K,)``.
        residual: The largest of ``|alpha^(1/q) G alpha - 1|``.
        error: The same relative to the terms that cancel in ``G alpha``: what rounding leaves is 1e-12. Where gradient norms
            span many decades, no float64 weights have a small residual, since a rounding of the longest gradient's weight is
            more than its gain.
        rounds: Number of Newton steps.
    """

    alpha: Array
    residual: float
    error: float
    rounds: int


def barrier_newton(norms: Array, cosine: Array, q: float = 1.0) -> Barrier:
    """Solves ``G alpha = alpha^(-1/q)``, ``alpha > 0``, by Newton's method on a barrier (q = 1: Nash-MTL).

    With ``y = n alpha`` and ``m = n^(1/q - 1)`` the problem is ``C y = m y^(-1/q)``, the stationary point of a convex
    function. Steps are relative (``y`` is multiplied), so that positivity costs nothing, and damped coordinate by
    coordinate: one that has to shrink by decades does not hold up the others.

    Args:
        norms: Gradient norms ``(K,)``, all positive.
        cosine: Cosines ``(K, K)``.
        q: Exponent.
    """
    mean = np.exp(np.log(norms).mean())  # geometric: a common scale is undone at the end
    n = norms / mean
    m = n ** (1.0 / q - 1.0)
    ridge, rounds = 1e-12, 0
    start = (m / max(cosine.sum(axis=1).mean(), 1e-3)) ** (q / (1.0 + q))
    best, best_residual = start, np.inf
    while ridge <= 1.0000001e-6:
        ridged = cosine + ridge * np.eye(len(n))
        y = start.copy()
        converged, before = False, np.inf
        for _ in range(60):
            rounds += 1
            u = _newton_step(y, ridged, ridged, m, q)
            if u is None:
                break
            y = np.where(u > 0.25, y / (1.0 + np.maximum(u, 0.0)), y * (1.0 - np.minimum(u, 0.25)))
            # Convergence is quadratic: a small step that does not shrink is rounding error.
            largest = np.abs(u).max()
            if largest < 1e-12 or (largest < 1e-6 and largest > before / 2.0):
                converged = True
                break
            before = largest
        residual = _residual(y, cosine, m, q)
        if residual < best_residual:
            best, best_residual = y, residual
        if converged or best_residual <= 1e-10:
            break
        ridge *= 100.0
    for _ in range(3):  # the ridge moves the solution by ridge / (smallest eigenvalue): take that out
        if not best_residual > 1e-12:
            break
        u = _newton_step(best, cosine, ridged, m, q)
        y = best if u is None else best * (1.0 - u)
        residual = _residual(y, cosine, m, q) if (y > 0).all() else np.inf
        if residual >= best_residual:
            break
        best, best_residual, rounds = y, residual, rounds + 1
    gain, wanted = cosine @ best, m * best ** (-1.0 / q)
    error = float((np.abs(gain - wanted) / (np.abs(cosine) @ best + wanted)).max())
    return Barrier(best / n * mean ** (-2.0 * q / (1.0 + q)), best_residual, error, rounds)


def _newton_step(y: Array, cosine: Array, ridged: Array, m: Array, q: float) -> Array | None:
    """Relative Newton step ``(K,)`` of `barrier_newton`; None if the Hessian, of `ridged`, is not positive definite."""
    p = m * y ** (-1.0 / q)
    hessian = y[:, None] * ridged * y
    diagonal = np.diagonal(hessian) + p * y / q
    np.fill_diagonal(hessian, diagonal)
    scale = 1.0 / np.sqrt(diagonal)  # Jacobi: entries of y may differ by decades
    _, u, info = lapack.dposv(scale[:, None] * hessian * scale, scale * y * (cosine @ y - p))
    return scale * u if info == 0 else None


def _residual(y: Array, cosine: Array, m: Array, q: float) -> float:
    """The largest relative residual of ``C y = m y^(-1/q)``."""
    return float(np.abs(y ** (1.0 / q) * (cosine @ y) / m - 1.0).max())
