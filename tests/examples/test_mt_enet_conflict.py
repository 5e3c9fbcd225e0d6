import numpy as np
import pandas as pd
import pytest
import torch
from pyro import poutine

from bmtl.evaluation import results
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Evidential


@pytest.fixture(scope="module")
def quick(example, start, root_with, tmp_path_factory):
    """Folder, conflicts, training records by method, and what was printed."""
    out = tmp_path_factory.mktemp("conflict")
    printed = start("--root", root_with("uci/concrete.npz"), "--out", out, "--quick")
    trees = {name: results.read(out / name / "seed-0" / "results.nc") for name in example.METHODS}
    return (
        out,
        pd.read_csv(out / "conflicts.csv"),
        {n: tree["training"].to_dataset() for n, tree in trees.items()},
        printed,
    )


def test_a_loss_has_one_cosine_whether_it_is_trained_or_watched(example, quick):
    _, found, _, _ = quick
    # With the likelihood the trained loss and three shadows; two of these with both of its parts.
    assert found.groupby("method").size().to_dict() == {n: 8 - (n == "enet") for n in example.METHODS}
    assert found["mean_cosine"].between(-1, 1).all()
    assert found["conflict_share"].between(0, 1).all()
    cosine = found[found["with"] == "likelihood"].set_index(["method", "loss"])["mean_cosine"]
    for method, twin in (("mt-enet", "batch-min"), ("mse-enet", "plain"), ("mse-enet-0.1", "plain")):
        assert cosine[method, "trained"] == pytest.approx(cosine[method, twin], abs=1e-5)
        assert cosine[method, "trained"] != pytest.approx(cosine[method, "sample"], abs=1e-5)


def test_what_is_watched_is_what_it_says(quick):
    """Values of losses: bounding a slope lowers them, the lower the bound the more; a weight multiplies."""
    _, _, training, _ = quick
    for method, record in training.items():
        losses = {
            str(task).rpartition("/")[2]: record["losses"].sel(task=task).values for task in record["task"].values
        }
        assert (losses["batch-min"] <= losses["sample"]).all()
        assert (losses["sample"] <= losses["plain"]).all()
        expected = {"mt-enet": losses["batch-min"], "mse-enet": losses["plain"], "mse-enet-0.1": 0.1 * losses["plain"]}
        if method in expected:
            np.testing.assert_allclose(losses["mse"], expected[method], rtol=1e-5)
        weights = record["weights"].sel(
            task=[task for task in record["task"].values if "/mse" not in task and "/nll" not in task]
        )
        assert weights.isnull().all()  # shadows train nothing


def test_the_parts_of_the_likelihoods_gradient_add_up_to_it(example):
    """Definition 3 on every parameter, the first part on the prediction's head and the second on the others alone."""
    random = torch.Generator().manual_seed(0)
    program = TaskModel(mlp(3, (6,), generator=random), 6, {"a": Evidential()}, 20, generator=random).double()
    x, y = torch.randn(20, 3, generator=random).double(), torch.randn(20, generator=random).double()
    whole = poutine.trace(program).get_trace(x, {"a": y}).nodes["y_a"]["fn"]
    point, uncertainty = (
        torch.autograd.grad(-p.log_prob(y).mean(), list(program.parameters()), retain_graph=True, allow_unused=True)
        for p in example.parts(whole)
    )
    prediction, evidences = "heads.layers.0.", "heads.layers.1."
    total = torch.autograd.grad(-whole.log_prob(y).mean(), list(program.parameters()), retain_graph=True)
    for (name, _), one, two, both in zip(program.named_parameters(), point, uncertainty, total, strict=True):
        assert (one is None) == name.startswith(evidences)
        assert two is not None  # of the prediction's head too, where it is zero: one set of parameters for cosines
        assert two.any() != name.startswith(prediction)
        torch.testing.assert_close(two if one is None else one + two, both, rtol=1e-12, atol=1e-14)
    # Row by row the squared error pulls the prediction where "point" does.
    (pull,) = torch.autograd.grad(-example.parts(whole)[0].log_prob(y).sum(), whole.gamma, retain_graph=True)
    assert (pull * (whole.gamma - y) > 0).all()


def test_the_parts_are_losses_of_the_likelihoods_value(quick):
    _, _, training, _ = quick
    for record in training.values():
        losses = {name: record["losses"].sel(task=f"concrete/{name}").values for name in ("nll", "point", "unc")}
        np.testing.assert_allclose(losses["point"], losses["nll"], rtol=1e-5)
        np.testing.assert_allclose(losses["unc"], losses["nll"], rtol=1e-5)


def test_a_cosine_is_measured_every_other_step(example, quick):
    _, found, training, _ = quick
    for record in training.values():
        cosine = record["cosine"].sel(task="concrete/nll", task_bis="concrete/plain")
        assert np.flatnonzero(cosine.notnull()).tolist() == list(range(0, record.sizes["step"], example.EVERY))
        assert (found["measured"] == cosine.notnull().sum().item()).all()


def test_the_files(example, quick):
    out, _, _, printed = quick
    table = (out / "table.md").read_text()
    assert table in printed
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    heading = ["trained as", "-" * len("mse-enet-0.1")]
    assert rows == [*heading, *example.METHODS] * 2  # with the likelihood, and with its parts
    assert (out / "cosines.png").read_bytes().startswith(b"\x89PNG")


def test_missing_data_are_named(start, tmp_path):
    with pytest.raises(SystemExit, match="concrete"):
        start("--root", tmp_path)


@pytest.mark.rows
def test_a_trained_row_of_the_page_comes_out_again(example, start, root_with, tmp_path):
    """The cosines of ENet's training by one of the page's three seeds."""
    import page_tables

    options = ("--seeds", 1, "--methods", "enet")
    start("--root", root_with("uci/concrete.npz"), "--out", tmp_path, *options)
    found = pd.read_csv(tmp_path / "conflicts.csv")
    cosine = found[found["with"] == "likelihood"].set_index("loss")["mean_cosine"]
    page = example.Path(__file__).parents[2] / "docs" / "results" / "mt_enet_conflict.csv"
    header, *rows = page_tables.read(page)
    row = dict(zip(header, next(row for row in rows if row[0] == "enet"), strict=True))
    for loss in example.SHADOWS:
        mean, spread = map(float, row[loss].split(" (")[0].split(" ± "))
        assert cosine[loss] == pytest.approx(mean, abs=max(4 * spread, 0.02)), loss
