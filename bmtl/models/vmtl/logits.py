"""Products ``w z`` with noise drawn where it is small: local reparameterisation."""

from typing import Any

import torch
from torch import Tensor

_LEAST = 1e-12  # variance, whose root has no slope at 0


def noisy(z: Tensor, loc: Tensor, variance: Tensor | None, draws: torch.Size) -> Tensor:
    """A draw of ``w z`` with a w for each row, ``(..., B, C)``, from its normal law given z.

    Row c of w has independent entries, so that ``w_c z`` has the mean ``z loc_c`` and the variance ``z^2 variance_c``, and
    nothing of size B x C x H is made.

    Args:
        z: ``(..., B, H)``.
        loc: Means of w, ``(..., C, H)``.
        variance: Variances of w; None gives the product itself.
        draws: Batch shape of w, particles included: a z that is a point has none of them.

    Source:
        Kingma, Salimans & Welling (2015), Variational Dropout and the Local Reparameterization Trick, section 2.3.
    """
    if variance is None:
        return product(z, loc)
    batch = torch.broadcast_shapes(z.shape[:-2], loc.shape[:-2], draws)
    noise = torch.randn(*batch, z.shape[-2], loc.shape[-2], dtype=loc.dtype, device=loc.device)
    with torch.autocast(z.device.type, enabled=False):  # squares, and a backward that autocast does not reach
        return _Noisy.apply(z.to(loc), loc, variance.to(loc), noise)


class _Noisy(torch.autograd.Function):
    """``z loc' + sqrt(z^2 variance') noise``; its own gradient is a third faster than autograd's, which keeps z^2 too."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, loc: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
        spread = product(z * z, variance)
        root = spread.clamp_min(_LEAST).sqrt()
        ctx.save_for_backward(z, loc, variance, noise * torch.where(spread > _LEAST, 0.5 / root, 0.0))
        return product(z, loc) + root * noise

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        z, loc, variance, per_spread = ctx.saved_tensors
        of_spread = slope * per_spread
        of_z = torch.addcmul(slope @ loc, z, of_spread @ variance, value=2)
        of_loc, of_variance = slope.mT @ z, of_spread.mT @ (z * z)
        return of_z.sum_to_size(z.shape), of_loc.sum_to_size(loc.shape), of_variance.sum_to_size(variance.shape), None


def product(z: Tensor, w: Tensor) -> Tensor:
    """``(..., B, C)`` from z ``(..., B, H)`` and w ``(..., C, H)``, in the order that gives w's gradient w's own layout."""
    return (w @ z.mT).mT
