"""Intervals with a guarantee: split conformal prediction, from the errors on validation rows.

If validation and test rows are exchangeable, an interval of level P holds the label with probability P at least, whatever
the model: over the draw of both, on average over rows, and not for each input.
"""

from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.metrics.intervals import coverage_of_intervals
from bmtl.evaluation.metrics.labelled import group_of, targets_of, task_coords
from bmtl.evaluation.predictive import predictive_of, regressions

Method = Literal["split", "quantiles"]


def conformal_quantile(scores: ArrayLike, level: float) -> float:
    """The score that a further exchangeable one stays below with probability `level` at least.

    It is the k-th smallest with ``k = ceil((n + 1) level)``: infinite where that is beyond n, as no smaller number is sure.

    Args:
        scores: How far off each validation row is ``(n,)``.
        level: In (0, 1).

    Returns:
        A score, or infinity where n is below ``level / (1 - level)``.

    Raises:
        ValueError: If there is no score, one is NaN, or the level is outside (0, 1).

    Source:
        Vovk, Gammerman & Shafer (2005); Lei et al. (2018), Journal of the American Statistical Association 113, theorem 2.2.
    """
    values = np.asarray(scores, dtype=float)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"The scores have shape {values.shape}; expected (n,), a validation row at least.")
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} of {values.size} scores are NaN; leave those rows out.")
    if not 0 < level < 1:
        raise ValueError(f"The interval's level is {level}; expected one in (0, 1).")
    # A product that is a whole number must not be rounded up to the next one.
    rank = int(np.ceil((values.size + 1) * level * (1 - 1e-14)))
    return float(np.partition(values, rank - 1)[rank - 1]) if rank <= values.size else float("inf")


def split_conformal(y: ArrayLike, predicted: ArrayLike, new: ArrayLike, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of one width around predictions, from absolute errors on validation rows.

    Args:
        y: Validation labels ``(n,)``.
        predicted: Their predictions ``(n,)``.
        new: Predictions of new rows ``(N,)``.
        level: In (0, 1).

    Returns:
        Lower and upper ends ``(N,)``; infinite with too few validation rows.

    Raises:
        ValueError: As `conformal_quantile`.
    """
    margin = conformal_quantile(np.abs(np.asarray(y, dtype=float) - np.asarray(predicted, dtype=float)), level)
    centre = np.asarray(new, dtype=float)
    return centre - margin, centre + margin


def conformalised_quantiles(
    y: ArrayLike, lower: ArrayLike, upper: ArrayLike, new_lower: ArrayLike, new_upper: ArrayLike, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Predictive intervals, all moved outwards (or inwards) by one margin: they stay wide where the model is unsure.

    The score of a validation row is its distance outside its interval, negative inside: ``max(lower - y, y - upper)``.
    Intervals that an inward margin would turn over are closed at their middle.

    Args:
        y: Validation labels ``(n,)``.
        lower: Lower ends of their predictive intervals ``(n,)``.
        upper: Upper ends ``(n,)``.
        new_lower: Lower ends of new rows' intervals ``(N,)``.
        new_upper: Upper ends ``(N,)``.
        level: In (0, 1); the predictive intervals should be of this level too, and need not be calibrated.

    Returns:
        Lower and upper ends ``(N,)``.

    Raises:
        ValueError: As `conformal_quantile`.

    Source:
        Romano, Patterson & Candès (2019), Conformalized Quantile Regression, equations 6 to 8.
    """
    labels, low, high = (np.asarray(values, dtype=float) for values in (y, lower, upper))
    margin = conformal_quantile(np.maximum(low - labels, labels - high), level)
    bottom, top = np.asarray(new_lower, dtype=float), np.asarray(new_upper, dtype=float)
    middle = (bottom + top) / 2
    return np.minimum(bottom - margin, middle), np.maximum(top + margin, middle)


def conformal_intervals(tree: xr.DataTree, *, level: float = 0.9, method: Method = "quantiles") -> xr.Dataset:
    """Conformal intervals of every regression's scored rows, fitted on the tree's ``validation``.

    Args:
        tree: A results tree with ``validation``.
        level: In (0, 1).
        method: ``"quantiles"`` moves the predictive's central intervals, ``"split"`` puts one width around its mean.

    Returns:
        ``lower_<target>`` and ``upper_<target>`` (obs_<target>), and per target ``coverage`` and ``width (task)``: share
        of labels inside and mean width (NaN for a classification and without a scored row).

    Raises:
        ValueError: If there is no ``validation``, or a target has no labelled row there; names it.
    """
    if method not in ("split", "quantiles"):
        raise ValueError(f"There is no conformal method {method!r}; expected 'split' or 'quantiles'.")
    validation = validation_of(tree)
    observed, known = group_of(tree, "observed_data"), group_of(validation, "observed_data")
    ends: dict[str, xr.DataArray] = {}
    covered, widths = [], []
    for name in targets_of(tree):
        labels = observed[f"y_{name}"]
        if name not in regressions(tree) or not labels.size:
            covered.append(np.nan)
            widths.append(np.nan)
            continue
        y = labelled_rows(known, name)
        before, after = predictive_of(validation, name), predictive_of(tree, name)
        if method == "split":
            lower, upper = split_conformal(y, before.mean(), after.mean(), level)
        else:
            lower, upper = conformalised_quantiles(y, *before.interval(level), *after.interval(level), level)
        ends |= {f"lower_{name}": labels.copy(data=lower), f"upper_{name}": labels.copy(data=upper)}
        covered.append(coverage_of_intervals(labels.values, lower, upper))
        widths.append(float((upper - lower).mean()))
    scores = {"coverage": ("task", np.asarray(covered)), "width": ("task", np.asarray(widths))}
    return xr.Dataset({**ends, **scores}, coords=task_coords(tree)).assign_attrs(method=method, level=level)


def validation_of(tree: xr.DataTree) -> xr.DataTree:
    """The results tree of the validation rows.

    Raises:
        ValueError: If there is none.
    """
    if "validation" not in tree.children:
        raise ValueError(
            "The results tree has no group 'validation', on which to recalibrate; record the validation rows too."
        )
    return tree.children["validation"]


def labelled_rows(observed: xr.Dataset, target: str) -> np.ndarray:
    """Validation labels ``(n,)`` of a target.

    Raises:
        ValueError: If there is none; names the target.
    """
    if f"y_{target}" not in observed or not observed[f"y_{target}"].size:
        raise ValueError(f"Target {target!r} has no labelled validation row; it cannot be recalibrated.")
    return observed[f"y_{target}"].values
