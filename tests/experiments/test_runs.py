import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

import bmtl
from bmtl.evaluation import metrics, results
from bmtl.evaluation.results import decode_attributes
from bmtl.experiments import (
    METHODS,
    Budget,
    Method,
    collecting,
    load_fitted,
    model_files,
    run,
    schedules,
    validation_score,
    validation_scores,
)
from bmtl.experiments import training as module
from bmtl.experiments.runs import NotWritten
from bmtl.inference.checkpoint import check_file
from bmtl.inference.predictives import mixture
from tests.experiments.toys import (
    BAYESIAN,
    BUDGET,
    EW,
    STEPS,
    STL,
    UNITS,
    files,
    mixed,
    ragged,
    toy,
    unlabelled_in,
)

SCORED = {
    "posterior_predictive",
    "log_likelihood",
    "observed_data",
    "predictive_mean",
    "predictive_distribution",
    "uncertainty",
    "pit",
}


def sd_of(model, name):
    """The standard deviation of a target's noise."""
    likelihood = model.likelihoods[name]
    return likelihood.unit.item() * likelihood.unknowns["log_variance"].value.div(2).exp().item()


def located(model, name, x, f):
    """What a head's output f means for rows x, as the model sees labels."""
    likelihood = model.likelihoods[name]
    return likelihood.location + likelihood.unit * model.linear_part(name, x, f).squeeze(-1)


# ---- The tree of a run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["stl", "ew", "bayesian"])
def test_the_tree_of_a_run(runs, data, method):
    tree = runs[0][method]
    latent = {"posterior", "sample_stats"} if method == "bayesian" else set()
    assert set(tree.children) == {"constant_data", "training", "test", "validation"} | latent
    assert set(tree["test"].children) == set(tree["validation"].children) == SCORED
    for part, scored in (("test", tree["test"]), ("val", tree["validation"])):
        for name in data.tasks:
            labels = data.targets[name].values[data.rows[part]]
            np.testing.assert_array_equal(scored[f"observed_data/y_{name}"], labels[~np.isnan(labels)])
            assert scored[f"posterior_predictive/y_{name}"].shape == (1, 8, (~np.isnan(labels)).sum())
    for name in data.tasks:
        assert tree["constant_data/unit"].sel(target=name) == UNITS[name]
        assert tree["constant_data/target_scale"].sel(target=name) == pytest.approx(
            data.targets[name].scaler.std.item()
        )
    assert tree["test/observed_data/obs_length"].values.tolist() == [i for i in range(16) if i != 70 - 64]
    training = tree["training"].to_dataset()
    assert training.sizes["step"] == STEPS
    assert training["task"].values.tolist() == list(data.tasks)
    assert training["epoch"].values.tolist() == [1, 1, 1, 2, 2, 2]
    assert np.isfinite(training["losses"]).all()
    assert (training["seconds"] > 0).all()
    about = decode_attributes(tree)
    assert (about["method"], about["seed"], about["data_fingerprint"]) == (method, 3, data.fingerprint)
    assert about["configuration"]["budget"]["widths"] == [6]
    assert about["configuration"]["method"]["options"] == METHODS[method].options


def test_the_posterior_is_that_of_the_latents(runs, data):
    posterior = runs[0]["bayesian"]["posterior"].to_dataset()
    assert {name: v.shape for name, v in posterior.data_vars.items()} == {
        f"{site}_{task}": (1, 8, *shape)
        for task in data.tasks
        for site, shape in (("head", (1, 2 * 6 + 1)), ("log_variance", ()))
    }


@pytest.mark.parametrize("method", ["stl", "ew"])
def test_noise_of_a_deterministic_model_is_its_residuals_on_validation(runs, method):
    for part, model, _ in runs[1][method]:
        x, y = part.tensors("val")
        model.eval()
        with torch.no_grad():
            h = model.representation.trunk(x)
            for name in part.tasks:
                residual = (y[name] - located(model, name, x, model.heads(name, h, None))).numpy()
                expected = np.sqrt(np.nanmean(residual**2))
                assert sd_of(model, name) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", ["stl", "ew"])
