import numpy as np
import pytest

from bmtl.targets.laws import sample_crps
from bmtl.targets.metrics import energy
from bmtl.targets.metrics.energy import energy_of_draws

oracle = pytest.importorskip("scoringrules")


def made(rows=7, d=3, count=11, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, d)), random.normal(size=(count, rows, d))


@pytest.mark.parametrize(("fair", "estimator"), [(True, "fair"), (False, "nrg")])
def test_equal_scoringrules(fair, estimator):
    y, draws = made()
    expected = oracle.es_ensemble(y, draws, m_axis=0, v_axis=-1, estimator=estimator)
    assert energy_of_draws(y, draws, fair=fair) == pytest.approx(expected.mean(), rel=1e-12)


@pytest.mark.parametrize("fair", [True, False])
def test_of_one_component_it_is_the_crps(fair):
    y, draws = made(d=1)
    expected = sample_crps(y[:, 0], draws[..., 0], fair=fair).mean()
    assert energy_of_draws(y, draws, fair=fair) == pytest.approx(expected, rel=1e-12)


def test_components_that_were_not_observed_do_not_count():
    y, draws = made()
    y[0, 1] = y[2, 0] = y[2, 2] = np.nan
    rows = []
    for row in range(7):
        seen = ~np.isnan(y[row])
        rows.append(energy_of_draws(y[row : row + 1, seen], draws[:, row : row + 1, seen]))
    assert energy_of_draws(y, draws) == pytest.approx(np.mean(rows), rel=1e-12)
    draws[:, 0, 1] = np.nan
    assert np.isfinite(energy_of_draws(y, draws))
    draws[3, 0, 0] = np.nan
    assert np.isnan(energy_of_draws(y, draws))


def test_infinite_draws_score_infinity():
    y, draws = made()
    draws[0, 0, 0] = np.inf
    assert energy_of_draws(y, draws) == np.inf


@pytest.mark.parametrize("exponent", [-700, -520, 500, 664])
def test_the_scale_changes_the_scale_alone(exponent):
    """Squares of numbers near 1e200 or 1e-200 are no floats."""
    y, draws = made()
    scaled = energy_of_draws(np.ldexp(y, exponent), np.ldexp(draws, exponent))
    assert scaled == np.ldexp(energy_of_draws(y, draws), exponent)


def test_chunks_change_nothing(monkeypatch):
    y, draws = made()
    whole = energy_of_draws(y, draws)
    monkeypatch.setattr(energy, "MEMORY", 1)
    assert energy_of_draws(y, draws) == pytest.approx(whole, rel=1e-14)


@pytest.mark.parametrize(
    ("y", "draws", "message"),
    [
        (np.zeros(3), np.zeros((2, 3)), r"expected \(N, d\)"),
        (np.zeros((3, 2)), np.zeros((2, 3, 3)), r"expected \(N, d\)"),
        (np.zeros((3, 2)), np.zeros((1, 3, 2)), "two at least"),
        (np.full((3, 2), np.nan), np.zeros((2, 3, 2)), "no component observed"),
    ],
)
def test_other_shapes_are_refused(y, draws, message):
    with pytest.raises(ValueError, match=message):
        energy_of_draws(y, draws)
