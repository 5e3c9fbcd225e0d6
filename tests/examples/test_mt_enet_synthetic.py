import numpy as np
import pandas as pd
import pytest
from scipy import stats


def test_the_quick_run(start, tmp_path):
    methods = ["enet", "mt-enet", "gaussian", "mc-dropout", "gp"]
    printed = start(
        *("--quick", "--epochs", 1, "--out", tmp_path, "--balancer", "full >> pcgrad", "--methods", ",".join(methods))
    )
    runs = pd.read_csv(tmp_path / "scores.csv")
    assert runs["method"].tolist() == [method for method in methods for _ in range(2)]
    assert runs["region"].tolist() == ["rich", "sparse"] * len(methods)
    by_method = runs.groupby("method")
    assert by_method["epistemic sd"].max()["gaussian"] == 0
    assert (by_method["epistemic sd"].min().drop("gaussian") > 0).all()
    assert by_method["RMSE"].max()["gp"] < 0.1  # it has no noise, and these are its points
    assert np.isfinite(runs[["RMSE", "NLL", "epistemic sd", "ECE", "ECE released"]]).all(axis=None)
    assert (tmp_path / "mt_enet_synthetic.csv").is_file()
    assert (tmp_path / "figure4.png").read_bytes().startswith(b"\x89PNG")
    assert "Medians over 1 seed (least to largest), 1 epochs" in printed


def test_the_data_are_the_papers(example):
    """900 points on the left, 20 on the right; noise grows with the distance from |x| = 7."""
    x, y, rows = example.synthetic()
    assert (x[rows] < example.BORDER).sum() == 900
    assert (x[rows] >= example.BORDER).sum() == 20
    noise = y - np.sin(4 * x) ** 3 - x**2 / 10
    for end in (-3, -1, 1, 3, 5):
        near = abs(x - end) < 0.5
        expected = np.sqrt(0.1**2 + ((0.1 * (7 - abs(x[near]))) ** 2).mean())
        assert noise[near].std() == pytest.approx(expected, rel=4 / np.sqrt(2 * near.sum()))


@pytest.mark.parametrize(("alpha", "excess"), [(1.05, 0.054), (1.5, 0.023), (2.0, 0.012), (5.0, 0.002)])
def test_the_released_code_scores_a_perfect_predictive(example, alpha, excess):
    """What it finds on labels of the predictive itself, where the ECE as defined is below 0.002."""
    y = stats.t.rvs(2 * alpha, size=300_000, random_state=np.random.default_rng(0))
    assert example.released_ece(y, np.zeros(y.size), 1.0, np.full(y.size, 2 * alpha)) == pytest.approx(
        excess, abs=0.0015
    )


def test_the_released_code_counts_intervals_at_its_own_levels(example):
    random = np.random.default_rng(1)
    y, loc, scale, df = *random.normal(size=(2, 60)), random.uniform(0.5, 2, 60), random.uniform(2.1, 9, 60)
    errors = []
    for level in np.linspace(0, 1, 100):
        low, high = stats.t.interval(level, df - 1, loc, scale)
        errors.append(abs(np.mean((y >= low) & (y <= high)) - level))
    assert example.released_ece(y, loc, scale, df) == pytest.approx(np.mean(errors), abs=1e-12)


def test_the_released_code_needs_two_degrees_of_freedom(example):
    with pytest.raises(ValueError, match="expected above 1"):
        example.released_ece([0.0], 0.0, 1.0, 1.0)


def test_an_unknown_method_is_refused(start, tmp_path, capsys):
    with pytest.raises(SystemExit):
        start("--methods", "enet,mtenet", "--out", tmp_path)
    assert "'mtenet' was given" in capsys.readouterr().err