def test_predictions_are_in_the_targets_units(runs, data, method):
    """Mean, draws, density and cdf of a deterministic model are those of a normal in units."""
    tree = runs[0][method]
    nll = metrics.nll(tree)["nll"]
    for part, model, _ in runs[1][method]:
        x, y = part.tensors("test")
        with torch.no_grad():
            for name in part.tasks:
                scaler = data.targets[name].scaler
                f = located(model, name, x, model.heads(name, model.representation.trunk(x), None)).double().numpy()
                sd = sd_of(model, name)
                seen = ~y[name].isnan().numpy()
                predictive = stats.norm(scaler.inverse(f)[seen], sd * scaler.std)
                label = data.targets[name].values[data.rows["test"]][seen]
                np.testing.assert_allclose(tree[f"test/predictive_mean/y_{name}"], predictive.mean(), rtol=1e-5)
                np.testing.assert_allclose(
                    tree[f"test/log_likelihood/y_{name}"][0, 0], predictive.logpdf(label), atol=1e-4
                )
                np.testing.assert_allclose(tree[f"test/pit/y_{name}"], predictive.cdf(label), atol=1e-5)
                np.testing.assert_allclose(tree[f"test/uncertainty/total_{name}"], predictive.var(), rtol=1e-4)
                np.testing.assert_allclose(tree[f"test/uncertainty/epistemic_{name}"], 0, atol=1e-12)
                z = (tree[f"test/posterior_predictive/y_{name}"].values[0] - predictive.mean()) / predictive.std()
                assert stats.kstest(z.ravel(), stats.norm.cdf).pvalue > 1e-3
                assert nll.sel(task=name).item() == pytest.approx(-predictive.logpdf(label).mean(), abs=1e-4)
    standardised = metrics.nll(tree, standardised=True)["nll"]
    scales = np.log([data.targets[name].scaler.std for name in data.tasks])
    np.testing.assert_allclose(nll - standardised, scales, rtol=1e-6)


def test_bayesian_predictions_are_in_the_targets_units(runs, data):
    tree = runs[0]["bayesian"]
    ((_, model, _),) = runs[1]["bayesian"]
    posterior = tree["posterior"].to_dataset().isel(chain=0)
    x, y = data.tensors("test")
    with torch.no_grad():
        h = np.concatenate([model.representation.trunk(x).double().numpy(), np.ones((16, 1))], 1)
    for name in data.tasks:
        scaler, seen = data.targets[name].scaler, ~y[name].isnan().numpy()
        f = np.einsum("nd,sd->sn", h, posterior[f"head_{name}"].values[:, 0])
        f = located(model, name, x, torch.as_tensor(f)[..., None]).numpy()[:, seen]
        sd = model.likelihoods[name].unit.item() * np.exp(posterior[f"log_variance_{name}"].values / 2)[:, None]
        label = data.targets[name].values[data.rows["test"]][seen]
        predictive = stats.norm(scaler.inverse(f), sd * scaler.std)
        np.testing.assert_allclose(tree[f"test/predictive_mean/y_{name}"], predictive.mean().mean(0), rtol=1e-5)
        np.testing.assert_allclose(tree[f"test/log_likelihood/y_{name}"][0], predictive.logpdf(label), atol=1e-3)
        np.testing.assert_allclose(tree[f"test/pit/y_{name}"], predictive.cdf(label).mean(0), atol=1e-5)
        # The law of total variance, in units.
        for what, expected in (("aleatoric", predictive.var().mean(0)), ("epistemic", predictive.mean().var(0))):
            np.testing.assert_allclose(
                tree[f"test/uncertainty/{what}_{name}"], np.broadcast_to(expected, label.shape), rtol=1e-3
            )


def test_single_task_learning_is_each_target_by_itself(runs, data):
    together = runs[0]["stl"]
    for i, name in enumerate(data.tasks):
        alone = run(data.subset([name]), replace(EW, balancer="ew"), 3, BUDGET)
        for group in ("predictive_mean", "log_likelihood", "posterior_predictive", "pit", "observed_data"):
            xr.testing.assert_equal(together[f"test/{group}/y_{name}"], alone[f"test/{group}/y_{name}"])
            xr.testing.assert_equal(together[f"validation/{group}/y_{name}"], alone[f"validation/{group}/y_{name}"])
        steps = alone["training"].sizes["step"]
        np.testing.assert_array_equal(together["training/losses"][:steps, i], alone["training/losses"][:, 0])
        np.testing.assert_array_equal(together["training/weights"][:steps, i], alone["training/weights"][:, 0])


