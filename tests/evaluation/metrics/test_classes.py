import numpy as np
import pytest
from scipy import stats

from bmtl.evaluation import metrics
from bmtl.targets.metrics.binning import binned_reliability
from bmtl.targets.metrics.classes import (
    accuracy_of_probabilities,
    average_precision_of_probabilities,
    balanced_accuracy_of_probabilities,
    roc_auc_of_probabilities,
)
from bmtl.targets.metrics.entropy import error_auroc_of_probabilities
from bmtl.targets.metrics.probability_calibration import (
    classwise_ece_of_probabilities,
    ece_of_probabilities,
    mce_of_probabilities,
)
from bmtl.targets.metrics.proper_scores import brier_decomposition, brier_of_probabilities, nll_of_probabilities
from tests.evaluation import trees
from tests.evaluation.classifications import calibrated, class_tree

LAYERS = {
    "accuracy": (metrics.accuracy, accuracy_of_probabilities),
    "balanced_accuracy": (metrics.balanced_accuracy, balanced_accuracy_of_probabilities),
    "auroc": (metrics.auroc, roc_auc_of_probabilities),
    "average_precision": (metrics.average_precision, average_precision_of_probabilities),
    "nll": (metrics.nll, nll_of_probabilities),
    "brier": (metrics.brier, brier_of_probabilities),
    "ece": (metrics.ece, ece_of_probabilities),
    "class_ece": (metrics.class_calibration, ece_of_probabilities),
    "class_mce": (metrics.class_calibration, mce_of_probabilities),
    "classwise_ece": (metrics.class_calibration, classwise_ece_of_probabilities),
    "error_auroc": (metrics.error_auroc, error_auroc_of_probabilities),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_score_the_labelled_rows_of_each_classification(name):
    tree = class_tree()
    layer, core = LAYERS[name]
    scores = layer(tree)[name]
    assert scores.dims == ("task",)
    assert scores["task"].values.tolist() == ["price", "ill", "digit", "none"]
    assert scores["unit"].values.tolist() == ["EUR", "1", "1", "1"]
    assert np.isnan(scores.sel(task=["price", "none"])).all()
    y, p = calibrated(200, 4)
    kept = np.arange(200) % 3 > 0
    assert float(scores.sel(task="digit")) == pytest.approx(core(y[kept], p[kept]), rel=1e-12)
    assert float(scores.sel(task="ill")) == pytest.approx(core(*calibrated(200, 2)), rel=1e-12)


def test_the_layer_holds_the_parts_of_the_brier_score():
    scores = metrics.brier(class_tree(), bins=7, binning="mass").sel(task="ill")
    expected = brier_decomposition(*calibrated(200, 2), bins=7, binning="mass")
    np.testing.assert_allclose([scores[name] for name in scores.data_vars], expected, rtol=1e-12)
    assert list(scores.data_vars) == [
        "brier",
        "brier_reliability",
        "brier_resolution",
        "brier_uncertainty",
        "brier_residual",
    ]


def test_isotonic_regression_finds_the_calibration_map():
    tree = class_tree(rows=50_000, power=2.0)
    curve = metrics.class_reliability_isotonic(tree, levels=[0.1, 0.5, 0.9], of_class=1)["observed"].sel(task="ill")
    # a probability q squared and normalised was sqrt(q) / (sqrt(q) + sqrt(1 - q)) before
    root = np.sqrt([0.1, 0.5, 0.9])
    np.testing.assert_allclose(curve, root / (root + root[::-1]), atol=0.05)


def test_the_curve_is_where_the_error_comes_from():
    tree = class_tree(power=2.0)
    curve = metrics.class_reliability(tree, bins=10)
    errors = metrics.class_calibration(tree, bins=10)
    assert curve["predicted"].dims == ("task", "bin")
    share = curve["rows"] / curve["rows"].sum("bin").clip(min=1)
    found = (share * np.abs(curve["predicted"] - curve["observed"])).sum("bin")
    np.testing.assert_allclose(found.sel(task=["ill", "digit"]), errors["class_ece"].sel(task=["ill", "digit"]))
    assert curve["rows"].sum("bin").values.tolist() == [0, 200, 133, 0]
    assert np.isnan(curve["observed"].sel(task=["price", "none"])).all()
    equal = metrics.class_reliability(tree, bins=10, binning="mass")["rows"].sel(task="ill")
    assert equal.values.tolist() == [20] * 10


def test_the_curve_of_a_class():
    tree = class_tree()
    y, p = calibrated(200, 2)
    curve = metrics.class_reliability(tree, of_class=1).sel(task="ill")
    np.testing.assert_allclose(curve["observed"], binned_reliability(p[:, 1], y).observed)
    of_third = metrics.class_reliability(tree, of_class=2)["rows"].sum("bin")
    assert of_third.values.tolist() == [0, 0, 133, 0]  # two classes have no third
    with pytest.raises(ValueError, match="of_class is -1"):
        metrics.class_reliability(tree, of_class=-1)
    steps = metrics.class_reliability_isotonic(tree)["observed"]
    assert steps.dims == ("task", "level")
    assert np.isnan(steps.sel(task="ill").sel(level=0.3, method="nearest"))  # no confidence of two classes is below 0.5
    assert np.isnan(steps.sel(task="price")).all()


def test_an_accuracy_outside_its_range_is_refused():
    for accuracy in (0.0, 1.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="inside"):
            metrics.entropy_ratio(class_tree(), accuracy=accuracy)


def test_entropy_ratios():
    found = metrics.entropy_ratio(class_tree(), resamples=200)
    assert list(found.data_vars) == [
        "entropy_ratio",
        "entropy_ratio_low",
        "entropy_ratio_high",
        "entropy_ratio_dropped",
        "accuracy",
        "reason",
    ]
    y, p = calibrated(200, 2)
    h, right = stats.entropy(p, axis=1), p.argmax(1) == y
    of_task = found.sel(task="ill")
    assert float(of_task["entropy_ratio"]) == pytest.approx(h[~right].mean() / h[right].mean())
    assert of_task["entropy_ratio_low"] < of_task["entropy_ratio"] < of_task["entropy_ratio_high"]
    assert float(of_task["accuracy"]) == right.mean()
    nothing = "no class probabilities of a scored row"
    assert found["reason"].values.tolist() == [nothing, "", "", nothing]
    alone = metrics.entropy_ratio(class_tree(), resamples=200, accuracy=0.5)
    np.testing.assert_allclose(alone["accuracy"].sel(task=["ill", "digit"]), 0.5, atol=0.01)


def test_a_diverged_and_a_perfect_target_of_a_tree():
    y = np.array([0, 1, 1])
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    tree = trees.tree(observed={"good": y, "gone": y}, probability={"good": p, "gone": np.full((3, 2), np.nan)})
    found = metrics.entropy_ratio(tree, accuracy=0.5)
    assert found["reason"].values.tolist() == ["no wrong prediction among 3 rows", "a probability is NaN"]
    assert np.isnan(found["entropy_ratio"]).all()
    assert found["accuracy"].values.tolist() == pytest.approx([1, np.nan], nan_ok=True)
