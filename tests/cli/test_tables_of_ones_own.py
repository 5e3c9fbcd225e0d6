"""A wide table with text, dates, gaps and four kinds of targets, through every command."""

import csv
import html
import re

import numpy as np
import pandas as pd
import pytest

from bmtl.evaluation import results
from bmtl.experiments import training
from tests.cli.commands import HOUSES, KINDS, TINY, call_main, in_new_process, names

FAMILIES = {"price": "real", "grade": "ordinal", "visits": "count", "sold": "binary"}


@pytest.fixture(scope="module")
def compared(houses, tmp_path_factory):
    """The folder of a comparison."""
    out = tmp_path_factory.mktemp("compared")
    methods = ("--methods", "stl,ew,bayesian", "--jobs", 1)
    assert call_main("compare", f"csv:{houses}", *HOUSES, *KINDS, *TINY, *methods, "--trust", "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def trained(houses, tmp_path_factory):
    """The folder of a fitted model."""
    out = tmp_path_factory.mktemp("trained")
    assert call_main("train", f"csv:{houses}", *HOUSES, *KINDS, *TINY, "--out", out) == 0
    return out


@pytest.fixture
def cannot_train(monkeypatch):
    def cannot(*args, **kwargs):
        raise ValueError("would train now")

    monkeypatch.setattr(training, "fit", cannot)


def test_what_was_read_is_printed_before_training(run, houses, tmp_path, cannot_train):
    """Kinds that were inferred and kinds that were given, features with what is done about gaps."""
    code, out, err = run("train", f"csv:{houses}", *HOUSES, *KINDS, *TINY, "--out", tmp_path / "m")
    assert (code, err) == (2, "Error: would train now\n")
    lines = out.splitlines()
    assert lines[:2] == ["houses: 120 rows (77 train, 19 val, 24 test)", "targets"]
    assert [line.split(",")[0] for line in lines[2:6]] == [
        "  price [kEUR]: real",
        "  grade: ordinal",
        "  visits: count",
        "  sold: binary",
    ]
    assert lines[6] == "inputs"
    assert lines[7].startswith("  size: number; ")
    assert lines[8].startswith("  town: 3 categories (Bergen, Oslo, Ålesund, N)")
    assert lines[9].startswith("  built: date, in days since 1970-01-01; ")
    assert not (tmp_path / "m").exists()


def test_kinds_are_inferred_where_none_is_given(run, houses, tmp_path, cannot_train):
    _, out, _ = run("train", f"csv:{houses}", *HOUSES, *TINY, "--out", tmp_path / "m")
    assert "  grade: classes, 120 labels of 120 rows, 3 classes" in out
    assert "visits: whole numbers, taken as real. If they are counts or grades, say so with kinds=visits:count" in out


def test_every_kind_is_scored_by_its_own_scores(compared):
    scores = results.read(compared / "comparison.nc").to_dataset()
    assert dict(zip(scores["task"].values.tolist(), scores["family"].values.tolist(), strict=True)) == FAMILIES
    references = ["constant", "linear", "boosting"]
    assert scores["learner"].values.tolist() == ["stl", "ew", "bayesian", *references]
    assert scores["role"].values.tolist() == ["method"] * 3 + ["reference"] * 3
    frame = pd.read_csv(compared / "table.csv", index_col="learner")
    own = [column for column in frame.columns if column.split()[-1] in FAMILIES or "price" in column]
    assert own == ["MAE price [kEUR]", "MAE grade", "MAE visits", "accuracy sold"]
    assert np.isfinite(frame[own]).all(axis=None)
    for metric, target in (("kappa", "grade"), ("deviance", "visits"), ("auroc", "sold"), ("crps", "price")):
        found = [name for name in scores["metric"].values.tolist() if metric in name]
        assert found, metric
        assert np.isfinite(scores["score"].sel(task=target, metric=found[0]).values[:3]).all()


def test_the_report_has_the_targets_and_judges_the_guide(run, compared):
    assert run("report", compared)[0] == 0
    page = html.unescape(re.sub("<[^>]+>", " ", (compared / "report.html").read_text(encoding="utf-8")))
    for words in (*FAMILIES, "bayesian", "boosting", "Pareto k"):
        assert words in page, words
    assert "no draws for the training rows" not in page


@pytest.mark.usefixtures("short_ending")
def test_trust_is_drawn_for_runs_that_are_there_without_it(run, houses, tmp_path):
    """The same command with --trust does not take runs that lack what it asks for."""
    given = ("compare", f"csv:{houses}", *HOUSES, *KINDS, *TINY, "--methods", "bayesian", "--jobs", 1, "--no-reference")
    file = tmp_path / "bayesian/seed-0/results.nc"
    assert run(*given, "--out", tmp_path)[0] == 0
    assert "log_likelihood" not in results.read(file).children
    assert run(*given, "--trust", "--out", tmp_path)[0] == 0
    assert "log_likelihood" in results.read(file).children
    again = file.stat().st_mtime_ns
    for more in ((), ("--trust",)):  # what is there with it is there without
        assert run(*given, *more, "--out", tmp_path)[0] == 0
        assert file.stat().st_mtime_ns == again


@pytest.mark.usefixtures("short_ending")
def test_a_primary_score_is_chosen_for_all_targets_or_by_target(run, houses, tmp_path):
    given = ("compare", f"csv:{houses}", *HOUSES, *KINDS, *TINY, "--methods", "ew", "--jobs", 1, "--no-reference")
    for primary, expected in (
        ("auroc", {"price": "mae", "sold": "auroc"}),
        ("price:rmse, sold:brier", {"price": "rmse", "sold": "brier"}),
        ("", {"price": "mae", "sold": "accuracy"}),
    ):
        assert run(*given, "--primary", primary, "--out", tmp_path)[0] == 0, primary
        scores = results.read(tmp_path / "comparison.nc").to_dataset()
        found = dict(zip(scores["task"].values.tolist(), scores["primary"].values.tolist(), strict=True))
        assert found | expected == found
        assert scores["learner"].values.tolist() == ["ew"]
    assert names(tmp_path) >= {"ew/seed-0/results.nc"}
    assert not (tmp_path / "constant").exists()


@pytest.mark.usefixtures("short_ending")
def test_without_validation_rows_the_last_epoch_is_kept(run, houses, tmp_path):
    given = ("compare", f"csv:{houses}", *HOUSES, *KINDS, *TINY, "--methods", "stl,bayesian", "--jobs", 1)
    code, _, err = run(*given, "-d", "validation=0", "--out", tmp_path / "a")
    assert (code, (tmp_path / "a").exists()) == (2, False)
    assert "--select last" in err
    code, _, err = run(*given, "-d", "validation=0", "--select", "last", "--out", tmp_path / "a")
    assert (code, err) == (0, "")
    frame = pd.read_csv(tmp_path / "a/table.csv", index_col="learner")
    assert np.isfinite(frame.filter(like="price")).all(axis=None)
    train = ("train", f"csv:{houses}", *HOUSES, *KINDS, *TINY, "-d", "validation=0", "--select", "last")
    code, out, err = run(*train, "--out", tmp_path / "m")
    assert (code, err) == (0, "")
    assert "MAE price [kEUR]" in out
    assert "on validation" not in out


def new_rows(houses, path, rows=5):
    """A file of new rows: columns in another order, among others, with an unseen town and gaps."""
    with houses.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))[:rows]
    for row in found:
        for name in ("id", *FAMILIES):
            del row[name]
    found[0]["town"] = "Paris"
    found[1] |= {"size": "", "town": "", "built": "NA"}
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["built", "remark", "town", "size"], delimiter=";")
        writer.writeheader()
        writer.writerows(found)
    return path