def test_the_seed_decides_a_run(runs, data):
    again, other = run(data, EW, 3, BUDGET), run(data, EW, 4, BUDGET)
    for group in ("predictive_mean", "posterior_predictive"):
        xr.testing.assert_equal(runs[0]["ew"]["test"][group].to_dataset(), again["test"][group].to_dataset())
    assert not np.allclose(again["test/predictive_mean/y_mass"], other["test/predictive_mean/y_mass"])


def test_a_run_leaves_the_global_generator_as_it_was(data):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    run(data, BAYESIAN, 0, replace(BUDGET, epochs=1))
    torch.testing.assert_close(torch.get_rng_state(), before)


# ---- Inputs from elsewhere -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [STL, BAYESIAN, METHODS["mc-dropout"], METHODS["mt-enet"], replace(METHODS["ensemble"], ensemble_size=2)],
    ids=lambda method: method.name,
)
def test_inputs_from_elsewhere_are_predicted_and_learnt_nothing_from(data, tmp_path, method):
    """The tree holds what the kept model says of them, and is otherwise that of a run without them."""
    far = 50 + 10 * np.random.default_rng(1).normal(size=(7, 3))
    tree = run(data, method, 3, BUDGET, tmp_path / "with", keep_model=True, new=far)
    without = run(data, method, 3, BUDGET, tmp_path / "without", keep_model=True)
    assert set(tree.children) - set(without.children) == {"predictions", "predictions_mean", "predictions_uncertainty"}
    kept = load_fitted(tmp_path / "with").predict(far, seed=3)
    members = method.ensemble_size * BUDGET.draws
    for name in data.tasks:
        found = tree[f"predictions/y_{name}"].values
        assert found.shape == (1, members, 7)
        expected = kept[f"predictions/y_{name}"].values
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())  # kept in float32
        for what in ("total", "aleatoric", "epistemic"):
            expected = kept[f"predictions_uncertainty/{what}_{name}"]
            np.testing.assert_allclose(tree[f"predictions_uncertainty/{what}_{name}"], expected, rtol=1e-5, atol=1e-9)
    for group in {node.path for node in without.subtree} - {"/training"}:
        xr.testing.assert_equal(tree[group].to_dataset(), without[group].to_dataset())
    timeless = [part["training"].to_dataset().drop_vars("seconds") for part in (tree, without)]
    xr.testing.assert_equal(*timeless)
    assert validation_score(tree) == validation_score(without)
    assert validation_scores(tree) == validation_scores(without)
    one, other = (
        load_fitted(tmp_path / folder).predict(data.inputs.x[:5])["predictions"] for folder in ("with", "without")
    )
    xr.testing.assert_equal(one.to_dataset(), other.to_dataset())


def test_inputs_from_elsewhere_that_do_not_fit(data, never_trains):
    with pytest.raises(ValueError, match=r"shape \(rows, 3\), as the training data; got \(7, 2\)"):
        run(data, EW, 0, BUDGET, new=np.zeros((7, 2)))


# ---- Kinds of data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [STL, EW, BAYESIAN, Method("learnt", options={"noise": "parameter"}, normalize="per_datum")]
)
def test_classes_beside_regressions(method, tmp_path):
    data = mixed()
    run(data, method, 0, replace(BUDGET, epochs=40, lr=0.02), tmp_path)
    tree = results.read(tmp_path / "results.nc")
    for name in ("kind", "sign"):
        labels = data.targets[name].values[data.rows["test"]]
        seen = np.flatnonzero(labels != -1)
        np.testing.assert_array_equal(tree[f"test/observed_data/y_{name}"], labels[seen])
        assert tree[f"test/observed_data/obs_{name}"].values.tolist() == seen.tolist()
        p = tree[f"test/probability/y_{name}"].values
        assert p.shape == (len(seen), len(data.targets[name].family.classes))
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
        # The mean over draws of the label's probability is that of the predictive.
        of_label = np.exp(tree[f"test/log_likelihood/y_{name}"].values[0]).mean(0)
        np.testing.assert_allclose(p[np.arange(len(seen)), labels[seen]], of_label, rtol=1e-4)
        total = tree[f"test/uncertainty/total_{name}"]
        np.testing.assert_allclose(total, -(p * np.log(p)).sum(axis=1), rtol=1e-4, atol=1e-6)
        assert set(np.unique(tree[f"test/posterior_predictive/y_{name}"])) <= set(
            range(len(data.targets[name].family.classes))
        )
        assert metrics.accuracy(tree)["accuracy"].sel(task=name) > 0.7  # chance is a third, and a half
    assert tree["test/probability/class_kind"].values.tolist() == ["low", "mid", "high"]
    specs = [json.loads(text)["family"] for text in tree["constant_data/family"].values]
    assert specs == ["real", "classes", "binary"]
    assert list(tree["test/predictive_mean"].data_vars) == ["y_length"]


