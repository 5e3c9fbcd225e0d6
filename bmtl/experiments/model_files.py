"""``model.pt``: the parameters of a run and what they are parameters of, in tensors and plain values."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyro.infer.autoguide import AutoGuide
from torch import nn

from bmtl.datasets import MultiTaskData, inputs_from_state, inputs_state
from bmtl.evaluation.results import ReportedTarget
from bmtl.evaluation.storage import atomic
from bmtl.experiments import importing
from bmtl.experiments.budgets import Budget
from bmtl.experiments.fitted import Fitted
from bmtl.experiments.late_guides import FittedNetwork, LateGuide
from bmtl.experiments.methods import Method, build
from bmtl.experiments.numerics import DTYPES
from bmtl.experiments.rows import keeps_support, spec_of
from bmtl.experiments.trees import reported
from bmtl.inputs import PerTask
from bmtl.models.spec import DataSpec
from bmtl.targets import LinearBaseline, Scaler, family_from_spec

SCHEMA = 6
"""Number of the layout of ``model.pt``; files of another number are refused."""


def check_settings(method: Method) -> None:
    """Raises a ``ValueError`` if a method has an option that is not a plain value, which `save` cannot write."""
    try:
        json.dumps(method.settings())
    except TypeError as error:
        raise ValueError(
            f"The options of {method.name!r} cannot be kept in a file: {error}. Give plain values."
        ) from error


def save(
    path: Path, data: MultiTaskData, method: Method, budget: Budget, states: Sequence[Sequence[dict[str, Any]]]
) -> None:
    """Writes the parameters of a run, and what they are parameters of, to a file that loads without pickled classes.

    For models that look up training rows (`keeps_support`), these are in the file too, scaled.

    Args:
        path: The file.
        data: What was trained on.
        method: The trained method.
        budget: How large.
        states: Parameters of model and guide, by part and member.
    """
    specs = [
        spec_of(part.labelled(), method, DTYPES[budget.precision])
        for part in ([data.subset([task]) for task in data.tasks] if method.single_task else [data])
    ]
    about = {
        "schema": SCHEMA,
        "name": data.name,
        "method": method.settings(),
        "budget": asdict(budget),
        "targets": {
            name: {
                "family": t.family.spec(),
                "unit": t.unit,
                "primary": reported(data, name).primary,
                "baseline": None if t.baseline is None else t.baseline.spec(),
            }
            for name, t in data.targets.items()
        },
        "n_data": [spec.n_data for spec in specs],
    }
    kept = {
        "about": json.dumps(about),
        "states": [list(members) for members in states],
        "inputs": inputs_state(data.inputs),
        "support": [_plain(spec.support if keeps_support(method) else None) for spec in specs],
        "scalers": {
            # Copies: a tensor cannot say that it must not be written to.
            name: {"mean": torch.from_numpy(np.array(s.mean)), "std": torch.from_numpy(np.array(s.std))}
            for name, s in ((name, target.scaler) for name, target in data.targets.items())
        },
    }
    buffer = io.BytesIO()
    torch.save(kept, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def load_fitted(folder: str | Path, *, allow_code: bool = False) -> Fitted:
    """A fitted run, ready to predict.

    The file itself runs no code. A model, trunk or kind of input that is bmtl's own or that an installed package announces
    as an entry point is loaded by its name; one that was given by an import path needs `allow_code`, and source code that
    has not changed since.

    Args:
        folder: What ``bmtl train --out`` wrote, with its ``model.pt``.
        allow_code: Import the modules and files that the run names, which executes them.

    Raises:
        FileNotFoundError: If there is no ``model.pt``.
        ValueError: If the file is not one of a run, is damaged, or was written by another version; if it names code and
            `allow_code` is false, or that code has changed.
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
        kept = torch.load(path, weights_only=True)
        about = json.loads(kept["about"])
    except Exception as error:  # what damaged bytes surface as depends on where the damage is
        raise ValueError(
            f"{path} is not the intact file of a fitted run ({type(error).__name__}: {error}). Train again, or restore it "
            "from a copy."
        ) from error
    if about.get("schema") != SCHEMA:
        raise ValueError(
            f"{path} has the layout {about.get('schema', 1)}, and this version of bmtl reads layout {SCHEMA}. Train again."
        )
    _check_structure(path, kept, about)
    _check_code(path, about, allow_code)
    try:
        return _rebuilt(kept, about)
    except (KeyError, AttributeError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{path} is not the intact file of a fitted run: it does not fit the model that it names "
            f"({type(error).__name__}: {error}). Train again."
        ) from error


