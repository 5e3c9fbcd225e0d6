"""What a trained network says of the rows of each part, and how the parts of a run are joined."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bmtl.datasets import MultiTaskData
from bmtl.experiments.budgets import Budget
from bmtl.experiments.methods import Method
from bmtl.experiments.rows import tensors
from bmtl.experiments.training import Trained
from bmtl.inference import Draws, draw
from bmtl.inference.predictives import merge_targets, mixture
from bmtl.inference.record import history_arrays
from bmtl.models.tree_variable import TreeVariable

CHUNK = 2048
"""Training rows that are drawn for at a time: what a model needs for more of them at once may be more than there is."""


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        draws: Part -> draws for its rows: "test", and as far as they are there "validation", "train" and "ood"; "new" are
            inputs without labels.
        history: The training by step, as arrays.
        tasks: Names of the history's tasks.
        score: Validation score of the epoch that was kept.
        states: Parameters of model and guide, one a network.
        extras: Further variables of the posterior, as the model's `tree_extras` gives them.
    """

    draws: Mapping[str, Draws]
    history: Mapping[str, np.ndarray]
    tasks: tuple[str, ...]
    score: float
    states: Sequence[dict[str, Any]] = ()
    extras: Mapping[str, TreeVariable] = field(default_factory=dict)


def collect(
    data: MultiTaskData,
    trained: Trained,
    method: Method,
    seed: int,
    budget: Budget,
    *,
    new: Any = None,
    trust: bool = False,
) -> RunResult:
    """Draws for every part that is asked for.

    Args:
        data: With the parts that are drawn for.
        trained: The network.
        method: What it is.
        seed: Of the draws.
        budget: For the number of draws.
        new: Inputs without labels, as the model sees them.
        trust: Draw for the training rows too, if the model has a joint density that the guide can be judged by.
    """
    model, guide = trained.model, trained.svi.guide

    def of(part: str, rows_at_a_time: int | None = None) -> Draws:
        x, y = tensors(data, method, part)
        return draw(model, guide, x, y, num_draws=budget.draws, batch_size=rows_at_a_time, seed=seed)

    if getattr(model, "noise_from_validation", False):
        x, y = tensors(data, method, "val" if "val" in data.rows else "train")
        model.calibrate(guide, x, y, seed=seed)  # type: ignore[operator]
    drawn = {"test": of("test")} if "test" in data.rows else {}
    if "val" in data.rows:
        drawn["validation"] = of("val")
    if "ood" in data.rows:
        drawn["ood"] = of("ood")
    if new is not None:
        drawn["new"] = draw(model, guide, new, num_draws=budget.draws, seed=seed)
    if trust and method.ensemble_size == 1 and getattr(model, "joint_density", True):
        train = of("train", CHUNK)
        if train.log_q is not None:
            drawn["train"] = train
    shown = drawn.get("train", next(iter(drawn.values())))
    return RunResult(
        draws=drawn,
        history=history_arrays(trained.svi.history),
        tasks=trained.svi.names,
        score=trained.score,
        states=[copy.deepcopy(trained.svi.module.state_dict())],
        extras=extras_of(model, shown),
    )


def extras_of(model: Any, drawn: Draws) -> dict[str, TreeVariable]:
    """What a model adds to the posterior of a results tree besides its latents; nothing if it does not say."""
    if not hasattr(model, "tree_extras"):
        return {}
    return dict(model.tree_extras(drawn.posterior))


def mix(members: Sequence[RunResult]) -> RunResult:
    """An ensemble's members as one: the training is the first member's, its time that of all."""
    first = members[0]
    if len(members) == 1:
        return first
    seconds = np.sum([member.history["seconds"] for member in members], axis=0)
    return RunResult(
        draws={part: mixture([member.draws[part] for member in members]) for part in first.draws if part != "train"},
        history={**first.history, "seconds": seconds},
        tasks=first.tasks,
        score=float(np.mean([member.score for member in members])),
        states=[state for member in members for state in member.states],
    )


def join(parts: Sequence[RunResult]) -> RunResult:
    """Single-task runs as one, their histories side by side; a step of all tasks takes the sum of their times."""
    if len(parts) == 1:
        return parts[0]
    steps = min(len(part.history["step"]) for part in parts)  # tasks with fewer rows take fewer
    histories = [{name: values[:steps] for name, values in part.history.items()} for part in parts]
    by_task = ("losses", "weights", "weights_heads", "effective_lr")
    history = {
        "step": histories[0]["step"],
        "epoch": histories[0]["epoch"],
        **{name: np.concatenate([arrays[name] for arrays in histories], axis=1) for name in by_task},
        "seconds": np.sum([arrays["seconds"] for arrays in histories], axis=0),
    }
    return RunResult(
        draws={
            name: merge_targets([part.draws[name] for part in parts])
            for name in parts[0].draws
            if name != "train" and all(name in part.draws for part in parts)
        },
        history=history,
        tasks=tuple(task for part in parts for task in part.tasks),
        score=float(np.mean([part.score for part in parts])),
    )
