"""Quadratic programs over the simplex: MGDA's and SDMGrad's."""

import numpy as np
from scipy.linalg import lapack

from bmtl.inference.balancing.solvers.active_set import active_set
from bmtl.inference.balancing.solvers.cosines import Array

RIDGE = 1e-13


def simplex_qp(Q: Array, h: Array, a: Array, start: int) -> Array:
    """Minimises ``x'Qx / 2 + h'x`` over ``a'x = 1``, ``x >= 0``, from a vertex of that simplex.

    Args:
        Q: Positive definite ``(K, K)``.
        h: Linear term ``(K,)``.
        a: Positive normal of the simplex ``(K,)``.
        start: The vertex to start from.

    Returns:
        The minimiser ``(K,)``.
    """
    return _quadratic(Q, h, a, vertex(a, start))[0]


def shortest_in_hull(norms: Array, cosine: Array) -> Array:
    """Weights ``(K,)`` on the simplex of the shortest convex combination of the gradients (MGDA)."""
    return shortest_combination(norms, cosine)[0]


def shortest_combination(norms: Array, cosine: Array) -> tuple[Array, float, int]:
    """The same with the largest violation of the KKT conditions, relative, and the number of rounds."""
    a = norms.min() / norms
    ridged = cosine + RIDGE * np.eye(len(a))
    x, rounds = _quadratic(ridged, np.zeros_like(a), a, vertex(a, int(norms.argmin())))
    for attempt in range(4):
        pulled = cosine @ x
        residual = violation(pulled - (x @ pulled) * a, x) / x.sum()
        if residual <= 1e-12 or attempt == 3:
            break
        x, more = _quadratic(ridged, -RIDGE * x, a, x)  # a ridge around x, not around 0: no bias at the solution
        rounds += more
    weights = x * a  # x = n alpha up to the common factor min n, so the weights sum to a'x = 1
    return weights / weights.sum(), residual, rounds


def onto_simplex(y: Array) -> Array:
    """The point of the simplex nearest to ``y`` ``(K,)``."""
    descending = np.sort(y)[::-1]
    excess = (np.cumsum(descending) - 1.0) / np.arange(1, len(y) + 1)
    return np.maximum(y - excess[np.flatnonzero(descending > excess)[-1]], 0.0)


def _quadratic(Q: Array, h: Array, a: Array, x: Array) -> tuple[Array, int]:
    def minimum(support: Array) -> tuple[Array, bool]:
        u, p, _ = minimum_parts(Q, h, a, support)
        return u - p, False

    def reduced(x: Array) -> Array:
        slope = Q @ x + h
        return (slope - (x @ slope) * a) / max(np.abs(slope).max(), 1e-300)

    return active_set(x, minimum, reduced)


def vertex(a: Array, k: int) -> Array:
    """The corner k of ``a'x = 1``, ``x >= 0``."""
    x = np.zeros_like(a)
    x[k] = 1.0 / a[k]
    return x


def minimum_parts(
    Q: Array, h: Array, a: Array, support: Array, exact: Array | None = None
) -> tuple[Array, Array, float]:
    """The parts of minima over ``a'y = 1`` on a support.

    Args:
        Q: Positive definite ``(K, K)``.
        h: Linear term ``(K,)``.
        a: Positive normal of the simplex ``(K,)``.
        support: Indices.
        exact: The matrix that Q is but for a ridge, if the parts are to be its own: equations are then refined.

    Returns:
        ``u`` proportional to ``Q^-1 a`` with ``a'u = 1``; ``p = Q^-1 (h - nu a)`` with ``a'p = 0``; and ``u'Qu``.
    """
    a, h = a[support], h[support]
    factor, u, info = lapack.dposv(Q[support[:, None], support], a)
    if info != 0:
        raise np.linalg.LinAlgError("The matrix of a problem over the simplex is not positive definite.")
    matrix = None if exact is None else exact[support[:, None], support]
    u = _refined(factor, matrix, a, u)
    tau = 1.0 / (a @ u)
    u = u * tau
    if not h.any():
        return u, h, tau
    right = h - (h @ u) * a  # nu taken out first: u and Q^-1 h may both be large and parallel
    p = _refined(factor, matrix, right, lapack.dpotrs(factor, right)[0])
    return u, p - u * (a @ p), tau


def _refined(factor: Array, matrix: Array | None, right: Array, x: Array) -> Array:
    """A solution of ``matrix x = right`` from one of a matrix nearby, whose Cholesky factor is given."""
    best, smallest = x, np.inf
    while matrix is not None:
        left = right - matrix @ x
        size = np.abs(left).max()
        if not size < smallest / 2.0:
            break
        best, smallest = x, size
        x = x + lapack.dpotrs(factor, left)[0]
    return best


def violation(reduced: Array, x: Array) -> float:
    """Largest violation of the KKT conditions: ``reduced`` is 0 where x is positive, and nowhere negative."""
    return float(np.where(x > 0, np.abs(reduced), np.maximum(-reduced, 0.0)).max())
