"""Training loops under Lightning: `fit`, and the module that it drives."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from bmtl.inference import distributed
from bmtl.inference.arguments import choice, flag, positive_number, whole_number
from bmtl.inference.callbacks import CheckedFiles, KeepBest, Progress, csv_log
from bmtl.inference.checkpoint import check_entry, check_file, check_folder, sealed
from bmtl.inference.compiled import MODES, Mode
from bmtl.inference.draws import DRAWS, draw
from bmtl.inference.errors import CheckpointError
from bmtl.inference.loaders import (
    SeededLoader,
    first_batch,
    forked,
    length_of,
    mixed_seed,
    moved,
    seed_random_state,
    spread,
)
from bmtl.inference.loaders_by_task import LoadersByTask, TaskBatches
from bmtl.inference.optimizers import needs_closure
from bmtl.inference.predictives import Draws
from bmtl.inference.record import StepRecord
from bmtl.inference.svi import BalancedSVI

logger = logging.getLogger(__name__)

Scheduler = torch.optim.lr_scheduler.LRScheduler | torch.optim.lr_scheduler.ReduceLROnPlateau


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


class BalancedTraining(LightningModule):
    """A `BalancedSVI` as a Lightning module, in manual optimisation.

    `fit` makes one; under a `Trainer` of your own it gives you Lightning's loggers, callbacks and devices. It logs
    ``train/<task>`` and, with validation data, ``val/<task>`` (mean negative log-likelihood per labelled row) and
    ``val/loss`` after each epoch.

    Under your own `Trainer`, Lightning moves batches to the device: it supports tensors in dicts, tuples and dataclasses,
    and any object with a method ``to``. `fit` moves all that `bmtl.inputs` supports.

    `Trainer.validate` and `Trainer.test` log ``val/...`` and ``test/...``; `Trainer.predict` returns a `PredictedBatch` of
    each batch. A mapping of loaders, one a task, of batches ``(x, y)``, as Lightning's `CombinedLoader` has it, is joined
    to batches ``(PerTask(x), y)``; a task that a batch lacks is absent from the step.

    Under Lightning's DDP strategy the processes take the steps of one on their joined batches. Lightning gives each its
    share of a `torch.utils.data.DataLoader` only; any other loader must do so itself.

    Args:
        svi: The SVI to train. It needs a torch optimizer or a factory of one.
        clip: Largest norm of the gradient of all parameters together; None clips nothing.
        accumulate: Number of batches over whose gradients one optimizer step takes the mean. Batches whose step is skipped
            (``on_error="skip"``) are left out of it: the mean is over the others, and without any there is no step.
        scheduler: Makes a learning-rate scheduler from the optimizer.
        interval: When it steps: after each "epoch", a `ReduceLROnPlateau` on ``val/loss``; or after each "step", that is
            after every `accumulate` batches and an epoch's last ones, skipped or not, so that the schedule is the run's.
        score: What ``val/loss`` is: the "mean" of the tasks' losses, or the mean of their "log": an improvement by a tenth
            then counts equally in every task. For squared errors that is the Gaussian negative log-likelihood at the best
            noise of each task, up to a constant.
        seed: The program's random draws in epoch e depend on this and on e alone, so that a resumed run equals an
            uninterrupted one. The order of the batches is determined by the loader (`fit` seeds it too).
        num_draws: Number of draws in `Trainer.predict`.

    Raises:
        TypeError: For an argument of the wrong type.
        ValueError: For a number out of its range, or another word for `score` or `interval`. When training starts, for a
            scheduler that does not fit: a `OneCycleLR` of another number of steps than the run has, or a
            `ReduceLROnPlateau` without validation or with ``interval="step"``.
    """

    def __init__(
        self,
        svi: BalancedSVI,
        *,
        clip: float | None = None,
        accumulate: int = 1,
        scheduler: Callable[[torch.optim.Optimizer], Scheduler] | None = None,
        interval: Literal["epoch", "step"] = "epoch",
        score: Literal["mean", "log"] = "mean",
        seed: int = 0,
        num_draws: int = DRAWS,
    ) -> None:
        super().__init__()
        if not isinstance(svi, BalancedSVI):
            raise TypeError(f"svi is a bmtl.BalancedSVI, and {type(svi).__name__} was given.")
        choice("score", score, ("mean", "log"))
        choice("interval", interval, ("epoch", "step"))
        if clip is not None:
            clip = positive_number("clip", clip, "a gradient norm")
        accumulate = whole_number("accumulate", accumulate, 1, "a number of batches")
        seed = whole_number("seed", seed, 0, "a seed")
        self.num_draws = whole_number("num_draws", num_draws, 1, "a number of draws")
        if scheduler is not None and not callable(scheduler):
            raise TypeError(
                "scheduler makes a learning-rate scheduler from the optimizer, such as functools.partial("
                f"torch.optim.lr_scheduler.StepLR, step_size=10), and {type(scheduler).__name__} was given."
            )
        self.automatic_optimization = False
        self.strict_loading = False  # the SVI loads its own state, once an AutoGuide has its parameters
        self.svi = svi
        self.program = svi.module  # registered, so that Lightning moves it to the device
        self.clip, self.accumulate, self.score, self.seed = clip, accumulate, score, seed
        self.make_scheduler, self.interval = scheduler, interval
        self.validation: dict[str, list[float]] = {}
        self._sums = torch.zeros(0)
        self._rows = torch.zeros(0)
        self._resumed = False
        self._tasks = TaskBatches(svi.model)
        self._taken: list[Any] = []  # the batches since the optimizer's last step that were not skipped

    def configure_callbacks(self) -> list[Callback]:
        """No callbacks; refuses what Lightning refuses in manual optimisation, in favour of what works.

        Raises:
            ValueError: If the trainer is to clip gradients, or to accumulate them.
        """
        for option, off, own in (("gradient_clip_val", None, "clip"), ("accumulate_grad_batches", 1, "accumulate")):
            value = getattr(self.trainer, option)
            if value not in (off, 0):
                raise ValueError(
                    f"Trainer({option}={value}) is for automatic optimisation, and a balanced step is manual. Leave it out, "
                    f"and give BalancedTraining(svi, {own}={value})."
                )
        return []

    def configure_optimizers(self) -> Any:
        """The optimizer of the SVI, set up from a batch of the training data if necessary."""
        plugin = self.trainer.precision_plugin
        self.svi.scaler = getattr(plugin, "scaler", None)  # which steps the optimizer, so it must be the plugin's own
        if not self.svi.initialised:
            _ = self.trainer.estimated_stepping_batches  # makes Lightning set up the data
            loader: Any = self.trainer.train_dataloader
            with forked(self.device):  # a shuffling loader draws its order
                batch = plugin.convert_input(first_batch(loader))
            args, kwargs = self._spread(self.trainer.strategy.batch_to_device(batch, self.device))
            with plugin.tensor_init_context():
                self.svi.initialise(*args, **kwargs)
        optimizer = self.svi.optimizer
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ValueError("Lightning drives torch optimizers; give BalancedSVI a factory, not a PyroOptim.")
        if needs_closure(optimizer) and (self.clip is not None or self.accumulate > 1):
            raise ValueError(
                f"{type(optimizer).__name__} evaluates its loss several times a step: it goes with clip=None and "
                "accumulate=1."
            )
        if self.make_scheduler is None:
            return optimizer
        groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        scheduler = self.make_scheduler(optimizer)
        self._check_scheduler(scheduler)
        if self._resumed:  # the saved rates are there already, and a new schedule has set its first ones
            for group, saved in zip(optimizer.param_groups, groups, strict=True):
                group.update(saved)
        return [optimizer], [scheduler]

    def _check_scheduler(self, scheduler: Scheduler) -> None:
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            if not self.trainer.enable_validation:
                raise ValueError("ReduceLROnPlateau waits for a validation loss, 'val/loss'; give validation batches.")
            if self.interval == "step":
                raise ValueError(
                    "ReduceLROnPlateau waits for an epoch's validation loss; use it with interval='epoch'."
                )
        if isinstance(scheduler, torch.optim.lr_scheduler.OneCycleLR):
            _ = self.trainer.estimated_stepping_batches  # makes Lightning set up the data
            epochs, batches = self.trainer.max_epochs, self.trainer.num_training_batches
            if epochs is None or epochs < 0 or math.isinf(batches) or not batches:
                return  # the length of the run is unknown
            steps = epochs * (1 if self.interval == "epoch" else math.ceil(batches / self.accumulate))
            if scheduler.total_steps != steps:
                raise ValueError(
                    f"OneCycleLR has a cycle of {scheduler.total_steps} steps, and training takes {steps} of interval="
                    f"{self.interval!r} ({epochs} epochs of {batches} batches, accumulate={self.accumulate}): it would not "
                    f"end annealed. Give it total_steps={steps}, or another interval."
                )

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One balanced step; every `accumulate` batches, or at an epoch's end, the optimizer steps."""
        start = time.perf_counter()
        args, kwargs = self._spread(batch)
        optimizer: Any = self.optimizers()
        if batch_idx == 0:  # again: whether a DataLoader has drawn since the epoch's start depends on resumption
            self._seed_epoch()
        if batch_idx % self.accumulate == 0:
            self.svi.zero_grad()
            self._taken = []
        record = self.svi.backward(*args, **kwargs)
        if record.status != "skipped":
            self._taken.append((args, kwargs))
        ends = (batch_idx + 1) % self.accumulate == 0 or self.trainer.is_last_batch
        if ends and self._taken:
            self.svi.scale_gradients(1.0 / len(self._taken))
            if self.clip is not None:
                torch.nn.utils.clip_grad_norm_(self.svi.parameters, self.clip * self.svi.scale)
            optimizer.step(self.svi.closure())
            args, kwargs = self._taken[-1]
            self.svi.after_step(*args, **kwargs)
        if ends and self.interval == "step":
            self._schedule()
        record.seconds["step"] = time.perf_counter() - start

    def on_train_epoch_start(self) -> None:
        self._seed_epoch()
        epochs, batches = self.trainer.max_epochs, self.trainer.num_training_batches
        if epochs is not None and epochs > 0 and not math.isinf(batches):
            self.svi.compiled.pace.left = int((epochs - self.trainer.current_epoch) * batches)

    def _seed_epoch(self) -> None:
        seed_random_state(
            mixed_seed(self.seed, self.svi.epoch, 1) + distributed.rank()
        )  # each process draws its own latents

    def on_train_epoch_end(self) -> None:
        names = self.svi.names
        means = self.svi.end_epoch()
        self._log({f"train/{n}": m for n, m in zip(names, means.tolist(), strict=True) if not math.isnan(m)})
        if self.interval == "epoch":
            self._schedule()

    def _schedule(self) -> None:
        """Lets the scheduler step."""
        schedulers: Any = self.lr_schedulers()  # Lightning gives one, a list of several, or None
        for scheduler in schedulers if isinstance(schedulers, list) else [s for s in (schedulers,) if s]:
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                scheduler.step(self.trainer.callback_metrics["val/loss"])
            elif scheduler.last_epoch + 1 == getattr(scheduler, "total_steps", None):
                pass  # a cycle's end: one step more and it would rise again
            elif self.svi.skipped or self.svi.scaler is not None:
                with warnings.catch_warnings():  # the optimizer's first step may have been a skipped one
                    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                    scheduler.step()
            else:
                scheduler.step()

    def _log(self, values: Mapping[str, float]) -> None:
        """Logs values that are the same in all processes."""
        self.log_dict(values, sync_dist=distributed.world_size() > 1)

    def on_validation_epoch_start(self) -> None:
        self._sums = torch.zeros(len(self.svi.names), dtype=torch.float64)
        self._rows = torch.zeros_like(self._sums)

    def on_validation_start(self) -> None:
        self._see_first(self.trainer.val_dataloaders)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds up each task's losses over its labelled rows."""
        self._add_losses(self._of_loader(batch, self.trainer.val_dataloaders, dataloader_idx), batch_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """As `validation_step`, on test data."""
        self._add_losses(self._of_loader(batch, self.trainer.test_dataloaders, dataloader_idx), batch_idx)

    def on_test_start(self) -> None:
        self._see_first(self.trainer.test_dataloaders)

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def on_test_epoch_end(self) -> None:
        self._log_means("test")

    def predict_step(self, batch: Any, batch_idx: int) -> PredictedBatch:
        """Draws for a batch: inputs alone, or with labels ``(x, y)``, which give densities."""
        args, kwargs = self._spread(batch)
        x, *labels = [*args, *kwargs.values()]
        y = labels[0] if labels and isinstance(labels[0], Mapping) else None
        return PredictedBatch(draw(self.svi.model, self.svi.guide, x, y, num_draws=self.num_draws, seed=self.seed))

    def _spread(self, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return spread(self._tasks.joined(batch))

    def _see_first(self, loaders: Any) -> None:
        """Looks at a batch of each task's own loader, so that a batch of one task has rows of the others."""
        if isinstance(loaders, Mapping):
            with forked(self.device):
                batch = self.trainer.precision_plugin.convert_input(first_batch(loaders))
            self._spread(self.trainer.strategy.batch_to_device(batch, self.device))

    @staticmethod
    def _of_loader(batch: Any, loaders: Any, number: int) -> Any:
        """The batch of one of several loaders, one after the other, with its task; of a joined loader as it is."""
        if isinstance(loaders, Mapping) and not (isinstance(batch, Mapping) and batch.keys() == loaders.keys()):
            return {list(loaders)[number]: batch}
        return batch

    def _add_losses(self, batch: Any, batch_idx: int) -> None:
        args, kwargs = self._spread(batch)
        # Draws in validation neither depend on training's nor move them: the same ones every epoch.
        with forked(self.device):
            seed_random_state(mixed_seed(self.seed, batch_idx, 2))
            found = self.svi.evaluate(*args, **kwargs)
        if len(self._sums) != len(found.labelled):  # the first batch of all has just told the tasks
            self.on_validation_epoch_start()
        self._sums += torch.where(found.labelled > 0, found.losses * found.labelled, 0.0)
        self._rows += found.labelled

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self._log_means("val")

    def _log_means(self, part: str) -> None:
        """Logs each task's mean loss over the rows of a part of the data, and what epochs are compared by."""
        means = distributed.sum_(self._sums) / distributed.sum_(self._rows)
        named = {n: m for n, m in zip(self.svi.names, means.tolist(), strict=True) if not math.isnan(m)}
        if not named:
            words = {"val": "validation", "test": "test"}
            raise ValueError(f"The {words[part]} data have no labelled row for any task.")
        if self.trainer.state.fn == "fit":  # and not `Trainer.validate`, which is not an epoch
            for name, mean in named.items():
                self.validation.setdefault(name, []).append(mean)
        self._log({f"{part}/{name}": mean for name, mean in named.items()})
        shadow = self.svi.probe.shadow if self.svi.probe is not None else ()
        self._log({f"{part}/loss": self._score({name: mean for name, mean in named.items() if name not in shadow})})

    def _score(self, losses: Mapping[str, float]) -> float:
        """The quantity by which epochs are compared."""
        if self.score == "mean":
            return sum(losses.values()) / len(losses)
        for name, loss in losses.items():
            if loss <= 0:
                raise ValueError(
                    f"score='log' takes logarithms of validation losses, and task {name!r} has {loss:.4g}. Use score='mean'."
                )
        return sum(map(math.log, losses.values())) / len(losses)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["bmtl"] = {"svi": self.svi.state_dict(), "validation": self.validation, "seed": self.seed}
        # The run's own state has both, by name, and is compared before anything is loaded.
        checkpoint["state_dict"], checkpoint["optimizer_states"] = {}, []
        checkpoint.update(sealed(checkpoint))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_entry(checkpoint)
        self._resumed = True
        self.svi.load_state_dict(checkpoint["bmtl"]["svi"])
        self.validation = checkpoint["bmtl"]["validation"]


class PredictedBatch:
    """The draws of a batch, as `Trainer.predict` returns them: Lightning would take a dataclass apart.

    Attributes:
        draws: As of `bmtl.draw`.
    """

    def __init__(self, draws: Draws) -> None:
        self.draws = draws


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
    with _quiet(), forked(None), _interruptible() as stopped:
        trainer = Trainer(
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            strategy="auto" if devices == 1 else "ddp",
            precision=precision,
            plugins=[CheckedFiles()],
            logger=csv_log(folder, resumed) if folder is not None else False,
            callbacks=used,
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
    if stopped:
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


@contextmanager
def _interruptible() -> Iterator[list[bool]]:
    """Turns Lightning's way of ending on Ctrl-C (exit, signal left ignored) into a flag."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    stopped: list[bool] = []
    try:
        yield stopped
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise  # a callback's own
        stopped.append(True)
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
