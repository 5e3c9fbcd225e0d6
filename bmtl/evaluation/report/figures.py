"""Matplotlib figures as part of a page: drawn into the text, with words that say how to read them."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from bmtl.evaluation.report.markup import Markup, details, element, paragraph
from bmtl.evaluation.report.vectors import inline

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
        folded: Title -> what makes one that is folded away below, such as further targets.
    """

    title: str
    caption: str
    draw: Callable[[], Figure]
    also: Sequence[Callable[[], Figure]] = ()
    folded: Sequence[tuple[str, Callable[[], Figure]]] = ()

    def markup(self, largest: int = LARGEST) -> Markup:
        """The figures in the page; where one cannot be drawn, the reason in its place.

        Args:
            largest: Bytes of a figure as vectors; one with more is pixels where that is smaller.
        """
        return element(
            "figure",
            element("h3", self.title),
            element("figcaption", self.caption),
            _box(self.title, [self.draw, *self.also], largest),
            *(details(title, _box(f"{self.title}: {title}", [draw], largest)) for title, draw in self.folded),
            class_="picture",
        )


def _box(title: str, draws: Sequence[Callable[[], Figure]], largest: int) -> Markup:
    drawn = [_image(draw, f"{title} ({i})" if i else title, largest) for i, draw in enumerate(draws)]
    several = "scroll several" if len(drawn) > 1 else "scroll"
    return element("div", *drawn, class_=several, tabindex=0, role="region", aria_label=title)


def _image(draw: Callable[[], Figure], title: str, largest: int) -> Markup:
    try:
        figure = draw()
    except ValueError as error:
        return paragraph(f"Not drawn. {error}", class_="undrawn")
    vectors = inline(figure, title)
    if len(vectors) <= largest:
        return vectors
    pixels = _pixels(figure, title)
    return pixels if len(pixels) < len(vectors) else vectors


def _pixels(figure: Figure, title: str) -> Markup:
    """The figure as an image, on a background of its own: a dark page does not change it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=PIXELS, facecolor="white", metadata={"Software": None})
    address = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
    return element("img", src=address, alt=title, width=round(96 * figure.get_figwidth()))
