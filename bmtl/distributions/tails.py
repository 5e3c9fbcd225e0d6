"""Log probabilities of tails and intervals of location-scale distributions, exact where the probabilities underflow.

`log_cdf`, `log_survival` and `partial_mean` dispatch on the distribution. They support the normal, the Laplace, and those of
bmtl (`StudentT`, `NormalInverseGamma`); register another with ``@log_cdf.register``, and the other two.
"""

import math
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Laplace, Normal

from bmtl.distributions.student_t import StudentTMarginal
from bmtl.distributions.t_functions import legendre


@singledispatch
def log_cdf(p: Any, value: Tensor) -> Tensor:
    """Log of the cdf.

    Raises:
        TypeError: If the distribution is not known.
    """
    raise TypeError(_unknown(p))


@singledispatch
def log_survival(p: Any, value: Tensor) -> Tensor:
    """Log of ``1 - cdf``.

    Raises:
        TypeError: If the distribution is not known.
    """
    raise TypeError(_unknown(p))


@singledispatch
def partial_mean(p: Any, bound: Tensor) -> Tensor:
    """``E[Y - loc; Y > bound]``.

    Raises:
        TypeError: If the distribution is not known.
    """
    raise TypeError(_unknown(p))


@log_cdf.register
def _(p: StudentTMarginal, value: Tensor) -> Tensor:
    return p.log_cdf(value)


@log_survival.register
def _(p: StudentTMarginal, value: Tensor) -> Tensor:
    return p.log_survival(value)


@partial_mean.register
def _(p: StudentTMarginal, bound: Tensor) -> Tensor:
    return p.partial_mean(bound)


@log_cdf.register
def _(p: Normal, value: Tensor) -> Tensor:
    return log_ndtr((value - p.loc) / p.scale)


@log_survival.register
def _(p: Normal, value: Tensor) -> Tensor:
    return log_ndtr((p.loc - value) / p.scale)


@partial_mean.register
def _(p: Normal, bound: Tensor) -> Tensor:
    return p.scale.square() * p.log_prob(bound).exp()


@log_cdf.register
def _(p: Laplace, value: Tensor) -> Tensor:
    return _laplace_tail((value - p.loc) / p.scale)


@log_survival.register
def _(p: Laplace, value: Tensor) -> Tensor:
    return _laplace_tail((p.loc - value) / p.scale)


@partial_mean.register
def _(p: Laplace, bound: Tensor) -> Tensor:
    z = (bound - p.loc).abs() / p.scale
    return 0.5 * p.scale * (1 + z) * torch.exp(-z)


def log_ndtr(z: Tensor) -> Tensor:
    """Log of the standard normal cdf, with a gradient as exact as the value, also far out.

    The gradient of `torch.special.log_ndtr` is the exponential of a difference of squares: in float32 it is off by 5 % at
    -1e3, and next to nothing at -1e5, where it should be 1e5. Half precision is computed in float32.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    below = z < 0
    low, high = torch.where(below, z, -1.0), torch.where(below, 0.0, z)
    tail = torch.log(0.5 * torch.special.erfcx(-low / math.sqrt(2))) - 0.5 * low.square()
    return torch.where(below, tail, torch.log1p(-0.5 * torch.erfc(high / math.sqrt(2))))


def _laplace_tail(z: Tensor) -> Tensor:
    below = z < 0
    return torch.where(below, z - math.log(2), torch.log1p(-0.5 * torch.exp(-torch.where(below, 0.0, z))))


def log_between(p: Any, lower: Tensor, upper: Tensor) -> Tensor:
    """``log P(lower < Y < upper)`` of a location-scale distribution; infinite ends are open.

    By the tails on the side of the location where the interval lies, and by quadrature of the density where it is
    narrower than the scale, so that neither a difference of nearly equal numbers is taken nor a probability underflows.

    Args:
        p: The distribution, with `loc` and `scale`, batch shape ``(B,)``.
        lower: Lower ends ``(B,)``.
        upper: Upper ends ``(B,)``, above the lower ones.
    """
    loc, scale = p.loc.detach(), p.scale.detach()
    open_below, open_above = lower.isneginf(), upper.isposinf()
    closed = ~(open_below | open_above)
    # An infinity, or a case that is not this row's, must not reach the gradient of a branch that is not taken.
    low, high = torch.where(open_below, loc - scale, lower), torch.where(open_above, loc + scale, upper)
    below = log_cdf(p, high)
    above = log_survival(p, low)
    narrow = closed & (high - low < scale)
    wide = closed & ~narrow
    low, high = torch.where(wide, low, loc - scale), torch.where(wide, high, loc + scale)
    right, left = low > loc, high < loc
    # On one side of the location: the tail to the inner end, less that to the outer end.
    inner = torch.where(right, log_survival(p, low), log_cdf(p, high))
    outer = torch.where(right, log_survival(p, high), log_cdf(p, low))
    one_side = right | left
    difference = torch.where(one_side, inner - outer, 1.0)
    on_one_side = inner + log1mexp(difference)
    outside = log_cdf(p, low).exp() + log_survival(p, high).exp()
    around = torch.log1p(-torch.where(one_side, 0.5, outside))
    found = torch.where(one_side, on_one_side, around)
    found = torch.where(narrow, _log_integral(p, lower, upper, narrow), found)
    return torch.where(open_below, below, torch.where(open_above, above, found))


def _log_integral(p: Any, lower: Tensor, upper: Tensor, narrow: Tensor) -> Tensor:
    """Log of the density's integral by Gauss-Legendre quadrature, where the interval is narrow."""
    loc, scale = p.loc.detach(), p.scale.detach()
    low, high = torch.where(narrow, lower, loc), torch.where(narrow, upper, loc + 0.5 * scale)
    middle = torch.minimum(torch.maximum(loc, low), high)  # a density may have a kink at its location
    nodes, weights = legendre(16, low.dtype, low.device)
    shape = (-1, *[1] * low.dim())
    parts = []
    for start, width in ((low, middle - low), (middle, high - middle)):
        log_density = p.log_prob(start + width * nodes.reshape(shape))
        parts.append(log_density + (width * weights.reshape(shape)).log())
    return torch.logsumexp(torch.cat(parts), 0)


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(-x))`` for x above 0, without loss of digits."""
    small = x < math.log(2)
    near = torch.log(-torch.expm1(-torch.where(small, x, 1.0)))
    return torch.where(small, near, torch.log1p(-torch.exp(-torch.where(small, 1.0, x))))


def _unknown(p: Any) -> str:
    return (
        f"The tails of {type(p).__name__} are not known. Known are those of the normal, the Laplace and the Student-t; "
        "register another with bmtl.distributions.tails.log_cdf, log_survival and partial_mean."
    )
