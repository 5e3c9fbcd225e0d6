import importlib.util
import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from bmtl.estimators import MultiTaskClassifier, MultiTaskEstimator, MultiTaskRegressor
from bmtl.estimators.columns import class_column, columns_of, real_column, split
from bmtl.evaluation import metrics
from bmtl.experiments import load_fitted

SHORT = {"steps": 1, "widths": (4,), "draws": 2}
QUICK = {**SHORT, "steps": 20, "random_state": 0}
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 3))
Y = np.column_stack([X @ [1.0, 2.0, 0.0], 50 + 9 * X @ [0.0, 1.0, -1.0]]) + 0.1 * RANDOM.normal(size=(120, 2))
Y[::4, 0] = np.nan
WORDS = np.where(X[:, 0] > 0, "up", "down")

EXCEPTIONS = {
    # Predictions of MultiTaskEstimator are data frames and mappings by target, which these checks take for arrays.
    "check_estimators_pickle": "subtracts predictions",
    "check_fit_idempotent": "subtracts predictions",
    "check_methods_sample_order_invariance": "takes rows of a mapping",
    "check_methods_subset_invariance": "joins mappings as rows",
}
"""Checks of scikit-learn's that MultiTaskEstimator does not pass; the other two estimators pass all."""


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cls", [MultiTaskRegressor, MultiTaskClassifier])
def test_scikit_learns_checks(cls):
    found = check_estimator(cls(**SHORT), on_fail=None, on_skip=None)
    assert [each["check_name"] for each in found if each["status"] not in ("passed", "skipped")] == []
    assert sum(each["status"] == "passed" for each in found) > 50


@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_of_mixed_targets():
    """Those that ask for predictions; the others are of the class that all estimators share."""
    asked = {
        *EXCEPTIONS,
        "check_fit2d_predict1d",
        "check_estimators_dtypes",
        "check_n_features_in",
        "check_dict_unchanged",
    }
    failed, passed = set(), set()
    for estimator, check in estimator_checks_generator(MultiTaskEstimator(**SHORT)):
        if check.func.__name__ in asked:
            try:
                check(estimator)
                passed.add(check.func.__name__)
            except (AssertionError, KeyError, TypeError):
                failed.add(check.func.__name__)
    assert failed == set(EXCEPTIONS)
    assert passed == asked - failed


@pytest.fixture(scope="module")
def regressor():
    return MultiTaskRegressor(**QUICK).fit(X, Y)


def test_missing_labels_are_left_out(regressor):
    assert regressor.predict(X).shape == (120, 2)
    assert regressor.score(X, Y) > 0.98
    assert regressor.target_names_ == ["y0", "y1"]
    assert regressor.n_iter_ == 20
    whole = MultiTaskRegressor(**QUICK).fit(X, Y[:, 1])
    assert whole.predict(X).shape == (120,)
    assert whole.target_names_ == ["y"]


def test_results_are_of_the_validation_rows(regressor):
    tree = regressor.results_
    assert set(tree.children) >= {"validation", "training", "constant_data"}
    assert tree["validation/observed_data/y_y1"].sizes["obs_y1"] == 24
    assert (metrics.rmse(tree["validation"])["rmse"].values < [0.5, 4]).all()


