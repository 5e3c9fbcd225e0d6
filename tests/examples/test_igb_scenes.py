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
