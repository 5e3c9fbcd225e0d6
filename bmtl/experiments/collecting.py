"""Predictions of a trained network for the rows of each part, and how the parts of a run are joined."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmtl.datasets import MultiTaskData
from bmtl.experiments.budgets import Budget
from bmtl.experiments.methods import Method
from bmtl.experiments.numerics import DTYPES
from bmtl.experiments.reduced import Reduced, draw_reduced, is_reduced
from bmtl.experiments.rows import rows_in_memory, tensors
from bmtl.experiments.training import Trained
from bmtl.inference import Draws, draw
from bmtl.inference.predictives import merge_targets, mixture
from bmtl.inference.record import history_arrays
from bmtl.models.tree_variable import TreeVariable

CHUNK = 2048
"""Training rows that are drawn for at a time: what a model needs for more of them at once may be more than there is."""


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        draws: Part -> draws for its rows: "test", and as far as they are there "validation", "train" and "ood"; "new" are
            inputs without labels.
        history: The training by step, as arrays.
        tasks: Names of the history's tasks.
        targets: Names of the targets.
        score: Validation score of the epoch that was kept.
        states: Parameters of model and guide, one per network.
        shares: By target, the factor of the network's output in `linear + share * network`; averaged over an ensemble.
        extras: Further variables of the posterior, as the model's `tree_extras` gives them.
        reduced: Part -> target -> what is kept of predictions that are too large to keep.
    """

    draws: Mapping[str, Draws]
    history: Mapping[str, np.ndarray]
    tasks: tuple[str, ...]
    targets: tuple[str, ...]
    score: float
    states: Sequence[dict[str, Any]] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    extras: Mapping[str, TreeVariable] = field(default_factory=dict)
    reduced: Mapping[str, Mapping[str, Reduced]] = field(default_factory=dict)


def collect(
    data: MultiTaskData,
    members: Sequence[Trained],
    method: Method,
    seeds: Sequence[int],
    budget: Budget,
    *,
    new: Any = None,
    trust: bool = False,
) -> RunResult:
    """Draws for every part that is requested.

    Of several networks (an ensemble), the mixture of what they predict; the training is the first one's, its time that of
    all.

    Args:
        data: With the parts that are drawn for.
        members: The networks, one or more.
        method: What they are.
        seeds: Of each network's draws.
        budget: For the number of draws.
        new: Inputs without labels, as the model sees them.
        trust: Draw for the training rows too, if the model has a joint density that the guide can be judged by.
    """
    num_draws = budget.draws
    assert num_draws is not None  # `Budget.of` has chosen it
    dtype = DTYPES[budget.precision]
    for trained, seed in zip(members, seeds, strict=True):
        _calibrate(data, trained, method, seed, dtype, budget.shrink)

    def of_rows(x: Any, y: Mapping[str, Tensor] | None, rows_at_a_time: int | None = None) -> Draws:
        return mixture(
            [
                draw(
                    trained.model,
                    trained.svi.guide,
                    x,
                    y,
                    num_draws=num_draws,
                    batch_size=rows_at_a_time,
                    seed=seed,
                )
                for trained, seed in zip(members, seeds, strict=True)
            ]
        )

    drawn: dict[str, Draws] = {}
    reduced: dict[str, dict[str, Reduced]] = {}

    def add(name: str, part: str, rows_at_a_time: int | None = None) -> None:
        if any(map(is_reduced, data.targets.values())):
            drawn[name], reduced[name] = draw_reduced(data, part, of_rows, num_draws, 0, dtype)
        else:
            drawn[name] = of_rows(*tensors(data, method, part, dtype), rows_at_a_time)

    for name, part in (("test", "test"), ("validation", "val"), ("ood", "ood")):
        if part in data.rows:
            add(name, part)
    first = members[0]
    if new is not None:
        drawn["new"] = of_rows(new, None)
    if trust and len(members) == 1 and method.ensemble_size == 1 and getattr(first.model, "joint_density", True):
        add("train", "train", CHUNK)
        if drawn["train"].log_q is None:
            del drawn["train"]
            reduced.pop("train", None)
    shown = drawn.get("train", next(iter(drawn.values())))
    history = history_arrays(first.svi.history)
    history["validation_losses"] = validated(history["epoch"], first.svi.names, first.validation)
    if len(members) > 1:
        records = [history_arrays(trained.svi.history)["seconds"] for trained in members]
        history = {**history, "seconds": np.sum(records, axis=0)}
    return RunResult(
        draws=drawn,
        history=history,
        tasks=first.svi.names,
        targets=data.tasks,
        score=float(np.mean([trained.score for trained in members])),
        states=[copy.deepcopy(trained.svi.module.state_dict()) for trained in members],
        shares=_mean_shares([getattr(trained.model, "shares", {}) for trained in members]),
        extras=extras_of(first.model, shown) if len(members) == 1 else {},
        reduced=reduced,
    )


