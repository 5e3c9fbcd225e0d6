"""Class probabilities and labels to score: calibrated or not, and a tree of four targets of both kinds."""

import numpy as np
import xarray as xr
from hypothesis import settings
from hypothesis import strategies as st

from tests.evaluation import trees

steady = settings(deadline=None, derandomize=True, max_examples=60)
problems = st.tuples(st.integers(1, 40), st.integers(2, 5), st.integers(0, 2**32 - 1))  # rows, classes, seed


def rounded(problem, decimals=1):
    """Labels and probabilities with many ties, and labels drawn without regard to them."""
    rows, classes, seed = problem
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(classes, 0.7), size=rows).round(decimals)
    p[:, -1] = 1 - p[:, :-1].sum(axis=1)
    p = np.abs(p)  # a rounding below zero
    return random.integers(classes, size=rows), p / p.sum(axis=1, keepdims=True)


def calibrated(rows, classes, seed=0, concentration=0.7):
    """Labels that are drawn from the probabilities."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(classes, concentration), size=rows)
    y = (p.cumsum(axis=1)[:, :-1] < random.uniform(size=(rows, 1))).sum(axis=1)
    return y, p


def sharpened(p, power):
    """Over-confident for a power above one, under-confident below."""
    raised = p**power
    return raised / raised.sum(axis=1, keepdims=True)


def class_tree(rows=200, seed=0, power=1.0, **options) -> xr.DataTree:
    """Targets: ``price`` a regression, ``ill`` of two classes, ``digit`` of four, ``none`` of three without a label."""
    random = np.random.default_rng([seed, 1])
    observed, probability, aleatoric, epistemic = {}, {}, {}, {}
    observed["price"] = random.normal(size=rows)
    scale = random.uniform(0.1, 1, size=rows)
    mean = observed["price"] + scale * random.normal(size=rows)
    aleatoric["price"], epistemic["price"] = 0.75 * scale**2, 0.25 * scale**2
    for target, classes in (("ill", 2), ("digit", 4), ("none", 3)):
        observed[target], p = calibrated(rows, classes, seed)
        probability[target] = sharpened(p, power)
        entropy = -(p * np.log(p.clip(1e-300))).sum(axis=1)
        aleatoric[target], epistemic[target] = 0.75 * entropy, 0.25 * entropy
    observed["digit"][::3] = -1
    observed["none"][:] = -1
    draws = {name: np.repeat(mean[None], 20, 0) for name in ("price",)}
    for target, p in probability.items():
        u = random.uniform(size=(20, rows, 1))
        draws[target] = (p.cumsum(axis=1)[:, :-1] < u).sum(axis=-1)
    return trees.tree(
        **{
            "observed": observed,
            "predictive_mean": {"price": mean},
            "predictive": draws,
            "probability": probability,
            "aleatoric": aleatoric,
            "epistemic": epistemic,
            "units": {"price": "EUR"},
            **options,
        }
    )
