"""Types and ranges of every option of every choice, found from the constructors themselves."""

import inspect
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmtl.inference.balancing import SLOTS, NashMTL, Slot, Solution, Transform, Weighting, balancer
from bmtl.inference.balancing.geometry.head_draws import HeadDraws
from bmtl.inference.balancing.options import Count, Fraction, Natural, NonNegative, Positive, Range, Seed

CLASSES = (*SLOTS.values(), HeadDraws)
OPTIONS = [
    (cls, name, kind)
    for cls in CLASSES
    for name, kind in get_type_hints(cls.__init__, include_extras=True).items()
    if name not in ("return", "self")
]
each = pytest.mark.parametrize(
    ("cls", "option", "kind"), OPTIONS, ids=[f"{cls.name}-{option}" for cls, option, _ in OPTIONS]
)


def members(kind):
    """The kinds of which a union is made, or the kind itself."""
    if get_origin(kind) in (Annotated, Literal, Mapping, None):
        return (kind,)
    return get_args(kind) if get_origin(kind).__name__ in ("Union", "UnionType") else (kind,)


def plain(kind):
    return get_args(kind)[0] if get_origin(kind) is Annotated else get_origin(kind) or kind


def ranges(kind):
    return [item for item in get_args(kind)[1:] if isinstance(item, Range)] if get_origin(kind) is Annotated else []


def wrong_values(kind):
    """Values of another type, and numbers on the wrong side of each end."""
    kinds = [plain(member) for member in members(kind)]
    wrong: list[Any] = [object(), [1.0], (2,), 1j, torch.ones(2)]
    if str not in kinds and Literal not in kinds:
        wrong.append("1")
    if bool not in kinds:
        wrong += [True, np.True_]
    if float not in kinds:
        wrong += [0.5, math.inf]
    if type(None) not in kinds:
        wrong.append(None)
    if float in kinds or int in kinds:
        wrong += [math.nan, math.inf, -math.inf]
    for member in members(kind):
        for allowed in ranges(member):
            step = 1 if plain(member) is int else 1e-9
            wrong += [end for end in (allowed.above, allowed.below) if math.isfinite(end)]
            wrong += [allowed.at_least - step] if math.isfinite(allowed.at_least) else []
            wrong += [allowed.at_most + step] if allowed.at_most < 2**62 else []
            wrong += [2**63] if 2**62 < allowed.at_most < math.inf else []
    return wrong


def test_every_option_of_every_choice_has_a_type():
    for cls in CLASSES:
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        hints = get_type_hints(cls.__init__, include_extras=True)
        assert all(p.name in hints and p.default is not inspect.Parameter.empty for p in parameters), cls
    numbers = {member for _, _, kind in OPTIONS for member in members(kind) if plain(member) is int}
    assert int not in numbers  # every whole number has a range


@each
def test_what_an_option_does_not_take_is_refused_by_name(cls, option, kind):
    for value in wrong_values(kind):
        with pytest.raises((TypeError, ValueError), match=f"^'{cls.name}': {option} is .* was given"):
            cls(**{option: value})


@each
def test_numbers_of_numpy_become_pythons_own(cls, option, kind):
    default = inspect.signature(cls.__init__).parameters[option].default
    wider = {bool: np.bool_, int: np.int64, float: np.float64}.get(type(default))
    if wider is not None:
        assert type(cls(**{option: wider(default)}).__dict__.get(option, default)) is type(default)
        assert repr(cls(**{option: wider(default)})) == cls.name


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (lambda: SLOTS["rlw"](seed=np.int64(3)), "rlw(seed=3)"),
        (lambda: SLOTS["igb-v2"](buffer=1e6, explore=np.float32(0.5)), "igb-v2(explore=0.5, buffer=1000000)"),
        (lambda: SLOTS["cagrad"](np.float64(0.25), 2), "cagrad(c=0.25, rescale=2)"),
        (lambda: SLOTS["ew"]({"a": np.float64(2)}), "ew(weights={'a': 2.0})"),
        (lambda: SLOTS["full"](every=np.int32(4), cross=np.True_), "full(every=4, cross=True)"),
    ],
)
def test_the_string_form_has_the_options_that_were_given(spec, text):
    assert repr(spec()) == text
    assert repr(balancer(text)) == f"Balancer({text!r}, heads='transform')"


@settings(max_examples=50)
@given(data=st.data())
@each
def test_values_that_are_taken_can_be_read_back(cls, option, kind, data):
    member = data.draw(st.sampled_from(members(kind)))
    at_least = max([r.at_least for r in ranges(member)] + [r.above for r in ranges(member)] + [-1e6])
    at_most = min([r.at_most for r in ranges(member)] + [r.below for r in ranges(member)] + [1e6])
    drawn = {
        float: st.floats(at_least, at_most).filter(lambda x: all(x in r for r in ranges(member))),
        int: st.integers(math.ceil(at_least), math.floor(at_most)),
        bool: st.booleans(),
        Literal: st.sampled_from(get_args(member) or [None]),
        type(None): st.none(),
    }.get(plain(member))
    if drawn is None or cls is HeadDraws:
        return
    value = data.draw(drawn)
    try:
        made = cls(**{option: value})
        again = balancer(repr(made))
    except ValueError as error:  # two options that do not go together, or a choice without the one that it needs
        if str(error).startswith(f"'{cls.name}': {option} is"):
            raise
        return
    assert getattr(again, cls.slot).given == made.given


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Positive, "above 0"),
        (NonNegative, "of at least 0"),
        (Fraction, "of at least 0 and of at most 1"),
        (Count, "of at least 1"),
        (Natural, "of at least 0"),
        (Seed, "of at least 0"),
    ],
)
def test_ranges_in_words(kind, text):
    assert " and ".join(map(str, ranges(kind))) == text


# ---- Choices of a user's own -------------------------------------------------------------------------------------------


class Loudest(Weighting):
    """All weight to the longest gradient."""

    def __init__(self, factor: Positive = 1.0, note: str = "", anything=None):
        super().__init__()
        self.factor = factor

    def forward(self, m, ctx):
        longest = m.G.diagonal() == m.G.diagonal().max()
        return Solution(self.factor * longest.double())


def test_a_users_own_options_are_checked_and_kept_too():
    assert Loudest.name == "loudest"
    assert repr(Loudest(2, anything=[1])) == "loudest(factor=2.0, anything=[1])"
    with pytest.raises(ValueError, match="'loudest': factor is a number above 0, and -1 was given"):
        Loudest(-1)
    with pytest.raises(TypeError, match="'loudest': note is a string, and 3 was given"):
        Loudest(note=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'faktor'"):
        Loudest(faktor=1.0)


def test_an_annotation_that_cannot_be_resolved_is_not_checked():
    class Odd(Transform):
        def __init__(self, x: "Unknown" = 1) -> None:  # type: ignore[name-defined] # noqa: F821
            super().__init__()

    assert Odd("anything").given == {"x": "anything"}


def test_a_subclass_has_a_name_of_its_own():
    class MyNash(NashMTL):
        pass

    assert (MyNash.name, NashMTL.name, Slot.slot if hasattr(Slot, "slot") else None) == ("my-nash", "nash-mtl", None)
