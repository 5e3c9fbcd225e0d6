"""The Student-t in torch: stable for many degrees of freedom, differentiable in everything, on any device.

Throughout, `alpha` is half the degrees of freedom, `w` is degrees of freedom times squared scale, and `e` is the distance
from the location, so that the density is proportional to ``(1 + e^2 / w)^-(alpha + 1/2)``. All arguments broadcast.

torch has no incomplete beta function. Here tails are one Gauss-Legendre sum after the substitution
``e = sqrt(w) sinh(u)``, which makes the density ``cosh(u)^-(2 alpha)``: smooth, and nothing cancels far out.

The square of a distance is never formed: it overflows float32 beyond 1e19.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_SHIFT = 8  # the asymptotic series below are taken at alpha + 8
_FAR = 1e4  # square roots of w beyond which logarithms are taken first


def log_gamma_step(alpha: Tensor) -> Tensor:
    """``lgamma(alpha + 1/2) - lgamma(alpha)`` for alpha above 0, to 1e-12 (float64) and 4e-7 (float32).

    The difference of two `torch.lgamma` has lost all digits in float32 at alpha = 1e6.
    """
    z = alpha + _SHIFT
    i = z.reciprocal()
    q = i * i
    series = i * (-1 / 8 + q * (1 / 192 + q * (-1 / 640 + q * (17 / 14336 - q * (31 / 18432)))))
    k = torch.arange(_SHIFT, dtype=alpha.dtype, device=alpha.device)
    return 0.5 * z.log() + series - torch.log1p(0.5 / (alpha[..., None] + k)).sum(-1)


def digamma_step(alpha: Tensor) -> Tensor:
    """``digamma(alpha + 1/2) - digamma(alpha)``, the derivative of `log_gamma_step`, as exact."""
    i = (alpha + _SHIFT).reciprocal()
    q = i * i
    series = i * (1 / 2 + i * (1 / 8 + q * (-1 / 64 + q * (1 / 128 + q * (-17 / 2048 + q * (31 / 2048))))))
    k = alpha[..., None] + torch.arange(_SHIFT, dtype=alpha.dtype, device=alpha.device)
    return series + (0.5 / (k * (k + 0.5))).sum(-1)


def log_density(alpha: Tensor, w: Tensor, e: Tensor) -> Tensor:
    """Log density at distance `e` from the location."""
    return log_gamma_step(alpha) - 0.5 * torch.log(torch.pi * w) - (alpha + 0.5) * log1p_square(w, e)


def log1p_square(w: Tensor, e: Tensor) -> Tensor:
    """``log(1 + e^2 / w)``, finite for every finite distance."""
    root = w.sqrt()
    far = e.abs() > _FAR * root
    near = torch.log1p((torch.where(far, 0.0, e) / root).square())
    e = torch.where(far, e, root)
    beyond = 2 * torch.log(e.abs()) - torch.log(w) + torch.log1p((root / e).square())
    return torch.where(far, beyond, near)


def partial_mean(alpha: Tensor, w: Tensor, e: Tensor) -> Tensor:
    """``E[Y - location; Y - location > e]``, that is ``scale f(z) (n + z^2) / (n - 1)`` with n > 1 degrees of freedom."""
    log_factor = log_gamma_step(alpha) - 0.5 * np.log(np.pi) - (alpha - 0.5) * log1p_square(w, e)
    return 0.5 * w.sqrt() * torch.exp(log_factor) / (alpha - 0.5)


def log_tail(alpha: Tensor, w: Tensor, e: Tensor) -> Tensor:
    """Log probability beyond a distance from the location on one side: ``log P(Y - location > |e|)``.

    The error is 3e-13 in float64 and 1e-6 in float32, also where the probability itself would underflow.
    """
    e = torch.where(e > 0, e, -e)  # the gradient of `abs` is 0 at 0
    return _log_tail(alpha, log1p_square(w, e), e / torch.hypot(w.sqrt(), e))[0]


def quantile(alpha: Tensor, w: Tensor, p: Tensor) -> Tensor:
    """Distance from the location at which the cdf is `p`; infinite at 0 and 1, NaN outside.

    Newton's method on the logarithm of the tail, which is concave in u and so converges from any start; the last step is
    taken with the graph and carries the gradients.
    """
    lower = p < 0.5
    q = torch.where(lower, p, 1 - p)
    log_q = q.clamp_min(torch.finfo(q.dtype).tiny).log()
    with torch.no_grad():
        u = torch.zeros_like(alpha + log_q)
        for _ in range(_NEWTON):
            tail, area = _log_tail(alpha, _log_cosh_square(u), u.tanh())
            u = u + area * (tail - log_q)
        fall, slope = _log_cosh_square(u), u.tanh()
    tail, area = _log_tail(alpha, fall, slope)
    u = u + area.detach() * (tail - log_q)
    e = w.sqrt() * torch.where(lower, -u, u).sinh()
    edge = torch.where(p == 0, -torch.inf, torch.where(p == 1, torch.inf, torch.nan)).to(e)
    return torch.where((p > 0) & (p < 1), e, edge)


_NEWTON = 12  # 8 reach 1e-13 from p = 1e-12 on; the rest are for p down to float64's smallest
_REACH = {torch.float64: (36.0, 48), torch.float32: (18.0, 16)}  # where the integrand is exp(-reach), and nodes


def _log_cosh_square(u: Tensor) -> Tensor:
    """``log(cosh(u)^2)`` for u from 0, without loss at 0 and without overflow."""
    far = 2 * (u + torch.log1p(torch.exp(-2 * u)) - np.log(2))
    return torch.where(u < 1, torch.log1p(u.clamp_max(1).sinh().square()), far)


def _log_tail(alpha: Tensor, fall: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the tail beyond u, and -1 over its derivative in u; ``fall = log(cosh(u)^2)``, ``slope = tanh(u)``."""
    reach, count = _REACH.get(alpha.dtype, _REACH[torch.float32])
    with torch.no_grad():  # r where cosh(u + r) / cosh(u) = 1 + more
        more = torch.expm1(reach / (2 * alpha))
        far = torch.log1p(
            (more + (2 * more + more.square()) / (slope + (slope.square() + 2 * more + more.square()).sqrt()))
            / (1 + slope)
        )
    nodes, weights = legendre(count, alpha.dtype, alpha.device)
    r = far[..., None] * nodes
    growth = torch.log1p(2 * torch.sinh(r / 2).square() + slope[..., None] * torch.sinh(r))
    area = far * (torch.exp(-2 * alpha[..., None] * growth) @ weights)
    log_tail = log_gamma_step(alpha) - 0.5 * np.log(np.pi) - alpha * fall + area.log()
    return log_tail, area


@lru_cache(maxsize=16)
def legendre(count: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    x, weights = np.polynomial.legendre.leggauss(count)
    with torch.inference_mode(False):
        return (
            torch.as_tensor((x + 1) / 2, dtype=dtype, device=device),
            torch.as_tensor(weights / 2, dtype=dtype, device=device),
        )
