import functools
import tracemalloc
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

import bmtl
from bmtl.datasets import MultiTaskData
from bmtl.evaluation import metrics
from bmtl.experiments import results_tree
from bmtl.inference.svi import BalancedSVI
from bmtl.models import TaskModel, mlp
from bmtl.models.heads import BayesianHeads, TensorNormalHeads
from bmtl.models.likelihoods import likelihood_of
from bmtl.targets import Real
from bmtl.targets.metrics.density import nll_of_draws
from tests.experiments.toys import mixed, toy


def of(families, width=3, n_data=48, **options):
    """A model of targets of these families, with learnt noise."""
    likelihoods = {name: likelihood_of(family) for name, family in families.items()}
    return TaskModel(mlp(width, (4,)), 4, likelihoods, n_data, **options)


def families(data):
    return {name: target.family for name, target in data.targets.items()}


def drawn(families, x, y=None, **options):
    model = of(families)
    return bmtl.draw(model, model.guide(), x, y, num_draws=3, **options)


def test_a_correlation_of_the_tasks_is_labelled_by_them(data):
    model = of(families(data), head=TensorNormalHeads)
    svi = BalancedSVI(model, model.guide(), functools.partial(torch.optim.Adam, lr=1e-3))
    svi.step(*data.tensors("train"))
    found = bmtl.draw(model, svi.guide, *data.tensors("test"), num_draws=3)
    tree = results_tree(data, found, svi.history, model=model)
    found = tree["posterior/task_correlation"]
    assert found.dims == ("chain", "draw", "task", "task_bis")
    assert tuple(found["task"].values) == tuple(found["task_bis"].values) == data.tasks
    np.testing.assert_allclose(found.sel(task="mass", task_bis="mass"), 1, rtol=1e-5)


def test_a_tree_of_draws_for_another_part_and_some_targets(data):
    model = of({"length": Real(), "mass": Real()})
    svi = BalancedSVI(model, model.guide(), functools.partial(torch.optim.Adam, lr=1e-3))
    svi.step(*data.tensors("train"))
    x, y = data.tensors("val")
    found = bmtl.draw(model, model.guide(), x, y, num_draws=3)
    tree = results_tree(data, found, svi.history, part="val")
    scored = tree["validation"]
    assert tree["training/task"].values.tolist() == ["length", "mass"]  # the model's order, and not the data's
    np.testing.assert_array_equal(tree["training/losses"][0], svi.history[0].losses)
    assert scored["observed_data/y_mass"].values == pytest.approx(data.targets["mass"].values[48:64])
    unlabelled = results_tree(data, bmtl.draw(model, model.guide(), x, num_draws=3), part="val")
    assert "training" not in unlabelled.children
    assert {"log_likelihood", "pit"}.isdisjoint(unlabelled["validation"].children)
    some = results_tree(data.subset(["mass"]), found, part="val")
    assert list(some["validation/observed_data"].data_vars) == ["y_mass"]
    xr.testing.assert_equal(some["validation/log_likelihood/y_mass"], scored["log_likelihood/y_mass"])


def test_other_parts_have_trees_of_their_own(data):
    model = of(families(data))
    parts = {part: bmtl.draw(model, model.guide(), *data.tensors(part), num_draws=3) for part in data.rows}
    tree = results_tree(data, parts["test"], validation=parts["val"], train=parts["train"])
    for name, part in (("test", "test"), ("validation", "val")):
        expected = results_tree(data, parts[part], part=part)[name]
        for group in expected.children:
            xr.testing.assert_equal(tree[f"{name}/{group}"].to_dataset(), expected[group].to_dataset())
    expected = results_tree(
        data, parts["train"], part="train"
    )  # the rows that the posterior was conditioned on: the root
    for group in ("observed_data", "log_likelihood", "posterior_predictive"):
        xr.testing.assert_equal(tree[group].to_dataset(), expected[group].to_dataset())


def test_inputs_without_labels_are_predicted_in_units():
    data = mixed()
    x, _ = data.tensors("test")
    model = of(families(data))
    found = bmtl.draw(model, model.guide(), x, num_draws=3)
    tree = results_tree(data, found, part="test", new=found)
    scaler = data.targets["length"].scaler
    in_units = scaler.inverse(found.targets["length"].draws)
    np.testing.assert_allclose(tree["predictions/y_length"][0], in_units, rtol=1e-6, atol=1e-6 * scaler.std)
    np.testing.assert_array_equal(tree["predictions/y_kind"][0], found.targets["kind"].draws)
    total = (found.targets["length"].aleatoric + found.targets["length"].epistemic) * scaler.std**2
    np.testing.assert_allclose(tree["predictions_uncertainty/total_length"], total)


def test_counts_that_were_never_scaled_are_scored_as_they_are():
    """Their mean absolute error was that of counts "unscaled" by a scaler that had been made all the same."""
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 3))
    n = random.poisson(np.exp(1.5 + 0.4 * x[:, 0])).astype(float)
    rows = {"train": np.arange(20), "val": np.arange(20, 30), "test": np.arange(30, 60)}
    x_test, y_test = torch.tensor(x[30:]).float(), {"n": torch.tensor(n[30:]).float()}

    def rate(x):
        return torch.exp(1.5 + 0.4 * x[:, 0])

    def model(x, y=None):
        with bmtl.task("n"), pyro.plate("rows", 20, subsample=x):
            bmtl.observe("y_n", dist.Poisson(rate(x)), None if y is None else y["n"])

    for options in ({"scaling": "none"}, {"families": {"n": "count"}}, {"families": {"n": "count"}, "scaling": "none"}):
        data = MultiTaskData.from_arrays("counts", x, {"n": n}, rows, **options)
        tree = results_tree(data, bmtl.draw(model, lambda *args: None, x_test, y_test))
        error = (rate(x_test) - y_test["n"]).abs().mean().item()
        assert metrics.mae(tree)["mae"].item() == pytest.approx(error, rel=1e-5)