def test_new_rows_are_predicted_from_a_raw_file_in_a_new_process(houses, trained, tmp_path):
    file = new_rows(houses, tmp_path / "new.csv")
    code, out, err = in_new_process("predict", trained, "--data", file, "--out", tmp_path / "p.csv")
    assert code == 0
    assert (
        "town: 1 of 5 rows have a category that no training row has (Paris; the training rows have Bergen, Oslo" in err
    )
    assert err.count("\n") == 1
    assert "p.csv: 5 rows, targets price, grade, visits, sold." in out
    frame = pd.read_csv(tmp_path / "p.csv", index_col="row")
    assert len(frame) == 5
    assert frame.notna().all(axis=None)
    assert set(frame["grade"]) <= {"low", "medium", "high"}
    assert set(frame["sold"]) <= {"yes", "no"}
    shares = frame[["grade p(low)", "grade p(medium)", "grade p(high)"]]
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    assert (frame["visits mean"] > 0).all()
    assert (frame["price aleatoric sd [kEUR]"] > 0).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size,town\n80,Oslo\n", "has no column 'built', and the model was trained with size, town, built"),
        ("size,town,built\nlarge,Oslo,2020-01-01\n", "row 2, column 'size': 'large'"),
        ("size,town,built\n80,Oslo,soon\n", "row 2, column 'built': 'soon'"),
        ("size,town,built\n", "no rows"),
    ],
)
def test_new_rows_that_will_not_do_are_named(run, trained, tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    code, _, err = run("predict", trained, "--data", tmp_path / "x.csv", "--out", tmp_path / "new" / "p.csv")
    assert code == 2
    assert message in err
    assert not (tmp_path / "new").exists()


def test_times_vectors_and_censored_numbers_are_trained_on_and_predicted(run, tmp_path):
    random = np.random.default_rng(0)
    age = random.normal(size=90)
    event, end = np.exp(2 + 0.5 * age) * random.weibull(1.5, size=90), 10 * random.exponential(size=90)
    level = 6 + age
    frame = pd.DataFrame(
        {
            "age": age,
            "days": np.minimum(event, end),
            "died": np.where(event <= end, "yes", "no"),
            "u": age + random.normal(size=90),
            "v": random.normal(size=90),
            "pic50": [f"<{5}" if value < 5 else f"{value:.3f}" for value in level],
        }
    )
    frame.loc[[3, 60], ["days", "pic50"]] = None
    frame.loc[[5, 80], "u"] = None
    frame["part"] = ["train"] * 60 + ["val"] * 10 + ["test"] * 20
    frame.to_csv(tmp_path / "trial.csv", index=False)
    targets = ("targets=days,wind,pic50", "events=days:died", "vectors=wind:u+v", "split=part")
    options = [option for given in targets for option in ("-d", given)]
    given = ("train", f"csv:{tmp_path / 'trial.csv'}", *options, *TINY, "--method", "bayesian", "--out", tmp_path / "m")
    code, out, err = run(*given)
    assert (code, err) == (0, ""), out + err
    for line in ("days: time-to-event, 88 labels", "wind: vector, 90 labels", "pic50: real, 88 labels"):
        assert line in out
    tree = results.read(tmp_path / "m/results.nc")
    for name in ("days", "wind", "pic50"):
        assert np.isfinite(tree[f"test/log_likelihood/y_{name}"]).all(), name

    frame[frame["part"] == "test"][["age"]].to_csv(tmp_path / "new.csv", index=False)
    code, out, err = run("predict", tmp_path / "m", "--data", tmp_path / "new.csv", "--out", tmp_path / "p.csv")
    assert code == 0, out + err
    found = pd.read_csv(tmp_path / "p.csv")
    mean = tree["test/predictive_mean"]
    np.testing.assert_allclose(found["days mean"], mean["y_days"], rtol=1e-4)
    np.testing.assert_allclose(found[["wind u mean", "wind v mean"]], mean["y_wind"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["pic50 mean"], mean["y_pic50"], rtol=1e-4)
