"""`fit` and the Lightning module: they take the steps that BalancedSVI takes, end where they should, and lose nothing."""

import contextlib
import copy
import csv
import functools
import logging
import os
import random
import re
import shutil
import signal
import warnings

import lightning.pytorch as pl
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset, IterableDataset

import bmtl
from bmtl.datasets import Batches
from bmtl.inference.errors import NonFinite
from bmtl.inference.lightning_module import BalancedTraining
from bmtl.inference.loaders import spread
from bmtl.inference.svi import BalancedSVI
from bmtl.inference.training import fit
from tests.inference.programs import (
    NAN,
    TASKS,
    Regressions,
    Sites,
    assert_same,
    batch,
    double,
    nothing,
    task_model,
    without_seconds,
)

Adam = functools.partial(torch.optim.Adam, lr=0.03)
SGD = functools.partial(torch.optim.SGD, lr=0.1)
ROWS = 24
quick = functools.partial(fit, progress=False)


@pytest.fixture(autouse=True)
def _empty_store():
    pyro.clear_param_store()


def regressions(balancer="ew", optim=Adam, **options):
    torch.manual_seed(0)
    return BalancedSVI(Regressions(ROWS), nothing, optim, balancer, **options)


def latents(balancer="ew"):
    torch.manual_seed(0)
    model = Sites(ROWS)
    return BalancedSVI(model, AutoNormal(model), Adam, balancer)


def batches(seed=0, rows=ROWS, size=6, **options):
    return Batches(*batch(rows, seed), size, **options)


class Table(Dataset):
    def __init__(self, rows=ROWS):
        self.x, self.y = batch(rows)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], {name: values[i] for name, values in self.y.items()}


class Stream(IterableDataset):
    def __init__(self, rows=ROWS):
        self.table = Table(rows)

    def __iter__(self):
        return (self.table[i] for i in range(len(self.table)))


class Unsized:
    """An iterable without a length, whose order comes from torch's global generator."""

    def __init__(self, loader, shuffle=False):
        self.loader, self.shuffle = list(loader), shuffle

    def __iter__(self):
        order = torch.randperm(len(self.loader)) if self.shuffle else range(len(self.loader))
        for i in order:
            yield self.loader[i]


def parameters(svi):
    return {name: p.detach().clone() for name, p in svi.module.named_parameters()}


def losses(result):
    return torch.stack([record.losses for record in result.history])


class Snapshots(pl.Callback):
    """The parameters after each epoch."""

    def __init__(self):
        self.taken = []

    def on_validation_end(self, trainer, pl_module):
        self.taken.append(parameters(pl_module.svi))


