"""Loaders of each task's own, test and predict under Lightning, and groups of parameters by name."""

import functools
import warnings

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, TensorDataset

import bmtl
from bmtl.inference import BalancedTraining, ParameterGroups
from bmtl.inputs import PerTask
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Categorical, Gaussian

ROWS = {"a": 12, "b": 7}


@pytest.fixture(autouse=True)
def _as_lightning_is():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`")
        warnings.filterwarnings("ignore", message=".*The number of training batches")
        yield


def tables(seed=0):
    """Of each task its own rows: a real target, and classes."""
    generator = torch.Generator().manual_seed(seed)
    x = {name: torch.randn(rows, 3, generator=generator) for name, rows in ROWS.items()}
    return x, {"a": x["a"].sum(-1), "b": (x["b"][:, 0] > 0).long()}


def loaders(batch_size=4, shuffle=False):
    x, y = tables()
    return {name: DataLoader(TensorDataset(x[name], y[name]), batch_size, shuffle) for name in ROWS}


ADAM = functools.partial(torch.optim.Adam, lr=0.01)


def fresh(optim=ADAM, balancer="last-layer >> nash-mtl"):
    generator = torch.Generator().manual_seed(1)
    model = TaskModel(
        mlp(3, (8,), generator=generator), 8, {"a": Gaussian(), "b": Categorical(2)}, ROWS, generator=generator
    )
    return bmtl.BalancedSVI(model, model.guide(), optim, balancer)


def trainer(**options):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(**(quiet | {"max_epochs": 2, "accelerator": "cpu"} | options))


def by_hand():
    """The batches of an epoch with a shorter loader cycled: 4, 4, 4 rows of a, and 4, 3, 4 of b."""
    x, y = tables()
    for a, b in ((slice(0, 4), slice(0, 4)), (slice(4, 8), slice(4, 7)), (slice(8, 12), slice(0, 4))):
        yield PerTask({"a": x["a"][a], "b": x["b"][b]}), {"a": y["a"][a], "b": y["b"][b]}


def weights(svi):
    return torch.cat([p.detach().flatten() for p in svi.parameters])


@pytest.fixture(scope="module")
def expected():
    svi = fresh()
    for _ in range(2):
        for batch in by_hand():
            svi.step(*batch)
        svi.end_epoch()
    return weights(svi)


class One:
    """One loader of these batches, where Lightning takes a list for several loaders."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return loaders()

    def val_dataloader(self):
        return loaders()


@pytest.mark.parametrize("form", ["dict", "combined", "module", "fit"])
def test_one_loader_a_task_takes_the_steps_of_joined_batches(form, expected):
    svi = fresh()
    if form == "fit":
        bmtl.fit(svi, loaders(), max_epochs=2, progress=False)
    elif form == "module":
        trainer().fit(BalancedTraining(svi), datamodule=Data())
    else:
        train = loaders() if form == "dict" else CombinedLoader(loaders(), "max_size_cycle")
        trainer().fit(BalancedTraining(svi), train)
    torch.testing.assert_close(weights(svi), expected)


def whole():
    x, y = tables()
    return PerTask(x), y


@pytest.mark.parametrize("form", ["sequential", "combined", "fit"])
def test_validation_by_task_counts_each_row_once(form):
    svi = fresh()
    if form == "fit":
        found = bmtl.fit(svi, loaders(), loaders(), max_epochs=1, progress=False, restore_best=False)
        validation = found.validation
    else:
        module = BalancedTraining(svi)
        val = loaders() if form == "sequential" else CombinedLoader(loaders(), "max_size")
        trainer(max_epochs=1).fit(module, loaders(), val)
        validation = module.validation
    exact = svi.evaluate(*whole()).losses
    assert [validation[name][-1] for name in "ab"] == pytest.approx(exact.tolist(), rel=1e-5)


def test_a_loader_that_ends_leaves_its_task_absent():
    svi = fresh()
    trainer(max_epochs=1).fit(BalancedTraining(svi), CombinedLoader(loaders(), "max_size"))
    assert [record.active.tolist() for record in svi.history] == [[True, True], [True, True], [True, False]]


def test_shuffled_loaders_follow_the_seed():
    runs = []
    for seed in (0, 0, 1):
        svi = fresh(balancer="ew")
        bmtl.fit(svi, loaders(3, shuffle=True), max_epochs=2, seed=seed, progress=False)
        runs.append(weights(svi))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_a_mapping_of_arguments_is_no_mapping_of_tasks():
    """A program whose arguments are pairs gets them."""
    seen = []

    def model(a, b):
        seen.append((a, b))
        with bmtl.task("a"):
            bmtl.observe("y", torch.distributions.Normal(0.0, 1.0), None)

    from bmtl.inference.loaders_by_task import TaskBatches

    batch = {"a": (torch.zeros(2), torch.ones(2)), "b": (torch.zeros(3), torch.ones(3))}
    assert TaskBatches(model).joined(batch) is batch
    x, y = TaskBatches(lambda x, y: None).joined(batch)
    assert isinstance(x, PerTask)
    assert y["b"].shape == (3,)
    with pytest.raises(ValueError, match="labels of \\['t'\\], which another one has too"):
        TaskBatches(lambda x, y: None).joined({name: (part[0], {"t": part[1]}) for name, part in batch.items()})


# ---- Test, predict, clipping -----------------------------------------------------------------------------------------


def test_testing_logs_the_losses_of_the_rows():
    svi = fresh()
    module = BalancedTraining(svi)
    own = trainer()
    own.fit(module, loaders())
    exact = svi.evaluate(*whole()).losses.tolist()
    for data in (loaders(), One([whole()])):
        found = own.test(module, data, verbose=False)[0]
        assert [found["test/a"], found["test/b"]] == pytest.approx(exact, rel=1e-5)
        assert found["test/loss"] == pytest.approx(sum(exact) / 2, rel=1e-5)
    assert module.validation == {}


def test_predicting_draws_for_each_batch():
    svi = fresh()
    module = BalancedTraining(svi, num_draws=5, seed=3)
    own = trainer()
    own.fit(module, loaders())
    x, y = whole()
    with_labels, without = own.predict(module, One([(x, y), (x,)]))
    expected = bmtl.draw(svi.model, svi.guide, x, y, num_draws=5, seed=3)
    assert (with_labels.draws.targets["a"].mean == expected.targets["a"].mean).all()
    assert with_labels.draws.targets["b"].draws.shape == (5, 7)
    assert (without.draws.targets["a"].mean == expected.targets["a"].mean).all()
    inputs_alone = {name: DataLoader(TensorDataset(values), 4) for name, values in x.items()}
    for data in (loaders(), inputs_alone):
        by_task = own.predict(module, data)
        assert [[len(of.draws.targets) for of in batches] for batches in by_task] == [[1, 1, 1], [1, 1]]
        means = torch.cat([torch.as_tensor(of.draws.targets["a"].mean) for of in by_task[0]])
        torch.testing.assert_close(means, torch.as_tensor(expected.targets["a"].mean))
        assert [of.draws.targets["b"].draws.shape for of in by_task[1]] == [(5, 4), (5, 3)]


@pytest.mark.parametrize(
    ("options", "way"), [({"gradient_clip_val": 0.5}, "clip=0.5"), ({"accumulate_grad_batches": 2}, "accumulate=2")]
)
def test_a_trainers_own_clipping_names_the_way_that_works(options, way):
    with pytest.raises(ValueError, match=rf"BalancedTraining\(svi, {way}\)"):
        trainer(**options).fit(BalancedTraining(fresh()), loaders())


# ---- Groups of parameters --------------------------------------------------------------------------------------------


def test_parameters_have_the_options_of_their_pattern():
    groups = ParameterGroups(
        torch.optim.AdamW, {"*trunk*": {"lr": 0.0}, "*heads*": {"lr": 0.02, "weight_decay": 0.1}}, lr=0.01
    )
    svi = fresh(groups, "uw")
    before = {name: p.detach().clone() for name, p in svi.module.named_parameters()}
    bmtl.fit(svi, loaders(), max_epochs=1, progress=False)
    moved = {name: not torch.equal(p, before[name]) for name, p in svi.module.named_parameters()}
    assert not any(value for name, value in moved.items() if "trunk" in name)
    assert all(value for name, value in moved.items() if "trunk" not in name)
    rates = [group["lr"] for group in svi.optimizer.param_groups]
    assert rates == [0.0, 0.02, 0.025] or rates == [0.0, 0.02, 0.01, 0.025]  # the balancer's own last


def test_a_late_parameter_joins_its_group():
    svi = fresh(ParameterGroups(torch.optim.SGD, {"*weight*": {"lr": 0.5}}, lr=0.01), "ew")
    frozen = [p for name, p in svi.module.named_parameters() if "trunk" in name]
    for p in frozen:
        p.requires_grad_(False)
    batch = next(by_hand())
    svi.step(*batch)
    for p in frozen:
        p.requires_grad_(True)
    svi.step(*batch)
    names = {id(p): name for name, p in svi.module.named_parameters()}
    for group in svi.optimizer.param_groups:
        assert all(("weight" in names[id(p)]) == (group["lr"] == 0.5) for p in group["params"])
    assert sum(len(group["params"]) for group in svi.optimizer.param_groups) == len(names)


def test_a_pattern_that_matches_nothing_is_named():
    with pytest.raises(ValueError, match=r"The patterns \['encoder\*'\] match no parameter.*trunk"):
        fresh(ParameterGroups(torch.optim.Adam, {"encoder*": {"lr": 1.0}}, lr=0.01)).initialise(*whole())
    with pytest.raises(ValueError, match=r"has the options \['rate'\], which Adam does not have; it has lr"):
        fresh(ParameterGroups(torch.optim.Adam, {"*": {"rate": 1.0}}, lr=0.01)).initialise(*whole())
    with pytest.raises(TypeError, match="groups maps patterns"):
        ParameterGroups(torch.optim.Adam, {"trunk": 0.1})
    with pytest.raises(ValueError, match="no pattern"):
        ParameterGroups(torch.optim.Adam, {})
