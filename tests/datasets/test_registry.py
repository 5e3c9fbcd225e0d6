import sys

import numpy as np
import pytest

from bmtl.datasets import MultiTaskData, Reader, describe, load, names, qm9_mini, register, registry
from bmtl.datasets.registry import reader_of


@pytest.mark.parametrize("name", names())
def test_every_name_loads_without_options(name, data_root):
    files = describe()[name].files
    data = load(name, root=data_root(files) if files else None)
    assert isinstance(data, MultiTaskData)
    assert data.name == name
    assert data.citation
    assert data.licence


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="no data set 'qm9'.*The names are: .*qm9-mini"):
        load("qm9")


def test_an_unknown_name_is_answered_with_one_like_it():
    with pytest.raises(ValueError, match=r"no data set 'qm9_mini'\. Did you mean 'qm9-mini'\? The names are"):
        load("qm9_mini")
    with pytest.raises(ValueError, match=r"no data set 'xyz'\. The names are"):
        load("xyz")


def test_an_unknown_option_is_named():
    with pytest.raises(
        TypeError, match="'qm9-mini' does not know the option 'fold'. Its options are: energies, residual"
    ):
        load("qm9-mini", fold=0)
    with pytest.raises(TypeError, match="does not know the option 'fold'. It has no options"):
        load(Reader(lambda root=None: None, "nothing"), fold=0)


def test_names_and_families_are_described():
    described = describe()
    assert list(described)[: len(names())] == sorted(names())
    assert list(described)[len(names()) :] == ["uci/<name>", "npz:<path>", "csv:<path>"]
    assert all(reader.summary for reader in described.values())
    assert [name for name, reader in described.items() if not reader.files] == ["qm9-mini"]


@pytest.mark.parametrize("name", ["uci/", "npz:", "uci", "csv"])
def test_a_family_needs_a_name(name):
    with pytest.raises(ValueError, match=f"no data set '{name}'. The names are: .*uci/<name>, npz:<path>, csv:<path>"):
        load(name)


def test_options_of_a_family_are_those_of_its_reader():
    with pytest.raises(TypeError, match="'uci/energy' does not know the option 'fold'. Its options are: split, valid"):
        load("uci/energy", fold=0)


def test_root_reaches_the_reader(tmp_path):
    with pytest.raises(FileNotFoundError, match=qm9_mini.TABLE):
        load("qm9-mini", root=tmp_path)


def own(root=None, *, rows: int = 10) -> MultiTaskData:
    """A line of numbers.

    Args:
        root: Not used.
        rows: How many.
    """
    return MultiTaskData.from_arrays(
        "own", np.arange(float(rows))[:, None], {"y": np.arange(rows)}, {"train": [0, 1, 2]}
    )


def family(rest, root=None, *, rows: int = 10) -> MultiTaskData:
    """Lines of numbers."""
    return own(rows=rows + int(rest))


@pytest.fixture
def registered():
    """A function: `register`, undone afterwards."""
    before = dict(registry.READERS)
    yield register
    registry.READERS.clear()
    registry.READERS.update(before)


def test_a_reader_of_one_s_own_has_a_name(registered):
    registered("mine", own)
    registered("lines/", Reader(family, rest="<n>"))
    assert len(load("mine", rows=7).inputs) == 7
    assert len(load("lines/5").inputs) == 15
    assert "mine" in names()
    assert {"mine", "lines/<n>"} <= set(describe())
    assert describe()["mine"].summary == "A line of numbers."
    with pytest.raises(ValueError, match="a reader of data sets named 'mine' already"):
        registered("mine", family)
    with pytest.raises(
        TypeError, match="'mine' does not know the option 'row'. Did you mean 'rows'. Its options are: rows"
    ):
        load("mine", row=7)


def test_a_reader_is_loaded_without_a_name():
    assert len(load(own, rows=5).inputs) == 5
    assert len(load(Reader(own)).inputs) == 10


def test_installed_packages_announce_readers_that_are_loaded_when_asked_for(tmp_path, monkeypatch):
    (tmp_path / "lines_of_numbers.py").write_text(
        "import sys, numpy as np\nfrom bmtl.datasets import MultiTaskData\n"
        "def read(root=None, *, rows: int = 4):\n    'Four rows.'\n    x = np.arange(float(rows))[:, None]\n"
        "    return MultiTaskData.from_arrays('lines', x, {'y': x[:, 0]}, {'train': [0, 1]})\n"
    )
    info = tmp_path / "lines_of_numbers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lines-of-numbers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[bmtl.datasets]\nlines = lines_of_numbers:read\nbroken = lines_of_numbers:no_such\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert {"lines", "broken"} <= set(names())
    assert "lines_of_numbers" not in sys.modules
    assert len(load("lines", rows=6).inputs) == 6
    with pytest.raises(ValueError, match="The reader of 'broken', lines_of_numbers:no_such, cannot be imported"):
        load("broken")
    described = describe()
    assert described["lines"].summary == "Four rows."
    assert "cannot be imported" in described["broken"].summary
    monkeypatch.delitem(sys.modules, "lines_of_numbers")


def test_options_are_described_by_the_docstring():
    options = {option.name: option for option in reader_of("csv:x")[0].options()}
    assert list(options)[:3] == ["targets", "ignore", "split"]
    assert options["split"].help.startswith("Column of a fixed split: train, val")
    assert options["validation"].default == 0.2
    assert options["decimal"].type == "Literal['point', 'comma'] | None"
    assert [option.name for option in Reader(own).options()] == ["rows"]


@pytest.mark.parametrize("name", ["csv:x", "npz:x", "uci/x", *(n for n in ("qm9-12k", "office-caltech10", "school"))])
def test_every_option_has_its_help(name):
    assert all(option.help for option in reader_of(name)[0].options())
