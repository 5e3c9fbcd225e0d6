"""Processes that run cells: on this machine or on a Dask cluster, that distinguish kills, failures and Ctrl-C."""

import signal
import threading
import traceback
import uuid
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import torch
from joblib.externals.loky.process_executor import BrokenProcessPool, TerminatedWorkerError
from lightning.pytorch import Callback

from bmtl.evaluation import results
from bmtl.experiments.cells import Cell, Failure, Job
from bmtl.experiments.runs import run
from bmtl.experiments.under_way import RUNNING, marked

_CHANCES = 2  # how often a cell may be under way when a process is killed
_TURN = threading.Lock()  # Pyro's handlers and torch's generator are a process's own: its threads take turns


def outcome_of(job: Job, callbacks: Sequence[Callback] = ()) -> Cell | Failure:
    """Runs a cell in this process, in one thread: networks of this size are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    results.check_writable(job.folder)
    for half in job.folder.glob(".*.tmp"):  # a process was killed while it wrote
        half.unlink()
    method = job.cell.method
    try:
        with marked(job.folder, str(job.cell), method.networks(len(job.data.tasks))) as share:
            calls = [*callbacks, share]
            run(job.data, method, job.cell.seed, job.budget, job.folder, trust=job.trust, callbacks=calls)
    except Exception as error:
        return failed(job, error)
    finally:
        torch.set_num_threads(threads)
    return job.cell


def failed(job: Job, error: Exception) -> Failure:
    """The failure of a job that raised; writes its ``error.txt``."""
    results.check_writable(job.folder)
    (job.folder / "error.txt").write_text("".join(traceback.format_exception(error)))
    return Failure(job.cell, f"{type(error).__name__}: {error}")


def in_processes(jobs: Sequence[Job], count: int, out: Path) -> Generator[Cell | Failure, None, None]:
    """Runs jobs in `count` processes of this machine; arguments and outcomes as for `bmtl.experiments.run_cells`."""
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
                for job in [job for job in batch if job.folder in pending and job.finished()]:  # its word was lost
                    yield pending.pop(job.folder).cell
                left = [job.folder for job in batch if job.folder in pending]
                # One that was killed before it could leave its mark: each of them may have been it.
                for folder in [folder for folder in left if (folder / RUNNING).exists()] or left:
                    (folder / RUNNING).unlink(missing_ok=True)
                    kills[folder] += 1
                    if kills[folder] >= _CHANCES:
                        yield _killed(pending.pop(folder))
            except BrokenProcessPool:  # Ctrl-C met a process that was starting, and could not ignore it yet
                if not stop.exists():
                    raise
        if stop.exists():
            raise KeyboardInterrupt


def _killed(job: Job) -> Failure:
    reason = f"its process was killed {_CHANCES} times, by the system for lack of memory perhaps"
    (job.folder / "error.txt").write_text(f"{job.cell}: {reason}\n")
    return Failure(job.cell, reason)


def _cell(outcome: Cell | Failure) -> Cell:
    return outcome.cell if isinstance(outcome, Failure) else outcome


def on_dask(jobs: Sequence[Job], address: str, out: Path) -> Generator[Cell | Failure, None, None]:
    """Runs jobs on the workers of a Dask scheduler; arguments and outcomes as for `bmtl.experiments.run_cells`."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ImportError("A Dask cluster needs the package distributed: pip install 'bmtl[distributed]'.") from error
    try:
        connected = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(
            f"There is no Dask scheduler at {address!r} ({error}). Start one with `dask scheduler`, whose address is in its "
            "log, or run the cells on this machine."
        ) from error
    with (
        connected as client,
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


def _work(job: Job, stop: Path) -> Cell | Failure | None:
    """A run in its own process; None if it was interrupted."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches every process: the file tells when
    try:
        with _TURN:
            return None if stop.exists() else outcome_of(job, [_StopAtFile(stop)])
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
