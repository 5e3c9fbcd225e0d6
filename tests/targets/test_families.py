"""Every family: which labels it takes, which are missing, how they are scaled, and its way through a file."""

import json

import numpy as np
import pytest

from bmtl.targets import (
    FAMILIES,
    Binary,
    Classes,
    Count,
    Ordinal,
    Pixels,
    Real,
    Scaler,
    Target,
    TimeToEvent,
    UnitVector,
    Vector,
    family_from_spec,
)

NAN, INF = np.nan, np.inf
# Labels in every form that is taken, as they are kept, and which rows are missing.
GOOD = {
    "real": (Real(), [1, 2.5, NAN], [1, 2.5, NAN], [False, False, True]),
    "whole numbers are real": (Real(), [1, 2], [1.0, 2.0], [False, False]),
    "intervals": (
        Real(censored=True),
        [[1, 1], [-INF, 2], [2, INF], [1, 3], [NAN, NAN]],
        [[1, 1], [-INF, 2], [2, INF], [1, 3], [NAN, NAN]],
        [False] * 4 + [True],
    ),
    "exact labels are intervals": (Real(censored=True), [1, NAN], [[1, 1], [NAN, NAN]], [False, True]),
    "classes": (Classes(("a", "b", "c")), [0, 2, -1], [0, 2, -1], [False, False, True]),
    "classes as floats": (Classes(("a", "b")), [0.0, 1.0, NAN], [0, 1, -1], [False, False, True]),
    "booleans": (Binary(), [True, False], [1, 0], [False, False]),
    "ranks": (Ordinal(("low", "mid", "high")), [2, -1], [2, -1], [False, True]),
    "counts": (Count(), [0, 3.0, NAN], [0, 3, NAN], [False, False, True]),
    "counts as integers": (Count(), [0, 12, -1], [0, 12, NAN], [False, False, True]),
    "times": (
        TimeToEvent(),
        [[1, 1], [2, INF], [0, 3], [NAN, NAN]],
        [[1, 1], [2, INF], [0, 3], [NAN, NAN]],
        [False] * 3 + [True],
    ),
    "observed times": (TimeToEvent(), [1.5, NAN], [[1.5, 1.5], [NAN, NAN]], [False, True]),
    "vectors": (
        Vector(("x", "y")),
        [[1, 2], [NAN, 2], [NAN, NAN]],
        [[1, 2], [NAN, 2], [NAN, NAN]],
        [False, False, True],
    ),
    "displacements": (Vector(("x", "y"), common_unit=True), [[1, 2]], [[1, 2]], [False]),
    "positive": (Real(positive=True), [0.5, NAN], [0.5, NAN], [False, True]),
    "directions": (
        UnitVector(),
        [[0, 0, -1], [0.6, 0.8, 0], [NAN, NAN, NAN]],
        [[0, 0, -1], [0.6, 0.8, 0], [NAN, NAN, NAN]],
        [False, False, True],
    ),
    "directions of few bits": (UnitVector(), [[0.0, 0, 0.99]], [[0, 0, 1]], [False]),
    "pixels": (
        Pixels(Classes(("sky", "road"))),
        [[[0, 1]], [[-1, 1]], [[-1, -1]]],
        [[[0, 1]], [[-1, 1]], [[-1, -1]]],
        [False, False, True],
    ),
    "depth": (Pixels(), [[[0.5, NAN]], [[NAN, NAN]]], [[[0.5, NAN]], [[NAN, NAN]]], [False, True]),
    "normals": (
        Pixels(Vector(("x", "y", "z"))),
        [[[[1, 0, 0], [0, 1, 0]]]],
        [[[[1.0, 0, 0], [0, 1, 0]]]],
        [False],
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_labels_are_kept_in_one_format(case):
    family, given, kept, missing = GOOD[case]
    before = np.array(given)
    found = family.check("t", before, len(before))
    np.testing.assert_array_equal(found, np.array(kept))
    np.testing.assert_array_equal(family.missing(found), missing)
    assert found.dtype in (np.float64, np.int64)
    assert (found.dtype == np.int64) == bool(family.class_names)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = found[0]
    np.testing.assert_array_equal(before, given)  # a copy
    np.testing.assert_array_equal(family.check("t", found, len(found)), found)  # which is taken as it is


# What is refused, and what the message says.
REFUSED = {
    "another number of rows": (Real(), [1.0, 2.0], 3, r"Target 't' must have the shape \(3\)"),
    "another number of axes": (Count(), [[1.0]], 1, "one count per row"),
    "infinite": (Real(), [1.0, INF], 2, "row 1 of target 't' holds inf"),
    "text": (Real(), ["a"], 1, "must hold numbers; got dtype <U1"),
    "objects": (Classes(), np.array([None]), 1, "must hold numbers"),
    "three ends": (Real(censored=True), [[1, 2, 3]], 1, "lower and upper end"),
    "one end missing": (Real(censored=True), [[NAN, 2]], 1, "Both ends of a missing label are NaN, and row 0"),
    "ends exchanged": (Real(censored=True), [[1, 1], [3, 2]], 2, "at most the upper one, and row 1"),
    "everywhere": (Real(censored=True), [[-INF, INF]], 1, "open on both sides"),
    "an infinite exact label": (Real(censored=True), [[INF, INF]], 1, "finite"),
    "no such class": (Classes(("a", "b")), [0, 2], 2, "from 0 to 1, or -1 or NaN where it is missing, and row 1"),
    "between classes": (Classes(("a", "b")), [0.5], 1, "row 0 of target 't' holds 0.5"),
    "below the classes": (Ordinal(), [-2], 1, "row 0 of target 't' holds -2"),
    "two classes": (Binary(), [2], 1, "from 0 to 1"),
    "half a count": (Count(), [0.5], 1, "whole number from 0, .*row 0 of target 't' holds 0.5"),
    "a negative count": (Count(), [-3.0], 1, "row 0 of target 't' holds -3"),
    "an infinite count": (Count(), [INF], 1, "holds inf"),
    "no time": (TimeToEvent(), [[0, 0]], 1, "above 0"),
    "a negative time": (TimeToEvent(), [[-1, 2]], 1, "at least 0"),
    "another number of components": (Vector(("x", "y")), [[1, 2, 3]], 1, "one number per row and component"),
    "an infinite component": (Vector(("x", "y")), [[1, INF]], 1, "row 0"),
    "a depth of zero": (Real(positive=True), [1.0, 0.0], 2, "Labels are positive, and row 1 .*with NaN"),
    "a zero direction": (UnitVector(), [[0, 0, 1], [0, 0, 0]], 2, "length 1, .*row 1 .*mark zero vectors with NaN"),
    "half a direction": (UnitVector(), [[NAN, 0, 1]], 1, "row 0"),
    "an infinite direction": (UnitVector(), [[INF, 0, 1]], 1, "row 0"),
    "a direction in the plane": (UnitVector(), [[0, 1]], 1, "three components per row"),
    "no image": (Pixels(), [[1.0, 2.0]], 1, "an image per row"),
    "a pixel of no class": (Pixels(Classes(("a", "b"))), [[[0]], [[3]]], 2, "Image 1 of target 't', .*from 0 to 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_labels_are_refused_by_row(case):
    family, given, rows, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        family.check("t", given, rows)


@pytest.mark.parametrize("case", GOOD)
def test_a_family_survives_a_file(case):
    family = GOOD[case][0]
    again = family_from_spec(json.loads(json.dumps(family.spec())))
    assert again == family
    assert type(again) is type(family)
    assert hash(again) == hash(family)


def test_every_family_is_registered_and_tested():
    assert {family.name for family, *_ in GOOD.values()} == set(FAMILIES)
    for name, kind in FAMILIES.items():
        assert kind.name == name
        assert family_from_spec(kind().spec()) == kind()
    with pytest.raises(ValueError, match="no family 'circular' of targets; the families are: "):
        family_from_spec({"family": "circular"})


@pytest.mark.parametrize("kind", [Classes, Ordinal, Vector])
def test_names_are_different_and_enough(kind):
    for names in (("a",), ("a", "a"), "ab", ()):
        with pytest.raises(ValueError, match="of different names"):
            kind(names)
    with pytest.raises(ValueError, match="two classes"):
        Binary(("a", "b", "c"))


def test_real_targets_are_standardised_on_what_is_known():
    scaler = Real().fit_scaler(np.array([1.0, 3.0, NAN]))
    assert (scaler.mean, scaler.std) == (2.0, 1.0)
    ends = np.array([[1, 1], [3, 3], [NAN, NAN], [-INF, 5], [7, INF], [8, 10]])
    scaler = Real(censored=True).fit_scaler(ends)  # the label, the one end, the middle
    assert scaler.mean == np.mean([1, 3, 5, 7, 9])
    assert scaler.std == np.std([1, 3, 5, 7, 9])
    scaler = Vector(("x", "y")).fit_scaler(np.array([[1.0, 10], [3, NAN], [NAN, 30]]))
    np.testing.assert_array_equal([scaler.mean, scaler.std], [[2, 20], [1, 10]])
    assert Pixels().fit_scaler(np.array([[[1.0, 3], [NAN, NAN]]])).mean == 2


def test_times_are_divided_and_never_shifted():
    scaler = TimeToEvent().fit_scaler(np.array([[1, 1], [3, INF], [0, 4], [NAN, NAN]]))
    assert scaler.mean == 0
    assert scaler.std == np.mean([1, 3, 2])


@pytest.mark.parametrize("family", [Classes(), Binary(), Ordinal(), Count(), Pixels(Classes())], ids=lambda f: f.name)
def test_other_families_are_not_scaled_whatever_the_scaler(family):
    assert not family.scaled
    labels = family.check("t", np.zeros((4, 2, 2) if family.name == "pixels" else 4, dtype=int), 4)
    assert family.fit_scaler(labels).is_identity
    target = Target(labels, family, scaler=Scaler(np.array(3.0), np.array(2.0)))
    np.testing.assert_array_equal(target.scaled(np.array([0, 2])), labels[[0, 2]])
    values = np.arange(3.0)
    np.testing.assert_array_equal(family.to_units(values, target.scaler), values)
    np.testing.assert_array_equal(family.variance_to_units(values, target.scaler), values)
    assert family.log_volume(labels, target.scaler) == 0


def test_scaled_labels_and_their_way_back():
    labels = Real(censored=True).check("t", [[1, 1], [2, INF], [-INF, 4]], 3)
    target = Target(labels, Real(censored=True), "K", Scaler(np.array(2.0), np.array(4.0)))
    scaled = target.scaled(np.arange(3))
    np.testing.assert_array_equal(scaled, [[-0.25, -0.25], [0, INF], [-INF, 0.5]])
    np.testing.assert_array_equal(target.family.to_units(scaled, target.scaler), labels)
    np.testing.assert_array_equal(target.missing, [False] * 3)
    np.testing.assert_array_equal(target.labelled, [True] * 3)


def test_densities_lose_the_scale_of_what_is_exact():
    scaler = Scaler(np.array(0.0), np.array(5.0))
    assert Real().log_volume(None, scaler) == np.log(5)
    intervals = np.array([[1, 1], [1, 2], [1, INF]])
    for family in (Real(censored=True), TimeToEvent()):
        np.testing.assert_allclose(family.log_volume(intervals, scaler), [np.log(5), 0, 0])
        assert family.log_volume(None, scaler) == np.log(5)
    scales = Scaler(np.zeros(2), np.array([5.0, 3.0]))
    vector = Vector(("x", "y"))
    np.testing.assert_allclose(vector.log_volume(np.array([[1, 2], [NAN, 1], [1, NAN]]), scales), np.log([15, 3, 5]))
    assert vector.log_volume(None, scales) == pytest.approx(np.log(15))
    images = np.array([[[1.0, NAN], [2, 3]], [[NAN, NAN], [NAN, 1]]])
    np.testing.assert_allclose(Pixels().log_volume(images, scaler), [3 * np.log(5), np.log(5)])
    with pytest.raises(ValueError, match="only with the labels"):
        Pixels().log_volume(None, scaler)


def test_variances_of_vectors_have_no_common_unit():
    scaler = Scaler(np.zeros(2), np.array([5.0, 3.0]))
    vector = Vector(("x", "y"))
    np.testing.assert_array_equal(vector.variance_to_units(np.ones(4), scaler), np.ones(4))
    np.testing.assert_array_equal(vector.variance_to_units(np.ones((4, 2)), scaler), np.tile([25.0, 9], (4, 1)))
