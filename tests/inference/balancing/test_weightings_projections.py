import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch.testing import assert_close

from bmtl.inference.balancing import DualProj, GradVac, Measured, PCGrad, UPGrad
from bmtl.inference.balancing.solvers import nearest_without_conflict, unit_diagonal, without_conflicts
from tests.inference.balancing.problems import (
    DECADES,
    KINDS,
    SIZES,
    everyone,
    forward,
    gradients,
    on_unit_gradients,
    unit_gradients,
)

families = pytest.mark.parametrize(
    ("kind", "k", "decades"),
    [(kind, k, decades) for kind in (*KINDS, "balanced") for k in SIZES for decades in DECADES],
)

# ---- PCGrad, GradVac -------------------------------------------------------------------------------------------------


def loop_over_vectors(j, orders, rho=None, beta=0.0):
    """PCGrad (without `rho`) and GradVac as their papers write them, on vectors of P numbers."""
    moved = j.clone()
    for i, order in enumerate(orders.tolist()):
        for other in order:
            if other == i:
                continue
            v, g = moved[i], j[other]
            if rho is None:
                if v @ g < 0:
                    moved[i] = v - (v @ g) / (g @ g) * g
                continue
            c = v @ g / (v.norm() * g.norm())
            target = rho[i, other].clone()
            if c < target:
                add = v.norm() * (target * (1 - c**2).sqrt() - c * (1 - target**2).sqrt())
                moved[i] = v + add / (g.norm() * (1 - target**2).sqrt()) * g
                assert_close(moved[i] @ g / (moved[i].norm() * g.norm()), target, rtol=1e-6, atol=1e-9)
            rho[i, other] = (1 - beta) * target + beta * c
    return moved.sum(dim=0)


@pytest.mark.parametrize("kind", ["generic", "opposed"])
@pytest.mark.parametrize("k", [2, 3, 11])
@pytest.mark.parametrize("decades", [0, 4])
def test_pcgrad_equals_a_loop_over_vectors(kind, k, decades):
    weighting, same = PCGrad(seed=7), PCGrad(seed=7)
    for seed in range(3):
        j = gradients(kind, k, decades, seed)
        d = forward(weighting, j).alpha @ j
        assert_close(d, loop_over_vectors(j, same.orders(k)), rtol=1e-8, atol=1e-9 * j.norm().item())


@pytest.mark.parametrize("beta", [0.5, 0.01])
@pytest.mark.parametrize("k", [2, 3, 11])
@pytest.mark.parametrize("decades", [0, 4])
def test_gradvac_equals_a_loop_over_vectors(k, beta, decades):
    weighting, same = GradVac(beta, seed=7), GradVac(seed=7)
    rho = torch.zeros(k, k, dtype=torch.float64)
    for seed in range(4):
        j = gradients("generic" if seed % 2 else "opposed", k, decades, seed)
        d = forward(weighting, j).alpha @ j
        assert_close(d, loop_over_vectors(j, same.orders(k), rho, beta), rtol=1e-8, atol=1e-9 * j.norm().item())
        assert_close(weighting.rho, rho)


@pytest.mark.parametrize("k", [2, 3, 11])
def test_gradvac_without_a_moving_average_is_pcgrad(k):
    vaccine, surgery = GradVac(beta=0.0), PCGrad()
    for seed in range(3):
        j = gradients("opposed", k, 2, seed)
        assert_close(forward(vaccine, j).alpha, forward(surgery, j).alpha)


