"""Davis and KIBA: published facts, splits, and the authors' own layout."""

import json
import pickle
import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bmtl.datasets import load
from bmtl.datasets.affinity import SETS, read
from bmtl.datasets.drug_target import composition_of
from bmtl.experiments.references.base import Rows
from bmtl.experiments.references.real import mean_of
from bmtl.targets.metrics.concordance import concordance_index

DAVIS, KIBA = "dta/davis.npz", "dta/kiba.npz"


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """A root with the authors' layout of 6 drugs and 9 proteins, of which two have one sequence: folder and matrix of Kd."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("root")
    folder = root / "davis"
    (folder / "folds").mkdir(parents=True)
    drugs = {f"{i}": "C" * (i + 1) + "O" for i in range(6)}
    proteins = {f"p{i}": "".join(rng.choice(list("ACDEFGHIK"), 30)) for i in range(8)}
    proteins["p8"] = proteins["p7"]
    kd = np.where(rng.random((6, 9)) < 0.6, 10_000.0, 10 ** rng.uniform(0, 4, (6, 9)))
    order = rng.permutation(54)
    (folder / "ligands_can.txt").write_text(json.dumps(drugs))
    (folder / "proteins.txt").write_text(json.dumps(proteins))
    (folder / "folds" / "test_fold_setting1.txt").write_text(json.dumps(order[:9].tolist()))
    folds = [fold.tolist() for fold in np.array_split(order[9:], 5)]
    (folder / "folds" / "train_fold_setting1.txt").write_text(json.dumps(folds))
    np.savetxt(folder / "Y.txt", kd)
    return root, kd, order, folds


def test_the_authors_layout(made_up):
    root, kd, order, folds = made_up
    data = load("davis", root=root, split=3)
    assert_allclose(data.targets["affinity"].values, 9 - np.log10(kd).ravel())
    assert data.targets["affinity"].values.min() == 5.0  # exactly: labels there are bounds
    assert data.rows["test"].tolist() == order[:9].tolist()
    assert data.rows["val"].tolist() == folds[3]
    assert data.inputs.drug[10] == data.inputs.protein[10] == 1
    assert data.num_splits == 5


def test_what_is_wrong_with_the_layout_is_named(made_up, tmp_path):
    root, kd, *_ = made_up
    for name, text, match in (
        ("Y.txt", "1 2\n3 4\n", r"has the shape \(2, 2\), and 6 drugs by 9 proteins are expected"),
        ("Y.txt", "a b\n", "is no matrix of numbers"),
        ("Y.txt", None, "has none of the affinities Y.txt and .*which is not read; one line of Python converts it"),
        ("proteins.txt", "[1, 2]", "is an object of names and texts"),
        ("proteins.txt", "{", "is not JSON"),
        ("proteins.txt", '{"p0": "A", "p0": "C"}', "has the name 'p0' twice"),
        ("ligands_can.txt", None, "There is no file .*ligands_can.txt"),
    ):
        folder = tmp_path / str(abs(hash((name, text)))) / "davis"
        (folder / "folds").mkdir(parents=True)
        for file in (root / "davis").rglob("*.txt"):
            (folder / file.relative_to(root / "davis")).write_text(file.read_text())
        (folder / "Y").write_bytes(pickle.dumps(kd))  # of the authors: never opened
        if text is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(text)
        with pytest.raises((ValueError, FileNotFoundError), match=match):
            load("davis", root=folder.parent)
    with pytest.raises(FileNotFoundError, match="davis needs the file dta/davis.npz or dta/davis or davis.*DeepDTA"):
        load("davis", root=tmp_path / "nothing")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"setting": "cold"}, "setting is one of 'warm', 'cold-drug', 'cold-target', 'cold-both'; got 'cold'"),
        ({"tasks": "drugs"}, "tasks is one of"),
        ({"batches": "blocks"}, "batches is one of 'random', 'proteins'"),
        ({"split": 5}, "split numbers the 5 training folds from 0; got 5"),
        ({"setting": "cold-target", "proportion": 1.5}, "proportion is between 0 and 1"),
        ({"setting": "cold-drug", "tasks": "drug"}, "No drug has a label in every part"),
    ],
)
def test_options_are_checked(made_up, options, match):
    with pytest.raises(ValueError, match=match):
        load("davis", root=made_up[0], **options)


@pytest.mark.parametrize("setting", ["cold-drug", "cold-target", "cold-both"])
def test_what_is_cold_is_new(made_up, setting):
    for seed in range(4):
        data = read("davis", made_up[0], setting=setting, seed=seed, proportion=0.6, validation=0.3)
        x = data.inputs
        for side, of, texts in (("drug", x.drug, x.drugs.texts), ("target", x.protein, x.proteins.texts)):
            train, val, test = ({texts[i] for i in of[data.rows[part]]} for part in ("train", "val", "test"))
            assert (
                bool(train & test) == bool(train & val) == (setting == f"cold-{'target' if side == 'drug' else 'drug'}")
            )
        assert data.num_splits is None
        new = x.tensors(data.rows["test"])["drug" if setting == "cold-drug" else "protein"].rows()["id"]
        assert (new == -1).all()
    assert data.fingerprint != read("davis", made_up[0], setting=setting, proportion=0.6, validation=0.3).fingerprint


def test_white_space_makes_no_other_sequence(made_up, tmp_path):
    """With a line break after one of them, two equal sequences were in training and in test rows of a cold split."""
    root = shutil.copytree(made_up[0], tmp_path / "root")
    proteins = json.loads((root / "davis" / "proteins.txt").read_text())
    proteins["p8"] += "\n"
    (root / "davis" / "proteins.txt").write_text("\ufeff" + json.dumps(proteins), encoding="utf-8")
    clean, other = (read("davis", of, setting="cold-target", proportion=0.6) for of in (made_up[0], root))
    assert other.fingerprint == clean.fingerprint


def test_drugs_as_tasks_are_the_same_labels(made_up):
    one, many = load("davis", root=made_up[0]), load("davis", root=made_up[0], tasks="drug")
    assert many.one_label_a_row
    for name, target in many.targets.items():
        own = one.inputs.drug == list(one.inputs.drugs.names).index(name.removeprefix("CID_"))
        assert_allclose(target.values[own], one.targets["affinity"].values[own])
        assert np.isnan(target.values[~own]).all()
        assert target.family == one.targets["affinity"].family
    left = 6 - len(many.tasks)
    assert many.notes == ((f"{left} drugs have no label in every part and are no targets.",) if left else ())


def test_davis_is_the_published_one(data_root):
    root = data_root(DAVIS)
    data = load("davis", root=root)
    y = data.targets["affinity"].values
    assert {part: len(rows) for part, rows in data.rows.items()} == {"train": 20_036, "val": 5_010, "test": 5_010}
    assert_allclose([y.min(), y.max(), y.mean(), (y == 5).mean()], [5.0, 10.796, 5.4515, 0.696], atol=6e-4)
    assert len(set(data.inputs.proteins.texts)) == 379
    with np.load(root / DAVIS) as file:
        lettered = [
            i for i, text in enumerate(data.inputs.proteins.texts) if not set(text) - set("ACDEFGHIKLMNPQRSTVWY")
        ]
        found = np.stack([composition_of(data.inputs.proteins.texts[i]) for i in lettered])
        assert_allclose(found[:, :20], file["prot_aac"][lettered], atol=1e-6)
        assert_allclose(found[:, 20:], file["prot_dpc"][lettered], atol=4e-5)  # kept in half precision
    cold = load("davis", root=root, setting="cold-target")
    sequences = {
        part: {cold.inputs.proteins.texts[i] for i in cold.inputs.protein[rows]} for part, rows in cold.rows.items()
    }
    assert not sequences["train"] & sequences["test"] | sequences["train"] & sequences["val"]
    assert len(load("davis", root=root, tasks="drug").tasks) == 68


def test_reference_rows_of_davis(data_root):
    """Drug mean + protein mean - mean, as measured by hand: what lies above has learnt nothing of the interaction."""
    data = load("davis", root=data_root(DAVIS))
    y = {part: labels["affinity"] for part, labels in ((p, data.labels(p)) for p in ("train", "test"))}
    codes = {part: np.stack([*data.inputs.groups(data.rows[part]).values()], axis=1) for part in y}
    predicted = mean_of("group-means", Rows(codes["train"], y["train"]), 0)(codes["test"])
    assert_allclose(np.mean(np.square(predicted - y["test"])), 0.5627, atol=5e-5)
    assert_allclose(concordance_index(y["test"], predicted), 0.789, atol=5e-4)
    assert_allclose(np.mean(np.square(y["train"].mean() - y["test"])), 0.8015, atol=5e-5)


def test_group_means_by_hand():
    x, y = np.array([[0, 5], [0, 6], [1, 5], [1, 5]]), np.array([1.0, 2.0, 3.0, 6.0])
    predict = mean_of("group-means", Rows(x, y), 0)
    assert_allclose(predict(np.array([[0, 5], [1, 6], [9, 5], [9, 9]])), [1.5 + 10 / 3 - 3, 4.5 + 2 - 3, 10 / 3, 3.0])


def test_kiba_is_the_published_one(data_root):
    data = load("kiba", root=data_root(KIBA))
    y = data.targets["affinity"].values
    assert (len(y), len(data.rows["test"])) == (118_254, 19_709)
    assert_allclose([y.min(), y.max(), y.mean()], [0.0, 17.2002, 11.7199], atol=5e-5)
    assert len(set(data.inputs.drugs.texts)) == 2_068
    assert data.targets["affinity"].family.bounds is None
    assert set(SETS) == {"davis", "kiba"}
