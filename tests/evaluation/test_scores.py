from bmtl.evaluation.comparison import compare
from bmtl.evaluation.scores import SCORES, computable, kinds_of, primary, primary_scores, symbol


def test_the_table_of_scores_holds_together():
    assert len({(score.name, score.kind) for score in SCORES}) == len(SCORES)
    for kind in ("regression", "classification"):
        assert sum(score.primary for score in SCORES if score.kind == kind) == 1
    for score in SCORES:  # a name has one coordinate in a comparison, whatever the kind
        same = [other for other in SCORES if other.name == score.name]
        assert {other.higher_is_better for other in same} == {score.higher_is_better}
        assert {other.symbol for other in same} == {score.symbol}
        assert symbol(score.name) == score.symbol
    assert (primary("regression").name, primary("classification").name) == ("mae", "accuracy")


def test_every_score_is_computed_where_it_is_computable(mixed_grid, make_tree):
    for tree in (mixed_grid["stl", 0], make_tree()):
        kinds = kinds_of(tree)
        for score in computable(tree):
            found = score.compute(tree)
            assert found.dims == ("task",)
            for task, kind in kinds.items():
                assert bool(found.sel(task=task).notnull()) == (kind == score.kind), (score.name, task)


def test_scores_need_their_groups_and_a_target_of_their_kind(make_tree):
    def names(**options):
        return [score.name for score in computable(make_tree(**options))]

    assert names() == ["mae", "rmse", "r2", "nll", "ece", "crps"]
    assert names(pit=None) == ["mae", "rmse", "r2", "nll", "crps"]
    assert names(predictive=None) == ["mae", "rmse", "r2", "nll", "ece"]
    assert names(predictive_mean=None, log_likelihood=None) == ["ece", "crps"]


def test_primary_scores_of_a_comparison(mixed_grid):
    data = compare(mixed_grid, reference=None)
    picked, higher = primary_scores(data)
    assert picked.dims == ("method", "split", "task")
    assert higher.values.tolist() == [False, True]
    assert (picked.sel(task="mu") == data["score"].sel(task="mu", metric="mae")).all()
    assert (picked.sel(task="kind") == data["score"].sel(task="kind", metric="accuracy")).all()
    assert kinds_of(mixed_grid["stl", 0]) == {"mu": "regression", "kind": "classification"}
