import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bmtl
from bmtl.inference.balancing import (
    EW,
    SI,
    SLOTS,
    UW,
    AsIs,
    Balancer,
    Full,
    IGBv1,
    LastLayer,
    Mean,
    NashMTL,
    Norm,
    Sum,
    balancer,
)

steady = settings(max_examples=60)
numbers = st.floats(-1e6, 1e6, allow_nan=False)
transforms = st.one_of(
    st.builds(EW, st.dictionaries(st.text(min_size=1), st.floats(0, 1e9), max_size=3)),
    st.builds(SI, bound=numbers),
    st.just(SI("spread")),
    st.builds(UW, s0=numbers, bound=numbers),
    st.builds(IGBv1, base_epoch=st.integers(1, 9), bound=st.one_of(numbers, st.integers(0, 3))),
)
chains = st.tuples(
    st.none() | transforms,
    st.none() | st.sampled_from([Full(), LastLayer()]),
    st.none() | st.just(NashMTL()),
    st.none() | st.sampled_from([AsIs(), Sum(), Mean(), Norm()]),
).map(
    lambda slots: [slot for slot in (slots if slots[2] else slots[:3]) if slot is not None]
)  # a length needs a weighting


@steady
@given(slots=chains, order=st.randoms(use_true_random=False), heads=st.sampled_from(["transform", "alpha"]))
def test_a_balancer_can_be_read_back_from_its_string_form(slots, order, heads):
    order.shuffle(slots)
    made = Balancer.of(*slots, heads=heads)
    again = balancer(str(made), heads=heads)
    assert repr(again) == repr(made)
    for slot in ("transform", "geometry", "weighting", "length"):
        one, other = getattr(made, slot), getattr(again, slot)
        assert type(one) is type(other)
        assert one is None or one.given == other.given


def test_the_string_form_and_the_operators_are_one():
    by_hand = balancer(IGBv1(base_epoch=3) >> LastLayer() >> NashMTL() >> Norm())
    assert repr(balancer("igb-v1(base_epoch=3) >> last-layer >> nash-mtl >> norm")) == repr(by_hand)
    assert repr(balancer(" norm>>nash-mtl  >>\nlast-layer >> igb-v1( base_epoch = 3 ) ")) == repr(by_hand)
    assert bmtl.balancer is balancer


def test_what_is_no_string_is_taken_as_it_is():
    made = balancer("si >> nash-mtl", heads="alpha")
    assert balancer(made) is made
    assert balancer(NashMTL(), heads="alpha").heads == "alpha"
    assert str(balancer("ew")) == "ew" == str(Balancer())


def test_names_with_quotes_brackets_and_arrows():
    weights = {"a >> b": 2.0, "it's": 0.5, 'say "x"': 1.5, "f(x)": 3.0, "\\": 1.0, "y=1, z": 0.0}
    made = balancer(str(EW(weights) >> NashMTL()))
    assert made.transform.given == {"weights": weights}
    assert isinstance(made.weighting, NashMTL)


@pytest.mark.parametrize("name", sorted(SLOTS))
def test_every_choice_has_a_kebab_case_name_of_its_own(name):
    assert re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", name)
    assert SLOTS[name].name == name
    assert repr(SLOTS[name]()) == name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "'' in '' is not a name with options in brackets"),
        ("ew >>", "is not a name with options"),
        ("ew nash-mtl", "'ew nash-mtl' in .* is not a name"),
        ("EW", "'EW' in 'EW' is not a name"),
        ("ew > nash-mtl", "is not a name"),
        ("pcgard", r"No balancer is called 'pcgard' \(in 'pcgard'\). Did you mean 'pcgrad'\? There are: .*nash-mtl"),
        ("nash", "Did you mean 'nash-mtl'"),
        (
            "ew(weights=a)",
            r"cannot be read: weights=a is no number and no other plain value; text has quotes, weights='a'",
        ),
        ("igb-v1(2)", "options of 'igb-v1' in 'igb-v1\\(2\\)' cannot be read: options are given by name"),
        ("igb-v1(**{'base_epoch': 2})", "options are given by name"),
        ("igb-v1(base_epoch=)", "options of 'igb-v1' in .* cannot be read"),
        ("igb-v1(base_epoch=two)", "options of 'igb-v1' in .* cannot be read"),
        ("igb-v1(base_epoch=__import__('os'))", "options of 'igb-v1' in .* cannot be read"),
        ("igb-v1(base_epoch=2", "is not a name with options"),
        ("ew() + f()", "cannot be read: the brackets do not match"),
        ("ew() if f(1)", "cannot be read"),
        ("ew()(weights=None)", "cannot be read: the brackets do not match"),
        ("igb-v1(base=2)", "'igb-v1' does not take these options: .*'base'"),
        ("igb-v1(base_epoch='two')", "'igb-v1' does not take these options"),
        ("igb-v1(base_epoch=0)", "'igb-v1': base_epoch is a whole number of at least 1, and 0 was given"),
        ("nash-mtl(steps=3)", "'nash-mtl' does not take these options"),
        ("ew(weights=3)", "'ew' does not take these options: 'ew': weights is a mapping or None, and 3 was given"),
        (
            "ew(weights={'a': -1.0})",
            "weights is a mapping with a number of at least 0 for 'a', and {'a': -1.0} was given",
        ),
        ("uw(s0='a')", "'uw' does not take these options: 'uw': s0 is a number, and 'a' was given"),
        ("si(bound=-1e999)", "'si': bound is a finite number, and -inf was given"),
        ("si(scale='both')", "scale is 'log' or 'spread', and 'both' was given"),
        ("si >> uw", "'?si'? and '?uw'? are both a transform"),
        ("full >> last-layer >> nash-mtl", "full and last-layer are both a geometry"),
        ("norm >> nash-mtl >> sum", "norm and sum are both a length"),
    ],
)
def test_a_string_that_cannot_be_read_says_where(spec, message):
    with pytest.raises(ValueError, match=message):
        balancer(spec)


@pytest.mark.parametrize("spec", [None, 3, ["si", "nash-mtl"], NashMTL])
def test_another_type_is_refused(spec):
    with pytest.raises(TypeError, match="A balancer is a string such as .*, not "):
        balancer(spec)


@pytest.mark.parametrize("slots", list(itertools.permutations([SI(), Full(), NashMTL(), Sum()])))
def test_operators_take_slots_in_any_order(slots):
    one, two, three, four = slots
    assert str(one >> two >> three >> four) == "si >> full >> nash-mtl >> sum"
    assert str((one >> two) >> (three >> four)) == "si >> full >> nash-mtl >> sum"


@pytest.mark.parametrize("wrong", ["norm", None, Norm])
def test_operators_join_choices_only(wrong):
    with pytest.raises(TypeError, match="A balancer is made of choices such as NashMTL"):
        NashMTL() >> wrong


@pytest.mark.parametrize("join", [lambda a, b: a >> b, lambda a, b: b >> a])
def test_joining_balancers_keeps_how_heads_are_treated(join):
    joined = join(balancer("si"), balancer("nash-mtl", heads="alpha"))
    assert joined.heads == "alpha"


def test_an_unknown_treatment_of_heads_is_refused():
    with pytest.raises(ValueError, match="heads is 'transform' or 'alpha', and 'both' was given"):
        balancer("si", heads="both")
