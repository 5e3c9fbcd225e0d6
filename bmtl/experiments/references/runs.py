"""Reference rows as results trees, on the split that the methods of a comparison are given."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from bmtl.datasets import MultiTaskData
from bmtl.evaluation import results
from bmtl.evaluation.compared import REFERENCE
from bmtl.evaluation.results import PredictedRows
from bmtl.experiments.cells import written_for
from bmtl.experiments.references.base import REFERENCES, Rows, fit, title
from bmtl.experiments.trees import about_data, reported
from bmtl.targets import Prediction
from bmtl.targets.laws import CountMixture, Mixture, distribution

logger = logging.getLogger(__name__)


def names(data: MultiTaskData) -> dict[str, str]:
    """Reference -> what the comparison calls it, of those that the data may have.

    The linear one is called by its model, where that is the same for all targets.
    """
    grouped = bool(data.inputs.groups(data.rows["train"][:1]))
    found = {}
    for name in REFERENCES:
        titles = [title(target.family, name) for target in data.targets.values()]
        there = [each for each in titles if each is not None]
        if len(there) == len(titles) and (grouped or name != "group-means"):
            found[name] = there[0] if len(set(there)) == 1 else name.replace("-", " ")
    return found


def run_references(
    data: MultiTaskData, out: Path, place: str, seed: int, given: Sequence[str] = REFERENCES
) -> dict[str, xr.DataTree]:
    """The results tree of each reference, written to ``<out>/<name>/<place>/results.nc`` unless it is there already.

    Args:
        data: With parts "train" and "test"; scales are fitted on "val" where it is there.
        out: Folder of the comparison.
        place: Folder of the split and seed.
        seed: Of what is drawn.
        given: Which of `REFERENCES`.

    Returns:
        Name -> tree, without the references that some target's family, or the data's kind of input, does not have, and
        those that cannot be fitted, which are warned of.
    """
    found = {}
    called = names(data)
    for name in filter(called.__contains__, given):
        configuration = {"reference": name}
        file = out / called[name] / place / "results.nc"
        if written_for(file, configuration, seed, data):
            found[called[name]] = results.read(file)
            continue
        try:
            with threadpool_limits(1):  # trees of few rows wait for their threads many times longer than they compute
                predictions = _predictions(data, name, seed)
        except Exception as error:  # a row is missing, and nothing else
            logger.warning("The reference %s is left out: %s: %s", called[name], type(error).__name__, error)
            continue
        if predictions is None:
            continue
        tree = results.to_datatree(
            predictions,
            {task: reported(data, task) for task in data.tasks},
            attributes={
                "method": called[name],
                "role": REFERENCE,
                "seed": seed,
                **about_data(data),
                "configuration": configuration,
            },
        )
        results.check_writable(file.parent)
        results.write(tree, file)
        found[called[name]] = tree
    return found


def _predictions(data: MultiTaskData, name: str, seed: int) -> dict[str, dict[str, PredictedRows]] | None:
    """Part -> target -> prediction for its labelled rows; None if the data have no such reference."""
    features = {}
    for part, numbers in data.rows.items():
        x = _groups(data, numbers) if name == "group-means" else data.inputs.summary_features(numbers)
        if x is None and name != "constant":
            return None
        features[part] = np.zeros((len(numbers), 0)) if x is None else x
    parts = [part for part in ("test", "val") if part in data.rows]
    found: dict[str, dict[str, PredictedRows]] = {"validation" if part == "val" else part: {} for part in parts}
    for task, target in data.targets.items():
        rows = {}
        for part in {"train", *parts}:
            there = data.has_label(task, part)
            rows[part] = Rows(features[part][there], target.values[data.rows[part]][there])
        checked = rows["val"] if "val" in rows and len(rows["val"].y) else rows["train"]
        predict = fit(target.family, name, rows["train"], checked, seed)
        if predict is None:
            return None
        for part in parts:
            if len(rows[part].y):
                there = np.flatnonzero(data.has_label(task, part))
                scored = with_labels(predict(rows[part].x), rows[part].y)
                found["validation" if part == "val" else part][task] = PredictedRows(scored, rows[part].y, there)
    return found


def _groups(data: MultiTaskData, rows: np.ndarray) -> np.ndarray:
    """Numbers of the rows' groups ``(B, G)``."""
    return np.stack([*data.inputs.groups(rows).values()], axis=1)


def with_labels(prediction: Prediction, labels: np.ndarray) -> Prediction:
    """A prediction in reported units with the log density of its labels, and their cdf (exact ones of a continuous law).

    A label that is an interval has the log of the interval's probability.
    """
    if prediction.probability is not None:
        density = np.log(prediction.probability[np.arange(len(labels)), labels])
        return replace(prediction, log_likelihood=density[None])
    assert prediction.law is not None
    law = distribution(prediction.law)
    if isinstance(law, Mixture) and labels.ndim == 2:
        return replace(prediction, log_likelihood=log_prob_of_intervals(law, labels)[None])
    numbers = labels.ndim == 1 and not isinstance(law, CountMixture)
    pit = np.asarray(law.cdf(labels)) if numbers else None
    return replace(prediction, log_likelihood=np.asarray(law.log_prob(labels))[None], pit=pit)


def log_prob_of_intervals(law: Mixture, labels: np.ndarray) -> np.ndarray:
    """Log density of exact labels and log probability of intervals ``(N,)``, for ends ``(N, 2)``; one end may be open."""
    lower, upper = labels.T
    exact = lower == upper

    def at(of: Callable[[np.ndarray], np.ndarray], ends: np.ndarray, bottom: float, top: float) -> np.ndarray:
        values = of(np.where(np.isinf(ends), 1.0, ends))
        return np.where(np.isposinf(ends), top, np.where(np.isneginf(ends), bottom, values))

    with np.errstate(divide="ignore"):
        below = at(law.cdf, lower, 0.0, 1.0)
        rising = at(law.cdf, upper, 0.0, 1.0) - below
        falling = at(law.survival, lower, 1.0, 0.0) - at(law.survival, upper, 1.0, 0.0)
        # From whichever tail is nearer, so that no digits cancel.
        probability = np.where(below > 0.5, falling, rising)
        return np.where(exact, law.log_prob(np.where(exact, lower, 1.0)), np.log(probability))
