import numpy as np
import pytest


@pytest.fixture(scope="module")
def root(root_with):
    return root_with("wine_domains/wine_domains.npz")


def test_the_quick_run(example, start, root, monkeypatch, tmp_path):
    monkeypatch.setattr(example, "METHODS", {"ENet": "nll"})
    printed = start("--root", root, "--out", tmp_path, "--quick")
    import page_tables

    header, *rows = page_tables.read(tmp_path / "mt_enet_uncertainty.csv")
    assert header == list(example.HEADER)
    assert page_tables.markdown_table(header, *rows, left=2) in printed
    assert [row[:3] for row in rows] == [
        ["ENet", tie, f"{c:g}"] for tie in ("apart", "tied") for c in example.REGULARISERS
    ]
    means = np.array([[float(cell.split(" ± ")[0].replace("−", "-")) for cell in row[3:]] for row in rows])
    assert (np.abs(means[:, 0]) <= 1).all()
    assert ((means[:, 3:6] >= 0) & (means[:, 3:6] <= 1)).all()
    assert (means[:, 6] < 1.0).all()  # grades


def test_epistemic_is_aleatoric_over_nu(example):
    """So 1/nu ranks as the ratio does, a constant ratio gives a correlation of 1, and two equal sides an AUROC of 1/2."""
    random = np.random.default_rng(0)
    aleatoric, error = random.normal(size=(2, 500))
    part = {
        "error": error,
        "nll": error**2,
        "aleatoric": aleatoric,
        "epistemic": aleatoric - 2.0,
        "nu": np.full(500, 2.0),
    }
    scaler = type("Scaler", (), {"std": np.array([3.0])})
    r, _, spread, epistemic, by_noise, by_nu, rmse, nll = example.judged({"test": part, "white": part}, scaler)
    assert r == pytest.approx(1.0)
    assert spread == 0
    assert (epistemic, by_noise, by_nu) == pytest.approx((0.5, 0.5, 0.5))
    assert rmse == pytest.approx(3 * np.sqrt(np.mean(error**2)))
    assert nll == pytest.approx(np.mean(error**2) + np.log(3.0))
    fewer = part | {"nu": part["nu"] - 1.0}  # less evidence outside
    assert example.judged({"test": part, "white": fewer}, scaler)[5] == 1.0


@pytest.mark.rows
def test_a_row_of_the_page_comes_out_again(example, root, results, monkeypatch):
    """By three of the ten seeds: their mean is within three standard errors of three of the mean of all."""
    monkeypatch.setattr(example, "REGULARISERS", (1e-3,))
    x, y, white = example.wines(root)
    data = [
        example.assemble("red wine", x, y, task_names=[example.TARGET], units="grade", seed=seed) for seed in range(3)
    ]
    (found,) = example.bank(data, white, "ENet", False, example.EPOCHS)
    table, _ = results("mt_enet_uncertainty", "mt_enet.md", dtype=str)
    row = table[(table["method"] == "ENet") & (table["nu and alpha"] == "apart") & (table["regulariser"] == found[0])]
    for column, cell in zip(example.HEADER[3:], found[1:], strict=True):
        mean, error = (float(number.replace("−", "-")) for number in row[column].item().split(" ± "))
        of_three = float(cell.split(" ± ")[0].replace("−", "-"))
        assert of_three == pytest.approx(mean, abs=3 * max(error, 0.01) * (10 / 3) ** 0.5), column
