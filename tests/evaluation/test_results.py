import subprocess
import sys
from datetime import UTC, datetime

import arviz_base
import arviz_stats
import numpy as np
import pytest

from bmtl.evaluation import results


def test_groups_and_dimensions(make_tree):
    tree = make_tree()
    assert set(tree.children) == {
        "posterior",
        "posterior_predictive",
        "log_likelihood",
        "observed_data",
        "predictive_mean",
        "pit",
        "constant_data",
        "training",
    }
    assert tree["posterior/noise"].dims == ("chain", "draw", "target")
    assert tree["posterior_predictive/y_mu"].dims == ("chain", "draw", "obs_mu")
    assert tree["log_likelihood/y_mu"].shape == (1, 20, 60)
    assert tree["predictive_mean/y_cv"].dims == ("obs_cv",)
    assert tree["constant_data/target_scale"].sel(target="homo") == 600
    assert tree["constant_data/unit"].sel(target="mu") == "D"
    assert tree["training/cosine"].dims == ("step", "task", "task_bis")


def test_attributes_say_what_was_run_and_come_back(make_tree):
    tree = make_tree(seed=7, attributes={"select": None})
    about = results.decode_attributes(tree)
    assert about["configuration"] == {"lr": 1e-3, "patience": None, "flags": [True, False]}
    assert (about["seed"], about["method"], about["data_fingerprint"]) == (7, "ew", "9f2c")
    assert about["task_names"] == ["mu", "homo", "cv"]
    assert about["package_versions"]["numpy"] == np.__version__
    assert about["select"] is None
    age = datetime.now(UTC) - datetime.fromisoformat(about["created"])
    assert 0 <= age.total_seconds() < 600
    assert all(type(value) in (str, int, float) for value in tree.attrs.values())


def test_missing_labels_leave_every_group(make_tree, run_arrays):
    y = run_arrays()["observed"]
    y["homo"][:20] = np.nan
    tree = make_tree(observed=y)
    for group in ("posterior_predictive", "log_likelihood", "observed_data", "predictive_mean", "pit"):
        assert tree[group]["y_homo"].sizes["obs_homo"] == 40
        assert tree[group]["y_mu"].sizes["obs_mu"] == 60
        assert tree[group]["obs_homo"].values[0] == 20


def test_a_classification_has_probabilities_and_entropies():
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(3), size=8)
    labels = np.array([0, 1, 2, -1, 0, 1, 2, 0])
    tree = results.to_datatree(
        observed={"kind": labels, "size": random.normal(size=8)},
        probability={"kind": p},
        predictive_mean={"size": np.zeros(8)},
        distribution={"size": {name: np.ones((4, 8)) for name in ("loc", "scale", "df")}},
        aleatoric={"kind": np.ones(8), "size": np.ones(8)},
        epistemic={"kind": np.zeros(8), "size": np.ones(8)},
        classes={"kind": ["cat", "dog", "bird"]},
        target_scale={"size": 2.0},
        sample_stats={"lp": np.zeros(4), "log_q": np.ones(4)},
        predictions={"size": np.zeros((4, 5))},
        predictions_aleatoric={"size": np.ones(5)},
        predictions_epistemic={"size": np.full(5, 2.0)},
    )
    seen = labels != -1
    np.testing.assert_array_equal(tree["probability/y_kind"], p[seen])
    assert tree["probability/class_kind"].values.tolist() == ["cat", "dog", "bird"]
    assert tree["observed_data/y_kind"].dtype.kind == "i"
    assert tree["constant_data/kind"].values.tolist() == ["classification", "regression"]
    assert np.isnan(tree["constant_data/target_scale"].sel(target="kind"))
    assert tree["predictive_distribution/df_size"].dims == ("component", "obs_size")
    np.testing.assert_array_equal(tree["uncertainty/total_size"], np.full(8, 2.0))
    np.testing.assert_array_equal(tree["predictions_uncertainty/total_size"], np.full(5, 3.0))
    assert tree["predictions/y_size"].dims == ("chain", "draw", "row")
    assert tree["sample_stats/lp"].dims == ("chain", "draw")
    assert "y_size" not in tree["probability"]


