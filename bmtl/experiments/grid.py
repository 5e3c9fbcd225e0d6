"""Many runs at once: cells of a grid in processes, each to a file of its own, none taking the others along."""

import json
import signal
import threading
import traceback
import uuid
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from lightning.pytorch import Callback

from bmtl.datasets import MultiTaskData
from bmtl.evaluation import results
from bmtl.evaluation.attributes import decode_attributes
from bmtl.experiments.methods import Method
from bmtl.experiments.runs import Budget, configuration, run
from bmtl.inference import balancer

_RUNNING = ".running"  # lies in a cell's folder while it is trained: after a kill it tells who was at work
_CHANCES = 2  # how often a cell may be under way when a process is killed
_TURN = threading.Lock()  # Pyro's handlers and torch's generator are a process's own: its threads take turns


@dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    Attributes:
        method: What is trained.
        seed: The run's seed.
        split: Which of the data's splits; None where there is one.
        lr: Learning rate, where it is not the budget's.
    """

    method: Method
    seed: int
    split: int | None = None
    lr: float | None = None

    def folder(self, out: Path) -> Path:
        """Where its files lie."""
        split = "" if self.split is None else f"split-{self.split}-"
        return out / _folder_name(self.method.name) / f"{split}seed-{self.seed}"

    def __str__(self) -> str:
        split = "" if self.split is None else f"split {self.split}, "
        rate = "" if self.lr is None else f", lr {self.lr:g}"
        return f"{self.method.name} ({split}seed {self.seed}{rate})"


@dataclass(frozen=True)
class Failure:
    """A cell that came to nothing, and why: one line. The whole story lies in its folder as ``error.txt``."""

    cell: Cell
    reason: str


Splits = MultiTaskData | Sequence[MultiTaskData]
"""One data set, or one for each split."""


def run_cells(
    data: Splits,
    cells: Sequence[Cell],
    budget: Budget,
    out: str | Path,
    *,
    jobs: int | None = None,
    dask: str | None = None,
) -> Generator[Cell | Failure, None, None]:
    """Trains what is not yet there of a grid, and gives each cell once its ``results.nc`` lies in `out`.

    A file counts as there if it can be read and was written for the same data, method, seed and budget; cells that are
    there come first. A cell that raises, or whose process is killed (twice: the first time may have been another's
    fault), is given as a `Failure`; the others go on.

    Args:
        data: As for `run`; a sequence where cells name a split.
        cells: What to run.
        budget: What each gets.
        out: Folder; with `dask`, one that all workers see.
        jobs: Processes; by default as many as there are processors, at most one a cell. With 1 nothing is forked.
        dask: Address of a Dask scheduler whose workers run the cells (needs ``bmtl[distributed]``), one at a time each;
            `jobs` then has no part. A cell is given up once Dask's ``allowed-failures`` workers were killed over it.

    Raises:
        OSError: If `out` cannot be written, or there is no such scheduler, before anything is trained.
        ValueError: If a balancer will not do, or two cells would lie in one folder, before anything is trained.
        KeyboardInterrupt: On Ctrl-C. Runs under way write what they have, as `run` does.
    """
    folder = results.check_writable(out)
    for cell in cells:
        balancer(cell.method.balancer)
    by_folder: dict[str, Cell] = {}
    for cell in cells:
        # Some file systems do not tell large from small letters.
        other = by_folder.setdefault(str(cell.folder(folder)).lower(), cell)
        if other is not cell:
            raise ValueError(f"{other} and {cell} would both lie in {cell.folder(folder)}. Rename one of the methods.")
    jobs_ = [_Job(_data_of(data, cell), cell, _budget_of(budget, cell), folder) for cell in cells]
    for job in jobs_:
        (job.folder / _RUNNING).unlink(missing_ok=True)  # of a comparison that was killed
        (job.folder / "error.txt").unlink(missing_ok=True)
    there = [job for job in jobs_ if _finished(job)]
    yield from (job.cell for job in there)
    # The longest first, so that no process ends up alone with it.
    missing = sorted((job for job in jobs_ if job not in there), key=lambda job: not job.cell.method.single_task)
    if not missing:
        return
    if dask is not None:
        yield from _on_dask(missing, dask, folder)
        return
    count = min(jobs or joblib.cpu_count(), len(missing))
    if count == 1:
        yield from (_outcome(job) for job in missing)
        return
    yield from _in_processes(missing, count, folder)


@dataclass(frozen=True, eq=False)
class _Job:
    data: MultiTaskData
    cell: Cell
    budget: Budget
    out: Path

    @property
    def folder(self) -> Path:
        return self.cell.folder(self.out)


def _data_of(data: Splits, cell: Cell) -> MultiTaskData:
    if isinstance(data, MultiTaskData):
        return data
    return data[cell.split or 0]


def _budget_of(budget: Budget, cell: Cell) -> Budget:
    return budget if cell.lr is None else replace(budget, lr=cell.lr)


def _finished(job: _Job) -> bool:
    path = job.folder / "results.nc"
    if not path.is_file():
        return False
    try:
        about = decode_attributes(results.read(path))
    except results.ResultsFileError:
        return False
    asked = json.loads(json.dumps(configuration(job.cell.method, job.budget)))  # tuples become lists
    found = about.get("configuration"), about.get("seed"), about.get("data_fingerprint")
    return found == (asked, job.cell.seed, job.data.fingerprint)


def _outcome(job: _Job, callbacks: Sequence[Callback] = ()) -> Cell | Failure:
    """Runs a cell in this process, in one thread: networks of this size are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    running = results.check_writable(job.folder) / _RUNNING
    for half in job.folder.glob(".*.tmp"):  # a process was killed while it wrote
        half.unlink()
    running.touch()
    try:
        run(job.data, job.cell.method, job.cell.seed, job.budget, job.folder, callbacks=callbacks)
    except Exception as error:
        (job.folder / "error.txt").write_text(traceback.format_exc())
        return Failure(job.cell, f"{type(error).__name__}: {error}")
    finally:
        running.unlink(missing_ok=True)
        torch.set_num_threads(threads)
    return job.cell


