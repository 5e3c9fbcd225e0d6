import functools
import signal
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

import bmtl
from bmtl import experiments
from bmtl.datasets import MultiTaskData
from bmtl.evaluation import metrics, results
from bmtl.evaluation.results import decode_attributes
from bmtl.evaluation.tables import table
from bmtl.experiments import METHODS, Budget, Cell, Method, compare, results_tree, run, run_cells, validation_mae
from bmtl.inference.checkpoint import check_file
from bmtl.inference.svi import BalancedSVI
from bmtl.models import Homoscedastic, mlp

BUDGET = Budget(epochs=2, batch_size=16, widths=(6,), draws=8)
STEPS = 2 * 3  # of 48 training rows
UNITS = {"mass": "g", "length": "m"}
TIMES = ("step_seconds", "T")


def toy(**overrides):
    """80 rows, two regressions whose units differ by five decades; every part lacks a label of "length"."""
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 3))
    y = {
        "mass": 5000 + 300 * x @ [1.0, 2.0, -1.0] + 50 * random.normal(size=80),
        "length": -0.02 + 0.003 * x @ [0.0, 1.0, 1.0] + 0.0005 * random.normal(size=80),
    }
    y["length"][[3, 50, 70]] = np.nan
    rows = {"train": np.arange(48), "val": np.arange(48, 64), "test": np.arange(64, 80)}
    given = {"name": "toy", "x": x, "y": y, "rows": rows, "units": UNITS} | overrides
    return MultiTaskData.from_arrays(**given)


@pytest.fixture(scope="module")
def data():
    return toy()


@pytest.fixture(scope="module")
def runs(data):
    """Each method's tree, and the model, guide and SVI it was read off."""
    read_off, programs, trees = experiments._read_off, {}, {}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("stl", "ew", "bayesian"):

            def spy(part, model, guide, svi, *rest, name=name):
                programs.setdefault(name, []).append((part, model, guide, svi))
                return read_off(part, model, guide, svi, *rest)

            patch.setattr(experiments, "_read_off", spy)
            trees[name] = run(data, METHODS[name], 3, BUDGET)
    return trees, programs


# ---- One run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["stl", "ew", "bayesian"])
def test_the_tree_of_a_run(runs, data, method):
    tree = runs[0][method]
    groups = {"posterior_predictive", "log_likelihood", "observed_data", "constant_data", "predictive_mean", "pit"}
    assert set(tree.children) == groups | {"training"} | ({"posterior"} if method == "bayesian" else set())
    for name in data.tasks:
        labels = data.y[name][data.rows["test"]]
        np.testing.assert_array_equal(tree[f"observed_data/y_{name}"], labels[~np.isnan(labels)])
        assert tree[f"posterior_predictive/y_{name}"].shape == (1, 8, (~np.isnan(labels)).sum())
        assert tree["constant_data/unit"].sel(target=name) == UNITS[name]
        assert tree["constant_data/target_scale"].sel(target=name) == pytest.approx(data.y_scalers[name].std.item())
    assert tree["observed_data/obs_length"].values.tolist() == [i for i in range(16) if i != 70 - 64]
    training = tree["training"].to_dataset()
    assert training.sizes["step"] == STEPS
    assert training["task"].values.tolist() == list(data.tasks)
    assert training["epoch"].values.tolist() == [1, 1, 1, 2, 2, 2]
    assert np.isfinite(training["losses"]).all()
    assert (training["seconds"] > 0).all()
    about = decode_attributes(tree)
    assert (about["method"], about["seed"], about["data_fingerprint"]) == (method, 3, data.fingerprint)
    assert about["configuration"]["budget"]["widths"] == [6]
    noise = "in the program" if method == "bayesian" else "fitted on validation"
    assert about["configuration"]["noise_for_predictions"] == noise


def test_the_posterior_is_that_of_the_latents(runs, data):
    posterior = runs[0]["bayesian"]["posterior"].to_dataset()
    assert {name: v.shape for name, v in posterior.data_vars.items()} == {
        f"{site}_{task}": (1, 8, *shape)
        for task in data.tasks
        for site, shape in (("head", (1, 7)), ("log_variance", ()))
    }


