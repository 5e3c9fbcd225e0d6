import numpy as np
import pytest
import torch
from torch.testing import assert_close

from bmtl.inference.balancing import IMTLG, AlignedMTL, ConFIG, FairGrad, Measured, NashMTL
from bmtl.inference.balancing.solvers import aligned
from bmtl.inference.balancing.solvers.barrier import Barrier
from bmtl.inference.balancing.weightings import fair_grad
from bmtl.inference.errors import SolverFailed
from tests.inference.balancing.problems import DECADES, SIZES, everyone, forward, gradients, on_unit_gradients

independent = pytest.mark.parametrize(
    ("kind", "k", "decades"),
    [(kind, k, decades) for kind in ("generic", "opposed", "strongly opposed") for k in SIZES for decades in DECADES],
)

# ---- IMTL-G, ConFIG --------------------------------------------------------------------------------------------------


@independent
@pytest.mark.parametrize("weighting", [IMTLG, ConFIG])
def test_the_update_projects_equally_on_every_gradient(weighting, kind, k, decades):
    for seed in range(3):
        j = gradients(kind, k, decades, seed)
        found = forward(weighting(), j)
        _, x, unit = on_unit_gradients(j, found.alpha)
        projections = unit @ (x @ unit)
        assert_close(projections, projections.mean().expand(k), rtol=1e-8, atol=0.0)
        assert (projections > 0).all()
        assert found.status == "ok"
        assert found.residual <= 1e-9


def test_a_short_gradient_does_not_turn_the_update_uphill():
    cosine = torch.tensor([[1.0, 0.896, 0.908], [0.896, 1.0, 0.694], [0.908, 0.694, 1.0]], dtype=torch.float64)
    norms = torch.tensor([0.05, 1.0, 1.0], dtype=torch.float64)
    alpha = IMTLG().solve(norms[:, None] * cosine * norms).alpha
    assert alpha.sum() < 0  # dividing by this would turn it
    assert (cosine @ (norms * alpha) > 0).all()


@pytest.mark.parametrize("kind", ["generic", "opposed"])
@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("decades", [0, 4, 10])
def test_config_equals_least_squares_on_the_gradients(kind, k, decades):
    j = gradients(kind, k, decades)
    _, x, unit = on_unit_gradients(j, forward(ConFIG(), j).alpha)
    best = torch.linalg.lstsq(unit, torch.ones(k, 1, dtype=torch.float64), driver="gelsd").solution[:, 0]
    best = best / best.norm()
    assert_close(x @ unit, (j @ best).sum() * best, rtol=1e-7, atol=1e-9 * j.norm().item())


