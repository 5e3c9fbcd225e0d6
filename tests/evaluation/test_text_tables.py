import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmtl.evaluation.comparison import best, caption, compare, standard_error, table
from bmtl.evaluation.text_tables import entry, to_latex, to_markdown, to_text


@pytest.fixture
def grid(make_tree):
    errors = {"stl": 0.1, "e_w": 0.9, "uw": 0.3}
    return {
        (method, split): make_tree(seed=split, variant=number, error=error, rows=100)
        for number, (method, error) in enumerate(errors.items())
        for split in range(4)
    }


def rows_of(markdown):
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize(
    ("mean", "error", "text"),
    [
        (0.12345, 0.0067, "0.1235 ± 0.0067"),
        (-12.345, 0.67, "−12.35 ± 0.67"),
        (1234.5, 67.0, "1234 ± 67"),
        (0.12345, np.nan, "0.123"),
        (0.12345, 0.0, "0.123"),
        (12345.6, np.nan, "12346"),
        (np.nan, np.nan, "–"),
        (np.inf, np.nan, "∞"),
        (-np.inf, np.nan, "−∞"),
        (0.0, np.nan, "0"),
        (2.0, 0.0996, "2.000 ± 0.100"),
        (1.07254824819, 5e-17, "1.07"),
        (172.98231, 0.032, "172.982 ± 0.032"),
        (8.3333389, 2e-6, "8.33334 ± 2.0e−6"),
        (-1.3092949895e-6, 2.4e-15, "−0.00000130929 ± 2.4e−15"),
        (1234567.8, 0.25, "1234568 ± 2.5e−1"),
        (0.0, 2e-6, "0.0000000 ± 0.0000020"),
    ],
)
def test_entries(mean, error, text):
    assert entry(mean, error) == text


@settings(deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e3))
def test_an_entry_is_right_to_a_twentieth_of_its_error(mean, error):
    shown, deviation = (float(part.replace("−", "-")) for part in entry(mean, error).split(" ± "))
    assert abs(shown - mean) <= max(error / 15, 0.5)
    assert abs(deviation - error) <= max(error / 15, 0.5)


def test_markdown_holds_the_table(grid):
    data = compare(grid, reference="e_w")
    text = to_markdown(data)
    header, rule, *body = rows_of(text)
    frame, errors, marks = table(data), standard_error(data), best(data)
    assert header == ["method", "delta_m [%] ↓", "T", *(f"{name} ↓" for name in frame.columns[2:])]
    assert all(re.fullmatch("-+:?", cell) for cell in rule)
    assert [row[0] for row in body] == ["stl", "e_w", "uw"]
    for row in body:
        for cell, name in zip(row[1:], frame.columns, strict=True):
            expected = entry(frame.loc[row[0], name], errors.loc[row[0], name])
            assert cell == (f"**{expected}**" if marks.loc[row[0], name] else expected)
    assert marks.any(axis=None)
    assert caption(data).replace("Marked:", "In bold:") in text
    assert "In bold: not significantly worse" in text
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1


def test_methods_as_columns_is_the_transpose(grid):
    data = compare(grid, reference="e_w")
    rows, columns = rows_of(to_markdown(data)), rows_of(to_markdown(data, methods="columns"))
    del rows[1], columns[1]
    assert [row[1:] for row in columns[1:]] == np.array([row[1:] for row in rows[1:]]).T.tolist()
    assert columns[0] == ["score", "stl", "e_w", "uw"]
    with pytest.raises(ValueError, match="expected 'rows' or 'columns'"):
        to_markdown(data, methods="both")


def test_latex_is_balanced_and_escaped(grid):
    data = compare(grid, reference="e_w")
    text = to_latex(data, label="tab:one")
    tabular = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(tabular) == 3
    columns = len(table(data).columns)
    assert all(line.count("&") == columns and line.endswith(r"\\") for line in tabular)
    assert rf"\begin{{tabular}}{{l{'r' * columns}}}" in text
    assert r"e\_w" in text
    assert r"\textbf{" in text
    assert r"delta\_m [\%] $\downarrow$" in text
    assert r"\label{tab:one}" in text
    assert text.isascii()
    depth = np.cumsum([(sign == "{") - (sign == "}") for sign in text.replace(r"\{", "").replace(r"\}", "")])
    assert depth.min() == 0
    assert depth[-1] == 0
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1


def test_units_and_holes_and_one_split(make_tree, eleven):
    data = compare({("ew", 0): make_tree(targets=eleven)}, baseline=None)
    latex, markdown = to_latex(data), to_markdown(data)
    assert "MAE r2 [bohr$^2$]" in latex
    assert "MAE alpha [bohr³]" in markdown
    assert "±" not in markdown
    assert "**" not in markdown
    assert "delta_m" not in markdown  # no baseline, no change


def test_nothing_in_bold_has_no_legend(grid):
    two = {cell: tree for cell, tree in grid.items() if cell[1] < 2}
    for render, bold in ((to_markdown, "**"), (to_latex, r"\textbf"), (to_text, "*")):
        text = render(compare(two, reference="e_w"))
        assert bold not in text
        assert "not significantly worse" not in text
        assert "Two runs are too few to compare methods" in " ".join(text.split())


# ---- Terminal --------------------------------------------------------------------------------------------------------

