import numpy as np
import pytest
import torch
from torch.testing import assert_close

from bmtl.inference.balancing import MGDA, CAGrad, Measured, SDMGrad
from bmtl.inference.balancing.solvers import onto_simplex, simplex_qp
from bmtl.inference.errors import NonPositiveLoss
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
    ("kind", "k", "decades"), [(kind, k, decades) for kind in KINDS for k in SIZES for decades in DECADES]
)

# ---- MGDA ------------------------------------------------------------------------------------------------------------


@families
def test_mgda_satisfies_its_kkt_conditions(kind, k, decades):
    for seed in range(3):
        j = gradients(kind, k, decades, seed)
        found = forward(MGDA(), j)
        norms, x, unit = on_unit_gradients(j, found.alpha)
        pulled = unit @ (x @ unit)  # (G alpha) / n
        excess = pulled - (x @ pulled) / norms  # (G alpha)_k >= alpha'G alpha, over n_k
        assert (found.alpha >= 0).all()
        assert found.alpha.sum().item() == pytest.approx(1)
        assert (excess >= -1e-9 * x.sum()).all()
        assert (excess[found.alpha > 0].abs() <= 1e-9 * x.sum()).all()
        assert found.status == "ok"
        assert found.residual <= 1e-11


@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("decades", [0, 4])
def test_mgda_says_where_no_update_helps_all(k, decades):
    found = forward(MGDA(), gradients("balanced", k, decades))
    assert found.status == "stationary"
    assert found.residual <= 1e-6


def test_two_orthogonal_gradients_have_a_closed_form():
    alpha = forward(MGDA(), torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))).alpha
    assert_close(alpha, torch.tensor([0.9, 0.1], dtype=torch.float64))


@pytest.mark.parametrize(
    ("normalize", "divisor"),
    [("l2", lambda n, losses: n), ("loss", lambda n, losses: losses), ("loss+", lambda n, losses: n * losses)],
)
def test_mgda_normalises_in_the_problem_only(normalize, divisor):
    j = gradients("opposed", 5, 2)
    losses = torch.tensor([0.1, 2.0, 30.0, 1.0, 0.5], dtype=torch.float64)
    divided = j / divisor(j.norm(dim=1), losses)[:, None]
    assert_close(forward(MGDA(normalize), j, losses).alpha, forward(MGDA(), divided).alpha, rtol=1e-9, atol=1e-12)


def test_a_negative_loss_would_turn_its_gradient():
    weighting = MGDA("loss")
    weighting.bind(["a", "b", "c"])
    m = Measured(torch.eye(2, dtype=torch.float64), losses=torch.tensor([1.0, -2.0], dtype=torch.float64))
    context = everyone(3)
    context.active[0] = False
    with pytest.raises(NonPositiveLoss, match="task 'c' gave -2"):
        weighting(m, context)
    with pytest.raises(ValueError, match="needs the tasks' losses"):
        weighting.solve(torch.eye(2))


# ---- CAGrad ----------------------------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("c", [0.4, 0.9])
def test_cagrad_closes_the_duality_gap_on_the_sphere(kind, k, decades, c):
    for seed in range(2):
        j = gradients(kind, k, decades, seed)
        found = forward(CAGrad(c), j)
        norms = j.norm(dim=1)
        unit, scale = j / norms[:, None], norms.max()
        mean = (norms / scale / k) @ unit  # g0 over the longest gradient
        added = (found.alpha * (1 + c**2) / k - 1 / k) * norms / scale  # on unit gradients
        radius = c * mean.norm()
        assert (added >= -1e-12).all()
        assert_close((added @ unit).norm(), radius, rtol=1e-6, atol=0.0)
        # Every task gains what the dual promises, and those with a weight no more: (J d)_k = F, over n_k.
        pulled = unit @ (mean + added @ unit)
        weights = added / norms  # proportional to w
        dual = (weights / weights.sum() * norms) @ pulled
        excess = pulled - dual / norms
        tolerance = 1e-8 * (mean.norm() + radius)
        assert (excess >= -tolerance).all()
        assert (excess[added > 1e-12 * added.max()].abs() <= tolerance).all()
        assert found.residual <= 1e-8


def test_the_worst_served_task_gains_as_much_as_any_update_in_the_ball_gives():
    j = gradients("opposed", 3, 0.5)
    c = 0.5
    d = forward(CAGrad(c), j).alpha @ j * (1 + c**2) / 3
    mean = j.mean(dim=0)
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.svd(j, full_matrices=False).Vh  # (3, P): no other direction moves a projection
    draws = torch.randn(200_000, 3, generator=generator, dtype=torch.float64)
    others = mean + c * mean.norm() * (draws / draws.norm(dim=1, keepdim=True)) @ basis
    best = (others @ j.T).min(dim=1).values.max()
    assert (j @ d).min() >= best
    assert (j @ d).min() <= best + 1e-3 * mean.norm() ** 2


