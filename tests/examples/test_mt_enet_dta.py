import numpy as np
import pandas as pd
import pytest

from bmtl.evaluation import results
from bmtl.evaluation.parts import scored


@pytest.fixture(scope="module")
def root(root_with):
    root_with("dta/ood_detergents.npz")
    return root_with("dta/davis.npz")


@pytest.fixture(scope="module")
def quick(start, root, tmp_path_factory):
    """Folder, scores, and what was printed."""
    out = tmp_path_factory.mktemp("dta")
    printed = start("--root", root, "--out", out, "--quick", "--methods", "mt-enet,mt-enet-censored,mc-dropout")
    return out, pd.read_csv(out / "scores.csv").set_index("method"), printed


def test_the_columns_are_what_they_say(example, quick):
    out, scores, printed = quick
    assert (out / "table.md").read_text() in printed
    assert scores.index.tolist() == ["constant", "group means", "boosting", "mt-enet", "mt-enet-censored", "mc-dropout"]
    assert scores.loc["constant", "CI ↑"] == 0.5
    rows = scored(results.read(out / "mt-enet" / "fold-0" / "results.nc"))["affinity"]
    atom = rows.labels == 5.0
    of = scores.loc["mt-enet"]
    # Five digits are kept.
    np.testing.assert_allclose(of["NLL ↓"], -rows.prediction.log_likelihood.mean(), rtol=1e-4)
    np.testing.assert_allclose(atom.mean() * of["NLL atom"] + (~atom).mean() * of["NLL rest"], of["NLL ↓"], rtol=2e-4)
    assert of["NLL floor"] >= of["NLL ↓"] - 1e-4 or (rows.prediction.law.parameters["scale"] < example.FLOOR).any()
    assert np.isfinite(of[["NLL mass ↓", "ECE ↓", "ECE (2a - 1)"]].astype(float)).all()
    censored = scores.loc["mt-enet-censored"]
    assert np.isnan(censored["NLL ↓"])
    assert np.isfinite(censored["NLL mass ↓"])


def test_detergents_are_told_from_drugs(quick):
    out, _, printed = quick
    frame = pd.read_csv(out / "ood.csv").set_index(["method", "score"])
    assert (out / "ood.md").read_text() in printed
    assert ((frame["low"] <= frame["auroc"]) & (frame["auroc"] <= frame["high"])).all()
    assert frame.loc[("nearest", "distance"), "auroc"] > 0.9  # detergents are unlike kinase inhibitors
    assert frame.loc[("mc-dropout", "aleatoric"), "auroc"] == 0.5  # a constant noise
    assert set(frame.index.get_level_values(0)) == {"nearest", "mt-enet", "mc-dropout", "mt-enet, tie"}
    assert (out / "epistemic.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_there_is_not_trained_again(example, start, root, quick, monkeypatch):
    out, _, printed = quick
    monkeypatch.setattr(example, "run", None)
    again = start("--root", root, "--out", out, "--quick", "--methods", "mt-enet,mt-enet-censored,mc-dropout")
    assert again.partition("davis, test fold")[2] == printed.partition("davis, test fold")[2]


def test_missing_data_are_named(start, tmp_path):
    with pytest.raises(SystemExit, match=r"davis\.npz"):
        start("--root", tmp_path)


@pytest.mark.parametrize(
    ("name", "setting"),
    [("davis", "warm"), ("davis", "cold-drug"), ("davis", "cold-target"), ("davis", "cold-both"), ("kiba", "warm")],
)
def test_the_page_shows_the_file_of_results(example, results, name, setting):
    frame, page = results(f"mt_enet_dta_{name}_{setting}", "mt_enet_dta.md")
    assert example.table(frame, setting) in page


def test_the_page_shows_the_file_of_detection(example, results):
    frame, page = results("mt_enet_dta_davis_warm_ood", "mt_enet_dta.md")
    assert example.ood_table(frame) in page


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("davis", "warm"),
        pytest.param("davis", "cold-target", marks=pytest.mark.rows),
        pytest.param("kiba", "warm", marks=pytest.mark.rows),
    ],
)
def test_reference_rows_of_the_page_come_out_again(example, root, results, tmp_path, name, setting):
    """To the last digit: the page's data, splits and scores are those of today's code."""
    data = example.load(name, root=root, setting=setting, **{"split" if setting == "warm" else "seed": 0})
    floor = data.targets[example.TARGET].family.ends[0]
    table, _ = results(f"mt_enet_dta_{name}_{setting}", "mt_enet_dta.md", index_col=["method", "fold"])
    trees = example.run_references(data, tmp_path, "fold-0", 0, ("constant", "group-means"))
    assert list(trees) == ["constant", "group means"]
    for method, tree in trees.items():
        for column, value in example.judged(tree, floor).items():
            assert value == pytest.approx(table.loc[(method, 0), column], rel=1e-4), (method, column)


@pytest.mark.rows
def test_trained_rows_of_the_page_come_out_again(start, root, results, tmp_path):
    """The first fold of two methods, within three standard deviations of the page's five."""
    start("--root", root, "--out", tmp_path, "--methods", "mt-enet,mt-enet-censored", "--no-ood")
    found = pd.read_csv(tmp_path / "scores.csv").set_index("method")
    table, _ = results("mt_enet_dta_davis_warm", "mt_enet_dta.md")
    for method in ("boosting", "mt-enet", "mt-enet-censored"):
        of = table[table["method"] == method]
        for column in ("MSE ↓", "CI ↑", "NLL mass ↓", "CRPS ↓", "ECE ↓"):
            spread = max(3 * of[column].std(), 0.01 * abs(of[column].mean()))
            assert found.loc[method, column] == pytest.approx(of[column].mean(), abs=spread), (method, column)
