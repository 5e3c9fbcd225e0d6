import importlib.util
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "own_model.py"


def test_the_example_runs(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("own_model", SCRIPT)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(sys, "argv", ["own_model.py", "--epochs", "1"])
    example.main()
    assert "homo" in capsys.readouterr().out