def test_distributions_agree_with_each_other(regressor):
    found = regressor.predict_dist(X[:5])
    levels = np.array([0.05, 0.5, 0.95])
    quantiles = found.quantile(levels)
    assert quantiles.shape == (3, 5, 2)
    np.testing.assert_allclose(found.cdf(quantiles), np.broadcast_to(levels[:, None, None], (3, 5, 2)), atol=1e-6)
    lower, upper = found.interval(0.9)
    np.testing.assert_allclose([lower, upper], quantiles[[0, 2]])
    np.testing.assert_allclose(found.mean(), regressor.predict(X[:5]))
    draws = found.sample(4000, seed=3)
    assert draws.shape == (4000, 5, 2)
    np.testing.assert_array_equal(draws, found.sample(4000, seed=3))
    np.testing.assert_allclose(draws.mean(0), found.mean(), atol=5 * found.std().max() / 4000**0.5)
    np.testing.assert_allclose(draws.std(0), found.std(), rtol=0.1)
    assert abs(np.corrcoef(draws[:, 0, 0], draws[:, 0, 1])[0, 1]) < 0.1
    assert list(found) == ["y0", "y1"]
    np.testing.assert_allclose(found["y1"].mean(), found.mean()[:, 1])
    assert found.cdf(0.0).shape == (5, 2)
    flat = MultiTaskRegressor(**QUICK).fit(X, Y[:, 1]).predict_dist(X[:5])
    assert [flat.mean().shape, flat.quantile(0.5).shape, flat.quantile([0.1, 0.9]).shape] == [(5,), (5,), (2, 5)]
    assert flat.cdf(flat.quantile([0.1, 0.9])).shape == (2, 5)
    with pytest.raises(ValueError, match="Levels range"):
        found.quantile(1.5)
    with pytest.raises(ValueError, match=r"y is a number or has the shape \(5, 2\), and \(3,\) was given"):
        found.cdf(np.zeros(3))
    assert "y0, y1: 5 x 2" in repr(found)


def test_pandas_names_are_kept_and_held_to(regressor):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    labels = pd.DataFrame({"cost": Y[:, 0], "time": Y[:, 1]})
    named = MultiTaskRegressor(**QUICK).fit(frame, labels)
    assert named.target_names_ == ["cost", "time"]
    assert named.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(named.predict(frame), regressor.predict(X))
    with pytest.raises(ValueError, match="feature names"):
        named.predict(frame[["c", "b", "a"]])
    assert named.score(frame, labels[["time", "cost"]]) == named.score(frame, labels) == named.score(frame, Y)
    with pytest.raises(ValueError, match="fitted on the targets cost, time, and y has cost, price"):
        named.score(frame, labels.rename(columns={"time": "price"}))
    with pytest.raises(ValueError, match="fitted on the targets cost, time, and y has y"):
        named.score(frame, Y[:, 0])


def test_a_random_state_decides_and_a_clone_has_the_parameters(regressor):
    again = clone(regressor)
    assert again.get_params() == regressor.get_params()
    with pytest.raises(NotFittedError):
        again.predict(X)
    np.testing.assert_array_equal(again.fit(X, Y).predict(X), regressor.predict(X))
    other = clone(regressor).set_params(random_state=1).fit(X, Y)
    assert not np.allclose(other.predict(X), regressor.predict(X))


def test_pipelines_and_grids():
    pipeline = make_pipeline(StandardScaler(), MultiTaskRegressor(**QUICK))
    search = GridSearchCV(pipeline, {"multitaskregressor__method": ["ew", "uw"]}, cv=2, error_score="raise")
    assert search.fit(X, Y[:, 1]).score(X, Y[:, 1]) > 0.98
    assert search.best_params_["multitaskregressor__method"] in ("ew", "uw")


def test_classes_of_several_targets_with_gaps():
    labels = pd.DataFrame({"way": WORDS, "size": np.digitize(X[:, 1], [-0.5, 0.5]) * 10.0})
    labels.loc[3, "way"] = None
    labels.loc[5, "size"] = np.nan
    model = MultiTaskClassifier(**QUICK).fit(X, labels)
    assert [kept.tolist() for kept in model.classes_] == [["down", "up"], [0.0, 10.0, 20.0]]
    chances = model.predict_proba(X)
    assert [p.shape for p in chances] == [(120, 2), (120, 3)]
    for p in chances:
        np.testing.assert_allclose(p.sum(1), 1, rtol=1e-6)
    predicted = model.predict(X)
    assert predicted.shape == (120, 2)
    assert set(predicted[:, 1]) <= {0.0, 10.0, 20.0}
    assert (predicted[:, 0] == WORDS).mean() > 0.9
    assert 0.7 < model.score(X, labels) <= 1


