"""Matplotlib figures as part of a page: drawn into the text, with words that say how to read them."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure

from bmtl.evaluation.report.markup import Markup, element, paragraph

LARGEST = 400_000  # bytes of vectors; above it, a figure is many thousand paths, and pixels are smaller and faster
PIXELS = 150  # an inch of a figure that is pixels


@dataclass(frozen=True)
class Picture:
    """A figure to be drawn, or a few that are read alike.

    Attributes:
        title: Above it.
        caption: What one sees and how to read it.
        draw: What makes it.
        also: What makes further ones in the same place.
    """

    title: str
    caption: str
    draw: Callable[[], Figure]
    also: Sequence[Callable[[], Figure]] = ()

    def markup(self) -> Markup:
        """The figures in the page; where one cannot be drawn, the reason in its place."""
        drawn = [_image(draw, self.title) for draw in (self.draw, *self.also)]
        several = "scroll several" if len(drawn) > 1 else "scroll"
        return element(
            "figure",
            element("h3", self.title),
            element("figcaption", self.caption),
            element("div", *drawn, class_=several, tabindex=0, role="region", aria_label=self.title),
            class_="picture",
        )


def _image(draw: Callable[[], Figure], title: str) -> Markup:
    try:
        figure = draw()
    except ValueError as error:
        return paragraph(f"Not drawn. {error}", class_="undrawn")
    width = round(96 * figure.get_figwidth())  # an inch of a page
    return element("img", src=_address(figure), alt=title, width=width)


def _address(figure: Figure) -> str:
    """The figure as a ``data:`` address: vectors, or pixels where these are much smaller. Equal figures, equal text."""
    with mpl.rc_context({"svg.hashsalt": "bmtl"}):
        vectors = io.BytesIO()
        figure.savefig(vectors, format="svg", metadata={"Date": None})
    kind, content = "svg+xml", vectors.getvalue()
    if len(content) > LARGEST:
        pixels = io.BytesIO()
        figure.savefig(pixels, format="png", dpi=PIXELS, metadata={"Software": None})
        if len(pixels.getvalue()) < len(content):
            kind, content = "png", pixels.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
