import inspect
import subprocess
import sys
import unicodedata
import warnings
from datetime import UTC, datetime

import arviz_base
import arviz_stats
import numpy as np
import pytest

from bmtl.evaluation import results
from bmtl.evaluation.results import PredictedRows, ReportedTarget, to_datatree
from bmtl.targets import Binary, Classes, Law, Prediction, Real, Scaler

REAL = {"mu": ReportedTarget(Real(), "D", Scaler(np.array(1.0), np.array(2.0)))}


def rows(count=8, draws=4, **fields):
    labels = fields.pop("labels", np.arange(count, dtype=float))
    return PredictedRows(Prediction(np.zeros((draws, count)), **fields), labels=labels)


def test_groups_and_dimensions(make_tree):
    tree = make_tree()
    assert set(tree.children) == {"posterior", "constant_data", "training", "test"}
    assert set(tree["test"].children) == {
        "posterior_predictive",
        "log_likelihood",
        "observed_data",
        "predictive_mean",
        "pit",
    }
    assert tree["posterior/noise"].dims == ("chain", "draw", "target")
    assert tree["test/posterior_predictive/y_mu"].dims == ("chain", "draw", "obs_mu")
    assert tree["test/log_likelihood/y_mu"].shape == (1, 20, 60)
    assert tree["test/predictive_mean/y_cv"].dims == ("obs_cv",)
    assert tree["constant_data/target_scale"].sel(target="homo") == 600
    assert tree["constant_data/unit"].sel(target="mu") == "D"
    assert tree["training/cosine"].dims == ("step", "task", "task_bis")
    assert tree["test"].attrs == {"part": "test"}


def test_few_arguments():
    assert len(inspect.signature(to_datatree).parameters) <= 10


def test_the_training_rows_are_at_the_root():
    tree = to_datatree({"train": {"mu": rows(8)}, "test": {"mu": rows(3)}}, REAL)
    assert set(tree.children) == {"observed_data", "posterior_predictive", "constant_data", "test"}
    assert tree["observed_data/y_mu"].size == 8
    assert tree["test/observed_data/y_mu"].size == 3


def test_attributes_say_what_was_run_and_come_back(make_tree):
    tree = make_tree(seed=7, attributes={"select": None, "odd\0": "a\0b", "half": "\ud800"})
    about = results.decode_attributes(tree)
    assert about["configuration"] == {"lr": 1e-3, "patience": None, "flags": [True, False]}
    assert (about["seed"], about["method"], about["data_fingerprint"]) == (7, "ew", "9f2c")
    assert about["task_names"] == ["mu", "homo", "cv"]
    assert about["package_versions"]["numpy"] == np.__version__
    assert about["select"] is None
    assert (about["odd\0"], about["half"]) == ("a\0b", "\ud800")
    age = datetime.now(UTC) - datetime.fromisoformat(about["created"])
    assert 0 <= age.total_seconds() < 600
    assert all(type(value) in (str, int, float) for value in tree.attrs.values())


def test_missing_labels_leave_every_group(make_tree, run_arrays):
    y = run_arrays()["observed"]
    y["homo"][:20] = np.nan
    tree = make_tree(observed=y)["test"]
    for group in ("posterior_predictive", "log_likelihood", "observed_data", "predictive_mean", "pit"):
        assert tree[group]["y_homo"].sizes["obs_homo"] == 40
        assert tree[group]["y_mu"].sizes["obs_mu"] == 60
    assert tree["observed_data/obs_homo"].values[0] == 20


def test_a_row_coordinate_has_no_index_and_gets_one_where_it_is_asked_for(make_tree):
    observed = make_tree()["test/observed_data"].to_dataset()
    assert not observed.xindexes
    assert observed.set_xindex("obs_mu").sel(obs_mu=17)["y_mu"] == observed["y_mu"].values[17]


