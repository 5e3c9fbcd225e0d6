"""Gradients over several batches: the mean over those whose step was not skipped. Hooks see every gradient once."""

import functools
import math

import pyro
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference.checkpoint import check_file, load, save
from bmtl.inference.errors import NonFinite
from bmtl.inference.svi import BalancedSVI
from tests.inference.programs import Regressions, batch, nothing

SGD = functools.partial(torch.optim.SGD, lr=0.1)
quick = functools.partial(bmtl.fit, progress=False)


class One(nn.Module):
    """Two tasks of loss -w y / 2 each: with y = 1, a step of 0.1 moves w by 0.1 wherever it is."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, y):
        for name in "ab":
            with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                pyro.factor(f"y_{name}", self.w * y[name] / 2)


def of(value):
    x = torch.ones(4)
    return x, dict.fromkeys("ab", torch.full((4,), value))


GOOD, OTHER, BAD = of(1.0), of(3.0), of(math.inf)


def fitted(batches, balancer="ew", accumulate=4, epochs=1, **options):
    svi = BalancedSVI(One(), nothing, SGD, balancer, on_error="skip", **options)
    result = quick(svi, batches, max_epochs=epochs, accumulate=accumulate)
    return svi, result


@pytest.mark.parametrize(
    ("batches", "moved"),
    [
        ([GOOD] * 4, 0.1),
        ([GOOD, GOOD, BAD, GOOD], 0.1),
        ([GOOD, GOOD, GOOD, BAD], 0.1),
        ([BAD, GOOD, GOOD, GOOD], 0.1),
        ([GOOD, OTHER, BAD, BAD], 0.2),  # the mean of 1 and 3
        ([BAD, BAD, BAD, OTHER], 0.3),
        ([BAD] * 4, 0.0),
        ([GOOD, BAD, OTHER, OTHER, BAD, OTHER], (1 + 3 + 3) / 3 * 0.1 + 0.3),  # and the two that are left
        ([BAD] * 4 + [GOOD], 0.1),
    ],
)
@pytest.mark.parametrize("balancer", ["ew", "full >> mgda", "ew >> full"])
def test_the_optimizer_steps_on_the_mean_over_the_batches_that_were_not_skipped(batches, moved, balancer):
    svi, result = fitted(batches, balancer)
    scale = 0.5 if "mgda" in balancer else 1.0  # its weights of two equal gradients sum to one
    assert svi.model.w.item() - 0.5 == pytest.approx(scale * moved, abs=1e-6)
    bad = sum(one is BAD for one in batches)
    assert svi.skipped == bad
    assert [record.status == "skipped" for record in result.history] == [one is BAD for one in batches]


def test_what_is_skipped_at_an_epochs_end_does_not_reach_the_next_epoch():
    svi, _ = fitted([GOOD, GOOD, BAD], accumulate=2, epochs=3)
    assert svi.model.w.item() - 0.5 == pytest.approx(0.3, abs=1e-6)


def test_clipping_and_famo_see_the_mean_of_the_good_batches():
    svi = BalancedSVI(One(), nothing, SGD, on_error="skip")
    quick(svi, [OTHER, BAD, OTHER], max_epochs=1, accumulate=3, clip=1.0)
    assert svi.model.w.item() - 0.5 == pytest.approx(0.1, abs=1e-5)

    torch.manual_seed(0)
    svi = BalancedSVI(Regressions(), nothing, SGD, "famo", on_error="skip")
    broken = batch(missing=False)[0], {name: values + math.inf for name, values in batch(missing=False)[1].items()}
    quick(svi, [batch(missing=False), broken], max_epochs=2, accumulate=2)
    assert svi.balancer.transform.w.isfinite().all()
    assert svi.balancer.transform.w.abs().sum() > 0


def test_a_balancers_own_parameters_take_the_mean_too():
    """Two halves of one batch, accumulated, move UW's log-variances as the batch does."""
    x, y = batch(rows=12, missing=False)
    halves = [(x[i : i + 6], {name: values[i : i + 6] for name, values in y.items()}) for i in (0, 6)]
    found = []
    for data, accumulate in (
        ([(x, y)], 1),
        (halves, 2),
        ([halves[0], (x[:6], dict.fromkeys(y, x[:6, 0] * math.inf)), halves[1]], 3),
    ):
        torch.manual_seed(0)
        svi = BalancedSVI(Regressions(), nothing, SGD, "uw", on_error="skip")
        quick(svi, data, max_epochs=1, accumulate=accumulate)
        found.append([p.detach().clone() for p in (*svi.balancer.parameters(), *svi.parameters)])
    for one in found[1:]:
        assert_close(one, found[0], rtol=1e-4, atol=1e-6)


# ---- Loops of one's own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balancer", ["ew", "uw", "full >> nash-mtl", "last-layer >> nash-mtl"])
@pytest.mark.parametrize("on_error", ["skip", "raise"])
def test_a_step_that_cannot_be_taken_leaves_the_gradients_that_were_there(balancer, on_error):
    torch.manual_seed(0)
    svi = BalancedSVI(Regressions(), nothing, SGD, balancer, on_error=on_error)
    svi.zero_grad()
    svi.backward(*batch(seed=1))
    tensors = [*svi.parameters, *svi.balancer.parameters()]
    before = [None if p.grad is None else p.grad.clone() for p in tensors]
    x, y = batch(seed=2)
    broken = x, y | {"a": y["a"] + math.inf}
    if on_error == "raise":
        with pytest.raises(NonFinite):
            svi.backward(*broken)
    else:
        assert svi.backward(*broken).status == "skipped"
    assert_close([p.grad for p in tensors], before, rtol=0, atol=0)
    svi.backward(*batch(seed=3))
    assert all((p.grad - old).abs().sum() > 0 for p, old in zip(tensors, before, strict=True) if old is not None)


