import shutil

import numpy as np
import pytest

from bmtl.evaluation import results
from bmtl.evaluation.comparison import compare
from bmtl.evaluation.results import PredictedRows
from bmtl.targets import Prediction
from tests.evaluation import trees

METHODS = {"stl": 0.3, "ew": 0.5, "nash-mtl": 0.1}


def mixture(run):
    """Components of the Gaussian predictive that the fixtures draw from."""
    found = {}
    for name, mean in run["predictive_mean"].items():
        scale = np.full((1, len(mean)), np.std(run["observed"][name] - mean))
        found[name] = {"loc": mean[None], "scale": scale, "df": np.full((1, len(mean)), np.inf)}
    return found


@pytest.fixture
def full_tree(run_arrays):
    """A run on real targets with everything that a page has a section for."""

    def make(**options):
        run, other = run_arrays(**options), run_arrays(**{**options, "seed": 77})
        names, rows = run["observed"], np.random.default_rng(5)
        spread = {name: rows.uniform(0.5, 1, size=len(y)) for name, y in names.items()}
        elsewhere = {
            name: PredictedRows(Prediction(np.zeros((2, len(value))), aleatoric=value + 1, epistemic=value + 0.2))
            for name, value in spread.items()
        }
        validation = trees.predicted(
            other["observed"],
            predictive=other["predictive"],
            mean=other["predictive_mean"],
            distribution=mixture(other),
            log_likelihood=other["log_likelihood"],
            pit=other["pit"],
        )
        return trees.tree(
            **{
                **run,
                "distribution": mixture(run),
                "aleatoric": spread,
                "epistemic": {name: value / 3 for name, value in spread.items()},
                "below": {"validation": validation},
                "predictions": elsewhere,
            }
        )

    return make


@pytest.fixture
def lean_tree(make_tree):
    """A regression run with what most scores need, quickly written."""
    without = dict.fromkeys(["predictive", "log_likelihood", "posterior", "coords", "dims"])
    return lambda **options: make_tree(**{"draws": 2, "steps": 3, "cosine": False, **without, **options})


@pytest.fixture(scope="session")
def written():
    """Folders of runs by what they were asked for with."""
    return {}


@pytest.fixture
def folder(tmp_path, tmp_path_factory, written, full_tree, lean_tree):
    """Writes a grid of runs as a comparison does: three methods, some splits; in full, or quickly. Each is made once."""

    def make(methods=METHODS, splits=3, **options):
        asked = repr((methods, splits, options))
        if asked not in written:
            written[asked] = tmp_path_factory.mktemp("comparison")
            write(written[asked], methods, splits, **options)
        return shutil.copytree(written[asked], tmp_path / "runs")

    def write(out, methods, splits, *, stored=True, full=False, attributes=None, seeds=False, **options):
        make_tree = full_tree if full else lean_tree
        trees = {}
        for variant, (method, error) in enumerate(methods.items()):
            for split in range(splits):
                about = (
                    {} if "data_fingerprint" in options else {"data_fingerprint": "one" if seeds else f"split {split}"}
                )
                tree = make_tree(method=method, seed=split, variant=variant, error=error, **about, **options)
                tree.attrs.update(attributes or {})
                trees[method, split] = tree
                results.write(tree, out / method / f"split-{split}-seed-0" / "results.nc")
        if stored:
            scores = compare(trees, baseline="stl" if "stl" in methods else None, reference=None)
            results.write(scores.assign_attrs(attributes or {}), out / "comparison.nc")

    return make
