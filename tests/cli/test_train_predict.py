"""``bmtl train`` and ``bmtl predict``."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bmtl import cli, experiments
from bmtl.datasets import load
from bmtl.evaluation import results
from bmtl.evaluation.attributes import decode_attributes

TINY = ("--epochs", 2, "--batch-size", 32, "--widths", 6, "--draws", 8, "--seed", 3)


@pytest.fixture(scope="module")
def trained(archive, tmp_path_factory):
    """The folder of ``bmtl train``, and its data."""
    out = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["train", f"npz:{archive}", "-d", "units=25400:mm,mass:kg", "--out", out, *TINY]
        patch.setattr(sys, "argv", ["bmtl", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code
    return out, load(f"npz:{archive}", units={"mass": "kg", "25400": "mm"})


def write(path, x, names=("a", "b", "c")):
    if path.suffix == ".npz":
        np.savez(path, X=x)
    else:
        pd.DataFrame(x, columns=names).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("given", ["x.csv", "x.npz"])
def test_predictions_are_those_of_the_run_on_the_test_rows(run, trained, tmp_path, given):
    folder, data = trained
    rows = data.rows["test"]
    inputs = write(tmp_path / given, data.inputs.x[rows])
    tree = results.read(folder / "results.nc")

    code, out, err = run("predict", folder, "--data", inputs, "--out", tmp_path / "p.nc", "--seed", 3)
    assert (code, err) == (0, "")
    assert "p.nc: 20 rows, targets mass, 25400." in out
    found = results.read(tmp_path / "p.nc")
    summary = found["predictions_summary"].to_dataset()

    run("predict", folder, "--data", inputs, "--out", tmp_path / "p.csv", "--seed", 3)
    frame = pd.read_csv(tmp_path / "p.csv", index_col="row")
    assert frame.index.tolist() == list(range(20))
    for name, unit in (("mass", "kg"), ("25400", "mm")):
        seen = tree[f"test/observed_data/obs_{name}"].values
        draws = found[f"predictions/y_{name}"].values[0][:, seen]
        np.testing.assert_allclose(draws, tree[f"test/posterior_predictive/y_{name}"].values[0], rtol=1e-6)
        mean = tree[f"test/predictive_mean/y_{name}"].values
        np.testing.assert_allclose(summary[f"{name} mean"].values[seen], mean, rtol=1e-6)
        np.testing.assert_allclose(frame[f"{name} mean [{unit}]"].values[seen], mean, rtol=1e-6)
        for what in ("aleatoric", "epistemic"):
            deviation = np.sqrt(tree[f"test/uncertainty/{what}_{name}"].values)
            np.testing.assert_allclose(frame[f"{name} {what} sd [{unit}]"].values[seen], deviation, rtol=1e-5)
        quantiles = [column for column in summary if column.startswith(name) and column.endswith("%")]
        assert len(quantiles) > 2
        for column in quantiles:
            np.testing.assert_allclose(frame[f"{column} [{unit}]"], summary[column], rtol=1e-6)


def test_training_tells_its_errors_in_units(run, archive, tmp_path):
    arguments = ("--method", "stl", "--balancer", "ew", "-d", "units=kg", "-d", "drop=25400", "--out", tmp_path)
    code, out, err = run("train", f"npz:{archive}", *TINY, *arguments)
    assert (code, err) == (0, "")
    (told,) = (line for line in out.splitlines() if line.startswith("mass: MAE on validation "))
    assert told.endswith(" kg")
    assert f"Next: bmtl predict {tmp_path} --data FILE" in out.replace("\n", " ")
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "results.nc"}


def test_classes_are_told_as_shares_of_wrong_ones(run, tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 2))
    np.savez(tmp_path / "kinds.npz", X=x, y=(x[:, 0] > 0).astype(int), classes=np.array(["low", "high"]))
    code, out, _ = run("train", f"npz:{tmp_path}/kinds.npz", *TINY, "--out", tmp_path / "m")
    assert code == 0
    assert "\ntask_0: accuracy on validation " in out
    inputs = write(tmp_path / "x.csv", x[:4], ("a", "b"))
    run("predict", tmp_path / "m", "--data", inputs, "--out", tmp_path / "p.csv")
    frame = pd.read_csv(tmp_path / "p.csv")
    assert set(frame["task_0"]) <= {"low", "high"}
    np.testing.assert_allclose(frame["task_0 p(low)"] + frame["task_0 p(high)"], 1, rtol=1e-5)


def test_a_model_that_looks_up_training_rows_is_kept_with_them(run, tmp_path):
    """Its predictions do not need the data it was trained on."""
    random = np.random.default_rng(0)
    x, task = random.normal(size=(120, 3)), np.arange(120) % 2
    np.savez(tmp_path / "domains.npz", X=x, y=(x[:, 0] > 0).astype(int), task=task)
    assert run("train", f"npz:{tmp_path}/domains.npz", "--method", "vmtl-ac", *TINY, "--out", tmp_path / "m")[0] == 0
    (tmp_path / "domains.npz").unlink()
    inputs = write(tmp_path / "x.csv", x[:4])
    code, _, err = run("predict", tmp_path / "m", "--data", inputs, "--out", tmp_path / "p.csv")
    assert (code, err) == (0, "")
    frame = pd.read_csv(tmp_path / "p.csv")
    for name in ("task_0", "task_1"):
        np.testing.assert_allclose(frame[f"{name} p(0)"] + frame[f"{name} p(1)"], 1, rtol=1e-5)


def test_a_csv_may_have_a_mark_at_its_start_and_blank_lines(run, trained, tmp_path):
    (tmp_path / "x.csv").write_bytes("\ufeffa,b,c\r\n1,2,3\r\n\r\n4,5,6\r\n\r\n".encode())
    code, out, _ = run("predict", trained[0], "--data", tmp_path / "x.csv", "--out", tmp_path / "p.csv", "--draws", 3)
    assert code == 0
    assert "2 rows" in out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "There is no "),
        ("x.csv", b"", "x.csv is empty"),
        ("x.csv", b"a,b,c\n", "has no rows below its header a, b, c"),
        ("x.csv", b"a,b\n1,2\n", "shape (rows, 3), as the training data; got (1, 2)"),
        ("x.csv", b"a,b,c\n1,2,3\n1,2\n", "row 3: 2 fields, and the header has 3"),
        ("x.csv", b"a,b,c\n1,2,3\n1,,3\n", "row 3, column 'b': missing"),
        ("x.csv", b"a,b,c\n1,2,high\n", "row 2, column 'c': 'high' is no number"),
        ("x.csv", b"1.5,2,3\n4,5,6\n", "begins with the numbers 1.5, 2, 3"),
        ("x.csv", b"a,b,c\n1,nan,3\n", "row 2, column 'b': missing"),
        ("x.csv", b"PK\x03\x04\xff\xfe\x00", "is a zip archive or an Excel workbook, not a text file"),
        ("x.npz", b"a,b,c\n1,2,3\n", "is not an .npz file"),
        ("x.npz", b"", "is not an .npz file"),
    ],
)
def test_inputs_that_will_not_do_are_told(run, trained, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, _, err = run("predict", trained[0], "--data", tmp_path / name, "--out", tmp_path / "p.csv")
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "p.csv").exists()


def test_an_archive_without_inputs_is_told(run, trained, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3)))
    code, _, err = run("predict", trained[0], "--data", tmp_path / "x.npz", "--out", tmp_path / "p.csv")
    assert code == 2
    assert "has no array 'X'; its arrays are: x" in err


def test_a_file_of_another_kind_is_refused(run, trained, tmp_path):
    code, _, err = run("predict", trained[0], "--data", tmp_path / "x.csv", "--out", tmp_path / "p.xlsx")
    assert code == 2
    assert "written as .csv or .nc" in err


def test_a_folder_that_cannot_be_written_is_told(run, trained, tmp_path):
    (tmp_path / "file").touch()
    inputs = write(tmp_path / "x.csv", np.zeros((2, 3)))
    code, _, err = run("predict", trained[0], "--data", inputs, "--out", tmp_path / "file" / "p.csv")
    assert code == 2
    assert "p.csv could not be written (File exists)" in err


def test_a_missing_or_damaged_model_is_told(run, trained, tmp_path):
    inputs = write(tmp_path / "x.csv", np.zeros((2, 3)))
    code, _, err = run("predict", tmp_path, "--data", inputs, "--out", tmp_path / "p.csv")
    assert code == 2
    assert "a comparison keeps no models" in err
    (tmp_path / "model.pt").write_bytes((trained[0] / "model.pt").read_bytes()[:-100])
    code, _, err = run("predict", tmp_path, "--data", inputs, "--out", tmp_path / "p.csv")
    assert code == 2
    assert "not the intact file of a fitted run" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "nonsense"], "There is no method and no balancer 'nonsense'"),
        (["--balancer", "nonsense"], "No balancer is called 'nonsense'"),
        (["--lr", "0"], "numbers are positive"),
        (["--select", "none"], "select is one of"),
        (["--trunk", "nonsense"], "There is no trunk 'nonsense'"),
        (["--schedule", "linear"], "schedule is one of cosine, constant, plateau"),
        (["--steps", "5", "--epochs", "2"], "A budget is in steps or in epochs"),
        (["--widths", "wide"], "--widths is a number or several"),
        (["-d", "drop=other"], "`drop` names the unknown 'other'; the targets are: mass, 25400"),
    ],
)
def test_wrong_options_are_told_before_training(run, archive, tmp_path, never_trains, arguments, message):
    code, _, err = run("train", f"npz:{archive}", *arguments, "--out", tmp_path)
    assert code == 2
    assert message in err


def test_network_and_schedule_are_options(run, archive, tmp_path):
    plain = ("--trunk", "mlp", "--schedule", "constant", "--steps", 3)
    for options, trunk, schedule, lr, batch in (
        (plain, "mlp", "constant", 2e-3, 128),
        (("--steps", 3), "", "cosine", 5e-3, None),
    ):
        out = tmp_path / schedule
        assert run("train", f"npz:{archive}", "--method", "ew", "--draws", 4, *options, "--out", out)[0] == 0
        said = decode_attributes(results.read(out / "results.nc"))["configuration"]
        budget = said["budget"]
        assert said["method"]["trunk"] == trunk
        assert [budget[name] for name in ("schedule", "lr", "batch_size", "steps", "epochs")] == [
            schedule,
            lr,
            batch,
            3,
            None,
        ]


def test_names_of_targets_start_no_formula_in_the_predictions(run, tmp_path, monkeypatch):
    names = ("=1+1", "-beta", "@SUM(A1)")
    table = pd.DataFrame({f"{name} mean": [-1.5, 2.0] for name in names}, index=pd.Index([0, 1], name="row"))
    fitted = SimpleNamespace(
        inputs=SimpleNamespace(read=lambda path: None),
        targets=names,
        images=(),
        table=lambda raw, **options: table,
    )
    monkeypatch.setattr(experiments, "load_fitted", lambda *args, **options: fitted)
    new = write(tmp_path / "new.csv", np.zeros((2, 3)))
    assert run("predict", tmp_path, "--data", new, "--out", tmp_path / "p.csv")[0] == 0
    lines = (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "row,'=1+1 mean,'-beta mean,'@SUM(A1) mean"
    assert lines[1:] == ["0,-1.5,-1.5,-1.5", "1,2,2,2"]


def test_columns_are_taken_by_name(run, tmp_path):
    """A CSV whose columns stand in another order, among others, gives the same predictions; one that lacks a column none."""
    random = np.random.default_rng(0)
    folder = tmp_path / "plants"
    folder.mkdir()
    x = random.normal(size=(60, 3))
    table = np.column_stack([x, x @ [1.0, -2.0, 0.5]])
    np.savetxt(folder / "a.csv", table, delimiter=",", header="light,water,heat,y", comments="")
    model = tmp_path / "model"
    options = ("--method", "ew", "--epochs", 2, "--widths", 4, "--batch-size", 16, "--draws", 4)
    assert run("train", f"csv:{folder}", *options, "--out", model)[0] == 0
    files = {"straight": ("light,water,heat", [0, 1, 2]), "mixed": ("heat,note,light,water", [2, 0, 0, 1])}
    made = {}
    for name, (header, order) in files.items():
        rows = [[f"{value:.17g}" for value in row] for row in x[:5, order]]
        if name == "mixed":
            rows = [[row[0], "text", *row[2:]] for row in rows]
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *map(",".join, rows)]) + "\n")
        assert run("predict", model, "--data", tmp_path / f"{name}.csv", "--out", tmp_path / f"{name}.out.csv")[0] == 0
        made[name] = (tmp_path / f"{name}.out.csv").read_text()
    assert made["straight"] == made["mixed"]
    (tmp_path / "lacking.csv").write_text("light,water\n1,2\n")
    code, _, told = run("predict", model, "--data", tmp_path / "lacking.csv", "--out", tmp_path / "p.csv")
    assert code == 2
    assert "has no column 'heat', and the model was trained with light, water, heat" in told
