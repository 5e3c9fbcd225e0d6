import pandas as pd
import pytest

from bmtl.inference.balancing import balancer


def test_the_quick_run(example, start, tmp_path):
    printed = start("--quick", "--out", tmp_path)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(example.QUICK)
    assert lines[0].count("|") == 12, "nine metrics and delta_m"
    assert lines[-1] in printed
    for name in ("losses.png", "pictures.png"):
        assert (tmp_path / name).stat().st_size > 1000


def test_rows_and_data_that_there_are_not(start, tmp_path):
    with pytest.raises(SystemExit, match="no row is called 'igb-v3'; there are stl, ew, "):
        start("--methods", "igb-v3", "--out", tmp_path)
    with pytest.raises(SystemExit, match="kitchen"):
        start("--data", "kitchen", "--root", tmp_path, "--out", tmp_path)


def test_every_row_names_a_balancer(example):
    for text in {**example.BALANCERS, **example.ABLATIONS}.values():
        assert str(balancer(text))


@pytest.mark.rows
@pytest.mark.parametrize(
    ("data", "epochs", "file"),
    [("rooms", 12, ""), ("kitchen", 10, "kitchen/kitchen_96x128.npz"), ("camvid", 4, "camvid/camvid_90x120.npz")],
)
def test_trained_rows_of_the_page_come_out_again(start, root_with, results, tmp_path, data, epochs, file):
    """Equal weights and single-task networks of the first seed, nearer to the page's than its two seeds are on average."""
    root = root_with(file) if file else tmp_path / "frames"
    thin = ("--thin", 2) if file else ()
    methods = ("--methods", "ew", "--seeds", 1, "--epochs", epochs)
    start("--data", data, *thin, *methods, "--root", root, "--out", tmp_path / "run")
    found = pd.read_csv(tmp_path / "run" / "values.csv", index_col=["method", "seed"])
    page, _ = results(f"igb_scenes_{data}", "scenes.md", index_col=["method", "seed"])
    apart = (page.xs(0, level="seed") - page.xs(1, level="seed")).abs().mean()
    assert ((found - page.loc[found.index]).abs().mean() <= apart + 1e-6).all()