class At(pl.Callback):
    """Does something once, after a number of steps."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.svi.steps == self.step:
            self.action()


# ---- The loop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balancer", ["ew", "igb-v1", "uw >> nash-mtl", "last-layer >> nash-mtl"])
def test_fit_takes_the_steps_of_a_loop_by_hand(balancer):
    data = list(batches(shuffle=False))
    by_hand = regressions(balancer)
    for _ in range(3):
        for x, y in data:
            by_hand.step(x, y)
        by_hand.end_epoch()
    svi = regressions(balancer)
    result = quick(svi, data, max_epochs=3)
    assert_same(parameters(svi), parameters(by_hand))
    assert_same(losses(result), torch.stack([r.losses for r in by_hand.history]))
    assert [r.epoch for r in result.history] == [1] * 4 + [2] * 4 + [3] * 4
    assert svi.epoch == 4
    assert result.best_epoch is None
    assert not result.restored


@pytest.mark.parametrize(
    "loader",
    [
        lambda data: data,
        lambda data: [{"x": x, "y": y} for x, y in data],
        lambda data: [[x, y] for x, y in data],
        lambda data: DataLoader(Table(), 6),
        lambda data: DataLoader(Stream(), 6),
        lambda data: Batches(*batch(ROWS), 6, shuffle=False),
        Unsized,
    ],
    ids=["tuples", "mappings", "lists", "DataLoader", "iterable DataLoader", "Batches", "without length"],
)
def test_whatever_yields_the_same_batches_gives_the_same_run(loader):
    data = list(Batches(*batch(ROWS), 6, shuffle=False))
    expected, svi = regressions(), regressions()
    quick(expected, data, max_epochs=2)
    quick(svi, loader(data), loader(data), max_epochs=2, restore_best=False)
    assert_same(parameters(svi), parameters(expected))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((1, 2), ((1, 2), {})),
        ([1, 2], ((1, 2), {})),
        ({"x": 1, "y": 2}, ((), {"x": 1, "y": 2})),
    ],
)
def test_batches_are_spread(given, expected):
    assert spread(given) == expected


def test_a_tensor_is_a_batch_of_its_own_and_other_things_are_none():
    x = torch.zeros(2)
    assert spread(x) == ((x,), {})
    with pytest.raises(TypeError, match="not str"):
        spread("x")
    with pytest.raises(TypeError, match="not int"):
        quick(regressions(), [3], max_epochs=1)


@pytest.mark.parametrize(
    "loader",
    [
        lambda: batches(seed=1),
        lambda: DataLoader(Table(), 6, shuffle=True),
        lambda: DataLoader(Table(), 6, shuffle=True, generator=torch.Generator()),
        lambda: Unsized(batches(shuffle=False), shuffle=True),
    ],
    ids=["Batches", "DataLoader", "DataLoader with a generator", "own"],
)
def test_the_order_of_the_batches_follows_from_the_seed(loader):
    def history(seed, global_seed):
        svi = regressions()
        torch.manual_seed(global_seed)
        return losses(quick(svi, loader(), max_epochs=2, seed=seed))

    assert_same(history(1, 5), history(1, 6))
    assert not torch.equal(history(1, 5), history(2, 5))
    first, second = history(1, 5).chunk(2)
    assert not torch.equal(first[0], second[0])


def test_the_global_generators_are_left_as_they_were():
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    svi = latents()
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    quick(svi, DataLoader(Table(), 6, shuffle=True), DataLoader(Table(), 6), max_epochs=2)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_logging_and_warnings_are_left_as_they_were():
    log = logging.getLogger("lightning.pytorch")
    level, filters = log.level, list(warnings.filters)
    quick(regressions(), batches(), max_epochs=1)
    assert log.level == level
    assert warnings.filters == filters


def test_the_progress_bar_shows_the_task_losses(capsys):
    quick(regressions(), batches(), batches(), max_epochs=1, progress=True)
    shown = capsys.readouterr().out
    assert "Epoch 0" in shown
    for name in TASKS:
        assert f"{name}:" in shown


# ---- Validation: early stopping, the best epoch ----------------------------------------------------------------------


def opposed():
    """Validation data that training passes on its way and then leaves behind."""
    x, y = batch(ROWS)
    return Batches(x, {name: values / 4 for name, values in y.items()}, 6, shuffle=False)


def test_validation_losses_are_means_over_labelled_rows():
    svi = regressions()
    result = quick(svi, batches(), batches(seed=4, size=5), max_epochs=1)
    x, y = batch(ROWS, 4)
    with torch.no_grad():
        h = torch.tanh(svi.model.trunk(x))
        for name, head in svi.model.heads.items():
            seen = ~y[name].isnan()
            expected = (head(h)[seen, 0] - y[name][seen]).square().mean() / 2
            assert result.validation[name] == pytest.approx([expected.item()], rel=1e-5)


def test_a_task_without_validation_labels_is_left_out_of_the_mean():
    x, y = batch(ROWS)
    y["b"] = torch.full_like(y["b"], NAN)
    result = quick(regressions(), batches(), Batches(x, y, 6), max_epochs=2)
    assert set(result.validation) == {"a", "c"}
    y = {name: torch.full_like(values, NAN) for name, values in y.items()}
    with pytest.raises(ValueError, match="no labelled row"):
        quick(regressions(), batches(), Batches(x, y, 6), max_epochs=2)


def test_training_stops_when_validation_no_longer_improves():
    result = quick(regressions(), batches(), opposed(), max_epochs=50, patience=3)
    means = np.mean([result.validation[name] for name in TASKS], axis=0)
    best = int(means.argmin()) + 1
    assert result.best_epoch == best
    assert len(means) == best + 3
    assert result.history[-1].epoch == best + 3


@pytest.mark.parametrize("restore", [True, False])
def test_the_best_epochs_parameters_are_restored(restore):
    svi, snapshots = regressions(), Snapshots()
    result = quick(svi, batches(), opposed(), max_epochs=6, restore_best=restore, callbacks=[snapshots])
    means = np.mean([result.validation[name] for name in TASKS], axis=0)
    assert means.argmin() < 5
    assert result.restored == restore
    assert_same(parameters(svi), snapshots.taken[means.argmin() if restore else -1])
    if restore:
        assert result.best_epoch == means.argmin() + 1
        found = [svi.evaluate(*one) for one in opposed()]
        total = sum(torch.where(one.labelled > 0, one.losses * one.labelled, 0) for one in found)
        mean = (total / sum(one.labelled for one in found)).mean()
        assert mean.item() == pytest.approx(means.min())


def test_param_statements_are_restored_too():
    def model(x, y):
        loc = pyro.param("loc", torch.tensor(0.0))
        with bmtl.task("a"), pyro.plate("a_rows", ROWS, subsample=x):
            bmtl.observe("y_a", dist.Normal(loc, 1.0), y["a"])

    x, y = batch(ROWS)
    train, val = [(x, {"a": y["a"] * 0 + 1.0})], [(x, {"a": y["a"] * 0 + 0.25})]  # it passes 0.25 on its way to 1
    svi = BalancedSVI(model, nothing, SGD)
    result = quick(svi, train, val, max_epochs=20)
    assert 1 < result.best_epoch < 20
    assert pyro.param("loc").item() == pytest.approx(1 - 0.9**result.best_epoch, abs=1e-5)


# ---- Clipping, accumulation, schedules -------------------------------------------------------------------------------


def one_step(balancer="ew", data=None, **options):
    svi = regressions(balancer, SGD)
    before = parameters(svi)
    quick(svi, data or [batch(ROWS)], max_epochs=1, **options)
    return {name: (p - before[name]) / -0.1 for name, p in parameters(svi).items()}


def norm(gradients):
    return torch.cat([g.flatten() for g in gradients.values()]).norm()


@pytest.mark.parametrize("balancer", ["ew", "si >> nash-mtl"])
def test_clipping_shortens_the_whole_gradient_and_keeps_its_direction(balancer):
    free = one_step(balancer)
    clip = norm(free).item() / 3
    clipped = one_step(balancer, clip=clip)
    assert norm(clipped).item() == pytest.approx(clip, rel=1e-3)
    assert_close(clipped, {name: g / 3 for name, g in free.items()}, rtol=1e-3, atol=1e-5)
    assert_close(one_step(balancer, clip=norm(free).item() * 2), free)


def test_param_statements_are_clipped_too():
    def model(x, y):
        loc = pyro.param("loc", torch.tensor(0.0))
        with bmtl.task("a"), pyro.plate("a_rows", ROWS, subsample=x):
            bmtl.observe("y_a", dist.Normal(loc, 1.0), y["a"])

    x, y = batch(ROWS)
    quick(BalancedSVI(model, nothing, SGD), [(x, {"a": y["a"] + 1000})], max_epochs=1, clip=0.5)
    assert pyro.param("loc").item() == pytest.approx(0.05, rel=1e-4)


def halves():
    x, y = batch(ROWS)
    return [(x[i : i + 12], {name: values[i : i + 12] for name, values in y.items()}) for i in (0, 12)]


def test_two_accumulated_halves_are_the_whole_batch():
    assert_close(one_step(data=halves(), accumulate=2), one_step(), rtol=1e-4, atol=1e-5)
    assert_close(one_step(data=halves(), accumulate=5), one_step(), rtol=1e-4, atol=1e-5)  # the epoch ends before


@pytest.mark.parametrize("form", [list, Unsized])
@pytest.mark.parametrize(("accumulate", "updates"), [(1, 4), (2, 2), (3, 2), (4, 1), (9, 1)])
def test_an_epochs_last_batches_are_not_lost_to_accumulation(form, accumulate, updates):
    svi = regressions(optim=SGD)
    taken = []
    svi.initialise(*batch(ROWS))
    step = svi.optimizer.step
    svi.optimizer.step = lambda *args, **kwargs: taken.append(svi.steps) or step(*args, **kwargs)
    quick(svi, form(batches()), max_epochs=1, accumulate=accumulate)
    assert len(taken) == updates
    assert taken[-1] == 4
    assert svi.steps == 4


def rates(svi, **options):
    """Learning rate of each epoch."""
    found = []

    class Watch(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            found.append(pl_module.svi.optimizer.param_groups[0]["lr"])

    quick(svi, batches(), callbacks=[Watch()], **options)
    return found


def test_a_scheduler_steps_once_an_epoch():
    halve = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)
    assert rates(regressions(optim=SGD), max_epochs=5, scheduler=halve) == [0.1, 0.1, 0.05, 0.05, 0.025]


def test_a_plateau_scheduler_follows_the_validation_loss():
    plateau = functools.partial(torch.optim.lr_scheduler.ReduceLROnPlateau, factor=0.1, patience=0)
    found = rates(regressions(), max_epochs=6, scheduler=plateau, val=opposed())  # the third epoch is the best
    assert found == pytest.approx([0.03] * 4 + [0.003, 0.0003])
    svi = regressions(optim=SGD)
    with pytest.raises(ValueError, match="give validation batches"):
        quick(svi, batches(), max_epochs=2, scheduler=plateau)
    assert svi.steps == 0


def one_cycle(steps, peak=0.2):
    return functools.partial(
        torch.optim.lr_scheduler.OneCycleLR, max_lr=peak, total_steps=steps, div_factor=25.0, final_div_factor=1e4
    )


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 12), (3, 6)])
def test_one_cycle_by_the_step_ends_annealed(accumulate, steps):
    """Three epochs of four batches; accumulated over three, an epoch's last batch is a step of its own."""
    svi = regressions(optim=SGD)
    result = quick(svi, batches(), max_epochs=3, scheduler=one_cycle(steps), interval="step", accumulate=accumulate)
    found = [record.lr for record in result.history]
    reference = one_cycle(steps)(SGD([nn.Parameter(torch.zeros(1))]))
    expected = []
    for _ in range(3):
        for number in range(4):
            expected.append(reference.get_last_lr()[0])
            if (number + 1) % accumulate == 0 or number == 3:
                reference.optimizer.step()
                if len(expected) < 12:
                    reference.step()
    assert found == pytest.approx(expected)
    assert found[0] == pytest.approx(0.2 / 25)
    assert max(found) > 0.15
    assert svi.optimizer.param_groups[0]["lr"] == pytest.approx(0.2 / 25 / 1e4)


