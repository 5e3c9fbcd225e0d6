"""Fitted runs on new inputs: predictions in reported units."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd
import torch
import xarray as xr
from torch import nn

from bmtl import inputs
from bmtl.evaluation import results
from bmtl.evaluation.results import PredictedRows, ReportedTarget
from bmtl.experiments.late_guides import FittedNetwork, LateGuide
from bmtl.experiments.methods import Method
from bmtl.experiments.trees import scaler_of_new
from bmtl.inference import Draws, draw
from bmtl.inference.predictives import merge_targets, mixture
from bmtl.targets import Prediction
from bmtl.targets.summaries import Column, summary

logger = logging.getLogger(__name__)

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Fitted:
    """A trained method with the scaling of its data, for predictions in reported units.

    Attributes:
        name: The data set it was trained on.
        method: The trained method.
        targets: Target -> its family, unit, scaler and baseline.
        inputs: The data's inputs without their rows: turns raw ones into what the model sees.
        parts: Targets and members, each a model and a guide: one part, or one per target where each was trained separately.
        draws: Draws of a prediction.
    """

    name: str
    method: Method
    targets: Mapping[str, ReportedTarget]
    inputs: Any
    parts: Sequence[Sequence[FittedNetwork]]
    draws: int

    @property
    def images(self) -> dict[str, ReportedTarget]:
        """The targets that are images, whose predictions are too large for a table."""
        return {name: of for name, of in self.targets.items() if of.family.of_rows is not of.family}

    def image_predictions(
        self, raw: Any, *, num_draws: int | None = None, seed: int = 0
    ) -> Iterator[dict[str, Prediction]]:
        """The predictive of each new image, one at a time: target -> prediction of ``(1, H, W)`` pixels, in reported units.

        Args:
            raw: Raw inputs, as for `predict`.
            num_draws: As for `predict`.
            seed: As for `predict`; all images see the same draws of the networks.

        Raises:
            ValueError: As `predict`.
        """
        x = self.inputs.prepare(raw, self._dtype)
        for i in range(inputs.count(x)):
            drawn = self._draw(inputs.take(x, slice(i, i + 1)), num_draws or self.draws, seed)
            yield {name: drawn.targets[name].in_units(of.family.of_rows, of.scaler) for name, of in self.images.items()}

    def predict(self, raw: Any, *, num_draws: int | None = None, seed: int = 0) -> xr.DataTree:
        """The predictive for new inputs, in reported units.

        Args:
            raw: Raw inputs, as the data set had them: for a table an array ``(N, D)`` or a pandas DataFrame.
            num_draws: Number of draws; by default as many as the run was scored with.
            seed: Seeds the draws.

        Returns:
            A results tree with ``predictions``, ``predictions_uncertainty`` and ``predictions_summary``: the columns of each
            target's family (mean, standard deviations and quantiles of a real target, probabilities of classes).

        Raises:
            ValueError: If `raw` is not of the kind of the training inputs, or a target is images.
        """
        predictions = self.predictions(raw, num_draws=num_draws, seed=seed)
        about = {"method": self.method.name, "balancer": self.method.balancer, "seed": seed, "data_name": self.name}
        tree = results.to_datatree(
            {"predictions": {name: PredictedRows(prediction) for name, prediction in predictions.items()}},
            self.targets,
            attributes=about,
        )
        columns = {title: ("row", column.values) for title, _, column in self._columns(predictions)}
        tree["predictions_summary"] = xr.DataTree(xr.Dataset(columns))
        return tree

    def table(self, raw: Any, *, num_draws: int | None = None, seed: int = 0) -> pd.DataFrame:
        """The summary of `predict` with a row for each input and columns such as ``energy mean [kWh]``."""
        columns: dict[str, Any] = {}
        predictions = self.predictions(raw, num_draws=num_draws, seed=seed)
        for title, name, column in self._columns(predictions):
            unit = self.targets[name].unit if column.unit == "target" else column.unit
            columns[title if unit in ("", "1") else f"{title} [{unit}]"] = column.values
        return pd.DataFrame(columns)

    def _columns(self, predictions: Mapping[str, Prediction]) -> Iterator[tuple[str, str, Column]]:
        """Title, target and column of a summary; a title that two would share has the target in quotation marks."""
        found = [
            (name, column)
            for name, prediction in predictions.items()
            for column in summary(self.targets[name].family, prediction, QUANTILES)
        ]
        plain = Counter(f"{name} {column.name}".strip() for name, column in found)
        for name, column in found:
            title = f"{name} {column.name}".strip()
            yield (title if plain[title] == 1 else f"{name!r} {column.name}".strip()), name, column

    def predictions(self, raw: Any, *, num_draws: int | None = None, seed: int = 0) -> dict[str, Prediction]:
        """What `predict` puts into a tree: target -> its prediction for each row, in reported units.

        New rows that are unlike all training rows, as far as their kind of input knows, are warned of in the log.
        """
        self._check_small()
        x = self.inputs.prepare(raw, self._dtype)
        unlike = self.inputs.unlike_training(raw)
        if unlike:
            logger.warning(
                "New rows are unlike the training rows; the model has not learnt there. %s", " ".join(unlike)
            )
        drawn = self._draw(x, num_draws or self.draws, seed)
        return {
            name: drawn.targets[name].in_units(target.family, scaler_of_new(target, self.inputs, raw))
            for name, target in self.targets.items()
        }

    def double(self) -> Self:
        """The same with its parameters, and so its predictions, in float64."""
        for part in self.parts:
            for model, guide in part:
                for module in (model, guide):
                    if isinstance(module, nn.Module):
                        module.double()
        return self

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parts[0][0][0].parameters()).dtype

    def _check_small(self) -> None:
        """Refuses targets that fit no table."""
        if self.images:
            raise ValueError(
                f"Predictions of images ({', '.join(self.images)}) fit no table. Write maps to a folder: "
                "bmtl predict RUN --data FOLDER --out FOLDER, or take image_predictions()."
            )

    def _draw(self, x: Any, num_draws: int, seed: int) -> Draws:
        def of_members(part: Sequence[FittedNetwork]) -> list[Draws]:
            seeds = [seed * len(part) + i for i in range(len(part))]  # as the run was drawn from
            return [
                draw(
                    model,
                    guide.on(model, x) if isinstance(guide, LateGuide) else guide,
                    x,
                    num_draws=num_draws,
                    seed=own,
                )
                for (model, guide), own in zip(part, seeds, strict=True)
            ]

        return merge_targets([mixture(of_members(part)) for part in self.parts])
