import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from bmtl.datasets import MultiTaskData
from bmtl.experiments import load_fitted, run
from bmtl.experiments.model_files import SCHEMA
from bmtl.targets import Binary, Classes, Real
from tests.experiments.toys import BUDGET, EW, METHODS, STL, mixed, ragged, toy


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A mixed run in three ways, each with its tree and folder."""
    made = {}
    for method in (STL, METHODS["bayesian"], replace(EW, name="both", ensemble_size=2)):
        folder = tmp_path_factory.mktemp(method.name)
        made[method.name] = (run(mixed(), method, 3, BUDGET, folder, keep_model=True), folder)
    return made


def agree(tree, fitted, data, seed):
    """Predictions for the test rows are those of the run, up to the rows without a label, which the run leaves out."""
    rows = data.rows["test"]
    found = fitted.predict(data.inputs.x[rows], seed=seed)
    summary = found["predictions_summary"].to_dataset()
    for name in data.tasks:
        seen = tree[f"test/observed_data/obs_{name}"].values
        draws = found[f"predictions/y_{name}"].values[0][:, seen]
        np.testing.assert_allclose(draws, tree[f"test/posterior_predictive/y_{name}"].values[0], rtol=1e-6)
        for what in ("total", "aleatoric", "epistemic"):
            np.testing.assert_allclose(
                found[f"predictions_uncertainty/{what}_{name}"].values[seen],
                tree[f"test/uncertainty/{what}_{name}"],
                rtol=1e-5,
                atol=1e-9,
            )
        classes = data.targets[name].family.class_names
        if classes:
            p = np.stack([summary[f"{name} p({c})"].values[seen] for c in classes], axis=1)
            np.testing.assert_allclose(p, tree[f"test/probability/y_{name}"], rtol=1e-5)
            entropy = summary[f"{name} entropy"].values[seen]
            np.testing.assert_allclose(entropy, tree[f"test/uncertainty/total_{name}"], rtol=1e-5, atol=1e-9)
        else:
            mean = summary[f"{name} mean"].values[seen]
            np.testing.assert_allclose(mean, tree[f"test/predictive_mean/y_{name}"], rtol=1e-6)


@pytest.mark.parametrize("method", ["stl", "bayesian", "both"])
def test_predictions_are_those_of_the_run(kept, method):
    tree, folder = kept[method]
    fitted = load_fitted(folder)
    families = {name: target.family for name, target in fitted.targets.items()}
    assert families == {"length": Real(), "kind": Classes(("low", "mid", "high")), "sign": Binary()}
    agree(tree, fitted, mixed(), 3)


def test_numbers_far_from_the_training_rows_are_warned_of(kept, caplog):
    fitted, x = load_fitted(kept["stl"][1]), mixed().inputs.x
    fitted.table(x[mixed().rows["train"]], num_draws=2)
    assert not caplog.records
    far = x[:4].copy()
    far[0] += 1e3
    far[1, 0] -= 1e3
    fitted.table(far, num_draws=2)
    (record,) = caplog.records
    assert "2 of 4 numbers are far outside the training rows' " in record.message
    assert record.message.count("1 of 4 numbers are far") == min(2, x.shape[1] - 1)
    assert ("more column" in record.message) == (x.shape[1] > 3)


NEED_MORE = ("vmtl-ac", "mt-enet-censored", "student-t-censored")
"""Methods that need classes, or targets with bounds."""


@pytest.mark.parametrize("name", [name for name in METHODS if name not in NEED_MORE])
def test_every_method_can_be_kept(name, data, tmp_path):
    tree = run(data, METHODS[name], 1, replace(BUDGET, epochs=1), tmp_path, keep_model=True)
    agree(tree, load_fitted(tmp_path), data, 1)


def test_targets_trained_by_themselves_on_rows_of_their_own(tmp_path):
    tree = run(ragged(), STL, 0, BUDGET, tmp_path, keep_model=True)
    agree(tree, load_fitted(tmp_path), ragged(), 0)


def test_the_networks_share_is_kept_reported_and_may_be_left_at_one(data, tmp_path):
    for shrink in (True, False):
        tree = run(data, EW, 0, replace(BUDGET, lr=0.3, shrink=shrink), tmp_path, keep_model=True)
        ((model, _),) = load_fitted(tmp_path).parts[0]
        assert model.shares == pytest.approx(json.loads(tree.attrs["network_shares"]))
        assert (min(model.shares.values()) < 1) == shrink  # at a rate like this the network is worth little


def test_a_run_for_a_comparison_keeps_no_model(data, tmp_path):
    run(data, EW, 0, BUDGET, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"results.nc"}


def test_predictions_scale_with_the_units(tmp_path):
    """In millimetres all is a thousand times of what it is in metres."""
    data = toy()
    y = {"mass": data.targets["mass"].values, "length": data.targets["length"].values * 1000}
    tables = []
    for given, folder in ((data, "m"), (toy(y=y, units={"mass": "g", "length": "mm"}), "mm")):
        run(given, METHODS["bayesian"], 0, BUDGET, tmp_path / folder, keep_model=True)
        tables.append(load_fitted(tmp_path / folder).table(data.inputs.x[:5]))
    assert [name for name in tables[1] if name.startswith("length")] == [
        f"length {what} [mm]"
        for what in ("mean", "aleatoric sd", "epistemic sd", "5 %", "25 %", "50 %", "75 %", "95 %")
    ]
    for name in tables[0]:
        factor = 1000 if name.startswith("length") else 1
        np.testing.assert_allclose(tables[1][name.replace("[m]", "[mm]")], factor * tables[0][name], rtol=2e-3)


def test_quantiles_are_those_of_the_draws(kept):
    fitted = load_fitted(kept["bayesian"][1])
    tree = fitted.predict(mixed().inputs.x[:4], num_draws=400)
    draws = tree["predictions/y_length"].values[0]
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    exact = np.stack([tree[f"predictions_summary/length {100 * level:g} %"].values for level in levels])
    assert (np.diff(exact, axis=0) > 0).all()
    # Binomial: the share of 400 draws below a quantile is within 0.1 of its level at four standard deviations.
    below = (draws[None] < exact[:, None]).mean(axis=1)
    np.testing.assert_allclose(below, np.broadcast_to(levels[:, None], below.shape), atol=0.1)


def test_the_table_of_a_classification_names_its_classes(kept):
    frame = load_fitted(kept["stl"][1]).table(mixed().inputs.x[:6])
    p = frame[[f"kind p({name})" for name in ("low", "mid", "high")]].to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert frame["kind"].tolist() == [["low", "mid", "high"][i] for i in p.argmax(axis=1)]
    assert set(frame["sign"]) <= {"0", "1"}
    assert (frame["kind entropy [nats]"] <= np.log(3) + 1e-6).all()
    np.testing.assert_allclose(frame["kind mutual information [nats]"], 0, atol=1e-6)  # no posterior


def test_the_seed_and_the_number_of_draws(kept):
    fitted = load_fitted(kept["both"][1])
    x = mixed().inputs.x[:3]
    one, same, other = (fitted.predict(x, seed=seed)["predictions/y_length"].values for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    assert one.shape == (1, 2 * BUDGET.draws, 3)  # of each member
    assert fitted.predict(x, num_draws=5)["predictions/y_length"].shape == (1, 10, 3)
    # Members have noise of their own.
    assert not np.allclose(one[0, :8] - one[0, :8].mean(0), one[0, 8:] - one[0, 8:].mean(0))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 2)), r"shape \(rows, 3\), as the training data; got \(4, 2\)"),
        (np.zeros(3), r"got \(3,\)"),
        ([[1, 2, 3], [1, np.nan, 3], [np.inf, 2, 3]], r"finite; the entry \(1, 1\) is not"),
    ],
)
def test_inputs_that_do_not_fit_are_told(kept, x, message):
    with pytest.raises(ValueError, match=message):
        load_fitted(kept["stl"][1]).predict(x)


# ---- Damaged files ---------------------------------------------------------------------------------------------------


def test_a_missing_model_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="a comparison keeps no models"):
        load_fitted(tmp_path)


def test_a_truncated_file_is_told(kept, tmp_path):
    whole = (kept["both"][1] / "model.pt").read_bytes()
    for length in np.linspace(0, len(whole) - 1, 9).astype(int):
        (tmp_path / "model.pt").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model.pt is not the intact file of a fitted run"):
            load_fitted(tmp_path)


def test_a_changed_parameter_is_told(kept, tmp_path):
    """torch reads a file with a flipped bit as if nothing were wrong."""
    whole = bytearray((kept["both"][1] / "model.pt").read_bytes())
    state = torch.load(kept["both"][1] / "model.pt", weights_only=True)["states"][0][0]
    inside = whole.find(next(iter(state.values())).numpy().tobytes())
    assert inside > 0
    whole[inside] ^= 1
    (tmp_path / "model.pt").write_bytes(whole)
    with pytest.raises(ValueError, match="check sum"):
        load_fitted(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept.pop("about"),
        lambda kept: kept.update(about=f'{{"schema": {SCHEMA}}}'),
        lambda kept: kept.update(about=kept["about"].replace('"widths": [6]', '"widths": [7]')),
        lambda kept: kept.update(about=kept["about"].replace('"ensemble_size"', '"networks"')),
        lambda kept: kept["states"].pop(),
        lambda kept: kept["states"][0][0].popitem(),
        lambda kept: kept["scalers"].pop("length"),
    ],
)
def test_a_file_of_something_else_is_told(kept, tmp_path, change):
    found = torch.load(kept["both"][1] / "model.pt", weights_only=True)
    change(found)
    torch.save(found, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="is not the intact file of a fitted run"):
        load_fitted(tmp_path)


@pytest.mark.parametrize("schema", ["1", "99"])
def test_a_file_of_another_layout_is_refused(kept, tmp_path, schema):
    found = torch.load(kept["both"][1] / "model.pt", weights_only=True)
    found["about"] = found["about"].replace(f'"schema": {SCHEMA}', f'"schema": {schema}')
    torch.save(found, tmp_path / "model.pt")
    with pytest.raises(
        ValueError, match=f"has the layout {schema}, and this version of bmtl reads layout {SCHEMA}. Train again"
    ):
        load_fitted(tmp_path)


def test_a_model_that_another_version_has_is_told(kept, tmp_path):
    found = torch.load(kept["both"][1] / "model.pt", weights_only=True)
    found["about"] = found["about"].replace('"model": "homoscedastic"', '"model": "forest"')
    torch.save(found, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="There is no model 'forest'"):
        load_fitted(tmp_path)


def test_single_task_networks_take_the_likelihoods_of_all_targets(tmp_path):
    """By target or by name: each network takes what is its target's, also when it is read from its file."""
    for place, likelihood in enumerate(({"length": "student-t"}, "student-t,kendall")):
        method = replace(METHODS["stl"], name=f"stl-{place}", options={"noise": "parameter", "likelihood": likelihood})
        tree = run(mixed(), method, 0, BUDGET, tmp_path / str(place), keep_model=True)
        fitted = load_fitted(tmp_path / str(place))
        agree(tree, fitted, mixed(), 0)
        kinds = [type(of).__name__ for part in fitted.parts for of in part[0][0].likelihoods.values()]
        assert kinds[:2] == ["StudentT", ("Categorical", "Kendall")[place]]
    wrong = replace(METHODS["stl"], name="wrong", options={"likelihood": {"lenght": "student-t"}})
    with pytest.raises(ValueError, match="likelihood names \\['lenght'\\], and the targets are"):
        run(mixed(), wrong, 0, BUDGET)


def test_columns_of_two_targets_that_would_share_a_title_are_both_there(tmp_path):
    """The mean of "a" and the class of "a mean": the one replaced the other."""
    given = mixed()
    x, size, kind = given.inputs.x, given.targets["length"].values, given.targets["kind"].values
    families = {"a": Real(), "a mean": given.targets["kind"].family}
    data = MultiTaskData.from_arrays("titles", x, {"a": size, "a mean": kind}, given.rows, families=families)
    run(data, EW, 0, BUDGET, tmp_path, keep_model=True)
    fitted = load_fitted(tmp_path)
    for table in (fitted.table(x[:2]), fitted.predict(x[:2])["predictions_summary"].to_dataset()):
        assert {"'a' mean", "'a mean'", "a 50 %"} <= set(table)
        assert "a mean" not in table
