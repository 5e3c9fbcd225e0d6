"""Which scores a comparison holds: those that its targets' families define, by name."""

from collections.abc import Iterable, Mapping

import xarray as xr

from bmtl.evaluation.constants import ReportedTarget
from bmtl.targets.family import FAMILIES, Family
from bmtl.targets.score import Score, Scored


def scores_of(families: Iterable[Family]) -> dict[str, Score]:
    """The scores of some families by name, in the families' order; of a shared name the first family's.

    Symbol, direction and idea are the same for all scores of one name.
    """
    found: dict[str, Score] = {}
    for family in families:
        for score in family.scores:
            found.setdefault(score.name, score)
    return found


def known_score(name: str) -> Score:
    """A score by its name, whichever family has it: for its symbol and direction.

    Raises:
        ValueError: If no family has such a score.
    """
    for family in FAMILIES.values():
        score = family().score(name)
        if score is not None:
            return score
    raise ValueError(f"No family of targets has a score {name!r}.")


def computed(rows: Scored, family: Family) -> tuple[dict[str, float], dict[str, str]]:
    """Every score of a target's labelled rows for which the prediction holds what it needs, by name; none without a row.

    Returns:
        The scores, and why those that are NaN for it cannot be computed of what the prediction holds.
    """
    found: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for score in family.scores:
        if score.computable(rows):
            try:
                found[score.name] = score.of(rows)
            except ValueError as error:
                found[score.name], reasons[score.name] = float("nan"), str(error)
    return found, reasons


def primary_names(
    targets: Mapping[str, ReportedTarget], given: str | Mapping[str, str] | None = None
) -> dict[str, str]:
    """The name of each target's primary score.

    Args:
        targets: The run's targets.
        given: A score that goes before for every target whose family has it, as ``--primary auroc`` says, or scores by
            target.

    Raises:
        ValueError: If no target has the given score, a target has not the one given for it, or there is no such target;
            says which there are.
    """
    own = {name: target.primary for name, target in targets.items()}
    having = {name: [score.name for score in target.family.scores] for name, target in targets.items()}
    if given is None:
        return own
    if isinstance(given, str):
        if not any(given in names for names in having.values()):
            known = ", ".join(dict.fromkeys(name for names in having.values() for name in names))
            raise ValueError(f"None of the targets has a score {given!r}; their scores are {known}.")
        return {name: given if given in having[name] else primary for name, primary in own.items()}
    for name, score in given.items():
        if name not in targets:
            raise ValueError(f"There is no target {name!r} to be judged by {score!r}; the targets are {list(targets)}.")
        if score not in having[name]:
            raise ValueError(f"The target {name!r} has no score {score!r}; its scores are {', '.join(having[name])}.")
    return {**own, **given}


def primary_scores(comparison: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """The primary score of each target of a comparison ``(learner, split, task)``, and whether more is better ``(task)``.

    Args:
        comparison: With ``score (learner, split, task, metric)`` and the coordinates ``primary (task)``, which names a
            metric, and ``higher_is_better (metric)``.
    """
    names = xr.DataArray(comparison["primary"].values, dims="task")
    picked = comparison["score"].sel(metric=names)
    return picked.drop_vars(["metric", "higher_is_better"]), picked["higher_is_better"].drop_vars("metric")
