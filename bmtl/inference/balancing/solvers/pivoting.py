"""UPGrad's and DualProj's projections."""

import numpy as np
from scipy.linalg import lapack

from bmtl.inference.balancing.solvers.active_set import active_set
from bmtl.inference.balancing.solvers.cosines import Array

_TOLERANCE = 1e-12
_RIDGE = 1e-10
_PATIENCE = 3
_MORE = (1e-8, 1e-7)  # ridges under which a row that has not ended comes close


def nearest_without_conflict(cosine: Array, starts: Array) -> tuple[Array, float, int]:
    """Projects combinations of gradients onto those that conflict with no gradient.

    For each row t of `starts`, finds ``lam >= 0`` with ``Y = (t + lam) C >= 0`` and ``lam Y = 0``: then ``t + lam`` is the
    shortest combination ``v >= t``. Block principal pivoting (Judice & Pires 1994), all rows at once: guess where lam is
    positive, solve, flip all that came out wrong. A row in which that does not help for three rounds (0 lies in the hull of
    gradients that all but depend on each other) is solved by the active-set method, which is slower and ends within
    ``ROUNDS K`` rounds; it starts where pivoting ends with a larger ridge.

    Args:
        cosine: Cosines ``(K, K)``.
        starts: Coefficients on unit gradients ``(R, K)``.

    Returns:
        ``t + lam`` ``(R, K)``, the largest violation relative to the size of what cancels, and the number of rounds.
    """
    matrix = cosine + _RIDGE * np.eye(len(cosine))
    lam, ended, rounds = _pivoted(matrix, starts)
    left = stuck = np.flatnonzero(~ended)
    for ridge in _MORE:
        if len(left):
            lam[left], ended, more = _pivoted(cosine + ridge * np.eye(len(cosine)), starts[left])
            left, rounds = left[~ended], rounds + more
    lam[left] = 0.0
    for row in stuck:
        lam[row], more = _one_by_one(matrix, starts[row] @ matrix, np.maximum(lam[row], 0.0))
        rounds += more
    lam = np.maximum(lam, 0.0)
    total = starts + lam
    y = total @ cosine
    violation = np.where(lam > 0.0, np.abs(y), np.maximum(-y, 0.0)).max(axis=1)
    return total, float((violation / np.abs(total).max(axis=1)).max()), rounds


def _pivoted(matrix: Array, starts: Array) -> tuple[Array, Array, int]:
    """Block principal pivoting: lam ``(R, K)``, which rows have ended ``(R,)``, and the number of rounds."""
    products = starts @ matrix
    lam = np.zeros_like(starts)
    ended = np.ones(len(starts), dtype=bool)
    rows = np.flatnonzero((products < -_TOLERANCE).any(axis=1))  # those not done
    active = products[rows] < 0.0
    fewest = np.full(len(rows), len(matrix) + 1)
    patience = np.full(len(rows), _PATIENCE)
    rounds = 0
    while len(rows):
        rounds += 1
        found = _solve_on(matrix, active, -products[rows])
        y = products[rows] + found @ matrix
        lam[rows] = found
        wrong = np.where(active, found, y) < -_TOLERANCE
        counts = wrong.sum(axis=1)
        patience = np.where(counts < fewest, _PATIENCE, patience - 1)
        fewest = np.minimum(counts, fewest)
        ended[rows[(counts > 0) & (patience < 0)]] = False
        left = (counts > 0) & (patience >= 0)
        rows, active, fewest, patience = rows[left], (active ^ wrong)[left], fewest[left], patience[left]
    return lam, ended, rounds


def _one_by_one(matrix: Array, product: Array, start: Array) -> tuple[Array, int]:
    """Minimises ``x'Mx / 2 + product'x`` over ``x >= 0``."""

    def minimum(support: Array) -> tuple[Array, bool]:
        return _solve_one(matrix, -product, support), False

    return active_set(start, minimum, lambda x: product + matrix @ x)


def _solve_on(matrix: Array, active: Array, right: Array) -> Array:
    """Solves each row's equations on its active indices ``(R, K)``; 0 elsewhere."""
    if len(active) <= 4:  # a loop costs less than a batch
        solved = np.zeros_like(right)
        for row, values in enumerate(right):
            on = np.flatnonzero(active[row])
            solved[row, on] = _solve_one(matrix, values, on)
        return solved
    if len(matrix) <= 16:
        return _solve_masked(np.broadcast_to(matrix, (len(active), *matrix.shape)), active, right)
    # The active indices first and the rest cut off: the batch costs what its largest system does.
    size = max(int(active.sum(axis=1).max()), 1)
    index = np.argsort(~active, axis=1, kind="stable")[:, :size]  # (R, size)
    rows = np.arange(len(active))[:, None]
    solved = np.zeros_like(right)
    solved[rows, index] = _solve_masked(
        matrix[index[:, :, None], index[:, None, :]], active[rows, index], right[rows, index]
    )
    return solved


def _solve_one(matrix: Array, right: Array, on: Array) -> Array:
    """The same for one row; only the active values."""
    if not len(on):
        return right[on]
    _, solved, info = lapack.dposv(matrix[on[:, None], on], right[on])
    if info != 0:
        raise np.linalg.LinAlgError("The cosines are not positive semi-definite.")
    return solved


def _solve_masked(systems: Array, active: Array, right: Array) -> Array:
    """The same for a matrix a row ``(R, m, m)``: the identity where a row is not active."""
    systems = np.where(active[:, :, None] & active[:, None, :], systems, 0.0)
    diagonal = np.einsum("rii->ri", systems)
    diagonal[~active] = 1.0
    return np.linalg.solve(systems, np.where(active, right, 0.0)[:, :, None])[:, :, 0]
