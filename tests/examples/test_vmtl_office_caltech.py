import json
from pathlib import Path

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


@pytest.fixture(scope="module")
def committed():
    """A cell of ``docs/results/vmtl_TABLE.csv`` by the words of its row, as the mean and the spread of the page's seeds."""
    import page_tables

    def read(table, row, column):
        folder = Path(__file__).parents[2] / "docs" / "results"
        header, *rows = page_tables.read(folder / f"vmtl_{table}.csv")
        cell = next(of for of in rows if tuple(of[: len(row)]) == row)[header.index(column)]
        mean, error = (float(number.replace("−", "-")) for number in cell.split(" ± "))
        return mean, error * 5**0.5  # of five seeds

    return read


def near(found, cell, least):
    """Whether a value is within four deviations of a cell, whose deviation of five seeds is itself uncertain."""
    mean, deviation = cell
    assert found == pytest.approx(mean, abs=max(4 * deviation, least))


def test_rows_of_single_task_learning_come_out_again(example, root, committed):
    """By another seed, within the spread of the page's five."""
    found = example.carried_out(root, example.Run(5, "STL", 11))
    near(100 * example.average(found), committed("c5", ("STL",), "5 %"), 1.0)
    near(found["nll"], committed("calibration", ("5 %", "STL"), "NLL"), 0.03)
    near(found["ece"], committed("calibration", ("5 %", "STL"), "ECE"), 0.01)
    near(found["auroc"], committed("c16", ("STL",), "5 % AUROC"), 0.02)


def test_rows_of_vmtl_come_out_again(example, root, committed):
    import page_tables

    folder = Path(__file__).parents[2] / "docs" / "results"
    chosen = {tuple(row[:2]): row[2] for row in page_tables.read(folder / "vmtl_chosen.csv")}
    w, z = map(float, chosen["5 %", "VMTL"].split(", "))
    found = example.carried_out(root, example.Run(5, "VMTL", 11, w, z, paired=True, attacked=True))
    accuracy = 100 * example.average(found)
    near(accuracy, committed("c5", ("VMTL",), "5 %"), 1.0)
    near(accuracy, committed("c11", ("5 %", "Gumbel-softmax"), "average"), 1.0)
    near(accuracy, committed("c8", ("5 %", "z and w"), "average"), 1.0)
    near(accuracy, committed("c15", ("5 %", "different"), "average"), 1.0)
    near(found["nll"], committed("calibration", ("5 %", "VMTL"), "NLL"), 0.03)
    near(found["cross_entropy"][-1], committed("c1", ("5 %", "VMTL"), "at the last step"), 0.02)
    near(found["divergence"][-1], committed("c1", ("5 %", "VMTL"), "divergences there"), 0.05)
    near(100 * found["pairs"]["10 x 10"], committed("c14", ("VMTL", "2"), "L x M = 10 x 10"), 1.0)
    near(100 * found["attack"][example.EPSILONS.index(0.1)], committed("c2", ("VMTL",), "eps 0.1"), 2.0)
