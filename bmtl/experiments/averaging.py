"""Averages of the parameters over training, by which epochs are compared and of which the best are kept."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from bmtl.inference import BalancedSVI


class Averaged(Callback):
    """Validates, and so lets `KeepBest` keep, a moving average of the parameters: ``a <- a + (p - a) / steps``.

    The parameters are replaced while an epoch is validated, and go on from where they were. A rate that is high enough to
    learn fast leaves each step's parameters to chance; their average has less of it.

    Args:
        svi: The SVI to train.
        steps: Number of steps over which the average reaches; 1 is the parameters themselves.

    Source:
        Polyak & Juditsky (1992), "Acceleration of stochastic approximation by averaging"; the exponential form as in
        Tarvainen & Valpola (2017), "Mean teachers are better role models", equation 1.
    """

    def __init__(self, svi: BalancedSVI, steps: int) -> None:
        self.svi, self.share = svi, 1 / steps
        self.averages: dict[Tensor, Tensor] = {}
        self._set_aside: list[Tensor] | None = None

    def on_train_batch_end(self, *_: Any) -> None:
        own = self._parameters()
        with torch.no_grad():
            torch._foreach_lerp_([self.averages.setdefault(p, p.detach().clone()) for p in own], own, self.share)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        own = self._parameters()
        self._set_aside = [p.detach().clone() for p in own]
        self._set([self.averages.get(p, p) for p in own])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After all that looks at an epoch's validation."""
        if self._set_aside is not None:
            self._set(self._set_aside)
            self._set_aside = None

    def _set(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for p, value in zip(self._parameters(), values, strict=True):
                p.copy_(value)

    def _parameters(self) -> list[Tensor]:
        optimizer = self.svi.optimizer
        assert isinstance(optimizer, torch.optim.Optimizer)
        return [p for group in optimizer.param_groups for p in group["params"]]
