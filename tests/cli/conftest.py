import sys

import numpy as np
import pytest

from bmtl import cli
from bmtl.experiments import runs


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line in this process: exit code, output, error output."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["bmtl", *map(str, arguments)])
        monkeypatch.setattr(cli.console, "_width", 200)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def never_trains(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("trained")

    monkeypatch.setattr(runs, "fit", never)


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """A file of 90 rows with two regressions, the second called by a number, and some labels missing."""
    random = np.random.default_rng(0)
    x = random.normal(size=(90, 3))
    y = np.stack([1000 + 20 * x[:, 0] + random.normal(size=90), x[:, 1] - x[:, 2]], 1)
    y[[4, 60], 1] = np.nan
    split = np.r_[np.ones(70, int), np.zeros(20, int)]
    path = tmp_path_factory.mktemp("data") / "toy.npz"
    np.savez(path, X=x, y=y, split=split, task_names=np.array(["mass", "25400"]))
    return path
