import pandas as pd
import pytest


def test_the_picture_is_drawn(example, start, tmp_path):
    printed = start("--steps", 3, "--out", tmp_path)
    assert (tmp_path / "collapse.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(tmp_path / "collapse.csv")
    assert table["prior"].tolist() == list(example.PRIORS)
    assert (table["sd at last"] > 0).all()
    assert "pool, anchor 0.5: sd" in printed


def test_too_few_steps_are_refused(start, capsys):
    with pytest.raises(SystemExit):
        start("--steps", 1)
    assert "and 1 was given" in capsys.readouterr().err
