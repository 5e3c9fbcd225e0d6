import pytest

from bmtl.datasets import MultiTaskData, describe, load, names, qm9_mini


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
    with pytest.raises(TypeError, match="'qm9-mini' does not know the option 'fold'; it has no options"):
        load("qm9-mini", fold=0)


def test_names_and_families_are_described():
    described = describe()
    assert list(described)[: len(names())] == sorted(names())
    assert list(described)[len(names()) :] == ["uci/<name>", "npz:<path>", "csv:<folder>"]
    assert all(reader.summary for reader in described.values())
    assert [name for name, reader in described.items() if not reader.files] == ["qm9-mini"]


@pytest.mark.parametrize("name", ["uci/", "npz:", "uci", "csv"])
def test_a_family_needs_a_name(name):
    with pytest.raises(
        ValueError, match=f"no data set '{name}'. The names are: .*uci/<name>, npz:<path>, csv:<folder>"
    ):
        load(name)


def test_options_of_a_family_are_those_of_its_reader():
    with pytest.raises(TypeError, match="'uci/energy' does not know the option 'fold'; its options are: split, valid"):
        load("uci/energy", fold=0)


def test_root_reaches_the_reader(tmp_path):
    with pytest.raises(FileNotFoundError, match=qm9_mini.TABLE):
        load("qm9-mini", root=tmp_path)
