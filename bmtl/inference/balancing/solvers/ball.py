"""CAGrad's problem: the best update in a ball around the mean gradient."""

import numpy as np

from bmtl.inference.balancing.solvers.active_set import active_set
from bmtl.inference.balancing.solvers.cosines import Array, cancelled
from bmtl.inference.balancing.solvers.pivoting import nearest_without_conflict
from bmtl.inference.balancing.solvers.simplex import RIDGE, minimum_parts, vertex, violation


def conflict_averse(norms: Array, cosine: Array, c: float) -> tuple[Array, float, int, bool]:
    """The term that CAGrad adds to the weights ``b = 1 / K`` of the mean gradient ``J'b``.

    w minimises ``w'Gb + c |J'b| |J'w|`` on the simplex, and ``(c |J'b| / |J'w|) w`` is added. On a support the minimum has
    a closed form, so that there is no inner iteration over ``|J'w|``. Where 0 lies in the hull of the gradients, ``J'w`` may
    be 0 and has no direction: no update in the ball serves every task, and the nearest that harms none is the answer.

    The length of ``J'w`` is known to a relative ``1e-16 / f^2`` from cosines, f being what is left of the lengths that it
    adds up.

    Args:
        norms: Gradient norms ``(K,)``, all positive.
        cosine: Cosines ``(K, K)``.
        c: Radius of the ball around the mean gradient, relative to its length.

    Returns:
        The addition ``(K,)``; the largest violation of the KKT conditions, relative to what cancels, or of the update's
        distance from the mean, relative to the radius; the number of rounds; and whether ``J'w`` or ``J'b`` is 0.
    """
    size = len(norms)
    mean = norms / (norms.max() * size)  # b in coordinates on unit gradients, the longest gradient 1
    a = norms.max() / norms
    h = cosine @ mean
    radius = c * np.sqrt(max(mean @ h, 0.0))
    if radius == 0.0 or cancelled(cosine, mean):
        return np.zeros(size), 0.0, 0, c > 0.0
    ridged = cosine + RIDGE * np.eye(size)
    scale = np.abs(h).max() + radius

    def minimum(support: Array) -> tuple[Array, bool]:
        u, p, tau = minimum_parts(ridged, h, a, support)
        left = radius**2 - p @ ridged[support[:, None], support] @ p
        return (-p, True) if left <= 0.0 else (u - np.sqrt(tau / left) * p, False)

    def reduced(x: Array) -> Array:
        pulled = ridged @ x
        slope = h + radius / np.sqrt(x @ pulled) * pulled
        return (slope - (x @ slope) * a) / scale

    def residual(added: Array) -> float:
        slope = h + cosine @ added
        return violation(slope - (x @ slope) * a, x) / scale

    x, rounds = active_set(vertex(a, int(norms.argmin())), minimum, reduced)
    stationary = cancelled(cosine, x, 1e-5)  # float64 cosines leave its direction uncertain by 1e-6
    added = _added(x, ridged, cosine, h, a, radius)
    left = residual(added)
    if left > 1e-9 and stationary:
        harmless, _, more = nearest_without_conflict(cosine, mean[None])
        rounds += more
        if residual(harmless[0] - mean) < left:
            added = harmless[0] - mean
            left = residual(added)
    if not stationary:
        left = max(left, abs(np.sqrt(max(added @ cosine @ added, 0.0)) / radius - 1.0))
    return added * a, left, rounds, stationary


def _added(x: Array, ridged: Array, cosine: Array, h: Array, a: Array, radius: float) -> Array:
    """The addition on the support of x, of the cosines without their ridge; x itself at the radius where there is none.

    With the parts u, p and tau of the minimum, ``x = u - sqrt(tau / left) p``, of length ``radius sqrt(tau / left)``. At the
    radius that is ``sqrt(left / tau) u - p``: no length that has cancelled is divided by.
    """
    support = np.flatnonzero(x > 0.0)
    matrix = cosine[support[:, None], support]
    u, p, tau = minimum_parts(ridged, h, a, support, exact=cosine)
    left = radius**2 - p @ matrix @ p
    added = np.zeros_like(x)
    if left > 0.0 and tau > 0.0:
        added[support] = np.sqrt(left / tau) * u - p
        if (added[support] > 0.0).all():
            return added
    return x * (radius / np.sqrt(x @ ridged @ x))