def test_the_schedule_goes_on_where_a_step_is_skipped():
    """The first batch of an epoch is spoilt: the cycle ends annealed all the same, and torch's warning is not heard."""
    svi = regressions(optim=SGD, on_error="skip")
    quick(svi, spoilt(), max_epochs=3, scheduler=one_cycle(12), interval="step")
    assert svi.skipped == 3
    assert svi.optimizer.param_groups[0]["lr"] == pytest.approx(0.2 / 25 / 1e4)


def test_schedules_that_do_not_fit_are_refused_before_a_step():
    plateau = functools.partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0)
    for scheduler, options, message in (
        (one_cycle(12), {}, "cycle of 12 steps, and training takes 3 of interval='epoch'"),
        (one_cycle(12), {"interval": "step", "accumulate": 2}, "Give it total_steps=6"),
        (plateau, {"interval": "step", "val": batches()}, "use it with interval='epoch'"),
        (one_cycle(12), {"interval": "batch"}, "interval is 'epoch' or 'step'"),
    ):
        svi = regressions(optim=SGD)
        with pytest.raises(ValueError, match=re.escape(message)):
            quick(svi, batches(), max_epochs=3, scheduler=scheduler, **options)
        assert svi.steps == 0
    quick(svi, batches(), max_epochs=3, scheduler=one_cycle(3))  # by the epoch it is in place too