def test_validation_scores_of_classes_are_accuracies():
    tree = run(mixed(), EW, 0, BUDGET)
    found, validation = validation_scores(tree), tree["validation"]
    for name in ("kind", "sign"):
        right = validation[f"probability/y_{name}"].argmax(f"class_{name}") == validation[f"observed_data/y_{name}"]
        assert found[name] == pytest.approx(float(right.mean()))


def test_classes_alone_are_compared_by_their_likelihood():
    """The log of a cross-entropy of zero, from a network that tells all classes apart, would be no score."""
    data = mixed().subset(["sign"])
    tree = run(data, EW, 0, replace(BUDGET, epochs=3))
    nll = -tree["validation/log_likelihood/y_sign"].values.mean()
    assert validation_score(tree) == pytest.approx(nll, rel=1e-5)


def test_rows_without_a_label_do_not_lengthen_single_task_learning():
    data = ragged()
    tree = run(data, STL, 0, BUDGET)
    for name in data.tasks:
        labels = data.targets[name].values[data.rows["test"]]
        assert tree[f"test/observed_data/y_{name}"].size == (~np.isnan(labels)).sum() > 0
        assert np.isfinite(tree[f"test/predictive_mean/y_{name}"]).all()
    # "length" has a label in 16 of 48 rows: one batch an epoch; "mass" has two.
    assert tree["training"].sizes["step"] == 2
    assert run(data, EW, 0, BUDGET)["training"].sizes["step"] == STEPS


def test_a_target_without_a_scored_label_is_no_error():
    tree = run(unlabelled_in("test"), EW, 0, BUDGET)
    assert tree["test/observed_data/y_length"].size == 0
    assert metrics.mae(tree)["mae"].isnull().values.tolist() == [False, True]


# ---- Ensembles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("single_task", [False, True])
def test_an_ensemble_is_the_mixture_of_its_members(data, single_task):
    """Member m of a run with seed s is the run with seed s * members + m."""
    one = replace(EW, single_task=single_task)
    ensemble = run(data, replace(one, ensemble_size=3), 2, BUDGET)
    members = [run(data, one, seed, BUDGET) for seed in (6, 7, 8)]
    for name in data.tasks:
        means = np.stack([tree[f"test/predictive_mean/y_{name}"] for tree in members])
        aleatoric = np.mean([tree[f"test/uncertainty/aleatoric_{name}"] for tree in members], axis=0)
        np.testing.assert_allclose(ensemble[f"test/predictive_mean/y_{name}"], means.mean(0), rtol=1e-6)
        np.testing.assert_allclose(ensemble[f"test/uncertainty/epistemic_{name}"], means.var(0), rtol=1e-4)
        np.testing.assert_allclose(ensemble[f"test/uncertainty/aleatoric_{name}"], aleatoric, rtol=1e-5)
        for group in ("posterior_predictive", "log_likelihood"):
            expected = np.concatenate([tree[f"test/{group}/y_{name}"].values[0] for tree in members])
            np.testing.assert_allclose(ensemble[f"test/{group}/y_{name}"][0], expected, rtol=1e-6)
    if not single_task:
        seconds = sum(tree["training"].sizes["step"] for tree in members)
        assert seconds == 3 * ensemble["training"].sizes["step"]
        np.testing.assert_array_equal(ensemble["training/losses"], members[0]["training/losses"])


def test_ctrl_c_in_an_ensemble_keeps_the_finished_members(data, tmp_path, ctrl_c_at):
    ctrl_c_at(2 * STEPS + 2)  # in the third member
    with pytest.raises(KeyboardInterrupt):
        run(data, replace(EW, ensemble_size=3), 0, BUDGET, tmp_path)
    partial = results.read(tmp_path / "partial.nc")
    assert partial["test/log_likelihood/y_mass"].sizes["draw"] == 2


def test_a_mixture_needs_common_targets(data):
    with pytest.raises(ValueError, match="members predict the same targets"):
        mixture([])


# ---- Interruptions ---------------------------------------------------------------------------------------------------


