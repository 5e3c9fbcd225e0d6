import numpy as np
import pytest

from bmtl.evaluation import metrics
from bmtl.evaluation.metrics import per_target, score
from bmtl.evaluation.parts import scored
from bmtl.targets import Classes, Count
from bmtl.targets.metrics.density import nll_of_draws
from tests.evaluation import trees
from tests.evaluation.classifications import calibrated, class_tree


def test_labels_of_the_tree(make_tree, run_arrays):
    given = run_arrays()
    given["observed"]["homo"][::2] = np.nan
    tree = make_tree(observed=given["observed"])
    y, mean = given["observed"]["homo"][1::2], given["predictive_mean"]["homo"][1::2]
    mae, rmse = metrics.mae(tree)["mae"], metrics.rmse(tree)["rmse"]
    assert mae.dims == ("task",)
    assert mae["task"].values.tolist() == ["mu", "homo", "cv"]
    assert mae["unit"].values.tolist() == ["D", "meV", "cal/(mol K)"]
    assert float(mae.sel(task="homo")) == pytest.approx(np.abs(y - mean).mean())
    assert float(rmse.sel(task="homo")) == pytest.approx(np.sqrt(np.square(y - mean).mean()))


def test_parts_are_scored_by_name_or_as_nodes_and_test_rows_by_default():
    y = np.arange(4.0)

    def rows(shift):
        return trees.predicted({"a": y}, mean={"a": y + shift})

    tree = trees.tree(
        observed={"a": y},
        predictive_mean={"a": y + 1},
        below={"validation": rows(2), "ood": rows(3), "train": rows(4)},
    )
    assert metrics.mae(tree)["mae"].item() == 1
    for part, error in (("test", 1), ("validation", 2), ("ood", 3), ("train", 4)):
        assert metrics.mae(tree, part=part)["mae"].item() == error
        if part != "train":
            assert metrics.mae(tree[part])["mae"].item() == error
    with pytest.raises(ValueError, match="no part 'calibration'"):
        metrics.mae(tree, part="calibration")


def test_a_target_without_rows_has_no_score(make_tree, run_arrays):
    y = run_arrays()["observed"]
    y["cv"] = np.full(60, np.nan)
    tree = make_tree(observed=y)
    for found in (metrics.ece(tree)["ece"], metrics.mae(tree)["mae"], metrics.nll(tree)["nll"]):
        assert np.isnan(found.sel(task="cv"))
        assert np.isfinite(found.sel(task="mu"))
    assert np.isnan(metrics.reliability(tree)["coverage"].sel(task="cv")).all()


def test_scores_that_no_target_has_and_fields_that_no_target_has_are_named(make_tree):
    with pytest.raises(ValueError, match=r"has a score 'accuracy'; their scores are mae, rmse, r2, nll"):
        metrics.accuracy(make_tree())
    tree = make_tree(log_likelihood=None, predictive_mean=None)
    with pytest.raises(ValueError, match="nll of 'mu' needs its log_likelihood"):
        metrics.nll(tree)
    with pytest.raises(ValueError, match="mae of 'mu' needs its mean"):
        metrics.mae(tree)


def test_scores_of_one_name_are_each_familys_own():
    tree = class_tree()
    found = score(tree, "ece")
    y, p = calibrated(200, 2)
    assert np.isnan(found.sel(task=["price", "none"])).all()  # a real target without a pit, and one without a row
    assert float(found.sel(task="ill")) == pytest.approx(
        float(metrics.class_calibration(tree)["class_ece"].sel(task="ill"))
    )
    assert float(score(tree, "accuracy").sel(task="ill")) == (p.argmax(axis=1) == y).mean()


def test_rows_are_counted_per_target(make_tree, run_arrays):
    y = run_arrays()["observed"]
    y["mu"][:15] = np.nan
    assert metrics.rows(make_tree(observed=y))["rows"].values.tolist() == [45, 60, 60]


def test_cores_get_draws_as_one_axis(make_tree):
    shapes = []
    per_target(make_tree(), lambda rows: shapes.append((rows.labels.shape, rows.prediction.log_likelihood.shape)))
    assert shapes == [((60,), (20, 60))] * 3


def test_a_target_whose_name_begins_like_a_variable_keeps_it():
    tree = trees.tree(observed={"y_y": np.zeros(2)}, predictive_mean={"y_y": np.ones(2)})
    assert metrics.mae(tree)["mae"].sel(task="y_y") == 1


def test_standardised_is_the_density_of_the_standardised_target():
    """In another unit, with the scale to match, it is the same; and it equals scoring z = (y - location) / scale."""
    from scipy import stats

    random = np.random.default_rng(0)
    y, locations = random.normal(size=50), random.normal(size=(9, 1))
    scores = []
    for unit in (1.0, 27.2114):
        tree = trees.tree(
            observed={"a": unit * y},
            log_likelihood={"a": stats.norm.logpdf(unit * y, unit * locations, unit * 0.7)},
            target_location={"a": unit * 0.3},
            target_scale={"a": unit * 2.0},
        )
        scores.append(float(metrics.nll(tree, standardised=True)["nll"].item()))
    z = stats.norm.logpdf((y - 0.3) / 2, (locations - 0.3) / 2, 0.35)
    assert scores == pytest.approx([nll_of_draws(z)] * 2, rel=1e-12)


def test_densities_are_in_units_as_reported_by_default(make_tree):
    tree = make_tree()
    raw, standard = metrics.nll(tree)["nll"], metrics.nll(tree, standardised=True)["nll"]
    np.testing.assert_allclose(raw - standard, np.log([1.5, 600.0, 4.0]))


def test_the_log_score_of_classes_is_that_of_the_mixture_of_draws():
    y = np.random.default_rng(1).integers(3, size=50)
    draws = np.random.default_rng(0).dirichlet(np.ones(3), size=(7, 50))
    density = np.log(draws[:, np.arange(50), y])
    tree = trees.tree(observed={"a": y}, probability={"a": draws.mean(0)}, log_likelihood={"a": density})
    assert metrics.nll(tree)["nll"].item() == pytest.approx(nll_of_draws(density), rel=1e-12)


def test_the_primary_score_of_each_target():
    tree = trees.tree(
        observed={"a": np.arange(5.0), "n": np.arange(5.0), "k": np.array([0, 1, 0, 0, 1])},
        predictive_mean={"a": np.zeros(5), "n": np.ones(5)},
        probability={"k": np.tile([0.4, 0.6], (5, 1))},
        families={"n": Count(), "k": Classes(("no", "yes"))},
        primary={"k": "auroc"},
    )
    found = metrics.primary(tree)
    assert found["metric"].values.tolist() == ["mae", "mae", "auroc"]
    np.testing.assert_allclose(found["primary"], [2.0, 1.4, 0.5])


def test_every_named_score_is_the_familys():
    tree = class_tree()
    for name in ("accuracy", "balanced_accuracy", "auroc", "error_auroc", "average_precision"):
        found = getattr(metrics, name)(tree)[name]
        rows = scored(tree)["digit"]
        assert float(found.sel(task="digit")) == rows.family.score(name).compute(rows)
