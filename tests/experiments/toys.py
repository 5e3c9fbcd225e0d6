"""Data and methods that train in a fraction of a second."""

import os
import signal
from collections.abc import Mapping

import numpy as np

from bmtl.datasets import MultiTaskData
from bmtl.datasets.many_tasks import assemble
from bmtl.experiments import METHODS, Budget, Method
from bmtl.targets import Binary, Classes

BUDGET = Budget(epochs=2, batch_size=16, widths=(6,), draws=8)
STEPS = 2 * 3  # of 48 training rows
UNITS = {"mass": "g", "length": "m"}
STL, EW, UW, NASH, BAYESIAN = (METHODS[name] for name in ("stl", "ew", "uw", "nash-mtl", "bayesian"))


def toy(**overrides):
    """80 rows, two regressions whose units differ by five decades; every part lacks a label of "length"."""
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 3))
    y = {
        "mass": 5000 + 300 * x @ [1.0, 2.0, -1.0] + 50 * random.normal(size=80),
        "length": -0.02 + 0.003 * x @ [0.0, 1.0, 1.0] + 0.0005 * random.normal(size=80),
    }
    y["length"][[3, 50, 70]] = np.nan
    rows = {"train": np.arange(48), "val": np.arange(48, 64), "test": np.arange(64, 80)}
    given = {"name": "toy", "x": x, "y": y, "rows": rows, "units": UNITS} | overrides
    return MultiTaskData.from_arrays(**given)


def unlabelled_in(part):
    given = toy()
    y = {"mass": given.targets["mass"].values, "length": given.targets["length"].values.copy()}
    y["length"][given.rows[part]] = np.nan
    return toy(y=y)


def classes_of(x, count):
    """Labels that a network learns at once: which of `count` slices along the first input."""
    return np.digitize(x[:, 0], np.quantile(x[:, 0], np.arange(1, count) / count))


def mixed():
    """A regression and two classifications, each with missing labels in every part."""
    data = toy()
    kind, sign = classes_of(data.inputs.x, 3), classes_of(-data.inputs.x, 2)
    kind[[1, 49, 66, 67]] = -1
    sign[[2, 3, 51, 70]] = -1
    length = data.targets["length"].values
    y = {"length": length, "kind": kind, "sign": sign}
    families = {"kind": Classes(("low", "mid", "high")), "sign": Binary()}
    return toy(y=y, families=families, units={"length": "m"})


def ragged():
    """Each row has a label for one of two targets."""
    data = toy()
    odd = np.arange(80) % 3 == 0
    mass, length = (data.targets[name].values for name in ("mass", "length"))
    return toy(y={"mass": np.where(odd, np.nan, mass), "length": np.where(odd, length, np.nan)})


def domains(kind=2, lacking=None):
    """120 rows, each of one of three targets; of `lacking`, the last class is nowhere."""
    random = np.random.default_rng(1)
    task = np.arange(120) % 3
    x = random.normal(size=(120, 4))
    y = 5.0 + 2.0 * x[:, 0] if kind == "real" else classes_of(x, kind)
    if lacking is not None:
        y[(task == "abc".index(lacking)) & (y == kind - 1)] = 0
    return assemble("domains", x, y, task=task, task_names=["a", "b", "c"], kinds=kind, seed=1)


class Deadly(Mapping):
    """Options of a model that kill the process which asks for them, unless it is the one that made them."""

    def __init__(self):
        self.home = os.getpid()

    def __getitem__(self, name):
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"noise": "fixed"}[name]

    def __iter__(self):
        return iter(["noise"])

    def __len__(self):
        return 1


def broken(name="broken"):
    """A method that raises when its model is built."""
    return Method(name, options={"noise": "no such noise"})


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