@pytest.mark.parametrize("k", [4, 11])
@pytest.mark.parametrize("weighting", [IMTLG, ConFIG])
def test_dependent_gradients_have_no_equal_projection(weighting, k):
    j = torch.randn(k, k - 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = forward(weighting(), j)
    assert found.status == "inexact"
    assert found.residual > 1e-6
    unit = j / j.norm(dim=1, keepdim=True)
    best = torch.linalg.pinv(unit).sum(dim=1)  # the authors' answer
    d = found.alpha @ j
    assert_close(d / d.norm(), best / best.norm() * torch.sign(d @ best), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("weighting", [IMTLG, ConFIG])
def test_equal_gradients_depend_on_each_other_and_project_equally(weighting):
    j = gradients("generic", 5).repeat(2, 1)
    found = forward(weighting(), j)
    projections = j @ (found.alpha @ j) / j.norm(dim=1)
    assert found.status == "ok"
    assert_close(projections, projections.mean().expand(10), rtol=1e-8, atol=0.0)
    assert_close(found.alpha[:5], found.alpha[5:])  # the pseudo-inverse shares out


@pytest.mark.parametrize("weighting", [IMTLG, ConFIG])
def test_what_float32_makes_of_dependent_gradients_is_not_divided_by(weighting):
    j = torch.randn(8, 5, generator=torch.Generator().manual_seed(3))
    exact = forward(weighting(), j.double()).alpha
    rounded = weighting()(Measured((j @ j.T).double(), dtype=torch.float32), everyone(8)).alpha
    assert_close(rounded @ j.double(), exact @ j.double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("weighting", [IMTLG, ConFIG])
def test_units_that_cancel_are_stationary(weighting):
    found = weighting().solve(torch.tensor([[1.0, -3.0], [-3.0, 9.0]]))
    assert found.status == "stationary"
    assert_close(found.alpha, torch.tensor([1.5, 0.5], dtype=torch.float64))


# ---- FairGrad --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["generic", "rank-deficient", "opposed"])
@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("a", [0.5, 1.0, 2.0])
def test_fairgrad_solves_its_equation(kind, k, a):
    for decades in (0, 2, 4):
        j = gradients(kind, k, decades)
        alpha = forward(FairGrad(a), j).alpha
        assert (alpha > 0).all()
        assert_close(j @ (alpha @ j) * alpha ** (1 / a), torch.ones(k, dtype=torch.float64), rtol=1e-8, atol=0.0)


@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("decades", DECADES)
def test_fairgrad_at_1_is_nash(k, decades):
    j = gradients("opposed", k, decades)
    assert_close(forward(FairGrad(1.0), j).alpha, forward(NashMTL(), j).alpha, rtol=1e-9, atol=0.0)


def test_fairgrad_may_leave_more_where_norms_span_decades():
    j = gradients("opposed", 50, 25)
    found, _ = FairGrad().weigh(Measured(j @ j.T), everyone(50))
    assert found.status == "ok"
    assert 1e-6 < found.residual <= 1e-3


@pytest.mark.parametrize(("decades", "allowed"), [(3.9, 1e-6), (4.1, 1e-3)])
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_fairgrads_tolerance_goes_by_the_decades_of_the_norms(monkeypatch, decades, allowed, factor):
    norms = torch.tensor([1.0, 10**decades], dtype=torch.float64)
    answer = Barrier(np.ones(2), factor * allowed, 1.0, 7)
    monkeypatch.setattr(fair_grad, "barrier_newton", lambda norms, cosine, q: answer)
    if factor < 1:
        assert FairGrad().solve(torch.diag(norms**2)).residual == factor * allowed
    else:
        with pytest.raises(SolverFailed, match=f"at most {allowed:g} is allowed"):
            FairGrad().solve(torch.diag(norms**2))


@pytest.mark.parametrize("k", [2, 11, 50])
def test_what_float64_weights_cannot_solve_is_inexact(k):
    j = gradients("strongly opposed", k, 25)
    found = forward(FairGrad(), j)
    assert found.status == "inexact"
    assert found.residual > 1e-3
    # All that is left is rounding: of the terms that cancel, 1e-12.
    _, x, unit = on_unit_gradients(j, found.alpha)
    cosine = unit @ unit.T
    wanted = found.alpha**-0.5 / j.norm(dim=1)
    assert (((cosine @ x) - wanted).abs() <= 1e-11 * (cosine.abs() @ x + wanted)).all()


def test_fairgrad_around_0_is_stationary():
    j = gradients("balanced", 6, 2)
    found = forward(FairGrad(), j)
    assert found.status == "stationary"
    assert found.alpha.sum().item() == pytest.approx(6)
    assert (found.alpha @ j).norm() < 1e-5


# ---- Aligned-MTL -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
@pytest.mark.parametrize("kind", ["generic", "rank-deficient", "opposed"])
@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("decades", [0, 2])
def test_the_aligned_gradients_have_condition_number_1(scale, kind, k, decades):
    j = gradients(kind, k, decades)
    balance, kept, residual = aligned((j @ j.T).numpy(), scale)
    values = torch.linalg.svdvals(torch.from_numpy(balance) @ j)
    rank = int(torch.linalg.matrix_rank(j))
    assert len(kept) == rank
    assert_close(values[:rank], values[0].expand(rank), rtol=1e-6, atol=0.0)
    assert (values[rank:] <= 1e-6 * values[0]).all()
    assert residual <= 1e-6
    assert_close(forward(AlignedMTL(scale), j).alpha, torch.from_numpy(balance.sum(axis=1)))
    wanted = torch.linalg.svdvals(j)[:rank].square()
    s = {"min": wanted[-1], "median": wanted.median(), "rmse": wanted.mean()}[scale]
    assert_close(values[0].square(), s, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("k", SIZES)
def test_orthogonal_gradients_of_one_length_stay_as_they_are(k):
    assert_close(AlignedMTL().solve(torch.eye(k) * 7.0).alpha, torch.ones(k, dtype=torch.float64))


def test_a_tiny_eigenvalue_is_an_event():
    found = AlignedMTL().solve(torch.diag(torch.tensor([1.0, 1e-8])))
    assert found.status == "ok"
    assert found.events == ("the smallest eigenvalue, 1e-08 of the largest, shrinks the update",)
    assert AlignedMTL("median").solve(torch.diag(torch.tensor([1.0, 1e-8, 1.0]))).events == ()


def test_eigenvalues_below_the_gradients_precision_are_cut_off():
    gram = torch.diag(torch.tensor([1.0, 1e-8], dtype=torch.float64))
    found = AlignedMTL()(Measured(gram, dtype=torch.float32), everyone(2))
    assert_close(found.alpha, torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_what_float64_cannot_align_is_said():
    found = forward(AlignedMTL(), gradients("strongly opposed", 50, 10))
    assert found.status == "inexact"
    assert 1e-6 < found.residual < 1
    assert found.alpha.isfinite().all()
