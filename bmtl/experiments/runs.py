"""Runs of methods on a data set, each to one results tree, and their comparison. The one module that knows every room."""

from __future__ import annotations

import functools
import itertools
import json
import os
import signal
import threading
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
import torch
import xarray as xr
from lightning.pytorch import Callback
from torch import nn

from bmtl.datasets import Batches, MultiTaskData
from bmtl.evaluation import comparison, plots, results
from bmtl.evaluation.attributes import decode_attributes, encode_attributes
from bmtl.evaluation.curves import training_curves
from bmtl.evaluation.style import save
from bmtl.evaluation.tables import best, caption, table
from bmtl.inference import BalancedSVI, TaskELBO, fit
from bmtl.inference import balancer as parse_balancer
from bmtl.inference.checkpoint import save as save_checkpoint
from bmtl.inference.draws import Draws, draw
from bmtl.inference.record import StepRecord, history_arrays
from bmtl.models import Homoscedastic, mlp


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes:
        name: Its name in tables and folders.
        balancer: String form of the balancer.
        noise: As for `bmtl.models.Homoscedastic`. Under "fixed" (the deterministic baseline) each target's noise is
            fitted on the validation rows after training, for predictions.
        head: "linear" or "bayesian".
        single_task: One network a target, each trained by itself (STL).
    """

    name: str
    balancer: str = "ew"
    noise: Literal["fixed", "parameter", "latent"] = "fixed"
    head: Literal["linear", "bayesian"] = "linear"
    single_task: bool = False

    @property
    def deterministic(self) -> bool:
        """Whether the program has no latent and the noise is fitted afterwards."""
        return self.noise == "fixed" and self.head == "linear"


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("stl", single_task=True),
        Method("ew"),
        Method("uw", "uw"),
        Method("igb-v1", "igb-v1"),
        Method("nash-mtl", "nash-mtl"),
        Method("igb-v1+nash", "igb-v1 >> nash-mtl"),
        Method("bayesian", noise="latent", head="bayesian"),
    )
}
"""The methods of the demo. All but "bayesian" are the unit-variance program with point-mass parameters."""


@dataclass(frozen=True)
class Budget:
    """What every method gets alike.

    Attributes:
        epochs: Number of epochs; the parameters of the one with the best validation likelihood are kept.
        batch_size: Rows in a batch.
        lr: Learning rate of Adam.
        widths: Widths of the trunk.
        draws: Posterior and predictive draws.
        score: What epochs are compared by: the validation "likelihood" (of a deterministic method at each target's best
            noise, which is the mean "log" of its squared errors), or "mean" or "log" as for `bmtl.fit`.
        plateau: Whether the learning rate falls to 0.7 of itself, down to 1e-5, when the score has not improved for five
            epochs; else it is constant.

    Raises:
        ValueError: If a number is not positive.
    """

    epochs: int = 30
    batch_size: int = 128
    lr: float = 2e-3
    widths: tuple[int, ...] = (128, 128)
    draws: int = 100
    score: Literal["likelihood", "mean", "log"] = "likelihood"
    plateau: bool = False

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("epochs", "batch_size", "lr", "draws")}
        wrong = [f"{name}={value}" for name, value in numbers.items() if not value > 0]
        if wrong or not self.widths or min(self.widths) < 1:
            raise ValueError(
                f"A budget's numbers are positive; {', '.join(wrong) or f'widths={self.widths}'} was given."
            )


def run(
    data: MultiTaskData,
    method: Method,
    seed: int,
    budget: Budget,
    folder: str | Path | None = None,
    *,
    callbacks: Sequence[Callback] = (),
) -> xr.DataTree:
    """Trains one method and returns its results tree, scored on the test rows.

    Args:
        data: With parts "train", "val" and "test". All targets are regressions, and each has a label in "val".
        method: What to train.
        seed: Of initial weights, order of batches, and draws.
        budget: How long and how large.
        folder: Where ``results.nc`` is written. An interrupted run leaves ``last.ckpt`` and ``partial.nc`` there, which
            holds the finished targets where each is trained by itself.
        callbacks: Further Lightning callbacks for the training.

    Raises:
        OSError: If `folder` cannot be written, before anything is trained.
        ValueError: If the data lack a part or a label, or hold classes, before anything is trained.
        KeyboardInterrupt: On Ctrl-C, after what was learnt so far has been written.
    """
    _check_data(data)
    out = None if folder is None else results.check_writable(folder)
    if out is not None:
        for name in ("last.ckpt", "partial.nc"):  # of an earlier run that was interrupted
            (out / name).unlink(missing_ok=True)
    parts = [data.subset([task]) for task in data.tasks] if method.single_task else [data]
    learnt: list[_Learnt] = []
    try:
        for part in parts:
            learnt.append(_train(part, method, seed, budget, out, callbacks))
    except KeyboardInterrupt as stop:
        if not learnt and isinstance(stop, _Stopped):
            learnt = [stop.learnt]
        if out is not None and learnt:
            partial = _run_tree(data, method, seed, budget, *_join(learnt))
            partial.attrs["interrupted"] = 1
            results.write(partial, out / "partial.nc")
        raise
    tree = _run_tree(data, method, seed, budget, *_join(learnt))
    if out is not None:
        results.write(tree, out / "results.nc")
    return tree


# For the test rows, by step, and the mean absolute error on the validation rows in scaled units.
_Learnt = tuple[Draws, dict[str, np.ndarray], dict[str, float]]


class _Stopped(KeyboardInterrupt):
    """An interruption of training, with what was learnt until then."""

    def __init__(self, learnt: _Learnt) -> None:
        super().__init__("Training was interrupted.")
        self.learnt = learnt


def _check_data(data: MultiTaskData) -> None:
    lacking = [part for part in ("train", "val", "test") if part not in data.rows]
    if lacking:
        raise ValueError(f"A run needs the parts {', '.join(lacking)}, and the data set has {', '.join(data.rows)}.")
    _check_kinds(data)
    unlabelled = [task for task in data.tasks if np.isnan(data.y[task][data.rows["val"]]).all()]
    if unlabelled:
        raise ValueError(f"Targets without a label in the part 'val': {', '.join(unlabelled)}. Leave them out.")


def _check_kinds(data: MultiTaskData) -> None:
    classes = [task for task, kind in data.kinds.items() if kind != "regression"]
    if classes:
        raise ValueError(
            f"Results trees hold regressions, and these targets are classes: {', '.join(classes)}. Leave them out with "
            "data.subset([...])."
        )


def _train(
    data: MultiTaskData,
    method: Method,
    seed: int,
    budget: Budget,
    folder: Path | None,
    callbacks: Sequence[Callback],
) -> _Learnt:
    model, guide, svi, train = _build(data, method, seed, budget)
    val = Batches(*data.tensors("val"), batch_size=1024, shuffle=False)
    score: Literal["mean", "log"] = "log" if method.deterministic else "mean"
    if budget.score != "likelihood":
        score = budget.score
    try:
        fit(
            svi,
            train,
            val,
            max_epochs=budget.epochs,
            scheduler=_plateau if budget.plateau else None,
            score=score,
            seed=seed,
            progress=False,
            callbacks=callbacks,
        )
    except KeyboardInterrupt as stop:
        if not svi.steps:
            raise
        if folder is not None:
            save_checkpoint(svi, folder / "last.ckpt")
        raise _Stopped(_read_off(data, model, guide, svi, method, seed, budget)) from stop
    return _read_off(data, model, guide, svi, method, seed, budget)


def _build(
    data: MultiTaskData, method: Method, seed: int, budget: Budget
) -> tuple[Homoscedastic, nn.Module, BalancedSVI, Batches]:
    """What a method trains, before its first step, and the batches that it trains on."""
    generator = torch.Generator().manual_seed(seed)
    x, y = data.tensors("train")
    model = Homoscedastic(
        mlp(x.shape[1], budget.widths, generator=generator),
        budget.widths[-1],
        data.kinds,
        len(x),
        noise=method.noise,
        head=method.head,
        generator=generator,
    )
    guide = model.guide()
    elbo = TaskELBO("analytic", weigh="tasks" if method.deterministic else "data")
    optim = functools.partial(torch.optim.Adam, lr=budget.lr, fused=True)
    svi = BalancedSVI(model, guide, optim, method.balancer, elbo)
    return model, guide, svi, Batches(x, y, budget.batch_size, seed=seed)


def step_seconds(
    data: MultiTaskData, methods: Sequence[Method], budget: Budget, *, steps: int = 40
) -> dict[str, float]:
    """Median time of a step of each method, measured side by side: the methods take turns, a step each, in one thread.

    A drift of the machine's speed then hits all alike, where times that separate runs recorded would differ by it. Methods
    with a network a target are left out.

    Args:
        data: What is trained on.
        methods: What is timed.
        budget: Size of network and batch.
        steps: Timed steps of each; five more come first.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            timed = {m.name: _build(data, m, 0, budget)[2:] for m in methods if not m.single_task}
            times: dict[str, list[float]] = {name: [] for name in timed}
            batches = {
                name: itertools.chain.from_iterable(itertools.repeat(train)) for name, (_, train) in timed.items()
            }
            for turn in range(steps + 5):
                for name, (svi, train) in timed.items():
                    record = svi.step(*next(batches[name]))
                    if turn >= 5:
                        times[name].append(record.seconds["step"])
                    if (turn + 1) % len(train) == 0:
                        svi.end_epoch()
    finally:
        torch.set_num_threads(threads)
    return {name: float(np.median(values)) for name, values in times.items()}


