import numpy as np
import pytest

from bmtl.evaluation.comparison import compare
from bmtl.evaluation.parts import reported_targets, scored
from bmtl.evaluation.scores import computed, known_score, primary_names, primary_scores, scores_of
from bmtl.targets import FAMILIES, Binary, Count, Real
from tests.evaluation import trees


def test_scores_of_families_by_name():
    found = scores_of([Real(), Binary(), Count()])
    assert list(found)[:3] == ["mae", "rmse", "r2"]
    assert {"auroc", "deviance"} <= found.keys()
    assert found["nll"] is Real().score("nll")  # of a shared name the first family's
    for family in FAMILIES.values():
        for score in family().scores:
            assert known_score(score.name).symbol == score.symbol
    with pytest.raises(ValueError, match="No family of targets has a score 'f1'"):
        known_score("f1")


def test_every_score_is_computed_where_it_can_be(mixed_grid, make_tree):
    for tree in (mixed_grid["stl", 0], make_tree()):
        targets = reported_targets(tree)
        for name, rows in scored(tree).items():
            family = targets[name].family
            found, failed = computed(rows, family)
            assert failed == {}
            assert found.keys() <= {score.name for score in family.scores}
            for score in family.scores:
                assert (score.name in found) == score.computable(rows)
                if score.name in found:
                    assert found[score.name] == score.compute(rows)


def test_scores_need_their_fields(make_tree):
    def names(**options):
        rows = scored(make_tree(**options))["mu"]
        return list(computed(rows, Real())[0])

    assert names() == ["mae", "rmse", "r2", "nll", "ece", "crps", "ence"]
    assert names(pit=None) == ["mae", "rmse", "r2", "nll", "crps", "ence"]
    assert names(predictive=None) == ["mae", "rmse", "r2", "nll", "ece"]
    assert names(predictive_mean=None, log_likelihood=None) == ["ece", "crps", "ence"]


def test_a_score_that_cannot_be_computed_is_named():
    tree = trees.tree(
        observed={"a": np.zeros(3)},
        distribution={"a": {"loc": np.zeros((2, 3)), "scale": np.ones((2, 3)), "df": np.full((2, 3), 0.9)}},
    )
    found, failed = computed(scored(tree)["a"], Real())
    assert failed.keys() == {"crps"}
    assert "The CRPS needs degrees of freedom" in failed["crps"]
    assert np.isnan(found["crps"])


def test_the_primary_scores_of_targets_and_those_asked_for():
    tree = trees.tree(
        observed={"a": np.zeros(3), "k": np.array([0, 1, 1])},
        probability={"k": np.full((3, 2), 0.5)},
        families={"k": Binary()},
        primary={"k": "auroc"},
    )
    targets = reported_targets(tree)
    assert primary_names(targets) == {"a": "mae", "k": "auroc"}
    assert primary_names(targets, "accuracy") == {"a": "mae", "k": "accuracy"}
    assert primary_names(targets, "nll") == {"a": "nll", "k": "nll"}
    assert primary_names(targets, {"a": "crps"}) == {"a": "crps", "k": "auroc"}
    with pytest.raises(ValueError, match="None of the targets has a score 'rps'; their scores are mae"):
        primary_names(targets, "rps")
    with pytest.raises(ValueError, match="no target 'b' to be judged"):
        primary_names(targets, {"b": "mae"})
    with pytest.raises(ValueError, match="'k' has no score 'mae'; its scores are accuracy"):
        primary_names(targets, {"k": "mae"})


def test_primary_scores_of_a_comparison(mixed_grid):
    data = compare(mixed_grid, reference=None)
    picked, higher = primary_scores(data)
    assert picked.dims == ("learner", "split", "task")
    assert higher.values.tolist() == [False, True]
    assert (picked.sel(task="mu") == data["score"].sel(task="mu", metric="mae")).all()
    assert (picked.sel(task="kind") == data["score"].sel(task="kind", metric="accuracy")).all()
    assert picked.sel(learner="stl").dims == ("split", "task")
