"""What a model says of rows without labels: the root's group ``predictions`` and those named after it.

    predictions              y_<t> (chain, draw, row, ...)          draws of y
    predictions_mean         y_<t> (row, ...)                       mean of the predictive
    predictions_probability  y_<t> (row, class_<t>)                 class probabilities
    predictions_uncertainty  total_<t>, aleatoric_<t>, epistemic_<t> (row)   variances, or entropies in nats

Targets that have different numbers of rows have their own dimensions, ``row_<t>``.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from bmtl.evaluation.assembly import DRAWN, storable
from bmtl.evaluation.constants import ReportedTarget
from bmtl.evaluation.groups import UNCERTAINTY, Axes, PredictedRows, drawn_dataset, split_chains

PREDICTIONS = "predictions"


def unlabelled_groups(
    given: Mapping[str, PredictedRows], targets: Mapping[str, ReportedTarget], chains: int = 1
) -> dict[str, xr.Dataset]:
    """The datasets of rows without labels, in reported units; a group for which no target has anything is left out.

    Raises:
        ValueError: If a target is unknown, or a field's shape is another than the draws' number of rows says.
    """
    if unknown := given.keys() - targets.keys():
        raise ValueError(f"{PREDICTIONS!r} has a target {min(unknown)!r}, and targets has {list(targets)}.")
    counts = {name: rows.prediction.rows for name, rows in given.items()}
    common = len(set(counts.values())) == 1
    groups: dict[str, dict[str, xr.Variable]] = {}
    coords: dict[str, dict[str, xr.Variable]] = {}
    for name in (name for name in targets if name in given):
        family, prediction = targets[name].family, given[name].prediction
        row = "row" if common else f"row_{name}"
        if prediction.has("draws"):
            values = storable(f"draws of {name!r}", prediction.draws)
            dims = (*DRAWN, row, *(f"{axis}_{name}" for axis in family.axes()))
            split = split_chains(f"draws of {name!r}", values, chains)
            groups.setdefault(PREDICTIONS, {})[f"y_{name}"] = xr.Variable(dims, split)
        of_rows: list[tuple[str, str, np.ndarray | None, Axes]] = [
            ("mean", "y", prediction.mean, family.axes()),
            ("probability", "y", prediction.probability, {"class": family.class_names or None}),
        ]
        if prediction.aleatoric is not None and prediction.epistemic is not None:
            within, between = (
                family.row_variance(part, targets[name].scaler) for part in (prediction.aleatoric, prediction.epistemic)
            )
            parts = (within + between, within, between)
            of_rows += [("uncertainty", part, of, {}) for part, of in zip(UNCERTAINTY, parts, strict=True)]
        for field, prefix, array, axes in of_rows:
            if array is None:
                continue
            group, values = f"{PREDICTIONS}_{field}", storable(f"{field} of {name!r}", array)
            if values.ndim != 1 + len(axes) or len(values) != counts[name]:
                raise ValueError(
                    f"{PREDICTIONS}: {field} of {name!r} has shape {values.shape}; expected {counts[name]} rows and "
                    f"{len(axes)} further axes."
                )
            groups.setdefault(group, {})[f"{prefix}_{name}"] = xr.Variable(
                (row, *(f"{a}_{name}" for a in axes)), values
            )
            for axis, names in axes.items():
                if names is not None:
                    dim = f"{axis}_{name}"
                    coords.setdefault(group, {})[dim] = xr.Variable(dim, storable(f"names of {axis}", names))
        for group in groups:
            coords.setdefault(group, {})[row] = xr.Variable(row, np.arange(counts[name]))
    return {name: drawn_dataset(name, variables, coords[name]) for name, variables in groups.items()}
