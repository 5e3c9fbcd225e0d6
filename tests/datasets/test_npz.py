import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bmtl.datasets import load
from bmtl.targets import Binary, Classes, Count, Ordinal, Real, TimeToEvent, Vector

TASK = np.repeat([0, 1], 10)
PLAIN = {"X": np.arange(40.0).reshape(20, 2), "y": np.tile([0, 1, 2, 1, 0], 4), "task": TASK}


@pytest.fixture
def read(tmp_path):
    """A function: the data set of some arrays."""

    def of(arrays=PLAIN, **options):
        np.savez(tmp_path / "toy.npz", **arrays)
        return load("npz:toy.npz", root=tmp_path, **options)

    return of


def test_standard_names_need_no_options(read):
    split, groups = np.tile([1, 1, 0, 0], 5), np.arange(20) // 2
    data = read({**PLAIN, "task_names": ["a", "b"], "classes": ["x", "y", "z"], "split": split, "groups": groups})
    assert data.name == "toy"
    assert data.tasks == ("a", "b")
    assert data.targets["b"].family == Classes(("x", "y", "z"))
    assert_array_equal(np.sort([*data.rows["train"], *data.rows["val"]]), np.flatnonzero(split))
    assert set(groups[data.rows["val"]]).isdisjoint(groups[data.rows["train"]])


def test_other_names_are_options(read):
    names = {"x": "fp", "y": "label", "task": "domain", "names": "domains", "classes": "kinds", "split": "split_5"}
    split = np.tile([1, 0], 10)
    arrays = {"fp": PLAIN["X"], "label": PLAIN["y"], "domain": TASK, "domains": np.array([b"a", b"b"])}
    data = read({**arrays, "kinds": ["x", "y", "z"], "split_5": split}, validation=0, **names)
    usual = read({**PLAIN, "task_names": ["a", "b"], "classes": ["x", "y", "z"], "split": split}, validation=0)
    assert data.fingerprint == usual.fingerprint
    assert data.targets["b"].family == usual.targets["b"].family == Classes(("x", "y", "z"))


def test_a_proportion_is_drawn_though_the_file_has_a_split(read):
    arrays = {**PLAIN, "split": np.tile([1, 0], 10)}
    assert len(read(arrays, validation=0).rows["train"]) == 10
    assert len(read(arrays, validation=0, proportion=0.75).rows["train"]) > 12


def test_labels_of_a_table_may_be_called_y_too(read):
    table = np.stack([np.arange(20.0), np.ones(20)], axis=1)
    found = [read({"X": PLAIN["X"], name: table}) for name in ("y", "Y")]
    assert found[0].fingerprint == found[1].fingerprint
    assert found[0].tasks == ("task_0", "task_1")


def test_bits_are_unpacked(read):
    bits = np.random.default_rng(0).integers(0, 2, (20, 16))
    data = read({**PLAIN, "X": np.packbits(bits, axis=1)}, unpack=True, scale="none")
    assert_array_equal(data.inputs.x, bits)
    assert_array_equal(data.tensors("train")[0].numpy(), bits[data.rows["train"]])


def test_the_path_may_be_absolute_or_below_the_working_folder(tmp_path, read, monkeypatch):
    monkeypatch.delenv("BMTL_DATA", raising=False)
    expected = read().fingerprint
    assert load(f"npz:{tmp_path / 'toy.npz'}").fingerprint == expected
    monkeypatch.chdir(tmp_path)
    assert load("npz:toy.npz").fingerprint == expected


