"""The tables of the documentation are those of the files that the commands beside them wrote."""

from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page for page in DOCS.glob("*.md") if "<!-- results/" in page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_those_of_the_files(example, page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- results/") == len(example.PLACE.findall(text))  # none is written another way
    assert example.filled(text, DOCS) == text


def test_every_table_of_these_pages_is_on_one(example):
    """But those that other pages have, which may keep theirs in another form."""
    shown = {file for page in PAGES for file, *_ in example.PLACE.findall(page.read_text(encoding="utf-8"))}
    kept = {
        f"results/{file.name}"
        for name in ("vmtl", "mt_enet_c", "mt_enet_u", "comparisons")
        for file in DOCS.glob(f"results/{name}*")
    }
    assert kept <= shown


def test_a_changed_number_is_written_anew(example, start, tmp_path, monkeypatch):
    table = example.keep(
        tmp_path / "results" / "a.csv", ["method", "kind", "RMSE"], [["x", "a|b", 1.5], ["y", "c", "−2 ± 1"]], 2
    )
    page = "# Page\n\n<!-- results/a.csv left 2 -->\n\n" + table + "\n\nText.\n"
    assert example.filled(page, tmp_path) == page
    empty = "# Page\n\n<!-- results/a.csv left 2 -->\n\nText.\n"
    (tmp_path / "page.md").write_text(page.replace("1.5", "1.6"), encoding="utf-8")
    assert start(tmp_path / "page.md").endswith("page.md: 1 tables.\n")
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == page
    assert example.filled(empty, tmp_path) == page
    assert example.read(tmp_path / "results" / "a.csv")[1] == ["x", "a|b", "1.5"]
    (tmp_path / "table.md").write_text(f"Caption.\n\n{table}\n\nMore.", encoding="utf-8")
    start("--take", tmp_path / "table.md", tmp_path / "b.csv")
    assert example.read(tmp_path / "b.csv") == example.read(tmp_path / "results" / "a.csv")
    with pytest.raises(ValueError, match="no table in the text"):
        example.taken("Nothing.")
    with pytest.raises(SystemExit, match="Give the pages"):
        start()