@pytest.mark.parametrize("method", ["stl", "ew"])
def test_noise_of_a_deterministic_model_is_its_residuals_on_validation(runs, method):
    for part, model, _, _ in runs[1][method]:
        x, y = part.tensors("val")
        with torch.no_grad():
            h = model.trunk(x)
            for i, name in enumerate(part.tasks):
                residual = (y[name] - model.heads[i](h).squeeze(-1)).numpy()
                expected = np.sqrt(np.nanmean(residual**2))
                assert model.fixed_log_variance[i].div(2).exp().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", ["stl", "ew"])
def test_predictions_are_in_the_targets_units(runs, data, method):
    """Mean, draws, density and cdf of a deterministic model are those of a normal in units."""
    tree = runs[0][method]
    nll = metrics.nll(tree)["nll"]
    for part, model, _, _ in runs[1][method]:
        x, y = part.tensors("test")
        with torch.no_grad():
            for i, name in enumerate(part.tasks):
                scaler = data.y_scalers[name]
                f = model.heads[i](model.trunk(x)).squeeze(-1).double().numpy()
                sd = model.fixed_log_variance[i].div(2).exp().item()
                seen = ~y[name].isnan().numpy()
                predictive = stats.norm(scaler.inverse(f)[seen], sd * scaler.std)
                label = data.y[name][data.rows["test"]][seen]
                np.testing.assert_allclose(tree[f"predictive_mean/y_{name}"], predictive.mean(), rtol=1e-5)
                np.testing.assert_allclose(tree[f"log_likelihood/y_{name}"][0, 0], predictive.logpdf(label), atol=1e-4)
                np.testing.assert_allclose(tree[f"pit/y_{name}"], predictive.cdf(label), atol=1e-5)
                z = (tree[f"posterior_predictive/y_{name}"].values[0] - predictive.mean()) / predictive.std()
                assert stats.kstest(z.ravel(), stats.norm.cdf).pvalue > 1e-3
                assert nll.sel(task=name).item() == pytest.approx(-predictive.logpdf(label).mean(), abs=1e-4)
    standardised = metrics.nll(tree, standardised=True)["nll"]
    scales = np.log([data.y_scalers[name].std for name in data.tasks])
    np.testing.assert_allclose(nll - standardised, scales, rtol=1e-6)


def test_bayesian_predictions_are_in_the_targets_units(runs, data):
    tree = runs[0]["bayesian"]
    ((_, model, _, _),) = runs[1]["bayesian"]
    posterior = tree["posterior"].to_dataset().isel(chain=0)
    x, y = data.tensors("test")
    with torch.no_grad():
        h = np.concatenate([model.trunk(x).double().numpy(), np.ones((16, 1))], 1)
    for name in data.tasks:
        scaler, seen = data.y_scalers[name], ~y[name].isnan().numpy()
        f = np.einsum("nd,sd->sn", h, posterior[f"head_{name}"].values[:, 0])[:, seen]
        sd = np.exp(posterior[f"log_variance_{name}"].values / 2)[:, None]
        label = data.y[name][data.rows["test"]][seen]
        predictive = stats.norm(scaler.inverse(f), sd * scaler.std)
        np.testing.assert_allclose(tree[f"predictive_mean/y_{name}"], predictive.mean().mean(0), rtol=1e-5)
        np.testing.assert_allclose(tree[f"log_likelihood/y_{name}"][0], predictive.logpdf(label), atol=1e-3)
        np.testing.assert_allclose(tree[f"pit/y_{name}"], predictive.cdf(label).mean(0), atol=1e-5)


def test_single_task_learning_is_each_target_by_itself(runs, data):
    together = runs[0]["stl"]
    for i, name in enumerate(data.tasks):
        alone = run(data.subset([name]), Method("ew"), 3, BUDGET)
        for group in ("predictive_mean", "log_likelihood", "posterior_predictive", "pit", "observed_data"):
            xr.testing.assert_equal(together[f"{group}/y_{name}"], alone[f"{group}/y_{name}"])
        np.testing.assert_array_equal(together["training/losses"][:, i], alone["training/losses"][:, 0])
        np.testing.assert_array_equal(together["training/weights"][:, i], alone["training/weights"][:, 0])


