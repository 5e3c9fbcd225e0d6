"""Descriptions of the targets of a results tree: the group ``constant_data``.

family           (target)   the family as JSON, which `family_from_spec` takes
unit             (target)   the reported unit, "1" for none
primary          (target)   name of the target's primary score
target_location  (target)   what scaling subtracted, in reported units, besides a baseline; NaN where it differs by entry
target_scale     (target)   what scaling divided by; 1 for targets that were not scaled
target_location_<t>, target_scale_<t> (entry_<t>)   the same of a vector's entries
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import xarray as xr

from bmtl.evaluation.assembly import dataset, storable
from bmtl.targets.baseline import LinearBaseline
from bmtl.targets.family import Family, Target, family_from_spec
from bmtl.targets.scaler import Scaler
from bmtl.targets.score import Score


@dataclass(frozen=True, eq=False)
class ReportedTarget:
    """Description of a target, without its labels.

    Attributes:
        family: What its labels are.
        unit: Reported unit, such as ``"meV"``; ``"1"`` for none.
        scaler: Between reported units and what the model saw.
        primary: Name of its primary score; by default the family's first.
        baseline: What was subtracted of each label before it was scaled; trees do not hold it.
    """

    family: Family
    unit: str = "1"
    scaler: Scaler = field(default_factory=Scaler.identity)
    primary: str = ""
    baseline: LinearBaseline | None = None

    def __post_init__(self) -> None:
        scores = self.family.scores
        if not self.primary and scores:
            object.__setattr__(self, "primary", scores[0].name)
        elif self.primary and self.primary not in [score.name for score in scores]:
            raise ValueError(
                f"A target of the family {self.family.name!r} has no score {self.primary!r}; "
                f"its scores are {', '.join(score.name for score in scores)}."
            )

    @classmethod
    def of(cls, target: Target, training: np.ndarray) -> Self:
        """Description of a target of the data.

        Args:
            target: Of the data set.
            training: Numbers of the training rows, whose labels decide which score is the primary one.
        """
        labels = target.values[training]
        primary = target.family.primary(labels[~target.family.missing(labels)])
        return cls(target.family.of_rows, target.unit, target.scaler, primary, target.baseline)

    @property
    def primary_score(self) -> Score:
        """The target's primary score."""
        return next(score for score in self.family.scores if score.name == self.primary)


def constant_data(targets: Mapping[str, ReportedTarget]) -> xr.Dataset:
    """The group ``constant_data`` of these targets."""
    every = list(targets.values())
    variables = {
        "family": ("target", np.asarray([family_text(target.family) for target in every], dtype=str)),
        "unit": ("target", storable("units", [target.unit for target in every])),
        "primary": ("target", np.asarray([target.primary for target in every], dtype=str)),
        "target_location": ("target", np.asarray([_scalar(target.scaler.mean) for target in every])),
        "target_scale": ("target", np.asarray([_scalar(target.scaler.std) for target in every])),
    }
    found = {name: xr.Variable(*given) for name, given in variables.items()}
    for name, target in targets.items():
        if target.scaler.mean.ndim:
            found[f"target_location_{name}"] = xr.Variable(f"entry_{name}", target.scaler.mean)
            found[f"target_scale_{name}"] = xr.Variable(f"entry_{name}", target.scaler.std)
    return dataset(found, {"target": xr.Variable("target", np.asarray(list(targets), dtype=str))})


def targets_from(constants: xr.Dataset) -> dict[str, ReportedTarget]:
    """The inverse of `constant_data`, in the order in which targets were given.

    Raises:
        ValueError: If a family is unknown here.
    """
    given = constants.variables
    columns = [given[name].values.tolist() for name in ("target", "family", "unit", "primary")]
    location, scale = given["target_location"].values, given["target_scale"].values
    families: dict[str, Family] = {}
    found = {}
    for i, (name, text, unit, primary) in enumerate(zip(*columns, strict=True)):
        if text not in families:
            families[text] = family_from_text(text)
        vector = f"target_location_{name}" in given
        mean = given[f"target_location_{name}"].values if vector else location[i]
        std = given[f"target_scale_{name}"].values if vector else scale[i]
        found[name] = ReportedTarget(families[text], unit, Scaler(mean, std), primary)
    return found


def family_text(family: Family) -> str:
    """The family as JSON; `family_from_text` is the inverse."""
    return json.dumps(family.spec())


def family_from_text(text: str) -> Family:
    """The family that `family_text` wrote.

    Raises:
        ValueError: If it is none, or of a family that is unknown here.
    """
    return family_from_spec(json.loads(text))


def _scalar(values: np.ndarray) -> float:
    return float(values) if not values.ndim else float("nan")
