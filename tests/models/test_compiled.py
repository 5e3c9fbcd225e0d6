"""Models whose steps replay a captured graph: VMTL counts steps, sorts rows by class and has derivatives of its own."""

import functools

import pytest
import torch

import bmtl
from bmtl.models import TaskModel, mlp
from bmtl.models.heads import TensorNormalHeads
from bmtl.models.likelihoods import Gaussian
from bmtl.models.vmtl import Temperature
from tests.models.test_vmtl import TASKS, batch, program

ADAM = functools.partial(torch.optim.Adam, lr=1e-2)


def tensor_normal():
    torch.manual_seed(0)
    return TaskModel(mlp(6, (8,)), 8, {name: Gaussian() for name in TASKS}, 20, head=TensorNormalHeads)


def vmtl(preset="VMTL", **options):
    return program(*batch((5, 9, 7)), preset, **options)


SCHEDULED = {"as_released": True, "temperature": Temperature(rate=0.1), "dropout": 0.2}
MODELS = {
    "tensor-normal": tensor_normal,
    "vmtl, released": functools.partial(vmtl, **SCHEDULED),
    "vmtl-ac, attached": functools.partial(vmtl, "VMTL-AC", weights="dirichlet", components="attached"),
}


def trained(name, compile):
    model, regression = MODELS[name](), name == "tensor-normal"
    svi = bmtl.BalancedSVI(model, model.guide(), ADAM, "ew", bmtl.TaskELBO("analytic"), compile=compile)
    torch.manual_seed(1)
    for seed in range(4):  # two steps are compared anyway
        x, y = batch((5, 9, 7), seed=seed, regression=regression, missing=seed % 2)
        if regression:
            x, y = x["b"], {task: y["b"] + k for k, task in enumerate(TASKS)}
        elif seed == 3:  # a class has more rows: what is sorted has another size
            y = {task: labels.clamp(max=1) for task, labels in y.items()}
        svi.step(x, y)
    assert svi.compiled.replayed or not compile, svi.compiled.reason
    return svi


@pytest.mark.parametrize("name", MODELS)
def test_replayed_steps_equal_ordinary_ones_bit_for_bit(name):
    found = [trained(name, compile) for compile in (False, "trace")]
    states = [svi.program_state()["module"] for svi in found]
    for key, value in states[0].items():
        assert torch.equal(states[1][key], value), key
    for one, other in zip(*(svi.history for svi in found), strict=True):
        assert torch.equal(one.losses, other.losses)