def _check_structure(path: Path, kept: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Refuses a file that lacks an entry, or whose entries differ in length."""
    lacking = [name for name in ("states", "inputs", "support", "scalers") if name not in kept]
    lacking += [name for name in ("name", "method", "budget", "targets", "n_data") if name not in about]
    if not lacking:
        lacking = [f"the scaler of {name!r}" for name in about["targets"] if name not in kept["scalers"]]
    parts = 0 if lacking else len(about["n_data"])
    if lacking or {len(kept["states"]), len(kept["support"])} != {parts}:
        what = f"it lacks {', '.join(lacking)}" if lacking else "its networks are not those of its targets"
        raise ValueError(
            f"{path} is not the intact file of a fitted run: {what}. Train again, or restore it from a copy."
        )


def _check_code(path: Path, about: Mapping[str, Any], allow_code: bool) -> None:
    """Refuses code that the file names and that nobody has allowed, or that has changed."""
    digests: dict[str, str] = about["method"].get("code", {})
    named = {name: digest for name, digest in digests.items() if importing.is_path(name)}
    if named and not allow_code:
        raise ValueError(
            f"{path} names code that would be executed: {', '.join(named)}. If you trust it, pass --allow-code (allow_code="
            "True)."
        )
    for name, digest in named.items():
        found = importing.load(name)
        if digest and found.digest != digest:
            raise ValueError(f"{name} has changed since {path} was written. Train again, or restore the file.")


def _rebuilt(kept: Mapping[str, Any], about: Mapping[str, Any]) -> Fitted:
    """The inverse of `save`."""
    method = Method(**{name: value for name, value in about["method"].items() if name != "code"})
    families = {name: family_from_spec(target["family"]) for name, target in about["targets"].items()}
    inputs = inputs_from_state(kept["inputs"])
    by_part = [{name: family} for name, family in families.items()] if method.single_task else [families]
    parts = []
    for part, n_data, support, states in zip(by_part, about["n_data"], kept["support"], kept["states"], strict=True):
        others = {name: family for name, family in families.items() if name not in part}
        spec = DataSpec(targets=part, n_data=n_data, inputs=inputs.describe(), support=_rows(support), others=others)
        widths, dtype = tuple(about["budget"]["widths"]), DTYPES[about["budget"]["precision"]]
        parts.append([_with_state(*build(method, spec, widths, 0), s, dtype) for s in states])
    targets = {
        name: ReportedTarget(
            families[name],
            about["targets"][name]["unit"],
            Scaler(kept["scalers"][name]["mean"].numpy(), kept["scalers"][name]["std"].numpy()),
            about["targets"][name]["primary"],
            _baseline(about["targets"][name]["baseline"]),
        )
        for name in families
    }
    return Fitted(about["name"], method, targets, inputs, parts, about["budget"]["draws"])


def _baseline(spec: Mapping[str, Any] | None) -> LinearBaseline | None:
    return None if spec is None else LinearBaseline.from_spec(spec)


def _with_state(model: nn.Module, guide: Any, state: dict[str, Any], dtype: torch.dtype) -> FittedNetwork:
    for module in (model, guide):
        if isinstance(module, nn.Module):
            module.to(dtype)
    if isinstance(guide, AutoGuide) and guide.prototype_trace is None:
        of = {
            part: {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}
            for part in ("model.", "guide.")
        }
        model.load_state_dict(of["model."])
        return model, LateGuide(guide, of["guide."])
    together = nn.ModuleDict({"model": model})
    if isinstance(guide, nn.Module):  # else its parameters are the model's
        together["guide"] = guide
    together.load_state_dict(state)
    return model, guide


def _plain(support: tuple[Any, Any] | None) -> Any:
    """Support rows as what a file may hold."""
    if support is None:
        return None
    x, y = support
    return {"per_task": isinstance(x, PerTask), "x": dict(x) if isinstance(x, PerTask) else x, "y": dict(y)}


def _rows(kept: Mapping[str, Any] | None) -> tuple[Any, Any] | None:
    """The inverse of `_plain`."""
    return None if kept is None else (PerTask(kept["x"]) if kept["per_task"] else kept["x"], kept["y"])
