import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "mt_enet_synthetic.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("mt_enet_synthetic", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(example, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mt_enet_synthetic.py", *map(str, arguments)])
    example.main()


def test_the_quick_run(example, monkeypatch, tmp_path, capsys):
    start(example, monkeypatch, "--quick", "--epochs", 2, "--out", tmp_path, "--balancer", "full >> pcgrad")
    runs = pd.read_csv(tmp_path / "scores.csv")
    assert runs["method"].tolist() == ["enet"] * 2 + ["mt-enet"] * 2
    assert runs["region"].tolist() == ["rich", "sparse"] * 2
    assert np.isfinite(runs[["RMSE", "NLL", "epistemic sd"]]).all(axis=None)
    assert (tmp_path / "figure4.png").read_bytes().startswith(b"\x89PNG")
    assert "Medians over 1 seed, 2 epochs" in capsys.readouterr().out


def test_the_data_are_the_papers(example):
    """900 points on the left, 20 on the right; noise grows with the distance from |x| = 7."""
    x, y, rows = example.synthetic()
    assert (x[rows] < example.BORDER).sum() == 900
    assert (x[rows] >= example.BORDER).sum() == 20
    noise = y - np.sin(4 * x) ** 3 - x**2 / 10
    for end in (-3, -1, 1, 3, 5):
        near = abs(x - end) < 0.5
        expected = np.sqrt(0.1**2 + ((0.1 * (7 - abs(x[near]))) ** 2).mean())
        assert noise[near].std() == pytest.approx(expected, rel=4 / np.sqrt(2 * near.sum()))


def test_an_unknown_method_is_told(example, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        start(example, monkeypatch, "--methods", "enet,mtenet", "--out", tmp_path)
    assert "'mtenet' was given" in capsys.readouterr().err