def _mean_shares(of_members: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([shares[name] for shares in of_members])) for name in of_members[0]}


def validated(epochs: np.ndarray, tasks: Sequence[str], losses: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Validation losses by recorded step ``(S, K)``: each epoch's at its last step, NaN at the others.

    Args:
        epochs: Epoch of each recorded step ``(S,)``, from 1.
        tasks: The K tasks.
        losses: Task -> its loss after each epoch.
    """
    found = np.full((len(epochs), len(tasks)), np.nan)
    last = {int(epoch): place for place, epoch in enumerate(epochs)}
    for column, task in enumerate(tasks):
        for epoch, loss in enumerate(losses.get(task, ()), start=1):
            if epoch in last:
                found[last[epoch], column] = loss
    return found


def _calibrate(
    data: MultiTaskData, trained: Trained, method: Method, seed: int, dtype: torch.dtype, shrink: bool
) -> None:
    """Fits on validation rows the noise that was fixed in training, and the share in `linear + share * network`.

    Of images to as many as are held at once, evenly spaced.
    """
    if not getattr(trained.model, "noise_from_validation", False):
        return
    part = "val" if "val" in data.rows else "train"
    if any(map(is_reduced, data.targets.values())):
        count, one = len(data.rows[part]), data.tensors(part, dtype, places=slice(0, 1))[1]
        places = np.unique(np.linspace(0, count - 1, min(count, rows_in_memory(one))).round().astype(int))
        x, y = data.tensors(part, dtype, places=places)
    else:
        x, y = tensors(data, method, part, dtype)
    if shrink and hasattr(trained.model, "shrink"):
        trained.model.shrink(trained.svi.guide, x, y, seed=seed)  # type: ignore[operator]
    trained.model.calibrate(trained.svi.guide, x, y, seed=seed)  # type: ignore[operator]


def extras_of(model: Any, drawn: Draws) -> dict[str, TreeVariable]:
    """Variables that a model adds to the posterior of a results tree besides its latents; none by default."""
    if not hasattr(model, "tree_extras"):
        return {}
    return dict(model.tree_extras(drawn.posterior))


def join(parts: Sequence[RunResult]) -> RunResult:
    """Single-task runs as one, their histories side by side; a step of all tasks takes the sum of their times."""
    if len(parts) == 1:
        return parts[0]
    steps = min(len(part.history["step"]) for part in parts)  # tasks with fewer rows take fewer
    histories = [{name: values[:steps] for name, values in part.history.items()} for part in parts]
    by_task = ("losses", "validation_losses", "weights", "weights_heads", "effective_lr")
    history = {
        "step": histories[0]["step"],
        "epoch": histories[0]["epoch"],
        **{name: np.concatenate([arrays[name] for arrays in histories], axis=1) for name in by_task},
        "seconds": np.sum([arrays["seconds"] for arrays in histories], axis=0),
    }
    names = [part.targets for part in parts]
    shared = [name for name in parts[0].draws if name != "train" and all(name in part.draws for part in parts)]
    return RunResult(
        draws={name: merge_targets([part.draws[name] for part in parts], names) for name in shared},
        history=history,
        tasks=tuple(task for part in parts for task in part.tasks),
        targets=tuple(target for of in names for target in of),
        score=float(np.mean([part.score for part in parts])),
        shares={target: share for part in parts for target, share in part.shares.items()},
        reduced={
            name: {target: of for part in parts for target, of in part.reduced.get(name, {}).items()} for name in shared
        },
    )
