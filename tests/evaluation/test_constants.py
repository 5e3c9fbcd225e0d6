import numpy as np
import pytest

from bmtl.evaluation.constants import ReportedTarget, constant_data, targets_from
from bmtl.targets import Binary, Classes, Count, Real, Scaler, Target, Vector


def test_targets_come_back():
    given = {
        "mu": ReportedTarget(Real(), "D", Scaler(np.array(1e7 / 3), np.array(0.1))),
        "ill": ReportedTarget(Binary(("no", 'y"es'))),
        "force": ReportedTarget(Vector(("x", "y")), "N", Scaler(np.array([1.0, 2]), np.array([3.0, 4]))),
        "visits": ReportedTarget(Count()),
    }
    found = targets_from(constant_data(given))
    assert list(found) == list(given)
    for name, target in given.items():
        assert (found[name].family, found[name].unit, found[name].primary) == (
            target.family,
            target.unit,
            target.primary,
        )
        np.testing.assert_array_equal(found[name].scaler.mean, target.scaler.mean)
        np.testing.assert_array_equal(found[name].scaler.std, target.scaler.std)


def test_no_targets_are_none():
    assert targets_from(constant_data({})) == {}


def test_what_is_known_of_a_target_of_the_data():
    labels = np.array([0, 1, 1, -1, 0, 1])
    target = ReportedTarget.of(Target(labels, Classes(("a", "b")), "1"), np.arange(4))
    assert target.family == Classes(("a", "b"))
    assert target.scaler.is_identity


def test_a_family_that_is_not_known_here_is_named():
    constants = constant_data({"mu": ReportedTarget(Real())})
    constants["family"].values[:] = '{"family": "rea"}'
    with pytest.raises(ValueError, match="There is no family 'rea'"):
        targets_from(constants)
