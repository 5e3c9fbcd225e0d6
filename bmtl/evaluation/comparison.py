"""Comparison of methods: every score by method, split and task, the mean change against a baseline, the cost of a step.

A cell of the grid (method, split) that has no tree is left out of means over splits; a cell whose run diverged stays in,
and makes the mean NaN, so that a method cannot look good by failing.

The dimension of the methods is called ``learner``: in xarray, ``score.sel(method="stl")`` sets how labels are looked up.
"""

import logging
from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bmtl.evaluation.attributes import decode_attributes, encode_attributes
from bmtl.evaluation.compared import METHOD, REFERENCE, counted_scores, of_family
from bmtl.evaluation.constants import ReportedTarget, family_text
from bmtl.evaluation.history import recorded
from bmtl.evaluation.parts import PartReader, reported_targets, scored
from bmtl.evaluation.repeats import UNKNOWN
from bmtl.evaluation.results import provenance
from bmtl.evaluation.scores import computed, primary_names, primary_scores, scores_of
from bmtl.evaluation.tables import best, caption, spread, standard_error, table
from bmtl.targets.family import Family

__all__ = ["best", "caption", "compare", "delta_m", "spread", "standard_error", "table"]

Trees = Mapping[tuple[str, int], xr.DataTree]
log = logging.getLogger(__name__)


def delta_m(metric: ArrayLike, baseline: ArrayLike, *, higher_is_better: ArrayLike = False) -> np.ndarray:
    """Mean signed relative change of a method's metrics against a baseline's, in percent; negative is better.

    Args:
        metric: The method's metrics ``(..., K)``, each in any unit.
        baseline: The baseline's ``(..., K)``, same units, positive.
        higher_is_better: One answer for all metrics, or one for each, ``(K,)``.

    Returns:
        ``(...)`` in percent, as the paper's tables print it (its equation gives the hundredth of that).

    Raises:
        ValueError: If there is no metric, or a baseline is not positive and finite: a relative change has no meaning
            there.

    Source:
        Dai et al. (2023), equation (5).
    """
    values, reference = np.asarray(metric, dtype=float), np.asarray(baseline, dtype=float)
    if not values.ndim or not reference.ndim or values.shape[-1] != reference.shape[-1] or not values.shape[-1]:
        raise ValueError(
            f"metric has shape {values.shape} and baseline {reference.shape}; expected K >= 1 metrics at the end."
        )
    if not (np.isfinite(reference) & (reference > 0)).all():
        raise ValueError(f"The baseline must be positive and finite for a relative change; it is {reference.tolist()}.")
    sign = np.where(higher_is_better, -1.0, 1.0)
    return np.asarray(100 * (sign * (values - reference) / reference).mean(axis=-1))


