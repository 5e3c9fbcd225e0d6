"""Help, lists, wrong input, versions, and how an interrupted command ends."""

import os
import platform
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest
import typer

import bmtl
from bmtl import cli, experiments
from bmtl.datasets.registry import READERS
from bmtl.evaluation import results
from bmtl.evaluation.results import decode_attributes
from bmtl.experiments import METHODS, importing, registry
from bmtl.inference.balancing import SLOTS
from bmtl.models import LIKELIHOODS

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
    assert all(option in out for option in ("--out", "--quick", "--draws", "--jobs", "runs/demo"))


def test_without_a_command_it_shows_help_and_fails(run):
    code, out, err = run()
    assert code == 2
    assert "Usage: bmtl" in out + err


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_names_its_options_with_a_sentence_each(run, command):
    _, out, _ = run(command, "--help", width=80)
    group = typer.main.get_command(cli.app)
    parameters = group.commands[command].params
    words = " ".join(out.replace("│", " ").split())
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            continue
        assert max(parameter.opts, key=len) in out
        assert " ".join(parameter.help.split()[:2]) in words, parameter.name


SHOWN = {
    "methods": list(METHODS),
    "recipes": list(registry.MODELS),
    "trunks": list(registry.TRUNKS),
    "likelihoods": list(LIKELIHOODS),
    "balancers": list(SLOTS),
    "datasets": [
        "camvid",
        "cityscapes",
        "davis",
        "kiba",
        "kitchen",
        "nyuv2",
        "office-caltech10",
        "qm9-12k",
        "qm9-mini",
        "rooms",
        "qm9-graphs",
        "school",
        "uci/<name>",
        "npz:<path>",
        "csv:<path>",
    ],
}


def first_words(text):
    return [line.split()[0] for line in text.splitlines() if re.match(" {1,2}\\S", line)]


@pytest.mark.parametrize("what", SHOWN)
def test_a_list_shows_its_names_and_no_others(run, what):
    code, out, err = run("list", what)
    assert (code, err) == (0, "")
    found = first_words(out)[1:]  # below the heading
    assert sorted(found) == sorted(SHOWN[what])
    assert "``" not in out


def test_the_list_of_all_is_the_lists(run):
    assert run("list") == run("list", "all") == (0, "".join(run("list", what)[1] for what in SHOWN), "")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("csv:", [option.name for option in READERS["csv:"].options()]),
        ("csv:houses.csv", ["targets", "ignore", "kinds"]),
        ("npz:<path>", ["x", "y", "unpack"]),
        ("uci/energy", ["split", "seed"]),
        ("cagrad", ["c", "rescale"]),
        ("ew", ["weights"]),
        ("homoscedastic", ["likelihood", "noise", "head", "dropout"]),
        ("student-t", ["noise", "df"]),
        ("gp-icm", []),
    ],
)
def test_the_options_of_a_name(run, name, options):
    code, out, err = run("list", name)
    assert (code, err) == (0, "")
    found = [match[1] for match in re.finditer(r"^  (\w+): ", out, re.M)]
    assert [option for option in found if option in options] == options
    assert "trunk" not in found
    assert "Range(" not in out
    if ":" in name:
        assert "[str" not in out
        assert "Literal" not in out
    if name.startswith("csv:"):
        assert "  decimal: point | comma" in out
        assert "  validation: number [0.2 by default]" in out
        assert "  kinds: text | name:text,..." in out
        assert "  missing: text,..." in out