def test_arviz_takes_the_predictions_of_a_task_as_they_are(runs):
    import arviz_plots

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        plot = arviz_plots.plot_ppc_pit(runs[0]["bayesian"]["test"], var_names=["y_length"], backend="none")
    assert "y_length" in plot.viz.children or "y_length" in plot.viz["ecdf_lines"]


def test_scores_do_not_depend_on_the_unit(runs, data):
    """Standardised densities and the pit are the same whether a length is told in metres or in millimetres."""
    tree = runs[0]["bayesian"]
    x, y = data.tensors("test")
    ((_, model, svi),) = runs[1]["bayesian"]
    found = bmtl.draw(model, svi.guide, x, y, num_draws=8, seed=3)
    again = results_tree(data, found)
    expected = metrics.nll(tree, standardised=True)["nll"]
    np.testing.assert_allclose(metrics.nll(again, standardised=True)["nll"], expected)
    per_datum = np.log(np.exp(found.targets["mass"].log_likelihood.astype(float)).mean(0)).mean()
    assert expected.sel(task="mass").item() == pytest.approx(-per_datum, rel=1e-5)


def test_draws_stay_in_float32_where_the_unit_allows_it():
    """A mass of 1e5 +- 700 g would lose more than a millionth of its deviation; a length is -0.02 +- 0.01 m."""
    y = {name: target.values for name, target in toy().targets.items()}
    data = toy(y={**y, "mass": y["mass"] + 1e5})
    x, y = data.tensors("test")
    found = drawn(families(data), x, y)
    tree = results_tree(data, found)
    for name, dtype, error in (("mass", np.float64, 1e-12), ("length", np.float32, 1e-6)):
        seen = tree[f"test/observed_data/obs_{name}"].values
        scaler = data.targets[name].scaler
        for values, scaled in (
            (tree[f"test/posterior_predictive/y_{name}"][0], found.targets[name].draws),
            (tree[f"test/predictive_distribution/loc_{name}"], found.targets[name].law.parameters["loc"]),
        ):
            assert values.dtype == dtype
            exact = scaler.inverse(scaled)[:, seen]
            np.testing.assert_allclose((values - exact) / scaler.std, 0, atol=error)
        assert tree[f"test/predictive_distribution/scale_{name}"].dtype == np.float32


@pytest.mark.parametrize("unit", [1e-6, 0.3, 1.0, 2e4])
def test_densities_in_float32_give_the_nll_of_those_in_float64(unit):
    """To a millionth, in any unit: also where the unit moves the NLL close to zero, as 0.3 does."""
    random = np.random.default_rng(0)
    x = random.normal(size=(2000, 3))
    y = {"a": unit * random.normal(size=2000)}
    rows = {"train": np.arange(100), "val": np.arange(100, 200), "test": np.arange(200, 2000)}
    data = MultiTaskData.from_arrays("normal", x, y, rows)
    model = of(families(data), n_data=100, head=BayesianHeads)
    found = bmtl.draw(model, model.guide(scale=0.3), *data.tensors("test"), num_draws=20)
    assert found.targets["a"].log_likelihood.dtype == np.float32
    tree = results_tree(data, found)
    assert tree["test/log_likelihood/y_a"].dtype == np.float32
    exact = nll_of_draws(found.targets["a"].log_likelihood.astype(float) - np.log(data.targets["a"].scaler.std))
    assert float(metrics.nll(tree)["nll"][0]) == pytest.approx(exact, rel=1e-6)


def test_a_tree_takes_no_more_than_its_draws():
    """16 bytes for each draw of a row, beside the draws' own, where every row has a label: df is one number."""
    rows, draws = 20_000, 30
    random = np.random.default_rng(0)
    given = {"train": np.arange(50), "val": np.arange(50, 60), "test": np.arange(60, rows + 60)}
    data = MultiTaskData.from_arrays(
        "normal", random.normal(size=(rows + 60, 3)), {"a": random.normal(size=rows + 60)}, given
    )
    model = TaskModel(torch.nn.Identity(), 3, {"a": likelihood_of(Real())}, 50, head=BayesianHeads)
    found = bmtl.draw(model, model.guide(), *data.tensors("test"), num_draws=draws)
    tracemalloc.start()
    results_tree(data, found)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / rows < 16 * draws + 30 * 8  # and rows' own numbers, of 8 bytes each


def test_a_tree_of_other_targets_is_refused(data):
    found = drawn({"other": Real()}, data.tensors("test")[0])
    with pytest.raises(ValueError, match=r"targets \['other'\], and the data have \['mass', 'length'\]"):
        results_tree(data, found)


def test_draws_of_other_rows_are_refused(data):
    found = drawn(families(data), data.tensors("train")[0])
    with pytest.raises(ValueError, match="48"):
        results_tree(data, found, part="test")
