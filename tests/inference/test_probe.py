import functools
import math

import numpy as np
import pyro
import pytest
import torch
from torch import nn

import bmtl
from bmtl.inference import ConflictProbe
from bmtl.inference.record import history_arrays
from tests.inference.programs import (
    NAN,
    Regressions,
    Sites,
    SitesGuide,
    assert_same,
    batch,
    nothing,
)

SGD = functools.partial(torch.optim.SGD, lr=0.05)
SPECS = [
    "ew",
    "si",
    "igb-v1 >> nash-mtl",
    "ew >> full(every=2)",
    "last-layer >> nash-mtl",
    "representation(every=2) >> pcgrad",
    "full(cross=True) >> mgda",
    "bayes-agg",
    "famo",
]


class Watched(nn.Module):
    """One target with two objectives, squared and absolute error, as tasks; `losses` says which are stated."""

    def __init__(self, losses=("a/mse", "a/mae", "b")):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
        self.head = nn.Linear(5, 1)
        self.other = nn.Linear(5, 1)
        self.losses = losses

    def forward(self, x, y):
        h = bmtl.shared(self.trunk(x))
        off = self.head(h).squeeze(-1) - y["a"]
        rows = {"a/mse": -off.square(), "a/mae": -off.abs(), "b": -(self.other(h).squeeze(-1) - y["b"]).square()}
        for name in self.losses:
            with bmtl.task(name), pyro.plate(f"{name}_rows", 20, subsample=x):
                pyro.factor(f"y_{name}", rows[name])


def started(model, spec, seed=0, guide=nothing, **options):
    pyro.set_rng_seed(seed)
    return bmtl.BalancedSVI(model(), guide() if isinstance(guide, type) else guide, SGD, spec, **options)


def trained(svi, steps=5, missing=True):
    for seed in range(steps):
        svi.step(*batch(seed=seed, missing=missing))
        if seed == 2:
            svi.end_epoch()
    return svi


@pytest.mark.parametrize("spec", SPECS)
def test_the_same_seed_gives_the_same_weights_with_and_without_a_probe(spec):
    if spec == "bayes-agg":
        model, guide = Sites, SitesGuide
    else:
        model, guide = Regressions, nothing
    missing = "cross" not in spec
    bare = trained(started(model, spec, guide=guide), missing=missing)
    svi = started(model, spec, guide=guide)
    svi.probe = ConflictProbe([("a", "b"), ("c", "a")], every=2)
    trained(svi, missing=missing)
    assert_same(svi.program_state(), bare.program_state())
    assert [bool(record.probed) for record in svi.history] == [True, False, True, False, True]
    for ours, theirs in zip(svi.history, bare.history, strict=True):
        assert_same((ours.losses, ours.weights, ours.gram), (theirs.losses, theirs.weights, theirs.gram))


@pytest.mark.parametrize(
    "spec", ["ew", "si >> full >> nash-mtl", "last-layer >> nash-mtl", "representation >> nash-mtl"]
)
def test_the_cosine_is_that_of_the_gradients_of_what_both_reach(spec):
    svi = started(Watched, spec)
    svi.probe = ConflictProbe([("a/mse", "a/mae"), ("a/mse", "b")])
    model, (x, y) = svi.model, batch(missing=False)
    h = model.trunk(x)
    off = model.head(h).squeeze(-1) - y["a"]
    losses = {"a/mse": off.square().sum(), "a/mae": off.abs().sum()}
    losses["b"] = (model.other(h).squeeze(-1) - y["b"]).square().sum()

    def flat(name, parameters):
        found = torch.autograd.grad(losses[name], parameters, retain_graph=True)
        return torch.cat([gradient.reshape(-1) for gradient in found]).double()

    trunk, head = list(model.trunk.parameters()), list(model.head.parameters())
    expected = {
        pair: torch.cosine_similarity(*(flat(name, where) for name in pair), dim=0).item()
        for pair, where in (
            (("a/mse", "a/mae"), trunk + head),
            (("a/mse", "b"), trunk),
        )  # the head is shared by a's two
    }
    assert svi.step(x, y).probed == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("spec", ["ew", "last-layer >> nash-mtl"])
def test_tasks_with_a_mark_each_share_what_lies_upstream(spec):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Linear(3, 4)
            self.heads = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])

        def forward(self, x, y):
            for name, head, flip in zip("ab", self.heads, (1, -1), strict=True):
                h = bmtl.shared(self.trunk(flip * x))
                with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                    pyro.factor(f"y_{name}", -(head(h).squeeze(-1) - y[name]).square())

    svi = started(Own, spec)
    svi.probe = ConflictProbe([("a", "b")])
    model, (x, y) = svi.model, batch(missing=False)
    rows = [
        torch.autograd.grad(
            (model.heads[k](model.trunk(flip * x)).squeeze(-1) - y[name]).square().sum(), model.trunk.weight
        )[0]
        for k, name, flip in ((0, "a", 1), (1, "b", -1))
    ]
    bias = [
        torch.autograd.grad(
            (model.heads[k](model.trunk(flip * x)).squeeze(-1) - y[name]).square().sum(), model.trunk.bias
        )[0]
        for k, name, flip in ((0, "a", 1), (1, "b", -1))
    ]
    one, two = (torch.cat([w.reshape(-1), b]) for w, b in zip(rows, bias, strict=True))
    expected = torch.cosine_similarity(one, two, dim=0).item()
    assert svi.step(x, y).probed["a", "b"] == pytest.approx(expected, abs=1e-6)