def _plateau(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.7, patience=5, min_lr=1e-5)


def _read_off(
    data: MultiTaskData, model: Homoscedastic, guide: Any, svi: BalancedSVI, method: Method, seed: int, budget: Budget
) -> _Learnt:
    x, y = data.tensors("val")
    fitted = draw(model, guide, x, num_draws=1 if method.deterministic else budget.draws, seed=seed)
    residuals = {task: y[task].numpy() - fitted.mean[task] for task in data.tasks}
    if method.deterministic:
        model.set_noise({task: float(np.sqrt(np.nanmean(values**2))) for task, values in residuals.items()})
    validation = {task: float(np.nanmean(np.abs(values))) for task, values in residuals.items()}
    x, y = data.tensors("test")
    return draw(model, guide, x, y, num_draws=budget.draws, seed=seed), history_arrays(svi.history), validation


def results_tree(
    data: MultiTaskData,
    drawn: Draws,
    history: Sequence[StepRecord] | Mapping[str, np.ndarray] = (),
    *,
    part: str = "test",
    method: str | None = None,
    balancer: str | None = None,
    seed: int | None = None,
    configuration: Mapping[str, object] | None = None,
) -> xr.DataTree:
    """The results tree of a run: draws in the model's scaled units become reported units.

    Args:
        data: What was learnt from, or ``data.subset(...)``; all targets are regressions. Those that were drawn too are in
            the tree.
        drawn: From `bmtl.draw` for the rows of `part`.
        history: ``svi.history``, or its arrays with the targets as tasks.
        part: The part of the data that was drawn for.
        method: Name for tables and legends.
        balancer: String form of the balancer.
        seed: The run's seed.
        configuration: Everything else that was set.

    Raises:
        ValueError: If a target is of classes, or what was drawn does not fit the data's targets or rows.
    """
    _check_kinds(data)
    scalers = {task: data.y_scalers[task] for task in data.tasks if task in drawn.mean}
    if not scalers:
        raise ValueError(f"What was drawn has the targets {list(drawn.mean)}, and the data have {list(data.tasks)}.")
    scored = set(scalers) <= set(drawn.log_likelihood)  # labels were given
    rows = data.rows[part]
    tasks = tuple(scalers)
    if not isinstance(history, Mapping) and history:
        tasks = history[-1].names  # a model may have its tasks in another order, or several for one target
    arrays = history if isinstance(history, Mapping) else history_arrays(history) if history else None

    def in_units(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {task: scaler.inverse(values[task]) for task, scaler in scalers.items()}

    return results.to_datatree(
        observed={task: data.y[task][rows] for task in scalers},
        predictive=in_units(drawn.predictive),
        # A density per unit is that of the scaled target over the unit's scale.
        log_likelihood={n: drawn.log_likelihood[n] - np.log(s.std) for n, s in scalers.items()} if scored else None,
        predictive_mean=in_units(drawn.mean),
        pit={task: drawn.pit[task] for task in scalers} if set(scalers) <= set(drawn.pit) else None,
        posterior=drawn.posterior or None,
        target_location={task: float(scaler.mean) for task, scaler in scalers.items()},
        target_scale={task: float(scaler.std) for task, scaler in scalers.items()},
        units={task: data.units[task] for task in scalers},
        training=arrays,
        tasks=tasks,
        method=method,
        balancer=balancer,
        seed=seed,
        configuration=configuration,
        data_name=data.name,
        data_fingerprint=data.fingerprint,
    )


def _run_tree(
    data: MultiTaskData,
    method: Method,
    seed: int,
    budget: Budget,
    drawn: Draws,
    arrays: dict[str, np.ndarray],
    validation: dict[str, float],
) -> xr.DataTree:
    tree = results_tree(
        data,
        drawn,
        arrays,
        method=method.name,
        balancer=method.balancer,
        seed=seed,
        configuration=_configuration(method, budget),
    )
    in_units = {task: value * float(data.y_scalers[task].std) for task, value in validation.items()}
    tree.attrs = encode_attributes({**decode_attributes(tree), "validation_mae": in_units})
    return tree


def _configuration(method: Method, budget: Budget) -> dict[str, object]:
    return {
        "method": asdict(method),
        "budget": asdict(budget),
        "noise_for_predictions": "fitted on validation" if method.deterministic else "in the program",
        "selection": f"epoch with the best {budget.score} on validation",
    }


def validation_mae(tree: xr.DataTree) -> dict[str, float]:
    """Mean absolute error of a run on the rows it was selected on, by target and in its unit: to choose settings by.

    Args:
        tree: From `run`.

    Raises:
        ValueError: If the tree does not have it.
    """
    found = decode_attributes(tree).get("validation_mae")
    if not isinstance(found, dict):
        raise ValueError("This tree has no validation errors: it was not written by this version's run().")
    return found


def _join(parts: Sequence[_Learnt]) -> _Learnt:
    """Single-task runs as one, their histories side by side; a step of all tasks takes the sum of their times."""
    if len(parts) == 1:
        return parts[0]
    fields = ("posterior", "predictive", "mean", "log_likelihood", "pit")
    drawn = Draws(**{name: {k: v for d, *_ in parts for k, v in getattr(d, name).items()} for name in fields})
    histories = [arrays for _, arrays, _ in parts]
    validation = {task: error for *_, errors in parts for task, error in errors.items()}
    by_task = ("losses", "weights", "weights_heads")
    history = {
        "step": histories[0]["step"],
        "epoch": histories[0]["epoch"],
        **{name: np.concatenate([arrays[name] for arrays in histories], axis=1) for name in by_task},
        "seconds": np.sum([arrays["seconds"] for arrays in histories], axis=0),
    }
    return drawn, history, validation


# ---- Comparisons -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One run of a comparison."""

    method: Method
    seed: int

    def folder(self, out: Path) -> Path:
        """Where its files lie."""
        return out / self.method.name / f"seed-{self.seed}"


@dataclass(frozen=True)
class Comparison:
    """What a comparison came to: the scores, and the run files by (method, seed)."""

    scores: xr.Dataset
    trees: Mapping[tuple[str, int], xr.DataTree]


def compare(
    data: MultiTaskData,
    methods: Sequence[Method],
    seeds: Sequence[int],
    budget: Budget,
    out: str | Path,
    *,
    jobs: int | None = None,
    timed_steps: int = 40,
    done: Callable[[Cell], None] = lambda cell: None,
) -> Comparison:
    """Trains every method with every seed and compares them.

    Writes ``<method>/seed-<n>/results.nc`` for each run, ``comparison.nc``, ``table.csv``, and three pictures
    (``training.png``, ``reliability.png``, ``conflicts.png``) under `out`.

    Args:
        data: With parts "train", "val" and "test".
        methods: What to compare; delta_m is taken against "stl", step times against "ew", where they are among them.
        seeds: Seeds.
        budget: What each gets.
        out: Folder.
        jobs: Processes; by default as many as there are processors, at most one a run. With 1 nothing is forked.
        timed_steps: Steps of each method that are timed side by side at the end.
        done: Called with each finished run.

    Raises:
        OSError: If `out` cannot be written, before anything is trained.
        ValueError: If there is no method or no seed, one stands twice, or the data or a balancer will not do; before
            anything is trained.
        KeyboardInterrupt: On Ctrl-C. Runs under way write what they have, as `run` does. Before this or any other error of
            a run, the finished ones are compared and written.
    """
    folder = results.check_writable(out)
    if not methods or not seeds:
        raise ValueError("A comparison needs at least one method and one seed.")
    for what, given in (("methods", [method.name for method in methods]), ("seeds", list(seeds))):
        if len(set(given)) < len(given):
            raise ValueError(f"The {what} of a comparison must differ, and {given} were given.")
    for method in methods:
        parse_balancer(method.balancer)
    _check_data(data)
    # The longest first, so that no process ends up alone with it.
    cells = sorted((Cell(m, s) for s in seeds for m in methods), key=lambda cell: not cell.method.single_task)
    jobs = min(jobs or os.cpu_count() or 1, len(cells))
    finished: list[Cell] = []
    try:
        with closing(_run_all(data, cells, budget, folder, jobs)) as running:
            for cell in running:
                finished.append(cell)
                done(cell)
    except (KeyboardInterrupt, Exception):
        if finished:
            _write_comparison(finished, methods, folder)
        raise
    return _write_comparison(finished, methods, folder, step_seconds(data, methods, budget, steps=timed_steps))


def run_cells(
    data: MultiTaskData, cells: Sequence[Cell], budget: Budget, out: str | Path, *, jobs: int | None = None
) -> Generator[Cell, None, None]:
    """Trains what is not yet there of a comparison, and gives each cell once its ``results.nc`` lies in `out`.

    A file counts as there if it can be read and was written for the same data, method, seed and budget.

    Args:
        data: As for `run`.
        cells: What to run; those that are there come first.
        budget: What each gets.
        out: Folder.
        jobs: Processes, as for `compare`.

    Raises:
        OSError, ValueError, KeyboardInterrupt: As `compare` does. What was finished stays.
    """
    folder = results.check_writable(out)
    for cell in cells:
        parse_balancer(cell.method.balancer)
    _check_data(data)
    there = [cell for cell in cells if _finished(data, cell, budget, folder)]
    yield from there
    missing = sorted((cell for cell in cells if cell not in there), key=lambda cell: not cell.method.single_task)
    if missing:
        yield from _run_all(data, missing, budget, folder, min(jobs or os.cpu_count() or 1, len(missing)))


def _finished(data: MultiTaskData, cell: Cell, budget: Budget, out: Path) -> bool:
    path = cell.folder(out) / "results.nc"
    if not path.is_file():
        return False
    try:
        about = decode_attributes(results.read(path))
    except results.ResultsFileError:
        return False
    asked = json.loads(json.dumps(_configuration(cell.method, budget)))  # tuples become lists
    found = about.get("configuration"), about.get("seed"), about.get("data_fingerprint")
    return found == (asked, cell.seed, data.fingerprint) and "validation_mae" in about


def _run_all(
    data: MultiTaskData, cells: Sequence[Cell], budget: Budget, out: Path, jobs: int
) -> Generator[Cell, None, None]:
    if jobs == 1:
        for cell in cells:
            yield _run_cell(data, cell, budget, out)
        return
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    with _ctrl_c_as_file(out / f".stop-{uuid.uuid4().hex[:12]}") as stop:
        try:
            for cell in parallel(joblib.delayed(_run_in_process)(data, cell, budget, out, stop) for cell in cells):
                if cell is not None:
                    yield cell
        except Exception as error:
            if stop.exists():  # Ctrl-C hit a process that had not begun
                raise KeyboardInterrupt from error
            raise
        if stop.exists():
            raise KeyboardInterrupt


def _run_cell(data: MultiTaskData, cell: Cell, budget: Budget, out: Path, callbacks: Sequence[Callback] = ()) -> Cell:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks of this size are slower on two
    try:
        run(data, cell.method, cell.seed, budget, cell.folder(out), callbacks=callbacks)
    finally:
        torch.set_num_threads(threads)
    return cell


@contextmanager
def _ctrl_c_as_file(path: Path) -> Iterator[Path]:
    """Turns the first Ctrl-C into a file that all processes see: on an exception, joblib would kill them as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield path  # signals are the main thread's
        return
    usual = signal.getsignal(signal.SIGINT)

    def stop(*args: Any) -> None:
        path.touch()
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, stop)
    try:
        yield path
    finally:
        signal.signal(signal.SIGINT, usual)
        path.unlink(missing_ok=True)


class _StopAtFile(Callback):
    """Interrupts training once there is a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, *args: Any) -> None:
        if self.path.exists():
            raise KeyboardInterrupt


