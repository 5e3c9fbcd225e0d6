"""The whole page: sections under one another, with everything that they need in the one file."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from bmtl.evaluation.report.markup import Markup, element, fragment, paragraph
from bmtl.evaluation.report.vectors import colours_of, dark_colours

# Also holds a browser to it: nothing is fetched from anywhere.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: Its place in the page's address, letters and dashes.
        title: Above it.
        body: Its content; a section without any is left out.
    """

    name: str
    title: str
    body: Sequence[Markup]


def page(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """The page as text, ready to be written."""
    shown = [section for section in sections if any(section.body)]
    content = [_section(section) for section in shown]
    links = [element("a", section.title, href=f"#{section.name}") for section in shown]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", title),
        element("style", _file("page.css"), Markup(dark_colours(colours_of("".join(map(str, content)))))),
    )
    body = element(
        "body",
        element("header", element("h1", title), paragraph(subtitle, class_="subtitle")),
        element("nav", *links, aria_label="Sections"),
        element("main", *content),
        element("footer", paragraph(footer)),
        element("script", _file("page.js")),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _section(section: Section) -> Markup:
    return element("section", element("h2", section.title), fragment(*section.body), id=section.name)


def _file(name: str) -> Markup:
    return Markup(files("bmtl.evaluation.report").joinpath(name).read_text(encoding="utf-8"))
