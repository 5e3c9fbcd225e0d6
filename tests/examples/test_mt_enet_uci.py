import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from pyro import poutine
from scipy.special import logsumexp
from scipy.stats import norm

from bmtl.models.networks.dropout import Dropout


@pytest.fixture
def root(root_with):
    return root_with("uci/boston.npz")


def test_the_quick_run_and_its_files(example, start, monkeypatch, tmp_path, root):
    options = ("--quick", "--root", root, "--sets", "boston", "--out", tmp_path)
    printed = start(*options)
    scores = xr.load_dataarray(tmp_path / "boston.nc")
    assert scores.sizes == {"reading": 3, "metric": 2, "learner": 7, "split": 2}
    assert np.isfinite(scores).all()
    assert (scores.sel(reading="best") <= scores.sel(reading=["last", "val"])).all()
    summary = pd.read_csv(tmp_path / "summary.csv").set_index(["method", "metric", "reading"])
    assert summary.loc[("MT-ENet", "RMSE", "best"), ["paper", "paper_error"]].tolist() == [3.04, 0.21]
    for method in example.METHODS:
        of = scores.sel(learner=method, metric="NLL", reading="val")
        found = summary.loc[(method, "NLL", "val"), ["mean", "error"]].tolist()
        assert found == pytest.approx([of.mean().item(), of.std(ddof=1).item() / np.sqrt(2)])
    differences = pd.read_csv(tmp_path / "differences.csv").set_index(["method", "metric", "reading"])
    gaussian = scores.sel(learner="Gaussian") - scores.sel(learner="ENet")
    assert differences.loc[("Gaussian", "RMSE", "last"), "difference"] == pytest.approx(
        gaussian.sel(metric="RMSE", reading="last").mean().item()
    )
    table = (tmp_path / "table.md").read_text()
    assert table.count("| boston | MT-ENet        |") == 2
    assert table in printed

    def by_epoch(*arguments):
        raise AssertionError("what is finished is not done again")

    with monkeypatch.context() as patch:
        patch.setattr(example, "by_epoch", by_epoch)
        start(*options)
        assert (tmp_path / "table.md").read_text() == table
        with pytest.raises(AssertionError, match="not done again"):
            start(*options, "--epochs", 3)
    # Cut off before a method: the others are kept, and it comes out as it was.
    scores.drop_sel(learner="MC-Dropout").to_netcdf(tmp_path / "boston.nc")
    monkeypatch.delattr(example, "train")
    start(*options)
    assert (tmp_path / "table.md").read_text() == table


def test_scores_against_their_formulas(example):
    """Two epochs, two splits of four and three rows, three members."""
    random = np.random.default_rng(0)
    shape = (2, 2, 3, 4)
    curves = {
        "label": np.broadcast_to(random.normal(size=(2, 1, 4)), shape).copy(),
        "mean": random.normal(size=shape),
        "variance": random.gamma(2.0, size=shape),
    }
    for values in curves.values():
        values[:, 1, :, 3] = np.nan
    spread = np.sqrt(curves["variance"])
    curves["log_density"] = norm.logpdf(curves["label"], curves["mean"], spread)
    rmse, nll = example.single(curves)
    assert rmse[1, 1, 2] == pytest.approx(np.sqrt(((curves["label"] - curves["mean"])[1, 1, 2, :3] ** 2).mean()))
    assert nll[0, 0, 1] == pytest.approx(-curves["log_density"][0, 0, 1].mean())
    rmse, nll = example.ensemble(curves)
    mean, variance = (curves[of][1, 1, :, :3] for of in ("mean", "variance"))
    label = curves["label"][1, 1, 0, :3]
    assert rmse[1, 1, 0] == pytest.approx(np.sqrt(((label - mean.mean(0)) ** 2).mean()))
    moments = mean.mean(0), np.sqrt((variance + mean**2).mean(0) - mean.mean(0) ** 2)
    assert nll[1, 1, 0] == pytest.approx(-norm.logpdf(label, *moments).mean())


def test_a_mixture_of_normals(example):
    """Three draws, two networks of four and three rows, against scipy."""
    random = np.random.default_rng(0)
    label, mean = random.normal(size=(2, 4)), random.normal(size=(3, 2, 4))
    label[1, 3] = np.nan
    found = example.mixture(torch.tensor(label), torch.tensor(mean))
    assert found["nll"].shape == (2, len(example.NOISES))
    for net, rows in ((0, 4), (1, 3)):
        y, centres = label[net, :rows], mean[:, net, :rows]
        assert found["square"][net].item() == pytest.approx(((y - centres.mean(0)) ** 2).mean())
        for k in (0, 10, -1):
            log_densities = norm.logpdf(y, centres, example.NOISES[k])
            expected = np.log(3) - logsumexp(log_densities, axis=0).mean()
            assert found["nll"][net, k].item() == pytest.approx(expected)


