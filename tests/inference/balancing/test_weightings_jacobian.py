import pytest
import torch
from torch.testing import assert_close

from bmtl.inference.balancing import DBMTL, GradDrop, Measured, MoCo, balancer
from bmtl.inference.errors import NonPositiveLoss
from tests.inference.balancing.problems import everyone, forward, gradients

# ---- GradDrop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coordinates_of_one_sign_always_pass(dtype):
    j = torch.randn(5, 400, generator=torch.Generator().manual_seed(0), dtype=dtype)
    j[:, :100], j[:, 100:200], j[:, 200] = j[:, :100].abs(), -j[:, 100:200].abs(), 0.0
    weighting = GradDrop()
    for _ in range(50):
        d = forward(weighting, j).direction
        assert_close(d[:201], j[:, :201].sum(dim=0))
    assert d.dtype == dtype


def test_what_passes_has_one_sign_drawn_by_its_share():
    j = gradients("generic", 3, 1)
    weighting, positive = GradDrop(seed=1), torch.zeros(j.shape[1])
    up, down = j.clamp_min(0).sum(dim=0), j.clamp_max(0).sum(dim=0)
    for _ in range(1000):
        d = forward(weighting, j).direction
        assert (torch.isclose(d, up) | torch.isclose(d, down)).all()
        positive += torch.isclose(d, up)
    share = (1 + j.sum(dim=0) / j.abs().sum(dim=0)) / 2
    mixed = (up > 0) & (down < 0)
    assert_close(positive[mixed].double() / 1000, share[mixed], rtol=0.0, atol=0.08)  # five standard errors


def test_the_weights_are_the_parts_that_pass():
    j = gradients("generic", 4, 1)
    everything = forward(GradDrop(leak=1.0), j)
    assert_close(everything.alpha, torch.ones(4, dtype=torch.float64))
    assert_close(everything.direction, j.sum(dim=0))
    dropped, leaking = forward(GradDrop(seed=3), j), forward(GradDrop(leak=0.25, seed=3), j)
    assert ((dropped.alpha > 0) & (dropped.alpha < 1)).all()
    assert_close(leaking.alpha, 0.25 + 0.75 * dropped.alpha)
    assert_close(leaking.direction, 0.25 * j.sum(dim=0) + 0.75 * dropped.direction)


# ---- DB-MTL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "sigma"), [(0.9, 0.0), (0.9, 0.5), (0.0, 0.0)])
@pytest.mark.parametrize("k", [2, 5])
def test_every_averaged_gradient_becomes_as_long_as_the_longest(k, beta, sigma):
    weighting, averages = DBMTL(beta, sigma), torch.zeros(k, k + 30, dtype=torch.float64)
    for t in range(1, 6):
        j = gradients("opposed", k, 4, seed=t)
        found = forward(weighting, j)
        averages = j + beta / t**sigma * (averages - j)
        parts = found.alpha[:, None] * averages
        assert_close(weighting.averages, averages)
        assert_close(parts.norm(dim=1), averages.norm(dim=1).max().expand(k))
        assert_close(found.direction, parts.sum(dim=0))


def test_an_absent_task_keeps_its_average():
    weighting = DBMTL(sigma=0.5)
    weighting.bind(["a", "b", "c"])
    j = gradients("opposed", 3, 1)
    forward(weighting, j)
    before = weighting.averages.clone()
    context = everyone(3)
    context.active[1] = False
    here = j[[0, 2]]
    found = weighting(Measured(here @ here.T, here), context)
    assert torch.equal(weighting.averages[1], before[1])
    assert not torch.equal(weighting.averages[0], before[0])
    assert weighting.seen.tolist() == [2, 1, 2]
    assert_close(found.direction, found.alpha @ weighting.averages[[0, 2]])


# ---- MoCo ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 5])
def test_the_average_tends_to_gradients_as_long_as_their_losses(k):
    j, losses = gradients("opposed", k, 2), torch.linspace(0.5, 2.0, k, dtype=torch.float64)
    weighting = MoCo()
    for _ in range(400):
        found = forward(weighting, j, losses)
    target = losses[:, None] * j / j.norm(dim=1, keepdim=True)
    assert_close(weighting.averages, target, rtol=1e-6, atol=1e-8)
    assert_close(found.direction, found.alpha @ j, rtol=1e-6, atol=1e-8)  # the weights are effective


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_moco_equals_its_formulas(rho):
    weighting = MoCo(beta=0.4, gamma=0.3, rho=rho)
    y, w = torch.zeros(3, 33, dtype=torch.float64), torch.full((3,), 1 / 3, dtype=torch.float64)
    for t in range(1, 8):
        j, losses = gradients("opposed", 3, 1, seed=t), torch.linspace(0.1, t, 3, dtype=torch.float64)
        found = forward(weighting, j, losses)
        y = y - 0.4 / t**0.5 * (y - losses[:, None] * j / j.norm(dim=1, keepdim=True))
        w = torch.softmax(w - 0.3 / t**0.5 * ((y @ y.T + rho * torch.eye(3)) @ w), dim=0)
        assert_close(found.direction, w @ y)
        assert_close(weighting.w, w)


def test_an_absent_task_keeps_its_share_of_moco():
    weighting = MoCo()
    weighting.bind(["a", "b", "c"])
    j, losses = gradients("opposed", 3, 1), torch.ones(3, dtype=torch.float64)
    forward(weighting, j, losses)
    before = weighting.w.clone()
    context = everyone(3)
    context.active[0] = False
    weighting(Measured(j[1:] @ j[1:].T, j[1:], losses=losses[1:]), context)
    assert weighting.w[0] == before[0]
    assert weighting.w.sum().item() == pytest.approx(1)


def test_moco_needs_positive_losses():
    with pytest.raises(NonPositiveLoss, match="task '1' gave -1"):
        forward(MoCo(), gradients("generic", 2), torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="needs the tasks' losses"):
        forward(MoCo(), gradients("generic", 2))


# ---- All three -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grad-drop", "db-mtl", "moco"])
def test_a_gram_matrix_is_not_enough(name):
    with pytest.raises(ValueError, match="works on the gradients themselves"):
        balancer(name).weighting.solve(torch.eye(2))
    without = Measured(torch.eye(2, dtype=torch.float64), losses=torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="which the geometry 'full' gives"):
        balancer(name).weighting(without, everyone(2))
    with pytest.raises(ValueError, match="use 'full'"):
        balancer(f"last-layer >> {name}")


@pytest.mark.parametrize("weighting", [DBMTL, MoCo])
def test_other_shared_parameters_than_before_are_an_error(weighting):
    weighting, losses = weighting(), torch.ones(2, dtype=torch.float64)
    forward(weighting, gradients("generic", 2), losses)
    with pytest.raises(ValueError, match="averages the gradients of 32 shared parameters"):
        forward(weighting, gradients("generic", 2)[:, :20], losses)
