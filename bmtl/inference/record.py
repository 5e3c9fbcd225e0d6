"""What a step leaves behind, and a history of steps as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class StepRecord:
    """One step. Arrays are float64 on the host, K counts all tasks, and an absent task is NaN.

    Attributes:
        step: Number of the step, from 0.
        epoch: Number of the epoch, from 1.
        names: The K tasks.
        losses: Task losses per datum, as the balancer saw them ``(K,)``.
        shared: The terms of weight 1 (KL divergences) per datum.
        active: Which tasks had a label ``(K,)``, bool.
        weights: Effective weights, d objective / d loss, for the shared parameters ``(K,)``.
        weights_heads: The same for each task's own parameters ``(K,)``.
        alpha: The weighting's weights of the scaled losses ``(K,)``; NaN without a weighting.
        gram: Gram matrix of the scaled losses' gradients ``(K, K)``; NaN without a weighting.
        residual: The weighting's residual, NaN without one.
        iterations: Rounds of the weighting's solver.
        status: "ok", "inexact", "stationary"; "skipped" where the step was not taken.
        length: Name of the length rule, "" without a weighting.
        fidelity: Cosine of the update with the one from the full gradients, NaN where it was not found.
        seconds: Time of the step's parts; "step" is the whole.
        events: What was out of the ordinary.
    """

    step: int
    epoch: int
    names: tuple[str, ...]
    losses: Tensor
    shared: float
    active: Tensor
    weights: Tensor
    weights_heads: Tensor
    alpha: Tensor
    gram: Tensor
    residual: float = float("nan")
    iterations: int = 0
    status: str = "ok"
    length: str = ""
    fidelity: float = float("nan")
    seconds: dict[str, float] = field(default_factory=dict)
    events: tuple[str, ...] = ()


def history_arrays(history: Sequence[StepRecord]) -> dict[str, np.ndarray]:
    """A history of S steps as arrays.

    Returns:
        ``losses``, ``weights``, ``weights_heads`` (S, K); ``gram``, ``cosine`` (S, K, K); ``step``, ``epoch``, ``shared``,
        ``residual``, ``fidelity``, ``seconds``, ``skipped`` (S,).

    Raises:
        ValueError: If the history is empty.
    """
    if not history:
        raise ValueError("The history is empty: no step has been taken.")
    gram = torch.stack([r.gram for r in history]).numpy()
    norms = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    with np.errstate(invalid="ignore", divide="ignore"):  # a zero gradient has no direction: NaN
        cosine = gram / norms[:, :, None] / norms[:, None, :]
    return {
        "step": np.array([r.step for r in history]),
        "epoch": np.array([r.epoch for r in history]),
        "losses": torch.stack([r.losses for r in history]).numpy(),
        "weights": torch.stack([r.weights for r in history]).numpy(),
        "weights_heads": torch.stack([r.weights_heads for r in history]).numpy(),
        "gram": gram,
        "cosine": cosine,
        "shared": np.array([r.shared for r in history]),
        "residual": np.array([r.residual for r in history]),
        "fidelity": np.array([r.fidelity for r in history]),
        "seconds": np.array([r.seconds.get("step", np.nan) for r in history]),
        "skipped": np.array([r.status == "skipped" for r in history]),
    }


def history_state(history: Sequence[StepRecord]) -> dict[str, Any]:
    """A history as a few stacked tensors and lists, which load without pickled classes."""
    if not history:
        return {}
    stacked = ("losses", "active", "weights", "weights_heads", "alpha", "gram")
    listed = ("step", "epoch", "shared", "residual", "iterations", "status", "length", "fidelity", "seconds", "events")
    state: dict[str, Any] = {field: torch.stack([getattr(r, field) for r in history]) for field in stacked}
    state |= {field: [getattr(r, field) for r in history] for field in listed}
    return state | {"names": history[-1].names}


def history_from_state(state: dict[str, Any]) -> list[StepRecord]:
    """The inverse of `history_state`."""
    if not state:
        return []
    names = tuple(state["names"])
    fields = [field for field in state if field != "names"]
    columns = zip(*(state[field] for field in fields), strict=True)
    return [StepRecord(names=names, **dict(zip(fields, values, strict=True))) for values in columns]
