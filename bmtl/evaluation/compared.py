"""The targets of a comparison: families, scores and groups of targets with the same scores."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from bmtl.evaluation.constants import family_from_text
from bmtl.targets.family import Family
from bmtl.targets.score import Score

METHOD, REFERENCE = "method", "reference"
"""Roles of a comparison's rows: what is compared, and what it is read against."""


@dataclass(frozen=True)
class Alike:
    """Targets of one family with the same primary score.

    Attributes:
        family: The first target's; those of the others differ in names of classes, if at all.
        primary: Their primary score.
        places: Of the targets in the dimension ``task``.
        title: The family's name, with the score's where the family has several groups.
    """

    family: Family
    primary: Score
    places: np.ndarray
    title: str

    def of(self, comparison: xr.Dataset) -> xr.Dataset:
        """The comparison of these targets."""
        return comparison.isel(task=self.places)


def references_of(comparison: xr.Dataset) -> list[str]:
    """The learners that are references, in order."""
    return comparison["learner"].values[comparison["role"].values == REFERENCE].tolist()


def families_of(comparison: xr.Dataset) -> dict[str, Family]:
    """Target -> its family, in the comparison's order."""
    texts = comparison["family_spec"].values.tolist()
    known = {text: family_from_text(text) for text in set(texts)}
    return {name: known[text] for name, text in zip(comparison["task"].values.tolist(), texts, strict=True)}


def alike(comparison: xr.Dataset) -> list[Alike]:
    """The targets in groups of one family and one primary score, in order of appearance."""
    families = families_of(comparison)
    places: dict[tuple[str, str], list[int]] = {}
    first: dict[tuple[str, str], Family] = {}
    for i, (family, primary) in enumerate(zip(families.values(), comparison["primary"].values.tolist(), strict=True)):
        places.setdefault((family.name, primary), []).append(i)
        first.setdefault((family.name, primary), family)
    names = [name for name, _ in places]
    found = []
    for (name, primary), at in places.items():
        family = first[name, primary]
        score = of_family(family, primary)
        title = f"{name}, by {score.symbol}" if names.count(name) > 1 else name
        found.append(Alike(family, score, np.asarray(at), title))
    return found


def by_family(comparison: xr.Dataset) -> dict[str, tuple[Family, np.ndarray]]:
    """Name of a family -> the family of its first target, and the places of its targets."""
    places: dict[str, list[int]] = {}
    first: dict[str, Family] = {}
    for i, family in enumerate(families_of(comparison).values()):
        places.setdefault(family.name, []).append(i)
        first.setdefault(family.name, family)
    return {name: (first[name], np.asarray(at)) for name, at in places.items()}


def counted_scores(comparison: xr.Dataset, metric: str | None = None) -> xr.DataArray:
    """Which entries of a score count, ``(learner, split, task)``: the run is there, and the labels give the score a value.

    Args:
        comparison: From `compare`.
        metric: Which score; that by which each target is judged first by default.
    """
    chosen = xr.DataArray(comparison["primary"].values, dims="task") if metric is None else metric
    defined = comparison["defined"].sel(metric=chosen)
    return comparison["present"] & defined.drop_vars(["metric", "higher_is_better"], errors="ignore")


def of_family(family: Family, name: str) -> Score:
    """A score of a family by its name.

    Raises:
        ValueError: If the family has no such score; says which it has.
    """
    score = family.score(name)
    if score is None:
        known = ", ".join(score.name for score in family.scores)
        raise ValueError(f"A target of the family {family.name!r} has no score {name!r}; its scores are {known}.")
    return score
