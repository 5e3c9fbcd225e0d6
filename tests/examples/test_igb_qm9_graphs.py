import pandas as pd
import pytest


@pytest.fixture(scope="module")
def root(root_with):
    return root_with("qm9/qm9_12k.npz")


def test_the_quick_run(example, start, root, tmp_path):
    printed = start("--root", root, "--out", tmp_path, "--quick", "--residual")
    frame = pd.read_csv(tmp_path / "table.csv", index_col=0)
    assert frame.index.tolist() == [*example.QUICK, example.COUNTS]
    assert frame.filter(regex=r"^MAE .*\]$").notna().all(axis=None)
    assert frame.loc["igb-v1", ["delta_m paper", "MAE homo [meV] paper"]].tolist() == [73.9, 143.1]
    stl, ew = (
        frame.loc[name, [f"MAE {task} [{example.UNITS[task]}]" for task in example.ONE_ENERGY]]
        for name in ("stl", "ew")
    )
    assert frame.loc["ew", "delta_m of 8 [%]"] == pytest.approx(100 * (ew / stl - 1).mean())
    assert (tmp_path / "table.md").read_text() in printed


def test_gradient_methods_on_all_parameters_have_one_seed(example):
    seeds = {method.name: example.seeds_of(method, 3) for method in example.named(None, "schnet")}
    assert {seeds[name] for name in ("stl", "ew", "igb-v2", "cagrad (last-layer)")} == {3}
    assert {seeds[name] for name in ("mgda", "igb-v1+nash-mtl", "igb-v2+pcgrad")} == {1}


def test_an_unknown_row_is_named(example):
    with pytest.raises(SystemExit, match="no row is called 'igb-v3'; there are stl, ew, "):
        example.named(["igb-v3"], "schnet")
