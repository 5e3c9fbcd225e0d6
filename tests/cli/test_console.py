"""Help, lists, wrong input, versions, and how an interrupted command ends."""

import io
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

import bmtl
from bmtl import cli, experiments
from bmtl.cli.console import print_scores
from bmtl.evaluation import results
from bmtl.evaluation.comparison import compare
from bmtl.evaluation.results import decode_attributes
from bmtl.evaluation.text_tables import to_text
from bmtl.experiments import METHODS
from bmtl.inference.balancing import SLOTS
from tests.evaluation import trees
from tests.evaluation.conftest import arrays

COMMANDS = [command.name or command.callback.__name__ for command in cli.app.registered_commands]

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
    "methods": list(METHODS),
    "models": bmtl.models.__all__,
    "balancers": list(SLOTS),
    "datasets": ["qm9-mini", "qm9-12k", "office-caltech10", "uci/<name>", "npz:<path>", "csv:<folder>"],
}
ALONE = {what: set(names) - set(METHODS) if what == "balancers" else set(names) for what, names in SHOWN.items()}


@pytest.mark.parametrize("what", SHOWN)
def test_a_list_shows_its_names_and_no_others(run, what):
    code, out, err = run("list", what)
    assert (code, err) == (0, "")
    assert all(re.search(rf"^\s+{re.escape(name)}\s", out, re.M) for name in SHOWN[what])
    first_words = {line.split()[0] for line in out.splitlines() if re.match(" {1,2}\\S", line)}
    others = {name for other in SHOWN if other != what for name in ALONE[other]} - set(SHOWN[what])
    assert not first_words & others
    assert "``" not in out


def test_the_list_of_all_is_the_lists(run):
    assert run("list") == run("list", "all") == (0, "".join(run("list", what)[1] for what in SHOWN), "")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_scores_are_printed_as_they_are_laid_out(monkeypatch, width):
    """The terminal's library breaks no line of the tables, and takes no name for its markup."""
    grid = {
        (name, seed): trees.tree(
            **arrays(targets=("mu", "[red]x"), seed=seed, variant=place, error=error, rows=20, draws=2, steps=2)
        )
        for place, (name, error) in enumerate({"stl": 0.0004, "igb-v1 >> last-layer >> nash-mtl": 0.3}.items())
        for seed in range(3)
    }
    scores = compare(grid, reference=None)
    terminal = Console(width=width, file=io.StringIO())
    monkeypatch.setattr("bmtl.cli.console.console", terminal)
    print_scores(scores)
    assert terminal.file.getvalue().strip() == to_text(scores, width=width).strip()


# ---- Wrong input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["learn"], "No such command 'learn'"),
        (["demo", "--fast"], "No such option: --fast"),
        (["demo", "extra"], "unexpected extra argument"),
        (["demo", "--seeds", "0"], "'--seeds'"),
        (["demo", "--seeds", "two"], "'--seeds'"),
        (["demo", "--jobs", "-1"], "'--jobs'"),
        (["demo", "--out"], "--out"),
        (["list", "losses"], "'losses' is none of: methods, models, balancers, datasets, all."),
    ],
)
def test_wrong_input_is_one_message_and_code_2(run, never_trains, arguments, message):
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", [["demo", "--quick", "--jobs", 1], ["compare", "qm9-mini"], ["train", "qm9-mini"]])
def test_a_folder_that_cannot_be_written_is_told_before_training(run, tmp_path, never_trains, command):
    (tmp_path / "file").touch()
    code, _, err = run(*command, "--out", tmp_path / "file")
    assert code == 2
    assert err.startswith("Error: The output folder")
    assert str(tmp_path / "file") in err


@pytest.mark.parametrize("error", [ValueError, TypeError, OSError, ArithmeticError, ImportError])
def test_an_error_of_the_input_is_one_line(run, monkeypatch, tmp_path, error):
    def fails(*args, **kwargs):
        raise error("what [was] given and how to mend it")

    monkeypatch.setattr(experiments, "demo", fails)
    code, _, err = run("demo", "--out", tmp_path)
    assert (code, err) == (2, "Error: what [was] given and how to mend it\n")


def test_a_fault_of_our_own_keeps_its_traceback(monkeypatch, tmp_path):
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
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "stl/seed-0/.running").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.7)  # the mark is there just before training
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().endswith("Interrupted. What was finished has been written.")
    assert "Traceback" not in err
    for path in tmp_path.rglob("partial.nc"):
        assert decode_attributes(results.read(path))["interrupted"] is True


# ---- Version ---------------------------------------------------------------------------------------------------------


def test_it_tells_its_version(run):
    assert run("--version") == (0, f"bmtl {bmtl.__version__}\n", "")


def test_the_package_runs_as_a_module():
    found = subprocess.run([sys.executable, "-m", "bmtl", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout == f"bmtl {bmtl.__version__}\n"
