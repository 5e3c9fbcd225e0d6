"""Whether a guide is calibrated, from the ranks of known latents in guides fitted to simulated data.

Where a guide is the posterior, ranks are uniform. Three tests are made of each latent: are its ranks uniform at all
(chi-squared), are they symmetric (else the guide is biased high or low), and are they as spread as uniform ones (else it
is too narrow or too wide). Sources: Talts et al. (2018), "Validating Bayesian inference algorithms with simulation-based
calibration"; Yao et al. (2018), "Yes, but did it work?", section 3, whose test of symmetry compares p with 1 - p.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import ndtri

from bmtl.evaluation.resampling import holm
from bmtl.targets.metrics.uniformity import POINTS, pit_ecdf

FEWEST = 20  # data sets; below, the tests of hundreds of latents can find nothing
PER_BIN = 5  # expected ranks in a bin of the chi-squared test, for its distribution to hold
MOST_BINS = 20


def rank_calibration(
    ranks: Mapping[str, ArrayLike],
    num_draws: int,
    errors: Mapping[str, ArrayLike] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Tests of the ranks of each latent, and their ECDFs within bands.

    Args:
        ranks: Latent -> ranks ``(R,)`` from 0 to `num_draws`, one per simulated data set; ``found.ranks`` of
            `bmtl.inference.simulation.simulated_ranks`.
        num_draws: S, the draws that the truth was ranked among.
        errors: Latent -> guide's mean less truth in the guide's standard deviations ``(R,)``, ``found.errors``: they give
            the size of what is wrong.
        level: Of the bands; one less it is that of the tests in `in_words`.
        seed: Within its step of ``1 / (S + 1)`` a rank's probability is drawn, which makes it exactly uniform.

    Returns:
        By ``latent``: p-values ``p_uniform``, ``p_symmetric``, ``p_spread``, corrected by Holm for all tests of all latents
        together; ``centre``, the mean probability of the truth less 1/2 (above 0: the guide is too low), and ``spread``,
        the standard deviation of the ranks' normal scores over that of uniform ones (above 1: the guide is too narrow, or
        lies too far off to both sides). With `errors`: ``shift``, the mean error, and ``width``, the guide's standard
        deviation over that of its errors about that mean. ``ecdf``, ``lower``, ``upper`` (latent, point), as `pit_ecdf`
        gives them. Scalars ``datasets``, ``draws``, ``level``.

    Raises:
        ValueError: If there is no latent or fewer than 20 data sets, latents have different numbers of them, or a rank is
            no integer from 0 to S.
    """
    names = list(ranks)
    arrays = [np.asarray(ranks[name]) for name in names]
    if not names or len({a.shape for a in arrays}) > 1 or arrays[0].ndim != 1 or len(arrays[0]) < FEWEST:
        shapes = {name: a.shape for name, a in zip(names, arrays, strict=True)}
        raise ValueError(
            f"ranks have shapes {shapes}; expected (R,) with one R from {FEWEST} data sets for all latents."
        )
    table = np.stack(arrays)  # (latent, R)
    if table.dtype.kind not in "iu" or table.min() < 0 or table.max() > num_draws:
        raise ValueError(
            f"Ranks are integers from 0 to {num_draws}, the number of draws; got {table.dtype} from {table.min()} to "
            f"{table.max()}."
        )
    p = (table + np.random.default_rng(seed).uniform(size=table.shape)) / (num_draws + 1)
    tests = holm(np.array([[_p_uniform(row), _p_symmetric(row), _p_spread(row)] for row in p]))
    scores = ndtri(p)
    curves = [pit_ecdf(row, level=level)[1:] for row in p]
    found = {
        **{name: ("latent", tests[:, k]) for k, name in enumerate(("p_uniform", "p_symmetric", "p_spread"))},
        "centre": ("latent", p.mean(axis=1) - 0.5),
        "spread": ("latent", scores.std(axis=1, ddof=1)),
        **{
            name: (("latent", "point"), np.stack([curve[k] for curve in curves]))
            for k, name in enumerate(("ecdf", "lower", "upper"))
        },
        "datasets": table.shape[1],
        "draws": num_draws,
        "level": level,
    }
    if errors is not None:
        if list(errors) != names:
            raise ValueError(f"errors are of {list(errors)}, and ranks of {names}.")
        sizes = np.stack([np.asarray(errors[name], dtype=float) for name in names])
        with np.errstate(invalid="ignore", divide="ignore"):
            found |= {"shift": ("latent", sizes.mean(axis=1)), "width": ("latent", 1 / sizes.std(axis=1, ddof=1))}
    return xr.Dataset(found, coords={"latent": names, "point": POINTS})


