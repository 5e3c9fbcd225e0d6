"""Fair comparisons of the scores of learners over splits (or seeds).

Functions of one score, a DataArray ``(learner, split)`` or ``(learner, split, task)``. All compare within splits, since
learners of one split share its difficulty. A NaN is a run that diverged, and gives NaN in every result; `counted` marks what
is to be left out instead: a missing cell of the grid, or a target that a split does not score. Ranks over many tasks are in
`ranks`, the arrays below in `resampling`.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr

from bmtl.evaluation.resampling import bootstrap_interval, holm, sign_flip_p, signed_rank_p


def mean_and_error(scores: xr.DataArray, *, counted: xr.DataArray | None = None) -> xr.Dataset:
    """Mean over splits and its standard error.

    Args:
        scores: Dimension ``split`` and any others.
        counted: Booleans that broadcast against `scores`; what is False is left out. All by default.

    Returns:
        ``mean``, ``deviation`` (divisor: splits less one), ``error`` (deviation over the root of splits) and ``splits``,
        without the dimension ``split``. The mean of no split is NaN, and so are the other two of a single one.
    """
    mask = _mask(scores, counted)
    axis = scores.get_axis_num("split")
    values, counts = np.moveaxis(scores.values, axis, 0).astype(float), np.moveaxis(mask.values, axis, 0)
    splits = counts.sum(axis=0)
    # An infinite score less an infinite mean is NaN, and so is the mean of no split.
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(counts, values, 0.0).sum(axis=0) / np.where(splits > 0, splits, np.nan)
        apart = np.where(counts, values - mean, 0.0)
        largest = np.abs(apart).max(axis=0, initial=0.0)
        # Squares are taken of ratios to the largest, so that they neither overflow nor vanish.
        unit = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
        squares = np.square(apart / unit).sum(axis=0)
        deviation = unit * np.sqrt(squares / np.where(splits > 1, splits - 1, np.nan))
        error = deviation / np.sqrt(splits)
    dims = [dim for dim in scores.dims if dim != "split"]
    coords = {name: of for name, of in scores.coords.items() if "split" not in of.dims}
    found = {"mean": mean, "deviation": deviation, "error": error, "splits": splits}
    return xr.Dataset({name: (dims, array) for name, array in found.items()}, coords=coords)


def paired_differences(
    scores: xr.DataArray,
    baseline: str,
    *,
    higher_is_better: bool = False,
    counted: xr.DataArray | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Differences to one learner, split by split: means, intervals and tests.

    Args:
        scores: ``(learner, split)`` or ``(learner, split, task)``.
        baseline: Method that is subtracted.
        higher_is_better: Which sign counts as a win.
        counted: As for `mean_and_error`; a split counts where it counts for both learners.
        level: Nominal coverage of the interval.
        resamples: Bootstrap draws of the splits.
        seed: Of these draws, and of patterns of signs beyond 12 splits.

    Returns:
        For the other learners ``(learner)`` or ``(learner, task)``: ``difference`` (mean of learner less baseline),
        ``error`` (standard error), ``lower``, ``upper`` (`bootstrap_interval`), ``p_signed_rank``, ``p_sign_flip``,
        ``p_holm`` (the sign-flip p corrected for all learners and tasks of this call), ``wins`` (splits in which the
        learner is the better one) and ``splits``. With one split there is a difference and nothing else; with fewer than
        six no p-value reaches 5 %, so read the interval, which is wide then for a reason.

    Raises:
        ValueError: If the baseline is not among the learners.
    """
    differences, mask = _against(scores, baseline, counted)
    others = [name for name in scores["learner"].values if name != baseline]
    differences, mask = differences.sel(learner=others), mask.sel(learner=others)
    summary = mean_and_error(differences, counted=mask)
    lower, upper = _interval(differences, mask, level, resamples, seed)
    sign_flip = _by_columns(lambda values: sign_flip_p(values, seed=seed), differences, mask)
    better = differences > 0 if higher_is_better else differences < 0
    # One split has a p-value of 1 whatever the difference is: that is no test.
    tested = summary["splits"] > 1
    return xr.Dataset(
        {
            "difference": summary["mean"],
            "error": summary["error"],
            "lower": lower,
            "upper": upper,
            "p_signed_rank": _by_columns(lambda values: signed_rank_p(values, seed=seed), differences, mask).where(
                tested
            ),
            "p_sign_flip": sign_flip.where(tested),
            "p_holm": sign_flip.copy(data=holm(sign_flip.where(tested).values)),
            "wins": (better & mask).sum("split"),
            "splits": summary["splits"],
        },
        attrs={"baseline": baseline, "level": level, "higher_is_better": int(higher_is_better)},
    )


