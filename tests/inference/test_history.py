"""The history keeps records bit for bit, in bounded memory, and goes through a file."""

import functools
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bmtl
from bmtl.inference.checkpoint import load, save
from bmtl.inference.history import History
from bmtl.inference.record import StepRecord, history_arrays
from tests.inference.programs import NAN, Regressions, assert_same, batch, nothing

MIB = 2**20


def a_record(step, k=3, seed=0, **options):
    """A synthetic record; some compare gradients, some have events, some are skipped."""
    random = np.random.default_rng([seed, step])
    vectors = {
        name: torch.from_numpy(random.normal(size=k)) for name in ("losses", "weights", "weights_heads", "alpha")
    }
    vectors["losses"][step % k] = NAN
    square = torch.from_numpy(random.normal(size=(k, k)))
    return StepRecord(
        **{
            "step": step,
            "epoch": 1 + step // 10,
            "names": tuple(f"t{i}" for i in range(k)),
            "shared": float(random.normal()),
            "active": torch.from_numpy(random.uniform(size=k) < 0.8),
            "gram": square @ square.T if step % 3 else None,
            "combination": bool(step % 2),
            "lr": 0.1,
            "probed": {("t0", "t1"): NAN if step % 4 else 0.5} if step % 5 == 0 else {},
            "residual": math.inf if step % 7 == 0 else 1e-9,
            "iterations": step % 11,
            "status": "skipped" if step % 13 == 0 else "ok",
            "length": "norm",
            "seconds": {"step": 0.1, "elbo": 0.05} | ({"geometry": 0.01} if step > 20 else {}),
            "events": ("task 't0' has a zero gradient",) if step % 17 == 0 else (),
            **vectors,
            **options,
        }
    )


def fields(records):
    return [vars(record) for record in records]


def kept(history, records):
    """The given records of the steps that a history kept."""
    return [records[record.step] for record in history]


@pytest.mark.parametrize("k", [1, 3, 40])
def test_records_come_back_bit_for_bit(k):
    records = [a_record(step, k) for step in range(150)]  # packed, pending and last ones
    history = History(None)
    for record in records:
        history.append(record)
    assert history.every == 1
    assert_same(fields(history), fields(records))
    assert_same(fields(history[-3:]), fields(records[-3:]))
    assert_same(vars(history[70]), vars(records[70]))
    assert history[-1] is records[-1]
    assert len(history) == 150
    for wrong in (150, -151):
        with pytest.raises(IndexError, match="150 records"):
            history[wrong]


