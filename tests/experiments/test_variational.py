"""The VMTL family as methods: on targets with rows of their own, and on one table."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bmtl.evaluation import metrics
from bmtl.evaluation.relatedness import ANCHOR, relatedness
from bmtl.experiments import METHODS, Budget, Method, load_fitted, run, step_seconds
from bmtl.experiments.methods import build
from bmtl.experiments.rows import once, own_rows, spec_of, tensors
from bmtl.experiments.training import program
from bmtl.inputs import PerTask
from bmtl.models.vmtl import KLWeights, ReleasedKLWeights
from tests.experiments.toys import BUDGET, EW, domains, mixed, ragged, toy

FAMILY = [name for name, method in METHODS.items() if method.model == "vmtl"]
RELATING = [name for name in FAMILY if name.startswith("vmtl")]
VMTL = METHODS["vmtl"]
LEARNING = Budget(epochs=15, batch_size=32, lr=2e-2, widths=(16,), draws=20)


# ---- Which rows a method is given ------------------------------------------------------------------------------------


def test_targets_with_rows_of_their_own_are_given_those_alone():
    data = domains()
    x, y = tensors(data, VMTL, "train")
    expected = data.rows_by_task("train")
    assert {name: len(part) for name, part in x.items()} == {name: len(rows) for name, rows in expected.items()}
    assert all((labels != -1).all() for labels in y.values())
    spec = spec_of(data, VMTL)
    assert spec.n_data == {name: len(rows) for name, rows in expected.items()}
    torch.testing.assert_close(dict(spec.support[0]), dict(x))
    assert spec.inputs["width"] == 4
    assert list(spec.targets) == list(data.tasks)


@pytest.mark.parametrize(("data", "method"), [(domains(), EW), (toy(), VMTL)])
def test_other_models_and_other_data_have_one_table(data, method):
    assert not own_rows(data, method)
    x, y = tensors(data, method, "train")
    torch.testing.assert_close(x, data.tensors("train")[0])
    assert all(len(labels) == len(x) for labels in y.values())
    assert spec_of(data, method).n_data == len(x)
    assert (spec_of(data, method).support is None) == (method is EW)


@pytest.mark.parametrize("method", [EW, VMTL, METHODS["mt-enet"]], ids=lambda method: method.name)
def test_means_per_task_are_over_the_labels_of_all_training_rows(method):
    """They are known, and not estimated from the batches seen so far."""
    data = toy()
    _, svi, _ = program(data, method, 0, BUDGET)
    assert svi.elbo.n_data is not None
    assert {task.partition("/")[0]: n for task, n in svi.elbo.n_data.items()} == {"mass": 48, "length": 47}


def test_each_row_is_seen_once_an_epoch_in_training_and_in_validation():
    data = domains()
    _, _, train = program(data, VMTL, 0, replace(BUDGET, batch_size=20))
    rows = len(data.rows["train"])
    assert len(train) == -(-rows // 20)  # as for a method on the table
    x, y = tensors(data, VMTL, "val")
    for loader, part in ((train, "train"), (once(x, y), "val")):
        seen = {name: torch.cat([labels[name] for _, labels in loader]) for name in data.tasks}
        assert {name: len(v) for name, v in seen.items()} == {n: len(r) for n, r in data.rows_by_task(part).items()}


def test_validation_repeats_no_row_where_a_target_has_few():
    """1,500 rows would make two batches, and one target has a single row."""
    x = PerTask({"a": torch.zeros(1499, 2), "b": torch.zeros(1, 2)})
    loader = once(x, {name: torch.zeros(len(part)) for name, part in x.items()})
    assert [{name: len(part) for name, part in batch.items()} for batch, _ in loader] == [{"a": 1499, "b": 1}]


# ---- Runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_learns_domains_and_is_kept(name, tmp_path):
    """Better than chance by far on classes that a line divides; the kept model predicts what the run has drawn."""
    data = domains()
    tree = run(data, METHODS[name], 3, LEARNING, tmp_path, keep_model=True)
    rows = data.rows_by_task("test")
    for task in data.tasks:
        np.testing.assert_array_equal(tree[f"test/observed_data/y_{task}"], data.targets[task].values[rows[task]])
        # Called as in a run on the table.
        place = np.searchsorted(data.rows["test"], rows[task])
        np.testing.assert_array_equal(tree[f"test/observed_data/obs_{task}"], place)
    assert float(metrics.accuracy(tree)["accuracy"].mean()) > 0.75  # chance is a half; 24 rows: a standard error of 0.1
    assert "log_likelihood" not in tree.children  # there is no joint density to judge the guide by
    assert ("relatedness_w" in tree["posterior"] if "posterior" in tree.children else False) == (name in RELATING)
    fitted = load_fitted(tmp_path)
    found = fitted.predict(data.inputs.x[data.rows["test"]], num_draws=60)["predictions_summary"]
    for task in data.tasks:
        place = tree[f"test/observed_data/obs_{task}"].values
        p = np.stack([found[f"{task} p({c})"].values[place] for c in (0, 1)], axis=1)
        np.testing.assert_allclose(p, tree[f"test/probability/y_{task}"], atol=0.3)  # of 60 draws and of 20
    again = load_fitted(tmp_path).predict(data.inputs.x[:4], seed=1)["predictions_summary"].to_dataset()
    expected = fitted.predict(data.inputs.x[:4], seed=1)["predictions_summary"]
    np.testing.assert_array_equal(again["a p(1)"], expected["a p(1)"])


@pytest.mark.parametrize("name", ["vstl", "bmtl", "vbmtl", "vmtl", "vmtl-w"])
@pytest.mark.parametrize("data", [domains("real"), toy()], ids=["own rows", "a table"])
def test_regressions(name, data):
    """Both targets of the table and all three domains are linear in the inputs."""
    tree = run(data, METHODS[name], 0, replace(LEARNING, epochs=30))
    spread = np.array([np.nanstd(data.targets[task].values) for task in data.tasks])
    assert (metrics.rmse(tree)["rmse"].values < 0.7 * spread).all()
    assert tree["training/losses"].sizes["task"] == len(data.tasks)


@pytest.mark.parametrize("name", ["vmtl", "vmtl-mean", "vmtl-dirichlet"])
def test_the_relatedness_is_in_the_tree(name):
    data = domains()
    tree = run(data, METHODS[name], 0, BUDGET)
    for latent in ("w", "z"):
        found = relatedness(tree, latent=latent)
        assert found["task"].values.tolist() == list(data.tasks)
        assert found["source"].values.tolist() == [*data.tasks, ANCHOR]
        np.testing.assert_allclose(found["mean"].sel(source=ANCHOR), 0.5, rtol=1e-6)
    assert tree["posterior/relatedness_w"].sizes["draw"] == BUDGET.draws


def test_a_target_without_a_scored_label_is_no_error():
    data = domains()
    values = data.targets["b"].values.copy()
    values[data.rows["test"]] = -1
    targets = {**data.targets, "b": replace(data.targets["b"], values=values)}
    tree = run(replace(data, targets=targets), VMTL, 0, BUDGET)
    assert tree["test/observed_data/y_b"].size == 0
    assert metrics.accuracy(tree)["accuracy"].isnull().values.tolist() == [False, True, False]


def test_a_class_that_a_target_lacks_makes_all_rows_answer():
    whole, lacking = domains(3), domains(3, "b")
    by_class = [build(VMTL, spec_of(data, VMTL), (4,), 0)[0].by_class for data in (whole, lacking)]
    assert by_class == [True, False]
    tree = run(lacking, VMTL, 0, BUDGET)
    assert tree["test/probability/y_b"].shape[1] == 3
    with pytest.raises(ValueError, match="Tasks lack rows of some classes"):
        run(lacking, replace(VMTL, options={**VMTL.options, "attention": "class"}), 0, BUDGET)


def test_the_weights_of_the_divergences_are_options():
    def weights(**options):
        return build(Method("m", model="vmtl", options=options), spec_of(domains(), VMTL), (4,), 0)[0].kl_weights

    assert weights() == KLWeights(0.1, 1e-4)
    assert weights(kl_w=1.0, kl_z=0.5) == KLWeights(1.0, 0.5)
    assert weights(as_released=True) == ReleasedKLWeights()


def test_weights_given_twice_and_options_that_no_file_holds_are_told(tmp_path):
    data = domains()
    given = Method("m", model="vmtl", options={"kl_weights": KLWeights(1.0, 0.5)})
    model, _ = build(given, spec_of(data, given), (8,), 0)
    assert (model.kl_weights.w, model.kl_weights.z) == (1.0, 0.5)
    for options in ({"kl_weights": KLWeights(1.0, 0.5), "kl_w": 0.1}, {"as_released": True, "kl_z": 0.1}):
        twice = Method("m", model="vmtl", options=options)
        with pytest.raises(ValueError, match="which have weights of their own"):
            build(twice, spec_of(data, twice), (8,), 0)
    with pytest.raises(ValueError, match="options of 'm' cannot be kept in a file: .*KLWeights"):
        run(data, given, 0, BUDGET, tmp_path, keep_model=True)


def test_the_seed_decides_a_run():
    one, same, other = (run(domains(), VMTL, seed, BUDGET)["test/probability/y_a"].values for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_an_ensemble_of_it_and_inputs_from_elsewhere():
    data = domains()
    tree = run(data, replace(VMTL, ensemble_size=2), 0, BUDGET, new=np.zeros((3, 4)))
    assert tree["predictions/y_a"].shape == (1, 2 * BUDGET.draws, 3)
    assert tree["test/probability/y_a"].shape == (len(data.rows_by_task("test")["a"]), 2)


def test_its_steps_are_timed_beside_others():
    found = step_seconds(domains(), [EW, VMTL], BUDGET, steps=2)
    assert set(found) == {"ew", "vmtl"}
    assert min(found.values()) > 0


# ---- What it cannot take ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (mixed(), "vmtl", "one likelihood and as many outputs each"),
        (toy(), "vmtl-ac", "Amortised classifiers are Gaussian, with an output for each class"),
        (toy().subset(["mass"]), "vmtl", "needs another task, and only 'mass' was given"),
    ],
)
def test_data_that_it_cannot_take_are_told(never_trains, data, name, message):
    with pytest.raises(ValueError, match=message):
        run(data, METHODS[name], 0, BUDGET)


def test_rows_with_two_labels_somewhere_are_a_table():
    data = ragged()
    assert data.one_label_a_row
    assert own_rows(data, VMTL)
    values = data.targets["mass"].values.copy()
    values[0] = 1.0
    both = {**data.targets, "mass": replace(data.targets["mass"], values=values)}
    assert not own_rows(replace(data, targets=both), VMTL)
