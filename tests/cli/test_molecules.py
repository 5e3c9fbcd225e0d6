"""Molecules through the command line: compared, trained and predicted, with heads of every kind."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bmtl.datasets import load
from bmtl.datasets.qm9_12k import FILE
from bmtl.evaluation import results
from tests.cli.commands import call_main

SIZES = {"train": 60, "val": 20, "test": 20}
SMALL = ("-d", "sizes=train:60,val:20,test:20", "--epochs", 1, "--widths", "8,8", "--draws", 3)


@pytest.fixture(scope="module")
def root():
    found = Path(os.environ.get("BMTL_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (found / FILE).is_file():
        pytest.skip(f"there is no {FILE} in BMTL_DATA or ../shared/data")
    return found


@pytest.mark.usefixtures("short_ending")
def test_bayesian_and_evidential_heads_are_compared_beside_reference_rows(root, tmp_path):
    methods = "bayesian,enet"
    data = ("qm9-graphs", "--root", root, "-d", "residual=true")
    assert call_main("compare", *data, *SMALL, "--methods", methods, "--jobs", 1, "--out", tmp_path) == 0
    frame = pd.read_csv(tmp_path / "table.csv", index_col="learner")
    assert frame.index.tolist() == [*methods.split(","), "constant", "ridge", "boosting"]
    assert frame.loc[:"enet", ["mean NLL", "mean ECE"]].notna().all(axis=None)
    # Residual targets begin where the atom counts are; ten times as many meV would be total energies or scaled ones.
    assert (frame.loc[:"enet", "MAE u0 [meV]"] < 2 * frame.loc["ridge", "MAE u0 [meV]"]).all()


@pytest.mark.parametrize("residual", ["true", "false"])
def test_new_molecules_are_predicted_in_units(root, tmp_path, residual):
    out = tmp_path / "model"
    data = ("qm9-graphs", "--root", root, "-d", f"residual={residual}")
    assert call_main("train", *data, *SMALL, "--method", "ew", "--out", out) == 0
    inputs = load("qm9-graphs", root=root, sizes=SIZES)
    rows = inputs.rows["test"]
    np.savez(tmp_path / "new.npz", Z=inputs.inputs.atomic_numbers[rows], pos=inputs.inputs.positions[rows])
    assert call_main("predict", out, "--data", tmp_path / "new.npz", "--out", tmp_path / "p.csv") == 0
    frame = pd.read_csv(tmp_path / "p.csv", index_col="row")
    tree = results.read(out / "results.nc")
    for name in ("u0", "mu"):
        mean = tree[f"test/predictive_mean/y_{name}"].values
        column = next(column for column in frame if column.startswith(f"{name} mean"))
        np.testing.assert_allclose(frame[column], mean, rtol=1e-5, atol=1e-5 * np.abs(mean).max())
    (tmp_path / "bad.xyz").write_text("1\n\nCl 0 0 0\n")
    assert call_main("predict", out, "--data", tmp_path / "bad.xyz", "--out", tmp_path / "p.csv") != 0
