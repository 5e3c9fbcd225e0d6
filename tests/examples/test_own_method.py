"""The example of a model and a balancer of one's own: the command of its docstring in a short form."""

import ast
import re
from pathlib import Path

import pandas as pd
import pytest

from bmtl.evaluation import results
from tests.cli.commands import call_main

FILE = Path(__file__).parents[2] / "examples" / "own_method.py"


@pytest.mark.usefixtures("short_ending")
def test_the_command_of_the_example_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(FILE.parents[1])
    (command,) = re.findall(r"^    bmtl (.*)$", ast.get_docstring(ast.parse(FILE.read_text()), clean=False), re.M)
    short = ("--epochs", 1, "--widths", 8, "--draws", 8, "--jobs", 1, "--no-reference", "--out", tmp_path)
    assert call_main(*command.split(), *short) == 0
    frame = pd.read_csv(tmp_path / "table.csv", index_col="learner")
    assert frame.index.tolist() == ["hierarchical", "Inverse", "ew", "bayesian"]
    assert frame["mean NLL"].notna().all()
    tree = results.read(tmp_path / "hierarchical/seed-0/results.nc")
    assert {"scale", "w_homo", "noise_cv"} <= set(tree["posterior"].data_vars)
    weights = results.read(tmp_path / "Inverse/seed-0/results.nc")["training/weights"]
    assert weights.sum("task").values == pytest.approx(weights.sizes["task"])
    assert float(weights.isel(step=-1).std()) > 1e-3  # the losses differ, and so do their weights


def test_it_is_as_short_as_it_says():
    """Thirty lines of code or so, without docstrings, comments and imports."""
    tree = ast.parse(FILE.read_text())
    lines = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not isinstance(node, ast.Import | ast.ImportFrom):
            documentation = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not documentation:
                lines.add(node.lineno)
    assert len(lines) <= 35
