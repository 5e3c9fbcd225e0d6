import numpy as np
import pandas as pd
import pytest

from bmtl.evaluation import results


@pytest.fixture(scope="module")
def root(root_with):
    return root_with("office_caltech10/office_caltech10.npz")


def test_the_quick_run_and_its_resumption(example, start, root, monkeypatch, tmp_path):
    monkeypatch.setattr(example, "PENALTIES", (10.0,))  # logistic regressions are fitted in every report
    arguments = ("--root", root, "--out", tmp_path, "--quick")
    text = start(*arguments)
    assert (tmp_path / "table.md").read_text() in text
    frame = pd.read_csv(tmp_path / "scores.csv")
    assert frame["method"].unique().tolist() == list(example.QUICK)
    assert frame["task"].unique().tolist() == ["amazon", "caltech10", "dslr", "webcam"]
    assert np.isfinite(frame.select_dtypes("number")).all(axis=None)
    assert frame["accuracy"].between(0.05, 0.7).all()
    for name in ("relatedness.png", "robustness.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    tree = results.read(tmp_path / "5" / "VMTL-Dirichlet" / "seed-0" / "results.nc")
    assert tree["posterior/relatedness_w"].sizes == {"chain": 1, "draw": example.DRAWS, "task": 4, "source": 5}
    assert tree["test/observed_data/y_dslr"].size == len(
        example.load(root, 0.05, "counts").rows_by_task("test")["dslr"]
    )
    # No attack is the prediction itself, but for the draws.
    assert tree["robustness/accuracy"].sel(eps=0).values == pytest.approx(frame["accuracy"][-4:], abs=0.1)

    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "5").rglob("*.*")}
    again = start(*arguments)
    assert {file: file.stat().st_mtime_ns for file in written} == written
    assert "(done)" not in again


def test_missing_data_and_unknown_methods_are_named(start, tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"office_caltech10\.npz"):
        start("--root", tmp_path)
    with pytest.raises(SystemExit):
        start("--root", tmp_path, "--methods", "VMTL,VMT")
    assert "'VMT' was given" in capsys.readouterr().err


def test_inputs_are_square_roots_of_shares_times_a_number(example, root):
    data = example.load(root, 0.05, "sqrt x10")
    x, _ = data.tensors_by_task("train")
    for part in x.values():
        np.testing.assert_allclose(part.square().sum(1), 100.0, rtol=1e-4)
    x, _ = example.load(root, 0.05, "counts").tensors_by_task("test")
    assert max(part.abs().max() for part in x.values()) <= 5
