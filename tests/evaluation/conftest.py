import json

import numpy as np
import pytest
from scipy import stats

from tests.evaluation import families, trees

UNITS = {
    "mu": "D",
    "alpha": "bohr³",
    "homo": "meV",
    "lumo": "meV",
    "r2": "bohr²",
    "zpve": "meV",
    "u0": "meV",
    "u298": "meV",
    "h298": "meV",
    "g298": "meV",
    "cv": "cal/(mol K)",
}
SCALES = dict(zip(UNITS, [1.5, 8.0, 600.0, 1200.0, 280.0, 900.0, 1e4, 1e4, 1e4, 1e4, 4.0], strict=True))


def arrays(
    *,
    targets=("mu", "homo", "cv"),
    rows=60,
    draws=20,
    steps=30,
    seed=0,
    variant=0,
    error=0.3,
    width=1.0,
    seconds=1e-3,
    cosine=True,
    **overrides,
):
    """Arguments of `trees.tree` for a run whose predictive is Gaussian: calibrated where `width` is 1.

    `seed` makes the labels, `variant` the predictions and the training, so that two methods share a seed's rows.
    """
    labels, random = np.random.default_rng(seed), np.random.default_rng([seed, variant + 1])
    made = {name: {} for name in ("observed", "predictive", "log_likelihood", "predictive_mean", "pit")}
    for target in targets:
        y = SCALES.get(target, 1.0) * labels.normal(size=rows)
        sd = error * SCALES.get(target, 1.0)
        mean = y + sd * random.normal(size=rows)
        locations = mean + 0.1 * sd * random.normal(size=(draws, rows))
        made["observed"][target] = y
        made["predictive"][target] = (locations + width * sd * random.normal(size=(draws, rows))).astype(np.float32)
        made["log_likelihood"][target] = stats.norm.logpdf(y, locations, width * sd).astype(np.float32)
        made["predictive_mean"][target] = mean
        made["pit"][target] = stats.norm.cdf(y, mean, width * sd)
    k = len(targets)
    losses = np.exp(-np.arange(steps)[:, None] / 10 + 0.1 * random.normal(size=(steps, k)))
    training = {
        "losses": losses,
        "weights": 1 / losses,
        "weights_heads": np.ones((steps, k), dtype=np.float32),
        "residual": np.full(steps, 1e-9),
        "seconds": seconds * random.uniform(0.9, 1.1, size=steps),
        "shared": np.zeros(steps),
        "epoch": np.arange(steps) // 10 + 1,
    }
    if cosine:
        gradients = random.normal(size=(steps, k, 5))
        gradients /= np.linalg.norm(gradients, axis=-1, keepdims=True)
        training["cosine"] = (gradients @ gradients.transpose(0, 2, 1)).astype(np.float32)
    made |= {
        "posterior": {
            "noise": random.normal(size=(draws, k)).astype(np.float32),
            "head.bias": random.normal(size=draws),
        },
        "coords": {"target": list(targets)},
        "dims": {"noise": ["target"]},
        "target_location": dict.fromkeys(targets, 0.0),
        "target_scale": {target: SCALES.get(target, 1.0) for target in targets},
        "units": {target: UNITS[target] for target in targets if target in UNITS},
        "training": training,
        "method": "ew",
        "balancer": "ew",
        "seed": seed,
        "configuration": {"lr": 1e-3, "patience": None, "flags": [True, False]},
        "data_name": "qm9-mini",
        "data_fingerprint": "9f2c",
    }
    return made | overrides


@pytest.fixture
def run_arrays():
    return arrays


@pytest.fixture(scope="session")
def made():
    """Trees by the options that they were made with."""
    return {}


@pytest.fixture
def make_tree(made):
    """A tree of one's own: with plain options a copy, since most tests make the same few."""

    def make(**options):
        try:
            asked = json.dumps(options, sort_keys=True)
        except TypeError:  # arrays are among them
            return trees.tree(**arrays(**options))
        if asked not in made:
            made[asked] = trees.tree(**arrays(**options))
        return made[asked].copy(deep=True)

    return make


@pytest.fixture
def eleven():
    """The eleven targets of the QM9 comparison."""
    return tuple(UNITS)


@pytest.fixture
def mixed_grid(make_tree, run_arrays):
    """A regression and a classification with three classes; the second method is the better one in both."""

    def make(method, split, noise):
        labels, random = np.random.default_rng(split), np.random.default_rng([split, len(method)])
        classes = labels.integers(3, size=60)
        logits = np.eye(3)[classes] + noise * random.normal(size=(60, 3))
        p = np.exp(3 * logits)
        base = run_arrays(targets=("mu",), seed=split, variant=len(method), error=noise)
        given = {name: base[name] for name in ("predictive_mean", "pit")}
        return make_tree(
            targets=("mu",),
            seed=split,
            observed={"mu": base["observed"]["mu"], "kind": classes},
            probability={"kind": p / p.sum(axis=1, keepdims=True)},
            predictive=None,
            log_likelihood=None,
            posterior=None,
            training=None,
            **given,
        )

    return {(m, s): make(m, s, noise) for m, noise in (("stl", 0.9), ("nash-mtl", 0.4)) for s in (0, 1, 2)}


@pytest.fixture
def every_family_grid():
    """Two methods of three seeds each on a target of every family; ew has half the error of stl."""
    return {
        (name, seed): families.tree(seed, error, method=name, data_fingerprint="9f2c")
        for name, error in (("stl", 1.0), ("ew", 0.5))
        for seed in range(3)
    }
