import pytest

from bmtl.datasets import MultiTaskData, load, names, qm9_mini


@pytest.mark.parametrize("name", names())
def test_every_name_loads_without_options(name):
    data = load(name)
    assert isinstance(data, MultiTaskData)
    assert data.name == name
    assert data.citation
    assert data.licence


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="no data set 'qm9'. The names are: .*qm9-mini"):
        load("qm9")


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="'qm9-mini' does not know the option 'fold'; it has no options"):
        load("qm9-mini", fold=0)


def test_root_reaches_the_reader(tmp_path):
    with pytest.raises(FileNotFoundError, match=qm9_mini.TABLE):
        load("qm9-mini", root=tmp_path)
