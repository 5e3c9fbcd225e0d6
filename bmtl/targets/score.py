"""A score: what is computed of one target's labelled rows, and how it is read."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bmtl.targets.prediction import Prediction
from bmtl.targets.scaler import Scaler
from bmtl.targets.units import Units


@dataclass(frozen=True, eq=False)
class Scored:
    """One target's labelled rows with what a model says of them, in reported units.

    Attributes:
        labels: Checked labels of the rows ``(N, ...)``, none of them missing.
        prediction: Of the same rows.
        family: Of the target.
        scaler: Between reported units and what the model saw; scores that must not depend on units undo it.
    """

    labels: np.ndarray
    prediction: Prediction
    family: Units
    scaler: Scaler


@dataclass(frozen=True)
class Score:
    """A score of a target.

    Attributes:
        name: Its entry in the dimension ``metric``; families share a name where they share the idea.
        symbol: Its name in tables.
        compute: Labelled rows, one at least -> the score.
        needs: Fields of `Prediction` that it takes; "predictive" means a law or, without one, draws.
        higher_is_better: The same for all scores of one name.
        in_units: It has the target's unit.
    """

    name: str
    symbol: str
    compute: Callable[[Scored], float]
    needs: tuple[str, ...] = ()
    higher_is_better: bool = False
    in_units: bool = False