def not_worse_than_best(
    scores: xr.DataArray,
    *,
    higher_is_better: bool = False,
    counted: xr.DataArray | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.DataArray:
    """Which learners are not significantly worse than the one with the best mean: what a table may mark as best.

    The best learner is chosen by the data that it is then compared on, and no correction is made for many learners: an
    unmarked learner is worse as far as its own interval says, and a marked one need not be good.

    Args:
        scores: ``(learner, split)`` or ``(learner, split, task)``.
        higher_is_better: Which end is best.
        counted: As for `paired_differences`.
        level: Of the interval of each paired difference to the best.
        resamples: As for `paired_differences`.
        seed: As for `paired_differences`.

    Returns:
        Booleans ``(learner)`` or ``(learner, task)``: True for the best mean and for those whose interval of differences
        to it does not exclude zero. Two learners that share one split or none have no interval, so nothing is excluded.
        A learner whose mean is not finite is never marked.
    """
    mask = _mask(scores, counted)
    means = mean_and_error(scores, counted=mask)["mean"]
    means = means.where(np.isfinite(means))
    ordered = (-means if higher_is_better else means).fillna(np.inf)
    best = ordered.argmin("learner")  # of each task
    differences = less(scores, scores.isel(learner=best).drop_vars("learner")).transpose(*scores.dims)
    shared = (mask & mask.isel(learner=best).drop_vars("learner")).transpose(*scores.dims)
    lower, upper = _interval(differences, shared, level, resamples, seed)
    return means.notnull() & ~(upper < 0 if higher_is_better else lower > 0)


def share_worse(
    scores: xr.DataArray,
    baseline: str,
    *,
    higher_is_better: bool | xr.DataArray = False,
    counted: xr.DataArray | None = None,
) -> xr.DataArray:
    """Share of the tasks on which a learner does worse than a baseline in the mean over splits: negative transfer.

    Args:
        scores: ``(learner, split, task)``.
        baseline: Such as "stl", a network per task.
        higher_is_better: Which end is best; a boolean, or one for each task (DataArray).
        counted: As for `paired_differences`. Tasks that no split counts are left out.

    Returns:
        ``(learner)``, in [0, 1]; a tie is not worse. NaN where a difference is NaN, and for the baseline itself.

    Raises:
        ValueError: If the baseline is not among the learners, or there is no dimension ``task``.
    """
    if "task" not in scores.dims:
        raise ValueError(f"A share of tasks needs the dimension task; the scores have {scores.dims}.")
    differences, mask = _against(scores, baseline, counted)
    summary = mean_and_error(differences, counted=mask)
    there = summary["splits"] > 0
    worse = xr.where(higher_is_better, summary["mean"] < 0, summary["mean"] > 0)
    share = (worse & there).sum("task") / there.sum("task").where(lambda tasks: tasks > 0)
    diverged = (summary["mean"].isnull() & there).any("task")
    return share.where(~diverged & (share["learner"] != baseline))


def counted_as(scores: xr.DataArray, counted: xr.DataArray | None) -> xr.DataArray:
    """`counted` with all dimensions of `scores`, in their order; True throughout for None.

    Raises:
        ValueError: If it has other labels along a dimension, or their order is another.
    """
    everything = xr.ones_like(scores, dtype=bool)
    if counted is None:
        return everything
    try:
        with xr.set_options(arithmetic_join="exact"):  # else what only one of them has would be left out unseen
            return (everything & counted).transpose(*scores.dims)
    except ValueError as error:
        raise ValueError(
            "counted has other labels along a dimension than the scores, or in another order. Give it for all of theirs: "
            f"counted.reindex_like(scores, fill_value=False). ({error})"
        ) from error


def _mask(scores: xr.DataArray, counted: xr.DataArray | None) -> xr.DataArray:
    if missing := {"split"} - set(scores.dims):
        raise ValueError(f"The scores have the dimensions {scores.dims}; expected {sorted(missing)} too.")
    return counted_as(scores, counted)


def _against(scores: xr.DataArray, baseline: str, counted: xr.DataArray | None) -> tuple[xr.DataArray, xr.DataArray]:
    """Differences to the baseline, and which of them count."""
    learners = scores["learner"].values.tolist()
    if baseline not in learners:
        raise ValueError(f"The baseline {baseline!r} is not among the learners {learners}.")
    mask = _mask(scores, counted)
    differences = less(scores, scores.sel(learner=baseline, drop=True))
    return differences, mask & mask.sel(learner=baseline, drop=True)


def less(scores: xr.DataArray, own: xr.DataArray) -> xr.DataArray:
    """Scores less those of one learner; 0 where single precision does not resolve the difference.

    Predictions are in single precision: what is equal but for its rounding could be better on every split, by nothing.
    """
    with np.errstate(invalid="ignore"):  # infinite less infinite is NaN, which stays
        differences = scores - own
        resolved = abs(differences) > np.finfo(np.float32).eps * abs(own)
    return differences.where(resolved | differences.isnull() | np.isinf(own), 0.0)


def _interval(
    differences: xr.DataArray, mask: xr.DataArray, level: float, resamples: int, seed: int
) -> tuple[xr.DataArray, xr.DataArray]:
    def ends(values: np.ndarray) -> np.ndarray:
        return np.stack(bootstrap_interval(values, level=level, resamples=resamples, seed=seed), axis=-1)

    both = _by_columns(ends, differences, mask, outputs=2)
    return both.isel(end=0), both.isel(end=1)


def _by_columns(
    function: Callable[[np.ndarray], np.ndarray], differences: xr.DataArray, mask: xr.DataArray, outputs: int = 0
) -> xr.DataArray:
    """`function` of the counted splits of each column, for all columns at once that count the same splits."""
    others = [dim for dim in differences.dims if dim != "split"]
    values, counts = (a.transpose("split", *others).values for a in (differences, mask))
    shape = values.shape[1:]
    values, counts = values.reshape(len(values), -1), counts.reshape(len(counts), -1)
    found = np.full((values.shape[1], outputs) if outputs else values.shape[1], np.nan)
    for pattern in np.unique(counts, axis=1).T:
        if pattern.any():
            columns = (counts == pattern[:, None]).all(axis=0)
            found[columns] = function(values[pattern][:, columns])
    dims = [*others, "end"] if outputs else others
    return xr.DataArray(
        found.reshape(*shape, *([outputs] if outputs else [])),
        dims=dims,
        coords={name: c for name, c in differences.coords.items() if "split" not in c.dims},
    )
