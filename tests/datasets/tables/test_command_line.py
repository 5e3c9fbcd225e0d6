"""Options in messages can be pasted into a shell, and are read as what they name."""

import shlex

import pytest

from bmtl.cli.options import items, pairs
from bmtl.datasets.tables.command_line import option

NAMES = ("age", "Age (years)", "Druck, bar", "a:b", "µ/L [%]", "it's", "$HOME", "(open")


@pytest.mark.parametrize("name", NAMES)
def test_an_option_is_read_back(name):
    flag, text = shlex.split(option("ignore", "id", name))
    assert flag == "-d"
    assert items(text.removeprefix("ignore=")) == ["id", name]
    _, text = shlex.split(option("kinds", "category", of=name))
    assert pairs(text.removeprefix("kinds=")) == {name: "category"}
