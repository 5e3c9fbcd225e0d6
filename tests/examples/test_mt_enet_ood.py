import numpy as np
import pandas as pd
import pytest

from bmtl.evaluation import ood, results


@pytest.fixture(scope="module")
def root(root_with):
    return root_with("wine_domains/wine_domains.npz")


@pytest.fixture(scope="module")
def quick(start, root, tmp_path_factory):
    """Folder, scores and what was printed."""
    out = tmp_path_factory.mktemp("ood")
    printed = start("--root", root, "--out", out, "--quick")
    return out, pd.read_csv(out / "scores.csv"), printed


def test_scores_are_those_of_the_trees(example, quick):
    out, scores, _ = quick
    assert len(scores) == 1 + 3 * len(example.NAMES)
    for name in example.NAMES:
        tree = results.read(out / name / "seed-0" / "results.nc")
        found = ood.detection(tree, resamples=1).sel(task="quality")
        rows = scores[scores["method"] == name].set_index("uncertainty")
        assert found["rows_in"] == found["rows_out"] == 60
        for metric in example.DETECTION:
            np.testing.assert_allclose(rows.loc[found["score"].values, metric], found[metric])
    rates = scores.filter(regex="auroc|aupr|fpr95")
    assert rates.shape[1] == 12
    assert ((rates >= 0) & (rates <= 1)).all(axis=None)
    for metric in (*example.DETECTION, "halves_auroc"):
        assert (scores[f"{metric}_low"] <= scores[f"{metric}_high"]).all()


def test_what_must_hold_of_any_network(quick):
    """Halves of one set differ by chance only, one Gaussian network has no epistemic part, dropout's noise is constant."""
    _, scores, _ = quick
    assert (scores["halves_auroc_low"] <= 0.5).all()
    assert (scores["halves_auroc_high"] >= 0.5).all()
    auroc = scores.set_index(["method", "uncertainty"])["auroc"]
    assert auroc["gaussian", "epistemic"] == 0.5
    assert auroc["gaussian", "total"] == auroc["gaussian", "aleatoric"]
    assert auroc["mc-dropout", "aleatoric"] == 0.5
    assert auroc["mc-dropout", "total"] == pytest.approx(auroc["mc-dropout", "epistemic"], abs=1e-3)  # rounding ties
    assert auroc["nearest training row", "distance"] > 0.9  # the wines do differ


def test_the_files(example, quick):
    out, scores, printed = quick
    table = (out / "table.md").read_text()
    assert table in printed
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert rows[2:] == scores["method"].tolist()
    assert (out / "density.png").read_bytes().startswith(b"\x89PNG")


def test_no_wine_is_on_two_sides(example, root):
    x, y, white = example.wines(root)
    assert (x.shape, y.shape, white.shape) == ((1359, 11), (1359,), (3959, 11))
    together = np.concatenate([x, white])
    assert len(np.unique(together, axis=0)) == len(together)
    assert y.min() == 3
    assert y.max() == 8
    drawn = example.sample(white, 50, 1)
    assert len(np.unique(np.concatenate([drawn, white]), axis=0)) == len(white)
    assert not np.array_equal(drawn, example.sample(white, 50, 2))


def test_the_interval_of_halves_holds_chance(example):
    """Nominally in 38 of 40 sets, from which the bootstrap of 2 x 30 rows differs by little: 31 are 5 deviations below."""
    held = 0
    for seed in range(40):
        inside = np.random.default_rng(seed).gamma(1, size=60)
        row = example.separation("m", seed, "total", inside, inside + 1)
        held += row["halves_auroc_low"] <= 0.5 <= row["halves_auroc_high"]
    assert held >= 31


def test_missing_data_are_named(start, tmp_path):
    with pytest.raises(SystemExit, match=r"wine_domains\.npz"):
        start("--root", tmp_path)
