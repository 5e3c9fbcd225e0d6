"""A prediction in columns, one number or name per row: what `bmtl predict` writes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bmtl.targets.family import Family
from bmtl.targets.prediction import Prediction, predictive


class Column(NamedTuple):
    """A column of a table of predictions.

    Attributes:
        name: What it is, such as "mean"; empty for the prediction itself.
        values: ``(N,)``.
        unit: "target" if it has the target's unit, "nats", or empty.
    """

    name: str
    values: np.ndarray
    unit: str = ""


def summary(family: Family, prediction: Prediction, levels: Sequence[float]) -> list[Column]:
    """The columns of a target's prediction.

    Classes: the most probable one, the probability of each, entropy and mutual information. Numbers: mean, aleatoric and
    epistemic standard deviation, and quantiles; of vectors, each component's.

    Args:
        family: Of the target.
        prediction: In reported units.
        levels: Of the quantiles, in (0, 1).
    """
    if prediction.probability is not None:
        return list(_of_classes(family, prediction, prediction.probability))
    axes = list(family.axes().values())
    if not axes:
        return list(_of_numbers("", prediction, levels))
    entries = axes[0] or tuple(map(str, range(prediction.draws.shape[-1])))
    return [
        column for k, entry in enumerate(entries) for column in _of_numbers(f"{entry} ", _entry(prediction, k), levels)
    ]


def _of_classes(family: Family, prediction: Prediction, probability: np.ndarray) -> Iterator[Column]:
    names = np.array(family.class_names)
    yield Column("", names[probability.argmax(axis=-1)])
    for name, values in zip(names, probability.T, strict=True):
        yield Column(f"p({name})", values)
    safe = np.where(probability > 0, probability, 1.0)
    yield Column("entropy", -(probability * np.log(safe)).sum(axis=-1), "nats")
    if prediction.epistemic is not None:
        yield Column("mutual information", prediction.epistemic, "nats")


def _of_numbers(prefix: str, prediction: Prediction, levels: Sequence[float]) -> Iterator[Column]:
    if prediction.mean is not None:
        yield Column(f"{prefix}mean", prediction.mean, "target")
    for name in ("aleatoric", "epistemic"):
        variance = getattr(prediction, name)
        if variance is not None:
            yield Column(f"{prefix}{name} sd", np.sqrt(variance), "target")
    quantiles = predictive(prediction).quantile(np.asarray(levels)[:, None])
    for level, values in zip(levels, quantiles, strict=True):
        yield Column(f"{prefix}{100 * level:g} %", values, "target")


def _entry(prediction: Prediction, k: int) -> Prediction:
    """The prediction of one component of a vector, its quantiles from draws."""

    def of(values: np.ndarray | None) -> np.ndarray | None:
        return values[:, k] if values is not None and values.ndim == 2 else None

    return Prediction(
        draws=prediction.draws[:, :, k],
        mean=of(prediction.mean),
        aleatoric=of(prediction.aleatoric),
        epistemic=of(prediction.epistemic),
    )