def test_the_seed_decides_a_run(runs, data):
    again, other = run(data, METHODS["ew"], 3, BUDGET), run(data, METHODS["ew"], 4, BUDGET)
    for group in ("predictive_mean", "posterior_predictive"):
        xr.testing.assert_equal(runs[0]["ew"][group].to_dataset(), again[group].to_dataset())
    assert not np.allclose(again["predictive_mean/y_mass"], other["predictive_mean/y_mass"])


def test_arviz_takes_the_predictions_of_a_task_as_they_are(runs):
    import arviz_plots

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        plot = arviz_plots.plot_ppc_pit(runs[0]["bayesian"], var_names=["y_length"], backend="none")
    assert "y_length" in plot.viz.children or "y_length" in plot.viz["ecdf_lines"]


def test_a_tree_of_draws_for_another_part_and_some_targets(data):
    model = Homoscedastic(mlp(3, (4,)), 4, {"length": "regression", "mass": "regression"}, 48)
    svi = BalancedSVI(model, model.guide(), functools.partial(torch.optim.Adam, lr=1e-3))
    svi.step(*data.tensors("train"))
    x, y = data.tensors("val")
    drawn = bmtl.draw(model, model.guide(), x, y, num_draws=3)
    tree = results_tree(data, drawn, svi.history, part="val")
    assert tree["training/task"].values.tolist() == ["length", "mass"]  # the model's order, and not the data's
    np.testing.assert_array_equal(tree["training/losses"][0], svi.history[0].losses)
    assert tree["observed_data/y_mass"].values == pytest.approx(data.y["mass"][48:64])
    unlabelled = results_tree(data, bmtl.draw(model, model.guide(), x, num_draws=3), part="val")
    assert {"log_likelihood", "pit", "training"}.isdisjoint(unlabelled.children)
    some = results_tree(data.subset(["mass"]), drawn, part="val")
    assert list(some["observed_data"].data_vars) == ["y_mass"]
    xr.testing.assert_equal(some["log_likelihood/y_mass"], tree["log_likelihood/y_mass"])


# ---- Comparisons -----------------------------------------------------------------------------------------------------

COMPARED = (METHODS["stl"], METHODS["ew"], METHODS["nash-mtl"], METHODS["bayesian"])


