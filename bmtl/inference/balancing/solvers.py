"""Exact solvers for K x K problems, in float64 on the host.

Every problem is posed on the cosine matrix ``C`` and in coordinates on unit gradients, ``x = n alpha``: gradient norms
that span many decades then enter through vectors only. Residuals are those of the problem without the small ridge that
the linear algebra needs.
"""

import numpy as np
from scipy.linalg import lapack

Array = np.ndarray


def unit_diagonal(gram: Array) -> tuple[Array, Array]:
    """Splits a Gram matrix into gradient norms ``(K,)`` and cosines ``(K, K)``, symmetric with unit diagonal."""
    norms = np.sqrt(np.diagonal(gram))
    cosine = gram / norms[:, None] / norms
    cosine = (cosine + cosine.T) / 2
    np.fill_diagonal(cosine, 1.0)
    return norms, cosine


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


def shortest_in_hull(norms: Array, cosine: Array) -> Array:
    """Weights ``(K,)`` on the simplex of the shortest convex combination of the gradients (MGDA)."""
    a = norms.min() / norms
    x = simplex_qp(cosine + 1e-12 * np.eye(len(norms)), np.zeros(len(norms)), a, start=int(norms.argmin()))
    weights = x * a  # x = n alpha up to the common factor min n, so the weights sum to a'x = 1
    return weights / weights.sum()


def simplex_qp(Q: Array, h: Array, a: Array, start: int) -> Array:
    """Minimises ``x'Qx / 2 + h'x`` over ``a'x = 1``, ``x >= 0``, by an active-set method.

    Args:
        Q: Positive definite ``(K, K)``.
        h: Linear term ``(K,)``.
        a: Positive normal of the simplex ``(K,)``.
        start: The vertex to start from.

    Returns:
        The minimiser ``(K,)``.
    """
    size = len(h)
    x = np.zeros(size)
    x[start] = 1.0 / a[start]
    support = [start]
    for _ in range(50 * size):
        while True:  # the minimum on this support; leave out what would become negative
            s = np.array(support)
            kkt = np.zeros((len(s) + 1, len(s) + 1))
            kkt[:-1, :-1] = Q[np.ix_(s, s)]
            kkt[:-1, -1] = kkt[-1, :-1] = a[s]
            y = np.linalg.solve(kkt, np.append(-h[s], 1.0))[:-1]
            if (y > 0).all() or len(s) == 1:
                x[:] = 0.0
                x[s] = y
                break
            falling = y <= 0
            steps = x[s][falling] / (x[s][falling] - y[falling])
            t = steps.min()
            moved = x[s] + t * (y - x[s])
            moved[np.flatnonzero(falling)[steps.argmin()]] = 0.0
            x[:] = 0.0
            x[s] = moved
            support = [i for i, value in zip(support, moved, strict=True) if value > 0]
        gradient = Q @ x + h
        reduced = gradient - (x @ gradient) * a
        reduced[support] = np.inf
        j = int(reduced.argmin())
        if len(support) == size or reduced[j] >= -1e-12 * np.abs(gradient).max():
            return x
        support.append(j)
    return x
