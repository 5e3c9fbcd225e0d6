import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array

from bmtl.evaluation.ood import (
    Detection,
    detection,
    detection_intervals,
    detection_of_scores,
    log_uncertainty,
    uncertainties,
)
from bmtl.evaluation.results import PredictedRows
from bmtl.targets import Prediction
from bmtl.targets.metrics.probabilities import entropy_of_probabilities
from tests.evaluation import trees

SIDES = st.integers(1, 25).flatmap(lambda n: any_array(float, n, elements=st.integers(0, 9).map(float)))


@settings(deadline=None)
@given(SIDES, SIDES)
def test_areas_are_scikit_learns(inside, outside):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    found = detection_of_scores(inside, outside)
    positive = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    score = np.r_[inside, outside]
    assert found.auroc == pytest.approx(sklearn_metrics.roc_auc_score(positive, score))
    assert found.aupr_out == pytest.approx(sklearn_metrics.average_precision_score(positive, score))
    assert found.aupr_in == pytest.approx(sklearn_metrics.average_precision_score(1 - positive, -score))
    false, true, _ = sklearn_metrics.roc_curve(positive, score, drop_intermediate=False)
    assert found.fpr95 == false[np.argmax(true >= 0.95 - 1e-12)]


def test_areas_are_torchmetrics():
    torch = pytest.importorskip("torch")
    oracles = pytest.importorskip("torchmetrics.classification")
    random = np.random.default_rng(0)
    inside, outside = random.normal(size=400), random.normal(1, 1.5, size=150)
    positive = torch.cat([torch.zeros(400), torch.ones(150)]).long()
    score = torch.sigmoid(torch.tensor(np.r_[inside, outside]))  # torchmetrics takes probabilities
    found = detection_of_scores(inside, outside)
    assert found.auroc == pytest.approx(oracles.BinaryAUROC()(score, positive).item(), abs=1e-6)
    assert found.aupr_out == pytest.approx(oracles.BinaryAveragePrecision()(score, positive).item(), abs=1e-6)
    assert found.aupr_in == pytest.approx(oracles.BinaryAveragePrecision()(1 - score, 1 - positive).item(), abs=1e-6)


@settings(deadline=None)
@given(SIDES, SIDES)
def test_only_the_order_of_scores_counts(inside, outside):
    found = detection_of_scores(inside, outside)
    np.testing.assert_allclose(detection_of_scores(np.exp(inside), np.exp(outside)), found)
    mirrored = detection_of_scores(-inside, -outside)
    swapped = detection_of_scores(outside, inside)
    assert mirrored.auroc == pytest.approx(1 - found.auroc)
    assert swapped.auroc == pytest.approx(1 - found.auroc)
    assert detection_of_scores(-outside, -inside).aupr_out == pytest.approx(found.aupr_in)


def test_fpr95_by_hand():
    outside = np.arange(100.0)  # 95 % are at 5 or above
    assert detection_of_scores([4.9, 5.0, 7.0, -1.0], outside).fpr95 == 0.5
    # Of 20, 19 must be caught: the lowest may be missed. Of 19 all must: 18 would be 94.7 %.
    assert detection_of_scores([0.5], np.arange(20.0)).fpr95 == 0
    assert detection_of_scores([0.5], np.arange(19.0)).fpr95 == 1


def test_separated_reversed_and_constant_scores():
    np.testing.assert_array_equal(detection_of_scores([1, 2], [3, 4, 5]), Detection(1, 1, 1, 0))
    assert detection_of_scores([3, 4, 5], [1, 2])[0] == 0
    assert detection_of_scores([3, 4, 5], [1, 2]).fpr95 == 1
    np.testing.assert_allclose(detection_of_scores(np.ones(6), np.ones(2)), Detection(0.5, 0.25, 0.75, 1))
    np.testing.assert_array_equal(detection_of_scores([0, -np.inf], [np.inf]), Detection(1, 1, 1, 0))


