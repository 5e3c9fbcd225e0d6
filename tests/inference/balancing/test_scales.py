"""Gradients whose norms span many decades, and many tasks: nothing but zero is zero, and every solver ends."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from bmtl.inference.balancing import SLOTS, CAGrad, Context, GradNorm, Measured, NashMTL, UPGrad, Weighting
from bmtl.inference.balancing.solvers import conflict_averse, nearest_without_conflict, unit_diagonal
from bmtl.inference.balancing.solvers.active_set import ROUNDS, active_set
from tests.inference.balancing.problems import everyone, gradients, unit_gradients

GRAM = sorted(name for name, cls in SLOTS.items() if issubclass(cls, Weighting) and cls.needs == "gram")
JACOBIAN = ["db-mtl", "grad-drop", "moco"]
KINDS = ["generic", "opposed", "strongly opposed", "rank-deficient", "agreeing", "balanced"]


def weigh(name, j):
    losses = torch.ones(len(j), dtype=torch.float64)
    return SLOTS[name]().weigh(Measured(j @ j.T, j, losses=losses), everyone(len(j)))


# ---- Decades ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tiny", [1e-13, 1e-40, 1e-120])
@pytest.mark.parametrize("name", [*GRAM, *JACOBIAN])
def test_a_short_gradient_is_not_a_zero_gradient(name, tiny):
    j = gradients("generic", 3)
    j[1] *= tiny
    solution, zero = weigh(name, j)
    assert not zero.any()
    assert solution.alpha.isfinite().all()
    j[1] = 0.0
    solution, zero = weigh(name, j)
    assert zero.tolist() == [False, True, False]
    assert solution.alpha[1] == 1


def test_twelve_decades_change_nothing_for_nash():
    gram = torch.tensor([[1.0, 0.2, 0.1], [0.2, 1.0, 0.3], [0.1, 0.3, 1.0]], dtype=torch.float64)
    d = torch.tensor([1.0, 2e12, 1.0], dtype=torch.float64)
    found = NashMTL().solve(d[:, None] * gram * d)
    assert_close(found.alpha, NashMTL().solve(gram).alpha / d, rtol=1e-9, atol=0.0)
    assert_close(found.alpha, torch.tensor([0.884, 4.04e-13, 0.848], dtype=torch.float64), rtol=1e-3, atol=0.0)
    assert 0 < found.residual < 1e-9


@pytest.mark.parametrize("name", ["nash-mtl", "imtl-g", "config", "dual-proj", "pcgrad", "gradvac", "upgrad"])
@pytest.mark.parametrize("decades", [12, 25, 60])
def test_methods_on_directions_see_no_scale(name, decades):
    # In coordinates on unit gradients these are functions of the cosines, and of the norms' ratios at most.
    unit = unit_gradients("opposed", 4)
    norms = torch.tensor([10.0**decades, 1.0, 10.0 ** (decades / 2), 10.0 ** (decades / 3)], dtype=torch.float64)
    j = unit * norms[:, None]
    alpha = weigh(name, j)[0].alpha
    shifted = weigh(name, j * 1e-7)[0].alpha
    power = {"nash-mtl": -1, "imtl-g": -1}.get(name, 0)
    assert_close(shifted, alpha * 1e-7**power, rtol=1e-6, atol=0.0)
    if power:
        assert_close(norms * alpha, weigh(name, unit)[0].alpha, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("name", [*GRAM, *JACOBIAN])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [2, 11, 40])
@pytest.mark.parametrize("decades", [12, 25])
def test_no_solver_fails_over_25_decades(name, kind, k, decades):
    solution, zero = weigh(name, gradients(kind, k, decades))  # a residual above what is allowed raises
    assert solution.alpha.isfinite().all()
    assert not zero.any()


def test_grad_norm_moves_the_weight_of_a_short_gradient():
    transform = GradNorm()
    transform.bind(["a", "b"])
    losses = torch.ones(2, dtype=torch.float64)
    transform.loss_derivatives(losses, Context(torch.ones(2, dtype=torch.bool)))
    gram = torch.diag(torch.tensor([1.0, 1e-30], dtype=torch.float64))
    transform.refine(Measured(gram, losses=losses), Context(torch.ones(2, dtype=torch.bool)))
    assert transform.weights[1] > transform.weights[0]


# ---- Many tasks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*GRAM, *JACOBIAN} - {"upgrad"}))
@pytest.mark.parametrize("decades", [0, 25])
def test_500_tasks(name, decades):
    solution, zero = weigh(name, gradients("opposed", 500, decades))
    assert solution.alpha.isfinite().all()
    assert not zero.any()


@pytest.mark.parametrize("kind", ["generic", "opposed"])
@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-4])
def test_upgrad_ends_at_rank_192_of_500(kind, noise):
    # As of float32 gradients (1e-7): the cosines' smallest eigenvalues are rounding, and pivoting goes in circles.
    rng = np.random.default_rng(0)
    j = rng.standard_normal((500, 192))
    if kind == "opposed":
        j += np.where(np.arange(500) % 2, 1.0, -1.0)[:, None] * rng.standard_normal(192) * 0.6
    j /= np.linalg.norm(j, axis=1, keepdims=True)
    gram = j @ j.T
    if noise == 1e-7:
        gram = (j.astype(np.float32) @ j.astype(np.float32).T).astype(float)
    elif noise:
        j = np.hstack([j, noise / 500**0.5 * rng.standard_normal((500, 500))])
        gram = j @ j.T
    _, cosine = unit_diagonal(gram)
    starts = np.eye(500)[:: 500 // 8]  # every row is a problem of its own
    total, residual, rounds = nearest_without_conflict(cosine, starts)
    assert residual <= 1e-9
    assert rounds <= len(starts) * ROUNDS * 500
    assert rounds <= 5_000
    lam, pulled = total - starts, total @ cosine
    assert (lam >= 0).all()
    assert (pulled >= -1e-9 * np.abs(total).max()).all()
    assert (np.abs(lam * pulled) <= 1e-9 * np.abs(total).max() ** 2).all()


@pytest.mark.parametrize(("k", "rank"), [(60, 23), (200, 77)])
def test_upgrad_on_float32_gradients_that_depend_on_each_other(k, rank):
    j = torch.randn(k, rank, generator=torch.Generator().manual_seed(0))
    found = UPGrad().solve((j @ j.T).double())
    j = j.double()
    assert found.residual <= 1e-9
    d = found.alpha @ j
    assert ((j @ d) / j.norm(dim=1) >= -1e-6 * (found.alpha @ j.norm(dim=1))).all()


def test_the_active_set_method_stops_where_it_would_go_on_for_ever():
    calls = []

    def never_the_same(support):
        calls.append(len(support))
        return np.linspace(-1.0, 1.0, len(support)) + 1e-3 * len(calls), False

    x, rounds = active_set(np.zeros(6), never_the_same, lambda x: -np.ones(6) - len(calls))
    assert rounds <= ROUNDS * 6
    assert (x >= 0).all()


# ---- CAGrad near the point where no update serves all ------------------------------------------------------------------


def nearly_balanced(k, remainder, decades, seed):
    """Gradients (k, P) of which a convex combination is as short as `remainder`, the shortest of all."""
    rng = np.random.default_rng(seed)
    j = rng.standard_normal((k, k + 30))
    j[:, 0] = 0.0
    j /= np.linalg.norm(j, axis=1, keepdims=True)
    j[0] = -(rng.uniform(0.5, 1.5, k - 1) @ j[1:])
    j[0] /= np.linalg.norm(j[0])
    j[:, 0] = remainder
    j /= np.linalg.norm(j, axis=1, keepdims=True)
    return torch.from_numpy(j * 10.0 ** (decades * (rng.permutation(k) / max(k - 1, 1) - 0.5))[:, None])


@pytest.mark.parametrize("c", [0.4, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("remainder", [1e-1, 1e-3, 1e-4, 1e-5, 3e-6, 1e-7])
@pytest.mark.parametrize("k", [2, 3, 11])
def test_cagrad_is_exact_or_does_not_say_ok(c, remainder, k):
    for decades in (0, 4, 25):
        for seed in range(3):
            j = nearly_balanced(k, remainder, decades, seed)
            solution, _ = CAGrad(c, rescale=0).weigh(Measured(j @ j.T), everyone(k))
            if solution.status != "ok":
                assert remainder < 1e-4
                continue
            norms = j.norm(dim=1)
            unit, mean = j / norms[:, None], j.mean(dim=0) / norms.max()
            added = (solution.alpha / k - 1 / k) * norms / norms.max()  # on unit gradients
            d = mean + added @ unit
            # On the sphere around the mean gradient, and the worst-served tasks, which are those with a weight, gain alike.
            assert ((added @ unit).norm() / (c * mean.norm())).item() == pytest.approx(1, abs=1e-5)
            pulled, weights = unit @ d, added / norms  # (J d)_k / n_k, and what is proportional to w
            excess = pulled - (weights / weights.sum() * norms) @ pulled / norms
            tolerance = 1e-8 * (1 + c) * mean.norm()
            assert (excess >= -tolerance).all()
            assert (excess[added > 1e-12 * added.max()].abs() <= tolerance).all()


def test_cagrad_of_two_opposed_tasks_has_a_closed_form():
    for gap in (1e-1, 1e-3, 1e-6, 1e-8):  # |J'w| is sqrt(gap / 2)
        cosine = np.array([[1.0, gap - 1.0], [gap - 1.0, 1.0]])
        for c in (0.5, 2.0):
            added, residual, _, stationary = conflict_averse(np.ones(2), cosine, c)
            assert not stationary
            # By symmetry w = (1/2, 1/2) = b: what is added is c times the mean.
            np.testing.assert_allclose(added, c / 2, rtol=1e-6)
            assert residual <= 1e-6
