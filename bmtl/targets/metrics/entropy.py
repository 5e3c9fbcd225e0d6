"""Predictive entropy as an indicator of errors: its ratio between wrong and right predictions, and its ranking."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bmtl.targets.metrics.probabilities import checked, entropy_of_probabilities, predicted_class
from bmtl.targets.metrics.roc import area_under_roc

CELLS = 1000  # groups of rows that the bootstrap draws from, on either side
BLOCK = 100  # resamples at a time: 100 x 2,000 counts


class EntropyRatio(NamedTuple):
    """Mean entropy of wrong over that of right predictions, its interval, and what it was taken from.

    `dropped` resamples had no ratio; `reason` says why the ratio itself is NaN or infinite, else it is empty.
    """

    ratio: float
    low: float
    high: float
    accuracy: float
    dropped: int
    reason: str


def entropy_ratio_of_rows(
    correct: ArrayLike,
    entropy: ArrayLike,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int | np.random.Generator = 0,
) -> EntropyRatio:
    """Mean predictive entropy of wrong predictions over that of right ones, with a percentile bootstrap interval.

    Above one where errors are the less certain. It moves with accuracy, since the errors of a better model are other
    rows: read the two together. It also tends to grow as probabilities are sharpened, over-confidence included, where the
    area under the ROC curve (`error_auroc_of_probabilities`) of two classes stays unchanged. The unit of entropy cancels.

    The bootstrap redraws rows (entropy, correct). Beyond 1,000 wrong or right rows it redraws 1,000 groups of rows of
    nearly equal entropy in their place, each at its mean, which is as good as exact and takes as long for a million rows
    as for two thousand.

    Args:
        correct: Whether a prediction is right ``(N,)``.
        entropy: Of the predictive ``(N,)``, not negative.
        resamples: Of the bootstrap.
        level: Of the interval.
        seed: Of the bootstrap.

    Returns:
        The ratio is NaN without a wrong or without a right prediction, where every entropy is zero or one is NaN, and
        infinite where those of all right predictions are zero; `reason` then says which. Resamples for which it is
        undefined are dropped and counted; without any other, the interval is NaN.

    Raises:
        ValueError: If there is no row, the shapes differ, an entropy is negative, or `resamples` or `level` is out of
            range.

    Source:
        Shen et al. (2021), appendix C.16, which gives the ratio without an interval.
    """
    right, values = _checked(correct, entropy)
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples is {resamples} and level {level}; expected one at least, and a level in (0, 1).")
    wrong, certain = values[~right], values[right]
    ratio, reason = _ratio(wrong, certain)
    low = high = float("nan")
    drawn = np.full(resamples, np.nan) if np.isnan(ratio) else _bootstrap(wrong, certain, resamples, seed)
    defined = drawn[~np.isnan(drawn)]
    if defined.size:
        tails = ((1 - level) / 2, (1 + level) / 2)
        low, high = (float(q) for q in np.quantile(defined, tails, method="inverted_cdf"))  # no sum with infinities
    return EntropyRatio(ratio, low, high, float(right.mean()), resamples - defined.size, reason)


def rows_at_accuracy(correct: ArrayLike, accuracy: float, *, seed: int | np.random.Generator = 0) -> np.ndarray:
    """Row numbers of the largest random subsample with (nearly) the given accuracy, ascending.

    Right rows are dropped at random if there are too many, else wrong ones. For scores that move with the share of
    errors, such as `aurc_of_rows`. Means over the wrong and over the right rows, such as the entropy ratio, keep their
    expectation: for them it makes the amount of evidence equal between methods, and with it the interval.

    Args:
        correct: Whether a prediction is right ``(N,)``, with both kinds among them.
        accuracy: To be reached, in (0, 1).
        seed: Of the choice.

    Returns:
        ``(M,)``, a right and a wrong row at least.

    Raises:
        ValueError: If `accuracy` is not inside (0, 1), or all rows are right, or all are wrong.
    """
    right = np.asarray(correct, dtype=bool)
    hits, misses = np.flatnonzero(right), np.flatnonzero(~right)
    if not 0 < accuracy < 1:
        raise ValueError(f"accuracy is {accuracy}; expected a share inside (0, 1).")
    if not hits.size or not misses.size:
        raise ValueError(
            f"{hits.size} of {right.size} predictions are right; no subsample has the accuracy {accuracy}. "
            "It takes right and wrong ones."
        )
    random = np.random.default_rng(seed)
    if hits.size / right.size > accuracy:
        hits = random.choice(hits, max(1, round(misses.size * accuracy / (1 - accuracy))), replace=False)
    else:
        misses = random.choice(misses, max(1, round(hits.size * (1 - accuracy) / accuracy)), replace=False)
    return np.sort(np.concatenate([hits, misses]))


def error_auroc_of_probabilities(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """P(entropy of a wrong prediction > that of a right one), a tie counting one half; 0.5 is no better than chance.

    Args:
        labels: ``(N,)``, integers from 0 to C - 1.
        probabilities: ``(N, C)``, C at least 2.

    Returns:
        NaN without a wrong or without a right prediction, and where a probability is NaN.

    Raises:
        ValueError: If there is no row, a label is outside the classes, or a row of probabilities does not sum to one.
    """
    y, p = checked(labels, probabilities)
    return area_under_roc(predicted_class(p) != y, entropy_of_probabilities(p))


def _checked(correct: ArrayLike, entropy: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    right, values = np.asarray(correct), np.asarray(entropy, dtype=float)
    if right.shape != values.shape or values.ndim != 1 or not values.size:
        raise ValueError(
            f"correct has shape {right.shape} and entropy {values.shape}; expected the same (N,), N at least 1."
        )
    if not np.isin(right, (0, 1)).all():
        raise ValueError("correct holds something else than 0 and 1; expected whether each prediction is right.")
    if (values < -1e-6).any() or np.isinf(values).any():
        raise ValueError(
            f"entropy ranges from {np.nanmin(values):.4g} to {np.nanmax(values):.4g}; that of classes is finite and not "
            "negative."
        )
    return right.astype(bool), values.clip(min=0)  # a sum of rounded terms may end a little below zero


def _ratio(wrong: np.ndarray, right: np.ndarray) -> tuple[float, str]:
    """The ratio of the mean entropies, and why it is not a number; that is empty where it is one."""
    if np.isnan(wrong).any() or np.isnan(right).any():
        return float("nan"), "an entropy is NaN"
    if not wrong.size or not right.size:
        return float("nan"), f"no {'right' if wrong.size else 'wrong'} prediction among {wrong.size + right.size} rows"
    if not right.any():
        if wrong.any():
            return float("inf"), "every right prediction has entropy zero"
        return float("nan"), "every entropy is zero"
    return float(wrong.mean() / right.mean()), ""


def _bootstrap(wrong: np.ndarray, right: np.ndarray, resamples: int, seed: int | np.random.Generator) -> np.ndarray:
    """Ratios ``(resamples,)``, NaN where a resample has none."""
    random = np.random.default_rng(seed)
    (wrong_means, wrong_sizes), (right_means, right_sizes) = _cells(wrong), _cells(right)
    sizes = np.concatenate([wrong_sizes, right_sizes])
    rows, ratios = sizes.sum(), []
    for start in range(0, resamples, BLOCK):
        counts = random.multinomial(rows, sizes / rows, size=min(BLOCK, resamples - start))  # (block, cells)
        of_wrong, of_right = np.split(counts, [wrong_sizes.size], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 is the NaN, x/0 the infinity that is requested
            above = of_wrong @ wrong_means / of_wrong.sum(axis=1)
            ratios.append(above / (of_right @ right_means / of_right.sum(axis=1)))
    return np.concatenate(ratios)


def _cells(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and number of rows of at most `CELLS` groups of neighbours in order; every row by itself if there are few."""
    ordered = np.sort(values)
    groups = min(CELLS, ordered.size)
    starts = np.arange(groups) * ordered.size // groups
    sizes = np.diff(starts, append=ordered.size)
    return np.add.reduceat(ordered, starts) / sizes, sizes