def test_trees_of_other_rows_hang_below_and_come_back(make_tree, tmp_path):
    tree = make_tree()
    tree["validation"] = make_tree(training=None)
    found = results.read(results.write(tree, tmp_path / "results.nc"))
    assert found["validation"].children.keys() >= {"observed_data", "pit"}
    assert found.identical(tree)


def test_a_point_mass_model_has_no_posterior(make_tree):
    assert "posterior" not in make_tree(posterior=None, coords=None, dims=None).children


def test_draws_may_be_more_in_one_group_than_in_another(run_arrays):
    given = run_arrays()
    given["log_likelihood"] = {name: values[:1] for name, values in given["log_likelihood"].items()}
    tree = results.to_datatree(**given)
    assert (tree["log_likelihood"].sizes["draw"], tree["posterior_predictive"].sizes["draw"]) == (1, 20)


def test_task_names_may_hold_a_slash_where_targets_may_not():
    tree = results.to_datatree(
        observed={"affinity": np.zeros(3)},
        tasks=["affinity/nll", "affinity/mse"],
        training={"losses": np.ones((4, 2))},
    )
    assert tree["training"]["task"].values.tolist() == ["affinity/nll", "affinity/mse"]
    with pytest.raises(ValueError, match="must not hold a slash"):
        results.to_datatree(observed={"affinity/nll": np.zeros(3)})


def test_an_interrupted_run_keeps_its_training_alone():
    tree = results.to_datatree(training={"losses": np.ones((4, 1))}, tasks=["a"], method="ew")
    assert list(tree.children) == ["training"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["a", "a", "b"]}, "'a' is given more than once"),
        ({"pit": {"nu": np.zeros(60)}}, "pit has a target 'nu' that observed has not"),
        ({"probability": {"mu": np.zeros(60)}}, r"probability\['mu'\] has shape \(60,\); expected \(60, C\)"),
        ({"probability": {"mu": np.full((60, 2), 0.5)}, "classes": {"mu": ["a"]}}, "has 1 names, and there are"),
        ({"distribution": {"mu": {"loc": np.zeros((2, 60))}}}, r"distribution\['mu'\] holds \['loc'\]"),
        ({"aleatoric": {"mu": np.zeros(60)}}, "epistemic has no target 'mu'"),
        ({"predictions": {"mu": np.zeros((2, 5)), "cv": np.zeros((2, 6))}}, "expected one"),
        ({"target_scale": {"mu": 1.0, "homo": 0.0, "cv": 1.0}}, r"target_scale\['homo'\] is 0.0"),
        ({"target_scale": {"mu": 1.0}}, "target_scale has no target"),
        ({"units": {"mw": "D"}}, "units has a target 'mw'"),
        ({"tasks": ["a", "b"]}, r"training\['losses'\] has shape \(30, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(make_tree, options, message):
    with pytest.raises(ValueError, match=message):
        make_tree(**options)


def test_arviz_takes_a_target_as_it_is(make_tree):
    tree = make_tree()
    assert arviz_base.extract(tree, group="posterior", var_names=["noise"]).sizes["sample"] == 20
    loo = arviz_stats.loo(make_tree(draws=400, error=1.0), var_name="y_mu")
    assert np.isfinite(loo.elpd)


def test_the_room_needs_none_of_the_training_libraries():
    code = (
        "import sys\n"
        "from bmtl.evaluation import comparison, metrics, plots, results, tables\n"
        "rooms = {'bmtl.models', 'bmtl.inference', 'bmtl.tasks', 'bmtl.datasets'}\n"
        "loaded = ({'torch', 'pyro', 'lightning', 'arviz'} | rooms) & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_writing_results_does_not_load_a_plotting_library():
    code = "import sys\nfrom bmtl.evaluation import results\nassert 'matplotlib' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code], check=True)
