"""The active-set method that the convex problems with ``x >= 0`` share."""

from collections.abc import Callable

import numpy as np

from bmtl.inference.balancing.solvers.cosines import Array

ROUNDS = 20  # for each of the K coordinates; problems of hundreds of dependent gradients have taken 3


def active_set(
    x: Array, minimum: Callable[[Array], tuple[Array, bool]], reduced: Callable[[Array], Array]
) -> tuple[Array, int]:
    """Minimises a convex function over ``x >= 0``, and over the equation that all its points satisfy if there is one.

    Moves to the minimum on the present support, leaving out what would become negative on the way, then adds the
    coordinate along which the function falls fastest.

    Args:
        x: Where to start ``(K,)``.
        minimum: The minimum on a support (indices), and False; or a direction in which the function falls without end,
            and True.
        reduced: The function's slopes at x ``(K,)``, less the equation's multiplier times its normal, in units in which
            1e-12 is rounding.

    Returns:
        The minimiser ``(K,)``, or the best point after `ROUNDS` K rounds, and the number of rounds.
    """
    support = np.flatnonzero(x > 0.0)
    seen: set[bytes] = set()  # each support has one minimum, and they fall: one that comes back shows rounding alone
    rounds = 0
    while True:
        while len(support) and rounds < ROUNDS * len(x):
            rounds += 1
            here = x[support]
            y, endless = minimum(support)
            x = np.zeros_like(x)
            falling = y < 0.0 if endless else y <= 0.0
            if not falling.any():
                x[support] = y
                break
            change = y if endless else y - here
            steps = -here[falling] / change[falling]
            t = steps.min()
            here = here + t * change
            here[np.flatnonzero(falling)[steps.argmin()]] = 0.0
            here = np.maximum(here, 0.0)
            x[support] = here
            support = support[here > 0.0]
            if t == 0.0:  # what was just added cannot grow
                return x, rounds
        slopes = reduced(x)
        slopes[support] = np.inf
        j = int(slopes.argmin())
        known = (x > 0.0).tobytes()
        if slopes[j] >= -1e-12 or known in seen or rounds >= ROUNDS * len(x):
            return x, rounds
        seen.add(known)
        support = np.append(support, j)
