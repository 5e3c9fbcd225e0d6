"""``bmtl compare``."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bmtl import cli
from bmtl.evaluation import results
from bmtl.experiments import METHODS

TINY = ("--epochs", 2, "--batch-size", 32, "--widths", 6, "--draws", 8, "--jobs", 1)
REFERENCES = ("constant", "ridge", "boosting")
TABLES = {"comparison.nc", "table.csv", "table.md", "table.tex", "training.png", "reliability.png"}


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# ---- A comparison ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(archive, tmp_path_factory):
    """A comparison that nothing disturbs."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bmtl", *map(str, given(archive, out))])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code
    return out


def given(archive, out, **changes):
    options = {"--methods": "stl,ew,bayesian", "--seeds": 2, "--out": out} | changes
    return ["compare", f"npz:{archive}", *TINY, *(word for pair in options.items() for word in pair)]


def same(one, other):
    """Whether two runs or comparisons are the same bit for bit, up to times."""
    for node in one.subtree:
        times = ("seconds", "step_seconds", "T")
        a, b = (n.to_dataset(inherit=False).drop_attrs() for n in (node, other[node.path]))
        xr.testing.assert_identical(*(d.drop_vars(times, errors="ignore") for d in (a, b)))


def test_a_comparison(whole):
    runs = {f"{name}/seed-{seed}/results.nc" for name in ("stl", "ew", "bayesian", *REFERENCES) for seed in (0, 1)}
    assert names(whole) == runs | TABLES
    scores = results.read(whole / "comparison.nc").to_dataset()
    assert scores["task"].values.tolist() == ["mass", "25400"]
    assert scores.sizes["split"] == 2


KILLED = """
import os, signal
replace, finished = os.replace, []
def third_result_kills(temporary, path):
    if str(path).endswith("results.nc"):
        finished.append(path)
        if len(finished) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    replace(temporary, path)
os.replace = third_result_kills
from bmtl.cli import main
main()
"""


def test_a_comparison_killed_in_the_middle_goes_on_where_it_stood(run, archive, whole, tmp_path):
    """`kill -9` while the third result is written leaves no file half: the same command finishes, and all is as if
    nothing had happened."""
    command = [sys.executable, "-c", KILLED, *map(str, given(archive, tmp_path))]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/results.nc")}
    assert len(before) == 2
    code, _, err = run(*given(archive, tmp_path))
    assert (code, err) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {name for name in names(tmp_path) if not name.endswith(".tmp")} == names(whole)
    for name in names(whole):
        if name.endswith(".nc"):
            same(results.read(whole / name), results.read(tmp_path / name))


@pytest.mark.usefixtures("short_ending")
def test_learning_rates_balancers_and_reader_options(run, archive, tmp_path):
    out = tmp_path / "out"
    changes = {"--methods": "ew", "--balancers": "ew,cagrad(c=0.4)", "--lr": "1e-5,0.05", "--seeds": 1}
    changes |= {"--trunk": "mlp", "--schedule": "constant"}  # on which two epochs at the lower rate teach nothing
    code, printed, err = run(*given(archive, out, **changes), "-d", "drop=25400", "-d", "units=kg")
    assert (code, err) == (0, "")
    assert "Learning rates chosen on validation: ew (ew) 0.05, ew (cagrad(c=0.4)) 0.05." in printed
    frame = pd.read_csv(out / "table.csv", index_col="learner")
    assert frame.index.tolist() == ["ew (ew)", "ew (cagrad(c=0.4))", *REFERENCES]
    assert "MAE [kg]" in frame.columns
    assert not any("25400" in column for column in frame.columns)


