"""Cholesky factors of correlation matrices as parameters."""

import torch
from torch import Tensor
from torch.nn import functional as F


def correlation_factor(below: Tensor) -> Tensor:
    """Cholesky factor of a correlation matrix from entries below a diagonal ``(n, n)``; zeros give the identity.

    Divided by the square root of their number in a row: an optimizer's steps, of one size for each, must not swamp it.
    """
    eye = torch.eye(len(below), dtype=below.dtype, device=below.device)
    return F.normalize(below.tril(-1) / len(below) ** 0.5 + eye, dim=-1)
