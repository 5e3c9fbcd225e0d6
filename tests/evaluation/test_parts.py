import numpy as np
import pytest
import xarray as xr

from bmtl.evaluation.parts import group, part_of, part_targets, parts_of, reported_targets, scored
from bmtl.evaluation.results import PredictedRows, ReportedTarget, read, to_datatree, write
from bmtl.targets import (
    Binary,
    Classes,
    Count,
    Law,
    Ordinal,
    Pixels,
    Prediction,
    Real,
    Scaler,
    TimeToEvent,
    Vector,
)

S, N = 6, 5
RANDOM = np.random.default_rng(0)


def positive(*shape):
    return RANDOM.uniform(0.5, 2, size=shape)


def shares(*shape):
    values = positive(*shape)
    return values / values.sum(axis=-1, keepdims=True)


def student(df_shape=(S, N)):
    return Law("student-t", {"loc": positive(S, N), "scale": positive(S, N), "df": np.full(df_shape, 4.0)})


# Every family with labels, one of them missing, and all that a model could say of them.
EVERY = {
    "plain": (
        Real(),
        np.array([0.5, np.nan, 1, 2, 3]),
        {"law": student((1, 1)), "mean": positive(N), "pit": shares(N)},
    ),
    "cut": (
        Real(censored=True),
        np.array([[1, 1], [2, np.inf], [np.nan, np.nan], [-np.inf, 0], [1, 2]]),
        {"law": student((1, N)), "mean": positive(N)},
    ),
    "kind": (Classes(("cat", "dog", "cow")), np.array([0, -1, 2, 1, 0]), {"probability": shares(N, 3)}),
    "ill": (Binary(("no", "yes")), np.array([0, 1, -1, 1, 0]), {"probability": shares(N, 2)}),
    "grade": (Ordinal(("low", "mid", "high")), np.array([0, 1, 2, -1, 1]), {"probability": shares(N, 3)}),
    "visits": (Count(), np.array([0, 3, np.nan, 1, 12]), {"law": Law("poisson", {"rate": positive(S, N)})}),
    "scale_tril": (  # a target whose name is that of a parameter
        Count(),
        np.array([0, 3, 1, 1, 12.0]),
        {"law": Law("negative-binomial", {"mean": positive(S, N), "concentration": positive(S, 1)})},
    ),
    "days": (
        TimeToEvent(),
        np.array([[1, 1], [2, np.inf], [np.nan, np.nan], [0, 3], [1, 2]]),
        {"law": Law("weibull", {"scale": positive(S, N), "concentration": positive(S, 1)})},
    ),
    "force": (
        Vector(("x", "y")),
        np.array([[1, 2], [np.nan, 1], [np.nan, np.nan], [0, 3], [1, 2]]),
        {
            "mean": positive(N, 2),
            "law": Law("multivariate-normal", {"loc": positive(S, N, 2), "scale_tril": positive(S, 1, 2, 2)}),
        },
    ),
    "depth": (Pixels(), RANDOM.normal(size=(N, 2, 3)), {"mean": positive(N, 2, 3)}),
}
SCALERS = {"plain": Scaler(np.array(3.0), np.array(2.0)), "force": Scaler(np.array([1.0, 2]), np.array([3.0, 4]))}


def tail(name):
    return {"force": (2,), "depth": (2, 3)}.get(name, ())


def every_family():
    targets = {
        name: ReportedTarget(family, "m", SCALERS.get(name, Scaler.identity()))
        for name, (family, _, _) in EVERY.items()
    }
    rows = {}
    for name, (_, labels, fields) in EVERY.items():
        prediction = Prediction(
            positive(S, N, *tail(name)),
            log_likelihood=positive(S, N),
            aleatoric=positive(N),
            epistemic=positive(N),
            **fields,
        )
        rows[name] = PredictedRows(prediction, labels=labels, rows=np.arange(N) + 100)
    return rows, targets


@pytest.mark.parametrize("chains", [1, 3])
@pytest.mark.parametrize("through_file", [False, True])
def test_every_family_comes_back_as_it_was_given(tmp_path, through_file, chains):
    rows, targets = every_family()
    tree = to_datatree({"test": rows}, targets, chains=chains)
    if through_file:
        tree = read(write(tree, tmp_path / "results.nc"))
    found = scored(tree)
    assert list(found) == list(EVERY)
    for name, (family, labels, _) in EVERY.items():
        kept = ~family.missing(family.check(name, labels, N))
        given, back = rows[name].prediction.take(kept), found[name].prediction
        assert found[name].family == family
        np.testing.assert_array_equal(found[name].labels, family.check(name, labels, N)[kept])
        np.testing.assert_array_equal(group(tree, "observed_data")[f"obs_{name}"].values, np.arange(N)[kept] + 100)
        for field in ("draws", "mean", "probability", "aleatoric", "epistemic", "log_likelihood", "pit"):
            np.testing.assert_array_equal(getattr(back, field), getattr(given, field), err_msg=f"{name} {field}")
        if given.law is None:
            assert back.law is None
            continue
        assert back.law.name == given.law.name
        for parameter, values in given.law.full().parameters.items():
            np.testing.assert_array_equal(back.law.full().parameters[parameter], values, err_msg=f"{name} {parameter}")
    for name, target in reported_targets(tree).items():
        np.testing.assert_array_equal(target.scaler.mean, targets[name].scaler.mean)
        np.testing.assert_array_equal(target.scaler.std, targets[name].scaler.std)
        assert target.unit == "m"


