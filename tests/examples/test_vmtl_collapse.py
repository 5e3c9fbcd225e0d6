import pandas as pd
import pytest


def test_the_picture_is_drawn(example, start, tmp_path):
    printed = start("--quick", "--out", tmp_path)
    assert (tmp_path / "vmtl_collapse.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(tmp_path / "vmtl_collapse.csv")
    assert table["prior"].tolist() == list(example.PRIORS)
    assert all(float(cell.split(" ± ")[0]) > 0 for cell in table["sd at last"])
    assert all(f"| {prior} " in printed for prior in example.PRIORS)


@pytest.mark.parametrize("option", ["--steps", "--data-sets"])
def test_too_few_are_refused(start, capsys, option):
    with pytest.raises(SystemExit):
        start(option, 1)
    assert f"{option} is a number" in capsys.readouterr().err
