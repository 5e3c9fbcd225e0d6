import signal

import pytest

from bmtl import experiments
from bmtl.experiments import runs as module
from bmtl.experiments import training
from bmtl.inference.svi import BalancedSVI
from tests.experiments.toys import BUDGET, METHODS, toy


@pytest.fixture(scope="session")
def data():
    return toy()


@pytest.fixture(scope="session")
def runs(data):
    """Each method's tree, and the data, model and SVI that each part of it was collected from."""
    collect, programs, trees = module.collect, {}, {}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("stl", "ew", "bayesian"):

            def spy(part, members, *rest, name=name, **options):
                (trained,) = members
                programs.setdefault(name, []).append((part, trained.model, trained.svi))
                return collect(part, members, *rest, **options)

            patch.setattr(module, "collect", spy)
            trees[name] = experiments.run(data, METHODS[name], 3, BUDGET)
    return trees, programs


@pytest.fixture
def never_trains(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("trained")

    monkeypatch.setattr(training, "fit", never)


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
