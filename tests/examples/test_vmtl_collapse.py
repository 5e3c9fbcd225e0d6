import pandas as pd
import pytest


def test_the_picture_is_drawn(example, start, tmp_path):
    printed = start("--quick", "--out", tmp_path)
    assert (tmp_path / "vmtl_collapse.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(tmp_path / "vmtl_collapse.csv")
    assert table["prior"].tolist() == list(example.PRIORS)
    assert (table["sd at last"] > 0).all()
    assert all(f"| {prior} " in printed for prior in example.PRIORS)


def test_too_few_steps_are_refused(start, capsys):
    with pytest.raises(SystemExit):
        start("--steps", 1)
    assert "and 1 was given" in capsys.readouterr().err
