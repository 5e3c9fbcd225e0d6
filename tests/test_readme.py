"""The Python blocks of the README run, one after the other in one process, with short trainings."""

import os
import re
import runpy
from pathlib import Path

import matplotlib as mpl
import pytest
import torch

REPOSITORY = Path(__file__).parents[1]
TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
DATA = "../shared/data"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def short(code: str, root: Path) -> str:
    """The same with one epoch, two turns of a loop and five draws, on the data that are here."""
    for pattern, small in ((r"epochs=\d+", "epochs=1"), (r"\brange\(\d+\)", "range(2)"), (r"draws=\d+", "draws=5")):
        code = re.sub(pattern, small, code)
    return code.replace(DATA, root.as_posix())


def test_the_blocks_run(tmp_path, monkeypatch, capsys):
    root = Path(os.environ.get("BMTL_DATA") or REPOSITORY / DATA)
    if DATA in "".join(blocks()) and not root.is_dir():
        pytest.skip(f"there is no data folder {root}")
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    torch.manual_seed(0)
    # The README leaves out the imports of its first block, which is this example.
    names = runpy.run_path(str(REPOSITORY / "examples" / "own_model.py"), run_name="own_model")
    assert blocks()
    for number, code in enumerate(blocks(), 1):
        exec(compile(short(code, root), f"README.md, block {number}", "exec"), names)
    assert "homo" in capsys.readouterr().out