SHADOWED = [
    *("ew", "si", "uw", "rlw", "dwa(window=1)", "famo", "igb-v1 >> full >> nash-mtl", "last-layer >> nash-mtl"),
    *("representation(every=2) >> pcgrad", "full(cross=True) >> mgda", "grad-norm"),
]


@pytest.mark.parametrize("spec", SHADOWED)
def test_a_shadow_is_measured_and_trains_nothing(spec):
    bare = started(functools.partial(Watched, ("a/mse", "b")), spec)
    svi = started(Watched, spec)
    svi.probe = ConflictProbe([("a/mse", "a/mae")], shadow=["a/mae"])
    for one in (bare, svi):
        trained(one, missing=False)
    assert_same(svi.program_state(), bare.program_state())
    for record, other in zip(svi.history, bare.history, strict=True):
        assert record.names == ("a/mse", "a/mae", "b")
        assert record.active.tolist() == [True, False, True]
        assert record.losses.isfinite().all()
        assert record.weights.isfinite().tolist() == [True, False, True]
        assert_same(record.losses[[0, 2]], other.losses)
        assert math.isfinite(record.probed["a/mse", "a/mae"])
    cosine = history_arrays(svi.history)["cosine"]
    assert np.isfinite(cosine[:, 0, 1]).all()


def test_an_absent_task_has_no_cosine():
    svi = started(Regressions, "ew")
    svi.probe = ConflictProbe([("a", "b"), ("a", "c")])
    x, y = batch(missing=False)
    y["b"] = torch.full_like(y["b"], NAN)
    found = svi.step(x, y).probed
    assert math.isnan(found["a", "b"])
    assert math.isfinite(found["a", "c"])


def test_objectives_without_a_common_parameter_have_no_cosine():
    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleDict({name: nn.Linear(3, 1) for name in "ab"})

        def forward(self, x, y):
            for name, head in self.heads.items():
                with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                    pyro.factor(f"y_{name}", -(head(x).squeeze(-1) - y[name]).square())

    svi = started(Apart, "ew")
    svi.probe = ConflictProbe([("a", "b")])
    assert math.isnan(svi.step(*batch(missing=False)).probed["a", "b"])


def test_a_probe_watches_a_fit_and_leaves_afterwards():
    loader = [batch(seed=seed) for seed in range(3)]

    def run(callbacks):
        svi = started(Regressions, "ew")
        result = bmtl.fit(svi, loader, loader[:1], max_epochs=2, progress=False, accelerator="cpu", callbacks=callbacks)
        return svi, result

    bare, _ = run([])
    svi, result = run([ConflictProbe([("a", "b")], every=2)])
    assert svi.probe is None
    assert_same(svi.program_state(), bare.program_state())
    assert [bool(record.probed) for record in result.history] == [True, False] * 3


def test_a_shadow_does_not_count_in_the_choice_of_the_epoch():
    loader = [batch(seed=seed, missing=False) for seed in range(2)]

    def val_losses(model, callbacks):
        svi = started(model, "ew")
        seen = []

        class Look(bmtl.inference.probe.Callback):
            def on_validation_end(self, trainer, pl_module):
                seen.append(float(trainer.callback_metrics["val/loss"]))

        result = bmtl.fit(
            svi, loader, loader, max_epochs=2, progress=False, accelerator="cpu", callbacks=[Look(), *callbacks]
        )
        return seen, result.validation

    with_shadow, means = val_losses(Watched, [ConflictProbe([("a/mse", "a/mae")], shadow=["a/mae"])])
    without, _ = val_losses(functools.partial(Watched, ("a/mse", "b")), [])
    assert with_shadow == without
    assert set(means) == {"a/mse", "a/mae", "b"}


def test_an_interrupted_fit_is_watched_no_longer():
    class Stop(bmtl.inference.probe.Callback):
        def on_train_batch_end(self, *args):
            raise RuntimeError("enough")

    svi = started(Regressions, "ew")
    with pytest.raises(RuntimeError, match="enough"):
        bmtl.fit(
            svi,
            [batch()],
            max_epochs=1,
            progress=False,
            accelerator="cpu",
            callbacks=[ConflictProbe([("a", "b")]), Stop()],
        )
    assert svi.probe is None


def test_two_probes_are_refused():
    probes = [ConflictProbe([("a", "b")]), ConflictProbe([("a", "c")])]
    with pytest.raises(ValueError, match="give one ConflictProbe all pairs"):
        bmtl.fit(
            started(Regressions, "ew"),
            [batch()],
            max_epochs=1,
            progress=False,
            accelerator="cpu",
            callbacks=probes,
        )


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        ([], {}, "pairs of two task names"),
        ([("a", "a")], {}, "pairs of two task names"),
        ([("a", "b", "c")], {}, "pairs of two task names"),
        ([("a", "b")], {"every": 0}, "every is a number of steps, from 1, and 0"),
        ([("a", "b")], {"shadow": ["a", "a"]}, "'a'"),
    ],
)
def test_what_cannot_be_measured_is_refused(pairs, options, message):
    with pytest.raises(ValueError, match=message):
        ConflictProbe(pairs, **options)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (ConflictProbe([("a", "gap")]), r"\['gap'\], and the model has \['a', 'b', 'c'\]"),
        (ConflictProbe([("a", "b")], shadow=["nll"]), r"\['nll'\]"),
        (ConflictProbe([("a", "b")], shadow=["a", "b", "c"]), "nothing is left to train"),
    ],
)
def test_tasks_that_the_model_lacks_are_named(probe, message):
    svi = started(Regressions, "ew")
    svi.probe = probe
    with pytest.raises(ValueError, match=message):
        svi.step(*batch())
