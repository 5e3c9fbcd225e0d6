"""Training for a number of epochs: `fit`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from bmtl.inference.arguments import choice, flag, whole_number
from bmtl.inference.callbacks import CheckedFiles, KeepBest, Progress, csv_log
from bmtl.inference.checkpoint import check_file, check_folder
from bmtl.inference.compiled import MODES, Mode
from bmtl.inference.errors import CheckpointError
from bmtl.inference.interruption import interruptible
from bmtl.inference.lightning_module import BalancedTraining, Scheduler
from bmtl.inference.loaders import SeededLoader, forked, length_of, mixed_seed, moved
from bmtl.inference.loaders_by_task import LoadersByTask
from bmtl.inference.record import StepRecord
from bmtl.inference.svi import BalancedSVI


@dataclass
class FitResult:
    """The result of a training run.

    Attributes:
        history: One record per step, or every n-th step's of a long run (`BalancedSVI`'s ``history_mib``).
        validation: Mean validation loss per labelled row of each task after each epoch, ``{task: [E numbers]}``.
        best_epoch: Epoch of the least ``val/loss``, from 1; None without validation.
        restored: The parameters are those of `best_epoch`, not of the last.
    """

    history: Sequence[StepRecord]
    validation: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int | None = None
    restored: bool = False


class _FromLoaders(BalancedTraining):
    """Training on loaders of batches of any kind of inputs; a data module has its own hook to move its batches."""

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return moved(batch, device)


def fit(
    svi: BalancedSVI,
    train: Iterable[Any],
    val: Iterable[Any] | None = None,
    *,
    max_epochs: int,
    patience: int | None = None,
    clip: float | None = None,
    accumulate: int = 1,
    scheduler: Callable[[torch.optim.Optimizer], Scheduler] | None = None,
    interval: Literal["epoch", "step"] = "epoch",
    score: Literal["mean", "log"] = "mean",
    seed: int = 0,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    restore_best: bool = True,
    accelerator: str = "auto",
    devices: int = 1,
    precision: Any = "32-true",
    compile: Mode | None = None,
    progress: bool = True,
    callbacks: Iterable[Callback] = (),
) -> FitResult:
    """Trains for a number of epochs under Lightning's `Trainer`.

    Args:
        svi: The SVI to train.
        train: Batches, iterated again in each epoch: tuples (spread as ``*batch``) or mappings (``**batch``). A
            `torch.utils.data.DataLoader`, `bmtl.datasets.Batches`, or any sized iterable. Or a mapping of loaders, one a
            task, of batches ``(x, y)``: the program is called with ``PerTask`` inputs and the labels by task; an epoch is
            as long as the longest, and a shorter one begins again.
        val: Batches to validate on after each epoch; of a mapping of loaders, each row once.
        max_epochs: Number of epochs in all, those before a resumption included.
        patience: Stop when ``val/loss`` has not improved for this many epochs; needs `val`.
        clip: Largest norm of the gradient; None clips nothing.
        accumulate: Number of batches over whose gradients one optimizer step takes the mean; those whose step is skipped are
            left out of it.
        scheduler: Makes a learning-rate scheduler from the optimizer, such as ``functools.partial(
            torch.optim.lr_scheduler.OneCycleLR, max_lr=0.01, total_steps=epochs * batches)`` with ``interval="step"``.
        interval: When it steps: after each "epoch", or after each "step" (every `accumulate` batches).
        score: What ``val/loss`` is, by which epochs are compared: the "mean" of the tasks' losses, or the mean of their
            "log", which gives an improvement by a tenth the same value in every task.
        seed: Seeds the order of the batches and all draws. The global generators are left unchanged.
        out: Folder for ``last.ckpt``, with `val` ``best.ckpt``, and ``metrics.csv``; None writes nothing.
        resume: A checkpoint written by an earlier run, from which to continue.
        restore_best: With `val`, end with the parameters of the best epoch.
        accelerator: "auto", "cpu", "gpu", ... as Lightning names them.
        devices: Number of processes, each with its own device. Above 1, Lightning starts the script once more for each
            (or takes those that ``torchrun`` has started). The batches of `train` go to the processes in turn,
            and an incomplete round at an epoch's end is dropped; all processes validate on all of `val`.
        precision: Lightning's precision, such as "bf16-mixed" or, on a GPU, "16-mixed".
        compile: As for `BalancedSVI`; None leaves it as it was made.
        progress: Show a progress bar with the task losses.
        callbacks: Further Lightning callbacks.

    Returns:
        Histories, and which epoch was best.

    Raises:
        TypeError: For an argument of the wrong type.
        ValueError: For an empty loader, patience without validation, a number out of its range, or options that do not fit.
        OSError: If `out` cannot be written, before training starts.
        CheckpointError: If `resume` is not an intact checkpoint of this model.
        KeyboardInterrupt: On Ctrl-C, after ``last.ckpt`` has been written. ``svi.history`` holds the steps taken so far.
    """
    max_epochs = whole_number("max_epochs", max_epochs, 1, "a number of epochs")
    devices = whole_number("devices", devices, 1, "a number of processes")
    for name, value in (("restore_best", restore_best), ("progress", progress)):
        flag(name, value)
    for name, path in (("out", out), ("resume", resume)):
        if path is not None and not isinstance(path, str | Path):
            raise TypeError(f"{name} is a path, and {type(path).__name__} was given.")
    if patience is not None:
        patience = whole_number("patience", patience, 1, "a number of epochs")
        if val is None:
            raise ValueError("patience waits for a validation loss; give validation batches, val=...")
    callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
    wrong = [callback for callback in callbacks if not isinstance(callback, Callback)]
    if wrong:
        raise TypeError(f"callbacks are Lightning's, lightning.pytorch.Callback, and {wrong[0]!r} was given.")
    module = _FromLoaders(
        svi, clip=clip, accumulate=accumulate, scheduler=scheduler, interval=interval, score=score, seed=seed
    )
    if compile is not None:
        if compile is not False:
            choice("compile", compile, MODES)
        svi.compiled.mode = compile
    seed = module.seed
    if isinstance(train, Mapping):
        train = LoadersByTask(train, cycle=True)
    if isinstance(val, Mapping):
        val = LoadersByTask(val, cycle=False)
    loaders: dict[str, Any] = {"train": train, "val": val}
    for name, loader in loaders.items():
        if not isinstance(loader, Iterable) and (loader is not None or name == "train"):
            raise TypeError(f"The loader {name!r} gives batches in a for loop, and {type(loader).__name__} was given.")
        if isinstance(loader, tuple) and any(isinstance(part, torch.Tensor | Mapping) for part in loader):
            raise TypeError(
                f"The loader {name!r} gives batches in a for loop, and a tuple of tensors was given, which is one batch. "
                "Give bmtl.datasets.Batches(x, y, batch_size), or a list of batches."
            )
        if length_of(loader) == 0:
            raise ValueError(f"The loader {name!r} is empty: it has no batch to give.")
        if isinstance(loader, Iterator):
            raise ValueError(f"The loader {name!r} can be read only once: give one that starts anew, such as a list.")
    folder = None if out is None else check_folder(out)
    resumed = -1
    if resume is not None:
        saved = check_file(resume)
        if "epoch" not in saved:
            raise CheckpointError(
                f"{resume} was written by bmtl.inference.checkpoint.save; load it with that module's `load`."
            )
        resumed = saved["epoch"]
        del saved
    best = KeepBest(svi) if val is not None and restore_best else None
    used: list[Callback] = [*callbacks, *([best] if best else [])]
    if patience is not None:
        used.append(EarlyStopping("val/loss", patience=patience))
    if folder is not None:
        # Two callbacks: `save_last` of one that monitors writes last.ckpt only where it writes best.ckpt.
        if val is not None:
            used.append(ModelCheckpoint(folder, filename="best", monitor="val/loss", enable_version_counter=False))
        used.append(ModelCheckpoint(folder, filename="last", enable_version_counter=False))
    if progress:
        used.append(Progress(svi))
    steps = svi.steps
    with _quiet(), forked(None), interruptible() as interruption:
        trainer = Trainer(
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            strategy="auto" if devices == 1 else "ddp",
            precision=precision,
            plugins=[CheckedFiles()],
            logger=csv_log(folder, resumed) if folder is not None else False,
            callbacks=[*used, interruption],
            enable_checkpointing=folder is not None,
            enable_model_summary=False,
            enable_progress_bar=progress,
            num_sanity_val_steps=0,
            log_every_n_steps=max(1, min(50, (length_of(train) or 50) // devices)),
            inference_mode=False,
        )
        trainer.fit(
            module,
            SeededLoader(train, lambda: mixed_seed(seed, svi.epoch, 0)),
            None if val is None else SeededLoader(val, lambda: mixed_seed(seed, 3), divided=False),
            ckpt_path=None if resume is None else str(resume),
            weights_only=True,
        )
    restored = best.restore() if best else False
    if interruption.noted:
        raise KeyboardInterrupt(f"Training was interrupted in epoch {svi.epoch}.")
    if svi.steps == steps and resume is None:
        raise ValueError("The loader 'train' is empty: it has no batch to give.")
    return FitResult(svi.history, module.validation, best.epoch if best else None, restored)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Lightning's remarks on hardware and its advertisements."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 asks torch's pytree in a way that torch has deprecated.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            for remark in ("have no `val_dataloader`", "exists and is not empty", "The dirpath has changed"):
                warnings.filterwarnings("ignore", message=f".*{remark}", category=UserWarning)
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)
