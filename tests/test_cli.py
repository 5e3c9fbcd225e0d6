import io
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import bmtl
from bmtl import cli, experiments
from bmtl.evaluation import results
from bmtl.experiments import METHODS
from bmtl.inference.balancing import SLOTS

COMMANDS = [command.name or command.callback.__name__ for command in cli.app.registered_commands]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line in this process: exit code, output, error output."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["bmtl", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def never_trains(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("trained")

    monkeypatch.setattr(experiments, "fit", never)


# ---- Help and lists --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda c: " ".join(c) or "bmtl")
def test_every_command_has_help(run, command):
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    assert " ".join(["Usage: bmtl", *command]) in out
    assert all(name in out for name in ([] if command else COMMANDS))


def test_the_help_of_the_demo_names_its_options(run):
    _, out, _ = run("demo", "--help")
    assert all(option in out for option in ("--out", "--quick", "--seeds", "--jobs", "runs/demo"))


def test_without_a_command_it_shows_help_and_fails(run):
    code, out, err = run()
    assert code == 2
    assert "Usage: bmtl" in out + err


SHOWN = {
    "models": bmtl.models.__all__,
    "balancers": list(SLOTS),
    "datasets": ["qm9-mini"],
}


@pytest.mark.parametrize("what", SHOWN)
def test_a_list_shows_its_names_and_no_others(run, what):
    code, out, err = run("list", what)
    assert (code, err) == (0, "")
    assert all(re.search(rf"^\s+{re.escape(name)}\s", out, re.M) for name in SHOWN[what])
    first_words = {line.split()[0] for line in out.splitlines() if line.startswith("  ") and line.strip()}
    assert not first_words & {name for other in SHOWN if other != what for name in SHOWN[other]}
    assert "``" not in out


def test_the_list_of_all_is_the_three_lists(run):
    assert run("list") == run("list", "all") == (0, "".join(run("list", what)[1] for what in SHOWN), "")


# ---- Wrong input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "No such command 'train'"),
        (["demo", "--fast"], "No such option: --fast"),
        (["demo", "extra"], "unexpected extra argument"),
        (["demo", "--seeds", "0"], "'--seeds'"),
        (["demo", "--seeds", "two"], "'--seeds'"),
        (["demo", "--jobs", "-1"], "'--jobs'"),
        (["demo", "--out"], "--out"),
        (["list", "losses"], "'losses' is none of: models, balancers, datasets, all."),
    ],
)
def test_wrong_input_is_one_message_and_code_2(run, never_trains, arguments, message):
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_folder_that_cannot_be_written_is_told_before_training(run, tmp_path, never_trains):
    (tmp_path / "file").touch()
    code, _, err = run("demo", "--quick", "--jobs", 1, "--out", tmp_path / "file")
    assert code == 2
    assert err.startswith("Error: The output folder")
    assert str(tmp_path / "file") in err


@pytest.mark.parametrize("error", [ValueError, OSError, ArithmeticError, ImportError])
def test_an_error_of_the_input_is_one_line(run, monkeypatch, tmp_path, error):
    def fails(*args, **kwargs):
        raise error("what [was] given and how to mend it")

    monkeypatch.setattr(experiments, "demo", fails)
    code, _, err = run("demo", "--out", tmp_path)
    assert (code, err) == (2, "Error: what [was] given and how to mend it\n")


def test_a_fault_of_our_own_keeps_its_traceback(run, monkeypatch, tmp_path):
    def fails(*args, **kwargs):
        raise AttributeError("no such attribute")

    monkeypatch.setattr(experiments, "demo", fails)
    monkeypatch.setattr(sys, "argv", ["bmtl", "demo", "--out", str(tmp_path)])
    with pytest.raises(AttributeError):
        cli.main()


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_with_code_130(run, monkeypatch, tmp_path):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "demo", interrupted)
    code, _, err = run("demo", "--out", tmp_path)
    assert (code, err) == (130, "Interrupted. What was finished has been written.\n")


def test_sigint_in_training_ends_with_code_130(tmp_path):
    code = "from bmtl.cli import main; main()"
    command = [sys.executable, "-c", code, "demo", "--quick", "--jobs", "1", "--out", str(tmp_path)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "stl" / "seed-0").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.7)  # the folder is there just before training
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().endswith("Interrupted. What was finished has been written.")
    assert "Traceback" not in err
    for path in tmp_path.rglob("partial.nc"):
        assert results.read(path).attrs["interrupted"] == 1


# ---- The demo --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """``bmtl demo --quick --jobs 1`` in this process: its folder and what it printed, styles included."""
    out, printed = tmp_path_factory.mktemp("demo"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "console", Console(file=printed, force_terminal=True, width=120, legacy_windows=False))
        patch.setattr(sys, "argv", ["bmtl", "demo", "--quick", "--jobs", "1", "--out", str(out)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code
    return out, printed.getvalue()


def test_the_demo_writes_its_files(demo):
    out, _ = demo
    runs = {f"{name}/seed-0/results.nc" for name in METHODS}
    files = {"comparison.nc", "table.csv", "training.png", "reliability.png", "conflicts.png"}
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == runs | files
    assert set(results.read(out / "bayesian/seed-0/results.nc").children) >= {"posterior", "posterior_predictive"}
    frame = pd.read_csv(out / "table.csv", index_col="method")
    assert frame.index.tolist() == list(METHODS)
    assert frame.notna().drop(columns=["T", "delta_m [%]"]).all(axis=None)


def test_the_demo_prints_its_table_with_the_best_in_bold(demo):
    out, printed = demo
    frame = pd.read_csv(out / "table.csv", index_col="method")
    styles = re.compile(r"\x1b\[[0-9;]*m")
    plain = styles.sub("", printed)
    assert "qm9-mini: 11 tasks; molecules: 1,400 train, 300 val, 300 test. 7 runs." in plain
    assert all(f"{name} (seed 0) done" in plain for name in METHODS)
    assert "delta_m: mean relative change of MAE against stl" in plain
    assert f"Wrote {out}/" in plain.replace("\n", "")
    lines = printed[printed.index("Scores on") : printed.index("Mean absolute error")].splitlines()
    rows = {words[0]: line for line in lines if (words := styles.sub("", line).split())}
    scores = {name: rows[name] for name in METHODS}
    for column, position in (("delta_m [%]", 1), ("mean NLL", 3), ("mean ECE", 4)):
        best = frame[column].idxmin()
        for name, row in scores.items():
            cell = styles.sub("", row).split()[position]
            bold = f"\x1b[1m{cell}\x1b[0m" in row.replace(" ", "")
            assert bold == (name == best), (column, name)
    assert scores["stl"].count("-") >= 2  # no delta_m and no step time of its own


def test_the_demo_prints_every_task_in_its_unit(demo):
    _, printed = demo
    for task in ("mu [D]", "alpha [bohr^3]", "homo [meV]", "r2 [bohr^2]", "cv [cal/(mol K)]"):
        assert task in printed


# ---- Version ---------------------------------------------------------------------------------------------------------


def test_it_tells_its_version(run):
    assert run("--version") == (0, f"bmtl {bmtl.__version__}\n", "")


def test_the_package_runs_as_a_module():
    found = subprocess.run([sys.executable, "-m", "bmtl", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout == f"bmtl {bmtl.__version__}\n"
