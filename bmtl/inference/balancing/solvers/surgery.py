"""PCGrad's and GradVac's walk over pairs of gradients, all rows at once."""

import numpy as np

from bmtl.inference.balancing.solvers.cosines import Array

_SHORT = 1e-14  # squared length, of a unit gradient at first, below which nothing but rounding is left


def without_conflicts(cosine: Array, order: Array, targets: Array | None = None, beta: float = 0.0) -> Array:
    """Moves each unit gradient along the others until its cosine with each, in turn, is at least a target.

    Row i starts as unit gradient i and meets the others in its own order. Where its cosine with gradient j is below the
    target, as much of gradient j is added as makes it the target (PCGrad: 0; GradVac: a moving average of the cosines).

    Args:
        cosine: Cosines ``(K, K)``.
        order: Row i is the order in which gradient i meets all of them, itself included and passed over ``(K, K)``.
        targets: Targets ``(K, K)``, below 1, moved in place to ``(1 - beta) target + beta cosine``; 0 if None.
        beta: Speed of the moving average.

    Returns:
        Row i holds the coefficients, on unit gradients, of what became of gradient i ``(K, K)``.
    """
    size = len(cosine)
    rows = np.arange(size)
    mixed = np.eye(size)
    products = cosine.copy()  # of the rows with all gradients: mixed @ cosine
    for others in order.T:
        along = products[rows, others]
        if targets is None:
            added = np.maximum(-along, 0.0)
        else:
            squares = np.einsum("ik,ik->i", mixed, products)
            left = (squares > _SHORT) & (others != rows)
            length = np.sqrt(np.where(left, squares, 1.0))
            c = np.clip(along / length, -1.0, 1.0)
            rho = targets[rows, others]
            wanted = rho / np.sqrt(1.0 - rho**2) * np.sqrt(1.0 - c**2) - c
            added = np.where(left & (c < rho), length * wanted, 0.0)
            targets[rows, others] = np.where(left, (1.0 - beta) * rho + beta * c, rho)
        added[others == rows] = 0.0
        mixed[rows, others] += added
        products += added[:, None] * cosine[others]
    return mixed
