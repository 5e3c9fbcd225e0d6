import signal
from dataclasses import replace

import joblib
import numpy as np
import pytest
import xarray as xr
from joblib.externals.loky.process_executor import BrokenProcessPool, TerminatedWorkerError

from bmtl.evaluation import metrics, results
from bmtl.evaluation.results import decode_attributes
from bmtl.experiments import METHODS, Cell, Failure, Method, compare, run, run_cells, workers
from bmtl.experiments.cells import Job
from bmtl.experiments.refusals import refused
from bmtl.inference.checkpoint import check_file
from bmtl.targets import Real
from tests.experiments.toys import BUDGET, EW, STL, UW, Deadly, broken, files, toy


@pytest.fixture
def trained(monkeypatch):
    """What was run, by (method, seed)."""
    found = []
    real = workers.run
    monkeypatch.setattr(workers, "run", lambda d, m, s, *a, **k: found.append((m.name, s)) or real(d, m, s, *a, **k))
    return found


# ---- What is there is not done again ---------------------------------------------------------------------------------


def test_a_finished_cell_is_not_run_again(data, tmp_path, trained):
    def start(*cells, data=data, budget=BUDGET):
        trained.clear()
        done = list(run_cells(data, cells, budget, tmp_path, jobs=1))
        assert sorted((cell.method.name, cell.seed) for cell in done) == sorted((c.method.name, c.seed) for c in cells)
        assert sorted((cell.method.name, cell.seed) for cell in done if cell.trained) == sorted(trained)
        return trained

    assert start(Cell(EW, 0)) == [("ew", 0)]
    assert start(Cell(EW, 0), Cell(EW, 1), Cell(UW, 0)) == [("ew", 1), ("uw", 0)]
    assert start(Cell(EW, 0), Cell(EW, 1), Cell(UW, 0)) == []
    # Another budget, setting or data set is another run.
    assert start(Cell(EW, 0), budget=replace(BUDGET, lr=1e-4)) == [("ew", 0)]
    assert start(Cell(EW, 0, lr=1e-4)) == []
    assert start(Cell(EW, 0, lr=1e-3)) == [("ew", 0)]
    assert start(Cell(replace(UW, balancer="si"), 0)) == [("uw", 0)]
    assert start(Cell(EW, 1), data=toy(name="toy", x=data.inputs.x + 1)) == [("ew", 1)]
    # So are the same numbers with another unit, family or clipping of the inputs.
    other = toy(name="toy", units="cm")
    assert start(Cell(EW, 1), data=other) == [("ew", 1)]
    assert start(Cell(EW, 1), data=other) == []
    bounded = dict.fromkeys(other.tasks, Real(bounds=(-99.0, None)))
    assert start(Cell(EW, 1), data=toy(name="toy", units="cm", families=bounded)) == [("ew", 1)]
    assert start(Cell(EW, 1), data=toy(name="toy", units="cm", families=bounded, clip=2.0)) == [("ew", 1)]
    (tmp_path / "ew" / "seed-1" / "results.nc").write_bytes(b"torn")
    assert start(Cell(EW, 1)) == [("ew", 1)]


def test_splits_have_folders_of_their_own(data, tmp_path):
    other = toy(rows={"train": np.arange(32, 80), "val": np.arange(16), "test": np.arange(16, 32)})
    cells = [Cell(EW, 0, split) for split in (0, 1)]
    list(run_cells([data, other], cells, BUDGET, tmp_path, jobs=1))
    assert files(tmp_path) == {"ew/split-0-seed-0/results.nc", "ew/split-1-seed-0/results.nc"}
    found = [decode_attributes(results.read(cell.folder(tmp_path) / "results.nc")) for cell in cells]
    assert [about["data_fingerprint"] for about in found] == [data.fingerprint, other.fingerprint]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("igb-v1 >> nash-mtl", "igb-v1+nash-mtl"),
        ("ew (cagrad(c=0.4))", "ew_(cagrad(c_0.4))"),
        ("a/b\\c:d", "a_b_c_d"),
    ],
)
def test_names_of_folders(tmp_path, name, folder):
    assert Cell(Method(name), 3).folder(tmp_path) == tmp_path / folder / "seed-3"


