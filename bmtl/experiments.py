"""Runs of methods on a data set, each to one results tree, and their comparison. The one module that knows every room."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
import torch
import xarray as xr

from bmtl.datasets import Batches, MultiTaskData
from bmtl.evaluation import comparison, plots, results
from bmtl.evaluation.curves import training_curves
from bmtl.evaluation.style import save
from bmtl.evaluation.tables import best, caption, table
from bmtl.inference import BalancedSVI, TaskELBO, fit
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
        epochs: Number of epochs; the parameters of the best one on validation are kept.
        batch_size: Rows in a batch.
        lr: Learning rate of Adam.
        widths: Widths of the trunk.
        draws: Posterior and predictive draws.
    """

    epochs: int = 60
    batch_size: int = 128
    lr: float = 2e-3
    widths: tuple[int, ...] = (128, 128)
    draws: int = 100


def run(data: MultiTaskData, method: Method, seed: int, budget: Budget, folder: Path | None = None) -> xr.DataTree:
    """Trains one method and returns its results tree, scored on the test rows.

    Args:
        data: With parts "train", "val" and "test".
        method: What to train.
        seed: Of initial weights, order of batches, and draws.
        budget: How long and how large.
        folder: Where ``results.nc`` is written, and ``last.ckpt`` if the run is interrupted.

    Raises:
        KeyboardInterrupt: On Ctrl-C, after what was learnt so far has been written.
    """
    if method.single_task:
        parts = [_train(data.subset([task]), method, seed, budget, folder) for task in data.tasks]
        drawn, arrays = _join([p[0] for p in parts]), _join_histories([p[1] for p in parts])
    else:
        drawn, arrays = _train(data, method, seed, budget, folder)
    tree = _run_tree(data, method, seed, budget, drawn, arrays)
    if folder is not None:
        results.write(tree, folder / "results.nc")
    return tree


def _train(
    data: MultiTaskData, method: Method, seed: int, budget: Budget, folder: Path | None
) -> tuple[Draws, dict[str, np.ndarray]]:
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
    train = Batches(x, y, budget.batch_size, seed=seed)
    val = Batches(*data.tensors("val"), batch_size=1024, shuffle=False)
    try:
        fit(svi, train, val, max_epochs=budget.epochs, seed=seed, progress=False)
    except KeyboardInterrupt:
        if folder is not None and svi.steps and not method.single_task:
            save_checkpoint(svi, folder / "last.ckpt")
            partial = _run_tree(data, method, seed, budget, *_read_off(data, model, guide, svi, method, seed, budget))
            partial.attrs["interrupted"] = 1
            results.write(partial, folder / "partial.nc")
        raise
    return _read_off(data, model, guide, svi, method, seed, budget)