@pytest.mark.parametrize("k", SIZES)
def test_cagrad_with_no_radius_is_the_plain_sum(k):
    assert_close(forward(CAGrad(0.0), gradients("opposed", k, 4)).alpha, torch.ones(k, dtype=torch.float64))


def test_cagrad_rescales():
    j = gradients("opposed", 4)
    plain, first, second = (forward(CAGrad(0.5, rescale=r), j).alpha for r in (0, 1, 2))
    assert_close(plain, 1.25 * first)
    assert_close(plain, 1.5 * second)


@pytest.mark.parametrize("k", [2, 5, 20])
@pytest.mark.parametrize("c", [0.4, 0.9])
@pytest.mark.parametrize("decades", [0, 4])
def test_cagrad_harms_nobody_where_gradients_cancel(k, c, decades):
    j = gradients("generic", k, decades)
    j[1] = -j[0] * j[1].norm() / j[0].norm()  # exactly opposed: J'w can be 0
    found = forward(CAGrad(c), j)
    d = found.alpha @ j / k * (1 + c**2)
    mean = j.mean(dim=0)
    assert (d - mean).norm() <= c * mean.norm() * (1 + 1e-6)
    assert found.residual <= 1e-6
    if found.status == "stationary":
        assert ((j @ d) / j.norm(dim=1) >= -1e-6 * d.norm() - 1e-12 * j.norm(dim=1).max()).all()
    else:
        assert decades  # the mean gradient is nearly the longest one, and a ball around it harms its opponent


def test_cagrad_where_the_mean_gradient_is_0():
    found = CAGrad().solve(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    assert found.status == "stationary"
    assert found.alpha.isfinite().all()


# ---- SDMGrad ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 11])
@pytest.mark.parametrize("lam", [0.0, 0.3, 2.0])
def test_sdmgrad_converges_to_its_quadratic_program(k, lam):
    unit = unit_gradients("opposed", k)
    x = unit @ unit.T * 100.0
    weighting = SDMGrad(lam, iters=3000)
    alpha = weighting.solve(x).alpha
    w = simplex_qp(x.numpy(), lam / k * x.numpy().sum(axis=0), np.ones(k), start=0)
    assert_close(alpha, torch.from_numpy(k * (w + lam / k) / (1 + lam)), rtol=1e-6, atol=1e-8)
    assert alpha.sum().item() == pytest.approx(k)


def test_sdmgrad_goes_on_from_the_last_weights():
    gram = gradients("opposed", 5, 1) @ gradients("opposed", 5, 1).T
    once, twice = SDMGrad(iters=20), SDMGrad(iters=10)
    twice.solve(gram)
    assert_close(twice.solve(gram).alpha, once.solve(gram).alpha)


def test_sdmgrad_takes_the_two_samples_and_clips_what_they_cannot_have():
    values = torch.tensor([2.0, 1.0, -3.0], dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    cross, clipped = q @ values.diag() @ q.T, q @ values.clamp_min(0).diag() @ q.T
    found = SDMGrad(iters=500)(Measured(torch.eye(3, dtype=torch.float64), cross=cross), everyone(3))
    assert_close(found.alpha, SDMGrad(iters=500).solve(clipped).alpha)


def test_absent_tasks_keep_their_share():
    weighting = SDMGrad()
    weighting.bind(["a", "b", "c"])
    full = gradients("opposed", 3, 1)
    forward(weighting, full)
    before = weighting.w.clone()
    context = everyone(3)
    context.active[1] = False
    weighting(Measured(torch.diag(torch.tensor([1.0, 9.0], dtype=torch.float64))), context)
    assert weighting.w[1] == before[1]
    assert weighting.w.sum().item() == pytest.approx(1)
    weighting.w.copy_(torch.tensor([0.0, 1.0, 0.0]))  # everything lies with the absent one
    found = weighting(Measured(torch.eye(2, dtype=torch.float64)), context)
    assert_close(found.alpha, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("k", [1, 2, 7])
def test_the_nearest_point_of_the_simplex(k):
    rng = np.random.default_rng(k)
    for _ in range(20):
        y = rng.normal(size=k) * 3
        found = onto_simplex(y)
        assert (found >= 0).all()
        assert found.sum() == pytest.approx(1)
        away = y - found  # constant on the support, below that elsewhere
        level = away[found > 0].mean()
        assert np.abs(away[found > 0] - level).max() < 1e-12
        assert (away <= level + 1e-12).all()
