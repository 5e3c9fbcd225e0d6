"""A matplotlib figure as SVG that is part of a page: its text and colours follow the page, and values show on hover."""

import io
import re
from collections.abc import Iterator
from hashlib import sha256
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FuncFormatter

from bmtl.evaluation.report.markup import Markup
from bmtl.evaluation.style import FIXED

# `page.js` shows the values: `page.css` has the colours of a dark page, by the names that `dark_colours` gives them.
MOST_CELLS = 900  # of a heat map that say their values
NAMES = (FixedFormatter, FuncFormatter)  # ticks with names of their own: places on such an axis are no values
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_REFERENCE = re.compile(r"(?:url\(|^)#([\w.-]+)")
_AXES, _CURVE, _BAR = "axes", "curve", "bar"
_LEFT_OUT = {"metadata", "style", "title"}
_EXACT = {"d", "x", "y", "width", "height", "transform", "points", "viewBox"}  # attributes that hold coordinates


def inline(figure: Figure, title: str) -> Markup:
    """The figure as an ``svg`` element without a background, which it loses. Equal figures of one title give equal text.

    Axes, curves and bars say what page.js needs to turn places into values: limits and scales of the axes, the names of
    lines (their labels) and the values of bars. Colours become variables with the drawn colour as the default.

    Args:
        figure: What is drawn.
        title: What it shows, for readers that do not see it. Figures of a page with equal content have different titles.
    """
    described = dict(_described(figure))
    drawn = io.StringIO()
    patches = [figure.patch, *(part.patch for part in figure.subfigs), *(axes.patch for axes in figure.axes)]
    for patch in patches:
        patch.set(facecolor="none", edgecolor="none")
    with mpl.rc_context({"svg.hashsalt": "bmtl", "svg.fonttype": "none"}):
        # `savefig` would draw everything once more before, for the layout.
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None})
    boxes = dict(_boxes(figure))  # the layout is known once it is drawn
    name = (
        "f" + sha256(f"{title}{described}{drawn.getvalue()}".encode()).hexdigest()[:8]
    )  # ids of a page's figures differ
    root = ElementTree.fromstring(drawn.getvalue())
    texts = (value for node in root.iter() for value in node.attrib.values() if not value.startswith("data:"))
    referenced = dict.fromkeys(found for value in texts for found in _REFERENCE.findall(value))
    ids = {found: f"{name}-{place}" for place, found in enumerate(referenced)}
    made = _rewritten(root, ids, described, boxes, False)
    drawn_axes = {node.get("data-box"): node for node in made.iter("g") if node.get("class") == _AXES}
    for i, axes in enumerate(figure.axes):
        box = boxes.get(f"{_AXES}{i}", {}).get("data-box", "")
        if box in drawn_axes:
            drawn_axes[box].extend(_cells(axes, [float(end) for end in box.split()]))
    made.attrib |= {"width": f"{96 * figure.get_figwidth():.0f}", "role": "img", "aria-label": title}
    del made.attrib["height"]
    return Markup(ElementTree.tostring(made, encoding="unicode"))


def colours_of(text: str) -> set[str]:
    """The colours of a page's figures that have another where the page is dark."""
    return set(re.findall(r"var\(--c([0-9a-f]{6}),", text))


def dark_colours(colours: set[str]) -> str:
    """Style sheet that replaces these colours on a dark page: greys are turned over, others are as light as it takes."""
    lines = [f"--c{colour}: #{_dark(colour)};" for colour in sorted(colours)]
    return f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {' '.join(lines)} }} }}" if lines else ""


def _described(figure: Figure) -> Iterator[tuple[str, dict[str, str]]]:
    """Gives artists an id, and says what a reader may want to know of each."""
    for i, axes in enumerate(figure.axes):
        yield from _with_id(axes, f"{_AXES}{i}", {"class": _AXES})
        for k, line in enumerate(axes.lines):
            label = str(line.get_label())
            if not label.startswith("_"):
                yield from _with_id(line, f"{_CURVE}{i}-{k}", {"class": _CURVE, "data-name": label})
        for k, bars in enumerate(axes.containers):
            if isinstance(bars, BarContainer) and not str(bars.get_label()).startswith("_"):
                for m, patch in enumerate(bars.patches):
                    said = f"{bars.get_label()}: {_size(patch, bars.orientation):.4g}"
                    yield from _with_id(patch, f"{_BAR}{i}-{k}-{m}", {"class": _BAR, "data-text": said})


