import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bmtl.targets import LinearBaseline, Prediction, Real, Scaler, Target

RNG = np.random.default_rng(0)
X = RNG.integers(0, 20, (50, 3)).astype(float)
Y = X @ [-3.8e4, 2.0, 0.5] + 7.0 + RNG.normal(size=50)


def test_it_is_least_squares():
    found = LinearBaseline.fit(("a", "b", "c"), X, Y)
    oracle = np.linalg.lstsq(np.column_stack([X, np.ones(50)]), Y)[0]
    assert_allclose([*found.coefficients, found.intercept], oracle, rtol=1e-8)
    assert_allclose(found.of(X), X @ oracle[:3] + oracle[3])


def test_rows_without_a_label_do_not_count():
    labels = np.where(np.arange(50) < 20, np.nan, Y)
    one, other = LinearBaseline.fit("abc", X, labels), LinearBaseline.fit("abc", X[20:], Y[20:])
    assert_allclose(one.of(X), other.of(X))
    with pytest.raises(ValueError, match="all are missing"):
        LinearBaseline.fit("abc", X, np.full(50, np.nan))


def test_a_column_that_never_varies_is_no_obstacle():
    found = LinearBaseline.fit("abcd", np.column_stack([X, np.zeros(50)]), Y)
    assert_allclose(found.of(np.column_stack([X, np.zeros(50)])), LinearBaseline.fit("abc", X, Y).of(X))


def test_it_travels_as_plain_values():
    given = LinearBaseline.fit("abc", X, Y)
    back = LinearBaseline.from_spec(json.loads(json.dumps(given.spec())))
    assert back.features == given.features
    assert (back.of(X) == given.of(X)).all()


@pytest.mark.parametrize("wrong", [{"coefficients": np.ones(2)}, {"coefficients": np.full(3, np.nan)}])
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match="baseline"):
        LinearBaseline(("a", "b", "c"), **wrong)


def test_labels_and_predictions_go_there_and_back_once():
    baseline = LinearBaseline.fit("abc", X, Y)
    offset = baseline.of(X)
    target = Target(Y, Real(), "meV", Scaler.fit(Y - offset), baseline, offset)
    rows = np.array([3, 7, 40])
    seen = target.scaled(rows)
    assert_allclose(seen, ((Y - offset)[rows] - target.scaler.mean) / target.scaler.std)
    prediction = Prediction(
        draws=np.stack([seen, seen + 1.0]), mean=seen, aleatoric=np.ones(3), log_likelihood=np.zeros((2, 3))
    )
    found = prediction.in_units(target.family, target.scaler_of(rows), Y[rows])
    assert_allclose(found.mean, Y[rows])
    assert_allclose(found.draws, [Y[rows], Y[rows] + target.scaler.std])
    assert_allclose(found.aleatoric, target.scaler.std**2)
    assert_allclose(found.log_likelihood, -np.log(target.scaler.std))
