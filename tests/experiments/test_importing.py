import os
import subprocess
import sys
from pathlib import Path

import pytest

import bmtl
from bmtl.experiments import importing

SOURCE = "VALUE = 1\n\n\nclass Thing:\n    pass\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize(
    ("text", "is_path"),
    [
        ("package.module:name", True),
        ("mine.py:name", True),
        ("/a b/mine.py:name", True),
        ("ew", False),
        ("igb-v1 >> nash-mtl", False),
        ("cagrad(c=0.4)", False),
        ("ew(weights={'a': 2.0})", False),
        ("ew(weights={'a:b': 2.0})", False),
        (":name", False),
        ("module:", False),
        ("module:not a name", False),
    ],
)
def test_what_is_an_import_path(text, is_path):
    assert importing.is_path(text) is is_path


def test_an_object_of_a_file_and_of_a_module(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    found = importing.load("mine.py:Thing")
    assert found.path == f"{file}:Thing"
    assert found.value is importing.load(found.path).value  # executed once
    assert importing.load("collections:OrderedDict").value.__name__ == "OrderedDict"


def test_a_changed_file_is_other_code(file):
    before = importing.load(f"{file}:VALUE")
    file.write_text(SOURCE.replace("1", "2"))
    after = importing.load(f"{file}:VALUE")
    assert (before.value, after.value) == (1, 2)
    assert before.digest != after.digest
    file.write_text(SOURCE)
    assert importing.load(f"{file}:VALUE").digest == before.digest


def test_another_process_finds_it_by_the_resolved_path(file, tmp_path):
    found = importing.load(f"{file}:VALUE")
    code = f"from bmtl.experiments import importing; one = importing.load({found.path!r}); print(one.value, one.digest)"
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(bmtl.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["1", found.digest]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nowhere.py:name", r"There is no file .*nowhere\.py, which"),
        ("no_such_package.part:name", "cannot be imported"),
        ("ew", "package.module:name or file.py:name"),
        ("collections:Missing", "has no 'Missing'"),
    ],
)
def test_what_cannot_be_found_is_named(text, said):
    with pytest.raises(ValueError, match=said):
        importing.load(text)


def test_a_file_that_raises_is_named_with_its_error_and_tried_again(file):
    file.write_text("raise RuntimeError('not ready')")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"mine\.py cannot be imported: line 1 raises \(RuntimeError: not ready\)"):
            importing.load(f"{file}:VALUE")
