import importlib.util
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "weights_over_time.py"


def test_the_picture_is_drawn(monkeypatch, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("weights_over_time", SCRIPT)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    picture = tmp_path / "weights.png"
    arguments = ["--out", str(picture), "--epochs", "1", "--balancers", "ew,igb-v1"]
    monkeypatch.setattr(sys, "argv", ["weights_over_time.py", *arguments])
    example.main()
    assert picture.stat().st_size > 10_000
    assert "igb-v1: 1" in capsys.readouterr().out
