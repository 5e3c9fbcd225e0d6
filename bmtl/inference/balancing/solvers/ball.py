"""CAGrad's problem: the best update in a ball around the mean gradient."""

import numpy as np

from bmtl.inference.balancing.solvers.active_set import active_set
from bmtl.inference.balancing.solvers.cosines import Array, cancelled
from bmtl.inference.balancing.solvers.pivoting import nearest_without_conflict
from bmtl.inference.balancing.solvers.simplex import RIDGE, minimum_parts, vertex, violation


def conflict_averse(norms: Array, cosine: Array, c: float) -> tuple[Array, float, int, bool]:
    """What CAGrad adds to the weights ``b = 1 / K`` of the mean gradient ``J'b``.

    w minimises ``w'Gb + c |J'b| |J'w|`` on the simplex, and ``(c |J'b| / |J'w|) w`` is added. On a support the minimum has
    a closed form, so that there is no inner iteration over ``|J'w|``. Where 0 lies in the hull of the gradients, ``J'w`` may
    be 0 and has no direction: no update in the ball serves every task, and the nearest that harms none is the answer.

    Args:
        norms: Gradient norms ``(K,)``, all positive.
        cosine: Cosines ``(K, K)``.
        c: Radius of the ball around the mean gradient, relative to its length.

    Returns:
        The addition ``(K,)``; the largest violation of the KKT conditions, relative to what cancels; the number of rounds;
        and whether ``J'w`` or ``J'b`` is 0.
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
    added = x * _strength(cosine @ x, h, a, x > 0.0, radius / np.sqrt(x @ ridged @ x))
    left = residual(added)
    stationary = cancelled(cosine, x, 1e-6)
    if left > 1e-9 and cancelled(cosine, x, 1e-5):
        harmless, _, more = nearest_without_conflict(cosine, mean[None])
        rounds += more
        if residual(harmless[0] - mean) < left:
            added = harmless[0] - mean
            left = residual(added)
    return added * a, left, rounds, stationary


def _strength(pulled: Array, h: Array, a: Array, support: Array, guess: float) -> float:
    """The factor that makes ``h + factor pulled`` parallel to `a` on the support.

    It is the radius over a length that may have cancelled to a few digits; the condition that defines it has them all. A
    longer one would leave the ball, and where the condition says nothing the guess stands.
    """
    normal = a[support] / np.linalg.norm(a[support])
    h, pulled = h[support], pulled[support]
    across = pulled - normal * (normal @ pulled)
    if np.linalg.norm(across) <= 1e-6 * np.linalg.norm(pulled):
        return guess
    return min(float(-(h @ across) / (across @ across)), guess)