def compare(
    trees: Trees,
    *,
    baseline: str | None = "stl",
    reference: str | None = "ew",
    step_seconds: Mapping[str, float] | None = None,
    primary: str | Mapping[str, str] | None = None,
    part: str = "test",
) -> xr.Dataset:
    """All scores of a grid of runs.

    Args:
        trees: (method, split) -> results tree; the split is the number of a pair of the data's split and the seed. The grid
            may have holes, the baseline's row included.
        baseline: Method that `delta_m` is taken against, split by split; None leaves ``delta_m`` NaN.
        reference: Method whose step time is 1, split by split; None leaves ``T`` NaN.
        step_seconds: Time of a step by method, measured side by side; methods that are not named have NaN. By default the
            medians of what each run recorded, which are unreliable where runs took turns on a busy machine.
        primary: Primary score in place of the targets' own: one name for every target whose family has
            it, such as "auroc", or scores by target.
        part: Of the runs' rows.

    Returns:
        ``score (learner, split, task, metric)``: the scores of the targets' families, as far as the trees have what
        they are computed from; NaN where a score is not of the target's family, a target has no row, or the score
        cannot be computed of what the tree holds (the attribute ``not_computed`` says why). ``delta_m (learner,
        split)`` in percent, of the primary scores of targets (those alone of which a relative change has a meaning,
        `Score.relative`, and to which the split's labels give a value); ``T (learner, split)``, step time over the
        reference's, medians, NaN for the baseline, which takes a step per task; ``step_seconds (learner, split)``;
        ``present (learner, split)``, whether there was a tree; ``rows (split, task)``; ``defined (split, task,
        metric)``, whether the labels give a score a value (`Score.is_defined`): where not, it is NaN for every
        learner and is left out of means. Coordinate of ``learner``: ``role``, "method", or "reference" of trees whose
        attribute of that name says so; these come last. Coordinates of ``task``: ``unit``, ``family`` (its name),
        ``family_spec`` (JSON), ``primary``; of ``metric``: ``higher_is_better``; of ``split``: ``seed`` and
        ``data_fingerprint``, as the runs recorded them. Targets without a scored row in any tree are left out.
        `write` stores it.

    Raises:
        ValueError: If there is no tree or no scored row, the baseline or the reference is not among the methods, two
            trees of a split were scored on different targets or rows (their scores would not be comparable; names the run),
            or no target has the score `primary`.
    """
    if not trees:
        raise ValueError("There is nothing to compare: no results tree was given.")
    roles = {learner: _role(trees, learner) for learner, _ in trees}
    learners = sorted(roles, key=lambda learner: roles[learner] == REFERENCE)
    splits = sorted({split for _, split in trees})
    _check_roles(learners, baseline=baseline, reference=reference)
    targets = _targets(trees)
    tasks = list(targets)
    families = {name: target.family for name, target in targets.items()}
    primaries = primary_names(targets, primary)
    rows = _scored_rows(trees, splits, tasks, part)
    if not rows.any():
        raise ValueError("There is nothing to compare: none of the runs has a scored row.")
    metrics = {name: score.higher_is_better for name, score in scores_of(families.values()).items()}
    names = list(metrics)
    values = np.full((len(learners), len(splits), len(tasks), len(names)), np.nan)
    defined = np.ones(values.shape[1:], dtype=bool)
    seconds, present = np.full(values.shape[:2], np.nan), np.zeros(values.shape[:2], dtype=bool)
    failures: dict[str, str] = {}
    for (learner, split), tree in trees.items():
        cell = learners.index(learner), splits.index(split)
        present[cell] = True
        seconds[cell] = _step_seconds(tree) if step_seconds is None else step_seconds.get(learner, float("nan"))
        values[cell], on_labels, reasons = _scores(tree, families, names, part)
        defined[cell[1]] &= on_labels
        for what, reason in reasons.items():
            failures[f"{what} of {learner} in {split}"] = reason
            log.warning("%s of %r in split %s cannot be computed: %s", what, learner, split, reason)

    has = np.isfinite(values).any(axis=(0, 1, 2)) | np.isin(names, list(primaries.values()))
    plane = ("learner", "split")
    cells = xr.Dataset(
        {
            "score": ((*plane, "task", "metric"), values),
            "step_seconds": (plane, seconds),
            "present": (plane, present),
            "rows": (("split", "task"), rows),
            "defined": (("split", "task", "metric"), defined),
        },
        coords={
            "task": tasks,
            "unit": ("task", [target.unit for target in targets.values()]),
            "family": ("task", [family.name for family in families.values()]),
            "family_spec": ("task", [family_text(family) for family in families.values()]),
            "primary": ("task", list(primaries.values())),
            "learner": learners,
            "role": ("learner", [roles[learner] for learner in learners]),
            "split": splits,
            "seed": ("split", [_about(trees, split, "seed", UNKNOWN) for split in splits]),
            "data_fingerprint": ("split", [_about(trees, split, "data_fingerprint", "") for split in splits]),
            "metric": names,
            "higher_is_better": ("metric", list(metrics.values())),
        },
    ).isel(metric=np.flatnonzero(has), task=np.flatnonzero(rows.any(axis=0)))  # an unscored target is not compared
    relative = [of_family(families[name], primaries[name]).relative for name in cells["task"].values.tolist()]
    cells["delta_m"] = (plane, _change(cells, baseline, np.asarray(relative)))
    cells["T"] = (plane, _cost(seconds, learners, baseline, reference))
    cells["delta_m"].attrs["units"] = "%"
    about = {**provenance(), "baseline": baseline, "reference": reference, "not_computed": failures}
    return cells.assign_attrs(encode_attributes(about))


def _check_roles(learners: list[str], **roles: str | None) -> None:
    for role, learner in roles.items():
        if learner is not None and learner not in learners:
            raise ValueError(
                f"The {role} {learner!r} is not among the methods {learners}. "
                f"Run it too, choose another, or give {role}=None to leave out what depends on it."
            )