def _with_id(artist: Artist, name: str, about: dict[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    artist.set_gid(name)
    yield name, about


def _size(patch: Rectangle, orientation: str | None) -> float:
    return float(patch.get_width() if orientation == "horizontal" else patch.get_height())


def _boxes(figure: Figure) -> Iterator[tuple[str, dict[str, str]]]:
    """Where the axes are in the drawing, and which values their edges have; those alone whose values have a meaning."""
    height = 72 * figure.get_figheight()
    for i, axes in enumerate(figure.axes):
        place = axes.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        ends = [72 * place.x0, height - 72 * place.y0, 72 * place.x1, height - 72 * place.y1]
        box = {"data-box": " ".join(f"{end:.1f}" for end in ends)}
        for side, axis, limits in (("x", axes.xaxis, axes.get_xlim()), ("y", axes.yaxis, axes.get_ylim())):
            scale = axis.get_scale()
            if scale in ("linear", "log") and not isinstance(axis.get_major_formatter(), NAMES):
                box[f"data-{side}"] = " ".join((*(f"{end:.6g}" for end in limits), scale))
        if _has_values(axes):
            yield f"{_AXES}{i}", box


def _cells(axes: Axes, box: list[float]) -> Iterator[ElementTree.Element]:
    """Invisible rectangles over a heat map's cells that say names and value, where each row and column has a name."""
    if not axes.images:
        return
    values: np.ndarray = np.asarray(np.ma.filled(np.ma.asarray(axes.images[0].get_array()), np.nan))
    rows, columns = ([text.get_text() for text in of] for of in (axes.get_yticklabels(), axes.get_xticklabels()))
    if values.ndim != 2 or values.shape != (len(rows), len(columns)) or values.size > MOST_CELLS:
        return
    left, bottom, right, top = box
    width, height = (right - left) / len(columns), (bottom - top) / len(rows)
    for (i, k), value in np.ndenumerate(values):
        if np.isfinite(value):
            at = {"x": left + k * width, "y": top + i * height, "width": width, "height": height}
            given = {name: f"{size:.1f}" for name, size in at.items()}
            said = f"{rows[i]}, {columns[k]}: {value:.3g}".replace("-", "\N{MINUS SIGN}")
            yield ElementTree.Element("rect", {**given, "class": "cell", "data-text": said})


def _has_values(axes: Axes) -> bool:
    return axes.axison and axes.get_visible()


def _rewritten(
    node: ElementTree.Element,
    ids: dict[str, str],
    described: dict[str, dict[str, str]],
    boxes: dict[str, dict[str, str]],
    fixed: bool,
) -> ElementTree.Element:
    """The element without namespaces, with unique ids, short numbers and colours of the page."""
    given = {key.rpartition("}")[2]: value for key, value in node.attrib.items()}
    own = given.get("id", "")
    fixed = fixed or own == FIXED
    found: dict[str, str] = {}
    for key, value in given.items():
        if key == "id":
            if own in ids:
                found["id"] = ids[own]
        elif key == "href" and value.startswith("data:"):
            found[key] = value
        elif key in ("href", "clip-path"):
            found[key] = _renamed(value, ids)
        elif key == "style":
            found[key] = _style(value, ids, fixed)
        elif key == "transform" and value.startswith("rotate(-0 "):
            continue
        elif key in _EXACT:
            found[key] = " ".join(_NUMBER.sub(_short, value).split())
            if key == "d":
                found[key] = _short_path(found[key])
        elif key not in ("version", "type", "width", "height"):
            found[key] = value
    found |= described.get(own, {}) | boxes.get(own, {})
    if own == FIXED:
        found["style"] = "fill: #000000"  # black is the default, which follows the page
    made = ElementTree.Element(node.tag.rpartition("}")[2], found)
    made.text = node.text if node.text and node.text.strip() else None
    for child in node:
        if child.tag.rpartition("}")[2] not in _LEFT_OUT:
            inner = _rewritten(child, ids, described, boxes, fixed)
            while inner.tag == "g" and not inner.attrib and len(inner) == 1:
                inner = inner[0]
            if len(inner) or inner.tag not in ("defs", "g"):
                made.append(inner)
    return _without_repetition(made)


def _without_repetition(node: ElementTree.Element) -> ElementTree.Element:
    """A group of uses of one marker has their common style itself."""
    uses = node.findall("use")
    styles = {use.get("style") for use in uses}
    if node.tag == "g" and len(uses) > 1 and len(styles) == 1 and "style" not in node.attrib:
        style = styles.pop()
        if style is not None and len(uses) == len([child for child in node if child.tag != "defs"]):
            node.set("style", style)
            for use in uses:
                del use.attrib["style"]
    return node


def _renamed(value: str, ids: dict[str, str]) -> str:
    return _REFERENCE.sub(lambda found: found[0].replace(found[1], ids[found[1]]), value)


def _style(value: str, ids: dict[str, str], fixed: bool) -> str:
    """Declarations without the family of fonts, which is the page's, and without spaces."""
    parts = [part.strip().replace(": ", ":") for part in value.split(";") if "font-family" not in part]
    parts = [_renamed(part, ids) if "url(" in part else part for part in parts if part]
    text = ";".join(parts)
    return text if fixed else _COLOUR.sub(lambda found: f"var(--c{found[0][1:]},{found[0]})", text)


def _short_path(path: str) -> str:
    """The same path: after M or L, further lines need no letter, and letters no spaces."""
    words, last = [], ""
    for word in path.split():
        if word.isalpha():
            if word == "L" and last in ("M", "L"):
                last = "L"
                continue
            last = word
        words.append(word)
    return re.sub(r" ?([A-Za-z]) ?", r"\1", " ".join(words))


def _short(found: re.Match[str]) -> str:
    return f"{float(found[0]):.1f}".rstrip("0").rstrip(".")


def _dark(colour: str) -> str:
    parts = [int(colour[k : k + 2], 16) for k in (0, 2, 4)]
    if max(parts) - min(parts) < 16:
        return f"{round(228 - max(parts) * 200 / 255):02x}" * 3
    white = 0.0
    while _contrast(mixed := [part + white * (255 - part) for part in parts]) < 5 and white < 1:
        white += 0.05
    return "".join(f"{round(part):02x}" for part in mixed)


def _contrast(parts: list[float], paper: float = 0.0091) -> float:
    """Contrast to the paper of a dark page (WCAG 2.1), whose relative luminance is `paper`."""
    linear = [(p / 255) / 12.92 if p <= 10 else ((p / 255 + 0.055) / 1.055) ** 2.4 for p in parts]
    return (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05) / (paper + 0.05)
