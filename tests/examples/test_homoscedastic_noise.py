import numpy as np
import pytest


def test_the_quick_run(start, tmp_path):
    printed = start("--quick", "--out", tmp_path, "--docs", tmp_path / "docs")
    assert "| kendall, fixed logits" in printed
    for name in ("noise", "temperature"):
        kept = (tmp_path / "docs" / "results" / f"homoscedastic_{name}.csv").read_text()
        assert kept == (tmp_path / f"{name}.csv").read_text()


def test_a_known_temperature_is_found_from_both_ends(example):
    """With fixed logits the problem is one-dimensional, and its solution does not depend on the start."""
    low, high = (example.temperature("categorical", False, start, 300) for start in (-2.0, 5.0))
    assert low[0] == pytest.approx(high[0], abs=0.02)
    assert low[0] == pytest.approx(np.log(example.SCALE), abs=0.4)


@pytest.mark.rows
def test_rows_of_the_page_come_out_again(example, results):
    noise, _ = results("homoscedastic_noise", "homoscedastic.md", index_col=["noise", "rows"])
    mean, deviation, expected, _ = example.known_noise("parameter", 40, 800)
    row = noise.loc["parameter", 40]
    assert (mean, deviation, expected) == pytest.approx((row["mean"], row["sd"], row["expected"]), rel=0.02)
    tempered, _ = results("homoscedastic_temperature", "homoscedastic.md", index_col=["likelihood", "logits", "start"])
    assert example.temperature("kendall", True, 0.0, 800) == pytest.approx(
        tempered.loc["kendall", "head", 0.0].tolist(), abs=0.01
    )
