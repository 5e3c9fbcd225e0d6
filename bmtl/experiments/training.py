"""Trains one network of a method, as Lightning's loop does, and says which epoch was kept."""

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import nn

from bmtl.datasets import MultiTaskData
from bmtl.experiments.averaging import Averaged
from bmtl.experiments.budgets import Budget
from bmtl.experiments.methods import Method, build
from bmtl.experiments.numerics import ACCELERATORS, AMP, DTYPES
from bmtl.experiments.rows import Loader, Stretches, augmented, batches, once, spec_of, tensors
from bmtl.experiments.schedules import Cosine, optimizer_of, scheduler_of
from bmtl.experiments.slots import balancer_of
from bmtl.inference import BalancedSVI, FitResult, TaskELBO, fit
from bmtl.inference.checkpoint import save as save_checkpoint
from bmtl.inference.draws import evaluating

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        model: The program.
        svi: What trained it, with its guide and history.
        score: Of the parameters that were kept; NaN without validation rows, or after an interruption.
        interrupted: Whether training was cut off by Ctrl-C.
        validation: Task -> its validation loss after each epoch; empty without validation rows, or after an interruption.
    """

    model: nn.Module
    svi: BalancedSVI
    score: float
    interrupted: bool = False
    validation: Mapping[str, Sequence[float]] = field(default_factory=dict)


def program(
    data: MultiTaskData, method: Method, seed: int, budget: Budget
) -> tuple[nn.Module, BalancedSVI, Loader | Stretches]:
    """A method's model before its first step, and the batches of an epoch."""
    budget = budget.of(data)
    dtype = DTYPES[budget.precision]
    x, y = tensors(data, method, "train", dtype)
    assert budget.widths is not None
    model, guide = build(method, spec_of(data, method, dtype), budget.widths, seed)
    for module in (model, guide):
        if isinstance(module, nn.Module):
            module.to(dtype)
    elbo = TaskELBO("analytic", normalize=method.normalize, n_data=labels_of_tasks(data, model))
    svi = BalancedSVI(
        model, guide, optimizer_of(method, budget), balancer_of(method.balancer).make(), elbo, compile=method.compile
    )
    blocks = data.inputs.blocks(data.rows["train"]) if data.inputs.train_in_blocks else None
    steps = budget.epochs_of_steps
    size, whole = budget.rows_in_batch(len(data.rows["train"])), steps is not None and budget.batch_size is None
    plain = batches(x, y, size, seed, blocks, whole=whole)
    loader = augmented(plain, data) if budget.augment else plain
    return model, svi, loader if steps is None else Stretches(loader, steps[1])


def labels_of_tasks(data: MultiTaskData, model: nn.Module) -> dict[str, int] | None:
    """Number of labelled training rows of each task, where the model says what its tasks are; else None.

    With it a mean per task is over all of its labels from the first batch on, and need not be estimated.
    """
    tasks: tuple[str, ...] = getattr(model, "tasks", ())
    targets = {task: task.partition("/")[0] for task in tasks}
    if not targets or not set(targets.values()) <= set(data.tasks):
        return None
    return {task: int(data.has_label(target, "train").sum()) for task, target in targets.items()}


def train(
    data: MultiTaskData,
    method: Method,
    seed: int,
    budget: Budget,
    folder: Path | None,
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Trains a method's network on the rows that have a label.

    Args:
        data: With a part "train"; with "val" if epochs are selected by it.
        method: The method to train.
        seed: Of initial weights, order of batches and draws.
        budget: Length and size of the training.
        folder: Where an interrupted training leaves ``last.ckpt``.
        callbacks: Further Lightning callbacks.

    Returns:
        The trained network. After Ctrl-C what there is, `interrupted`.

    Raises:
        KeyboardInterrupt: If training was interrupted before its first step.
    """
    budget = budget.of(data)
    labelled = data.labelled()  # rows that teach nothing would only lengthen the epochs
    model, svi, loader = program(labelled, method, seed, budget)
    part = "test" if budget.select == "best-on-test" else "val"
    score = budget.score
    if score == "likelihood":
        # At each target's best noise the likelihood is the mean log of its squared errors.
        score = "log" if getattr(model, "noise_from_validation", False) else "mean"
    validation = None
    if part in labelled.rows:
        validation = once(
            *tensors(labelled, method, part, DTYPES[budget.precision]), labelled.inputs.blocks(labelled.rows[part])
        )
    keeps_best = budget.select != "last" and validation is not None
    in_steps = budget.epochs_of_steps is not None
    before = _start(svi, loader, validation, score, seed) if keeps_best and in_steps and validation else None
    try:
        result = fit(
            svi,
            loader,
            validation,
            max_epochs=budget.most_epochs,
            patience=max(3, budget.most_epochs // 4) if keeps_best and in_steps else None,
            scheduler=scheduler_of(budget),
            score=score,
            restore_best=keeps_best,
            seed=seed,
            accelerator=ACCELERATORS[budget.device],
            precision=AMP[budget.precision],
            progress=False,
            callbacks=[*callbacks, *_of_schedule(svi, budget, keeps_best)],
        )
    except KeyboardInterrupt:
        if not svi.steps:
            raise
        if folder is not None:
            try:
                save_checkpoint(svi, folder / "last.ckpt")
            except Exception:  # an interruption stays one, and the results so far are still to be written
                logger.exception("%s cannot be written.", folder / "last.ckpt")
        return Trained(model, svi, float("nan"), interrupted=True)
    found = _kept_score(result, score)
    if before is not None and before[0] <= found:
        svi.load_program_state(before[1])
        found = before[0]
    return Trained(model, svi, found, validation=result.validation)


def _of_schedule(svi: BalancedSVI, budget: Budget, keeps_best: bool) -> list[Callback]:
    """What sets the rates of the schedule "cosine", and averages parameters where epochs are compared."""
    if budget.schedule != "cosine":
        return []
    averaged = [Averaged(svi, budget.average)] if keeps_best and budget.average > 1 else []
    return [Cosine(svi, budget.most_epochs, budget.warm_up), *averaged]


def _start(
    svi: BalancedSVI, loader: Iterable[Any], validation: Iterable[Any], score: str, seed: int
) -> tuple[float, Any]:
    """The validation score before the first step, and the parameters."""
    sums, labelled = torch.zeros(0), torch.zeros(0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        svi.initialise(*next(iter(loader)))
        with evaluating(svi.module):
            for batch in validation:
                found = svi.evaluate(*batch)
                losses = torch.where(found.labelled > 0, found.losses * found.labelled, 0.0)
                sums = sums + losses if len(sums) else losses
                labelled = labelled + found.labelled if len(labelled) else found.labelled
    means = (sums / labelled)[labelled > 0]
    total = float((means.log() if score == "log" else means).mean())
    return total, copy.deepcopy(svi.program_state())


def _kept_score(result: FitResult, score: str) -> float:
    """The score of the epoch whose parameters were kept."""
    if not result.validation:
        return float("nan")
    losses = np.array(list(result.validation.values()))  # (K, E)
    kept = result.best_epoch - 1 if result.restored and result.best_epoch is not None else -1
    with np.errstate(invalid="ignore", divide="ignore"):
        return float((np.log(losses) if score == "log" else losses)[:, kept].mean())
