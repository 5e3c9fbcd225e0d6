"""What a comparison's targets are: families, scores and groups of targets that are judged alike."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bmtl.evaluation.constants import family_from_text
from bmtl.targets.family import Family
from bmtl.targets.score import Score


@dataclass(frozen=True)
class Alike:
    """Targets of one family that are judged by one score.

    Attributes:
        family: The first target's; those of the others differ in names of classes, if at all.
        primary: The score that they are judged by first.
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
    for i, (family, primary) in enumerate(
        zip(families.values(), comparison["primary"].values.tolist(), strict=True)
    ):
        places.setdefault((family.name, primary), []).append(i)
        first.setdefault((family.name, primary), family)
    names = [name for name, _ in places]
    found = []
    for (name, primary), at in places.items():
        family = first[name, primary]
        score = score_of(family, primary)
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


def score_of(family: Family, name: str) -> Score:
    """A score of a family by its name.

    Raises:
        ValueError: If the family has no such score; says which it has.
    """
    for score in family.scores:
        if score.name == name:
            return score
    raise ValueError(
        f"A target of the family {family.name!r} has no score {name!r}; its scores are "
        f"{', '.join(score.name for score in family.scores)}."
    )


def chosen_primaries(
    families: Mapping[str, Family], by_default: Mapping[str, str], chosen: str | Mapping[str, str] | None
) -> dict[str, str]:
    """Target -> the name of the score that it is judged by first.

    Args:
        families: Of the targets.
        by_default: What each run says of its targets.
        chosen: A score for every target whose family has it, or scores by target; None for none.

    Raises:
        ValueError: If no target has the score, a named one has not, or a named target is not there.
    """
    if chosen is None:
        return dict(by_default)
    if isinstance(chosen, str):
        having = [name for name, family in families.items() if chosen in [score.name for score in family.scores]]
        if not having:
            known = list(dict.fromkeys(score.name for family in families.values() for score in family.scores))
            raise ValueError(f"No target has a score {chosen!r}; the scores of these targets are {', '.join(known)}.")
        return {**by_default, **dict.fromkeys(having, chosen)}
    for name, score in chosen.items():
        if name not in families:
            raise ValueError(f"There is no target {name!r} to be judged by {score!r}; the targets are {list(families)}.")
        score_of(families[name], score)
    return {**by_default, **chosen}


def primary_scores(comparison: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """The primary score of each target ``(learner, split, task)``, and whether more of it is better ``(task)``."""
    names = xr.DataArray(comparison["primary"].values, dims="task")
    picked = comparison["score"].sel(metric=names)
    return picked.drop_vars(["metric", "higher_is_better"]), picked["higher_is_better"].drop_vars("metric")
