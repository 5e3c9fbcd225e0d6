"""How far runs are that are under way."""

from types import SimpleNamespace

import pytest

from bmtl.experiments import ShareDone, UnderWay, under_way
from bmtl.experiments.under_way import RUNNING, marked


def test_networks_count_alike_and_one_that_ends_early_as_whole():
    said = []
    share = ShareDone(2, said.append)
    trainer = SimpleNamespace(current_epoch=1, num_training_batches=4, max_epochs=5)
    share.on_train_batch_end(trainer, None, None, None, 1)
    share.on_train_end(trainer, None)
    trainer.current_epoch = 0
    share.on_train_batch_end(trainer, None, None, None, 3)
    share.on_train_end(trainer, None)
    assert said == pytest.approx([0.15, 0.5, 0.6, 1.0])
    endless = SimpleNamespace(current_epoch=0, num_training_batches=float("inf"), max_epochs=-1)
    ShareDone(1, said.append).on_train_batch_end(endless, None, None, None, 7)
    assert 0 <= said[-1] <= 1


def test_a_mark_is_read_while_it_lasts(tmp_path):
    with pytest.raises(KeyboardInterrupt), marked(tmp_path, "ew (seed 0)", 3) as share:  # noqa: PT012
        assert under_way(tmp_path) == [UnderWay("ew (seed 0)", 0.0, 3)]
        share.say(1.0)
        assert under_way(tmp_path) == [UnderWay("ew (seed 0)", 1.0, 3)]
        (tmp_path / "killed").mkdir()
        (tmp_path / "killed" / RUNNING).write_text("{")
        assert len(under_way(tmp_path)) == 1
        raise KeyboardInterrupt
    assert not (tmp_path / RUNNING).exists()