@pytest.mark.usefixtures("short_ending")
def test_failures_are_told_and_end_with_code_1(run, archive, tmp_path, monkeypatch):
    from bmtl.experiments import Method, zoo

    monkeypatch.setattr(zoo, "METHODS", METHODS | {"broken": Method("broken", options={"noise": "none"})})
    code, out, _ = run(*given(archive, tmp_path / "a", **{"--methods": "ew,broken", "--seeds": 2}))
    assert code == 1
    first, last = (line for line in out.splitlines() if line.startswith("failed: "))
    assert first.startswith("failed: broken (seed 0): ")  # one of those that are alike, as it comes
    assert last.startswith("failed: broken (seed 0) and 1 more run of it: ")
    assert "noise is one of" in out
    assert results.read(tmp_path / "a/comparison.nc")["learner"].values.tolist() == ["ew", *REFERENCES]
    code, out, err = run(*given(archive, tmp_path / "b", **{"--methods": "broken", "--seeds": 1}))
    assert code == 1
    assert err.startswith("Error: No run came to an end. The first, broken (seed 0")
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--methods": "ew,nonsense"}, "There is no method and no balancer 'nonsense'"),
        ({"--methods": ""}, "at least one method"),
        ({"--methods": "ew,ew"}, "methods of a comparison must differ"),
        ({"--balancers": "nonsense"}, "No balancer is called 'nonsense'"),
        ({"--select": "test"}, "select is one of val, last, best-on-test"),
        ({"--lr": "fast"}, "--lr is a number or several"),
        ({"--lr": "1e-3,-1"}, "numbers are positive"),
        ({"--widths": "0"}, "numbers are positive"),
        ({"--widths": "8.5"}, "--widths"),
        ({"-d": "split"}, "is name=value"),
        ({"-d": "fold=1"}, "does not know the option 'fold'"),
        ({"-d": "drop=mass,25400"}, "The data have no target"),
    ],
)
def test_wrong_input_is_told_before_training(run, archive, tmp_path, never_trains, changes, message):
    code, _, err = run(*given(archive, tmp_path, **changes))
    assert code == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"--methods": "ew,bakker-hesks"},
            "There is no method and no balancer 'bakker-hesks'. Did you mean 'bakker-heskes'? The methods",
        ),
        ({"--balancers": "nash-mlt"}, "No balancer is called 'nash-mlt'"),
    ],
)
def test_wrong_names_are_told_before_the_data_are_read(run, tmp_path, changes, message):
    code, _, err = run(*given(tmp_path / "none.npz", tmp_path / "out", **changes))
    assert code == 2
    assert message in err


def test_data_sets_that_sound_alike_are_told(run, tmp_path):
    _, _, err = run("compare", "office-caltech", "--out", tmp_path)
    assert (
        "There is no data set 'a/b.CSV'. Name a file of your own as csv:a/b.CSV. The names are"
        in run("compare", "a/b.CSV")[2]
    )
    assert "There is no data set 'office-caltech'. Did you mean 'office-caltech10'? The names are: " in err


@pytest.mark.usefixtures("short_ending")
def test_a_constant_target_is_warned_of_and_one_is_counted_as_one(run, tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2))
    np.savez(tmp_path / "still.npz", X=x, y=np.full(40, 7.0))
    arguments = ("compare", f"npz:{tmp_path}/still.npz", "--methods", "ew", *TINY, "--out", tmp_path / "out")
    code, out, err = run(*arguments)
    assert code == 0
    assert "still: 40 rows (26 train, 6 val, 8 test)" in out
    assert "task_0: real, 40 labels of 40 rows, 7 to 7" in out
    assert "Warning: The target 'task_0' is 7 in all of its 26 training rows: nothing can be learnt" in err


@pytest.fixture
def domains(tmp_path):
    """A file of three domains with rows of their own and two classes, the second of which one domain lacks."""
    random = np.random.default_rng(0)
    task = np.arange(150) % 3
    x = random.normal(size=(150, 4))
    y = (x[:, 0] > 0).astype(int)
    y[task == 2] = 0
    np.savez(tmp_path / "domains.npz", X=x, y=y, task=task, task_names=np.array(["real", "clip", "plain"]))
    return tmp_path / "domains.npz"


@pytest.mark.usefixtures("short_ending")
@pytest.mark.usefixtures("short_ending")
def test_variational_multi_task_learning_beside_others(run, domains, tmp_path):
    """Compared, reported, trained and asked for predictions, on domains with rows of their own."""
    out = tmp_path / "out"
    methods = "stl,ew,bakker-heskes,vbmtl,vmtl"
    code, _, err = run("compare", f"npz:{domains}", "--methods", methods, *TINY, "--out", out)
    assert code == 0
    assert err.startswith("Warning: The target 'plain' is 0 in all of its 32 training rows: nothing can be learnt")
    frame = pd.read_csv(out / "table.csv", index_col="learner")
    assert frame.index.tolist() == [*methods.split(","), "constant", "logistic", "boosting"]
    assert frame.filter(like="accuracy").notna().all(axis=None)
    tree = results.read(out / "vmtl/seed-0/results.nc")
    assert tree["posterior/relatedness_w"].sizes["source"] == 4
    assert "relatedness_w" not in results.read(out / "vbmtl/seed-0/results.nc")["posterior"]
    assert run("report", out)[0] == 0
    assert "Which tasks are related: vmtl" in (out / "report.html").read_text()


def test_a_missing_data_set_is_told(run, tmp_path, never_trains):
    for name in ("npz:none.npz", "uci/none", "nothing"):
        code, _, err = run("compare", name, "--root", tmp_path, "--out", tmp_path / "out")
        assert code == 2
        assert err.startswith("Error: ")
