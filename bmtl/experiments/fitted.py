"""Fitted runs: kept in a file of tensors and plain values, and used on new inputs."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor, nn

from bmtl.datasets import MultiTaskData
from bmtl.evaluation import results
from bmtl.evaluation.mixture import StudentTMixture
from bmtl.evaluation.predictive import EmpiricalPredictive
from bmtl.evaluation.storage import atomic
from bmtl.experiments.methods import Built, Kind, Method, Shape, build
from bmtl.experiments.rows import shape_of
from bmtl.inference import Draws, draw
from bmtl.inference.accumulator import entropy
from bmtl.inference.predictives import merge_targets, mixture
from bmtl.targets.scaler import Scaler

if TYPE_CHECKING:
    from bmtl.experiments.runs import Budget

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Fitted:
    """A trained method with the scaling of its data, for predictions in reported units.

    Attributes:
        name: The data set it was trained on.
        method: What was trained.
        kinds: Target -> "regression", or its number of classes.
        units: Regression -> unit.
        classes: Classification -> names of its classes, where they have any.
        parts: Targets and members, each a model and a guide: one part, or one a target where each was trained by itself.
        x_scaler: For inputs ``(N, D)``.
        y_scalers: Regression -> scaler.
        inputs: Width D of the inputs.
        features: Names of its columns, where the data had them.
        draws: Draws of a prediction.
    """

    name: str
    method: Method
    kinds: Mapping[str, Kind]
    units: Mapping[str, str]
    classes: Mapping[str, Sequence[str]]
    parts: Sequence[Sequence[Built]]
    x_scaler: Scaler
    y_scalers: Mapping[str, Scaler]
    inputs: int
    features: Sequence[str]
    draws: int

    def predict(self, x: ArrayLike, *, num_draws: int | None = None, seed: int = 0) -> xr.DataTree:
        """The predictive for new inputs, in reported units.

        Args:
            x: Raw inputs ``(N, D)``, as the data set had them before scaling.
            num_draws: Number of draws; by default as many as the run was scored with.
            seed: Seeds the draws.

        Returns:
            A results tree with ``predictions``, ``predictions_uncertainty`` and ``predictions_summary``: by target ``mean``,
            ``aleatoric_sd``, ``epistemic_sd`` and ``quantile (quantile, row)``, or for a classification ``probability
            (row, class)``, ``entropy`` and ``mutual_information`` in nats.

        Raises:
            ValueError: If `x` is not ``(N, D)`` with finite entries.
        """
        drawn = self._draw(scaled_inputs(x, self.x_scaler, self.inputs), num_draws or self.draws, seed)
        in_units = {
            t: self.y_scalers[t].inverse(p.draws) if t in self.y_scalers else p.draws for t, p in drawn.targets.items()
        }
        square = {t: self.y_scalers[t].std ** 2 if t in self.y_scalers else 1.0 for t in drawn.targets}
        tree = results.to_datatree(
            predictions=in_units,
            predictions_aleatoric={
                t: p.aleatoric * square[t] for t, p in drawn.targets.items() if p.aleatoric is not None
            },
            predictions_epistemic={
                t: p.epistemic * square[t] for t, p in drawn.targets.items() if p.epistemic is not None
            },
            tasks=tuple(drawn.targets),
            method=self.method.name,
            balancer=self.method.balancer,
            seed=seed,
            data_name=self.name,
        )
        tree["predictions_summary"] = xr.DataTree(self._summary(drawn))
        return tree

    def table(self, x: ArrayLike, *, num_draws: int | None = None, seed: int = 0) -> pd.DataFrame:
        """The summary of `predict` with a row for each input and columns such as ``energy mean [kWh]``."""
        summary = self.predict(x, num_draws=num_draws, seed=seed)["predictions_summary"].to_dataset()
        columns: dict[str, np.ndarray] = {}
        for target, kind in self.kinds.items():
            if kind == "regression":
                unit = f" [{self.units[target]}]" if self.units.get(target, "1") not in ("", "1") else ""
                for what in ("mean", "aleatoric_sd", "epistemic_sd"):
                    if f"{target}_{what}" in summary:
                        columns[f"{target} {what.replace('_', ' ')}{unit}"] = summary[f"{target}_{what}"].values
                for level in summary["quantile"].values:
                    columns[f"{target} {100 * level:g} %{unit}"] = (
                        summary[f"{target}_quantile"].sel(quantile=level).values
                    )
            else:
                probability = summary[f"{target}_probability"]
                names = [str(name) for name in probability[f"class_{target}"].values]
                columns[target] = np.array(names)[probability.values.argmax(-1)]
                columns |= {f"{target} p({name})": probability.values[:, i] for i, name in enumerate(names)}
                for what in ("entropy", "mutual_information"):
                    columns[f"{target} {what.replace('_', ' ')} [nats]"] = summary[f"{target}_{what}"].values
        return pd.DataFrame(columns)

    def _draw(self, x: Tensor, num_draws: int, seed: int) -> Draws:
        def of_members(part: Sequence[Built]) -> list[Draws]:
            seeds = [seed * len(part) + i for i in range(len(part))]  # as the run was drawn from
            return [draw(*member, x, num_draws=num_draws, seed=own) for member, own in zip(part, seeds, strict=True)]

        return merge_targets([mixture(of_members(part)) for part in self.parts])

    def _summary(self, drawn: Draws) -> xr.Dataset:
        variables: dict[str, Any] = {}
        coords: dict[str, Any] = {"quantile": list(QUANTILES)}
        for target in self.kinds:
            found = drawn.targets[target]
            p = found.probability
            if p is not None:
                variables[f"{target}_probability"] = (("row", f"class_{target}"), p)
                variables[f"{target}_entropy"] = (("row",), entropy(p))
                variables[f"{target}_mutual_information"] = (("row",), found.epistemic)
                coords[f"class_{target}"] = list(self.classes.get(target, range(p.shape[1])))
                continue
            scaler = self.y_scalers[target]
            variables[f"{target}_mean"] = (("row",), scaler.inverse(found.mean))  # type: ignore[arg-type]
            if found.aleatoric is not None and found.epistemic is not None:
                variables[f"{target}_aleatoric_sd"] = (("row",), np.sqrt(found.aleatoric) * scaler.std)
                variables[f"{target}_epistemic_sd"] = (("row",), np.sqrt(found.epistemic) * scaler.std)
            predictive = (
                StudentTMixture(**found.law.full().parameters)
                if found.law is not None and found.law.name == "student-t"
                else EmpiricalPredictive(found.draws)
            )
            quantiles = predictive.quantile(np.array(QUANTILES)[:, None])
            variables[f"{target}_quantile"] = (("quantile", "row"), scaler.inverse(quantiles))
        return xr.Dataset(variables, coords=coords)


def scaled_inputs(x: ArrayLike, scaler: Scaler, width: int) -> Tensor:
    """Inputs of one's own, as a model sees them.

    Args:
        x: Raw inputs ``(N, D)``, as the data set had them before scaling.
        scaler: Of the data that the model is trained on.
        width: D.

    Raises:
        ValueError: If `x` is not ``(N, D)`` with finite entries.
    """
    try:
        values = np.asarray(x, dtype=float)
    except ValueError as error:
        raise ValueError(f"Inputs are numbers, and these are not: {error}.") from error
    if values.ndim != 2 or values.shape[1] != width or not len(values):
        raise ValueError(f"Inputs have shape {values.shape}; the model was trained on {width} columns: (N, {width}).")
    if not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        raise ValueError(f"Inputs hold {len(rows)} rows with NaN or infinite entries, the first is row {rows[0]}.")
    return torch.as_tensor(scaler.transform(values), dtype=torch.float32)


def check_settings(method: Method) -> None:
    """Raises a ``ValueError`` if a method has an option that is no plain value, which `save` cannot write."""
    try:
        json.dumps(method.settings())
    except TypeError as error:
        raise ValueError(
            f"The options of {method.name!r} cannot be kept in a file: {error}. Give plain values."
        ) from error


def save(
    path: Path, data: MultiTaskData, method: Method, budget: "Budget", states: Sequence[Sequence[dict[str, Any]]]
) -> None:
    """Write the parameters of a run, and what they are parameters of, to a file that loads without pickled classes.

    For models that look up training rows (`MODELS_BY_ROWS`), these are in the file too, scaled.

    Args:
        path: The file.
        data: What was trained on.
        method: What was trained.
        budget: How large.
        states: Parameters of model and guide, by part and member.
    """
    shapes = [
        shape_of(part.labelled(), method)
        for part in ([data.subset([task]) for task in data.tasks] if method.single_task else [data])
    ]
    about = {
        "name": data.name,
        "method": method.settings(),
        "kinds": dict(data.kinds),
        "units": dict(data.units),
        "classes": {task: list(names) for task, names in data.classes.items()},
        "budget": asdict(budget),
        "inputs": data.x.shape[1],
        "features": list(data.features),
        "n_data": [shape.n_data for shape in shapes],
    }
    scalers = {"x": data.x_scaler, **{f"y/{task}": scaler for task, scaler in data.y_scalers.items()}}
    kept = {
        "about": json.dumps(about),
        "states": [list(members) for members in states],
        "support": [shape.support for shape in shapes],
        "scalers": {
            # Copies: a tensor cannot say that it must not be written to.
            name: {"mean": torch.from_numpy(np.array(s.mean)), "std": torch.from_numpy(np.array(s.std)), "clip": s.clip}
            for name, s in scalers.items()
        },
    }
    buffer = io.BytesIO()
    torch.save(kept, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load_fitted(folder: str | Path) -> Fitted:
    """A fitted run, ready to predict.

    Args:
        folder: What ``bmtl train --out`` wrote, with its ``model.pt``.

    Raises:
        FileNotFoundError: If there is no ``model.pt``.
        ValueError: If the file is not one of a run, or is damaged.
    """
    path = Path(folder) / "model.pt"
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}. Give the folder that `bmtl train ... --out` wrote; a comparison keeps no models."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch itself compares no check sums
                raise zipfile.BadZipFile("a check sum is wrong")
        return _rebuilt(torch.load(path, weights_only=True))
    except Exception as error:  # what damaged bytes surface as depends on where the damage is
        raise ValueError(
            f"{path} is not the intact file of a fitted run ({type(error).__name__}: {error}). Train again, or restore it "
            "from a copy."
        ) from error


def _rebuilt(kept: Mapping[str, Any]) -> Fitted:
    """The inverse of `save`."""
    about = json.loads(kept["about"])
    scalers = {name: Scaler(s["mean"].numpy(), s["std"].numpy(), s["clip"]) for name, s in kept["scalers"].items()}
    method = Method(**about["method"])
    kinds = about["kinds"]
    by_part = [{task: kind} for task, kind in kinds.items()] if method.single_task else [kinds]
    parts = []
    for part, n_data, support, states in zip(by_part, about["n_data"], kept["support"], kept["states"], strict=True):
        shape = Shape(about["inputs"], part, n_data, support)
        parts.append([_with_state(*build(method, shape, tuple(about["budget"]["widths"]), 0), s) for s in states])
    return Fitted(
        name=about["name"],
        method=method,
        kinds=kinds,
        units=about["units"],
        classes=about["classes"],
        parts=parts,
        x_scaler=scalers["x"],
        y_scalers={name.removeprefix("y/"): s for name, s in scalers.items() if name != "x"},
        inputs=about["inputs"],
        features=about["features"],
        draws=about["budget"]["draws"],
    )


def _with_state(model: nn.Module, guide: Callable[..., None], state: dict[str, Any]) -> Built:
    together = nn.ModuleDict({"model": model})
    if isinstance(guide, nn.Module):  # else its parameters are the model's
        together["guide"] = guide
    together.load_state_dict(state)
    return model, guide