def test_a_parameter_that_is_the_same_everywhere_is_stored_once():
    rows, targets = every_family()
    tree = to_datatree({"test": rows}, targets)
    laws = tree["test/predictive_distribution"]
    assert laws["df_plain"].dims == ()
    assert laws["df_cut"].dims == ("obs_cut",)
    assert laws["concentration_days"].dims == ("component",)
    assert laws["scale_tril_force"].dims[0] == "component"
    assert laws["rate_visits"].attrs["law"] == "poisson"


def test_parts_are_found_by_name_and_by_node(make_tree, run_arrays):
    tree = make_tree(below={"validation": make_part(run_arrays(seed=1)), "train": make_part(run_arrays(seed=2))})
    assert parts_of(tree) == ["train", "test", "validation"]
    assert part_of(tree) is tree["test"]
    assert part_of(tree["validation"]) is tree["validation"]
    assert part_of(tree["validation"], "test") is tree["test"]
    assert part_of(tree, "train") is tree
    labels = {name: scored(tree, name)["mu"].labels for name in ("train", "test", "validation")}
    assert not np.array_equal(labels["train"], labels["test"])
    np.testing.assert_array_equal(scored(tree["validation"])["mu"].labels, labels["validation"])
    assert part_targets(tree) == ["mu", "homo", "cv"]
    assert "losses" in group(tree["validation"], "training")


def make_part(given):
    return {
        name: PredictedRows(Prediction(given["predictive"][name]), labels=given["observed"][name])
        for name in given["observed"]
    }


def test_training_rows_are_never_taken_for_test_rows(run_arrays):
    tree = to_datatree({"train": make_part(run_arrays())}, dict.fromkeys(("mu", "homo", "cv"), ReportedTarget(Real())))
    with pytest.raises(ValueError, match=r"no rows of the part 'test'; it has \['train'\]"):
        scored(tree)
    assert len(scored(tree, "train")["mu"].labels) == 60


def test_what_is_not_there_is_named(make_tree):
    tree = make_tree()
    with pytest.raises(ValueError, match=r"no rows of the part 'ood'; it has \['test'\]"):
        part_of(tree, "ood")
    with pytest.raises(ValueError, match="There is no part 'tset'"):
        part_of(tree, "tset")
    with pytest.raises(ValueError, match="part 'test' of the results tree has no group 'probability'"):
        group(tree, "probability")
    with pytest.raises(ValueError, match="The results tree has no group 'validation_scores'"):
        group(tree, "validation_scores")
    with pytest.raises(ValueError, match="no rows of the part 'test'; it has no part"):
        scored(xr.DataTree())


def test_a_part_out_of_its_tree_says_that_it_does_not_know_its_targets(make_tree):
    alone = make_tree()["test"].copy()
    with pytest.raises(ValueError, match="no group 'constant_data'"):
        scored(alone)


def test_targets_whose_names_meet_in_a_variable_keep_their_own_laws(tmp_path):
    """ "scale_tril" of "x" and "scale" of "tril_x" have one name: the second took the place of the first."""
    factor = np.array([[[[1.0, 0.0], [0.5, 2.0]]]])
    laws = {
        "x": Law("multivariate-normal", {"loc": np.zeros((1, 4, 2)), "scale_tril": factor}),
        "tril_x": Law(
            "student-t", {"loc": np.zeros((1, 4)), "scale": np.full((1, 4), 3.0), "df": np.full((1, 1), np.inf)}
        ),
    }
    rows = {
        "x": PredictedRows(Prediction(np.empty((0, 4, 2)), law=laws["x"]), np.zeros((4, 2))),
        "tril_x": PredictedRows(Prediction(np.empty((0, 4)), law=laws["tril_x"]), np.zeros(4)),
    }
    targets = {"x": ReportedTarget(Vector(("a", "b"))), "tril_x": ReportedTarget(Real())}
    write(to_datatree({"test": rows}, targets), tmp_path / "results.nc")
    found = scored(read(tmp_path / "results.nc"))
    np.testing.assert_array_equal(found["x"].prediction.law.parameters["scale_tril"][0, 0], factor[0, 0])
    np.testing.assert_array_equal(found["tril_x"].prediction.law.parameters["scale"][0], np.full(4, 3.0))
