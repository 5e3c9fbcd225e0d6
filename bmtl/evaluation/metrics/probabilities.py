"""Class probabilities: what is asked of them, what they predict, and the layer that finds them in a tree."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.special import entr

from bmtl.evaluation.metrics.labelled import group_of, targets_of, task_coords

TOLERANCE = 1e-4  # of a row's sum: float32 softmaxes, averaged over draws


def checked(labels: ArrayLike, probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``(N,)`` as integers and probabilities ``(N, C)`` in double precision, after a check that they fit.

    NaN passes: it is for each score to be NaN then. Nothing is normalised.

    Raises:
        ValueError: If there is no row or fewer than two classes, labels are no integers or outside the classes, or a
            row of probabilities leaves [0, 1] or does not sum to one.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=float)
    if p.ndim != 2 or not len(p) or p.shape[1] < 2 or y.shape != p.shape[:1]:
        raise ValueError(
            f"labels has shape {y.shape} and probabilities {p.shape}; expected (N,) and (N, C), a row and two classes "
            "at least. (For two classes, give the probabilities of both.)"
        )
    if y.dtype.kind not in "biu":
        raise ValueError(
            f"labels are of type {y.dtype}; expected integers from 0 to {p.shape[1] - 1}. "
            "Drop rows without a label, then give labels.astype(int)."
        )
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(
            f"labels range from {y.min()} to {y.max()}; with {p.shape[1]} classes they are 0 to {p.shape[1] - 1}. "
            "Drop rows without a label (-1)."
        )
    if (p < -TOLERANCE).any() or (p > 1 + TOLERANCE).any():
        raise ValueError(f"probabilities range from {np.nanmin(p):.4g} to {np.nanmax(p):.4g}; expected [0, 1].")
    sums = p.sum(axis=1)
    off = np.abs(sums - 1) > TOLERANCE  # false for NaN
    if off.any():
        raise ValueError(
            f"{off.sum()} of {len(p)} rows of probabilities do not sum to one, the first to {sums[off][0]:.6g}. "
            "Give probabilities and not logits; for a mean over draws, average probabilities."
        )
    return y.astype(np.intp), p


def predicted_class(probabilities: np.ndarray) -> np.ndarray:
    """The most probable class ``(N,)``; of several equally probable ones the first."""
    return probabilities.argmax(axis=1)


def entropy_of_probabilities(probabilities: ArrayLike) -> np.ndarray:
    """Entropy ``(N,)`` in nats of probabilities ``(N, C)``, from 0 to ``log C``; NaN where a row holds NaN."""
    return entr(np.asarray(probabilities, dtype=float).clip(0, 1)).sum(axis=-1)


def class_arrays(tree: xr.DataTree) -> dict[str, tuple[np.ndarray, np.ndarray] | None]:
    """Target -> labels ``(N,)`` and probabilities ``(N, C)``; None for a regression, and for a target without a row.

    Raises:
        ValueError: If the tree has no ``probability``.
    """
    observed, probability = group_of(tree, "observed_data"), group_of(tree, "probability")
    found: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}
    for name in targets_of(tree):
        there = f"y_{name}" in probability and observed[f"y_{name}"].size
        found[name] = (observed[f"y_{name}"].values, probability[f"y_{name}"].values) if there else None
    return found


def class_scores(
    tree: xr.DataTree, core: Callable[[np.ndarray, np.ndarray], Sequence[float]], names: Sequence[str]
) -> xr.Dataset:
    """Several scores of each classification from one call: ``<name> (task)`` for each of `names`.

    Args:
        tree: A results tree with ``probability``.
        core: Labels ``(N,)`` and probabilities ``(N, C)`` of one target -> as many numbers as there are names.
        names: What to call them.

    Returns:
        NaN for a regression and for a target without a scored row.
    """
    undefined = (np.nan,) * len(names)
    scores = [undefined if arrays is None else core(*arrays) for arrays in class_arrays(tree).values()]
    columns = np.asarray(scores, dtype=float).reshape(-1, len(names))
    variables: Mapping[str, tuple[str, np.ndarray]] = {
        name: ("task", columns[:, position]) for position, name in enumerate(names)
    }
    return xr.Dataset(variables, coords=task_coords(tree))