def test_a_cycle_that_is_resumed_is_the_uninterrupted_one(tmp_path):
    options = {"scheduler": one_cycle(24), "interval": "step", "seed": 5}
    expected = regressions()
    quick(expected, batches(), max_epochs=6, **options)

    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 2

    quick(regressions(), batches(), max_epochs=6, out=tmp_path, callbacks=[Stop()], **options)
    svi = regressions()
    quick(svi, batches(), max_epochs=6, out=tmp_path, resume=tmp_path / "last.ckpt", **options)
    assert_same(parameters(svi), parameters(expected))
    assert [r.lr for r in svi.history] == [r.lr for r in expected.history]


# ---- Optimizers that evaluate their loss themselves -------------------------------------------------------------------

LBFGS = functools.partial(torch.optim.LBFGS, lr=1.0, max_iter=15, history_size=10, line_search_fn="strong_wolfe")


def test_lbfgs_reaches_the_least_squares():
    """Linear regressions on the inputs themselves, one batch: the normal equations' answer after one epoch of few steps."""
    x, y = (value for value in batch(ROWS, missing=True))
    model = task_model(nn.Identity(), 3, dict.fromkeys(TASKS, 0), ROWS, noise="fixed")
    svi = BalancedSVI(model, model.guide(), LBFGS, "ew")
    before = torch.get_rng_state()
    result = quick(svi, [(x, y)], max_epochs=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(result.history) == 4
    for name in ("a", "b"):
        seen = ~y[name].isnan()
        design = torch.cat([x[seen], torch.ones(int(seen.sum()), 1)], 1)
        exact = torch.linalg.lstsq(design, y[name][seen][:, None]).solution[:, 0]
        (layer,) = model.heads.of(name)
        assert_close(torch.cat([layer.weight[0], layer.bias]), exact, rtol=1e-3, atol=1e-3)


def test_a_line_search_sees_one_function():
    """A guide with latents: an evaluation at the same parameters repeats loss and gradients of the step."""
    torch.manual_seed(0)
    model = Sites(ROWS)
    svi = BalancedSVI(model, AutoNormal(model), LBFGS, "dwa")
    svi.backward(*batch(ROWS))
    expected = [p.grad.clone() for p in svi.parameters]
    after = torch.get_rng_state()
    evaluate = svi.closure()
    first, again = evaluate(), evaluate()
    assert again == pytest.approx(first, rel=1e-5)
    assert torch.equal(torch.get_rng_state(), after)
    for p, gradient in zip(svi.parameters, expected, strict=True):
        assert_close(p.grad, gradient, rtol=1e-4, atol=1e-6)


def test_what_is_no_one_function_is_refused():
    for balancer in ("full >> upgrad", "uw"):
        with pytest.raises(ValueError, match="LBFGS"):
            regressions(balancer, LBFGS).step(*batch(ROWS))
    regressions(bmtl.balancer("last-layer >> upgrad", heads="alpha"), LBFGS).step(*batch(ROWS))
    for options in ({"clip": 1.0}, {"accumulate": 2}):
        with pytest.raises(ValueError, match="clip=None and"):
            quick(regressions("ew", LBFGS), batches(), max_epochs=1, **options)


# ---- Files: logs, checkpoints, resumption ----------------------------------------------------------------------------


def metrics(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_losses_are_logged_for_each_epoch_and_two_checkpoints_kept(tmp_path):
    result = quick(regressions(), batches(), opposed(), max_epochs=5, out=tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best.ckpt", "last.ckpt", "metrics.csv"]
    rows = metrics(tmp_path / "run")
    for name in TASKS:
        logged = [float(row[f"val/{name}"]) for row in rows if row[f"val/{name}"]]
        assert logged == pytest.approx(result.validation[name], rel=1e-5)
        train = [float(row[f"train/{name}"]) for row in rows if row[f"train/{name}"]]
        means = losses(result).reshape(5, 4, 3).nanmean(1)[:, TASKS.index(name)]
        assert train == pytest.approx(means.tolist(), rel=1e-5)

    best, last = (torch.load(tmp_path / "run" / f"{name}.ckpt", weights_only=True)["bmtl"] for name in ("best", "last"))
    assert best["svi"]["epoch"] == result.best_epoch + 1 < last["svi"]["epoch"] == 6


def whole(svi, result):
    """All that a run comes to."""
    state = without_seconds(copy.deepcopy(svi.state_dict()))
    return state, result.validation, result.best_epoch, result.restored


RESUMED = {
    "ew": lambda: regressions(),
    "igb-v1 >> nash-mtl": lambda: regressions("igb-v1 >> nash-mtl"),
    "uw": lambda: regressions("uw"),
    "latents": lambda: latents("last-layer >> nash-mtl"),
}


@pytest.mark.parametrize("make", RESUMED.values(), ids=RESUMED)
@pytest.mark.parametrize("train", [lambda: DataLoader(Table(), 6, shuffle=True), lambda: batches(seed=3)])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(tmp_path, make, train):
    options = {
        "scheduler": functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.7),
        "patience": 10,
        "seed": 5,
        "clip": 1.0,
    }
    svi = make()
    expected = whole(svi, quick(svi, train(), opposed(), max_epochs=6, out=tmp_path / "a", **options))

    quick(make(), train(), opposed(), max_epochs=4, out=tmp_path / "b", **options)
    torch.rand(3)
    svi = make()
    resume = tmp_path / "b" / "last.ckpt"
    result = quick(svi, train(), opposed(), max_epochs=6, out=tmp_path / "b", resume=resume, **options)
    assert_same(whole(svi, result), expected)
    assert metrics(tmp_path / "b") == metrics(tmp_path / "a")


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_run_saved_in_the_middle_of_an_epoch_goes_on_with_its_rows_draws_and_gradients(at, tmp_path):
    """Under a trainer of one's own: two of three batches of an accumulation may have been taken."""

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == (1, at):
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    def trained(*callbacks, **options):
        svi = latents("uw")
        trainer = pl.Trainer(
            max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu", callbacks=list(callbacks),
        )  # fmt: skip
        x, y = batch(rows=20)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(BalancedTraining(svi, accumulate=3), Batches(x, y, 4, seed=3), **options)
        return parameters(svi)

    expected = trained(Save())
    torch.rand(3)
    assert_same(trained(ckpt_path=tmp_path / "middle.ckpt", weights_only=True), expected)


def test_a_run_goes_on_in_another_folder_and_from_its_best_epoch(tmp_path):
    quick(regressions(), batches(), opposed(), max_epochs=6, out=tmp_path / "a")
    best = torch.load(tmp_path / "a" / "best.ckpt", weights_only=True)["bmtl"]["svi"]["epoch"] - 1
    svi = regressions()
    resume = tmp_path / "a" / "best.ckpt"
    result = quick(svi, batches(), opposed(), max_epochs=6, out=tmp_path / "b", resume=resume)
    assert result.history[-1].epoch == 6
    assert result.best_epoch == best
    assert {float(row["epoch"]) for row in metrics(tmp_path / "b")} == set(range(best, 6))
    quick(regressions(), batches(), opposed(), max_epochs=6, out=tmp_path / "a", resume=resume)
    assert [float(row["epoch"]) for row in metrics(tmp_path / "a")] == [e for e in range(6) for _ in range(2)]


def test_fit_goes_on_where_an_earlier_fit_ended():
    data = list(batches())
    svi, expected = regressions("igb-v1"), regressions("igb-v1")
    quick(svi, data, max_epochs=2)
    quick(svi, data, max_epochs=2)
    quick(expected, data, max_epochs=4)
    assert_same(parameters(svi), parameters(expected))
    assert svi.epoch == 5


@pytest.mark.parametrize("how", ["exception", "signal"])
def test_ctrl_c_keeps_the_last_checkpoint_and_is_raised_again(tmp_path, how):
    def interrupt():
        if how == "signal":
            os.kill(os.getpid(), signal.SIGINT)
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    svi = regressions("igb-v1")
    train = functools.partial(batches, seed=3)
    with pytest.raises(KeyboardInterrupt, match="epoch 3"):
        quick(svi, train(), batches(), max_epochs=6, out=tmp_path / "a", callbacks=[At(10, interrupt)])
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(svi.history) == 10
    assert metrics(tmp_path / "a")[-1]["epoch"] == "1"

    svi, expected = regressions("igb-v1"), regressions("igb-v1")
    resume = tmp_path / "a" / "last.ckpt"
    found = whole(svi, quick(svi, train(), batches(), max_epochs=6, out=tmp_path / "a", resume=resume))
    assert_same(found, whole(expected, quick(expected, train(), batches(), max_epochs=6)))


def test_ctrl_c_in_a_finalizer_is_not_lost(capfd):
    """Python prints what a finalizer raises, and goes on."""

    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    svi = regressions()
    with pytest.raises(KeyboardInterrupt, match="epoch"):
        quick(svi, batches(), max_epochs=4, callbacks=[At(5, Finalized)])
    assert len(svi.history) in (5, 6)
    assert "ignored" not in capfd.readouterr().err


def test_ctrl_c_before_the_first_step_is_no_empty_loader():
    def interrupting():
        raise KeyboardInterrupt

    class Early(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            interrupting()

    with pytest.raises(KeyboardInterrupt):
        quick(regressions(), batches(), max_epochs=2, callbacks=[Early()])


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_callbacks_own_error_comes_through(error):
    def fail():
        raise error("mine")

    with pytest.raises(error, match="mine"):
        quick(regressions(), batches(), max_epochs=2, callbacks=[At(2, fail)])


# ---- Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [list, lambda: DataLoader(Table(0), 6), lambda: Unsized([])])
def test_an_empty_loader_is_named(empty):
    svi = regressions()
    with pytest.raises(ValueError, match="'train' is empty"):
        quick(svi, empty(), max_epochs=2)
    svi.step(*batch(ROWS))
    with pytest.raises(ValueError, match="'train' is empty"):
        quick(svi, empty(), max_epochs=2)


def test_an_empty_validation_loader_is_named():
    with pytest.raises(ValueError, match="'val' is empty"):
        quick(regressions(), batches(), [], max_epochs=2)


def test_one_batch_is_no_loader():
    batch = next(iter(batches()))
    with pytest.raises(TypeError, match="'train' gives batches in a for loop, and a tuple of tensors was given"):
        quick(regressions(), tuple(batch), max_epochs=2)


@pytest.mark.parametrize("name", ["train", "val"])
def test_a_generator_is_refused_since_it_has_one_epoch_only(name):
    loaders = {"train": batches(), "val": batches()} | {name: (one for one in batches())}
    with pytest.raises(ValueError, match=f"{name!r} can be read only once"):
        quick(regressions(), **loaders, max_epochs=2)


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    svi = regressions()
    with pytest.raises(OSError, match="cannot be written"):
        quick(svi, batches(), max_epochs=2, out=tmp_path / "file" / "run")
    assert not svi.initialised


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 0}, "max_epochs"),
        ({"patience": 2}, "give validation batches"),
        ({"clip": 0.0}, "clip is a gradient norm"),
        ({"clip": NAN}, "clip is a gradient norm"),
        ({"accumulate": 0}, "accumulate is a number of batches"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        quick(regressions(), batches(), **{"max_epochs": 2, **options})


def test_a_pyro_optimizer_is_refused():
    def model(x, y):
        with bmtl.task("a"):
            pyro.sample("y", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=torch.tensor(1.0))

    with pytest.raises(ValueError, match="not a PyroOptim"):
        quick(BalancedSVI(model, nothing, pyro.optim.Adam({"lr": 0.1})), [batch()], max_epochs=1)


def spoilt():
    x, y = batch(ROWS)
    x[7] = torch.inf
    return Batches(x, y, 6, shuffle=False)


def test_a_step_that_cannot_be_taken_ends_the_run_or_is_skipped():
    with pytest.raises(NonFinite, match="step 1"):
        quick(regressions(), spoilt(), max_epochs=2)
    svi = regressions(on_error="skip")
    result = quick(svi, spoilt(), max_epochs=2)
    assert [record.status for record in result.history] == ["ok", "skipped", "ok", "ok"] * 2
    assert svi.skipped == 2
    assert all(p.isfinite().all() for p in svi.parameters)

    by_hand = regressions(on_error="skip")
    for one in [*spoilt(), *spoilt()]:
        by_hand.step(*one)
    assert_same(parameters(svi), parameters(by_hand))


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
@pytest.mark.parametrize("make", [regressions, latents])
def test_other_precisions(make, precision):
    svi = make()
    result = quick(svi, batches(), batches(), max_epochs=2, precision=precision)
    assert losses(result).nansum() > 0
    kinds = {p.dtype for p in svi.parameters}
    assert kinds == {torch.float64 if precision == "64-true" else torch.float32}


@pytest.mark.parametrize("options", [{"clip": 0.05}, {"accumulate": 2}])
@pytest.mark.parametrize("balancer", ["uw", "igb-v1 >> full >> nash-mtl", "representation >> upgrad"])
@pytest.mark.usefixtures("_as_lightning_is")
def test_a_gradient_scaler_changes_no_step(balancer, options):
    svi, expected = regressions(balancer), regressions(balancer)
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**20))
    plugin.autocast_context_manager = contextlib.nullcontext  # the scaler alone, in float32
    for run, plugins in ((svi, [plugin]), (expected, [])):
        run.model.double()
        module = BalancedTraining(run, **options)
        with double():
            data = batches(shuffle=False)
        trainer(max_epochs=3, plugins=plugins).fit(module, data, data)
    assert svi.scale == 2.0**20
    for name, value in parameters(svi).items():
        assert_close(value, parameters(expected)[name], rtol=1e-4, atol=1e-6)  # torch clips to within 1e-6


