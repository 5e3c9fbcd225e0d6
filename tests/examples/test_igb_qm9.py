import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bmtl.inference.balancing import balancer


@pytest.fixture(scope="module")
def root(root_with):
    return root_with("qm9/qm9_12k.npz")


def test_the_quick_run_and_its_resumption(example, start, root, tmp_path):
    arguments = ("--root", root, "--out", tmp_path, "--quick")
    printed = start(*arguments)
    methods = [name for name in example.QUICK if name != "igb-v2" or importlib.util.find_spec("stable_baselines3")]
    frame = pd.read_csv(tmp_path / "table.csv", index_col=0)
    assert frame.index.tolist() == [*methods, "atom counts", "ridge"]
    scored = frame.drop(columns=[name for name in frame.columns if name.endswith((" sd", " paper", "of weights"))])
    assert scored.loc[methods].drop(index="stl").notna().all(axis=None)
    assert frame["logit sd of weights"].dropna().index.tolist() == [name for name in methods if name.startswith("igb")]
    assert frame.loc["igb-v1", ["delta_m paper", "T paper", "MAE homo paper"]].tolist() == [73.9, 1.01, 143.1]
    assert (tmp_path / "table.md").read_text() in printed

    runs = {file: file.stat().st_mtime_ns for file in tmp_path.glob("lr-*/*/seed-*/results.nc")}
    assert len(runs) == len(methods)
    start(*arguments)
    assert {file: file.stat().st_mtime_ns for file in runs} == runs
    again = pd.read_csv(tmp_path / "table.csv", index_col=0)
    pd.testing.assert_frame_equal(again.drop(columns="T of a step"), frame.drop(columns="T of a step"))


def test_weights_are_measured_after_the_logarithm(example, monkeypatch):
    """lambda_k, of which the record has lambda_k / L_k; the first half of training does not count."""
    losses, factors = np.array([[0.5, 2.0], [4.0, 0.1]]), np.array([[9.0, 1.0], [1.0, np.e]])
    training = xr.Dataset({"losses": (("step", "task"), losses), "weights": (("step", "task"), factors / losses)})
    tree = xr.DataTree.from_dict({"training": training})
    assert example.logit_spread({("si", 0): tree, ("uw", 0): tree}) == {"si": pytest.approx(0.5)}


def test_stl_may_have_fewer_seeds(example, monkeypatch):
    index = pd.MultiIndex.from_tuples([("stl", 0), ("ew", 0), ("ew", 1)], names=["method", "seed"])
    errors = pd.DataFrame(np.outer([2.0, 1.0, 3.0], np.ones(11)), index=index, columns=list(example.UNITS))
    monkeypatch.setattr(example, "errors_of", lambda trees: errors)
    frame = example.table(dict.fromkeys(index), {("stl", 0): 9.0, ("ew", 0): 1.0, ("ew", 1): 3.0}, {"ew": 0.1})
    assert frame.loc["ew", ["delta_m [%]", "delta_m of 8 [%]", "T", "seeds"]].tolist() == [0, 0, 1, 2]
    assert frame.loc["ew", "delta_m sd"] == pytest.approx(100 / np.sqrt(2))
    assert np.isnan(frame.loc["stl", ["delta_m [%]", "T"]].astype(float)).all()
    index = pd.MultiIndex.from_tuples([("ew", 0), ("uw", 0)], names=["method", "seed"])
    without = pd.DataFrame(np.outer([2.0, 3.0], np.ones(11)), index=index, columns=list(example.UNITS))
    monkeypatch.setattr(example, "errors_of", lambda trees: without)
    frame = example.table(dict.fromkeys(without.index), {("ew", 0): 1.0}, {})
    assert frame.loc["uw", "delta_m [%]"] == pytest.approx(50)
    paper = [np.array(example.PAPER[name][:11]) for name in ("uw", "ew")]
    assert frame.loc["uw", "delta_m paper"] == pytest.approx(100 * (paper[0] / paper[1] - 1).mean())


def test_missing_data_are_named(start, tmp_path):
    with pytest.raises(SystemExit, match=r"qm9_12k\.npz"):
        start("--root", tmp_path)


def test_data_are_in_the_units_of_the_table(example, root):
    data = example.load("qm9-12k", root=root, sizes=example.SPLIT)
    assert data.tasks == tuple(example.UNITS)
    assert {part: len(rows) for part, rows in data.rows.items()} == example.SPLIT
    assert data.targets["mu"].values.mean() == pytest.approx(2.6773, abs=1e-4)  # the file's README, in D
    assert data.targets["u0"].values.mean() == pytest.approx(-76.2e3, rel=0.01)  # of atomization, in meV
    assert abs(data.tensors("train")[0]).max() <= 5


def test_the_papers_table_holds_together(example):
    """Its delta_m follows from its errors (equation 5), but for what is lost to rounding."""
    *baseline, _, _ = example.PAPER["stl"]
    for name, (*errors, delta_m, _) in example.PAPER.items():
        if name != "stl":
            assert float(example.comparison.delta_m(errors, baseline)) == pytest.approx(delta_m, rel=0.02), name


def test_rows_are_chosen_by_name_with_those_that_the_scores_are_relative_to(example):
    assert [method.name for method in example.named(["igb-v2 sampled", "si"])] == ["stl", "ew", "si", "igb-v2 sampled"]
    assert [method.name for method in example.named(None)] == [method.name for method in example.METHODS]
    with pytest.raises(SystemExit, match="no row is called 'igb-v3'; there are stl, ew, "):
        example.named(["si", "igb-v3"])


def test_every_row_names_a_balancer(example):
    for method in example.METHODS:
        assert str(balancer(method.balancer))


@pytest.mark.parametrize("name", ["igb_qm9", "igb_qm9_graphs"])
def test_the_page_shows_the_file_of_results(example, results, name):
    frame, page = results(name, "igb_qm9.md", index_col=0)
    assert all(table in page for table in example.tables(frame))
    assert {"si", "igb-v1", example.COUNTS, "ridge", "boosting"} <= set(frame.index)


def test_the_page_shows_the_step_times_of_the_file():
    docs = Path(__file__).parents[2] / "docs"
    found, page = (
        json.loads((docs / "results" / "qm9_networks.json").read_text()),
        (docs / "igb_qm9.md").read_text("utf-8"),
    )
    for name in ("original", "factorised", "like sizes", "schnet"):
        seconds, ratio = found[name]["seconds"], found[name]["seconds"] / found["original"]["seconds"]
        assert f"| {name} | {seconds:.3f} | {ratio:.3f} | {found[name]['bytes'] / 1e9:.2f} |" in page


@pytest.mark.rows
def test_a_trained_row_of_the_page_comes_out_again(example, root, results, tmp_path):
    """Equal weights by a fourth seed, within five standard deviations of the page's three."""
    data = example.load("qm9-12k", root=root)
    budget = replace(example.BUDGET, epochs=12, schedule="falling")
    trained = example.Grid(data, budget, tmp_path, 1)
    cell = example.Cell(next(m for m in example.METHODS if m.name == "ew"), 3)
    trained.run([cell], 1e-3)
    table, _ = results("igb_qm9", "igb_qm9.md", index_col=0)
    (errors,) = (errors for _, errors in example.errors_of({("ew", 3): trained.read(cell, 1e-3)}).iterrows())
    for task, error in errors.items():
        mean, deviation = table.loc["ew", [f"MAE {task} [{example.UNITS[task]}]", f"MAE {task} sd"]]
        assert error == pytest.approx(mean, abs=max(5 * deviation, 0.05 * mean)), task