def _targets(trees: Trees) -> dict[str, ReportedTarget]:
    """The targets, which all runs must agree on."""
    found: dict[str, ReportedTarget] = {}
    for (learner, split), tree in trees.items():
        own = reported_targets(tree)
        found = found or own
        mine, others = ({name: target.family for name, target in of.items()} for of in (own, found))
        if mine != others:
            said, expected = ({name: family.name for name, family in of.items()} for of in (mine, others))
            raise ValueError(
                f"{learner!r} in split {split} was scored on the targets {said}, others on {expected}"
                f"{', with other classes' * (said == expected)}. Compare runs on the same targets; a report is of the "
                "folder of one comparison."
            )
    return found


def _scores(
    tree: xr.DataTree, families: Mapping[str, Family], names: list[str], part: str
) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Scores ``(task, metric)`` of a run, which of them the labels give a value, and why some cannot be computed."""
    places = {name: place for place, name in enumerate(families)}
    values = np.full((len(families), len(names)), np.nan)
    defined = np.zeros(values.shape, dtype=bool)
    failures: dict[str, str] = {}
    for task, rows in scored(tree, part).items():
        found, reasons = computed(rows, families[task])
        for name, value in found.items():
            values[places[task], names.index(name)] = value
        failures |= {f"{name} of {task}": reason for name, reason in reasons.items()}
        for score in families[task].scores:
            defined[places[task], names.index(score.name)] = score.is_defined(rows)
    return values, defined, failures


def _role(trees: Trees, learner: str) -> str:
    """What a row of the comparison is: a method, or a reference that methods are read against."""
    first = next(tree for (of, _), tree in trees.items() if of == learner)
    return str(decode_attributes(first).get("role", METHOD))


def _about(trees: Trees, split: int, name: str, unknown: object) -> object:
    """An attribute of a split's runs, of those that recorded it; unknown where none did, or they differ."""
    found = {tree.attrs[name] for (_, of), tree in trees.items() if of == split and name in tree.attrs}
    return found.pop() if len(found) == 1 else unknown


def _step_seconds(tree: xr.DataTree) -> float:
    """Median over steps: the first steps compile and fill caches, and would weigh in a mean. NaN if not recorded."""
    record = recorded(tree, "seconds")
    seconds = np.empty(0) if record is None else record.values[np.isfinite(record.values)]
    return float(np.median(seconds)) if seconds.size else float("nan")


def _change(cells: xr.Dataset, baseline: str | None, relative: np.ndarray) -> np.ndarray:
    """``delta_m (learner, split)`` of the primary scores whose relative change has a meaning and whose labels give one."""
    change = np.full(cells["present"].shape, np.nan)
    if baseline is None:
        return change
    score, higher = primary_scores(cells)
    there = counted_scores(cells).any("learner").transpose("split", "task").values
    for split in range(cells.sizes["split"]):
        counted = there[split] & relative
        values = score.values[:, split, counted]  # (learner, task)
        against = values[cells.indexes["learner"].get_loc(baseline)]
        if counted.any() and (np.isfinite(against) & (against > 0)).all():  # else it is missing or has diverged
            change[:, split] = delta_m(values, against, higher_is_better=higher.values[counted])
    return change


def _cost(seconds: np.ndarray, learners: list[str], baseline: str | None, reference: str | None) -> np.ndarray:
    if reference is None:
        return np.full(seconds.shape, np.nan)
    cost = seconds / seconds[learners.index(reference)]
    if baseline not in (None, reference):
        cost[learners.index(baseline)] = np.nan
    return cost


def _scored_rows(trees: Trees, splits: Iterable[int], tasks: list[str], part: str) -> np.ndarray:
    """Rows ``(split, task)``, after checking that all methods of a split were scored on the same labels."""
    counts = []
    for split in splits:
        readers = {learner: PartReader(tree, part) for (learner, of), tree in trees.items() if of == split}
        first, expected = next(iter(readers.items()))
        for learner, reader in readers.items():
            scored, others = (
                [task for task in of.targets if len(of.labels(task))]  # one without a row was not scored
                for of in (reader, expected)
            )
            if set(scored) != set(others):
                raise ValueError(
                    f"{learner!r} in split {split} was scored on the targets {scored}, {first!r} on {others}."
                )
            for task in scored:
                same = np.array_equal(reader.numbers(task), expected.numbers(task))
                # float32 and float64 labels are the same.
                if not (same and np.allclose(reader.labels(task), expected.labels(task), 1e-5, 0, equal_nan=True)):
                    raise ValueError(
                        f"{learner!r} and {first!r} were scored on different rows of {task!r} in split {split}: "
                        "their scores cannot be compared. Run both on one split."
                    )
        counts.append([len(expected.labels(task)) if task in expected.targets else 0 for task in tasks])
    return np.asarray(counts, dtype=int)