def in_words(found: xr.Dataset) -> str:
    """The result of `rank_calibration` in words: a sentence on all latents, and a line for each that is miscalibrated."""
    wrong = 1 - float(found["level"])
    lines = []
    for name in found["latent"].values.tolist():
        of = found.sel(latent=name)
        faults = []
        if float(of["p_symmetric"]) < wrong:
            side = "low" if float(of["centre"]) > 0 else "high"
            faults.append(f"the guide sits too {side}" + _size(of, "shift", "by {:.2g} of its standard deviations"))
        if float(of["p_spread"]) < wrong:
            kind = "narrow" if float(of["spread"]) > 1 else "wide"
            faults.append(
                f"the guide is too {kind}" + _size(of, "width", "its standard deviation is {:.2g} times the right one")
            )
        if not faults and float(of["p_uniform"]) < wrong:
            faults.append("the guide has another shape than the posterior: its ranks are not uniform")
        if faults:
            lines.append(f"{name}: {', and '.join(faults)}.")
    total, sets = found.sizes["latent"], int(found["datasets"])
    about = f"In {sets:,} simulated data sets the truth of {total:,} latent{'s' * (total > 1)} was ranked"
    if not lines:
        return f"{about}: no departure from a calibrated guide was found (level {wrong:.2g}, all tests together)."
    return "\n".join(
        [f"{about}: {len(lines):,} of them depart{'s' * (len(lines) == 1)} from a calibrated guide.", *lines]
    )


def _size(of: xr.Dataset, name: str, words: str) -> str:
    """Its size in brackets, where there is one: a point has no standard deviation."""
    return f" ({words.format(abs(float(of[name])))})" if name in of and np.isfinite(of[name]) else ""


def _p_uniform(p: np.ndarray) -> float:
    """Chi-squared test of equal counts in as many bins as there are data for, 20 at most."""
    bins = min(len(p) // PER_BIN, MOST_BINS)
    return float(stats.chisquare(np.histogram(p, bins, (0, 1))[0]).pvalue)


def _p_symmetric(p: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance of p to 1 - p, with its exact p-value under symmetry about 1/2.

    From the ends inwards, the difference of the two counts walks by the signs of p - 1/2, which are fair coins where p is
    symmetric. The two samples being one, the usual table of the two-sample test does not hold (Butler 1969, "A test for
    symmetry using the sample distribution function").
    """
    signs = np.sign(p - 0.5)[np.argsort(-np.abs(p - 0.5), kind="stable")]
    furthest = int(np.abs(signs.cumsum()).max())
    inside = np.zeros(2 * furthest + 1)  # probabilities of -furthest, ..., furthest; both ends are gone
    inside[furthest] = 1.0
    for _ in signs:
        inside[1:-1] = (inside[:-2] + inside[2:]) / 2
        inside[[0, -1]] = 0.0
    return float(np.clip(1 - inside.sum(), 0, 1))


def _p_spread(p: np.ndarray) -> float:
    """Two-sided chi-squared test that the normal scores of p have variance 1 about their mean."""
    freedom = len(p) - 1
    squares = freedom * ndtri(p).var(ddof=1)
    return float(min(1.0, 2 * min(stats.chi2.cdf(squares, freedom), stats.chi2.sf(squares, freedom))))