def test_a_later_run_clears_what_an_interrupted_one_left(data, tmp_path, ctrl_c_at):
    ctrl_c_at(2)
    with pytest.raises(KeyboardInterrupt):
        run(data, EW, 0, BUDGET, tmp_path)
    assert files(tmp_path) == {"partial.nc", "last.ckpt"}
    assert np.isnan(validation_score(results.read(tmp_path / "partial.nc")))
    run(data, EW, 0, BUDGET, tmp_path)
    assert files(tmp_path) == {"results.nc"}


@pytest.mark.parametrize(("step", "kept", "steps"), [(4, ["mass"], 3), (STEPS + 2, ["mass"], STEPS)])
def test_ctrl_c_in_single_task_learning_keeps_the_finished_targets(data, tmp_path, ctrl_c_at, step, kept, steps):
    ctrl_c_at(step)  # in the first target, and in the second
    with pytest.raises(KeyboardInterrupt):
        run(data, STL, 0, BUDGET, tmp_path)
    partial = results.read(tmp_path / "partial.nc")
    assert partial["training"].to_dataset()["task"].values.tolist() == kept
    assert partial["training"].sizes["step"] == steps
    assert check_file(tmp_path / "last.ckpt")


# ---- Choosing settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["stl", "ew", "bayesian"])
def test_validation_scores_are_in_the_targets_units(runs, data, method):
    found = validation_scores(runs[0][method])
    assert list(found) == list(data.tasks)
    for part, model, svi in runs[1][method]:
        x, y = part.tensors("val")
        found_there = bmtl.draw(model, svi.guide, x, num_draws=BUDGET.draws, seed=3).targets
        for name in part.tasks:
            error = np.nanmean(np.abs(y[name].numpy() - found_there[name].mean)) * data.targets[name].scaler.std
            assert found[name] == pytest.approx(error, rel=1e-5)


def test_the_score_is_that_of_the_epoch_that_was_kept(data, monkeypatch):
    """With the best epoch kept it is the least of all, with the last one the last."""
    kept = []
    real = module.fit
    monkeypatch.setattr(module, "fit", lambda *a, **k: kept.append(real(*a, **k)) or kept[-1])
    budget = replace(BUDGET, epochs=11, schedule="constant", lr=0.6)  # so large that the score goes up and down
    plain = EW.on_trunk("mlp")
    trees = {select: run(data, plain, 0, replace(budget, select=select)) for select in ("val", "last", "best-on-test")}
    scores = [np.log(list(found.validation.values())).mean(axis=0) for found in kept]
    assert np.argmin(scores[0]) < 10
    assert validation_score(trees["val"]) == pytest.approx(scores[0].min())
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-5)  # choosing changes nothing of the training
    assert validation_score(trees["last"]) == pytest.approx(scores[1][-1])
    assert validation_score(trees["best-on-test"]) == pytest.approx(scores[2].min())
    rows = [len(found.history) for found in kept]
    assert rows == [33, 33, 33]
    test = trees["best-on-test"]
    error = np.log([metrics.rmse(test)["rmse"].sel(task=t).item() / data.targets[t].scaler.std for t in data.tasks])
    # Of the test rows: halves of mean squared errors.
    assert validation_score(test) == pytest.approx(float(np.mean(2 * error - np.log(2))), rel=1e-4)
    said = {name: decode_attributes(tree)["configuration"]["selection"] for name, tree in trees.items()}
    assert said["last"] == "last epoch"
    assert "no reported figure" in said["best-on-test"]


def test_a_tree_that_no_run_wrote_is_told(runs):
    tree = runs[0]["ew"].copy()
    tree.attrs = {}
    with pytest.raises(ValueError, match="no validation_scores"):
        validation_scores(tree)
    with pytest.raises(ValueError, match="no validation_score"):
        validation_score(tree)


def test_a_plateau_lowers_the_learning_rate(data, monkeypatch):
    made = []
    plateau = schedules.plateau
    monkeypatch.setattr(schedules, "plateau", lambda optimizer: made.append(plateau(optimizer)) or made[-1])
    run(data, EW, 0, replace(BUDGET, epochs=60, lr=1.0, draws=1, schedule="plateau", score="log"))
    (scheduler,) = made
    assert 1e-5 <= scheduler.optimizer.param_groups[0]["lr"] < 1.0


# ---- What cannot be written --------------------------------------------------------------------------------------------


def unwritable(*args, **kwargs):
    raise RuntimeError("NetCDF: HDF error")


