"""Drug-target affinities through the three commands, on a small set in the authors' layout."""

import json

import numpy as np
import pandas as pd
import pytest

from bmtl.evaluation import results

TINY = ("--epochs", 2, "--batch-size", 32, "--widths", "6,5", "--draws", 4)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("root")
    folds = root / "davis" / "folds"
    folds.mkdir(parents=True)
    drugs = {f"{i}": text for i, text in enumerate(("CCO", "CCN", "c1ccccc1", "CC(=O)O", "CCCl", "C1CCCCC1"))}
    proteins = {f"p{i}": "".join(rng.choice(list("ACDEFGHIK"), 30)) for i in range(20)}
    kd = 10 ** np.clip(rng.normal(3.5, 1.0, (6, 20)) + rng.normal(0, 0.5, (6, 1)), 0, 4)
    order = rng.permutation(120)
    (folds.parent / "ligands_can.txt").write_text(json.dumps(drugs))
    (folds.parent / "proteins.txt").write_text(json.dumps(proteins))
    (folds / "test_fold_setting1.txt").write_text(json.dumps(order[:20].tolist()))
    (folds / "train_fold_setting1.txt").write_text(json.dumps([f.tolist() for f in np.array_split(order[20:], 5)]))
    np.savetxt(folds.parent / "Y.txt", kd)
    return root


def test_all_methods_are_compared_beside_reference_rows(run, root, tmp_path):
    names = ["mc-dropout", "mt-enet-censored"]
    options = ("--root", root, "--splits", 1, *TINY, "--jobs", 1, "--schedule", "falling")
    code, out, err = run("compare", "davis", "--methods", ",".join(names), *options, "--out", tmp_path)
    assert (code, err) == (0, "")
    scores = results.read(tmp_path / "comparison.nc")
    assert scores["learner"].values.tolist() == [*names, "constant", "group means", "ridge", "boosting"]
    shown = scores["score"].sel(metric=["rmse", "concordance", "nll", "ece"]).squeeze()
    assert np.isfinite(shown).all()
    assert "a label at a bound counts with the probability beyond it" in out
    assert scores["score"].sel(learner="constant", metric="concordance").item() == 0.5


def test_drugs_as_tasks(run, root, tmp_path):
    options = ("--root", root, *TINY, "-d", "tasks=drug", "--out", tmp_path)
    code, out, err = run("train", "davis", "--method", "mt-enet-censored", *options)
    assert code == 0
    assert err.startswith("Warning: Fewer than 5 validation rows have a label of CID_0")
    assert "CID_0: RMSE on validation" in out


def test_a_fitted_model_reads_smiles_and_sequences(run, root, tmp_path):
    out_ = tmp_path / "model"
    options = ("--root", root, *TINY, "--trunk", "deep-dta", "-d", "batches=proteins", "--out", out_)
    code, out, err = run("train", "davis", "--method", "mt-enet", *options)
    assert (code, err) == (0, "")
    assert "6 drugs (6 different SMILES) and 20 proteins" in out
    tree = results.read(out_ / "results.nc")
    proteins = json.loads((root / "davis" / "proteins.txt").read_text())
    drugs = json.loads((root / "davis" / "ligands_can.txt").read_text())
    test = json.loads((root / "davis" / "folds" / "test_fold_setting1.txt").read_text())
    given = [(drugs[str(i // 20)], proteins[f"p{i % 20}"]) for i in test]
    pd.DataFrame(given, columns=["smiles", "sequence"]).to_csv(tmp_path / "new.csv", index=False)
    code, out, err = run("predict", out_, "--data", tmp_path / "new.csv", "--out", tmp_path / "p.csv")
    assert (code, err) == (0, "")
    found = pd.read_csv(tmp_path / "p.csv")["affinity mean [pKd]"]
    np.testing.assert_allclose(found, tree["test/predictive_mean/y_affinity"].values, rtol=1e-5)
    (tmp_path / "new.csv").write_text("smiles,sequence\nCCO,MKV\nC1CC,MKV\nCC,\n")
    code, _, err = run("predict", out_, "--data", tmp_path / "new.csv", "--out", tmp_path / "q.csv")
    assert code == 2
    assert "new.csv, row 3, column 'smiles': 'C1CC' is no SMILES" in err
    assert "new.csv, row 4, column 'sequence': an empty sequence" in err
    assert not (tmp_path / "q.csv").exists()


def test_a_wrong_trunk_or_schedule_is_refused(run, root, never_trains, tmp_path):
    options = ("--root", root, "--out", tmp_path / "x")
    code, _, err = run("train", "davis", "--trunk", "deep-dtaa", *options)
    assert code
    assert "no trunk 'deep-dtaa'. Did you mean 'deep-dta'?" in err
    code, _, err = run("compare", "davis", "--schedule", "linear", *options)
    assert code
    assert "schedule is one of cosine, constant" in err
