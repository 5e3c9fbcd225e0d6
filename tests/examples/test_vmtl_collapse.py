import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "vmtl_collapse.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("vmtl_collapse", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_drawn(example, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["vmtl_collapse.py", "--steps", "3", "--out", str(tmp_path)])
    example.main()
    assert (tmp_path / "collapse.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(tmp_path / "collapse.csv")
    assert table["prior"].tolist() == list(example.PRIORS)
    assert (table["sd at last"] > 0).all()
    assert "bound, anchor 0.5: sd" in capsys.readouterr().out


def test_too_few_steps_are_told(example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vmtl_collapse.py", "--steps", "1"])
    with pytest.raises(SystemExit):
        example.main()
    assert "and 1 was given" in capsys.readouterr().err
