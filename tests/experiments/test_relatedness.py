import functools

import numpy as np
import pytest
import torch

import bmtl
from bmtl.datasets.many_tasks import assemble
from bmtl.evaluation import metrics, results
from bmtl.evaluation.relatedness import ANCHOR, nearest, relatedness
from bmtl.experiments import results_tree
from bmtl.models.likelihoods import Categorical
from bmtl.models.vmtl import vmtl_preset

TASKS = ("a", "b", "c")
RATE = functools.partial(torch.optim.Adam, lr=1e-2)


@pytest.fixture(scope="module")
def data():
    """Three tasks with rows of their own, of different numbers."""
    random = np.random.default_rng(0)
    task = np.repeat([0, 1, 2], [40, 50, 60])
    y = np.concatenate([np.arange(size) % 2 for size in (40, 50, 60)])
    x = random.normal(size=(150, 4)) + y[:, None]
    return assemble("toy", x, y, task=task, task_names=TASKS, seed=1)


def fitted(data, preset, **switches):
    x, y = data.tensors_by_task("train")
    sizes = {task: len(labels) for task, labels in y.items()}
    model = vmtl_preset(
        preset,
        4,
        {task: Categorical(2, noise="fixed") for task in data.tasks},
        sizes,
        encoder="linear",
        latent=3,
        dropout=0.0,
        support=(x, y),
        generator=torch.Generator().manual_seed(0),
        **switches,
    )
    svi = bmtl.BalancedSVI(model, model.guide(), RATE, elbo=bmtl.TaskELBO("analytic"))
    for _ in range(2):
        svi.step(x, y)
    x, y = data.tensors_by_task("test")
    drawn = bmtl.draw(model, model.guide(), x, y, num_draws=6)
    return model, drawn, svi.history


def test_a_tree_of_tasks_with_rows_of_their_own(data):
    _, drawn, history = fitted(data, "VBMTL")
    tree = results_tree(data, drawn, history)
    rows = data.rows_by_task("test")
    for task in TASKS:
        np.testing.assert_array_equal(tree[f"test/observed_data/y_{task}"], data.targets[task].values[rows[task]])
        hits = drawn.targets[task].probability.argmax(-1) == data.targets[task].values[rows[task]]
        assert metrics.accuracy(tree)["accuracy"].sel(task=task).item() == pytest.approx(hits.mean())


def test_drawn_weights_are_in_the_tree_and_come_back_from_a_file(data, tmp_path):
    model, drawn, history = fitted(data, "VMTL", weights="dirichlet")
    tree = results_tree(data, drawn, history, model=model)
    share = tree["posterior/relatedness_w"]
    assert share.dims == ("chain", "draw", "task", "source")
    assert share["source"].values.tolist() == [*TASKS, ANCHOR]
    np.testing.assert_allclose(share.sum("source"), 1.0, rtol=1e-6)
    np.testing.assert_allclose(share.sel(source=ANCHOR), 0.5)
    # Draws of the others' weights, in their order, at half their size.
    np.testing.assert_allclose(share[0, :, 1, [0, 2]], 0.5 * drawn.posterior["alpha_w"][:, 1, 0], rtol=1e-6)
    np.testing.assert_array_equal(tree["posterior/alpha_w"][0], drawn.posterior["alpha_w"])
    again = results.read(results.write(tree, tmp_path / "results.nc"))
    np.testing.assert_array_equal(relatedness(again, latent="z")["mean"], relatedness(tree, latent="z")["mean"])
    assert set(nearest(again)["nearest"].values) <= set(TASKS)


def test_weights_that_are_not_drawn_are_equal_in_all_draws(data):
    model, drawn, history = fitted(data, "VMTL-mean", anchor=0.4)
    tree = results_tree(data, drawn, history, model=model)
    found = relatedness(tree)
    assert tree["posterior/relatedness_w"].sizes["draw"] == 6
    np.testing.assert_allclose(found["mean"].sel(task="a", source=["b", "c", ANCHOR]), [0.3, 0.3, 0.4], rtol=1e-6)
    np.testing.assert_allclose(found["low"], found["high"])


def test_a_model_without_such_priors_adds_nothing(data):
    model, drawn, history = fitted(data, "VBMTL")
    with_model = results_tree(data, drawn, history, model=model)
    assert set(with_model["posterior"].data_vars) == set(drawn.posterior)
