import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import norm

SCRIPT = Path(__file__).parents[2] / "examples" / "mt_enet_uci.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("mt_enet_uci", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root():
    root = Path(os.environ.get("BMTL_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (root / "uci" / "boston.npz").is_file():
        pytest.skip("there is no uci/boston.npz in BMTL_DATA or ../shared/data")
    return root


def start(example, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mt_enet_uci.py", *map(str, arguments)])
    example.main()


def test_the_quick_run_and_its_files(example, monkeypatch, tmp_path, root, capsys):
    options = ("--quick", "--root", root, "--sets", "boston", "--out", tmp_path)
    start(example, monkeypatch, *options)
    scores = xr.load_dataarray(tmp_path / "boston.nc")
    assert scores.sizes == {"reading": 3, "metric": 2, "method": 6, "split": 2}
    assert np.isfinite(scores).all()
    assert (scores.sel(reading="best") <= scores.sel(reading=["last", "val"])).all()
    summary = pd.read_csv(tmp_path / "summary.csv").set_index(["method", "metric", "reading"])
    assert summary.loc[("MT-ENet", "RMSE", "best"), ["paper", "paper_error"]].tolist() == [3.04, 0.21]
    for method in example.METHODS:
        of = scores.sel({"method": method, "metric": "NLL", "reading": "val"})
        found = summary.loc[(method, "NLL", "val"), ["mean", "error"]].tolist()
        assert found == pytest.approx([of.mean().item(), of.std(ddof=1).item() / np.sqrt(2)])
    differences = pd.read_csv(tmp_path / "differences.csv").set_index(["method", "metric", "reading"])
    gaussian = scores.sel({"method": "Gaussian"}) - scores.sel({"method": "ENet"})
    assert differences.loc[("Gaussian", "RMSE", "last"), "difference"] == pytest.approx(
        gaussian.sel(metric="RMSE", reading="last").mean().item()
    )
    table = (tmp_path / "table.md").read_text()
    assert "| boston | MT-ENet |" in table
    assert table in capsys.readouterr().out

    def train(*arguments):
        raise AssertionError("a finished set is not done again")

    monkeypatch.setattr(example, "train", train)
    start(example, monkeypatch, *options)
    assert (tmp_path / "table.md").read_text() == table
    with pytest.raises(AssertionError, match="not done again"):
        start(example, monkeypatch, *options, "--epochs", 3)


def test_scores_against_their_formulas(example):
    """Two epochs, two splits of four and three rows, three members."""
    random = np.random.default_rng(0)
    shape = (2, 2, 3, 4)
    curves = {
        "label": np.broadcast_to(random.normal(size=(2, 1, 4)), shape).copy(),
        "mean": random.normal(size=shape),
        "variance": random.gamma(2.0, size=shape),
    }
    for values in curves.values():
        values[:, 1, :, 3] = np.nan
    spread = np.sqrt(curves["variance"])
    curves["log_density"] = norm.logpdf(curves["label"], curves["mean"], spread)
    rmse, nll = example.single(curves)
    assert rmse[1, 1, 2] == pytest.approx(np.sqrt(((curves["label"] - curves["mean"])[1, 1, 2, :3] ** 2).mean()))
    assert nll[0, 0, 1] == pytest.approx(-curves["log_density"][0, 0, 1].mean())
    rmse, nll = example.ensemble(curves)
    mean, variance = (curves[of][1, 1, :, :3] for of in ("mean", "variance"))
    label = curves["label"][1, 1, 0, :3]
    assert rmse[1, 1, 0] == pytest.approx(np.sqrt(((label - mean.mean(0)) ** 2).mean()))
    moments = mean.mean(0), np.sqrt((variance + mean**2).mean(0) - mean.mean(0) ** 2)
    assert nll[1, 1, 0] == pytest.approx(-norm.logpdf(label, *moments).mean())


def test_readings(example):
    """The last epoch, the one that is best on validation, the one that is best on test: each network its own."""
    test = np.array([[[[3.0, 9.0]], [[1.0, 5.0]], [[2.0, 7.0]]]])  # one metric, three epochs, one split, two seeds
    val = np.array([[[[4.0, 2.0]], [[5.0, 2.5]], [[3.0, 2.1]]]])
    last, chosen, best = example.readings(test, val)[:, 0, 0]
    assert last == (2 + 7) / 2
    assert chosen == (2 + 9) / 2
    assert best == (1 + 5) / 2


def test_an_unknown_set_is_told(example, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        start(example, monkeypatch, "--sets", "bostn", "--out", tmp_path)
    assert "'bostn'" in capsys.readouterr().err