@pytest.mark.parametrize("name", ["..", ".", "", "  ", "../..", "///", "x" * 300, "..\\.."])
def test_a_name_that_is_no_folder_inside_the_output_is_told_before_training(data, tmp_path, never_trains, name):
    cells = [Cell(EW, 0), Cell(replace(EW, name=name), 0)]
    with pytest.raises(ValueError, match="A method's name is a folder's too: 1 to 120 letters"):
        list(run_cells(data, cells, BUDGET, tmp_path / "out", jobs=1))
    assert not list(tmp_path.glob("**/*.nc"))


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "..hidden", "a/../../b", "nul\0", "=1+1", "-beta"])
def test_every_folder_is_inside_the_output(tmp_path, name):
    folder = Cell(Method(name), 0).folder(tmp_path).resolve()
    assert folder.parent.parent == tmp_path.resolve()


def test_a_cell_says_what_it_is():
    assert str(Cell(EW, 3)) == "ew (seed 3)"
    assert str(Cell(EW, 3, 2, 1e-4)) == "ew (split 2, seed 3, lr 0.0001)"


# ---- Failures --------------------------------------------------------------------------------------------------------


def test_a_run_that_raises_takes_no_other_along(data, tmp_path):
    cells = [Cell(EW, 0), Cell(broken(), 0), Cell(UW, 0)]
    failure, *found = run_cells(data, cells, BUDGET, tmp_path, jobs=1)  # before anything is trained
    assert [str(outcome) for outcome in found] == ["ew (seed 0)", "uw (seed 0)"]
    assert isinstance(failure, Failure)
    assert failure.cell == cells[1]
    assert failure.reason.startswith("ValueError: noise is one of")
    assert files(tmp_path) == {"ew/seed-0/results.nc", "uw/seed-0/results.nc", "broken/seed-0/error.txt"}
    assert "Traceback" in (tmp_path / "broken/seed-0/error.txt").read_text()
    mended = Cell(Method("broken", options={"noise": "fixed"}), 0)
    assert list(run_cells(data, [mended], BUDGET, tmp_path, jobs=1)) == [mended]
    assert files(tmp_path / "broken") == {"seed-0/results.nc"}


def test_methods_that_cannot_be_built_are_found_without_training_and_no_others(data, tmp_path, never_trains):
    jobs = [Job.of([data, data], Cell(of, 0, split), BUDGET, tmp_path) for split in (0, 1) for of in METHODS.values()]
    found = list(refused(jobs))
    names = ("vmtl-ac", "mt-enet-censored", "student-t-censored")
    assert {str(job.cell) for job, _ in found} == {f"{name} (split {i}, seed 0)" for name in names for i in (0, 1)}
    assert len(found) == 6
    for _, error in found[::2]:
        assert isinstance(error, ValueError)


def test_a_killed_process_takes_no_other_along(data, tmp_path):
    """As the system does for lack of memory; the cell has a second chance by itself."""
    cells = [Cell(Method("deadly", options=Deadly()), 0), *(Cell(replace(EW, name=name), 0) for name in "abc")]
    found = list(run_cells(data, cells, BUDGET, tmp_path, jobs=2))
    (failure,) = (outcome for outcome in found if isinstance(outcome, Failure))
    assert str(failure.cell) == "deadly (seed 0)"
    assert "killed 2 times" in failure.reason
    assert sorted(str(outcome) for outcome in found if isinstance(outcome, Cell)) == [f"{n} (seed 0)" for n in "abc"]
    assert files(tmp_path) == {*(f"{name}/seed-0/results.nc" for name in "abc"), "deadly/seed-0/error.txt"}
    alone = run(data, EW, 0, BUDGET)
    for name in "abc":
        tree = results.read(tmp_path / name / "seed-0/results.nc")
        xr.testing.assert_equal(tree["test/predictive_mean"].to_dataset(), alone["test/predictive_mean"].to_dataset())