@given(st.integers(1, 700), st.integers(1, 6), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_a_thinned_history_is_every_nth_record_and_the_last_within_its_limit(steps, k, kibibytes):
    records = [a_record(step, k) for step in range(steps)]
    history = History(kibibytes / 1024)
    history.extend(records)
    assert_same(fields(history), fields(kept(history, records)))
    found = [record.step for record in history]
    assert found[-1] == steps - 1
    assert found[:-1] == list(range(0, steps - 1, history.every))[: len(found) - 1]
    assert history.every & (history.every - 1) == 0
    size = sum(33 * k + 160 + (8 * k * k if record.gram is not None else 0) for record in list(history)[:-1])
    assert size <= max(1024 * kibibytes, 33 * k + 160 + 8 * k * k)
    full = History(None)
    full.extend(records)
    if history.every > 1:  # it is thinned where it must be only
        assert 33 * k * steps + 160 * steps + 8 * k * k * sum(r.gram is not None for r in records) > 1024 * kibibytes


@pytest.mark.parametrize("stop", [0, 1, 63, 64, 65, 199, 500])
def test_saving_on_the_way_changes_nothing_that_is_kept(stop):
    records = [a_record(step) for step in range(600)]
    expected = History(0.02)
    expected.extend(records)
    history = History(0.02)
    history.extend(records[:stop])
    file = io.BytesIO()
    torch.save(history.state_dict(), file)
    file.seek(0)
    again = History(0.02)
    again.append(a_record(99, 7))  # forgotten
    again.load_state_dict(torch.load(file, weights_only=True))
    for one in (history, again):
        one.extend(records[stop:])
        assert one.every == expected.every
        assert_same(fields(one), fields(expected))


def test_the_last_record_may_still_be_changed():
    history = History()
    history.append(a_record(0))
    history[-1].seconds["step"] = 7.0
    history.append(a_record(1))
    history.state_dict()
    history[-1].seconds["step"] = 9.0
    history.append(a_record(2))
    assert [record.seconds["step"] for record in history] == [7.0, 9.0, 0.1]


def test_it_can_be_cleared_and_takes_other_tasks_then():
    history = History()
    history.extend(a_record(step) for step in range(100))
    with pytest.raises(ValueError, match="The history is of the tasks"):
        history.append(a_record(0, 2))
    history.clear()
    assert (len(history), list(history)) == (0, [])
    history.append(a_record(0, 2))
    assert history[0].names == ("t0", "t1")


def test_arrays_of_a_thinned_history_are_those_of_its_steps():
    records = [a_record(step) for step in range(300)]
    history = History(0.02)
    history.extend(records)
    arrays, expected = history_arrays(history), history_arrays(kept(history, records))
    assert arrays["step"].tolist() == [record.step for record in history]
    for name, values in expected.items():
        np.testing.assert_array_equal(arrays[name], values)


# ---- In a run and in its checkpoints ---------------------------------------------------------------------------------

SGD = functools.partial(torch.optim.SGD, lr=0.1)


@pytest.mark.parametrize("spec", ["ew", "full(every=3) >> nash-mtl", "last-layer >> nash-mtl", "ew >> full(every=2)"])
def test_a_runs_history_goes_through_a_file_bit_for_bit(spec, tmp_path):
    torch.manual_seed(0)
    svi = bmtl.BalancedSVI(Regressions(), nothing, SGD, spec)
    for seed in range(5):
        svi.step(*batch(seed=seed))
    svi.history[-1].probed["a", "b"] = 0.1
    save(svi, tmp_path / "run.ckpt")
    again = bmtl.BalancedSVI(Regressions(), nothing, SGD, spec)
    again.initialise(*batch())
    load(again, tmp_path / "run.ckpt")
    assert_same(fields(again.history), fields(svi.history))


def test_a_hundred_thousand_steps_add_less_than_10_mib_to_a_checkpoint(tmp_path):
    """4,000 steps of three tasks took .84 MiB, and 100,000 would have taken 21."""
    svi = bmtl.BalancedSVI(Regressions(), nothing, SGD, "full >> nash-mtl")
    svi.step(*batch())
    save(svi, tmp_path / "short.ckpt")
    names = svi.names
    some = [a_record(step, names=names, gram=torch.eye(3).double()) for step in range(1_000)]
    svi.history.clear()
    for _ in range(100):
        svi.history.extend(some)
    save(svi, tmp_path / "long.ckpt")
    sizes = [(tmp_path / name).stat().st_size for name in ("short.ckpt", "long.ckpt")]
    assert sizes[1] - sizes[0] < 10 * MIB
    assert len(svi.history) > 10_000
    assert sum(column.values.nbytes for column in svi.history._packed.values()) < 10 * MIB


def test_the_limit_is_the_runs_choice(tmp_path):
    def run(**options):
        torch.manual_seed(0)
        svi = bmtl.BalancedSVI(Regressions(), nothing, SGD, "full >> nash-mtl", **options)
        for seed in range(40):
            svi.step(*batch(seed=seed % 5, missing=False))
        return svi

    small, everything = run(history_mib=0.004), run(history_mib=None)
    assert small.history.every > 1
    assert len(everything.history) == 40
    for record in small.history:
        assert_same(record.losses, everything.history[record.step].losses)
    assert small.history[-1].step == 39
    save(small, tmp_path / "run.ckpt")
    again = bmtl.BalancedSVI(Regressions(), nothing, SGD, "full >> nash-mtl", history_mib=0.004)
    load(again, tmp_path / "run.ckpt")
    for svi in (small, again):
        for seed in range(3):
            svi.step(*batch(seed=seed, missing=False))
    assert [r.step for r in again.history] == [r.step for r in small.history]


def test_steps_that_compared_nothing_take_no_room_for_their_pairs():
    def size(k):
        file = io.BytesIO()
        history = History(None)
        history.extend(a_record(step, k, gram=None, probed={}) for step in range(50))
        torch.save(history.state_dict(), file)
        return file.tell()

    assert size(40) - size(2) < 50 * 38 * 8 * 6  # K numbers a step of each of five fields, and not K x K
