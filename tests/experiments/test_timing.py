import time
from dataclasses import replace

import torch

from bmtl.experiments import step_seconds
from bmtl.inference.errors import NonFinite
from bmtl.inference.svi import BalancedSVI
from tests.experiments.toys import BAYESIAN, BUDGET, EW, NASH, STL, UW, broken, mixed


def test_methods_take_turns(data, monkeypatch):
    """A step each, in one thread, five more of each before it counts."""
    taken = []
    step = BalancedSVI.step

    def counting(self, *args):
        taken.append((id(self), torch.get_num_threads()))
        return step(self, *args)

    monkeypatch.setattr(BalancedSVI, "step", counting)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    seconds = step_seconds(data, [STL, EW, BAYESIAN], BUDGET, steps=4)
    assert list(seconds) == ["ew", "bayesian"]  # single-task learning has no step of all tasks
    assert all(value > 0 for value in seconds.values())
    assert [who for who, _ in taken] == [who for who, _ in taken[:2]] * 9
    assert {count for _, count in taken} == {1}
    assert torch.get_num_threads() == threads
    torch.testing.assert_close(torch.get_rng_state(), before)


def test_a_step_of_an_ensemble_is_one_of_each_member(data, monkeypatch):
    monkeypatch.setattr("bmtl.experiments.timing.np.median", lambda values: 1.0)
    assert step_seconds(data, [NASH, replace(NASH, name="five", ensemble_size=5)], BUDGET, steps=1) == {
        "nash-mtl": 1.0,
        "five": 5.0,
    }


def test_nothing_to_time_is_no_error(data):
    assert step_seconds(data, [STL], BUDGET, steps=1) == {}


def test_missing_labels_are_no_trouble():
    assert step_seconds(mixed(), [EW], BUDGET, steps=2)["ew"] > 0


def test_a_method_that_diverges_while_it_is_timed_has_no_time_and_the_others_theirs(data, monkeypatch, caplog):
    """Its error once ended the whole comparison."""
    step, taken = BalancedSVI.step, []

    def diverging(self, *args):
        taken.append(self)
        if str(self.balancer) == NASH.balancer and taken.count(self) == 7:
            raise NonFinite("the loss of 'mass' is nan")
        return step(self, *args)

    monkeypatch.setattr(BalancedSVI, "step", diverging)
    assert list(step_seconds(data, [EW, NASH, broken(), UW], BUDGET, steps=4)) == ["ew", "uw"]
    assert "A step of nash-mtl cannot be timed" in caplog.text
    assert "broken cannot be timed: noise is one of" in caplog.text


def test_processor_time_is_a_mean_without_waiting(data, monkeypatch):
    """Waiting does not count, and work at every tenth step does."""
    step, taken = BalancedSVI.step, []

    def at_times(self, *args):
        record = step(self, *args)
        taken.append(self)
        if len(taken) % 10 == 0:
            start = time.process_time()
            while time.process_time() - start < 0.2:
                pass
        else:
            time.sleep(0.01)
        return record

    monkeypatch.setattr(BalancedSVI, "step", at_times)
    assert 0.02 < step_seconds(data, [EW], BUDGET, steps=10, processor=True)["ew"] < 0.2