def test_a_run_that_cannot_be_written_leaves_its_arrays_and_model_in_files_that_are_named(data, tmp_path, monkeypatch):
    """Whatever fails, and whatever the targets are called: the tree comes back from the one, predictions from the other."""
    with monkeypatch.context() as patch:
        patch.setattr(results, "write", unwritable)
        with pytest.raises(NotWritten, match=r"NetCDF: HDF error.*fallback.npz, .*fallback-model.pt; .*read_arrays"):
            run(data, BAYESIAN, 3, BUDGET, tmp_path / "a")
    assert files(tmp_path) == {"a/fallback.npz", "a/fallback-model.pt"}
    kept = results.read_arrays(tmp_path / "a/fallback.npz")
    tree = run(data, BAYESIAN, 3, BUDGET)
    for name in ("posterior", "test/posterior_predictive", "constant_data", "validation/pit"):
        xr.testing.assert_identical(kept[name].to_dataset(), tree[name].to_dataset())
    assert decode_attributes(kept)["data_fingerprint"] == data.fingerprint
    (tmp_path / "a/fallback-model.pt").rename(tmp_path / "a/model.pt")
    assert load_fitted(tmp_path / "a").targets.keys() == data.targets.keys()


def test_an_interrupted_run_that_cannot_be_written_is_an_interruption_and_leaves_its_arrays(
    data, tmp_path, ctrl_c_at, monkeypatch
):
    ctrl_c_at(4)
    with monkeypatch.context() as patch:
        patch.setattr(results, "write", unwritable)
        with pytest.raises(KeyboardInterrupt):
            run(data, EW, 0, BUDGET, tmp_path)
    assert files(tmp_path) == {"last.ckpt", "fallback.npz"}
    kept = results.read_arrays(tmp_path / "fallback.npz")
    assert decode_attributes(kept)["interrupted"] is True
    assert kept["training"].sizes["step"] == 3
    run(data, EW, 0, BUDGET, tmp_path)  # a whole one takes its place
    assert files(tmp_path) == {"results.nc"}


def test_where_nothing_can_be_written_the_error_says_so(data, tmp_path, monkeypatch):
    for module_, name in ((results, "write"), (results, "write_arrays"), (model_files, "save")):
        monkeypatch.setattr(module_, name, unwritable)
    with pytest.raises(NotWritten, match="The trained model is in no file"):
        run(data, EW, 0, BUDGET, tmp_path)


# ---- Training rows ---------------------------------------------------------------------------------------------------


def test_training_rows_are_drawn_for_in_chunks(data, monkeypatch):
    """As many rows at a time as fit, and the densities are those of all rows at once."""
    asked, draw = [], collecting.draw
    monkeypatch.setattr(
        collecting, "draw", lambda *args, **options: asked.append(options["batch_size"]) or draw(*args, **options)
    )
    whole = run(data, BAYESIAN, 0, BUDGET, trust=True)
    monkeypatch.setattr(collecting, "CHUNK", 7)
    parts = run(data, BAYESIAN, 0, BUDGET, trust=True)
    assert asked == [None, None, 2048, None, None, 7]
    for group in ("posterior", "log_likelihood", "sample_stats"):
        xr.testing.assert_allclose(parts[group].to_dataset(), whole[group].to_dataset(), rtol=1e-4)


# ---- What does not fit is told before anything is trained ------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: toy(rows={"train": np.arange(60), "test": np.arange(60, 80)}), "needs the parts val"),
        (lambda: toy(rows={"train": np.arange(60), "val": np.arange(60, 80)}), "needs the parts test"),
        (lambda: unlabelled_in("val"), "without a label in the part 'val': length"),
    ],
)
def test_data_that_will_not_do_are_told(never_trains, make, message):
    with pytest.raises(ValueError, match=message):
        run(make(), EW, 0, BUDGET)


def test_a_folder_that_cannot_be_written_is_told(data, tmp_path, never_trains):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written to"):
        run(data, EW, 0, BUDGET, tmp_path / "file")


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": -1}, {"lr": 0.0}, {"draws": 0}, {"widths": ()}, {"widths": (4, 0)}]
)
def test_a_budget_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="A budget's numbers are positive"):
        Budget(**wrong)


@pytest.mark.parametrize("wrong", [{"select": "test"}, {"score": "mae"}])
def test_a_budget_of_unknown_options_is_refused(wrong):
    with pytest.raises(ValueError, match="is one of"):
        Budget(**wrong)