def _read_off(
    data: MultiTaskData, model: Homoscedastic, guide: Any, svi: BalancedSVI, method: Method, seed: int, budget: Budget
) -> tuple[Draws, dict[str, np.ndarray]]:
    if method.deterministic:
        x, y = data.tensors("val")
        fitted = draw(model, guide, x, num_draws=1)
        model.set_noise(
            {
                task: float(np.sqrt(np.nanmean((y[task].numpy() - fitted.mean[task]) ** 2)))
                for task, kind in data.kinds.items()
                if kind == "regression"
            }
        )
    x, y = data.tensors("test")
    return draw(model, guide, x, y, num_draws=budget.draws, seed=seed), history_arrays(svi.history)


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
        data: What was learnt from.
        drawn: From `bmtl.draw`, with the labels of `part`.
        history: ``svi.history``, or its arrays.
        part: The part of the data that was drawn for.
        method: Name for tables and legends.
        balancer: String form of the balancer.
        seed: The run's seed.
        configuration: Everything else that was set.
    """
    scalers = data.y_scalers
    rows = data.rows[part]
    regressions = [task for task in drawn.mean if data.kinds[task] == "regression"]
    log_scale = {task: float(np.log(scalers[task].std)) for task in regressions}
    arrays = history if isinstance(history, Mapping) else history_arrays(history) if history else None

    def in_units(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {task: scalers[task].inverse(v) if task in scalers else v for task, v in values.items()}

    return results.to_datatree(
        observed={task: data.y[task][rows] for task in drawn.mean},
        predictive=in_units(drawn.predictive),
        log_likelihood={task: v - log_scale.get(task, 0.0) for task, v in drawn.log_likelihood.items()},
        predictive_mean=in_units({task: drawn.mean[task] for task in regressions}) if regressions else None,
        pit=drawn.pit or None,
        posterior=drawn.posterior or None,
        target_location={task: float(scalers[task].mean) for task in regressions},
        target_scale={task: float(scalers[task].std) for task in regressions},
        units=data.units,
        training=arrays,
        tasks=data.tasks,
        method=method,
        balancer=balancer,
        seed=seed,
        configuration=configuration,
        data_name=data.name,
        data_fingerprint=data.fingerprint,
    )


def _run_tree(
    data: MultiTaskData, method: Method, seed: int, budget: Budget, drawn: Draws, arrays: dict[str, np.ndarray]
) -> xr.DataTree:
    return results_tree(
        data,
        drawn,
        arrays,
        method=method.name,
        balancer=method.balancer,
        seed=seed,
        configuration={
            "method": asdict(method),
            "budget": asdict(budget),
            "noise_for_predictions": "fitted on validation" if method.deterministic else "in the program",
            "selection": "best epoch on validation",
        },
    )


def _join(parts: Sequence[Draws]) -> Draws:
    """Single-task draws as one."""
    fields = ("posterior", "predictive", "mean", "log_likelihood", "pit")
    return Draws(**{name: {k: v for part in parts for k, v in getattr(part, name).items()} for name in fields})


def _join_histories(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Single-task histories side by side; a step of all tasks takes the sum of their times."""
    joined = {name: np.concatenate([p[name] for p in parts], axis=1) for name in ("losses", "weights", "weights_heads")}
    first = parts[0]
    return {
        "step": first["step"],
        "epoch": first["epoch"],
        **joined,
        "seconds": np.sum([p["seconds"] for p in parts], axis=0),
    }


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
        done: Called with each finished run.

    Raises:
        OSError: If `out` cannot be written, before anything is trained.
        ValueError: If there is no method or no seed.
        KeyboardInterrupt: On Ctrl-C. Finished runs are compared and written before.
    """
    folder = results.check_writable(out)
    if not methods or not seeds:
        raise ValueError("A comparison needs at least one method and one seed.")
    # The longest first, so that no process ends up alone with it.
    cells = sorted((Cell(m, s) for s in seeds for m in methods), key=lambda cell: not cell.method.single_task)
    jobs = min(jobs or os.cpu_count() or 1, len(cells))
    finished: list[Cell] = []
    try:
        for cell in _run_all(data, cells, budget, folder, jobs):
            finished.append(cell)
            done(cell)
    except KeyboardInterrupt:
        if finished:
            _write_comparison(finished, methods, folder)
        raise
    return _write_comparison(finished, methods, folder)


def _run_all(data: MultiTaskData, cells: Sequence[Cell], budget: Budget, out: Path, jobs: int) -> Iterator[Cell]:
    if jobs == 1:
        for cell in cells:
            yield _run_cell(data, cell, budget, out)
        return
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    yield from parallel(joblib.delayed(_run_cell)(data, cell, budget, out) for cell in cells)


def _run_cell(data: MultiTaskData, cell: Cell, budget: Budget, out: Path) -> Cell:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks of this size are slower on two
    try:
        run(data, cell.method, cell.seed, budget, cell.folder(out))
    finally:
        torch.set_num_threads(threads)
    return cell


def _write_comparison(cells: Sequence[Cell], methods: Sequence[Method], out: Path) -> Comparison:
    order = {method.name: i for i, method in enumerate(methods)}
    cells = sorted(cells, key=lambda cell: (order[cell.method.name], cell.seed))
    trees = {(c.method.name, c.seed): results.read(c.folder(out) / "results.nc") for c in cells}
    names = {name for name, _ in trees}
    scores = comparison.compare(
        trees, baseline="stl" if "stl" in names else None, reference="ew" if "ew" in names else None
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
    jobs: int | None = None,
    done: Callable[[Cell], None] = lambda cell: None,
) -> Comparison:
    """The comparison that ``bmtl demo`` shows: every method of `METHODS`.

    Args:
        data: `bmtl.datasets.load("qm9-mini")`.
        out: Folder.
        quick: A few epochs of one seed: shows that everything runs, not how well.
        seeds: Number of seeds.
        jobs: Processes, as for `compare`.
        done: As for `compare`.
    """
    budget = Budget()
    if quick:
        budget, seeds = replace(budget, epochs=4, draws=20), 1
    return compare(data, tuple(METHODS.values()), range(seeds), budget, out, jobs=jobs, done=done)


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
    "table",
]
