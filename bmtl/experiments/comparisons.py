"""Comparisons: a grid of runs with one budget and reference rows, and the files, tables and pictures made of them."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from bmtl.datasets import MultiTaskData
from bmtl.evaluation import results
from bmtl.evaluation.storage import atomic
from bmtl.experiments.budgets import Budget
from bmtl.experiments.cells import Cell, Failure, Splits
from bmtl.experiments.grid import run_cells
from bmtl.experiments.grid_checks import BASELINE, check_grid, check_scores
from bmtl.experiments.methods import Method
from bmtl.experiments.numerics import check_device
from bmtl.experiments.outputs import Trees, write_comparison
from bmtl.experiments.references import REFERENCES, run_references
from bmtl.experiments.runs import validation_score
from bmtl.experiments.timing import step_seconds
from bmtl.experiments.zoo import method

Done = Callable[[Cell | Failure], None]


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        scores: From `bmtl.evaluation.comparison.compare`; a split is a pair of split and seed, numbered in that order.
        trees: Results by (learner, number of the split): methods, then references.
        failures: Cells that failed, including those for the choice of a learning rate.
        rates: Learning rate by method, where one was chosen.
    """

    scores: xr.Dataset
    trees: Mapping[tuple[str, int], xr.DataTree]
    failures: Sequence[Failure] = ()
    rates: Mapping[str, float] | None = None


class AllFailed(RuntimeError):
    """No run of a comparison finished; the message names the first reason."""


def compare(
    data: Splits,
    methods: Sequence[Method | str],
    seeds: Iterable[int],
    budget: Budget,
    out: str | Path,
    *,
    rates: Sequence[float] = (),
    baseline: str | None = BASELINE,
    primary: str | Mapping[str, str] | None = None,
    reference: bool | Sequence[str] = True,
    trust: bool = False,
    jobs: int | None = None,
    dask: str | None = None,
    timed_steps: int = 40,
    command: str | None = None,
    pictures: bool = True,
    done: Done = lambda outcome: None,
) -> Comparison:
    """Trains every method on every split with every seed and compares them.

    Writes ``<method>/<split and seed>/results.nc`` for each run, ``comparison.nc``, ``table.csv``, ``table.tex``,
    ``table.md`` and pictures under `out`. What is there of the same comparison is not done again, so that one which was
    interrupted is continued where it ended.

    Args:
        data: With parts "train", "val" and "test"; a sequence of data sets is one for each split.
        methods: The methods to compare, or what `bmtl.experiments.method` takes, such as their names; step times are taken
            over the first of "ew" and the methods given.
        seeds: Seeds; each split is run with each.
        budget: Budget of each run.
        out: Folder.
        rates: Learning rates, from which each method gets the one with the best validation score on the first split with
            the first seed; none: the budget's.
        baseline: Method that delta_m and paired differences are taken against; the default counts only if it is among the
            methods.
        primary: Score that delta_m, ranks and columns by task are made of, for the targets that have it, or scores by
            target; by default each family's own.
        reference: Add the rows of `bmtl.experiments.references`, trained on the same splits: all, none, or those named.
        trust: As for `run`: the report then judges each guide.
        jobs: As for `run_cells`.
        dask: As for `run_cells`.
        timed_steps: Steps of each method that are timed side by side on the processor at the end; with 0, and on other
            devices, times are those that each run recorded.
        command: What made the comparison, to be kept in ``comparison.nc``.
        pictures: Write pictures of the first split; a report draws its own from the results.
        done: Called with each outcome.

    Raises:
        OSError: If `out` cannot be written, before anything is trained.
        ValueError: If there is no method or no seed, one is given twice, or the data, a rate, a score or the baseline will
            not do; before anything is trained. No new folder is left behind then.
        AllFailed: If no run finished.
        KeyboardInterrupt: On Ctrl-C. Runs under way write what they have, as `run` does; before that the finished ones are
            compared and written.
    """
    if isinstance(methods, str) or not isinstance(seeds, Iterable):
        raise ValueError(
            f"methods and seeds are sequences, such as ['stl', 'uw'] and range(3); got {methods!r} and {seeds!r}."
        )
    entries, seeds = [method(one) for one in methods], list(seeds)
    check_grid(data, entries, seeds, rates, budget)
    check_scores(data, entries, baseline, primary, bool(reference))
    if dask is None:  # workers may have other devices than this machine
        check_device(budget.device)
    with results.output_folder(out) as folder:
        cells = _cells(data, entries, seeds)
        finished: list[Cell] = []
        failures: list[Failure] = []
        chosen = None
        if len(rates) > 1:
            chosen, failures = _choose(data, entries, seeds[0], budget, folder, rates, trust, jobs, dask, done)
        if rates:
            lr = dict.fromkeys([entry.name for entry in entries], rates[0]) if chosen is None else chosen
            cells = [replace(cell, lr=lr[cell.method.name]) for cell in cells if cell.method.name in lr]
        if chosen:
            _take_over(cells, seeds[0], folder)
        numbers = {(cell.split, cell.seed): i for i, cell in enumerate(_cells(data, entries[:1], seeds))}
        write = partial(
            write_comparison,
            order=entries,
            numbers=numbers,
            baseline=baseline,
            primary=primary,
            out=folder,
            command=command,
            pictures=pictures,
        )
        try:
            with closing(run_cells(data, cells, budget, folder, trust=trust, jobs=jobs, dask=dask)) as running:
                for outcome in running:
                    if isinstance(outcome, Failure):
                        failures.append(outcome)
                    else:
                        finished.append(outcome)
                    done(outcome)
        except BaseException:
            if finished:
                write(finished, {}, None)
            raise
        if not finished:
            first = failures[0]
            raise AllFailed(f"No run came to an end. The first, {first.cell}: {first.reason}")
        trained = [entry for entry in entries if any(cell.method == entry for cell in finished)]
        timed = timed_steps and budget.device == "cpu"  # elsewhere what each run recorded
        first_data = data if isinstance(data, MultiTaskData) else data[0]
        seconds = step_seconds(first_data, trained, budget, steps=timed_steps) if timed else None
        given = REFERENCES if reference is True else reference or ()
        rows = _references(data, numbers, folder, given)
        scores, trees = write(finished, rows, seconds)
        return Comparison(scores, trees, failures, chosen)