def test_numbers_and_classes_together():
    labels = pd.DataFrame({"cost": Y[:, 0], "way": WORDS})
    model = MultiTaskEstimator(**QUICK).fit(X, labels)
    predicted = model.predict(X)
    assert predicted.columns.tolist() == ["cost", "way"]
    assert set(predicted["way"]) == {"up", "down"}
    assert list(model.predict_dist(X)) == ["cost"]
    np.testing.assert_allclose(model.predict_dist(X).mean()[:, 0], predicted["cost"])
    (name,) = chances = model.predict_proba(X)
    assert name == "way"
    assert (chances["way"].idxmax(axis=1).to_numpy() == predicted["way"]).all()
    assert model.score(X, labels) > 0.9


def test_a_folder_keeps_an_estimator_without_pickle(regressor, tmp_path):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    frame.index = frame.index * 7 + 3
    labels = pd.DataFrame({"cost": Y[:, 0], "way": WORDS})
    models = [regressor, MultiTaskEstimator(**QUICK).fit(frame, labels)]
    for model, x in zip(models, (X, frame), strict=True):
        folder = tmp_path / type(model).__name__
        model.save(folder)
        back = type(model).load(folder)
        assert back.get_params() == model.get_params()
        assert (back.n_iter_, back.target_names_, back.n_features_in_) == (20, model.target_names_, 3)
        pd.testing.assert_frame_equal(pd.DataFrame(back.predict(x)), pd.DataFrame(model.predict(x)))
        assert set(back.results_.children) == set(model.results_.children)
        assert load_fitted(folder).table(X).shape[0] == 120  # a run's folder too
    assert model.predict(frame).index.equals(frame.index)
    assert model.predict_proba(frame)["way"].index.equals(frame.index)
    with pytest.raises(ValueError, match="is of a MultiTaskRegressor"):
        MultiTaskClassifier.load(tmp_path / "MultiTaskRegressor")
    with pytest.raises(FileNotFoundError, match=r"There is no .*estimator.json"):
        MultiTaskRegressor.load(tmp_path)
    about = json.loads((tmp_path / "MultiTaskRegressor" / "estimator.json").read_text())
    assert about["parameters"]["widths"] == [4]
    with pytest.raises(ValueError, match="plain values"):
        MultiTaskRegressor(**{**QUICK, "random_state": np.random.RandomState(0)}).fit(X, Y).save(tmp_path / "no")
    with pytest.raises(NotFittedError):
        MultiTaskRegressor().save(tmp_path / "unfitted")


def test_pickle_works_too(regressor):
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(regressor)).predict(X), regressor.predict(X))


@pytest.mark.parametrize(
    ("estimator", "labels", "reason"),
    [
        (MultiTaskRegressor(), None, "requires y"),
        (MultiTaskRegressor(), np.full(120, np.nan), "no label"),
        (MultiTaskRegressor(), np.where(np.arange(120) == 7, 1.0, np.nan), "two labels or more"),
        (MultiTaskRegressor(), np.where(np.arange(120) == 7, np.inf, 1.0), "infinity.*row 7"),
        (MultiTaskRegressor(), WORDS, "are to be numbers"),
        (MultiTaskRegressor(), np.zeros((120, 2, 2)), r"\(rows, targets\)"),
        (MultiTaskRegressor(validation=0.0), Y, "share of the rows"),
        (MultiTaskRegressor(steps=2, epochs=2), Y, "steps or in epochs"),
        (MultiTaskRegressor("nothing"), Y, "no method"),
        (MultiTaskRegressor(widths=64), Y, r"a number for each layer, such as \(64, 64\)"),
        (MultiTaskRegressor(), pd.Series(pd.to_timedelta(range(120), unit="h")), "dates or durations. Give numbers"),
        (MultiTaskEstimator(), pd.Series([None, *pd.to_datetime(range(119), unit="D")]), "dates or durations"),
        (MultiTaskClassifier(), np.zeros(120), "one class"),
        (MultiTaskClassifier(), Y[:, 1], "continuous"),
        (MultiTaskEstimator(), np.array([*[None] * 119, "a"], dtype=object), "one class"),
    ],
)
def test_wrong_labels_and_parameters_are_told(estimator, labels, reason):
    with pytest.raises(ValueError, match=reason):
        estimator.fit(X, labels)