def test_dropouts_rate_and_noise_are_validations_choice_after_each_epoch(example, monkeypatch):
    """One split, one network, two epochs: the best on validation is what is read on test, however good others are there."""
    shape = (2, 2, 1, 1)  # epochs, halves, splits, seeds
    nll = np.full((2, *shape, len(example.NOISES)), 5.0)  # by rate
    nll[1, 0, 1, 0, 0, 3] = nll[0, 1, 1, 0, 0, 7] = (
        1.0  # on validation: second rate, fourth noise; then first rate, eighth
    )
    nll[1, 0, 0, 0, 0, 3], nll[0, 1, 0, 0, 0, 7], nll[0, :, 0, 0, 0, 0] = 2.5, 3.5, 0.1  # on test
    square = np.arange(8.0).reshape(2, *shape)
    rates = []

    def by_epoch(data, seeds, epochs, make, look, noise_seed):
        (layer, *_) = (part for part in make(torch.zeros(4, 2), 0).modules() if isinstance(part, Dropout))
        rates.append(layer.rate)
        return {"nll": nll[noise_seed], "square": square[noise_seed]}

    monkeypatch.setattr(example, "by_epoch", by_epoch)
    monkeypatch.setattr(example, "units", lambda data, name, of: np.full((2, 1, 1), 10.0))
    test, val = example.dropout("y", None, {"seeds": 1, "epochs": 2, "dropout rates": "0.1, 0.2"})
    assert rates == [0.1, 0.2]
    assert test.shape == val.shape == (2, 2, 1, 1)  # metric, epochs, splits, seeds
    np.testing.assert_allclose(test[1].ravel(), np.log(10) + np.array([2.5, 3.5]))
    np.testing.assert_allclose(val[1].ravel(), np.log(10) + 1)
    np.testing.assert_allclose(test[0].ravel(), 10 * np.sqrt([square[1, 0, 0], square[0, 1, 0]]).ravel())
    np.testing.assert_allclose(val[0].ravel(), 10 * np.sqrt([square[1, 0, 1], square[0, 1, 1]]).ravel())


def test_dropout_trains_on_squared_errors_in_training_mode(example):
    made = example.thinned("y", torch.zeros(4, 2), 0, 0.3)
    x, y = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.arange(4.0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        trace = poutine.trace(made).get_trace(x, {"y": y})
    site = trace.nodes["y_y"]
    loss = -site["fn"].log_prob(y)
    torch.testing.assert_close(loss, (y - site["fn"].mean) ** 2 / 2 + 0.5 * np.log(2 * np.pi))
    assert {n for n, p in made.named_parameters() if not p.requires_grad} == {
        "_likelihoods.0.unknowns.log_variance.scaled"
    }


def test_readings(example):
    """The last epoch, the one that is best on validation, the one that is best on test: each network its own."""
    test = np.array([[[[3.0, 9.0]], [[1.0, 5.0]], [[2.0, 7.0]]]])  # one metric, three epochs, one split, two seeds
    val = np.array([[[[4.0, 2.0]], [[5.0, 2.5]], [[3.0, 2.1]]]])
    last, chosen, best = example.readings(test, val)[:, 0, 0]
    assert last == (2 + 7) / 2
    assert chosen == (2 + 9) / 2
    assert best == (1 + 5) / 2


def test_an_unknown_set_is_refused(start, tmp_path, capsys):
    with pytest.raises(SystemExit):
        start("--sets", "bostn", "--out", tmp_path)
    assert "'bostn'" in capsys.readouterr().err


def test_a_row_of_the_page_comes_out_again(example, root, results):
    """The first four of yacht's 20 splits and one of three seeds: within three standard errors of so few."""
    data = [example.halves("yacht", root, split) for split in range(4)]
    settings = {"seeds": 1, "members": 5, "epochs": 40}
    curves = example.train("yacht", data, "MT-ENet", settings)
    scores = example.readings(*(example.single(curves[half]) for half in example.HALVES)).mean(axis=-1)
    table, _ = results("mt_enet_uci", "mt_enet.md", dtype=str)
    row = table[(table["set"] == "yacht") & (table["method"] == "MT-ENet")]
    for i, reading in enumerate(example.READINGS):
        for j, metric in enumerate(example.METRICS):
            mean, error = (float(number.replace("−", "-")) for number in row[f"{metric} {reading}"].item().split(" ± "))
            assert scores[i, j] == pytest.approx(mean, abs=3 * error * (20 / 4) ** 0.5), (metric, reading)