@pytest.fixture(scope="module")
def compared(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared")
    done = []
    return compare(data, COMPARED, (0, 1), BUDGET, out, jobs=1, done=done.append), out, done


def test_a_comparison_writes_what_its_docstring_names(compared):
    found, out, done = compared
    runs = {f"{m.name}/seed-{seed}/results.nc" for m in COMPARED for seed in (0, 1)}
    files = {"comparison.nc", "table.csv", "training.png", "reliability.png", "conflicts.png"}
    assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == runs | files
    assert all((out / name).stat().st_size > 5000 for name in files if name.endswith("png"))
    xr.testing.assert_equal(results.read(out / "comparison.nc").to_dataset(), found.scores)
    assert (out / "table.csv").read_text() == table(found.scores).to_csv()
    assert set(found.trees) == {(m.name, seed) for m in COMPARED for seed in (0, 1)}
    assert sorted(done, key=str) == sorted((Cell(m, seed) for m in COMPARED for seed in (0, 1)), key=str)


def test_scores_are_those_of_the_runs(compared, data):
    scores = compared[0].scores
    assert scores["method"].values.tolist() == [m.name for m in COMPARED]  # in the order given
    tree = run(data, METHODS["ew"], 1, BUDGET)
    cell = {"method": "ew", "seed": 1}  # and not sel(method=...), which is xarray's word for how to fill
    for name, score in (("mae", metrics.mae), ("rmse", metrics.rmse), ("ece", metrics.ece)):
        np.testing.assert_allclose(scores[name].sel(cell), score(tree)[name])
    np.testing.assert_allclose(scores["nll"].sel(cell), metrics.nll(tree, standardised=True)["nll"], rtol=1e-6)
    assert (scores["delta_m"].sel({"method": "stl"}) == 0).all()
    assert (scores["T"].sel({"method": "ew"}) == 1).all()


def test_two_processes_give_the_scores_of_one(compared, data, tmp_path):
    methods = (METHODS["ew"], METHODS["bayesian"])
    found = compare(data, methods, [1], BUDGET, tmp_path, jobs=2)
    cells = {"method": [method.name for method in methods], "seed": [1]}
    one, two = (scores.drop_vars([*TIMES, "delta_m"]).drop_attrs() for scores in (compared[0].scores, found.scores))
    xr.testing.assert_identical(two, one.sel(cells))
    assert not list(tmp_path.glob(".*"))


def test_a_comparison_without_baseline_and_reference(data, tmp_path):
    found = compare(data, [METHODS["uw"]], [5], BUDGET, tmp_path, jobs=1)
    assert np.isnan(found.scores["delta_m"]).all()
    assert np.isnan(found.scores["T"]).all()
    assert not (tmp_path / "conflicts.png").exists()  # no method measured cosines


# ---- Interruptions ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ctrl_c_at(monkeypatch):
    """Sends SIGINT to this process in the n-th training step, counted over all runs."""

    def arrange(n):
        backward, taken = BalancedSVI.backward, []

        def counting(self, *args, **kwargs):
            taken.append(1)
            if len(taken) == n:
                signal.raise_signal(signal.SIGINT)
            return backward(self, *args, **kwargs)

        monkeypatch.setattr(BalancedSVI, "backward", counting)

    return arrange


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_ctrl_c_compares_what_is_finished_and_keeps_what_was_learnt(data, tmp_path, ctrl_c_at):
    handler = signal.getsignal(signal.SIGINT)
    ctrl_c_at(STEPS + 4)  # in the second run, after three of its steps
    with pytest.raises(KeyboardInterrupt):
        compare(data, (METHODS["ew"], METHODS["bayesian"], METHODS["uw"]), (0,), BUDGET, tmp_path, jobs=1)
    assert signal.getsignal(signal.SIGINT) is handler
    assert files(tmp_path) == {
        "comparison.nc",
        "table.csv",
        "training.png",
        "reliability.png",
        "ew/seed-0/results.nc",
        "bayesian/seed-0/partial.nc",
        "bayesian/seed-0/last.ckpt",
    }
    assert results.read(tmp_path / "comparison.nc")["method"].values.tolist() == ["ew"]
    partial = results.read(tmp_path / "bayesian/seed-0/partial.nc")
    assert partial.attrs["interrupted"] == 1
    assert partial["training"].sizes["step"] == 3
    assert metrics.mae(partial)["mae"].notnull().all()
    assert check_file(tmp_path / "bayesian/seed-0/last.ckpt")["svi"]["steps"] == 3


def test_a_later_run_clears_what_an_interrupted_one_left(data, tmp_path, ctrl_c_at, monkeypatch):
    ctrl_c_at(2)
    with pytest.raises(KeyboardInterrupt):
        run(data, METHODS["ew"], 0, BUDGET, tmp_path)
    assert files(tmp_path) == {"partial.nc", "last.ckpt"}
    run(data, METHODS["ew"], 0, BUDGET, tmp_path)
    assert files(tmp_path) == {"results.nc"}


@pytest.mark.parametrize(("step", "kept", "steps"), [(4, ["mass"], 3), (STEPS + 2, ["mass"], STEPS)])
def test_ctrl_c_in_single_task_learning_keeps_the_finished_targets(data, tmp_path, ctrl_c_at, step, kept, steps):
    ctrl_c_at(step)  # in the first target, and in the second
    with pytest.raises(KeyboardInterrupt):
        run(data, METHODS["stl"], 0, BUDGET, tmp_path)
    partial = results.read(tmp_path / "partial.nc")
    assert partial["training"].to_dataset()["task"].values.tolist() == kept
    assert partial["training"].sizes["step"] == steps
    assert check_file(tmp_path / "last.ckpt")


def test_ctrl_c_before_the_first_step_leaves_nothing(data, tmp_path, ctrl_c_at):
    ctrl_c_at(1)
    with pytest.raises(KeyboardInterrupt):
        compare(data, [METHODS["ew"]], [0], BUDGET, tmp_path, jobs=1)
    assert files(tmp_path) == set()


def test_ctrl_c_reaches_every_process(data, tmp_path):
    """Sent to this process alone, as `kill -INT` does: the runs in the others stop and keep what they have."""
    methods = [Method(f"m{i}", "ew") for i in range(5)]
    handler = signal.getsignal(signal.SIGINT)
    budget = replace(BUDGET, epochs=60)
    done = []

    def interrupt_once(cell):
        done.append(cell)
        if len(done) == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        compare(data, methods, [0], budget, tmp_path, jobs=2, done=interrupt_once)
    assert signal.getsignal(signal.SIGINT) is handler
    found = files(tmp_path)
    assert "comparison.nc" in found
    assert not [name for name in found if ".stop" in name]
    finished = {name.split("/")[0] for name in found if name.endswith("results.nc")}
    stopped = {name.split("/")[0] for name in found if name.endswith("partial.nc")}
    assert 1 <= len(finished) < 5
    assert not finished & stopped
    assert stopped == {name.split("/")[0] for name in found if name.endswith("last.ckpt")}


def test_a_run_that_fails_loses_no_other(data, tmp_path, monkeypatch):
    trained = experiments._train

    def fails(part, method, *rest):
        if method.name == "uw":
            raise ArithmeticError("diverged")
        return trained(part, method, *rest)

    monkeypatch.setattr(experiments, "_train", fails)
    with pytest.raises(ArithmeticError, match="diverged"):
        compare(data, (METHODS["ew"], METHODS["uw"]), (0,), BUDGET, tmp_path, jobs=1)
    assert results.read(tmp_path / "comparison.nc")["method"].values.tolist() == ["ew"]


# ---- What does not fit is told before anything is trained ------------------------------------------------------------


@pytest.fixture
def never_trains(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("trained")

    monkeypatch.setattr(experiments, "fit", never)


def test_a_folder_that_cannot_be_written_is_told(data, tmp_path, never_trains):
    (tmp_path / "file").touch()
    for call in (
        lambda: compare(data, [METHODS["ew"]], [0], BUDGET, tmp_path / "file" / "out", jobs=1),
        lambda: run(data, METHODS["ew"], 0, BUDGET, tmp_path / "file"),
    ):
        with pytest.raises(OSError, match="cannot be written to"):
            call()


@pytest.mark.parametrize(
    ("methods", "seeds", "message"),
    [
        ([], [0], "at least one method and one seed"),
        (["ew"], [], "at least one method and one seed"),
        (["ew", "uw", "ew"], [0], "methods of a comparison must differ"),
        (["ew"], [1, 1], "seeds of a comparison must differ"),
        (["ew", "wrong"], [0], "No balancer is called 'no-such'"),
    ],
)
def test_a_grid_that_will_not_do_is_told(data, tmp_path, never_trains, methods, seeds, message):
    known = METHODS | {"wrong": Method("wrong", "no-such")}
    with pytest.raises(ValueError, match=message):
        compare(data, [known[name] for name in methods], seeds, BUDGET, tmp_path, jobs=1)


def unlabelled_in(part):
    given = toy()
    y = {"mass": given.y["mass"], "length": given.y["length"].copy()}
    y["length"][given.rows[part]] = np.nan
    return toy(y=y)


def with_classes():
    return toy(y={"mass": toy().y["mass"], "kind": np.arange(80) % 3}, kinds={"kind": 3}, units={"mass": "g"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: toy(rows={"train": np.arange(60), "test": np.arange(60, 80)}), "needs the parts val"),
        (lambda: toy(rows={"train": np.arange(60), "val": np.arange(60, 80)}), "needs the parts test"),
        (lambda: unlabelled_in("val"), "without a label in the part 'val': length"),
        (with_classes, "these targets are classes: kind"),
    ],
)
def test_data_that_will_not_do_are_told(tmp_path, never_trains, make, message):
    for call in (
        lambda data: run(data, METHODS["ew"], 0, BUDGET),
        lambda data: compare(data, [METHODS["stl"]], [0], BUDGET, tmp_path, jobs=1),
    ):
        with pytest.raises(ValueError, match=message):
            call(make())


def test_a_target_without_a_scored_label_is_no_error():
    tree = run(unlabelled_in("test"), METHODS["ew"], 0, BUDGET)
    assert tree["observed_data/y_length"].size == 0
    assert metrics.mae(tree)["mae"].isnull().values.tolist() == [False, True]


def test_a_tree_of_other_targets_is_refused(data):
    drawn = bmtl.draw(
        *[m := Homoscedastic(mlp(3, (4,)), 4, {"other": "regression"}, 48), m.guide()], data.tensors("test")[0]
    )
    with pytest.raises(ValueError, match=r"targets \['other'\], and the data have \['mass', 'length'\]"):
        results_tree(data, drawn)
    with pytest.raises(ValueError, match="these targets are classes: kind"):
        results_tree(with_classes(), drawn)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": -1}, {"lr": 0.0}, {"draws": 0}, {"widths": ()}, {"widths": (4, 0)}]
)
def test_a_budget_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="A budget's numbers are positive"):
        Budget(**wrong)


