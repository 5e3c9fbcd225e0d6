"""Figures inside a page: what a reader's browser gets, and what it turns back into values."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from bmtl.evaluation.report.vectors import colours_of, dark_colours, inline
from bmtl.evaluation.style import FIXED


def figure(scale="linear", label="ew", **look):
    made = Figure(figsize=(4, 3), layout="constrained")
    axes = made.subplots()
    axes.plot([1, 2, 4], [10, 100, 1000], label=label, **look)
    axes.set_yscale(scale)
    return made


def values_of(svg, curve=0):
    """What page.js reads: the points of a curve as values, by the limits of its axes."""
    root = ElementTree.fromstring(svg)
    axes = next(node for node in root.iter("g") if node.get("class") == "axes")
    left, bottom, right, top = map(float, axes.get("data-box").split())
    drawn = [node for node in axes.iter("g") if node.get("class") == "curve"][curve]
    path = drawn.find("path")
    if path is not None:
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.get("d"))]
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
    else:
        points = [(float(use.get("x")), float(use.get("y"))) for use in drawn.iter("use")]
    found = []
    for x, y in points:
        pair = []
        for place, start, end, given in ((x, left, right, axes.get("data-x")), (y, bottom, top, axes.get("data-y"))):
            low, high, scale = given.split()
            share = (place - start) / (end - start)
            low, high = float(low), float(high)
            pair.append(low * (high / low) ** share if scale == "log" else low + share * (high - low))
        found.append(pair)
    return np.array(found), drawn


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("look", [{}, {"marker": "o", "linestyle": "none"}], ids=["line", "dots"])
def test_values_can_be_read_back_from_a_curve(scale, look):
    found, drawn = values_of(inline(figure(scale, **look), "a"))
    np.testing.assert_allclose(found[:, 0], [1, 2, 4], atol=0.01)
    tolerance = {"rtol": 0.01} if scale == "log" else {"atol": 5}
    np.testing.assert_allclose(found[:, 1], [10, 100, 1000], **tolerance)
    assert drawn.get("data-name") == "ew"


def test_equal_figures_are_equal_text_and_ids_of_others_differ():
    first, again, other = (inline(figure(label=label), "a") for label in ("ew", "ew", "uw"))
    assert first == again
    ids = [set(re.findall(r' id="([^"]*)"', text)) for text in (first, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert {name[1:] for name in re.findall(r"#f[\w-]+", first)} <= ids[0]


def test_nothing_reaches_beyond_the_figure():
    """Its own style sheet would be the page's, and namespaces are addresses."""
    text = inline(figure(label="</svg><script>"), "</svg>")
    for unwanted in ("<style", "<metadata", "xmlns", "http", "<script>", "font-family"):
        assert unwanted not in text
    assert ElementTree.fromstring(text).get("aria-label") == "</svg>"


def test_bars_say_their_sizes():
    made = Figure()
    made.subplots().barh([0, 1], [0.25, 0.5], label="ew, aleatoric")
    root = ElementTree.fromstring(inline(made, "a"))
    said = [node.get("data-text") for node in root.iter() if node.get("class") == "bar"]
    assert said == ["ew, aleatoric: 0.25", "ew, aleatoric: 0.5"]


def test_names_of_rows_are_no_values():
    made = figure()
    made.axes[0].set_yticks([10, 100], ["a", "b"])
    axes = next(node for node in ElementTree.fromstring(inline(made, "a")).iter("g") if node.get("class") == "axes")
    assert axes.get("data-x")
    assert axes.get("data-y") is None


def luminance(colour):
    parts = [int(colour[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_dark_page_has_lines_that_are_seen_and_grids_that_are_not_in_the_way():
    text = inline(figure(color="#0072B2"), "a")
    assert {"0072b2", "000000"} <= colours_of(text)
    sheet = dark_colours({"0072b2", "d55e00", "000000", "222222", "e5e5e5", "ffffff"})
    dark = dict(re.findall(r"--c([0-9a-f]{6}): #([0-9a-f]{6});", sheet))
    paper = luminance("14181c")
    contrast = {name: (luminance(colour) + 0.05) / (paper + 0.05) for name, colour in dark.items()}
    assert all(contrast[name] >= 4.5 for name in ("0072b2", "d55e00", "000000", "222222"))
    assert contrast["e5e5e5"] < 2
    assert dark_colours(set()) == ""


def test_fixed_artists_keep_their_colours():
    made = figure()
    made.axes[0].text(1, 10, "0.5", color="#FFFFFF").set_gid(FIXED)
    assert "ffffff" not in colours_of(inline(made, "a"))


def test_cells_of_a_heat_map_say_their_values():
    made = Figure(figsize=(4, 3), layout="constrained")
    axes = made.subplots()
    values = np.array([[0.25, -0.5, np.nan], [1.0, 0.125, 0.0]])
    axes.imshow(values)
    axes.set_xticks(range(3), ["x", "y", "z"])
    axes.set_yticks(range(2), ["a", "b"])
    root = ElementTree.fromstring(inline(made, "a"))
    cells = {node.get("data-text"): node for node in root.iter("rect") if node.get("class") == "cell"}
    assert list(cells) == ["a, x: 0.25", "a, y: \N{MINUS SIGN}0.5", "b, x: 1", "b, y: 0.125", "b, z: 0"]
    box = axes.get_window_extent().transformed(made.dpi_scale_trans.inverted())
    assert float(cells["b, z: 0"].get("x")) == pytest.approx(72 * (box.x0 + 2 / 3 * box.width), abs=0.1)
    axes.set_xticks([0, 2], ["x", "z"])  # not every column has a name
    assert "cell" not in inline(made, "a")


def test_axes_without_values_are_drawn_too():
    made = Figure()
    left, right = made.subplots(1, 2)
    left.set_axis_off()
    left.imshow([[1.0]])
    right.plot([0, 1], [0, 1], label="ew")
    assert "data-box" in inline(made, "a")
