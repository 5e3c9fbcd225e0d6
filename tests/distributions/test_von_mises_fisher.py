"""The von Mises-Fisher distribution of three components against its definition."""

import math

import numpy as np
import pytest
import torch

from bmtl.distributions import Pixels, VonMisesFisher


def sphere(nodes=60):
    """Points of the sphere ``(M, 3)`` and their weights, which sum to its area: Gauss-Legendre by height, even around."""
    height, weights = np.polynomial.legendre.leggauss(nodes)
    around = 2 * np.pi * np.arange(2 * nodes) / (2 * nodes)
    radius = np.sqrt(1 - height**2)
    points = np.stack(
        [np.outer(radius, np.cos(around)), np.outer(radius, np.sin(around)), np.repeat(height[:, None], 2 * nodes, 1)],
        -1,
    )
    area = np.repeat(weights[:, None] * np.pi / nodes, 2 * nodes, 1)
    return torch.tensor(points.reshape(-1, 3)), torch.tensor(area.ravel())


@pytest.mark.parametrize("concentration", [1e-4, 0.3, 5.0, 60.0])
def test_density_mean_and_variance_are_integrals_over_the_sphere(concentration):
    points, area = sphere()
    p = VonMisesFisher(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), torch.tensor(concentration).double())
    density = p.log_prob(points).exp() * area
    assert density.sum().item() == pytest.approx(1, abs=1e-7)
    mean = (density[:, None] * points).sum(0)
    torch.testing.assert_close(p.mean, mean, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(p.variance, (density[:, None] * (points - mean) ** 2).sum(0), atol=1e-6, rtol=1e-6)


def test_draws_have_the_mean_and_lie_on_the_sphere():
    torch.manual_seed(0)
    direction = torch.randn(4, 3)
    p = VonMisesFisher(direction, torch.tensor([1e-3, 0.5, 4.0, 200.0])[:, None].squeeze(-1))
    drawn = p.sample((20_000,))
    torch.testing.assert_close(drawn.norm(dim=-1), torch.ones(20_000, 4))
    torch.testing.assert_close(drawn.mean(0), p.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.var(0), p.variance, atol=0.02, rtol=0.05)


def test_gradients_and_extremes():
    direction = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    log_k = torch.randn(5, dtype=torch.float64, requires_grad=True)
    y = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64), dim=-1)
    assert torch.autograd.gradcheck(lambda d, k: VonMisesFisher(d, k.exp()).log_prob(y), (direction, log_k))
    wide = VonMisesFisher(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1e-6, 1e5]))
    found = wide.log_prob(torch.tensor([0.0, 0.0, 1.0]))
    assert found.tolist() == pytest.approx([-math.log(4 * math.pi), math.log(1e5 / (2 * math.pi))], rel=1e-3)


def test_small_angles_have_the_normals_spread():
    """Where concentration is high, each of the two angles is normal with variance 1 / k."""
    torch.manual_seed(0)
    drawn = VonMisesFisher(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(400.0)).sample((40_000,))
    assert drawn[:, 0].std().item() == pytest.approx(0.05, rel=0.02)
    assert drawn[:, 1].std().item() == pytest.approx(0.05, rel=0.02)


def test_pixels_of_directions_that_lack_one_do_not_count():
    p = Pixels(VonMisesFisher(torch.randn(2, 3, 4, 3), torch.ones(2, 3, 4)), temperature=6.0)
    assert p.batch_shape == (2,)
    assert p.event_shape == (3, 4, 3)
    y = torch.nn.functional.normalize(torch.randn(2, 3, 4, 3), dim=-1)
    mask = torch.ones(2, 3, 4, 3, dtype=torch.bool)
    mask[0, 1, 2, 1] = False  # one component is enough
    whole, some = p.entries().log_prob(y), p.marginal(mask).log_prob(y)
    whole[0, 1, 2] = 0
    torch.testing.assert_close(some, whole.sum((1, 2)) / 6)
    assert p.expand((5, 2)).log_prob(y).shape == (5, 2)


@pytest.mark.parametrize("k", [1e-6, 0.0101, 0.49, 0.51, 10.0, 1e3, 1e5])
def test_moments_keep_their_digits_in_single_precision(k):
    """The closed forms ``coth k - 1 / k`` and ``1 - 2 a / k - a^2`` cancel at either end."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        a = mpmath.coth(mpmath.mpf(float(torch.tensor(k)))) - 1 / mpmath.mpf(float(torch.tensor(k)))
        along = 1 - 2 * a / mpmath.mpf(float(torch.tensor(k))) - a**2
        expected = float(a), float(along)
    fn = VonMisesFisher(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(k))
    assert fn.resultant.item() == pytest.approx(expected[0], rel=3e-6)
    assert fn.variance[2].item() == pytest.approx(expected[1], rel=3e-6)


def test_draws_of_a_nearly_uniform_law_are_as_long_as_their_mean():
    torch.manual_seed(0)
    drawn = VonMisesFisher(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(1e-6)).sample((40_000,))
    assert drawn[:, 2].unique().numel() > 30_000  # digits were lost to a few values
    assert abs(drawn[:, 2].mean().item()) < 0.01
