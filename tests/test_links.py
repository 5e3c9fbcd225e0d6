"""Links of the README and of the documentation: files that are there, and headings of theirs."""

import re
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """The text without blocks and pieces of code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`(?!\])", "", re.sub(r"^    .*$", "", text, flags=re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """Names of a page's headings as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    seen: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        names.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return names


def broken(page: Path) -> list[str]:
    """Links to files or headings that are not there."""
    found = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        if not file.exists() or not file.is_relative_to(REPOSITORY):
            found.append(f"{target}: there is no such file")
        elif anchor and (file.suffix != ".md" or anchor not in anchors(file)):
            found.append(f"{target}: there is no such heading")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_broken_links_are_found(tmp_path, monkeypatch):
    """Of each kind one; links in code are none."""
    monkeypatch.setitem(globals(), "REPOSITORY", tmp_path)
    (tmp_path / "b.md").write_text("# One: two\n\n## `Code` again\n\n## One, two\n")
    page = tmp_path / "a.md"
    page.write_text(
        "# Here\n[a](b.md) [b](b.md#one-two-1) [c](b.md#code-again) [d](#here) [e](https://example.org/x) `[f](no.md)`\n"
        "[g](c.md) [h](b.md#three) [i](#there) ![j](no.png) [`k`](../outside.md)\n\n    [l](no.md)\n"
    )
    assert [line.partition(":")[0] for line in broken(page)] == [
        "c.md",
        "b.md#three",
        "#there",
        "no.png",
        "../outside.md",
    ]


def test_the_citation_file_has_the_version_and_the_licence():
    text = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^(\S+): (.+)$", text, flags=re.MULTILINE))
    version = re.search(r'__version__ = "([^"]+)"', (REPOSITORY / "bmtl" / "__init__.py").read_text(encoding="utf-8"))
    assert version is not None
    assert fields["version"] == version[1]
    assert fields["license"] == "Apache-2.0"
    assert fields["cff-version"] == "1.2.0"