def test_several_arrays_are_targets_of_several_kinds(read):
    arrays = {
        "X": PLAIN["X"],
        "depth": np.where(TASK == 0, np.nan, 2.5),
        "visits": np.arange(20) % 7,
        "died": np.arange(20) % 2,
        "wind": PLAIN["X"] / 2,
        "days": np.arange(20.0) + 1,
        "observed": np.arange(20) % 2,
    }
    options = {"kinds": {"visits": "count", "wind": "vector"}, "events": {"days": "observed"}}
    data = read(arrays, y=["depth", "visits", "died", "wind", "days"], **options)
    assert [target.family for target in data.targets.values()] == [
        Real(),
        Count(),
        Binary(),
        Vector(("0", "1")),
        TimeToEvent(),
    ]
    days = data.targets["days"].values
    assert_array_equal(days[:, 0], arrays["days"])
    assert_array_equal(days[:, 1], np.where(arrays["observed"] == 1, arrays["days"], np.inf))
    assert read(arrays, events={"days": "observed"}).tasks == ("days",)
    with pytest.raises(ValueError, match="The events of 'days' are 1 .observed. or 0"):
        read({**arrays, "observed": np.arange(20) % 3}, events={"days": "observed"})


def test_features_have_names_where_the_file_gives_one_a_column(read):
    assert read({**PLAIN, "features": ["a", "b"]}).inputs.features == ("a", "b")
    assert read({**PLAIN, "features": np.arange(5)}).inputs.features == ()
    assert read({**PLAIN, "columns": ["a", "b"]}, features="columns").inputs.features == ("a", "b")
    with pytest.raises(ValueError, match="`features` names 3 columns"):
        read({**PLAIN, "columns": ["a", "b", "c"]}, features="columns")


def test_new_rows_are_read_as_the_training_file_was(read, tmp_path):
    bits = np.random.default_rng(0).integers(0, 2, (20, 16))
    data = read({"fp": np.packbits(bits, axis=1), "y": PLAIN["y"], "task": TASK}, x="fp", unpack=True, clip=2.0)
    np.savez(tmp_path / "new.npz", fp=np.packbits(bits, axis=1))
    new = data.inputs.prepare(data.inputs.read(tmp_path / "new.npz"))
    assert_array_equal(new.numpy()[data.rows["train"]], data.tensors("train")[0].numpy())


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"y": TASK}, {}, "has no array 'X'; its arrays are: y"),
        ({"X": PLAIN["X"]}, {}, "has neither y nor Y; its arrays are: X. Name one as `y`"),
        ({"X": PLAIN["X"], "y": TASK, "Y": TASK}, {}, "has the arrays y and Y. Say which is meant with `y`"),
        (PLAIN, {"split": "split_5"}, "no array 'split_5'; its arrays are: X, y, task"),
        (PLAIN, {"unpack": True}, r"uint8 of shape \(N, bytes\); got float64 of shape \(20, 2\)"),
        ({**PLAIN, "split": np.ones(20) * 2}, {}, "one a row; got 2"),
        ({**PLAIN, "split": np.tile([1, 0], 10)}, {"split": "split", "proportion": 0.5}, "Give either a split or"),
        ({**PLAIN, "X": np.full((20, 2), np.nan)}, {}, "Inputs must be finite"),
    ],
)
def test_what_does_not_fit_is_refused(read, arrays, options, message):
    with pytest.raises(ValueError, match=message):
        read(arrays, **options)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="needs the file other.npz in .*Write one with numpy.savez_compressed"):
        load("npz:other.npz", root=tmp_path)


# ---- Sets that users come with ---------------------------------------------------------------------------------------


def test_school_has_139_tasks_with_their_own_rows(data_root):
    data = load("npz:school/school.npz", root=data_root("school/school.npz"), proportion=0.75)
    assert len(data.tasks) == 139
    assert data.inputs.x.shape == (15362, 28)
    sizes = np.array([target.labelled.sum() for target in data.targets.values()])
    assert (sizes.min(), sizes.max(), sizes.sum()) == (22, 251, 15362)
    assert_allclose(sum(np.nansum(t.values) for t in data.targets.values()) / 15362, 20.597, atol=5e-4)
    by_task = {part: data.rows_by_task(part) for part in data.rows}
    assert all(len(found) == 139 for found in by_task.values())
    test = np.array([len(rows) for rows in by_task["test"].values()])
    assert (np.abs(test - sizes / 4) < 1).all()
    assert abs(test.sum() - 15362 / 4) <= 0.5
    x, _ = data.tensors("train")
    assert (x[:, 27] == 0).all()  # constant


