import signal

import pytest

from bmtl import experiments
from bmtl.experiments import runs as module
from bmtl.inference.svi import BalancedSVI
from tests.experiments.toys import BUDGET, METHODS, toy


@pytest.fixture(scope="session")
def data():
    return toy()


@pytest.fixture(scope="session")
def runs(data):
    """Each method's tree, and the data, model and SVI that each part of it was read off."""
    read_off, programs, trees = module._read_off, {}, {}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("stl", "ew", "bayesian"):

            def spy(part, model, svi, *rest, name=name):
                programs.setdefault(name, []).append((part, model, svi))
                return read_off(part, model, svi, *rest)

            patch.setattr(module, "_read_off", spy)
            trees[name] = experiments.run(data, METHODS[name], 3, BUDGET)
    return trees, programs


@pytest.fixture
def never_trains(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("trained")

    monkeypatch.setattr(module, "fit", never)


@pytest.fixture
def ctrl_c_at(monkeypatch):
    """Sends SIGINT to this process in the n-th training step, counted over all runs."""

    def arrange(n):
        backward, taken = BalancedSVI.backward, []

        def counting(self, *args, **kwargs):
            taken.append(1)
            if len(taken) == n:
                signal.raise_signal(signal.SIGINT)
            return backward(self, *args, **kwargs)

        monkeypatch.setattr(BalancedSVI, "backward", counting)

    return arrange
