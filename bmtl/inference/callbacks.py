"""Lightning callbacks of `fit`: the best parameters, checked files, a log that resumes, a bar with task losses."""

import copy
import csv
import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from bmtl.inference.checkpoint import write
from bmtl.inference.svi import BalancedSVI


class KeepBest(Callback):
    """Keeps the parameters of the epoch with the least ``val/loss``.

    Args:
        svi: The SVI to train.
    """

    def __init__(self, svi: BalancedSVI) -> None:
        self.svi = svi
        self.epoch: int | None = None
        self.loss = math.inf
        self.state: dict[str, dict[str, Tensor]] | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = float(trainer.callback_metrics["val/loss"])
        if loss < self.loss:
            self.loss, self.epoch = loss, self.svi.epoch
            self.state = copy.deepcopy(self.svi.program_state())

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "loss": self.loss, "state": self.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch, self.loss, self.state = state_dict["epoch"], state_dict["loss"], state_dict["state"]

    def restore(self) -> bool:
        """Puts the kept parameters back; whether there were any."""
        if self.state is None:
            return False
        self.svi.load_program_state(self.state)
        return True


class CheckedFiles(TorchCheckpointIO):
    """Writes checkpoints as `bmtl.inference.checkpoint` does: whole and read back, or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write(checkpoint, Path(path))


def csv_log(folder: Path, resumed: int) -> CSVLogger:
    """A log in ``metrics.csv``; the rows of epochs before a resumption are kept, which Lightning's own would delete.

    Args:
        folder: Where.
        resumed: The last epoch that is not trained again, from 0; -1 for none.
    """
    path = folder / "metrics.csv"
    kept: list[dict[str, Any]] = []
    if resumed >= 0 and path.is_file():
        with path.open(newline="") as file:
            rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
        kept = [row for row in rows if float(row.get("epoch", "inf")) <= resumed]
    log = CSVLogger(folder.parent, name=folder.name, version="")
    if getattr(rank_zero_only, "rank", 0) == 0:  # of several processes, the first one writes
        log.experiment.metrics.extend(kept)
        log.save()
    return log


class Progress(RichProgressBar):
    """Lightning's bar with the losses of the last step: every task's where they fit, else their mean.

    Args:
        svi: The SVI to train.
    """

    def __init__(self, svi: BalancedSVI) -> None:
        super().__init__()
        self.svi = svi

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        history = self.svi.history
        if not history:
            return {}
        record = history[-1]
        items: dict[str, Any] = {}
        if len(record.names) <= 6:
            items = {name: f"{loss:.3g}" for name, loss in zip(record.names, record.losses.tolist(), strict=True)}
        else:
            items["mean loss"] = f"{record.losses.nanmean().item():.3g}"
        if "val/loss" in trainer.callback_metrics:
            items["val"] = f"{trainer.callback_metrics['val/loss'].item():.3g}"
        return items
