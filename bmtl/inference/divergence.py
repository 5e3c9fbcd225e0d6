"""Closed divergences of latents, without doing again what a plate repeats."""

from typing import Any

import torch
from pyro.distributions import Independent, Normal
from torch import Tensor
from torch.distributions import kl_divergence


def divergence(q: Any, p: Any) -> Any:
    """``KL(q || p)`` in closed form, of their batch shape.

    A plate of particles sees one posterior many times over, as a view. The divergence of normals from normals is computed
    once for all of those, and its result is such a view too.

    Args:
        q: Distribution in the guide.
        p: Distribution in the program.

    Raises:
        NotImplementedError: If no closed form is registered for the two.
    """
    if not (_is_normal(q) and _is_normal(p) and any(_repeated(q))):
        return kl_divergence(q, p)
    return kl_divergence(_once(q), _once(p)).expand(torch.broadcast_shapes(q.batch_shape, p.batch_shape))


def _is_normal(fn: Any) -> bool:
    """A normal, also one that draws in its own way, but of no other density."""
    return getattr(type(_base(fn)), "log_prob", None) is torch.distributions.Normal.log_prob


def _base(fn: Any) -> Any:
    return fn.base_dist if isinstance(fn, torch.distributions.Independent) else fn


def _repeated(fn: Any) -> list[bool]:
    """Which batch dimensions are views of one row."""
    loc, scale = _base(fn).loc, _base(fn).scale
    dims = len(fn.batch_shape)
    return [loc.shape[d] > 1 and not loc.stride(d) and not scale.stride(d) for d in range(dims)]


def _once(fn: Any) -> Any:
    def rows(values: Tensor) -> Tensor:
        return values[tuple(slice(0, 1) if repeated else slice(None) for repeated in _repeated(fn))]

    once = Normal(rows(_base(fn).loc), rows(_base(fn).scale), validate_args=False)
    return Independent(once, len(fn.event_shape), validate_args=False) if fn.event_shape else once
