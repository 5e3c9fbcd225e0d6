"""Reference rows: what scikit-learn's models come to on the split that the methods are given."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bmtl.datasets import MultiTaskData
from bmtl.evaluation import metrics, results
from bmtl.evaluation.attributes import decode_attributes
from bmtl.experiments.references import runs
from bmtl.experiments.references.base import fit
from bmtl.experiments.references.runs import names, run_references
from bmtl.experiments.trees import about_data
from bmtl.targets import Binary, Count, Real, TimeToEvent
from tests.experiments.toys import toy

ROWS = {"train": np.arange(300), "val": np.arange(300, 400), "test": np.arange(400, 800)}


@pytest.fixture(scope="module")
def data():
    """A linear target whose noise has a standard deviation of 3, one that is the sign of a feature, and a count."""
    random = np.random.default_rng(0)
    x = random.normal(size=(800, 2))
    y = {
        "price": 50 + 10 * x[:, 0] + random.normal(0, 3, 800),
        "sold": (x[:, 1] > 0).astype(int),
        "visits": random.poisson(np.exp(1 + 0.5 * x[:, 0])),
    }
    y["price"][::7] = np.nan
    families = {"sold": Binary(), "visits": Count()}
    return MultiTaskData.from_arrays(name="toy", x=x, y=y, rows=ROWS, families=families)


@pytest.fixture(scope="module")
def trees(data, tmp_path_factory):
    return run_references(data, tmp_path_factory.mktemp("references"), "seed-0", 0)


def test_their_names(data, trees):
    assert list(trees) == list(names(data).values()) == ["constant", "linear", "boosting"]
    assert list(names(toy()).values()) == ["constant", "ridge", "boosting"]


def test_they_say_of_the_data_what_runs_say(data, trees):
    for tree in trees.values():
        assert about_data(data).items() <= decode_attributes(tree).items()


def test_the_linear_row_is_ridge_with_the_noise_found_on_validation(data, trees):
    test = trees["linear"]["test"]
    there = np.isfinite(data.targets["price"].values)
    x, y = data.inputs.x, data.targets["price"].values
    train, held = (rows[there[rows]] for rows in (ROWS["train"], ROWS["test"]))
    oracle = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-4, 4, 17))).fit(x[train], y[train])
    mean = oracle.predict(x[held])
    np.testing.assert_allclose(test["predictive_mean/y_price"], mean, rtol=1e-6)
    # The noise, fitted on 86 rows of validation: within 5 standard errors of the truth, 3 / sqrt(2 * 86) each.
    scale = float(test["predictive_distribution/scale_price"].values.flat[0])
    assert abs(scale - 3) < 5 * 3 / np.sqrt(2 * 86)
    expected = -stats.norm(mean, scale).logpdf(y[held])
    np.testing.assert_allclose(-test["log_likelihood/y_price"].squeeze(), expected, rtol=1e-6)


def test_every_reference_with_a_cdf_is_judged_by_it(trees):
    for name in trees:
        ece = metrics.ece(trees[name])["ece"]
        assert np.isfinite(ece.sel(task="price")), name
        assert np.isfinite(ece.sel(task="visits")), name
    # The linear row is the truth. Of 343 rows, a perfect predictive has a mean ECE of .02, below .06 nearly always.
    assert float(metrics.ece(trees["linear"])["ece"].sel(task="price")) < 0.06


def test_labels_that_are_intervals_count_with_their_probability(tmp_path):
    """Times that are censored, and numbers below a limit; the density at an end was taken for both."""
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 1))
    times, end = np.exp(x[:, 0] + random.normal(size=300)), random.exponential(3.0, size=300)
    days = np.stack([np.minimum(times, end), np.where(times <= end, times, np.inf)], axis=1)
    days[:20] = [[0.0, 0.5]]  # known to be before
    level = x[:, 0] + 0.1 * random.normal(size=300)
    level = np.stack([np.where(level < -0.5, -np.inf, level), np.maximum(level, -0.5)], axis=1)
    rows = {"train": np.arange(0, 300, 3), "val": np.arange(1, 300, 3), "test": np.arange(2, 300, 3)}
    families = {"days": TimeToEvent(), "level": Real(censored=True)}
    given = MultiTaskData.from_arrays("trial", x, {"days": days, "level": level}, rows, families=families)
    found = run_references(given, tmp_path, "seed-0", 0, ("constant", "linear"))
    for tree in found.values():
        laws = tree["test/predictive_distribution"]
        for name, y, law in (
            (
                "days",
                days,
                stats.lognorm(laws["scale_days"].values.squeeze(), scale=np.exp(laws["loc_days"].values.squeeze())),
            ),
            ("level", level, stats.norm(laws["loc_level"].values.squeeze(), laws["scale_level"].values.squeeze())),
        ):
            lower, upper = y[rows["test"]].T
            with np.errstate(divide="ignore"):
                inside = np.log(law.cdf(upper) - law.cdf(lower))
                expected = np.where(lower == upper, law.logpdf(upper), inside)
            assert 20 < (lower != upper).sum() < 80
            np.testing.assert_allclose(tree[f"test/log_likelihood/y_{name}"].values.squeeze(), expected, rtol=1e-6)
    nll = {name: metrics.nll(tree)["nll"].sel(task="days").item() for name, tree in found.items()}
    assert nll["linear"] < nll["constant"]


def test_they_are_read_again_where_they_are_written(data, tmp_path):
    first = run_references(data, tmp_path, "seed-0", 0, ["constant"])
    file = tmp_path / "constant/seed-0/results.nc"
    written = file.stat().st_mtime_ns
    again = run_references(data, tmp_path, "seed-0", 0, ["constant"])
    assert file.stat().st_mtime_ns == written
    np.testing.assert_array_equal(
        again["constant"]["test/predictive_mean/y_price"], first["constant"]["test/predictive_mean/y_price"]
    )
    assert results.read(file)["test"].children


def test_a_reference_that_cannot_be_fitted_is_a_missing_row_and_no_lost_comparison(data, tmp_path, monkeypatch, caplog):
    def failing(family, name, *rest):
        if name == "linear":
            raise ValueError("only one class")
        return fit(family, name, *rest)

    monkeypatch.setattr(runs, "fit", failing)
    assert list(run_references(data, tmp_path, "seed-0", 0, ["constant", "linear"])) == ["constant"]
    assert "The reference linear is left out: ValueError: only one class" in caplog.text


def test_labels_of_one_class_or_of_none_in_training_lose_no_row(tmp_path):
    """What scikit-learn refuses to fit: one class, one row, a constant."""
    x, half = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) >= 20
    rows = {"train": np.arange(20), "val": np.arange(20, 30), "test": np.arange(30, 40)}
    y = {"one": (half & (np.arange(40) % 2 == 0)).astype(int), "constant": np.where(half, x[:, 0], 3.0)}
    given = MultiTaskData.from_arrays(name="toy", x=x, y=y, rows=rows, families={"one": Binary()})
    assert set(run_references(given, tmp_path, "seed-0", 0)) >= {"constant"}
