"""Choices of a user's own in strings: registered, or named by a path that the caller resolves."""

import functools
import importlib.util

import pytest
import torch

import bmtl
from bmtl.inference.balancing import (
    SLOTS,
    Length,
    NashMTL,
    Slot,
    Solution,
    Transform,
    Weighting,
    balancer,
    register_slot,
)
from bmtl.inference.balancing.options import Positive
from tests.inference.programs import Regressions, batch, nothing


class Loudest(Weighting):
    """All weight to the longest gradient."""

    def __init__(self, factor: Positive = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, m, ctx):
        return Solution(self.factor * (m.G.diagonal() == m.G.diagonal().max()).double())


class Halved(Length):
    """Half of it."""

    def forward(self, alpha, gram, squared=None):
        return alpha / 2


class Shifted(Transform):
    """Squares."""

    def forward(self, losses, ctx):
        return losses.square()


@pytest.fixture
def registered(monkeypatch):
    """`register_slot`, undone afterwards."""
    before = dict(SLOTS)
    yield register_slot
    SLOTS.clear()
    SLOTS.update(before)


def test_an_object_of_a_users_own_is_taken_as_it_is():
    assert str(balancer(Loudest(2.0))) == "loudest(factor=2.0)"
    assert str(balancer(Shifted() >> Loudest() >> Halved())) == "shifted >> loudest >> halved"


def test_a_registered_class_has_its_name_in_strings(registered):
    for cls in (Loudest, Halved, Shifted):
        registered(cls.name, cls)
    spec = "shifted >> loudest(factor=3.0) >> halved"
    assert str(balancer(spec)) == spec
    registered("loudest", Loudest)  # once more is no fault


def test_it_trains(registered):
    registered("loudest", Loudest)
    torch.manual_seed(0)
    svi = bmtl.BalancedSVI(Regressions(), nothing, functools.partial(torch.optim.SGD, lr=0.05), "loudest >> sum")
    x, y = batch(missing=False)
    record = svi.step(x, y)
    assert record.alpha.tolist().count(0.0) == len(svi.names) - 1
    assert record.alpha.sum() == len(svi.names)


@pytest.mark.parametrize(
    ("name", "cls", "error", "message"),
    [
        ("Loudest", Loudest, ValueError, "'Loudest' is no name for a balancer; names are in kebab case"),
        (
            "quietest",
            Loudest,
            ValueError,
            "Loudest calls itself 'loudest', and 'quietest' was given. Set name = 'quietest'",
        ),
        (
            "loudest",
            Loudest(),
            TypeError,
            "subclass of Transform, Geometry, Weighting or Length .* and loudest was given",
        ),
        ("loudest", torch.nn.Linear, TypeError, "and <class 'torch.nn.* was given"),
        ("slot", Slot, TypeError, "subclass of Transform"),
    ],
)
def test_what_cannot_be_registered(registered, name, cls, error, message):
    before = dict(SLOTS)
    with pytest.raises(error, match=message):
        registered(name, cls)
    assert before == SLOTS


def test_a_name_belongs_to_one_class(registered):
    class Other(Weighting):
        name = "nash-mtl"

    with pytest.raises(ValueError, match="'nash-mtl' is NashMTL already. Give Other a name of its own"):
        registered("nash-mtl", Other)
    assert SLOTS["nash-mtl"] is NashMTL


# ---- Paths -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my methods.py"
    path.write_text(
        "from bmtl.inference.balancing import Solution, Weighting\n"
        "class Mine(Weighting):\n"
        "    def __init__(self, c: float = 1.0) -> None:\n"
        "        super().__init__()\n"
        "        self.c = c\n"
        "    def forward(self, m, ctx):\n"
        "        return Solution(self.c * m.G.diagonal().sqrt())\n"
    )
    return path


def resolve(path):
    """What a caller may do with a path."""
    source, _, name = path.rpartition(":")
    if source.endswith(".py"):
        spec = importlib.util.spec_from_file_location("found", source)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(source)
    return getattr(module, name)


@pytest.mark.parametrize("options", ["", "(c=2.0)"])
@pytest.mark.parametrize("around", ["{}", "si >> {} >> norm", "norm>>{}>>si"])
def test_a_path_is_resolved_by_the_caller(file, options, around):
    spec = around.format(f"{file}:Mine{options}")
    made = balancer(spec, resolve=resolve)
    assert type(made.weighting).__name__ == "Mine"
    assert made.weighting.c == (2.0 if options else 1.0)
    # The string form keeps the path, so that it can be sent to another process.
    assert f"{file}:Mine{options}" in str(made)
    assert str(balancer(str(made), resolve=resolve)) == str(made)


def test_a_module_may_be_named_too():
    made = balancer("bmtl.inference.balancing:NashMTL >> norm", resolve=resolve)
    assert isinstance(made.weighting, NashMTL)
    assert str(made) == "bmtl.inference.balancing:NashMTL >> norm"


def test_without_a_resolver_no_path_is_followed(file):
    with pytest.raises(ValueError, match=r"is the path of a class, and paths are not followed here. .*register_slot"):
        balancer(f"{file}:Mine")


def test_what_a_path_leads_to_must_be_a_choice():
    with pytest.raises(TypeError, match="subclass of Transform, .* and <function sqrt"):
        balancer("math:sqrt", resolve=lambda path: test_what_a_path_leads_to_must_be_a_choice.__globals__["sqrt"])


def sqrt():
    """No choice."""


@pytest.mark.parametrize("spec", ["mine.py", "mine.py:", ":Mine", "mine.py:Mine)", "mine.py:2", "'mine.py:Mine'"])
def test_what_is_no_path_is_no_name_either(spec):
    with pytest.raises(ValueError, match="is not a name with options in brackets"):
        balancer(spec, resolve=resolve)