def test_classes_have_probabilities_and_entropies():
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(3), size=8)
    labels = np.array([0, 1, 2, -1, 0, 1, 2, 0])
    law = Law("student-t", {name: np.ones((4, 8)) for name in ("loc", "scale", "df")})
    tree = to_datatree(
        {
            "test": {
                "kind": rows(labels=labels, probability=p, aleatoric=np.ones(8), epistemic=np.zeros(8)),
                "mu": rows(mean=np.zeros(8), law=law, aleatoric=np.ones(8), epistemic=np.ones(8)),
            }
        },
        {"kind": ReportedTarget(Classes(("cat", "dog", "bird"))), **REAL},
        sample_stats={"lp": np.zeros(4), "log_q": np.ones(4)},
    )
    test, seen = tree["test"], labels != -1
    np.testing.assert_array_equal(test["probability/y_kind"], p[seen])
    assert test["probability/class_kind"].values.tolist() == ["cat", "dog", "bird"]
    assert test["observed_data/y_kind"].dtype.kind == "i"
    assert test["predictive_distribution/df_mu"].dims == ("component", "obs_mu")
    np.testing.assert_array_equal(test["uncertainty/total_mu"], np.full(8, 2.0))
    assert tree["sample_stats/lp"].dims == ("chain", "draw")
    assert "y_mu" not in test["probability"]
    assert tree["constant_data/target_scale"].sel(target="kind") == 1


def test_chains_divergences_and_energies_are_kept():
    draws = np.arange(12.0)
    tree = to_datatree(
        {"train": {"mu": rows(draws=12, log_likelihood=np.zeros((12, 8)))}},
        REAL,
        posterior={"w": draws},
        sample_stats={"diverging": draws > 9, "energy": draws},
        chains=4,
    )
    assert tree["posterior/w"].sizes == {"chain": 4, "draw": 3}
    assert tree["posterior/w"].sel(chain=1).values.tolist() == [3, 4, 5]
    assert tree["sample_stats/diverging"].values.tolist()[-1] == [False, True, True]
    assert tree["posterior_predictive/y_mu"].sizes == {"chain": 4, "draw": 3, "obs_mu": 8}
    assert tree["log_likelihood/y_mu"].sizes["chain"] == 4


def test_a_point_mass_model_has_no_posterior(make_tree):
    assert "posterior" not in make_tree(posterior=None, coords=None, dims=None).children


def test_draws_may_be_more_in_one_group_than_in_another(make_tree, run_arrays):
    given = run_arrays()
    tree = make_tree(log_likelihood={name: values[:1] for name, values in given["log_likelihood"].items()})
    assert (tree["test/log_likelihood"].sizes["draw"], tree["test/posterior_predictive"].sizes["draw"]) == (1, 20)


def test_task_names_may_hold_a_slash_where_targets_may_not():
    tree = to_datatree(
        {"test": {"affinity": rows()}},
        {"affinity": ReportedTarget(Real())},
        tasks=["affinity/nll", "affinity/mse"],
        training={"losses": np.ones((4, 2))},
    )
    assert tree["training"]["task"].values.tolist() == ["affinity/nll", "affinity/mse"]
    with pytest.raises(ValueError, match="without a slash"):
        to_datatree({}, {"affinity/nll": ReportedTarget(Real())})


@pytest.mark.parametrize(
    "name",
    [unicodedata.normalize("NFD", "café"), "IC50 ", "\N{ANGSTROM SIGN}", "-beta", "=1+1", "y_", "obs_mu", "a.b c"],
)
def test_a_name_is_stored_or_refused_when_it_is_given(tmp_path, name):
    target = {name: ReportedTarget(Real())}
    tree = to_datatree(
        {"test": {name: rows()}}, target, training={"losses": np.ones((3, 1))}, posterior={name: np.ones(4)}
    )
    path = results.write(tree, tmp_path / "results.nc")
    stored = unicodedata.normalize("NFC", name).strip()
    found = results.read(path)
    assert found.identical(tree)
    assert f"y_{stored}" in found["test/observed_data"]
    assert found["training/task"].values.tolist() == [stored]