def _in_processes(jobs: Sequence[_Job], count: int, out: Path) -> Generator[Cell | Failure, None, None]:
    pending = {job.folder: job for job in jobs}
    kills: Counter[Path] = Counter()
    with _ctrl_c_as_file(out / f".stop-{uuid.uuid4().hex[:12]}") as stop:
        while pending and not stop.exists():
            # Whoever was under way when a process was killed goes by itself: killed again, it was the cause.
            suspects = [folder for folder in pending if kills[folder]]
            batch = [pending[folder] for folder in suspects[:1] or pending]
            # Two at least: one would be this process.
            parallel = joblib.Parallel(n_jobs=max(count, 2), return_as="generator_unordered")
            try:
                for outcome in parallel(joblib.delayed(_work)(job, stop) for job in batch):
                    if outcome is not None:
                        del pending[_cell(outcome).folder(out)]
                        yield outcome
            except TerminatedWorkerError:
                for job in [job for job in batch if job.folder in pending and _finished(job)]:  # its word was lost
                    yield pending.pop(job.folder).cell
                left = [job.folder for job in batch if job.folder in pending]
                # One that was killed before it could leave its mark: each of them may have been it.
                for folder in [folder for folder in left if (folder / _RUNNING).exists()] or left:
                    (folder / _RUNNING).unlink(missing_ok=True)
                    kills[folder] += 1
                    if kills[folder] >= _CHANCES:
                        yield _killed(pending.pop(folder))
        if stop.exists():
            raise KeyboardInterrupt


def _killed(job: _Job) -> Failure:
    reason = f"its process was killed {_CHANCES} times, by the system for lack of memory perhaps"
    (job.folder / "error.txt").write_text(f"{job.cell}: {reason}\n")
    return Failure(job.cell, reason)


def _cell(outcome: Cell | Failure) -> Cell:
    return outcome.cell if isinstance(outcome, Failure) else outcome


def _on_dask(jobs: Sequence[_Job], address: str, out: Path) -> Generator[Cell | Failure, None, None]:
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ImportError("A Dask cluster needs the package distributed: pip install 'bmtl[distributed]'.") from error
    with (
        Client(address, set_as_default=False) as client,
        _ctrl_c_as_file(out / f".stop-{uuid.uuid4().hex[:12]}") as stop,
    ):
        # pure: a cell is never a copy of another.
        futures = {client.submit(_work, job, stop, pure=False): job for job in jobs}
        try:
            for future in as_completed(futures, loop=client.loop):
                if future.status != "finished":
                    yield Failure(futures[future].cell, f"its Dask worker failed: {future.exception()!r}")
                elif future.result() is not None:
                    yield future.result()
        finally:
            client.cancel(list(futures))
        if stop.exists():
            raise KeyboardInterrupt


def _work(job: _Job, stop: Path) -> Cell | Failure | None:
    """A run in a process of its own; None if it was interrupted."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches every process: the file tells when
    try:
        with _TURN:
            return None if stop.exists() else _outcome(job, [_StopAtFile(stop)])
    except KeyboardInterrupt:
        return None


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


def _folder_name(method: str) -> str:
    """A method's name as a folder's: a balancer's string form holds characters that file systems do not."""
    return "".join(c if c.isalnum() or c in "-_.+()," else "_" for c in method.replace(" >> ", "+").replace(" ", "_"))
