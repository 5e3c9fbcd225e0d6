"""Intervals with guaranteed coverage: split conformal prediction, from the errors on validation rows.

If validation and test rows are exchangeable, an interval of level P holds the label with probability P at least, whatever
the model: over the draw of both, on average over rows, and not for each input.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.metrics.by_target import task_coords
from bmtl.evaluation.parts import PartReader, scored
from bmtl.targets.metrics.intervals import coverage_of_intervals
from bmtl.targets.score import Scored

Method = Literal["split", "quantiles"]
Pair = tuple[np.ndarray, np.ndarray]
Fitted = TypeVar("Fitted")


def conformal_quantile(scores: ArrayLike, level: float) -> float:
    """The score that a further exchangeable one stays below with probability `level` at least.

    It is the k-th smallest with ``k = ceil((n + 1) level)``: infinite where that is beyond n, as no smaller number is sure.

    Args:
        scores: The error of each validation row ``(n,)``.
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
    """Conformal intervals of the test rows of every target that is a single number, fitted on the validation rows.

    Args:
        tree: A run's results tree with validation rows.
        level: In (0, 1).
        method: ``"quantiles"`` moves the predictive's central intervals, ``"split"`` puts one width around its mean.

    Returns:
        ``lower_<target>`` and ``upper_<target>`` (obs_<target>), and per target ``coverage`` and ``width (task)``: share
        of labels inside and mean width. NaN for targets of other families, without a labelled test row, and for those that
        the attribute ``left_out`` names with the reason: one without a labelled validation row has no interval, and the
        others have theirs.

    Raises:
        ValueError: If there are no validation rows at all, or no target has an interval.
    """
    if method not in ("split", "quantiles"):
        raise ValueError(f"There is no conformal method {method!r}; expected 'split' or 'quantiles'.")

    def ends(known: Scored, rows: Scored) -> Pair:
        before, after = known.predictive(), rows.predictive()
        if method == "split":
            return split_conformal(known.labels, before.mean(), after.mean(), level)
        return conformalised_quantiles(known.labels, *before.interval(level), *after.interval(level), level)

    test = scored(tree)
    concerned = [name for name, rows in test.items() if _is_number(rows) and len(rows.labels)]
    fitted, left_out = by_target(tree, concerned, ends)
    covered, widths = dict.fromkeys(test, np.nan), dict.fromkeys(test, np.nan)
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name, (lower, upper) in fitted.items():
        variables |= {f"lower_{name}": ((f"obs_{name}",), lower), f"upper_{name}": ((f"obs_{name}",), upper)}
        covered[name] = coverage_of_intervals(test[name].labels, lower, upper)
        widths[name] = float((upper - lower).mean())
    scores = {"coverage": ("task", [*covered.values()]), "width": ("task", [*widths.values()])}
    found = xr.Dataset({**variables, **scores}, coords={**task_coords(tree, test), **row_numbers(tree, fitted)})
    return found.assign_attrs(method=method, level=level, left_out=json.dumps(left_out))


def by_target(
    tree: xr.DataTree, targets: Sequence[str], fit: Callable[[Scored, Scored], Fitted]
) -> tuple[dict[str, Fitted], dict[str, str]]:
    """The fit on each target's validation rows for its test rows, and why other targets have none.

    Args:
        tree: A run's results tree.
        targets: Those to fit.
        fit: Validation rows, test rows -> the result; a ``ValueError`` leaves the target out, and says why.

    Raises:
        ValueError: If the run has no validation rows, or every target is left out.
    """
    known, test = scored(tree, "validation"), scored(tree)
    fitted: dict[str, Fitted] = {}
    left_out: dict[str, str] = {}
    for name in targets:
        if name not in known or not len(known[name].labels):
            left_out[name] = "it has no labelled validation row"
            continue
        try:
            fitted[name] = fit(known[name], test[name])
        except ValueError as error:
            left_out[name] = str(error)
    if left_out and not fitted:
        reasons = "; ".join(f"{name!r}: {why}" for name, why in left_out.items())
        raise ValueError(f"No target can be fitted on the validation rows. {reasons}")
    return fitted, left_out


def row_numbers(tree: xr.DataTree, targets: Iterable[str]) -> dict[str, tuple[str, np.ndarray]]:
    """Coordinates ``obs_<target>``, the numbers of each target's test rows."""
    reader = PartReader(tree)
    return {f"obs_{name}": (f"obs_{name}", reader.numbers(name)) for name in targets}


def _is_number(rows: Scored) -> bool:
    """Whether a label is one number, and its predictive is known."""
    return rows.family.score("crps") is not None and rows.prediction.has("predictive")