FLOAT16 = ["ew", "igb-v1 >> full >> nash-mtl", "igb-v1 >> last-layer >> nash-mtl", "last-layer >> upgrad"]


@pytest.mark.parametrize("balancer", FLOAT16)
@pytest.mark.usefixtures("_as_lightning_is")
def test_float16_takes_about_the_steps_of_float32(balancer):
    svi, expected = regressions(balancer, SGD), regressions(balancer, SGD)
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**6))
    for run, plugins in ((svi, [plugin]), (expected, [])):
        data = batches(shuffle=False)
        trainer(max_epochs=3, plugins=plugins).fit(BalancedTraining(run, clip=1.0), data, data)
    assert not svi.skipped
    # IGB's weights of two tasks go down to 1e-12 here, which float16 cannot hold, and Nash-MTL compares their directions.
    assert all(not record.events for record in svi.history)
    for name, value in parameters(svi).items():
        assert_close(value, parameters(expected)[name], rtol=5e-3, atol=2e-3)


# ---- Under a trainer of one's own ------------------------------------------------------------------------------------


def trainer(**options):
    return pl.Trainer(
        **{
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "accelerator": "cpu",
            **options,
        }
    )


@pytest.fixture
def _as_lightning_is():
    """A user's own trainer says what Lightning says."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*exists and is not empty")
        warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint")
        yield


@pytest.mark.usefixtures("_as_lightning_is")
@pytest.mark.parametrize("make", [regressions, latents])
def test_the_module_under_a_users_own_trainer(make):
    data = functools.partial(batches, shuffle=False)
    svi, expected = make(), make()
    module = BalancedTraining(svi, seed=4)
    own = trainer(max_epochs=3)
    own.fit(module, data(), data())
    result = quick(expected, data(), data(), max_epochs=3, seed=4, restore_best=False)
    assert_same(parameters(svi), parameters(expected))
    assert module.validation == result.validation  # Lightning's sanity check is no epoch
    assert own.global_step == svi.steps == 12
    assert own.callback_metrics["val/loss"].item() == pytest.approx(
        np.mean([v[-1] for v in module.validation.values()])
    )


@pytest.mark.usefixtures("_as_lightning_is")
def test_a_users_data_module_and_checkpoints(tmp_path):
    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(Table(), 6)

        def val_dataloader(self):
            return DataLoader(Table(), 6)

    def saving():
        return pl.callbacks.ModelCheckpoint(tmp_path, save_last=True, enable_version_counter=False)

    expected = latents()
    trainer(max_epochs=4).fit(BalancedTraining(expected), datamodule=Data())

    def saved(max_epochs):
        return trainer(max_epochs=max_epochs, callbacks=[saving()], enable_checkpointing=True)

    saved(2).fit(BalancedTraining(latents()), datamodule=Data())
    checkpoint = shutil.copy(tmp_path / "last.ckpt", tmp_path / "two.ckpt")
    svi = latents()
    module = BalancedTraining(svi)
    saved(4).fit(module, datamodule=Data(), ckpt_path=checkpoint, weights_only=True)
    assert_same(parameters(svi), parameters(expected))
    assert len(module.validation["a"]) == 4

    fresh = latents()
    (found,) = trainer().validate(
        BalancedTraining(fresh), datamodule=Data(), ckpt_path=checkpoint, weights_only=True, verbose=False
    )
    assert found["val/a"] == pytest.approx(module.validation["a"][1], rel=1e-5)


@pytest.mark.usefixtures("_as_lightning_is")
def test_validation_alone_sets_the_program_up():
    module = BalancedTraining(latents())
    trainer().validate(module, batches(), verbose=False)
    assert module.svi.names == TASKS
    assert module.svi.steps == 0
    assert module.validation == {}


@pytest.mark.usefixtures("_as_lightning_is")
def test_a_checkpoint_that_bmtl_did_not_write_is_refused(tmp_path):
    class Other(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 1)

        def training_step(self, batch, batch_idx):
            return self.net(batch[0]).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    own = trainer(max_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own.fit(Other(), batches())
    own.save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="not written by bmtl"):
        trainer(max_epochs=2).fit(
            BalancedTraining(regressions()),
            batches(),
            batches(),
            ckpt_path=tmp_path / "other.ckpt",
            weights_only=True,
        )
    with pytest.raises(ValueError, match="not written by bmtl"):
        quick(regressions(), batches(), max_epochs=2, resume=tmp_path / "other.ckpt")