def _cells(data: Splits, methods: Sequence[Method], seeds: Sequence[int]) -> list[Cell]:
    splits = [None] if isinstance(data, MultiTaskData) else range(len(data))
    return [Cell(method, seed, split) for split in splits for seed in seeds for method in methods]


def _choose(
    data: Splits,
    methods: Sequence[Method],
    seed: int,
    budget: Budget,
    out: Path,
    rates: Sequence[float],
    trust: bool,
    jobs: int | None,
    dask: str | None,
    done: Done,
) -> tuple[dict[str, float], list[Failure]]:
    """Each method's learning rate by its validation score, and what failed; a method whose runs all did is left out."""
    found: dict[str, dict[float, float]] = {}
    failures = []
    for rate in rates:
        folder = _of_rate(out, rate)
        cells = [replace(cell, lr=rate) for cell in _cells(data, methods, [seed]) if not cell.split]
        for outcome in run_cells(data, cells, budget, folder, trust=trust, jobs=jobs, dask=dask):
            done(outcome)
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                score = validation_score(results.read(outcome.folder(folder) / "results.nc"))
                found.setdefault(outcome.method.name, {})[rate] = float(np.nan_to_num(score, nan=np.inf))
    return {name: min(scores, key=lambda rate: scores[rate]) for name, scores in found.items()}, failures


def _take_over(cells: Sequence[Cell], seed: int, out: Path) -> None:
    """The runs that learning rates were chosen by are runs of the comparison too."""
    for cell in cells:
        file = cell.folder(out) / "results.nc"
        if cell.seed == seed and not cell.split and not file.exists():
            with atomic(file) as temporary:
                shutil.copyfile(cell.folder(_of_rate(out, cell.lr)) / "results.nc", temporary)


def _of_rate(out: Path, rate: float | None) -> Path:
    return out / "learning-rates" / f"{rate:g}"


def _references(data: Splits, numbers: Mapping[tuple[int | None, int], int], out: Path, given: Sequence[str]) -> Trees:
    """The reference rows, by (name, number of the split)."""
    found: Trees = {}
    for (split, seed), number in numbers.items():
        own = data if isinstance(data, MultiTaskData) else data[split or 0]
        for name, tree in run_references(own, out, Cell.place(split, seed), seed, given).items():
            found[name, number] = tree
    return found