def test_missing_scores_and_missing_rows():
    assert np.isnan(detection_of_scores([1.0, np.nan], [2.0])).all()
    assert np.isnan(detection_intervals([1.0], [np.nan])).all()
    for inside, outside, side in (([], [1.0], "inside"), ([1.0], [], "outside"), (1.0, [1.0], "inside")):
        with pytest.raises(ValueError, match=f"{side} has shape .*a row at least"):
            detection_of_scores(inside, outside)
    for arguments in ({"level": 1.0}, {"resamples": 0}):
        with pytest.raises(ValueError, match="expected a level in"):
            detection_intervals([1.0], [2.0], **arguments)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Two normals one apart have an AUROC of Phi(1 / sqrt 2)."""
    random, truth = np.random.default_rng(1), 0.760250
    covered = 0
    for _ in range(200):
        low, high = detection_intervals(random.normal(size=60), random.normal(1, 1, size=40), resamples=300)
        covered += low.auroc <= truth <= high.auroc
    assert 0.95 - 4 * np.sqrt(0.95 * 0.05 / 200) - 0.02 < covered / 200


def test_the_bootstrap_is_the_plain_one():
    """Against resampling rows and scoring each resample by itself."""
    random = np.random.default_rng(2)
    inside, outside = random.integers(0, 12, size=80), random.integers(4, 16, size=50)
    low, high = detection_intervals(inside, outside, resamples=4000, seed=5)
    again = np.array([detection_of_scores(random.choice(inside, 80), random.choice(outside, 50)) for _ in range(3000)])
    plain = np.quantile(again, [0.025, 0.975], axis=0)
    width = plain[1] - plain[0]
    assert (np.abs(np.array([low, high]) - plain) < 0.12 * width).all()  # quantiles of 3,000 draws
    found = detection_of_scores(inside, outside)
    assert (np.array(low) <= found).all()
    assert (np.array(found) <= high).all()


def test_the_bootstrap_repeats_and_does_not_depend_on_its_blocks(monkeypatch):
    random = np.random.default_rng(3)
    inside, outside = random.normal(size=30), random.normal(1, 1, size=20)
    one = detection_intervals(inside, outside, resamples=50, seed=1)
    np.testing.assert_array_equal(one, detection_intervals(inside, outside, resamples=50, seed=1))
    assert not np.array_equal(one, detection_intervals(inside, outside, resamples=50, seed=2))
    monkeypatch.setattr("bmtl.evaluation.ood.CELLS", 100)
    low, high = detection_intervals(inside, outside, resamples=50, seed=1)
    assert (np.array(low) <= np.array(high)).all()


def test_groups_are_drawn_as_a_whole():
    """Rows that are copies of one another tell as much as one of them."""
    random = np.random.default_rng(4)
    inside, outside = random.normal(size=25), random.normal(1, 1, size=15)
    copies = [np.repeat(side, times) for side, times in ((inside, 3), (outside, 3))]
    labels = [np.repeat(np.arange(len(side)), times) for side, times in ((inside, 3), (outside, 3))]
    alone = detection_intervals(inside, outside, resamples=100, seed=1)
    np.testing.assert_allclose(detection_intervals(*copies, groups=labels, resamples=100, seed=1), alone)
    low, high = detection_intervals(*copies, resamples=100, seed=1)
    assert high.auroc - low.auroc < 0.8 * (alone[1].auroc - alone[0].auroc)
    with pytest.raises(
        ValueError, match=r"groups of outside have shape \(15,\); expected a label for each row, \(45,\)"
    ):
        detection_intervals(*copies, groups=(labels[0], outside))


def test_logarithms_of_uncertainties():
    np.testing.assert_allclose(log_uncertainty([1.0, np.e**-3, 0.0, -1e-9]), [0, -3, -np.inf, -np.inf])
    assert np.isnan(log_uncertainty(np.nan))
    with pytest.raises(ValueError, match="is not negative"):
        log_uncertainty([0.5, -0.1])


def unlabelled(aleatoric, epistemic):
    """Rows from elsewhere with their uncertainties."""
    nothing = np.empty((0, len(aleatoric)))
    return PredictedRows(Prediction(nothing, aleatoric=np.asarray(aleatoric), epistemic=np.asarray(epistemic)))


@pytest.fixture
def ood_tree(make_tree):
    """A regression whose epistemic variance knows what is new, and a classification with a row outside per certainty."""

    def make(variant=0, rows=60, new=40, **options):
        random = np.random.default_rng(variant)
        labels = np.random.default_rng(0)
        draws = random.dirichlet([1.0, 1.0, 1.0], size=(20, rows))
        p = draws.mean(axis=0)
        aleatoric = entropy_of_probabilities(draws).mean(axis=0)
        given = {
            "aleatoric": {"mu": np.ones(rows), "kind": aleatoric},
            "epistemic": {"mu": random.gamma(2, size=rows), "kind": entropy_of_probabilities(p) - aleatoric},
            "predictions": {
                "mu": unlabelled(np.ones(new), 5 + random.gamma(2, size=new)),
                "kind": unlabelled(np.full(new, 0.1), np.linspace(0, 0.5, new)),
            },
        }
        return make_tree(
            targets=("mu",),
            rows=rows,
            observed={"mu": labels.normal(size=rows), "kind": labels.integers(3, size=rows)},
            probability={"kind": p},
            predictive=None,
            log_likelihood=None,
            posterior=None,
            training=None,
            **(given | options),
        )

    return make


def test_detection_of_a_tree(ood_tree):
    tree = ood_tree()
    data = detection(tree, resamples=200)
    assert data["auroc"].dims == ("task", "score")
    assert data["task"].values.tolist() == ["mu", "kind"]
    assert data["score"].values.tolist() == ["epistemic", "total", "aleatoric"]
    for task in ("mu", "kind"):
        for score in data["score"].values:
            inside = tree["test/uncertainty"][f"{score}_{task}"].values
            outside = tree["predictions_uncertainty"][f"{score}_{task}"].values
            cell = data.sel(task=task, score=score)
            found = detection_of_scores(inside, outside)
            low, high = detection_intervals(inside, outside, resamples=200)
            for name in Detection._fields:
                assert float(cell[name]) == getattr(found, name)
                assert float(cell[f"{name}_low"]) == getattr(low, name)
                assert float(cell[f"{name}_high"]) == getattr(high, name)
    assert float(data["auroc"].sel(task="mu", score="aleatoric")) == 0.5  # constant, as in the text's appendix
    assert float(data["auroc"].sel(task="mu", score="epistemic")) > 0.9
    assert (data["rows_in"] == 60).all()
    assert (data["rows_out"] == 40).all()


def test_a_classification_is_scored_by_entropy_and_mutual_information(ood_tree):
    tree = ood_tree()
    inside, _ = uncertainties(tree, "kind", "total")
    np.testing.assert_allclose(inside, entropy_of_probabilities(tree["test/probability/y_kind"].values))
    information, _ = uncertainties(tree, "kind")
    aleatoric, _ = uncertainties(tree, "kind", "aleatoric")
    np.testing.assert_allclose(inside, information + aleatoric)
    assert (information >= 0).all()


def test_a_target_that_was_not_predicted_has_no_score(ood_tree):
    tree = ood_tree(predictions={"mu": unlabelled(np.ones(4), np.ones(4))})
    data = detection(tree, scores=["epistemic"], resamples=10)
    assert np.isnan(data["auroc"].sel(task="kind")).all()
    assert np.isfinite(data["auroc"].sel(task="mu")).all()
    assert data["rows_out"].values.tolist() == [4, 0]


def test_labelled_rows_from_elsewhere_count_where_there_are_no_others():
    random = np.random.default_rng(0)
    inside, outside = random.gamma(2, size=30), 4 + random.gamma(2, size=20)
    tree = trees.tree(
        observed={"a": np.zeros(30)},
        aleatoric={"a": np.ones(30)},
        epistemic={"a": inside},
        below={"ood": trees.predicted({"a": np.zeros(20)}, aleatoric={"a": np.ones(20)}, epistemic={"a": outside})},
    )
    found = detection(tree, scores=["epistemic"], resamples=10)
    assert found["auroc"].item() == detection_of_scores(inside, outside).auroc
    both = trees.tree(
        observed={"a": np.zeros(30)},
        aleatoric={"a": np.ones(30)},
        epistemic={"a": inside},
        below={"ood": trees.predicted({"a": np.zeros(20)}, aleatoric={"a": np.ones(20)}, epistemic={"a": outside})},
        predictions={"a": unlabelled(np.ones(7), inside[:7])},
    )
    assert detection(both, scores=["epistemic"], resamples=10)["rows_out"].item() == 7


def test_trees_without_the_groups_and_unknown_names_are_refused(ood_tree, make_tree):
    with pytest.raises(ValueError, match="no group 'predictions_uncertainty'"):
        detection(make_tree())
    with pytest.raises(ValueError, match="no group 'uncertainty'"):
        detection(make_tree(predictions={"mu": unlabelled(np.ones(4), np.ones(4))}))
    with pytest.raises(ValueError, match="There is no target 'gone'"):
        uncertainties(ood_tree(), "gone")
    with pytest.raises(ValueError, match="expected one of"):
        detection(ood_tree(), scores=["variance"])