def test_two_batches_add_up_to_the_sum_of_their_gradients():
    torch.manual_seed(0)
    svi = BalancedSVI(Regressions(), nothing, SGD)
    parts = []
    for seed in (1, 2):
        svi.zero_grad()
        svi.backward(*batch(seed=seed))
        parts.append([p.grad.clone() for p in svi.parameters])
    svi.zero_grad()
    for seed in (1, 2):
        svi.backward(*batch(seed=seed))
    assert_close([p.grad for p in svi.parameters], [a + b for a, b in zip(*parts, strict=True)])
    svi.scale_gradients(0.5)
    assert_close([p.grad for p in svi.parameters], [(a + b) / 2 for a, b in zip(*parts, strict=True)])


@pytest.mark.parametrize("balancer", ["uw", "last-layer >> nash-mtl"])
@pytest.mark.parametrize("known", [False, True])
def test_a_run_saved_in_the_middle_of_an_accumulation_goes_on_with_its_gradients(balancer, known, tmp_path):
    def accumulated(svi, seeds):
        for seed in seeds:
            if seed % 3 == 0:
                svi.zero_grad()
            svi.backward(*batch(seed=seed))
            if seed % 3 == 2:
                svi.update()

    def made():
        torch.manual_seed(0)
        return BalancedSVI(Regressions(), nothing, functools.partial(torch.optim.Adam, lr=0.01), balancer)

    svi, again, zeroed = made(), made(), made()
    accumulated(svi, range(5))
    save(svi, tmp_path / "run.ckpt")
    if known:  # its first batch has been seen, and its gradients are others
        again.backward(*batch(seed=7))
    load(again, tmp_path / "run.ckpt")
    load(zeroed, tmp_path / "run.ckpt")
    for run in (svi, again):
        accumulated(run, range(5, 9))
    assert_close([*again.parameters], [*svi.parameters], rtol=0, atol=0)
    assert not again.accumulated
    zeroed.zero_grad()  # what is saved is no longer wanted
    zeroed.backward(*batch(seed=1))
    assert not torch.equal(zeroed.parameters[0].grad, svi.parameters[0].grad)
    save(svi, tmp_path / "run.ckpt")
    assert not check_file(tmp_path / "run.ckpt")["bmtl"]["svi"]["gradients"]  # an ordinary file is no larger


def test_gradients_accumulated_at_a_scale_follow_it_down():
    """An overflow lowers the scale; what was accumulated before it must be of the same scale as what follows."""

    def model(w, x, y):
        for name in "ab":
            with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                pyro.factor(f"y_{name}", w(y[name][:, None]).squeeze(-1))

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Linear(1, 1, bias=False)
            nn.init.zeros_(self.w.weight)

        def forward(self, x, y):
            model(self.w.half(), x, {name: values.half() for name, values in y.items()})

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    svi = BalancedSVI(Half(), nothing, SGD, scaler=scaler)
    svi.zero_grad()
    svi.backward(*of(1.0))
    one = svi.parameters[0].grad.double() / 2**12
    assert svi.backward(*of(60.0)).status == "skipped"  # 60 * 4096 is beyond float16
    assert svi.scale == 2**11
    assert_close(svi.parameters[0].grad.double() / 2**11, one)
    svi.backward(*of(1.0))
    assert_close(svi.parameters[0].grad.double() / 2**11, 2 * one)


# ---- Hooks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "balancer",
    [
        *("ew", "full >> upgrad", "full(every=2) >> nash-mtl", "ew >> full", "full >> db-mtl", "full >> grad-drop"),
        *("last-layer >> nash-mtl", "representation >> mgda"),
    ],
)
@pytest.mark.parametrize("heads", ["transform", "alpha"])
def test_hooks_after_accumulation_fire_once_with_the_gradient_that_is_there(balancer, heads):
    """Under `full` none of them fired."""
    torch.manual_seed(0)
    svi = BalancedSVI(Regressions(), nothing, SGD, bmtl.balancer(balancer, heads=heads))
    seen = {}
    for name, p in svi.model.named_parameters():
        p.register_post_accumulate_grad_hook(lambda p, name=name: seen.setdefault(name, []).append(p.grad.clone()))
    for seed in range(3):
        seen.clear()
        svi.zero_grad()
        svi.backward(*batch(seed=seed, missing=False))
        assert {name: len(found) for name, found in seen.items()} == dict.fromkeys(
            (name for name, _ in svi.model.named_parameters()), 1
        )
        for name, p in svi.model.named_parameters():
            assert torch.equal(seen[name][0], p.grad)


def test_an_optimizer_in_the_backward_takes_the_steps_of_one_after_it():
    """What the hooks are for: each parameter is updated and its gradient freed while the others' are computed."""
    found = []
    for hooked in (False, True):
        torch.manual_seed(0)
        svi = BalancedSVI(Regressions(), nothing, SGD, "full >> upgrad")
        svi.initialise(*batch())
        if hooked:
            own = {p: torch.optim.SGD([p], lr=0.1) for p in svi.parameters}

            def update(p, own=own):
                own[p].step()
                p.grad = None

            for p in svi.parameters:
                p.register_post_accumulate_grad_hook(update)
        for seed in range(3):
            svi.zero_grad()
            svi.backward(*batch(seed=seed))
            if not hooked:
                svi.update()
        found.append([p.detach().clone() for p in svi.parameters])
    assert_close(*found, rtol=0, atol=0)