def test_methods_of_the_demo_are_named_as_they_are_keyed():
    assert {name: method.name for name, method in METHODS.items()} == {name: name for name in METHODS}
    assert [method.name for method in METHODS.values() if not method.deterministic] == ["bayesian"]
    assert "pyro" in sys.modules


# ---- Choosing settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["stl", "ew", "bayesian"])
def test_validation_errors_are_in_the_targets_units(runs, data, method):
    found = validation_mae(runs[0][method])
    assert list(found) == list(data.tasks)
    for part, model, guide, _ in runs[1][method]:
        x, y = part.tensors("val")
        means = bmtl.draw(model, guide, x, num_draws=BUDGET.draws, seed=3).mean
        for name in part.tasks:
            error = np.nanmean(np.abs(y[name].numpy() - means[name])) * data.y_scalers[name].std
            assert found[name] == pytest.approx(error, rel=1e-5)


def test_a_tree_without_validation_errors_is_told(runs):
    tree = runs[0]["ew"].copy()
    tree.attrs = {}
    with pytest.raises(ValueError, match="no validation errors"):
        validation_mae(tree)


def test_a_plateau_lowers_the_learning_rate(data, monkeypatch):
    made = []
    plateau = experiments._plateau
    monkeypatch.setattr(experiments, "_plateau", lambda optimizer: made.append(plateau(optimizer)) or made[-1])
    run(data, METHODS["ew"], 0, replace(BUDGET, epochs=60, lr=1.0, draws=1, plateau=True, score="log"))
    (scheduler,) = made
    assert 1e-5 <= scheduler.optimizer.param_groups[0]["lr"] < 1.0


