import numpy as np
import pytest

from bmtl.evaluation import metrics
from bmtl.targets import Count, Ordinal
from bmtl.targets.metrics.selective import aurc_excess_of_rows, aurc_of_rows, ause_of_rows, risk_coverage_of_rows
from tests.evaluation import trees
from tests.evaluation.classifications import calibrated, class_tree


def test_layers_of_both_kinds():
    tree = class_tree()
    mean, y = tree["test/predictive_mean/y_price"].values, tree["test/observed_data/y_price"].values
    variance = tree["test/uncertainty/total_price"].values
    found = metrics.aurc(tree)
    assert found["aurc"]["task"].values.tolist() == ["price", "ill", "digit", "none"]
    assert float(found["aurc"].sel(task="price")) == pytest.approx(aurc_of_rows(np.abs(y - mean), variance))
    labels, p = calibrated(200, 2)
    entropy = tree["test/uncertainty/total_ill"].values
    wrong = p.argmax(1) != labels
    assert float(found["aurc"].sel(task="ill")) == pytest.approx(aurc_of_rows(wrong, entropy))
    assert float(found["aurc_excess"].sel(task="ill")) == pytest.approx(aurc_excess_of_rows(wrong, entropy))
    assert np.isnan(found["aurc"].sel(task="none"))
    sparsified = metrics.ause(tree)["ause"]
    assert float(sparsified.sel(task="price")) == pytest.approx(ause_of_rows(y - mean, variance))
    assert np.isnan(sparsified.sel(task=["ill", "digit", "none"])).all()


def test_the_curve_of_a_tree_ends_at_the_error_of_all_rows():
    tree = class_tree()
    both = metrics.risk_coverage(tree)
    curve = both["risk"]
    assert (both["risk_ideal"] <= curve + 1e-12).sel(task=["price", "ill", "digit"]).all()
    np.testing.assert_allclose(both["risk_ideal"].sel(coverage=1.0), curve.sel(coverage=1.0))
    assert curve.dims == ("task", "coverage")
    whole = curve.sel(coverage=1.0)
    assert float(whole.sel(task="price")) == pytest.approx(float(metrics.mae(tree)["mae"].sel(task="price")))
    assert float(whole.sel(task="ill")) == pytest.approx(1 - float(metrics.accuracy(tree)["accuracy"].sel(task="ill")))
    exact = risk_coverage_of_rows(
        np.abs(tree["test/observed_data/y_price"].values - tree["test/predictive_mean/y_price"].values),
        tree["test/uncertainty/total_price"].values,
    )
    np.testing.assert_allclose(curve.sel(task="price"), exact.risk[1::2])  # 200 rows at steps of a hundredth
    half = metrics.risk_coverage(tree, coverages=[0.0025])["risk"].sel(task="price").item()
    assert half == pytest.approx(exact.risk[0])  # half of a row is kept


def test_kinds_of_the_uncertainty():
    known = np.linspace(0, 1, 200)
    others = {name: np.ones(200) for name in ("ill", "digit", "none")}
    tree = class_tree(aleatoric={"price": np.zeros(200), **others}, epistemic={"price": known, **others})
    loss = np.abs(tree["test/observed_data/y_price"].values - tree["test/predictive_mean/y_price"].values)
    by_epistemic = metrics.aurc(tree, uncertainty="epistemic")["aurc"].sel(task="price").item()
    assert by_epistemic == pytest.approx(aurc_of_rows(loss, known))
    with pytest.raises(ValueError, match="uncertainty is 'variance'"):
        metrics.aurc(tree, uncertainty="variance")


def test_the_risk_of_counts_and_grades_is_their_own_error():
    labels, p = calibrated(50, 4)
    y, mean = np.arange(50.0), np.arange(50.0) + 2
    spread = {"n": np.arange(50.0), "grade": np.arange(50.0)}
    tree = trees.tree(
        observed={"n": y, "grade": labels},
        predictive_mean={"n": mean},
        probability={"grade": p},
        aleatoric=spread,
        epistemic=spread,
        families={"n": Count(), "grade": Ordinal(("a", "b", "c", "d"))},
    )
    whole = metrics.risk_coverage(tree)["risk"].sel(coverage=1.0)
    np.testing.assert_allclose(whole, [2.0, metrics.mae(tree)["mae"].sel(task="grade")])


def test_what_a_tree_does_not_hold_is_nan():
    y, p = calibrated(20, 2)
    spread = {"a": np.ones(20)}
    mixed = {"a": np.zeros(20), "b": y}
    tree = trees.tree(observed=mixed, predictive_mean={"a": np.zeros(20)}, aleatoric=spread, epistemic=spread)
    assert np.isnan(metrics.aurc(tree)["aurc"].sel(task="b"))  # neither uncertainty nor probability
    assert np.isnan(metrics.aurc(trees.tree(observed=mixed))["aurc"]).all()
    for coverages in ([0.0], [1.1], 0.5):
        with pytest.raises(ValueError, match="expected a list of shares"):
            metrics.risk_coverage(tree, coverages=coverages)
    gone = trees.tree(
        observed={"a": y}, probability={"a": np.where(p > 0.5, np.nan, p)}, aleatoric=spread, epistemic=spread
    )
    assert np.isnan(metrics.aurc(gone)["aurc"]).all()
    assert np.isnan(metrics.risk_coverage(gone)["risk"]).all()
