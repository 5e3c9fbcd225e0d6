"""Every benchmark runs in its short mode, ``--quick``."""

import contextlib
import importlib.util
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

SCRIPTS = sorted(Path(__file__).parents[1].glob("benchmarks/*.py"))


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def loaded(script):
    spec = importlib.util.spec_from_file_location(f"benchmark_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "seeds"), [("wine", {100, 101, 102}), ("naval", {100})])
def test_defaults_are_chosen_on_rows_that_no_table_tests_on(name, seeds):
    defaults = loaded(next(script for script in SCRIPTS if script.stem == "defaults"))
    rows = np.arange(60)
    arrays = (rows[:, None] // 2, {"y": rows}, rows)  # two rows have the same features
    tested = {int(row) for seed in seeds for row in defaults.split(arrays, seed)["test"]}
    x, y, groups = defaults.without_test_rows(name, arrays)
    assert set(y["y"]) == set(rows) - tested
    assert list(x[:, 0]) == list(y["y"] // 2)
    assert list(groups) == list(y["y"])
    parts = defaults.split(arrays, 100)
    fresh = defaults.without_copies(arrays[0], parts)["test"]
    elsewhere = set(np.concatenate([parts["train"], parts["val"]]) // 2)
    assert 0 < len(fresh) < len(parts["test"])
    assert {row // 2 in elsewhere for row in fresh} == {False}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_short_mode_runs(script, monkeypatch):
    monkeypatch.syspath_prepend(script.parent)  # as where it is run: a script may use another one's networks
    module = loaded(script)

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


def test_steps_that_are_timed_on_a_device_run_without_one(monkeypatch):
    script = next(path for path in SCRIPTS if path.stem == "gpu")
    monkeypatch.syspath_prepend(script.parent)
    spec = importlib.util.spec_from_file_location("benchmark_gpu_here", script)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclass asks for its module
    spec.loader.exec_module(module)
    monkeypatch.setattr(
        module, "table", lambda *_: module.Workload(lambda: made(8), module.batch(torch.float32, "cpu"))
    )

    def made(width):
        return module.model_of(torch.float32, "cpu", width)

    rows = list(module.costs("cpu", quick=True))
    names = [row["what"].partition(", ")[0] for row in rows]
    assert {name: names.count(name) for name in names} == {"demo": 6, "graphs": 5, "scenes": 6}
    assert all(row["value"] > 0 for row in rows)
