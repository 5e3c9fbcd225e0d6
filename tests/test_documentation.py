"""The Python blocks of the README and of the documentation run, one after the other in one process, with short trainings."""

import os
import re
from pathlib import Path

import matplotlib as mpl
import pyro
import pytest
import torch

REPOSITORY = Path(__file__).parents[1]
DATA = "../shared/data"
TUTORIALS = ("own_model", "table", "choosing", "diagnostics", "molecules", "times_and_counts")
PAGES = ["README.md", "docs/index.md", "docs/howto.md", *(f"docs/tutorials/{name}.md" for name in TUTORIALS)]


def blocks(page: str) -> list[str]:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return re.findall(r"^```(?:python|\{code-cell\})\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def short(code: str, root: Path) -> str:
    """The same with one epoch, two turns of a loop and five draws, on the data that are here."""
    for pattern, small in (
        (r"epochs=\d+", "epochs=1"),
        (r"\brange\(\d+\)", "range(2)"),
        (r"draws=\d+", "draws=5"),
        (r"num_samples=\d+, warmup_steps=\d+", "num_samples=6, warmup_steps=6"),
    ):
        code = re.sub(pattern, small, code)
    return code.replace(DATA, root.as_posix())


def test_every_page_with_python_is_tested():
    """But pages of references to the code, whose blocks are parts of programs."""
    pages = [path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs").rglob("*.md")]
    parts = {
        "docs/architecture.md",
        "docs/balancers.md",
        "docs/data.md",
        "docs/mt_enet.md",
        "docs/vmtl.md",
        "docs/igb_qm9.md",
    }
    assert {page for page in pages if blocks(page)} - parts <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_run(page, tmp_path, monkeypatch, capsys):
    root = Path(os.environ.get("BMTL_DATA") or REPOSITORY / DATA)
    if DATA in "".join(blocks(page)) and not root.is_dir():
        pytest.skip(f"there is no data folder {root}")
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    torch.manual_seed(0)
    pyro.clear_param_store()
    names: dict[str, object] = {}
    assert blocks(page)
    for number, code in enumerate(blocks(page), 1):
        exec(compile(short(code, root), f"{page}, block {number}", "exec"), names)
    assert capsys.readouterr().out
