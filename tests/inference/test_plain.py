"""What a checkpoint may hold, and the digest over it."""

import copy
import enum
import io
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from torch import nn

from bmtl.inference.errors import CheckpointError
from bmtl.inference.plain import digest, plain
from tests.inference.programs import assert_same

Point = namedtuple("Point", ["x", "y"])


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()


MADE_PLAIN = [
    (np.float64(1.5), 1.5),
    (np.float32(0.5), 0.5),
    (np.int32(3), 3),
    (np.uint8(200), 200),
    (np.bool_(True), True),
    (np.str_("word"), "word"),
    (Colour.RED, "red"),
    (Level.LOW, 1),
    (Text("word"), "word"),
    (Point(1, np.int64(2)), (1, 2)),
    ({np.int64(1): np.float64(2.0)}, {1: 2.0}),
    ([{"a": (np.float64(1.0), None)}], [{"a": (1.0, None)}]),
    (torch.Size([1, 2]), (1, 2)),
]


@pytest.mark.parametrize(("given", "expected"), MADE_PLAIN, ids=[type(given).__name__ for given, _ in MADE_PLAIN])
def test_values_of_other_classes_become_pythons_own(given, expected):
    found = plain(given)
    assert_same(found, expected)
    file = io.BytesIO()
    torch.save(found, file)
    file.seek(0)
    assert_same(torch.load(file, weights_only=True), expected)


def test_tensors_parameters_and_arrays_become_tensors():
    values = torch.arange(3.0)
    assert plain(values) is values
    found = plain({"p": nn.Parameter(values), "a": np.arange(3)})
    assert type(found["p"]) is torch.Tensor
    assert not found["p"].requires_grad
    assert found["p"].data_ptr() == values.data_ptr()
    assert found["a"].tolist() == [0, 1, 2]


def test_a_modules_state_keeps_its_versions():
    state = nn.BatchNorm1d(2).state_dict()
    found = plain(state)
    assert type(found) is OrderedDict
    assert found._metadata == state._metadata


@pytest.mark.parametrize(
    "wrong", [{1, 2}, object(), lambda: None, nn.Linear(1, 1), np.array(["a"]), np.datetime64("2020")]
)
def test_what_cannot_be_read_without_running_code_is_refused_with_its_place(wrong):
    with pytest.raises(CheckpointError, match=r"optimizer\['state'\]\[0\]\['x'\] is of type"):
        plain({"state": [{"x": wrong}]}, "optimizer")


def state():
    return {
        "names": ["a", "b"],
        "steps": 3,
        "lr": 0.1,
        "flag": True,
        "none": None,
        "nested": {"tensor": torch.arange(6.0).reshape(2, 3), "tuple": (1, 2.0), "empty": torch.zeros(0, 3)},
        ("a", "b"): torch.tensor([True, False]),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "complex": torch.ones(2, dtype=torch.complex64),
        "bytes": b"\x00",
    }


def test_a_state_has_its_digest_after_a_file_and_after_a_copy():
    expected = digest(state())
    file = io.BytesIO()
    torch.save(state(), file)
    file.seek(0)
    assert digest(torch.load(file, weights_only=True)) == expected
    assert digest(copy.deepcopy(state())) == expected
    turned = state()
    turned["nested"]["tensor"] = torch.arange(6.0).reshape(2, 3).T.contiguous().T  # other strides
    assert digest(turned) == expected


# The same state, with one thing in it changed.
CHANGES = {
    "a key less": lambda s: s.pop("steps"),
    "a key more": lambda s: s.update(more=1),
    "another key": lambda s: s.update(step=s.pop("steps")),
    "a number": lambda s: s.update(steps=4),
    "its type": lambda s: s.update(steps=3.0),
    "a bool for a number": lambda s: s.update(flag=1),
    "the last bit of a float": lambda s: s.update(lr=np.nextafter(0.1, 1).item()),
    "zero's sign": lambda s: s["nested"].update(tuple=(1, -2.0)),
    "a word": lambda s: s["names"].__setitem__(0, "c"),
    "the order of a list": lambda s: s["names"].reverse(),
    "a tuple for a list": lambda s: s.update(names=("a", "b")),
    "a tensor's entry": lambda s: s["nested"]["tensor"].__setitem__((0, 0), 1e-30),
    "a tensor's shape": lambda s: s["nested"].update(tensor=torch.arange(6.0).reshape(3, 2)),
    "a tensor's precision": lambda s: s["nested"].update(tensor=s["nested"]["tensor"].double()),
    "the shape of an empty tensor": lambda s: s["nested"].update(empty=torch.zeros(3, 0)),
    "a bool tensor": lambda s: s.update({("a", "b"): torch.tensor([False, True])}),
    "half precision": lambda s: s["half"].__setitem__(0, 2.0),
    "an imaginary part": lambda s: s["complex"].__setitem__(0, 1 + 1e-6j),
    "None for a value": lambda s: s.update(steps=None),
    "bytes": lambda s: s.update(bytes=b"\x01"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_any_change_changes_the_digest(change):
    changed = state()
    change(changed)
    assert digest(changed) != digest(state())


def test_what_is_not_plain_has_no_digest():
    with pytest.raises(CheckpointError, match="no digest"):
        digest({"a": np.float64(1.0)})
