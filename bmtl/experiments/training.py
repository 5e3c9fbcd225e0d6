"""Trains one network of a method, as Lightning's loop does, and says which epoch was kept."""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from bmtl.datasets import Batches, BatchesByTask, MultiTaskData
from bmtl.experiments.budgets import Budget
from bmtl.experiments.methods import Method, build
from bmtl.experiments.rows import batches, once, spec_of, tensors
from bmtl.experiments.slots import balancer_of
from bmtl.inference import BalancedSVI, FitResult, TaskELBO, fit
from bmtl.inference.checkpoint import save as save_checkpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        model: The program.
        svi: What trained it, with its guide and history.
        score: Of the epoch whose parameters were kept; NaN without validation rows, or after an interruption.
        interrupted: Whether training was cut off by Ctrl-C.
    """

    model: nn.Module
    svi: BalancedSVI
    score: float
    interrupted: bool = False


class EachEpoch(Callback):
    """Calls a function at the end of each epoch.

    Args:
        done: Takes what was done, as "epoch 3".
    """

    def __init__(self, done: Callable[[str], None]) -> None:
        self.done = done

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.done(f"epoch {trainer.current_epoch + 1}")


def program(
    data: MultiTaskData, method: Method, seed: int, budget: Budget
) -> tuple[nn.Module, BalancedSVI, Batches | BatchesByTask]:
    """What a method trains, before its first step, and the batches that it trains on."""
    x, y = tensors(data, method, "train")
    model, guide = build(method, spec_of(data, method), budget.widths, seed)
    elbo = TaskELBO("analytic", normalize=method.normalize, n_data=labels_of_tasks(data, model))
    optim = functools.partial(torch.optim.Adam, lr=budget.lr, weight_decay=method.weight_decay, fused=True)
    svi = BalancedSVI(model, guide, optim, balancer_of(method.balancer).make(), elbo)
    blocks = data.inputs.blocks(data.rows["train"]) if data.inputs.train_in_blocks else None
    return model, svi, batches(x, y, budget.batch_size, seed, blocks)


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
        method: What to train.
        seed: Of initial weights, order of batches and draws.
        budget: How long and how large.
        folder: Where an interrupted training leaves ``last.ckpt``.
        callbacks: Further Lightning callbacks.

    Returns:
        The trained network. After Ctrl-C what there is, `interrupted`.

    Raises:
        KeyboardInterrupt: If training was interrupted before its first step.
    """
    labelled = data.labelled()  # rows that teach nothing would only lengthen the epochs
    model, svi, loader = program(labelled, method, seed, budget)
    part = "test" if budget.select == "best-on-test" else "val"
    score = budget.score
    if score == "likelihood":
        # At each target's best noise the likelihood is the mean log of its squared errors.
        score = "log" if getattr(model, "noise_from_validation", False) else "mean"
    try:
        result = fit(
            svi,
            loader,
            once(*tensors(labelled, method, part), labelled.inputs.blocks(labelled.rows[part]))
            if part in labelled.rows
            else None,
            max_epochs=budget.epochs,
            scheduler=_scheduler(budget),
            score=score,
            restore_best=budget.select != "last" and part in labelled.rows,
            seed=seed,
            progress=False,
            callbacks=callbacks,
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
    return Trained(model, svi, _kept_score(result, score))


def _kept_score(result: FitResult, score: str) -> float:
    """The score of the epoch whose parameters were kept."""
    if not result.validation:
        return float("nan")
    losses = np.array(list(result.validation.values()))  # (K, E)
    kept = result.best_epoch - 1 if result.restored and result.best_epoch is not None else -1
    with np.errstate(invalid="ignore", divide="ignore"):
        return float((np.log(losses) if score == "log" else losses)[:, kept].mean())


def _scheduler(budget: Budget) -> Callable[[torch.optim.Optimizer], Any] | None:
    """What lowers the learning rate after each epoch."""
    if budget.plateau:
        return _plateau
    if budget.schedule == "cosine":
        return functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=budget.epochs)
    if budget.schedule == "exponential":
        return functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.99)
    return None


def _plateau(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.7, patience=5, min_lr=1e-5)
