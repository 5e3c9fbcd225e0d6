import numpy as np
import pytest
import xarray as xr

from bmtl.evaluation.repeats import UNKNOWN, Repeats


def comparison(prints, seeds):
    count = np.arange(len(seeds))
    return xr.Dataset(coords={"split": count, "data_fingerprint": ("split", prints), "seed": ("split", seeds)})


@pytest.mark.parametrize(
    ("prints", "seeds", "noun", "counted", "interval"),
    [
        (["a", "a", "a"], [0, 1, 2], "seed", "3 seeds of one split", "seeds and hold no variance of the data"),
        (["a", "b", "c"], [0, 0, 0], "split", "3 splits", "splits, which share rows"),
        (["a", "b", "c"], [0, 1, 2], "split", "3 splits", "splits"),
        (["a", "a", "b", "b"], [0, 1, 0, 1], "run", "4 runs (2 splits, 2 seeds each)", "over runs"),
        (["", "", ""], [0, 1, 2], "run", "3 runs", "over runs"),
        (["a", "a"], [UNKNOWN, 1], "run", "2 runs", "over runs"),
        (["a", "a", "b"], [0, 1, 0], "run", "3 runs", "over runs"),
    ],
)
def test_what_repeated_runs_are_called(prints, seeds, noun, counted, interval):
    found = Repeats.of(comparison(prints, seeds))
    assert (found.noun, found.counted) == (noun, counted)
    assert interval in found.interval()


def test_one_run_has_no_interval():
    found = Repeats.of(comparison(["a"], [0]))
    assert found.counted == "one run"
    assert found.interval() == ""


@pytest.mark.parametrize(("runs", "decisive"), [(1, False), (2, False), (3, True)])
def test_two_runs_decide_nothing(runs, decisive):
    assert Repeats(runs, runs, 1).decisive == decisive