class Pool:
    """Stands for `joblib.Parallel`: plays a script, a list of outcomes a round, "killed" being a process's death."""

    def __init__(self, monkeypatch, script):
        self.script, self.given = iter(script), []
        monkeypatch.setattr(joblib, "Parallel", lambda **options: self)
        monkeypatch.setattr(joblib, "delayed", lambda work: lambda job, stop: job)

    def __call__(self, jobs):
        jobs = {job.cell.method.name: job for job in jobs}
        self.given.append(sorted(jobs))
        for event in next(self.script):
            kind, *names = event.split()
            if kind == "killed":
                for name in names:
                    (jobs[name].folder / ".running").touch()
                raise TerminatedWorkerError("killed")
            if kind == "interrupted":  # in a process that was starting
                signal.raise_signal(signal.SIGINT)
            if kind in ("interrupted", "broken"):
                raise BrokenProcessPool("A task has failed to un-serialize.")
            (name,) = names
            job = jobs[name]
            run(job.data, job.cell.method, job.cell.seed, job.budget, job.folder)
            if kind == "done":
                yield job.cell


@pytest.mark.parametrize(("event", "error"), [("interrupted", KeyboardInterrupt), ("broken", BrokenProcessPool)])
def test_ctrl_c_while_processes_start_is_an_interruption(data, tmp_path, monkeypatch, event, error):
    """They cannot ignore it yet, and die of it."""
    Pool(monkeypatch, [[event]])
    with pytest.raises(error):
        list(run_cells(data, [Cell(EW, 0), Cell(UW, 0)], BUDGET, tmp_path, jobs=2))
    assert not list(tmp_path.rglob(".stop*"))


SCRIPTS = {
    "bystanders go on": (
        [["killed a b"], ["done a"], ["done b"], ["done c"]],
        [["a", "b", "c"], ["a"], ["b"], ["c"]],
        set(),
    ),
    "the culprit is found by itself": (
        [["done c", "killed a b"], ["done a"], ["killed b"]],
        [["a", "b", "c"], ["a"], ["b"]],
        {"b"},
    ),
    "a finished cell whose word was lost is not run again": (
        [["lost a", "killed b"], ["done b"], ["done c"]],
        [["a", "b", "c"], ["b"], ["c"]],
        set(),
    ),
    "killed before any mark, all are suspects": (
        [["killed"], ["killed"], ["done b"], ["done c"]],
        [["a", "b", "c"], ["a"], ["b"], ["c"]],
        {"a"},
    ),
}


@pytest.mark.parametrize(("script", "rounds", "failed"), SCRIPTS.values(), ids=SCRIPTS.keys())
def test_who_is_run_again_after_a_kill(data, tmp_path, monkeypatch, script, rounds, failed):
    cells = [Cell(replace(EW, name=name), 0) for name in "abc"]
    for cell in cells:
        cell.folder(tmp_path).mkdir(parents=True)
    pool = Pool(monkeypatch, script)
    found = list(run_cells(data, cells, replace(BUDGET, epochs=1, draws=1), tmp_path, jobs=2))
    assert pool.given == rounds
    assert {outcome.cell.method.name for outcome in found if isinstance(outcome, Failure)} == failed
    assert sorted(str(getattr(outcome, "cell", outcome)) for outcome in found) == [f"{name} (seed 0)" for name in "abc"]
    assert not list(tmp_path.rglob(".running"))


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


def test_ctrl_c_reaches_every_process(data, tmp_path):
    """Sent to this process alone, as `kill -INT` does: the runs in the others stop and keep what they have."""
    methods = [Method(f"m{i}", options={"noise": "fixed"}) for i in range(5)]
    handler = signal.getsignal(signal.SIGINT)
    budget = replace(BUDGET, epochs=60)
    done = []

    def interrupt_once(cell):
        done.append(cell)
        if len(done) == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        compare(data, methods, [0], budget, tmp_path, reference=False, jobs=2, done=interrupt_once)
    assert signal.getsignal(signal.SIGINT) is handler
    found = files(tmp_path)
    assert "comparison.nc" in found
    assert not [name for name in found if ".stop" in name or ".running" in name]
    finished = {name.split("/")[0] for name in found if name.endswith("results.nc")}
    stopped = {name.split("/")[0] for name in found if name.endswith("partial.nc")}
    assert 1 <= len(finished) < 5
    assert not finished & stopped
    assert stopped == {name.split("/")[0] for name in found if name.endswith("last.ckpt")}
    for name in stopped:
        assert check_file(tmp_path / name / "seed-0/last.ckpt")["bmtl"]["svi"]["steps"] > 0


