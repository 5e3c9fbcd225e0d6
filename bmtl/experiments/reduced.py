"""Predictions that are too large to keep: drawn a few rows at a time, scored, and sampled.

A target whose family has a reducer (images) is drawn in chunks of rows. What is kept of a chunk are sums from which scores
of all its entries follow, a sample of entries, and a few whole images to be looked at: memory grows with none of rows,
pixels and draws. Global latents depend on the seed alone, so that the draws of every chunk are of the same networks.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmtl.datasets import MultiTaskData
from bmtl.evaluation.images import PredictedImages
from bmtl.evaluation.results import PredictedRows
from bmtl.inference import Draws
from bmtl.inference.predictives import concatenated
from bmtl.targets import Target

Drawer = Callable[[Any, Mapping[str, Tensor] | None], Draws]
"""Draws for inputs and labels of some rows."""

ENTRIES = 1 << 22
"""Numbers of the largest array of a chunk: draws, rows, and entries of a row."""
SHOWN = 3
"""Whole images of a part that are kept."""


@dataclass(frozen=True, eq=False)
class Reduced:
    """The reduced predictions of one target for a part, in reported units, as a results tree takes them.

    Attributes:
        rows: A sample of entries with their labels, scores of all of them, and a few images.
    """

    rows: PredictedRows


def is_reduced(target: Target) -> bool:
    """Whether predictions of a target are too large to keep."""
    return target.family.reducer(target.scaler) is not None


def rows_at_once(data: MultiTaskData, draws: int) -> int:
    """How many rows are drawn at a time: an entry of a label has a number, or one for each class, in every draw."""
    largest = max(of.values[0].size * max(1, len(of.family.class_names)) for of in data.targets.values())
    return max(1, ENTRIES // (largest * draws))


def draw_reduced(
    data: MultiTaskData, part: str, draw: Drawer, num_draws: int, seed: int, dtype: torch.dtype = torch.float32
) -> tuple[Draws, dict[str, Reduced]]:
    """Draws for a part, a chunk of rows at a time.

    Args:
        data: With images among its targets.
        part: Of the data.
        draw: Draws for some rows, with the same global latents whatever the rows.
        num_draws: How many are drawn.
        seed: Of the sample; the same for every method of a comparison.
        dtype: Of inputs and labels.

    Returns:
        Draws of the targets that are kept whole, with the posterior; and the others, reduced.
    """
    numbers = data.rows[part]
    reducers = {}
    for name, target in data.targets.items():
        reducer = target.family.reducer(target.scaler)
        if reducer is not None:
            reducers[name] = reducer
    shown = np.unique(np.linspace(0, len(numbers) - 1, min(SHOWN, len(numbers))).round().astype(int))
    images: dict[str, PredictedImages] = {}
    whole: list[Draws] = []
    for places in chunks(len(numbers), rows_at_once(data, num_draws)):
        drawn = draw(*data.tensors(part, dtype, places=places))
        rows = np.arange(places.start, places.stop)
        for name, reducer in reducers.items():
            target = data.targets[name]
            labels, of_row = target.values[numbers[rows]], target.family.of_rows
            found = drawn.targets[name].in_units(of_row, target.scaler, labels)
            reducer.update(labels, found, rows)
            there = np.flatnonzero(np.isin(rows, shown))
            if len(there):
                pictures = data.inputs.pictures(numbers[rows[there]])
                kept = PredictedImages.of(
                    rows[there], pictures, labels[there], found.take(there), of_row, target.scaler
                )
                images[name] = images[name].joined(kept) if name in images else kept
        whole.append(drawn.without(reducers))
    reduced = {}
    for name, reducer in reducers.items():
        if not reducer.scores():
            continue  # no label in this part
        sample = reducer.subsample()
        reduced[name] = Reduced(
            PredictedRows(sample.prediction, sample.labels, reducer.numbers, reducer.scores(), images[name])
        )
    return concatenated(whole), reduced


def chunks(rows: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` rows."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
