import csv

import numpy as np
import pytest

from bmtl import cli
from bmtl.experiments import training
from tests.cli.commands import call_main


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line in this process: exit code, output, error output."""

    def call(*arguments, width=200):
        for one in (cli.console, cli.errors):
            monkeypatch.setattr(one, "_width", width)
        code = call_main(*arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def never_trains(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("trained")

    monkeypatch.setattr(training, "fit", never)


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """A file of 90 rows with two real targets, the second called by a number, and some labels missing."""
    random = np.random.default_rng(0)
    x = random.normal(size=(90, 3))
    y = np.stack([1000 + 20 * x[:, 0] + random.normal(size=90), x[:, 1] - x[:, 2]], 1)
    y[[4, 60], 1] = np.nan
    split = np.r_[np.ones(70, int), np.zeros(20, int)]
    path = tmp_path_factory.mktemp("data") / "toy.npz"
    np.savez(path, X=x, y=y, split=split, task_names=np.array(["mass", "25400"]))
    return path


@pytest.fixture(scope="session")
def houses(tmp_path_factory):
    """A table with text, dates, gaps and a comma in a name; a real, an ordinal, a count and a yes-or-no target."""
    random = np.random.default_rng(0)
    number = 120
    size = random.normal(80, 20, number)
    town = random.choice(["Oslo", "Bergen", "Ålesund, N"], number)
    day = np.datetime64("2019-01-01") + random.integers(0, 900, number)
    z = (size - 80) / 20
    columns = {
        "id": [f"h{i:03d}" for i in range(number)],
        "size": [f"{value:.1f}" for value in size],
        "town": town.tolist(),
        "built": day.astype(str).tolist(),
        "remark": [f"note {i}" for i in range(number)],
        "price": [f"{v:.2f}" for v in 120 + 40 * z + 30 * (town == "Oslo") + random.normal(0, 8, number)],
        "grade": np.array(["low", "medium", "high"])[np.digitize(z, [-0.7, 0.7])].tolist(),
        "visits": random.poisson(np.exp(1 + 0.4 * z)).astype(str).tolist(),
        "sold": np.where(z + random.normal(0, 0.5, number) > 0.3, "yes", "no").tolist(),
    }
    for name, gap in (("size", ""), ("town", "NA"), ("built", ""), ("price", "?"), ("visits", "")):
        for row in random.choice(number, 8, replace=False):
            columns[name][row] = gap
    path = tmp_path_factory.mktemp("houses") / "houses.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    return path
