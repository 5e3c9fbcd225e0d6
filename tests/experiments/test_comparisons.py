from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from bmtl.evaluation import metrics, results
from bmtl.evaluation.results import decode_attributes
from bmtl.evaluation.tables import table, to_csv
from bmtl.evaluation.text_tables import to_latex, to_markdown
from bmtl.experiments import (
    AllFailed,
    Cell,
    Failure,
    compare,
    outputs,
    run,
    validation_score,
    workers,
)
from bmtl.inference.checkpoint import check_file
from tests.experiments.toys import BAYESIAN, BUDGET, EW, NASH, STEPS, STL, UW, broken, files, mixed, ragged, toy

TIMES = ("step_seconds", "T")
COMPARED = (STL, EW, NASH, BAYESIAN)
ALWAYS = {"comparison.nc", "table.csv", "table.md", "table.tex", "training.png"}


@pytest.fixture(scope="module")
def compared(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared")
    done = []
    return (
        compare(data, COMPARED, (0, 1), BUDGET, out, jobs=1, reference=False, timed_steps=3, done=done.append),
        out,
        done,
    )


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing takes longest of all; the pictures of `compared`, which is made before, are the real ones."""
    monkeypatch.setattr(outputs, "save", lambda figure, path: path.touch())


def test_a_comparison_writes_what_its_docstring_names(compared):
    found, out, done = compared
    runs = {f"{m.name}/seed-{seed}/results.nc" for m in COMPARED for seed in (0, 1)}
    written = ALWAYS | {"reliability.png", "conflicts.png"}
    assert files(out) == runs | written
    assert all((out / name).stat().st_size > 5000 for name in written if name.endswith("png"))
    xr.testing.assert_equal(results.read(out / "comparison.nc").to_dataset(), found.scores)
    assert (out / "table.csv").read_text() == to_csv(found.scores)
    assert (out / "table.md").read_text() == to_markdown(found.scores)
    assert (out / "table.tex").read_text() == to_latex(found.scores)
    assert set(found.trees) == {(m.name, seed) for m in COMPARED for seed in (0, 1)}
    assert sorted(done, key=str) == sorted((Cell(m, seed) for m in COMPARED for seed in (0, 1)), key=str)
    assert found.failures == []
    assert found.rates is None


def test_step_times_are_over_those_of_a_method_that_has_a_step():
    uw = replace(EW, name="uw")
    assert outputs.timed_against([STL, uw, EW], {"stl", "uw", "ew"}) == "ew"
    assert outputs.timed_against([STL, uw, EW], {"stl", "uw"}) == "uw"
    assert outputs.timed_against([STL, uw], {"stl"}) is None


def test_scores_are_those_of_the_runs(compared, data):
    scores = compared[0].scores
    assert scores["learner"].values.tolist() == [m.name for m in COMPARED]  # in the order given
    tree = run(data, EW, 1, BUDGET)
    cell = scores["score"].sel(learner="ew", split=1)
    for name, score in (("mae", metrics.mae), ("rmse", metrics.rmse), ("ece", metrics.ece)):
        np.testing.assert_allclose(cell.sel(metric=name), score(tree)[name])
    np.testing.assert_allclose(cell.sel(metric="nll"), metrics.nll(tree, standardised=True)["nll"], rtol=1e-6)
    assert (scores["delta_m"].sel({"learner": "stl"}) == 0).all()
    assert (scores["T"].sel({"learner": "ew"}) == 1).all()
    assert scores["T"].sel({"learner": "stl"}).isnull().all()


def test_two_processes_give_the_scores_of_one(compared, data, tmp_path):
    methods = (EW, BAYESIAN)
    found = compare(data, methods, [0, 1], BUDGET, tmp_path, jobs=2, reference=False, timed_steps=0)
    one, two = (scores.drop_vars([*TIMES, "delta_m"]).drop_attrs() for scores in (compared[0].scores, found.scores))
    xr.testing.assert_identical(two, one.sel({"learner": [method.name for method in methods]}))
    assert not list(tmp_path.glob(".*"))


def test_a_comparison_without_baseline_and_reference(data, tmp_path):
    found = compare(data, [UW], [5], BUDGET, tmp_path, jobs=1, reference=False)
    assert np.isnan(found.scores["delta_m"]).all()
    assert (found.scores["T"] == 1).all()  # its own reference
    assert not (tmp_path / "conflicts.png").exists()  # no method measured cosines


def test_splits_and_seeds_are_numbered_in_order(data, tmp_path):
    other = toy(rows={"train": np.arange(32, 80), "val": np.arange(16), "test": np.arange(16, 32)})
    found = compare([data, other], [EW], [3, 1], BUDGET, tmp_path, jobs=1, reference=False, timed_steps=0)
    assert found.scores["split"].values.tolist() == [0, 1, 2, 3]
    mae = found.scores["score"].sel({"learner": "ew", "metric": "mae"})
    for number, (part, seed) in enumerate([(data, 3), (data, 1), (other, 3), (other, 1)]):
        np.testing.assert_allclose(mae.sel(split=number), metrics.mae(run(part, EW, seed, BUDGET))["mae"])


def test_classes_beside_regressions_are_compared(tmp_path):
    found = compare(mixed(), [STL, EW, BAYESIAN], [0], BUDGET, tmp_path, jobs=1, reference=False, timed_steps=2)
    score = found.scores["score"].sel({"split": 0})
    assert score.sel(metric="accuracy").sel(task=["kind", "sign"]).notnull().all()
    assert score.sel(metric="mae").sel(task="length").notnull().all()
    assert score.sel(metric="mae").sel(task="kind").isnull().all()
    assert found.scores["delta_m"].notnull().all()
    frame = table(found.scores)
    assert {"accuracy kind", "accuracy sign", "MAE length [m]"} <= set(frame.columns)
    assert files(tmp_path) >= ALWAYS | {"reliability.png"}


def test_classes_alone_are_compared(tmp_path):
    compare(mixed().subset(["kind", "sign"]), [STL, EW], [0], BUDGET, tmp_path, jobs=1, reference=False, timed_steps=2)
    assert {name for name in files(tmp_path) if "/" not in name} == ALWAYS


def test_ragged_data_are_compared(tmp_path):
    found = compare(ragged(), [STL, EW], [0], BUDGET, tmp_path, jobs=1, reference=False, timed_steps=2)
    assert found.scores["score"].sel(metric="mae").notnull().all()
    assert found.scores["delta_m"].notnull().all()


PLAIN = replace(BUDGET, schedule="constant")


# ---- Learning rates --------------------------------------------------------------------------------------------------


def test_each_methods_learning_rate_is_chosen_on_validation(data, tmp_path):
    rates = (1e-5, 0.05)
    methods = [EW.on_trunk("mlp"), UW.on_trunk("mlp")]
    found = compare(data, methods, [0, 1], PLAIN, tmp_path, rates=rates, jobs=1, reference=False, timed_steps=0)
    assert found.rates == {"ew": 0.05, "uw": 0.05}  # two epochs at 1e-5 learn nothing
    for method in methods:
        scores = {
            rate: validation_score(results.read(tmp_path / f"learning-rates/{rate:g}/{method.name}/seed-0/results.nc"))
            for rate in rates
        }
        assert min(scores, key=scores.get) == found.rates[method.name]
        alone = run(data, method, 1, replace(PLAIN, lr=0.05))
        np.testing.assert_allclose(
            found.scores["score"].sel({"learner": method.name, "split": 1, "metric": "mae"}), metrics.mae(alone)["mae"]
        )


def test_the_run_that_a_rate_was_chosen_by_is_not_run_again(data, tmp_path, monkeypatch):
    trained, plain = [], EW.on_trunk("mlp")
    real = workers.run
    monkeypatch.setattr(
        workers, "run", lambda d, m, s, b, *a, **k: trained.append((s, b.lr)) or real(d, m, s, b, *a, **k)
    )
    compare(data, [plain], [0, 1], PLAIN, tmp_path, rates=(1e-5, 0.05), jobs=1, reference=False, timed_steps=0)
    assert trained == [(0, 1e-5), (0, 0.05), (1, 0.05)]
    trained.clear()
    compare(data, [plain], [0, 1], PLAIN, tmp_path, rates=(1e-5, 0.05), jobs=1, reference=False, timed_steps=0)
    assert trained == []


def test_one_rate_is_taken_as_it_is(data, tmp_path):
    found = compare(data, [EW], [0], BUDGET, tmp_path, rates=[0.05], jobs=1, reference=False, timed_steps=0)
    assert found.rates is None
    alone = run(data, EW, 0, replace(BUDGET, lr=0.05))
    np.testing.assert_allclose(found.scores["score"].sel(metric="mae")[0, 0], metrics.mae(alone)["mae"])


def test_a_method_without_a_rate_is_left_out_and_told(data, tmp_path):
    found = compare(
        data, [EW, broken()], [0], BUDGET, tmp_path, rates=(1e-3, 0.05), jobs=1, reference=False, timed_steps=2
    )
    assert found.scores["learner"].values.tolist() == ["ew"]
    assert [str(failure.cell) for failure in found.failures] == [
        "broken (seed 0, lr 0.001)",
        "broken (seed 0, lr 0.05)",
    ]
    with pytest.raises(AllFailed, match="broken.*noise is one of"):
        compare(data, [broken()], [0], BUDGET, tmp_path / "b", rates=(1e-3, 0.05), jobs=1, reference=False)


# ---- Failures and interruptions --------------------------------------------------------------------------------------


def test_a_run_that_fails_loses_no_other(data, tmp_path):
    done = []
    found = compare(
        data, [EW, broken(), UW], [0], BUDGET, tmp_path, jobs=1, reference=False, timed_steps=2, done=done.append
    )
    assert found.scores["learner"].values.tolist() == ["ew", "uw"]
    (failure,) = found.failures
    assert failure.cell.method.name == "broken"
    assert sum(isinstance(outcome, Failure) for outcome in done) == 1
    assert results.read(tmp_path / "comparison.nc")["learner"].values.tolist() == ["ew", "uw"]


def test_a_failed_baseline_leaves_what_depends_on_it_blank(data, tmp_path):
    found = compare(data, [broken("stl"), EW], [0], BUDGET, tmp_path, jobs=1, reference=False, timed_steps=0)
    assert found.scores["delta_m"].isnull().all()


def test_when_all_fail_the_first_reason_is_told(data, tmp_path):
    with pytest.raises(AllFailed, match=r"broken \(seed 0\): ValueError: noise is one of"):
        compare(data, [broken()], [0, 1], BUDGET, tmp_path, jobs=1, reference=False)
    assert {name for name in files(tmp_path) if "error.txt" not in name} == set()


def test_ctrl_c_compares_what_is_finished_and_keeps_what_was_learnt(data, tmp_path, ctrl_c_at):
    ctrl_c_at(STEPS + 4)  # in the second run, after three of its steps
    with pytest.raises(KeyboardInterrupt):
        compare(data, (EW, BAYESIAN, UW), (0,), BUDGET, tmp_path, jobs=1, reference=False)
    assert files(tmp_path) == ALWAYS | {
        "reliability.png",
        "ew/seed-0/results.nc",
        "bayesian/seed-0/partial.nc",
        "bayesian/seed-0/last.ckpt",
    }
    assert results.read(tmp_path / "comparison.nc")["learner"].values.tolist() == ["ew"]
    partial = results.read(tmp_path / "bayesian/seed-0/partial.nc")
    assert decode_attributes(partial)["interrupted"] is True
    assert partial["training"].sizes["step"] == 3
    assert metrics.mae(partial)["mae"].notnull().all()
    assert check_file(tmp_path / "bayesian/seed-0/last.ckpt")["bmtl"]["svi"]["steps"] == 3


def test_ctrl_c_before_the_first_step_leaves_nothing(data, tmp_path, ctrl_c_at):
    ctrl_c_at(1)
    with pytest.raises(KeyboardInterrupt):
        compare(data, [EW], [0], BUDGET, tmp_path, jobs=1, reference=False)
    assert files(tmp_path) == set()


# ---- What does not fit is told before anything is trained ------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_told(data, tmp_path, never_trains):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written to"):
        compare(data, [EW], [0], BUDGET, tmp_path / "file" / "out", jobs=1, reference=False)


@pytest.mark.parametrize(
    ("methods", "seeds", "rates", "message"),
    [
        ([], [0], (), "at least one method and one seed"),
        (["ew"], [], (), "at least one method and one seed"),
        (["ew", "uw", "ew"], [0], (), "methods of a comparison must differ"),
        (["ew"], [1, 1], (), "seeds of a comparison must differ"),
        (["ew"], 3, (), r"such as \['stl', 'uw'\] and range\(3\); got \['ew'\] and 3"),
        ("ew", [0], (), "got 'ew' and"),
        (["nash_mtl"], [0], (), "Did you mean 'nash-mtl'"),
        (["ew"], [0], (1e-3, 1e-3), "learning rates of a comparison must differ"),
        (["ew"], [0], (1e-3, -1.0), "numbers are positive"),
    ],
)
def test_a_grid_that_will_not_do_is_told(data, tmp_path, never_trains, methods, seeds, rates, message):
    with pytest.raises(ValueError, match=message):
        compare(data, methods, seeds, BUDGET, tmp_path, rates=rates, jobs=1, reference=False)


def test_data_that_will_not_do_are_told(data, tmp_path, never_trains):
    wrong = toy(rows={"train": np.arange(60), "test": np.arange(60, 80)})
    for given in (wrong, [data, wrong]):
        with pytest.raises(ValueError, match="needs the parts val"):
            compare(given, [STL], [0], BUDGET, tmp_path, jobs=1, reference=False)
