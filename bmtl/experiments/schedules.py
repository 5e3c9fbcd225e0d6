"""Optimizers and learning rates of a budget."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from bmtl.experiments.budgets import Budget
from bmtl.experiments.methods import Method
from bmtl.inference import BalancedSVI

DECAY = 1e-2


def optimizer_of(method: Method, budget: Budget) -> Callable[[Any], torch.optim.Optimizer]:
    """The factory of a method's optimizer, for a budget with everything chosen.

    A method with its own weight decay has Adam's.
    """
    assert budget.lr is not None
    if budget.schedule != "cosine" or method.weight_decay:
        return functools.partial(torch.optim.Adam, lr=budget.lr, weight_decay=method.weight_decay, fused=True)
    return functools.partial(decoupled, lr=budget.lr)


def decoupled(parameters: Any, *, lr: float) -> torch.optim.AdamW:
    """AdamW that decays the weight matrices of networks: no bias, noise, or parameter of a posterior.

    Args:
        parameters: `bmtl.inference.NamedParameters`, as `BalancedSVI` calls it.
        lr: Learning rate.

    Source:
        Loshchilov & Hutter (2019), "Decoupled Weight Decay Regularization".
    """
    groups: dict[float, list[tuple[str, torch.Tensor]]] = {DECAY: [], 0.0: []}
    for name, parameter in parameters.items():
        matrix = name.rpartition(".")[2] == "weight" and parameter.dim() > 1
        groups[DECAY if matrix else 0.0].append((name, parameter))
    given: list[dict[str, Any]] = [{"params": own, "weight_decay": decay} for decay, own in groups.items() if own]
    return torch.optim.AdamW(given, lr=lr, fused=True)


class Cosine(Callback):
    """Sets the learning rate of each step: up with the square of the step, then down to 0 along a cosine.

    Networks that learn all that they can in a few dozen steps, of noisy labels or wide inputs, do so where the rate is small
    yet, in several validations instead of one.

    Args:
        svi: The SVI to train.
        epochs: Number of epochs of a run that does not end early.
        warm_up: Share of the steps in which the rate rises.

    Source:
        Loshchilov & Hutter (2017), "SGDR: Stochastic Gradient Descent with Warm Restarts", without restarts.
    """

    def __init__(self, svi: BalancedSVI, epochs: int, warm_up: float) -> None:
        self.svi, self.epochs, self.warm_up = svi, epochs, warm_up

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        in_epoch = int(trainer.num_training_batches)
        share = rate(trainer.current_epoch * in_epoch + batch_idx, self.epochs * in_epoch, self.warm_up)
        optimizer = self.svi.optimizer
        assert isinstance(optimizer, torch.optim.Optimizer)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * share


def rate(step: int, steps: int, warm_up: float) -> float:
    """Share of the highest rate at a step, from 0, where it rises over a share of the steps."""
    rising = max(1, round(warm_up * steps))
    if step < rising:
        return ((step + 1) / rising) ** 2
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def scheduler_of(budget: Budget) -> Callable[[torch.optim.Optimizer], Any] | None:
    """The factory of a budget's scheduler by the epoch; None where the rate is constant, or set at each step."""
    falling, exponential = torch.optim.lr_scheduler.CosineAnnealingLR, torch.optim.lr_scheduler.ExponentialLR
    makers: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
        "plateau": plateau,
        "falling": functools.partial(falling, T_max=budget.most_epochs),
        "exponential": functools.partial(exponential, gamma=0.99),
    }
    return makers.get(budget.schedule or "")


def plateau(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
    """The rate falls to 0.7 of itself, down to 1e-5, when the score has not improved for five epochs."""
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.7, patience=5, min_lr=1e-5)