def _run_in_process(data: MultiTaskData, cell: Cell, budget: Budget, out: Path, stop: Path) -> Cell | None:
    """A run in a process of its own; None if it was interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches every process: the file tells when
    try:
        return None if stop.exists() else _run_cell(data, cell, budget, out, [_StopAtFile(stop)])
    except KeyboardInterrupt:
        return None


def _write_comparison(
    cells: Sequence[Cell], methods: Sequence[Method], out: Path, seconds: Mapping[str, float] | None = None
) -> Comparison:
    order = {method.name: i for i, method in enumerate(methods)}
    cells = sorted(cells, key=lambda cell: (order[cell.method.name], cell.seed))
    trees = {(c.method.name, c.seed): results.read(c.folder(out) / "results.nc") for c in cells}
    names = {name for name, _ in trees}
    scores = comparison.compare(
        trees,
        baseline="stl" if "stl" in names else None,
        reference="ew" if "ew" in names else None,
        step_seconds=seconds,
    )
    results.write(scores, out / "comparison.nc")
    table(scores).to_csv(out / "table.csv")
    first = min(seed for _, seed in trees)
    shown = {name: tree for (name, seed), tree in trees.items() if seed == first}
    save(training_curves(shown), out / "training.png")
    save(plots.reliability_curves(shown), out / "reliability.png")
    measured = next((t for t in shown.values() if _measured(t)), None)
    if measured is not None:
        save(plots.cosine_matrix(measured), out / "conflicts.png")
    return Comparison(scores, trees)


def _measured(tree: xr.DataTree) -> bool:
    """Whether a run measured the cosines of its task gradients."""
    training = tree["training"].to_dataset()
    return "cosine" in training and bool(training["cosine"].notnull().any())


def demo(
    data: MultiTaskData,
    out: str | Path,
    *,
    quick: bool = False,
    seeds: int = 2,
    epochs: int | None = None,
    jobs: int | None = None,
    done: Callable[[Cell], None] = lambda cell: None,
) -> Comparison:
    """The comparison that ``bmtl demo`` shows: every method of `METHODS`.

    Args:
        data: `bmtl.datasets.load("qm9-mini")`.
        out: Folder.
        quick: A few epochs of one seed: shows that everything runs, not how well.
        seeds: Number of seeds.
        epochs: Number of epochs; by default `Budget`'s, or 2 of a quick one.
        jobs: Processes, as for `compare`; by default 1 for a quick one, where starting another would take longest.
        done: As for `compare`.
    """
    budget = Budget()
    if quick:
        budget, seeds, jobs = replace(budget, epochs=2, draws=20), 1, jobs or 1
    if epochs is not None:
        budget = replace(budget, epochs=epochs)
    steps = 10 if quick else 40
    return compare(data, tuple(METHODS.values()), range(seeds), budget, out, jobs=jobs, timed_steps=steps, done=done)


__all__ = [
    "METHODS",
    "Budget",
    "Cell",
    "Comparison",
    "Method",
    "best",
    "caption",
    "compare",
    "demo",
    "results_tree",
    "run",
    "run_cells",
    "step_seconds",
    "table",
    "validation_mae",
]
