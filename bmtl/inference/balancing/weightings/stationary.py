"""Where no common descent direction exists: 0 lies in the convex hull of the gradients."""

import numpy as np
import torch

from bmtl.inference.balancing.base import Measured, Solution
from bmtl.inference.balancing.solvers import shortest_in_hull, unit_diagonal


def stationary(m: Measured, residual: float, rounds: int = 1) -> Solution:
    """K times MGDA's weights, at which the update is 0: the answer where no common descent direction exists."""
    norms, cosine = unit_diagonal(m.G.numpy())
    return Solution(torch.from_numpy(len(norms) * shortest_in_hull(norms, cosine)), residual, rounds, "stationary")


def opposed(cosine: np.ndarray, length: float = 1e-2) -> bool:
    """Whether the shortest convex combination of unit gradients, given their cosines, is shorter than this."""
    weights = shortest_in_hull(np.ones(len(cosine)), cosine)
    return bool(weights @ cosine @ weights <= length**2)