# ---- Dask ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    # Workers in threads of this process: starting others would take longer than all that they do here.
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=False, dashboard_address=None, protocol="tcp"
    ) as local:
        yield local.scheduler_address


def test_workers_of_a_dask_cluster_give_the_runs_of_one_process(data, tmp_path, cluster):
    cells = [Cell(STL, 0), Cell(EW, 0), Cell(EW, 1), Cell(broken(), 0)]
    found = list(run_cells(data, cells, BUDGET, tmp_path, dask=cluster))
    (failure,) = (outcome for outcome in found if isinstance(outcome, Failure))
    assert failure.cell == cells[3]
    assert failure.reason.startswith("ValueError: noise is one of")
    assert sorted(str(cell) for cell in found if isinstance(cell, Cell)) == sorted(map(str, cells[:3]))
    for cell in cells[:3]:
        tree = results.read(cell.folder(tmp_path) / "results.nc")
        alone = run(data, cell.method, cell.seed, BUDGET)
        for group in ("test/predictive_mean", "test/posterior_predictive", "test/log_likelihood"):
            xr.testing.assert_equal(tree[group].to_dataset(), alone[group].to_dataset())


def test_ctrl_c_reaches_the_workers_of_a_dask_cluster(data, tmp_path, cluster):
    handler = signal.getsignal(signal.SIGINT)
    cells = [Cell(replace(EW, name=f"m{i}"), 0) for i in range(6)]
    running = run_cells(data, cells, replace(BUDGET, epochs=40), tmp_path, dask=cluster)
    first = next(running)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        list(running)
    assert signal.getsignal(signal.SIGINT) is handler
    found = files(tmp_path)
    assert f"{first.method.name}/seed-0/results.nc" in found
    assert len([name for name in found if name.endswith("results.nc")]) < 6
    for name in found:
        if name.endswith("partial.nc"):
            assert metrics.mae(results.read(tmp_path / name))["mae"].notnull().all()


def test_a_scheduler_that_there_is_not_is_told(data, tmp_path, never_trains):
    dask = pytest.importorskip("dask")
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), pytest.raises(OSError, match="127.0.0.1:9"):
        list(run_cells(data, [Cell(EW, 0)], BUDGET, tmp_path, dask="tcp://127.0.0.1:9"))


def test_without_dask_it_says_what_to_install(data, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'bmtl\[distributed\]'"):
        list(run_cells(data, [Cell(EW, 0)], BUDGET, tmp_path, dask="tcp://127.0.0.1:9"))


# ---- What does not fit is told before anything is trained ------------------------------------------------------------


def test_cells_are_checked_before_any_is_trained(data, tmp_path, never_trains):
    with pytest.raises(ValueError, match="nonsense"):
        list(run_cells(data, [Cell(EW, 0), Cell(Method("odd", "nonsense"), 0)], BUDGET, tmp_path, jobs=1))


@pytest.mark.parametrize("names", [("ew", "ew"), ("a b", "a_b"), ("EW", "ew")])
def test_two_cells_of_one_folder_are_told(data, tmp_path, never_trains, names):
    cells = [Cell(replace(EW, name=name), 0) for name in names]
    with pytest.raises(ValueError, match="would both be written to"):
        list(run_cells(data, cells, BUDGET, tmp_path, jobs=1))


def test_a_folder_that_cannot_be_written_is_told(data, tmp_path, never_trains):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written to"):
        list(run_cells(data, [Cell(EW, 0)], BUDGET, tmp_path / "file", jobs=1))


def test_deadly_options_spare_the_process_that_made_them():
    assert dict(Deadly()) == {"noise": "fixed"}