def test_text_and_dates_among_the_features_are_named():
    frame = pd.DataFrame({"size": [1.0, 2.0], "count": ["1", None], "town": ["Oslo", "Bergen"], "sold": [True, False]})
    frame["built"] = pd.to_datetime(["2020-01-01", "2021-01-01"])
    if importlib.util.find_spec("pyarrow"):
        frame["town"] = frame["town"].astype("string[pyarrow]")
        frame["count"] = frame["count"].astype(float).astype("double[pyarrow]")
    with pytest.raises(ValueError, match="the columns town, built hold text or dates. Encode them"):
        MultiTaskRegressor().fit(frame, [1.0, 2.0])


def test_rows_in_another_order_are_warned_of_and_new_rows_named_by_their_columns(caplog):
    x = pd.DataFrame(X[:, :2], columns=["a", "b"])
    y = pd.Series(Y[:, 1])
    with pytest.warns(UserWarning, match="the same index in another order.*Give y.loc"):
        MultiTaskRegressor(**SHORT).fit(x, y[::-1])
    found = MultiTaskRegressor(**SHORT).fit(x, y)  # warnings are errors
    found.predict(x.head(1) * 1000)
    assert "a: 1 of 1 numbers are far outside" in caplog.text


def test_a_target_without_a_label_has_no_score():
    """The mean over no rows is NaN, which a search would take for a score."""
    labels = pd.DataFrame({"a": [1.0, 2.0] * 10, "b": ["u", "v"] * 10})
    features = np.arange(20.0)[:, None]
    few = {"steps": 1, "widths": (2,), "draws": 1}
    model = MultiTaskEstimator(**few).fit(features, labels)
    for name, missing in (("a", np.nan), ("b", None)):
        with pytest.raises(ValueError, match=f"No row has a label of the target '{name}'"):
            model.score(features, labels.assign(**{name: missing}))
    classifier = MultiTaskClassifier(**few).fit(features, labels[["b"]])
    with pytest.raises(ValueError, match="No row has a label of the target 'b'"):
        classifier.score(features, labels[["b"]].assign(b=None))


def test_a_slash_in_the_name_of_a_target_is_an_underscore():
    assert (
        columns_of(pd.DataFrame({"EUR/m2": [1.0]}))[0] == columns_of(pd.Series([1.0], name="EUR/m2"))[0] == ["EUR_m2"]
    )


def test_every_part_has_a_label_of_every_target():
    random = np.random.default_rng(1)
    for seed in range(50):
        labels = np.where(random.random((12, 4)) < 0.3, 1.0, np.nan)
        labels[:2] = 1.0
        columns = [real_column(f"t{i}", column) for i, column in enumerate(labels.T)]
        rows = split(columns, 0.2, np.random.RandomState(seed))
        assert sorted([*rows["train"], *rows["val"]]) == list(range(12))
        for part in rows.values():
            assert (~np.isnan(labels[part])).any(axis=0).all()


def test_classes_are_numbered_in_order():
    column = class_column("way", np.array(["b", None, "a", "b"], dtype=object))
    assert column.labels.tolist() == [1, -1, 0, 1]
    assert column.classes.tolist() == ["a", "b"]
    for flags in (np.array([True, False, True]), np.array([True, None, False], dtype=object)):
        assert class_column("flag", flags).classes.dtype == bool  # as a file gives them back


@pytest.mark.parametrize("names", [["y", "y"], ["a/b", "a_b"], [1, "1"]])
def test_two_targets_of_one_name_are_not_made_one(names):
    with pytest.raises(ValueError, match="Two columns of y have the name '(y|a_b|1)'"):
        MultiTaskRegressor().fit(np.zeros((3, 1)), pd.DataFrame(np.zeros((3, 2)), columns=names))
