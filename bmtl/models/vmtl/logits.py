"""Products ``w z`` with noise drawn where it is small: local reparameterisation."""

import torch
from torch import Tensor


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
    mean = product(z, loc)
    if variance is None:
        return mean
    noise = torch.randn(torch.broadcast_shapes(mean.shape, (*draws, 1, 1)), dtype=mean.dtype, device=mean.device)
    return mean + product(z.square(), variance).clamp_min(1e-12).sqrt() * noise


def product(z: Tensor, w: Tensor) -> Tensor:
    """``(..., B, C)`` from z ``(..., B, H)`` and w ``(..., C, H)``, in the order that gives w's gradient w's own layout."""
    return (w @ z.mT).mT
