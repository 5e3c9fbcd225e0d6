"""Gradients of every kind, for the weightings' tests."""

import numpy as np
import torch

from bmtl.inference.balancing import Context, Measured

KINDS = ("generic", "rank-deficient", "opposed", "strongly opposed")
SIZES = (2, 3, 11, 50)
DECADES = (0, 4, 25)  # that the gradients' norms span: 25 are 1e-10 to 1e15


def unit_gradients(kind, k, seed=0):
    """Unit gradients (k, P)."""
    rng = np.random.default_rng(seed)
    if kind == "generic":
        j = rng.standard_normal((k, k + 30))
    elif kind == "rank-deficient":  # with a common part, so that 0 is not in their hull
        j = rng.standard_normal((k, max(k // 2, 2))) + 5.0
    elif kind in ("opposed", "strongly opposed"):  # cosines near -0.25 and -0.999
        along = rng.standard_normal(k + 30) * (0.6 if kind == "opposed" else 30.0)
        j = rng.standard_normal((k, k + 30)) + np.where(np.arange(k) % 2, 1.0, -1.0)[:, None] * along
    elif kind == "agreeing":  # no conflict
        j = np.abs(rng.standard_normal((k, k + 30)))
    elif kind == "balanced":  # 0 in the hull
        j = rng.standard_normal((k, k + 30))
        j[0] = -j[1:].sum(axis=0)
    else:
        raise ValueError(kind)
    return torch.from_numpy(j / np.linalg.norm(j, axis=1, keepdims=True))


def gradients(kind, k, decades=0, seed=0):
    """Gradients (k, P) whose norms span powers of ten, around 10^2.5 where they are 25."""
    order = np.random.default_rng(seed + 1).permutation(k)
    middle = 2.5 if decades == 25 else 0.0
    norms = 10.0 ** (middle + decades * (order / (k - 1) - 0.5))
    return unit_gradients(kind, k, seed) * torch.from_numpy(norms)[:, None]


def everyone(k, step=0):
    """The context in which all k tasks are present."""
    return Context(torch.ones(k, dtype=torch.bool), step=step)


def forward(weighting, jacobian, losses=None):
    """A weighting's answer to gradients (k, P), none taken for 0 however short."""
    return weighting(Measured(jacobian @ jacobian.T, jacobian, losses=losses), everyone(len(jacobian)))


def on_unit_gradients(jacobian, alpha):
    """Norms (k,), and coordinates n alpha (k,) and unit gradients (k, P), which decades of norms do not spoil."""
    norms = jacobian.norm(dim=1)
    return norms, norms * alpha, jacobian / norms[:, None]
