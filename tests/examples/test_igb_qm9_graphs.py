from argparse import Namespace
from dataclasses import replace

import pandas as pd
import pytest

from bmtl.datasets.qm9_properties import UNITS


@pytest.fixture(scope="module")
def root(root_with):
    return root_with("qm9/qm9_12k.npz")


def test_the_quick_run(example, start, root, tmp_path):
    printed = start("--root", root, "--out", tmp_path, "--quick", "--residual")
    frame = pd.read_csv(tmp_path / "table.csv", index_col=0)
    assert frame.index.tolist() == [*example.QUICK, "atom counts", "ridge"]
    assert frame.filter(regex=r"^MAE .*\]$").notna().all(axis=None)
    assert frame.loc["igb-v1", ["delta_m paper", "MAE homo paper"]].tolist() == [73.9, 143.1]
    eight = [f"MAE {task} [{UNITS[task]}]" for task in UNITS if task not in ("u298", "h298", "g298")]
    stl, ew = (frame.loc[name, eight] for name in ("stl", "ew"))
    assert frame.loc["ew", "delta_m of 8 [%]"] == pytest.approx(100 * (ew / stl - 1).mean(), abs=2e-3)
    assert (tmp_path / "table.md").read_text() in printed


def test_methods_of_eleven_backward_passes_have_one_seed(example):
    seeds = {method.name: example.seeds_of(method, 3, 2) for method in example.named(None, "schnet")}
    assert {seeds[name] for name in ("ew", "igb-v2")} == {3}
    assert {seeds[name] for name in ("cagrad (last-layer)", "igb-v2+mgda (last-layer)")} == {2}
    assert {seeds[name] for name in ("stl", "mgda", "igb-v1+nash-mtl", "igb-v2+pcgrad")} == {1}


def test_an_unknown_row_is_named(example):
    with pytest.raises(SystemExit, match="no row is called 'igb-v3'; there are stl, ew, "):
        example.named(["igb-v3"], "schnet")


def test_the_reference_rows_of_the_page_come_out_again(example, root, results, tmp_path):
    """Least squares on atom counts, and ridge, of the page's 12,000 molecules: its data, targets and scores are today's."""
    from igb_qm9 import errors_of

    data = example.load("qm9-graphs", root=root, sizes=example.SPLIT)
    trees = example.reference_trees(data, Namespace(quick=True, root=root, out=tmp_path))
    pages = [results(name, "igb_qm9.md", index_col=0)[0] for name in ("igb_qm9", "igb_qm9_graphs")]
    for (method, _), errors in errors_of(trees).iterrows():
        for task, error in errors.items():
            expected = [page.loc[method, f"MAE {task} [{UNITS[task]}]"] for page in pages]
            assert expected == pytest.approx([error, error], rel=2e-4), (method, task)


@pytest.mark.rows
def test_a_trained_row_of_the_page_comes_out_again(example, root, results, tmp_path):
    """Equal weights by a fourth seed, within five standard deviations of the page's three."""
    from igb_qm9 import errors_of

    data = example.load("qm9-graphs", root=root, residual=True, sizes=example.SPLIT)
    budget = replace(example.BUDGET, epochs=8, schedule="falling")
    trained = example.Grid(data, budget, tmp_path, 1)
    cell = example.Cell(example.named(["ew"], "schnet")[1], 3)
    trained.run([cell], 1e-2)
    table, _ = results("igb_qm9_graphs", "igb_qm9.md", index_col=0)
    (errors,) = (errors for _, errors in errors_of({("ew", 3): trained.read(cell, 1e-2)}).iterrows())
    for task, error in errors.items():
        mean, deviation = table.loc["ew", [f"MAE {task} [{UNITS[task]}]", f"MAE {task} sd"]]
        assert error == pytest.approx(mean, abs=max(5 * deviation, 0.05 * mean)), task
