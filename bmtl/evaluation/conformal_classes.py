"""Sets of classes with a guarantee: split conformal prediction of classifications, from the scores of validation rows.

If validation and test rows are exchangeable, a set of level P holds the label with probability P at least, whatever the
model: over the draw of both, on average over rows, and not for each input or class. A set may be empty, where no class is
as likely as the labels of validation rows were, and may hold all classes.
"""

import json
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.conformal import by_target, conformal_quantile, row_numbers
from bmtl.evaluation.metrics.by_target import task_coords
from bmtl.evaluation.parts import reported_targets, scored
from bmtl.targets.metrics.probabilities import checked
from bmtl.targets.score import Scored

Method = Literal["lac", "aps"]


def least_ambiguous_scores(probabilities: ArrayLike) -> np.ndarray:
    """Scores ``(N, C)`` whose smallest are the classes of the smallest sets on average: one less the probability.

    Source:
        Sadinle, Lei & Wasserman (2019), Journal of the American Statistical Association 114.
    """
    return 1 - np.asarray(probabilities, dtype=float)


def adaptive_scores(probabilities: ArrayLike, uniform: ArrayLike) -> np.ndarray:
    """Scores ``(N, C)`` whose sets are larger where a row is hard: the probability of what is more probable than a class.

    To it, a share of the class's own probability is added: a uniform one, with which coverage is exact, or all of it.

    Args:
        probabilities: ``(N, C)``.
        uniform: Shares in [0, 1], ``(N,)`` or a number.

    Source:
        Romano, Sesia & Candès (2020), Classification with Valid and Adaptive Coverage, equation 5.
    """
    p = np.asarray(probabilities, dtype=float)
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    above = np.cumsum(ranked, axis=1) - ranked
    scores = np.empty_like(p)
    share = np.broadcast_to(np.asarray(uniform, dtype=float), (len(p),))[:, None]
    np.put_along_axis(scores, order, above + share * ranked, axis=1)
    return scores


def conformal_sets_of_probabilities(
    labels: ArrayLike, probabilities: ArrayLike, new: ArrayLike, level: float, *, method: Method = "lac", seed: int = 0
) -> np.ndarray:
    """Which classes are in the set of each new row.

    Args:
        labels: Of validation rows ``(n,)``, integers from 0 to C - 1.
        probabilities: Of validation rows ``(n, C)``.
        new: Of new rows ``(N, C)``.
        level: In (0, 1).
        method: ``"lac"``, the smallest sets on average, or ``"aps"``, sets that adapt to how hard a row is.
        seed: Of the shares that "aps" draws.

    Returns:
        Booleans ``(N, C)``; all True where there are fewer than ``level / (1 - level)`` validation rows.

    Raises:
        ValueError: If the method is unknown, the shapes or classes do not fit, or as `conformal_quantile`.
    """
    y, p = checked(labels, probabilities)
    after = np.asarray(new, dtype=float)
    if after.ndim != 2 or after.shape[1] != p.shape[1]:
        raise ValueError(f"The new probabilities have shape {after.shape}; expected (N, {p.shape[1]}).")
    if method == "lac":
        before_scores, after_scores = least_ambiguous_scores(p), least_ambiguous_scores(after)
    elif method == "aps":
        random = np.random.default_rng(seed)
        before_scores = adaptive_scores(p, random.uniform(size=len(p)))
        after_scores = adaptive_scores(after, random.uniform(size=len(after)))
    else:
        raise ValueError(f"There is no method {method!r} of conformal sets; expected 'lac' or 'aps'.")
    limit = conformal_quantile(before_scores[np.arange(y.size), y], level)
    return np.asarray(after_scores <= limit)


def conformal_sets(tree: xr.DataTree, *, level: float = 0.9, method: Method = "lac", seed: int = 0) -> xr.Dataset:
    """Conformal sets of classes for the test rows of every target that has classes, fitted on the validation rows.

    Args:
        tree: A run's results tree with validation rows.
        level: In (0, 1).
        method: As `conformal_sets_of_probabilities`.
        seed: Of the shares that "aps" draws; a target's sets do not depend on the others.

    Returns:
        ``set_<target> (obs_<target>, class_<target>)``, booleans, and per target ``coverage (task)``, the share of labels in
        their sets, ``size (task)``, the mean number of classes in a set, and ``empty (task)``, the share of empty sets. NaN
        for targets without classes or a labelled test row, and for those that the attribute ``left_out`` names with the
        reason.

    Raises:
        ValueError: If the method is unknown, there are no validation rows at all, or no target has sets.
    """
    if method not in ("lac", "aps"):
        raise ValueError(f"There is no method {method!r} of conformal sets; expected 'lac' or 'aps'.")

    def sets(known: Scored, rows: Scored) -> np.ndarray:
        before, after = known.prediction.probability, rows.prediction.probability
        if before is None or after is None:
            raise ValueError("the validation rows have no class probabilities")
        return conformal_sets_of_probabilities(known.labels, before, after, level, method=method, seed=seed)

    test = scored(tree)
    concerned = [name for name, rows in test.items() if rows.prediction.has("probability") and len(rows.labels)]
    fitted, left_out = by_target(tree, concerned, sets)
    names = reported_targets(tree)
    columns = {column: dict.fromkeys(test, np.nan) for column in ("coverage", "size", "empty")}
    variables, classes = {}, {}
    for name, inside in fitted.items():
        variables[f"set_{name}"] = ((f"obs_{name}", f"class_{name}"), inside)
        classes[f"class_{name}"] = list(names[name].family.class_names)
        columns["coverage"][name] = float(inside[np.arange(len(inside)), test[name].labels].mean())
        columns["size"][name] = float(inside.sum(axis=1).mean())
        columns["empty"][name] = float((~inside.any(axis=1)).mean())
    scores = {column: ("task", [*values.values()]) for column, values in columns.items()}
    coords = {**task_coords(tree, test), **row_numbers(tree, fitted), **classes}
    found = xr.Dataset({**variables, **scores}, coords=coords)
    return found.assign_attrs(method=method, level=level, left_out=json.dumps(left_out))
