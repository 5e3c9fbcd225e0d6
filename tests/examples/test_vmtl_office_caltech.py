import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def root(root_with):
    root_with("office_caltech10/office_caltech10_lite0.npz")
    return root_with("office_caltech10/office_caltech10.npz")


@pytest.fixture
def small(example, monkeypatch):
    for name, values in (("PENALTIES", (1.0,)), ("PAIRS", ((1, 2),)), ("DRAWS", 5), ("LOOKS", 3)):
        monkeypatch.setattr(example, name, values)


def test_the_quick_run_and_its_resumption(example, start, root, small, tmp_path):
    sections = ("c5", "shared", "c16", "c2", "c1", "splits")
    arguments = ("--root", root, "--out", tmp_path, "--quick", "--docs", tmp_path, "--table")
    printed = start(*arguments, *sections)
    import page_tables

    tables = {file.stem: page_tables.read(file) for file in (tmp_path / "results").iterdir()}
    names = ["c5", "differences", "chosen", "calibration", "shared", "c16", "c2", "c1", "splits"]
    assert tables.keys() == {f"vmtl_{name}" for name in names}
    for lines in tables.values():
        assert any(page_tables.markdown_table(*lines, left=left) in printed for left in (1, 2, 3))
    accuracy = {row[0]: float(row[1]) for row in tables["vmtl_c5"][1:]}
    assert list(accuracy) == [*example.QUICK, *example.LOGISTIC]
    assert min(accuracy.values()) > 60  # deep features, ten steps
    assert float(tables["vmtl_differences"][1][1].replace("−", "-")) == pytest.approx(
        accuracy["VMTL"] - accuracy["STL"], abs=0.1
    )
    assert float(tables["vmtl_c16"][1][1]) == accuracy["STL"]
    # No attack is the prediction itself, but for the draws; the strongest leaves less.
    for row in tables["vmtl_c2"][1:]:
        assert float(row[1]) == pytest.approx(accuracy[row[0]], abs=3)
        assert float(row[6]) < float(row[1])
    for name in ("robustness", "convergence"):
        assert (tmp_path / f"vmtl_{name}.png").read_bytes().startswith(b"\x89PNG")

    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")}
    assert written
    start(*arguments, "c5")
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")} == written
    found = [json.loads(file.read_text()) for file in written]
    assert all(len(of["cross_entropy"]) == 10 and np.isfinite(of["cross_entropy"]).all() for of in found)
    while_choosing = [of for of in found if not of["run"]["scored"]]
    assert while_choosing
    assert all(set(look) == {"step", "val"} for of in while_choosing for look in of["looks"])  # no test row was read


def test_samples_of_z_and_w_in_pairs(example, root, small):
    """With many samples the predictive of pairs is that of draws; with any number it is a share of the rows."""
    run = example.Run(5, "VMTL", 0, 0.1, 1e-4, steps=10, paired=True)
    found = example.carried_out(root, run)
    assert found["pairs"].keys() == {"1 x 2"}
    assert found["pairs"]["1 x 2"] == pytest.approx(np.mean(list(found["accuracy"].values())), abs=0.05)


def test_weights_that_mean_nothing_are_left_out(example, tmp_path):
    plan = example.Plan(None, tmp_path, None, "deep", (5,), example.QUICK, 1, 10)
    for method in ("STL", "BMTL", "Bakker-Heskes", "VMTL as released"):
        assert plan.run(5, method, 0, (0.3, 1e-4)) == plan.run(5, method, 0)
    assert plan.run(5, "VMTL", 0, (0.3, 1e-4)).w == 0.3


def test_missing_data_and_unknown_methods_are_named(start, tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"office_caltech10\.npz"):
        start("--root", tmp_path)
    with pytest.raises(SystemExit):
        start("--root", tmp_path, "--methods", "VMTL", "VMT")
    assert "'VMT'" in capsys.readouterr().err


def test_a_row_of_the_page_comes_out_again(example, root):
    """Another seed of single-task learning at 5 %, within the spread of the page's five."""
    import page_tables

    header, *rows = page_tables.read(example.Path(__file__).parents[2] / "docs" / "results" / "vmtl_c5.csv")
    row = dict(zip(header, next(row for row in rows if row[0] == "STL"), strict=True))
    mean, error = map(float, row["5 %"].split(" ± "))
    found = example.carried_out(root, example.Run(5, "STL", 11))
    assert 100 * example.average(found) == pytest.approx(mean, abs=max(5 * error * 5**0.5, 1.0))