@pytest.mark.parametrize("name", ["a\0", "a\x1b", "", "  ", "x" * 300, "a/b", "a\N{ZERO WIDTH SPACE}"])
def test_a_name_that_no_file_could_hold_is_refused_when_it_is_given(name):
    with pytest.raises(ValueError, match="name.*target|target needs a non-empty name"):
        to_datatree({"test": {name: rows()}}, {name: ReportedTarget(Real())})


def test_names_of_classes_need_not_be_names_of_variables(tmp_path):
    names = ("<1/2", "a\0b", "é" * 300, "\ud800", "")
    given = {"kind": rows(5, labels=np.arange(5), probability=np.full((5, 5), 0.2))}
    tree = to_datatree({"test": given}, {"kind": ReportedTarget(Classes(names))})
    found = results.read(results.write(tree, tmp_path / "results.nc"))
    assert found.identical(tree)
    stored = found["test/probability/class_kind"].values.tolist()
    assert stored[0] == names[0]
    assert stored[1:3] == ["a\N{REPLACEMENT CHARACTER}b", names[2]]


def test_an_interrupted_run_keeps_its_training_alone():
    tree = to_datatree({}, {}, training={"losses": np.ones((4, 1))}, tasks=["a"], attributes={"method": "ew"})
    assert list(tree.children) == ["training"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tset": {"mu": rows()}}, "no part 'tset'; expected train, test, validation, ood, predictions"),
        ({"test": {"nu": rows()}}, r"part 'test' has a target 'nu', and targets has \['mu'\]"),
        ({"test": {"mu": rows(pit=np.zeros(7))}}, r"'mu' of the part 'test': pit has shape \(7,\); expected \(8,\)"),
        ({"ood": {"mu": rows(mean=np.zeros((8, 1)))}}, r"of the part 'ood': mean has shape \(8, 1\)"),
        ({"test": {"mu": rows(log_likelihood=np.zeros(8))}}, r"log_likelihood has shape \(8,\); expected \(draws, 8\)"),
        ({"test": {"mu": rows(labels=np.zeros(9))}}, r"draws has shape \(4, 8\); expected \(draws, 9\)"),
        ({"test": {"mu": rows(law=Law("student-t", {"loc": np.zeros((4, 7))}))}}, r"the law's loc has shape \(4, 7\)"),
        ({"test": {"mu": rows(labels=np.full(8, np.inf))}}, "Labels are finite, and row 0 of target 'mu' holds inf"),
        ({"test": {"mu": PredictedRows(Prediction(np.zeros((4, 8))))}}, "has no labels; rows without any belong to"),
        ({"test": {"mu": PredictedRows(Prediction(np.zeros((4, 8))), np.zeros(8), np.arange(7))}}, "rows has shape"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        to_datatree(given, REAL)


def test_targets_of_one_group_are_drawn_alike():
    targets = {"a": ReportedTarget(Real()), "b": ReportedTarget(Real())}
    with pytest.raises(ValueError, match="test: posterior_predictive has 4 draws of y_a and 5 of y_b"):
        to_datatree({"test": {"a": rows(draws=4), "b": rows(draws=5)}}, targets)
    with pytest.raises(ValueError, match="of 3 chains of equal length"):
        to_datatree({"test": {"a": rows(draws=4)}}, targets, chains=3)
    with pytest.raises(ValueError, match="chains is 0"):
        to_datatree({}, {}, chains=0)


def test_probabilities_are_of_the_familys_classes():
    with pytest.raises(ValueError, match=r"probability has shape \(8, 3\); expected \(8, 2\)"):
        to_datatree(
            {"test": {"ill": rows(labels=np.zeros(8, dtype=int), probability=np.full((8, 3), 1 / 3))}},
            {"ill": ReportedTarget(Binary())},
        )


def test_a_target_has_the_primary_score_of_its_family():
    with pytest.raises(ValueError, match="A target of the family 'real' has no score 'auroc'"):
        ReportedTarget(Real(), primary="auroc")


def test_a_task_name_that_repeats_is_refused():
    with pytest.raises(ValueError, match="'a' is given more than once"):
        to_datatree({}, {}, tasks=["a", "a"])
    with pytest.raises(ValueError, match=r"training\['losses'\] has shape \(4, 3\)"):
        to_datatree({}, {}, tasks=["a", "b"], training={"losses": np.ones((4, 3))})


@pytest.fixture
def saved(tmp_path):
    """A run with training rows, saved: two targets, four chains."""
    random = np.random.default_rng(0)

    def given(count, target):
        log_likelihood = -1 + 0.1 * random.normal(size=(400, count))
        return PredictedRows(
            Prediction(random.normal(size=(400, count)), log_likelihood=log_likelihood), random.normal(size=count)
        )

    both = {name: ReportedTarget(Real()) for name in ("mu", "homo")}
    tree = to_datatree(
        {"train": {name: given(30, name) for name in both}, "test": {name: given(11, name) for name in both}},
        both,
        posterior={"w": random.normal(size=(400, 2)), "noise": random.normal(size=400)},
        sample_stats={"lp": random.normal(size=400), "diverging": np.zeros(400, dtype=bool)},
        chains=4,
    )
    return results.write(tree, tmp_path / "results.nc")


def test_arviz_takes_a_saved_run_by_a_line_each(saved, monkeypatch):
    """The lines that the module documents, on whichever of ArviZ's lines is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0.23 announces what 1.x will change
        az = pytest.importorskip("arviz")
        monkeypatch.setenv("MPLBACKEND", "Agg")
        tree = results.read(saved)
        old = hasattr(az, "from_datatree")
        data = az.from_datatree(tree) if old else tree
        summary = az.summary(data)
        assert list(summary.index) == ["w[0]", "w[1]", "noise"]
        assert (summary["r_hat"].astype(float) < 1.1).all()
        az.plot_trace(data)
        found = az.loo(data, var_name="y_mu")
        assert found.n_data_points == 30  # the training rows, not the eleven test rows
        if old:
            az.plot_ppc(data, var_names=["y_mu"])
            az.plot_ppc(az.from_datatree(tree["test"]), var_names=["y_mu"])
        else:
            az.plot_ppc_dist(data, var_names=["y_mu"])
            az.plot_ppc_dist(tree["test"], var_names=["y_mu"])
    from matplotlib import pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("of", ["the run", "its test rows"])
def test_arviz_loo_never_speaks_of_test_rows(saved, of):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        az = pytest.importorskip("arviz")
        tree = results.read(saved)
        for name in ("observed_data", "log_likelihood", "posterior_predictive"):
            del tree[name]
        data = tree if of == "the run" else tree["test"]
        with pytest.raises(Exception, match="log likelihood not found|posterior"):
            az.loo(az.from_datatree(data) if hasattr(az, "from_datatree") else data, var_name="y_mu")


def test_arviz_base_and_stats_take_a_tree_as_it_is(saved):
    tree = results.read(saved)
    assert arviz_base.extract(tree, group="posterior", var_names=["noise"]).sizes["sample"] == 400
    assert np.isfinite(arviz_stats.loo(tree, var_name="y_mu").elpd)


def test_the_package_needs_none_of_the_training_libraries():
    code = (
        "import sys\n"
        "from bmtl.evaluation import comparison, metrics, plots, results, tables\n"
        "others = {'bmtl.models', 'bmtl.inference', 'bmtl.tasks', 'bmtl.datasets'}\n"
        "loaded = ({'torch', 'pyro', 'lightning', 'arviz'} | others) & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_writing_results_does_not_load_a_plotting_library():
    code = "import sys\nfrom bmtl.evaluation import results\nassert 'matplotlib' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code], check=True)