@pytest.mark.parametrize(
    ("name", "rows", "means"),
    [
        ("enb", 768, {"Y1": 22.3072, "Y2": 24.5878}),
        ("jura", 359, {"Cd": 1.2882, "Co": 9.4391, "Cu": 23.5855}),
        ("slump", 103, {"SLUMP_cm": 18.0485, "FLOW_cm": 49.6107, "Compressive_Strength_Mpa": 36.0394}),
    ],
)
def test_mulan_sets_are_tables(data_root, name, rows, means):
    file = f"mulan_mtr/{name}.npz"
    data = load(f"npz:{file}", root=data_root(file), names="targets")
    assert len(data.inputs) == rows
    assert {name: round(float(target.values.mean()), 4) for name, target in data.targets.items()} == means
    with np.load(data_root(file) / file) as archive:
        assert list(data.inputs.features) == archive["features"].tolist()


def test_water_quality_has_14_targets_that_may_be_classes(data_root):
    root = data_root("mulan_mtr/wq.npz")
    data = load("npz:mulan_mtr/wq.npz", root=root, names="targets")
    assert len(data.tasks) == 14
    assert_allclose(np.mean([target.values for target in data.targets.values()]), 0.7959, atol=5e-5)
    classes = load("npz:mulan_mtr/wq.npz", root=root, names="targets", kinds=6)
    assert set(np.concatenate([target.values for target in classes.targets.values()]).tolist()) == {0, 1, 3, 5}
    ordinal = load("npz:mulan_mtr/wq.npz", root=root, names="targets", kinds="ordinal")
    assert {target.family for target in ordinal.targets.values()} == {Ordinal(("0", "1", "3", "5"))}


def test_tox21_has_missing_labels_and_no_molecule_on_both_sides(data_root):
    root = data_root("tox21/tox21.npz")
    data = load("npz:tox21/tox21.npz", root=root, x="fp", unpack=True, names="targets", groups="smiles", scale="none")
    assert data.inputs.x.shape == (8014, 1024)
    assert {target.family for target in data.targets.values()} == {Binary()}
    table = np.stack([target.values for target in data.targets.values()])  # (12, N)
    assert_allclose(np.mean(table == -1), 0.1726, atol=5e-5)
    labelled, positive = (table >= 0).sum(axis=1), (table == 1).sum(axis=1)
    assert (labelled.min(), labelled.max(), positive.min(), positive.max()) == (5920, 7439, 189, 961)
    with np.load(root / "tox21/tox21.npz") as archive:
        smiles = archive["smiles"]
    sides = [set(smiles[rows]) for rows in data.rows.values()]
    assert sum(map(len, sides)) == 7831
    assert_allclose([len(rows) / 8014 for rows in data.rows.values()], [0.64, 0.16, 0.2], atol=1e-3)


def test_wine_domains_are_two_tasks_of_whole_numbers(data_root):
    file = "wine_domains/wine_domains.npz"
    options = {"task": "domain", "names": "domains", "kinds": "real"}
    data = load(f"npz:{file}", root=data_root(file), **options)
    assert data.tasks == ("red", "white")
    assert_allclose(np.nanmean(data.targets["white"].values), 5.877909, atol=5e-7)
    assert load(f"npz:{file}", root=data_root(file), drop="red", **options).tasks == ("white",)


def test_the_larger_qm9_comes_through_it_as_well(data_root):
    root = data_root("qm9/qm9_12k.npz")
    data = load("npz:qm9/qm9_12k.npz", root=root, names="y_names", drop="gap", units={"mu": "D"}, clip=5.0)
    own = load("qm9-12k", root=root)
    assert set(data.tasks) == set(own.tasks)
    assert_array_equal(data.inputs.x, own.inputs.x)
    assert_array_equal(data.targets["mu"].values, own.targets["mu"].values)