LONG = "igb-v1 >> last-layer >> nash-mtl"
NUMBER = re.compile(r"^\*?−?[\d,]*\.?\d+( ± [\d,]*\.?\d+(e−?\d+)?)?$|^–$|^\*?−?∞$")


def tables_of(text):
    """Title -> rows of cells; cells are divided by two spaces or more."""
    found, lines = {}, text.splitlines()
    for i, line in enumerate(lines):
        if set(line) == {"-"}:
            rows = []
            for row in lines[i - 1 : i] + lines[i + 1 :]:
                if not row:
                    break
                rows.append(re.split(r"\s{2,}", row.strip()))
            found.setdefault(lines[i - 2], []).extend(rows)
    return found


@pytest.mark.parametrize("targets", [("mu",), "eleven", "fourteen"])
def test_no_number_and_no_name_is_broken_at_any_width(make_tree, eleven, targets):
    names = {"eleven": eleven, "fourteen": tuple(f"t{i}" for i in range(14))}.get(targets, targets)
    grid = {
        (method, seed): make_tree(
            targets=names,
            rows=20,
            draws=2,
            steps=2,
            cosine=False,
            seed=seed,
            variant=number,
            error=error,
            posterior=None,
        )
        for number, (method, error) in enumerate({"stl": 0.001, "ew": 0.4, LONG: 0.3}.items())
        for seed in range(3)
    }
    data = compare(grid)
    frame, errors = table(data), standard_error(data)
    expected = {entry(frame.loc[m, name], errors.loc[m, name]) for m in frame.index for name in frame.columns}
    for width in (40, 80, 200):
        text = to_text(data, width=width)
        cells = {cell for rows in tables_of(text).values() for row in rows for cell in row}
        assert cells >= set(frame.index)
        assert {cell.removeprefix("*") for cell in cells} >= expected
        numbers = [cell for cell in cells if cell[0] in "*−–∞0123456789"]
        assert all(NUMBER.match(cell) for cell in numbers), numbers
        # What sticks out is two cells that are wider than the line together: nothing else would fit.
        assert max(map(len, text.splitlines())) <= max(width, 2 * max(map(len, cells)) + 2)


def test_a_terminals_tables_hold_every_column_once(grid):
    data = compare(grid, reference="e_w")
    found = tables_of(to_text(data, width=200))
    assert [*found] == ["Scores on the test rows", "MAE by target"]
    assert found["Scores on the test rows"][0] == ["method", "delta_m [%] ↓", "T", "mean NLL ↓", "mean ECE ↓"]
    assert found["MAE by target"][0] == ["method", "mu [D] ↓", "homo [meV] ↓", "cv [cal/(mol K)] ↓"]
    stars = [cell for rows in found.values() for row in rows for cell in row if cell.startswith("*")]
    assert len(stars) == best(data).to_numpy().sum()
    assert "Starred: not significantly worse than the best" in " ".join(to_text(data).split())


def test_marked_entries_are_bold_and_markup_is_escaped(grid):
    data = compare(grid, reference="e_w")
    text = to_text(data, bold=lambda cell: f"[bold]{cell}[/]", escape=lambda cell: cell.replace("[", r"\["))
    assert re.search(r"\[bold\]\*[−\d]", text)
    assert r"mu \[D]" in text
    plain = text.replace("[bold]", "").replace("[/]", "").replace(r"\[", "[")
    assert plain == to_text(data)  # the alignment is that of the text without markup


def test_mixed_families_are_named_by_their_scores(every_family_grid):
    found = tables_of(to_text(compare(every_family_grid, reference=None), width=300))
    assert "Primary scores by target" in found
    header = " ".join(found["Primary scores by target"][0])
    for name in ("MAE price [EUR] ↓", "AUROC ill ↑", "C days ↑", "energy score force ↓"):
        assert name in header


@pytest.mark.parametrize("width", [60, 200])
def test_references_are_shown_apart(grid, width):
    """Their rows come last, below a rule in text and LaTeX, with names in italics in Markdown; the caption names them."""
    for (method, _), tree in grid.items():
        if method == "stl":  # the first of all, so that the order is not by chance
            tree.attrs["role"] = "reference"
    data = compare(grid, baseline="uw", reference="e_w")
    assert data["learner"].values.tolist() == ["e_w", "uw", "stl"]
    text = to_text(data, width=width)
    assert "References, fitted by scikit-learn: stl." in " ".join(text.split())
    for block in text.split("\n\n")[:-1]:
        lines = block.splitlines()
        if lines[1].startswith("method"):
            assert [set(line) == {"-"} for line in lines[2:]] == [True, False, False, True, False]
            assert lines[-1].startswith("stl")
        else:  # turned: learners are columns
            header = lines[1]
            assert (
                header.index("uw") < header.index("|") < header.index("stl") if "stl" in header else "|" not in header
            )
    latex = to_latex(data).splitlines()
    assert [latex[i - 1] for i, line in enumerate(latex) if line.startswith(r"\emph{stl} &")] == [r"\midrule"]
    names = [row[0] for row in rows_of(to_markdown(data))[2:]]
    assert names == ["e_w", "uw", "*stl*"]
    for tree in grid.values():
        tree.attrs["role"] = "method"
    plain = compare(grid, baseline="uw", reference="e_w")
    assert to_latex(plain).count(r"\midrule") == 1
    assert "References" not in to_text(plain)
    assert "|" not in to_text(plain)
