"""Nash-MTL's and FairGrad's equation."""

import numpy as np
from scipy.linalg import lapack

from bmtl.inference.balancing.solvers.cosines import Array


def barrier_newton(norms: Array, cosine: Array, q: float = 1.0) -> tuple[Array, float, int]:
    """Solves ``G alpha = alpha^(-1/q)``, ``alpha > 0``, by Newton's method on a barrier (q = 1: Nash-MTL).

    With ``y = n alpha`` and ``m = n^(1/q - 1)`` the problem is ``C y = m y^(-1/q)``, the stationary point of a convex
    function. Steps are relative (``y`` is multiplied), so that positivity costs nothing.

    Args:
        norms: Gradient norms ``(K,)``, all positive.
        cosine: Cosines ``(K, K)``.
        q: Exponent.

    Returns:
        The weights ``(K,)``, the largest relative residual, and the number of rounds.
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
            largest = np.abs(u).max()
            y = y * (1.0 - (u if largest < 0.25 else u / (1.0 + largest)))
            # Convergence is quadratic: a small step that does not shrink is rounding error.
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
        if not 1e-12 < best_residual <= 1e-6:
            break
        u = _newton_step(best, cosine, ridged, m, q)
        y = best if u is None else best * (1.0 - u)
        residual = _residual(y, cosine, m, q) if (y > 0).all() else np.inf
        if residual >= best_residual:
            break
        best, best_residual, rounds = y, residual, rounds + 1
    return best / n * mean ** (-2.0 * q / (1.0 + q)), best_residual, rounds


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
