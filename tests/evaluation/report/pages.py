"""A page read back: is it well formed, what do its tables hold, and does it ask for anything from outside?"""

import csv
import io
import re
from html.parser import HTMLParser
from urllib.parse import unquote

VOID = {"br", "img", "link", "meta"}


class Page(HTMLParser):
    """Tags that do not close as they opened, all attributes, text by element, tables as rows of (text, key, classes)."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.faults, self.tags, self.ids, self.ids_of = [], [], [], [], []
        self.tables, self.captions, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> stays open" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [given["id"]] if "id" in given else []
        self.ids_of += [(tag, given["id"])] if "id" in given else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(["", given.get("data-key"), given.get("class") or ""])
        elif tag == "figcaption":
            self.captions.append("")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()} closes another")

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1][0] += data
        if "figcaption" in self.open:
            self.captions[-1] += data
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def sections(self):
        return [name for tag, name in self.ids_of if tag == "section"]

    def downloads(self):
        """Each table's file as rows of text."""
        hrefs = [value for tag, name, value in self.attributes if name == "href" and value.startswith("data:text/csv")]
        return [list(csv.reader(io.StringIO(unquote(href.partition(",")[2])))) for href in hrefs]

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def table(self, *names):
        """The first table whose header begins with these names, as text -> {column: (text, key, classes)}."""
        for table in self.tables:
            header = [cell[0] for cell in table[0]]
            if header[: len(names)] == list(names):
                return {row[0][0]: dict(zip(header, map(tuple, row), strict=True)) for row in table[1:]}
        raise AssertionError(f"no table {names} among {[[cell[0] for cell in table[0]] for table in self.tables]}")


def check(text):
    """The page, after a check of what every page must be."""
    page = Page(text)
    assert page.faults == []
    assert text.startswith("<!DOCTYPE html>")
    assert len(page.ids) == len(set(page.ids))
    for table in page.tables:
        assert {len(row) for row in table} == {len(table[0])}
    addresses = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert all(address.startswith(("data:image/", "data:text/csv", "#")) for address in addresses)
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(page.ids)
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert page.tags.count("script") == page.tags.count("style") == page.tags.count("title") == 1
    assert all(value for tag, name, value in page.attributes if tag == "img" and name == "alt")
    assert len(text) < 5_000_000
    for words in ("http:", "https:", "@import"):
        assert words not in text
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert text.count("url(") == text.count("url(#")
    return page
