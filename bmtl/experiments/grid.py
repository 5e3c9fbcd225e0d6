"""Many runs at once: the missing cells of a grid."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import joblib

from bmtl.evaluation import results
from bmtl.experiments.budgets import Budget
from bmtl.experiments.cells import Cell, Failure, Job, Splits
from bmtl.experiments.refusals import refused
from bmtl.experiments.under_way import RUNNING
from bmtl.experiments.workers import failed, in_processes, on_dask, outcome_of
from bmtl.inference.interruption import interruptible


def run_cells(
    data: Splits,
    cells: Sequence[Cell],
    budget: Budget,
    out: str | Path,
    *,
    trust: bool = False,
    jobs: int | None = None,
    dask: str | None = None,
) -> Generator[Cell | Failure, None, None]:
    """Trains the missing cells of a grid, and yields each cell once its ``results.nc`` is in `out`.

    A file counts as present if it can be read and was written for the same data, method, seed and budget; cells that are
    there come first. Then come those whose method's model cannot be made for the data (`refused`), before anything is
    trained. A cell that raises, or whose process is killed (twice: the first time may have been another's fault), is given
    as a `Failure`; the others go on.

    Args:
        data: As for `run`; a sequence where cells name a split.
        cells: The cells to run.
        budget: Budget of each run.
        out: Folder; with `dask`, one that all workers see.
        trust: As for `run`.
        jobs: Processes; by default as many as there are processors, at most one per cell, and one on a GPU. With 1 nothing
            is forked.
        dask: Address of a Dask scheduler whose workers run the cells (needs ``bmtl[distributed]``), one at a time each, in
            place of `jobs`. A cell is given up once Dask's ``allowed-failures`` workers were killed over it.

    Raises:
        OSError: If `out` cannot be written, or there is no such scheduler, before anything is trained.
        ValueError: If a name makes no folder, or two cells would lie in one folder, before anything is trained.
        KeyboardInterrupt: On Ctrl-C. Runs under way write what they have, as `run` does.
    """
    folder = Path(out).absolute()  # processes that are there already may have another current folder
    by_folder: dict[str, Cell] = {}
    for cell in cells:
        # Some file systems do not distinguish large from small letters.
        other = by_folder.setdefault(str(cell.folder(folder)).lower(), cell)
        if other is not cell:
            raise ValueError(
                f"{other} and {cell} would both be written to {cell.folder(folder)}. Rename one of the methods."
            )
    results.check_writable(folder)
    jobs_ = [Job.of(data, cell, budget, folder, trust) for cell in cells]
    for job in jobs_:
        (job.folder / RUNNING).unlink(missing_ok=True)  # of a comparison that was killed
        (job.folder / "error.txt").unlink(missing_ok=True)
    there = [job for job in jobs_ if job.finished()]
    yield from (replace(job.cell, trained=False) for job in there)
    # The longest first, so that no process ends up alone with it.
    missing = sorted((job for job in jobs_ if job not in there), key=lambda job: not job.cell.method.single_task)
    for job, error in refused(missing):
        missing.remove(job)
        yield failed(job, error)
    if not missing:
        return
    if dask is not None:
        yield from on_dask(missing, dask, folder)
        return
    usual = joblib.cpu_count() if budget.device == "cpu" else 1  # one GPU is not faster for several processes
    count = min(jobs or usual, len(missing))
    if count == 1:
        yield from map(_here, missing)
        return
    yield from in_processes(missing, count, folder)


def _here(job: Job) -> Cell | Failure:
    """A run in this process. Ctrl-C ends it even where Python lost the exception."""
    with interruptible() as interruption:
        outcome = outcome_of(job)
    if interruption.noted:
        raise KeyboardInterrupt
    return outcome