@pytest.mark.parametrize("weighting", [PCGrad, GradVac, UPGrad, DualProj])
@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("decades", DECADES)
def test_without_a_conflict_the_update_is_the_plain_sum(weighting, k, decades):
    alpha = forward(weighting(), gradients("agreeing", k, decades)).alpha
    assert_close(alpha, torch.ones(k, dtype=torch.float64), rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("ratio", [1e-10, 1.0, 1e15])
def test_two_tasks_have_a_closed_form_in_all_projections(ratio):
    cosine, norms = -0.6, torch.tensor([1.0, ratio], dtype=torch.float64)
    gram = torch.tensor([[1.0, cosine], [cosine, 1.0]], dtype=torch.float64) * norms[:, None] * norms
    expected = 1 - cosine * norms.flip(0) / norms  # g1 - cos n1/n2 g2 + g2 - cos n2/n1 g1
    for weighting in (PCGrad(), GradVac(beta=0.0), UPGrad()):
        assert_close(weighting(Measured(gram), everyone(2)).alpha, expected, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("targets", [None, 0.3])
def test_surgery_does_not_care_how_tasks_are_numbered(targets):
    unit = unit_gradients("opposed", 7)
    _, cosine = unit_diagonal((unit @ unit.T).numpy())
    rng = np.random.default_rng(0)
    orders = rng.permuted(np.tile(np.arange(7), (7, 1)), axis=1)
    new = rng.permutation(7)  # task new[i] of old becomes i
    number = np.argsort(new)
    rho = None if targets is None else np.full((7, 7), targets)
    before = without_conflicts(cosine, orders, rho)
    after = without_conflicts(cosine[np.ix_(new, new)], number[orders[new]], rho)
    np.testing.assert_allclose(after, before[np.ix_(new, new)], rtol=1e-10, atol=1e-12)


def test_gradients_that_vanish_under_surgery_stay_0():
    opposed = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    for weighting in (PCGrad(), GradVac()):
        d = forward(weighting, opposed).alpha @ opposed
        assert_close(d, torch.tensor([0.0, 1.0], dtype=torch.float64))
        assert torch.isfinite(forward(weighting, opposed).alpha).all()


# ---- UPGrad, DualProj ------------------------------------------------------------------------------------------------


@families
def test_projections_are_complementary_and_harm_nobody(kind, k, decades):
    for seed in range(2 if k < 50 else 1):
        norms, _, unit = on_unit_gradients(gradients(kind, k, decades, seed), 1.0)
        _, cosine = unit_diagonal((unit @ unit.T).numpy())
        for starts in (np.eye(k), (norms / norms.max()).numpy()[None]):
            total, residual, _ = nearest_without_conflict(cosine, starts)
            lam, pulled = total - starts, total @ cosine
            size = np.abs(total).max(axis=1, keepdims=True)
            assert (lam >= 0).all()
            assert (pulled >= -1e-9 * size).all()
            assert (np.abs(lam * pulled) <= 1e-9 * size**2).all()
            assert residual <= 1e-9


@pytest.mark.parametrize("weighting", [UPGrad, DualProj])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("decades", DECADES)
def test_no_loss_rises(weighting, kind, k, decades):
    j = gradients(kind, k, decades)
    found = forward(weighting(), j)
    _, x, unit = on_unit_gradients(j, found.alpha)
    assert (found.alpha >= 1 - 1e-14).all()  # v >= e_i, v >= e
    assert (unit @ (x @ unit) >= -1e-9 * x.max()).all()
    assert found.residual <= 1e-9


@pytest.mark.parametrize("k", [2, 4, 9])
@pytest.mark.parametrize("seed", range(4))
def test_projections_equal_scipy_nnls_on_the_gradients(k, seed):
    j = gradients("opposed", k, 1, seed).numpy()
    projected = [t @ j + nnls(j.T, -(t @ j))[0] @ j for t in (*np.eye(k), np.ones(k))]
    up, dual = (forward(w(), torch.from_numpy(j)).alpha.numpy() @ j for w in (UPGrad, DualProj))
    np.testing.assert_allclose(up, sum(projected[:-1]), atol=1e-7 * np.abs(j).max())
    np.testing.assert_allclose(dual, projected[-1], atol=1e-7 * np.abs(j).max())


@pytest.mark.parametrize("weighting", [UPGrad, DualProj])
@pytest.mark.parametrize("k", [4, 11, 50])
@pytest.mark.parametrize("seed", range(3))
def test_dependent_gradients_that_surround_0_are_solved_too(weighting, k, seed):
    # Principal pivoting alone goes in circles here.
    j = torch.randn(k, max(k // 3, 2), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = weighting().solve(j @ j.T)
    d = found.alpha @ j
    assert found.residual <= 1e-9
    assert ((j @ d) / j.norm(dim=1) >= -1e-7 * (found.alpha @ j.norm(dim=1))).all()


@pytest.mark.parametrize("weighting", [UPGrad, DualProj])
def test_opposed_gradients_are_stationary(weighting):
    found = weighting().solve(torch.tensor([[1.0, -2.0], [-2.0, 4.0]]))
    assert found.status == "stationary"
    assert_close(found.alpha[0], 2 * found.alpha[1], rtol=1e-6, atol=0.0)
