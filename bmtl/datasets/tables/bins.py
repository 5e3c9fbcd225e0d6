"""Quantile bins of the features of a table, for networks that see each feature piece by piece."""

import numpy as np

MOST_BINS = 16
ROWS_A_BIN = 20
WIDE = 256
"""Number of features above which none is binned: the encoding would be a thousand columns and more."""

Bins = tuple[tuple[float, ...], ...]
"""Edges of each feature's bins, in order; none where a feature is not binned."""


def quantile_bins(features: np.ndarray) -> Bins:
    """Edges between bins that hold equally many rows, for each feature.

    A feature of N rows has ``min(16, N / 20)`` bins, fewer where values repeat. A feature of one or two values has none: a
    line through two points says all of it. Tables of fewer than 40 rows or more than 256 features have none.

    Args:
        features: ``(N, D)``, the training rows as a model sees them.

    Returns:
        Edges by feature, the least and the greatest value included.

    Source:
        Gorishniy, Rubachev & Babenko (2022), "On Embeddings for Numerical Features in Tabular Deep Learning", section 3.2.
    """
    rows, width = features.shape
    count = min(MOST_BINS, rows // ROWS_A_BIN)
    if count < 2 or width > WIDE:
        return ((),) * width
    found = []
    for column in np.quantile(features, np.linspace(0.0, 1.0, count + 1), axis=0).T:
        edges = np.unique(column)
        found.append(tuple(edges.tolist()) if len(edges) > 2 else ())
    return tuple(found)