@pytest.fixture
def announced(monkeypatch, tmp_path):
    """A package that is installed, as far as its entry points say."""
    package = tmp_path / "other_package"
    package.mkdir()
    (package / "__init__.py").write_text(
        '"""Of others."""\n'
        "from bmtl.inference.balancing import Weighting\n"
        "def recipe(spec, *, trunk, width: int = 3):\n"
        '    """Their model."""\n'
        "def trunk(inputs, *, widths, generator, depth: int = 2):\n"
        '    """Their trunk."""\n'
        "class TheirWeighting(Weighting):\n"
        '    """Their weighting."""\n'
        '    name = "their-weighting"\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    groups = {
        "bmtl.models": EntryPoint("their-model", "other_package:recipe", "bmtl.models"),
        "bmtl.trunks": EntryPoint("their-trunk", "other_package:trunk", "bmtl.trunks"),
        "bmtl.balancers": EntryPoint("their-weighting", "other_package:TheirWeighting", "bmtl.balancers"),
    }
    monkeypatch.setattr(importing, "entry_points", lambda group: [groups[group]] if group in groups else [])
    yield
    SLOTS.pop("their-weighting", None)
    sys.modules.pop("other_package", None)


@pytest.mark.parametrize(
    ("what", "name", "summary"),
    [
        ("recipes", "their-model", "Their model."),
        ("trunks", "their-trunk", "Their trunk."),
        ("balancers", "their-weighting", "Their weighting."),
    ],
)
def test_what_installed_packages_announce_is_listed(run, announced, what, name, summary):
    line = next(line for line in run("list", what)[1].splitlines() if line.split()[:1] == [name])
    assert summary in line
    _, out, _ = run("list", name)
    assert summary in out
    if what != "balancers":
        assert re.search("^  (width|depth): int", out, re.M)


def test_a_recipe_that_cannot_be_imported_says_why_in_the_list(run, monkeypatch):
    point = EntryPoint("lost", "no_such_package:recipe", "bmtl.models")
    monkeypatch.setattr(importing, "entry_points", lambda group: [point] if group == "bmtl.models" else [])
    code, out, _ = run("list", "recipes")
    assert code == 0
    assert "No module named 'no_such_package'" in next(line for line in out.splitlines() if "lost" in line)


# ---- Wrong input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["learn"], "No such command 'learn'"),
        (["demo", "--fast"], "No such option: --fast"),
        (["demo", "extra"], "unexpected extra argument"),
        (["demo", "--draws", "-1"], "'--draws'"),
        (["demo", "--draws", "two"], "'--draws'"),
        (["demo", "--jobs", "-1"], "'--jobs'"),
        (["demo", "--out"], "--out"),
        (["list", "losses"], "There is no list 'losses', and nothing of that name in a list. The lists are: methods, "),
        (["list", "balancer"], "Did you mean 'balancers'? The lists are"),
        (["list", "cagard"], "Did you mean 'cagrad'?"),
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


@pytest.mark.parametrize("error", [ValueError, TypeError, OSError, ArithmeticError, ImportError, MemoryError])
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
        deadline = time.monotonic() + 600  # a busy machine takes minutes to start it
        while not (tmp_path / "labels-100/stl/seed-0/.running").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.7)  # the mark is there just before training
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert err.strip().endswith("Interrupted. What was finished has been written.")
    assert "Traceback" not in err
    for path in tmp_path.rglob("partial.nc"):
        assert decode_attributes(results.read(path))["interrupted"] is True


# ---- Version ---------------------------------------------------------------------------------------------------------


def test_it_tells_its_version(run):
    code, out, err = run("--version")
    assert (code, err) == (0, "")
    assert out.startswith(f"bmtl {bmtl.__version__} (Python {platform.python_version()}, torch {version('torch')}, ")
    assert f"arviz {version('arviz')}" in out


def test_it_completes_commands_in_a_shell():
    """By its own name: the script that a shell is given asks the command for what fits."""
    asked = {"_BMTL_COMPLETE": "complete_bash", "COMP_WORDS": "bmtl tr", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", "from bmtl.cli import main; main()"]
    found = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["train"]


def test_the_package_runs_as_a_module():
    found = subprocess.run([sys.executable, "-m", "bmtl", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.startswith(f"bmtl {bmtl.__version__} (")
