"""Draws of w z in logit space."""

import pytest
import torch

from bmtl.models.vmtl.logits import noisy


def drawn(z, loc, variance, draws, seed=0):
    torch.manual_seed(seed)
    return noisy(z, loc, variance, torch.Size(draws))


def plain(z, loc, variance, draws, seed=0):
    """The same draw by autograd."""
    torch.manual_seed(seed)
    mean = torch.einsum("...bh,...ch->...bc", z, loc)
    shape = torch.broadcast_shapes(mean.shape, (*draws, 1, 1))
    spread = torch.einsum("...bh,...ch->...bc", z.square(), variance)
    return mean + spread.clamp_min(1e-12).sqrt() * torch.randn(shape, dtype=z.dtype)


@pytest.mark.parametrize(
    ("of_z", "of_w", "draws"),
    [((3,), (3,), (3,)), ((5, 3), (3,), (5, 3)), ((3,), (3,), (5, 3)), ((5, 1), (3,), (5, 3)), ((), (3,), (3,))],
)
def test_value_and_gradient_are_autograds(of_z, of_w, draws):
    g = torch.Generator().manual_seed(1)
    z = torch.randn(*of_z, 4, 6, generator=g, dtype=torch.float64).requires_grad_()
    loc = torch.randn(*of_w, 2, 6, generator=g, dtype=torch.float64).requires_grad_()
    variance = torch.rand(*of_w, 2, 6, generator=g, dtype=torch.float64).requires_grad_()
    leaves = (z, loc, variance)
    found, expected = (f(*leaves, draws) for f in (drawn, plain))
    torch.testing.assert_close(found, expected)
    slope = torch.randn(found.shape, generator=g, dtype=torch.float64)
    for mine, its in zip(
        torch.autograd.grad(found, leaves, slope), torch.autograd.grad(expected, leaves, slope), strict=True
    ):
        torch.testing.assert_close(mine, its)


def test_no_variance_has_a_finite_gradient():
    """A root has an infinite slope at 0: rows at z = 0, and weights that are certain."""
    z = torch.zeros(2, 3, requires_grad=True)
    variance = torch.zeros(4, 3, requires_grad=True)
    loc = torch.ones(4, 3, requires_grad=True)
    drawn(z, loc, variance, ()).sum().backward()
    assert all(leaf.grad.isfinite().all() for leaf in (z, loc, variance))


def test_draws_have_the_moments_of_the_product():
    """20,000 draws: a mean's error is sd / 141, a variance's relative error 0.01."""
    g = torch.Generator().manual_seed(2)
    z, loc, variance = (torch.rand(shape, generator=g) for shape in ((3, 6), (2, 6), (2, 6)))
    found = drawn(z, loc, variance, (20_000,))
    spread = z.square() @ variance.T
    assert ((found.mean(0) - z @ loc.T).abs() < 4 * spread.sqrt() / 141).all()
    assert (found.var(0) / spread - 1).abs().max() < 0.04


def test_certain_weights_give_the_product_itself():
    z, loc = torch.randn(3, 6), torch.randn(2, 6)
    torch.testing.assert_close(drawn(z, loc, None, ()), z @ loc.T)
