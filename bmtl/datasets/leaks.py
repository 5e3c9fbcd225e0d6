"""Features that put the rows in the order of a target: they may be made from it."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import rankdata

from bmtl.datasets.input_kind import Inputs
from bmtl.targets import Target

_LEAST = 5
"""Labels of each class, or different numbers, below which an equal order may be chance."""
_MOST_ROWS = 2000
_MOST_PAIRS = 100_000
"""Of features and targets, above which none is looked at."""
_EQUAL = 0.9999


def warning_of_leaks(inputs: Inputs, targets: Mapping[str, Target], rows: np.ndarray) -> list[str]:
    """A sentence for each target that a feature has the rank correlation 1 with, up to ten thousandths.

    Args:
        inputs: Of all rows. Only numbers with names are looked at.
        targets: Labels of all rows.
        rows: Training rows; the first 2,000 of them count.
    """
    names = inputs.describe().get("features") or []
    if not names or len(names) * len(targets) > _MOST_PAIRS:
        return []
    rows = rows[:_MOST_ROWS]
    features = inputs.summary_features(rows)
    if features is None or features.shape[1] != len(names):
        return []
    found = []
    for target, of in targets.items():
        labels = of.values[rows]
        known = ~of.family.missing(labels)
        if labels.ndim != 1 or not _enough(labels[known], len(of.family.class_names)):
            continue
        alike = [names[i] for i in np.flatnonzero(_rank_correlations(features[known], labels[known]) > _EQUAL)]
        if alike:
            more = f" and {len(alike) - 3} more" if len(alike) > 3 else ""
            found.append(
                f"The target {target!r} orders the training rows as a feature does ({', '.join(alike[:3])}{more}): one may "
                "be made from the other. Leave out what is not known when predictions are made."
            )
    return found


def _enough(labels: np.ndarray, classes: int) -> bool:
    """Whether labels are so many and so different that an equal order is no chance."""
    _, counts = np.unique(labels, return_counts=True)
    return bool(np.sort(counts)[-2:].min() >= _LEAST and len(counts) > 1) if classes else len(counts) >= 4 * _LEAST


def _rank_correlations(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Size of each feature's rank correlation with the labels ``(D,)``; 0 of a constant one."""
    ranks, of_labels = rankdata(features, axis=0), rankdata(labels)
    ranks -= ranks.mean(axis=0)
    of_labels -= of_labels.mean()
    scale = np.linalg.norm(ranks, axis=0) * np.linalg.norm(of_labels)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.abs(of_labels @ ranks) / scale)
