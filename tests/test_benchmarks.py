"""Every benchmark runs in its short mode, ``--quick``."""

import contextlib
import importlib.util
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

SCRIPTS = sorted(Path(__file__).parents[1].glob("benchmarks/*.py"))


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_short_mode_runs(script, monkeypatch):
    spec = importlib.util.spec_from_file_location(f"benchmark_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def main(*arguments):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(script), *arguments])
            module.main()
        return printed.getvalue()

    def here(command, **_):  # what needs a process of its own for its memory's peak
        assert command[:2] == [sys.executable, str(script)]
        return SimpleNamespace(stdout=main(*command[2:]))

    monkeypatch.setattr(subprocess, "run", here)
    lines = main("--quick").splitlines()
    assert any(any(letter.isdigit() for letter in line) for line in lines)
    assert "nan" not in " ".join(lines)
