import itertools

import numpy as np
import pytest
from scipy import stats

from bmtl.evaluation.simulation import _p_symmetric, in_words, rank_calibration

DRAWS = 99


def simulated(shift=0.0, width=1.0, datasets=200, draws=DRAWS, seed=0, latents=1):
    """Ranks and errors where the posterior is N(0, 1) and the guide N(shift, width^2)."""
    random = np.random.default_rng(seed)
    ranks, errors = {}, {}
    for k in range(latents):
        truth = random.normal(size=datasets)
        guide = shift + width * random.normal(size=(datasets, draws))
        ranks[f"a[{k}]"] = (guide < truth[:, None]).sum(axis=1)
        errors[f"a[{k}]"] = (guide.mean(axis=1) - truth) / guide.std(axis=1, ddof=1)
    return ranks, draws, errors


def test_an_exact_guide_passes_at_the_stated_rate():
    """All tests of 5 latents together reject in 5 % of cases: of 200, fewer than 22 but once in a thousand."""
    wrong = 0
    for seed in range(200):
        found = rank_calibration(*simulated(datasets=40, draws=19, latents=5, seed=seed), seed=seed)
        p = np.minimum.reduce([found[name].values for name in ("p_uniform", "p_symmetric", "p_spread")])
        wrong += bool((p < 0.05).any())
    assert wrong <= stats.binom.ppf(0.999, 200, 0.05)


@pytest.mark.parametrize(
    ("shift", "width", "said", "not_said"),
    [
        (0.6, 1.0, "too high (by 0.", "too narrow"),
        (-0.6, 1.0, "too low (by 0.", "too wide"),
        (0.0, 0.5, "too narrow (its standard deviation is 0.", "sits"),
        (0.0, 2.0, "too wide (its standard deviation is ", "sits"),
    ],
)
def test_what_is_wrong_is_said_in_words(shift, width, said, not_said):
    found = rank_calibration(*simulated(shift, width))
    words = in_words(found)
    assert words.startswith("In 200 simulated data sets the truth of 1 latent was ranked: 1 of them departs")
    assert said in words
    assert not_said not in words
    # Mean error: four standard errors of 1 / width / sqrt(200); width: the same of a standard deviation, 1 / sqrt(400).
    assert float(found["shift"][0]) == pytest.approx(shift / width, abs=4 / width / np.sqrt(200))
    assert float(found["width"][0]) == pytest.approx(width, rel=4 / np.sqrt(400))
    band = found.isel(latent=0)
    assert bool(((band["ecdf"] < band["lower"]) | (band["ecdf"] > band["upper"])).any())


def test_a_guide_may_be_wrong_in_two_ways():
    words = in_words(rank_calibration(*simulated(0.5, 0.5)))
    assert "sits too high" in words
    assert "too narrow" in words


def test_ranks_without_errors_are_judged_and_not_sized():
    ranks, draws, _ = simulated(0.6)
    assert "a[0]: the guide sits too high." in in_words(rank_calibration(ranks, draws))


def test_a_point_has_no_size():
    ranks, draws, errors = simulated(0.6)
    found = rank_calibration(ranks, draws, {name: np.sign(values) * np.inf for name, values in errors.items()})
    assert "sits too high." in in_words(found) or "sits too high, and" in in_words(found)


def test_another_shape_is_told_too():
    """Ranks that are symmetric and as spread as uniform ones, and yet are not: a cluster at three places."""
    x = stats.norm.ppf(np.concatenate([np.linspace(0.03, 0.07, 60), np.linspace(0.93, 0.97, 60)]))
    scale = np.sqrt(200 / (x**2).sum())
    p = stats.norm.cdf(np.concatenate([x * scale, np.linspace(-1e-2, 1e-2, 80)]))
    found = rank_calibration({"a": np.floor(p * 1000).astype(int)}, 999)
    assert float(found["p_spread"][0]) > 0.05
    assert "another shape" in in_words(found)


def test_nothing_is_said_of_a_guide_that_is_right():
    assert "no departure from a calibrated guide was found (level 0.05" in in_words(
        rank_calibration(*simulated(latents=3))
    )


@pytest.mark.parametrize("n", [1, 4, 9])
def test_symmetry_has_its_exact_p_value(n):
    """Against all patterns of signs, and the statistic against its definition by two ECDFs."""
    random = np.random.default_rng(n)
    p = random.uniform(size=n)

    def distance(values):
        grid = np.sort(np.concatenate([values, 1 - values]))
        below = [np.searchsorted(np.sort(v), grid, side="right") for v in (values, 1 - values)]
        return np.abs(below[0] - below[1]).max()

    signs = np.array(list(itertools.product([-1, 1], repeat=n)))
    all_ = [distance(0.5 + s * (p - 0.5)) for s in signs]
    assert _p_symmetric(p) == pytest.approx(np.mean(np.array(all_) >= distance(p)))


def test_ranks_that_do_not_fit_are_told():
    ranks, draws, errors = simulated()
    for given in ({}, {"a": np.arange(19)}, {"a": np.arange(30), "b": np.arange(40)}, {"a": np.zeros((30, 2), int)}):
        with pytest.raises(ValueError, match="from 20 data sets"):
            rank_calibration(given, draws)
    with pytest.raises(ValueError, match="integers from 0 to 98, the number of draws; got int64 from 0 to 99"):
        rank_calibration({"a": np.arange(100)}, 98)
    with pytest.raises(ValueError, match="got float64"):
        rank_calibration({"a": np.full(30, 0.5)}, 98)
    with pytest.raises(ValueError, match=r"errors are of \['b'\]"):
        rank_calibration(ranks, draws, {"b": errors["a[0]"]})