def test_a_finished_cell_is_not_run_again(data, tmp_path, monkeypatch):
    trained = []
    real = experiments.run
    monkeypatch.setattr(
        experiments, "run", lambda d, m, s, *a, **k: trained.append((m.name, s)) or real(d, m, s, *a, **k)
    )
    ew, uw = METHODS["ew"], METHODS["uw"]

    def start(*cells, data=data, budget=BUDGET):
        trained.clear()
        done = list(run_cells(data, cells, budget, tmp_path, jobs=1))
        assert sorted((cell.method.name, cell.seed) for cell in done) == sorted((c.method.name, c.seed) for c in cells)
        return trained

    assert start(Cell(ew, 0)) == [("ew", 0)]
    assert start(Cell(ew, 0), Cell(ew, 1), Cell(uw, 0)) == [("ew", 1), ("uw", 0)]
    assert start(Cell(ew, 0), Cell(ew, 1), Cell(uw, 0)) == []
    # Another budget, setting or data set is another run.
    assert start(Cell(ew, 0), budget=replace(BUDGET, lr=1e-4)) == [("ew", 0)]
    assert start(Cell(replace(uw, balancer="si"), 0)) == [("uw", 0)]
    assert start(Cell(ew, 1), data=toy(name="toy", x=data.x + 1)) == [("ew", 1)]
    (tmp_path / "ew" / "seed-1" / "results.nc").write_bytes(b"torn")
    assert start(Cell(ew, 1)) == [("ew", 1)]


def test_cells_are_checked_before_any_is_trained(data, tmp_path, never_trains):
    with pytest.raises(ValueError, match="nonsense"):
        list(run_cells(data, [Cell(METHODS["ew"], 0), Cell(Method("odd", "nonsense"), 0)], BUDGET, tmp_path, jobs=1))
