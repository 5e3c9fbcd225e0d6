"""Targets with their scalers, and the parts that their labels allow."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from bmtl.datasets import checks, splits
from bmtl.targets import Family, LinearBaseline, Target
from bmtl.targets.names import check_name

Scaling = Literal["train", "all", "none"]
"""Rows that scalers are fitted on. ``"all"``: those of every part, test rows included, as for some published tables;
say so where you report it. ``"none"``: inputs and targets stay unchanged."""

MOST_LABELS = 10**9
"""Most entries of all targets together, missing ones included."""


def check_scaling(scaling: str) -> None:
    """Raises a ``ValueError`` unless it is one of `Scaling`."""
    if scaling not in get_args(Scaling):
        raise ValueError(f"Scalers are fitted on {', '.join(map(repr, get_args(Scaling)))}; got {scaling!r}.")


def fitted_rows(rows: Mapping[str, np.ndarray], scaling: Scaling) -> np.ndarray | None:
    """The rows that scalers are fitted on; None for none."""
    check_scaling(scaling)
    if scaling == "none":
        return None
    return np.concatenate(list(rows.values())) if scaling == "all" else rows["train"]


def fitted_target(
    name: str,
    values: np.ndarray,
    family: Family,
    unit: str,
    rows: Mapping[str, np.ndarray],
    scaling: Scaling,
    baseline: LinearBaseline | None = None,
    offset: np.ndarray | None = None,
) -> Target:
    """A target with its scaler.

    Args:
        name: Of the target.
        values: Labels as `Family.check` returned them.
        family: Of the target.
        unit: Reported unit.
        rows: Part -> rows.
        scaling: Rows that the scaler is fitted on.
        baseline: What is known of the labels beforehand.
        offset: The baseline of each label ``(N,)``, in reported units.

    Raises:
        ValueError: If there is no label in the training rows, or the target is of a family that has no baseline.
    """
    if offset is not None and (not family.scaled or values.ndim != 1):
        raise ValueError(f"A baseline is one of real labels (N,), and the target {name!r} is of {family}.")
    if family.missing(values[rows["train"]]).all():
        raise ValueError(f"Target {name!r} has no label in the {len(rows['train'])} training rows. Leave it out.")
    on = fitted_rows(rows, scaling)
    if on is None or not family.scaled:
        return Target(values, family, unit, baseline=baseline, offset=offset)
    try:
        scaler = family.fit_scaler(values[on] if offset is None else values[on] - offset[on])
        return Target(values, family, unit, scaler, baseline, offset)
    except ValueError as error:
        raise ValueError(f"Target {name!r}: {error}") from error


def checked_targets(
    labels: Mapping[str, tuple[np.ndarray, Family]], num_rows: int
) -> dict[str, tuple[np.ndarray, Family]]:
    """Labels as their families check them, by names as files can hold them.

    Raises:
        ValueError: If there is no target, a name or label is wrong, or there are more entries than memory should hold.
    """
    if not labels:
        raise ValueError("The data have no target. Give labels (N,) by the targets' names.")
    if len(labels) * num_rows > MOST_LABELS:
        raise ValueError(
            f"{len(labels):,} targets of {num_rows:,} rows each are {len(labels) * num_rows:,} labels, missing ones "
            f"included; at most {MOST_LABELS:,} are held. Train on fewer tasks at once."
        )
    found: dict[str, tuple[np.ndarray, Family]] = {}
    for given, (values, family) in labels.items():
        name = check_name("target", given)
        if name in found:
            raise ValueError(f"Two targets have the name {name!r} once it is in Unicode NFC. Rename one.")
        found[name] = (family.check(name, values, num_rows), family)
    return found


def parts_of(
    labels: Mapping[str, tuple[np.ndarray, Family]],
    *,
    codes: np.ndarray | None,
    proportion: float | None,
    validation: float,
    validation_from: Literal["train", "test"],
    seed: int,
    groups: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Rows for training, validation and test. A row without a label for any target is in none.

    Args:
        labels: Target -> checked labels and family.
        codes: A fixed split; see `splits.parts`.
        proportion: Of the training rows, validation included, where a split is drawn: of each task and class where a
            row has one label, of all rows otherwise, and of rows in whole groups where there are groups. 0.8 by
            default.
        validation: Proportion of the rows named by `validation_from` that become the part ``"val"``; 0 for none.
        validation_from: ``"test"`` where there are too few training rows to spare any.
        seed: For what is drawn.
        groups: ``(N,)``: rows of one group are in one part.

    Raises:
        ValueError: If no row has a label, or an option is out of range.
    """
    if codes is not None and proportion is not None:
        raise ValueError(
            f"Give either a split or the proportion of one to draw; got both, {proportion} being the latter."
        )
    count = np.zeros(len(next(iter(labels.values()))[0]), dtype=np.int64)
    for values, family in labels.values():
        count += ~family.missing(values)
    return splits.parts(
        np.flatnonzero(count),
        codes=codes,
        proportion=0.8 if proportion is None else proportion,
        validation=validation,
        validation_from=validation_from,
        seed=seed,
        strata=None if (count > 1).any() else _strata(list(labels.values())),
        groups=groups,
    )


def _strata(labels: Sequence[tuple[np.ndarray, Family]]) -> np.ndarray:
    """Task and class of each row, where every row has one label."""
    strata = np.zeros(len(labels[0][0]), dtype=np.int64)
    for number, (values, family) in enumerate(labels):
        own = ~family.missing(values)
        classes = values[own] if values.dtype.kind == "i" else 0
        strata[own] = number + len(labels) * classes
    return strata


def units_of(units: str | Mapping[str, str], families: Mapping[str, Family]) -> dict[str, str]:
    """Target -> unit. One unit alone is that of every target that is scaled or counted, not of classes.

    Raises:
        ValueError: If a mapping names something else than a target.
    """
    if isinstance(units, str):
        return {name: units for name, family in families.items() if not family.class_names}
    found = {unicodedata.normalize("NFC", name).strip(): unit for name, unit in units.items()}
    checks.names_of_targets("units", found, families)
    return found
