"""A `BalancedSVI` as a Lightning module."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule

from bmtl.inference import distributed
from bmtl.inference.arguments import choice, positive_number, whole_number
from bmtl.inference.checkpoint import check_entry, sealed
from bmtl.inference.draws import DRAWS, draw
from bmtl.inference.loaders import batch_aside, first_batch, forked, mixed_seed, seed_random_state, spread
from bmtl.inference.loaders_by_task import TaskBatches
from bmtl.inference.optimizers import needs_closure
from bmtl.inference.predictives import Draws
from bmtl.inference.svi import BalancedSVI

Scheduler = torch.optim.lr_scheduler.LRScheduler | torch.optim.lr_scheduler.ReduceLROnPlateau


class BalancedTraining(LightningModule):
    """A `BalancedSVI` as a Lightning module, in manual optimisation.

    `fit` makes one; under a `Trainer` of your own it gives you Lightning's loggers, callbacks and devices. It logs
    ``train/<task>`` and, with validation data, ``val/<task>`` (mean negative log-likelihood per labelled row) and
    ``val/loss`` after each epoch.

    Under your own `Trainer`, Lightning moves batches to the device: it supports tensors in dicts, tuples and dataclasses,
    and any object with a method ``to``. `fit` moves all that `bmtl.inputs` supports.

    `Trainer.validate` and `Trainer.test` log ``val/...`` and ``test/...``; `Trainer.predict` returns a `PredictedBatch` of
    each batch, and of loaders by task a list for each, with its targets alone. A mapping of loaders, one a task, of batches
    ``(x, y)``, as Lightning's `CombinedLoader` has it, is joined to batches ``(PerTask(x), y)``; a task that a batch lacks
    is absent from the step.

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
        self._taken = 0  # batches since the optimizer's last step that were not skipped
        self._last: tuple[Any, Any] | None = None  # the last of them
        self._random: dict[str, Any] | None = None  # as it was where the run that is resumed was in an epoch
        self._gradients: dict[str, torch.Tensor] = {}  # which it had accumulated

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
        elif self._random is not None:  # resumed in the middle of an epoch
            torch.set_rng_state(self._random["torch"])
            if self._random["cuda"]:
                torch.cuda.set_rng_state_all(self._random["cuda"])
        self._random = None
        if batch_idx % self.accumulate == 0:
            self.svi.zero_grad()
            self._taken, self._last = 0, None
        record = self.svi.backward(*args, **kwargs)
        if record.status != "skipped":
            self._taken, self._last = self._taken + 1, (args, kwargs)
        ends = (batch_idx + 1) % self.accumulate == 0 or self.trainer.is_last_batch
        if ends and self._taken:
            self.svi.scale_gradients(1.0 / self._taken)
            if self.clip is not None:
                torch.nn.utils.clip_grad_norm_(self.svi.parameters, self.clip * self.svi.scale)
            optimizer.step(self.svi.closure())
            self.svi.accumulated = False
            if self._last is not None:  # none where a run was resumed and no batch was taken since
                args, kwargs = self._last
                self.svi.after_step(*args, **kwargs)
        if ends and self.interval == "step":
            self._schedule()
        record.seconds["step"] = time.perf_counter() - start

    def on_train_start(self) -> None:
        """Goes on where a resumed run was in an epoch: with its gradients, and the places of loaders that keep a state.

        Lightning clears gradients after it has loaded a state, and puts loaders to their places when it sets up the data: it
        has done that before it knew of a state, for `configure_optimizers`.
        """
        if self._gradients:
            self.svi.load_gradients(self._gradients)
            self._gradients = {}
        loop = self.trainer.fit_loop
        if self._resumed and loop._combined_loader_states_to_load:
            loop._load_combined_loader_states()
            iter(loop._data_fetcher)  # type: ignore[arg-type]  # the iterators that there are began anew

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

    def on_predict_start(self) -> None:
        self._see_first(self.trainer.predict_dataloaders)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> PredictedBatch:
        """Draws for a batch: inputs alone, or with labels ``(x, y)``, which give densities."""
        loaders = self.trainer.predict_dataloaders
        of_task = self._of_loader(batch, loaders, dataloader_idx)
        if isinstance(loaders, Mapping):
            of_task = {task: _paired(part) for task, part in of_task.items()}
        args, kwargs = self._spread(of_task)
        x, *labels = [*args, *kwargs.values()]
        y = labels[0] if labels and isinstance(labels[0], Mapping) else None
        draws = draw(self.svi.model, self.svi.guide, x, y or None, num_draws=self.num_draws, seed=self.seed)
        if isinstance(loaders, Mapping):  # the other tasks have a row to fill their place
            ((task, (_, own)),) = of_task.items()
            wanted = set(own) if isinstance(own, Mapping) and own else {task}
            targets = {name: target for name, target in draws.targets.items() if name in wanted}
            draws = replace(draws, targets=targets or draws.targets)
        return PredictedBatch(draws)

    def _spread(self, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return spread(self._tasks.joined(batch))

    def _see_first(self, loaders: Any) -> None:
        """Looks at a batch of each task's own loader, so that a batch of one task has rows of the others."""
        if isinstance(loaders, Mapping):
            with forked(self.device):
                batch = {task: _paired(batch_aside(loader)) for task, loader in loaders.items()}
            batch = self.trainer.precision_plugin.convert_input(batch)
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
        if len(self._sums) != len(found.labelled):  # the tasks are known from the first batch on
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
        checkpoint["bmtl"] = {
            "svi": self.svi.state_dict(),
            "validation": self.validation,
            "seed": self.seed,
            "taken": self._taken if self.svi.accumulated else 0,
            "generators": {
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
        }
        # The run's own state has both, by name, and is compared before anything is loaded.
        checkpoint["state_dict"], checkpoint["optimizer_states"] = {}, []
        checkpoint.update(sealed(checkpoint))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_entry(checkpoint)
        self._resumed = True
        self.svi.load_state_dict(checkpoint["bmtl"]["svi"])
        self.validation = checkpoint["bmtl"]["validation"]
        self._taken, self._random = checkpoint["bmtl"]["taken"], checkpoint["bmtl"]["generators"]
        self._gradients = checkpoint["bmtl"]["svi"]["gradients"]


def _paired(batch: Any) -> Any:
    """A batch of one task's loader with its labels, of which inputs alone have none."""
    if not isinstance(batch, tuple | list) or hasattr(batch, "_fields"):
        return batch, {}
    return batch if len(batch) > 1 else (batch[0], {})


class PredictedBatch:
    """The draws of a batch, as `Trainer.predict` returns them: Lightning would take a dataclass apart.

    Attributes:
        draws: As of `bmtl.draw`.
    """

    def __init__(self, draws: Draws) -> None:
        self.draws = draws
