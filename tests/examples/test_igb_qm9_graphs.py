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
