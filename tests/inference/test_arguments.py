"""Types and signs of every argument of BalancedSVI, fit and the probe are checked, before anything runs."""

import functools

import numpy as np
import pytest
import torch

import bmtl
from bmtl.inference.arguments import choice, flag, positive_number, whole_number
from bmtl.inference.lightning_module import BalancedTraining
from bmtl.inference.probe import ConflictProbe
from tests.inference.programs import Regressions, batch, nothing

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def svi():
    return bmtl.BalancedSVI(Regressions(), nothing, SGD)


@pytest.mark.parametrize("good", [1, 7, np.int64(3), np.uint8(3)])
def test_whole_numbers(good):
    found = whole_number("n", good, 1, "a number of steps")
    assert (found, type(found)) == (int(good), int)


@pytest.mark.parametrize("bad", [0, -1, np.int64(0)])
def test_whole_numbers_below_the_least_are_named(bad):
    with pytest.raises(ValueError, match=f"n is a number of steps, from 1, and {bad} was given"):
        whole_number("n", bad, 1, "a number of steps")


@pytest.mark.parametrize("bad", [1.0, "1", None, True, np.float64(2), [1], torch.tensor(1)])
def test_what_is_no_whole_number_is_named(bad):
    with pytest.raises(TypeError, match="n is a number of steps, a whole number from 1"):
        whole_number("n", bad, 1, "a number of steps")


@pytest.mark.parametrize(("bad", "error"), [(0, ValueError), (-0.5, ValueError), (float("nan"), ValueError)])
def test_numbers_that_are_not_positive_are_named(bad, error):
    with pytest.raises(error, match="clip is a gradient norm"):
        positive_number("clip", bad, "a gradient norm")
    for other in (float("inf"), np.float64("inf")):
        with pytest.raises(ValueError, match="finite"):
            positive_number("clip", other, "a gradient norm")
    for other in ("1", True, None, 1j):
        with pytest.raises(TypeError, match="a number above 0"):
            positive_number("clip", other, "a gradient norm")
    assert positive_number("clip", np.float32(0.5), "a gradient norm") == 0.5


def test_flags_and_choices():
    assert flag("progress", False) is False
    assert choice("score", "log", ("mean", "log")) == "log"
    for bad in (0, 1, None, "yes", np.bool_(True)):
        with pytest.raises(TypeError, match="progress is True or False"):
            flag("progress", bad)
    for bad in ("", "LOG", None, 3, ["log"]):
        with pytest.raises(ValueError, match="score is 'mean' or 'log'"):
            choice("score", bad, ("mean", "log"))


SVI = [
    ({"model": None}, TypeError, "The model is a module or a function"),
    ({"model": Regressions}, TypeError, "the class Regressions"),
    ({"model": "model"}, TypeError, "The model is a module or a function"),
    ({"guide": None}, TypeError, "The guide is a module or a function"),
    ({"guide": 3}, TypeError, "The guide is a module or a function"),
    ({"optim": None}, TypeError, "optim is a factory"),
    ({"optim": 0.1}, TypeError, "optim is a factory"),
    ({"balancer": 3}, TypeError, "."),
    ({"balancer": None}, TypeError, "."),
    ({"elbo": "elbo"}, TypeError, "elbo is a bmtl.TaskELBO"),
    ({"on_error": None}, ValueError, "on_error is 'raise' or 'skip'"),
    ({"on_error": True}, ValueError, "on_error is 'raise' or 'skip'"),
    ({"scaler": 1024.0}, TypeError, "scaler is a torch.amp.GradScaler"),
    ({"history_mib": 0}, ValueError, "history_mib is a size in MiB, finite and above 0"),
    ({"history_mib": -1.0}, ValueError, "history_mib"),
    ({"history_mib": float("inf")}, ValueError, "history_mib"),
    ({"history_mib": "8"}, TypeError, "history_mib"),
]


@pytest.mark.parametrize(("options", "error", "message"), SVI)
def test_balanced_svi(options, error, message):
    with pytest.raises(error, match=message):
        bmtl.BalancedSVI(**{"model": Regressions(), "guide": nothing, "optim": SGD} | options)


FIT = [
    ({"svi": Regressions()}, TypeError, "svi is a bmtl.BalancedSVI"),
    ({"train": None}, TypeError, "The loader 'train' gives batches"),
    ({"train": 3}, TypeError, "The loader 'train' gives batches"),
    ({"val": 3}, TypeError, "The loader 'val' gives batches"),
    *(({"max_epochs": bad}, ValueError, "max_epochs is a number of epochs, from 1") for bad in (0, -1)),
    *(({"max_epochs": bad}, TypeError, "max_epochs is a number of epochs") for bad in (1.5, "2", None, True)),
    *(({"accumulate": bad}, ValueError, "accumulate is a number of batches, from 1") for bad in (0, -2)),
    *(({"accumulate": bad}, TypeError, "accumulate is a number of batches") for bad in (2.0, True, None)),
    *(({"clip": bad}, ValueError, "clip is a gradient norm") for bad in (0, -1.0, float("nan"), float("inf"))),
    *(({"clip": bad}, TypeError, "clip is a gradient norm") for bad in ("1", True)),
    *(({"patience": bad, "val": [batch()]}, ValueError, "patience is a number of epochs") for bad in (0, -1)),
    *(({"patience": bad, "val": [batch()]}, TypeError, "patience is a number of epochs") for bad in (1.5, True, "2")),
    ({"seed": -1}, ValueError, "seed is a seed, from 0"),
    *(({"seed": bad}, TypeError, "seed is a seed") for bad in (0.5, None, "0", True)),
    *(({"devices": bad}, error, "devices") for bad, error in ((0, ValueError), (1.0, TypeError), ("auto", TypeError))),
    *(({"score": bad}, ValueError, "score is 'mean' or 'log'") for bad in ("max", None)),
    *(({"progress": bad}, TypeError, "progress is True or False") for bad in (0, None, "no")),
    *(({"restore_best": bad}, TypeError, "restore_best is True or False") for bad in (1, None)),
    *(({"out": bad}, TypeError, "out is a path") for bad in (3, b"folder")),
    *(({"resume": bad}, TypeError, "resume is a path") for bad in (True, 3)),
    ({"scheduler": 0.1}, TypeError, "scheduler makes a learning-rate scheduler"),
    ({"callbacks": [print]}, TypeError, "callbacks are Lightning's"),
    ({"callbacks": 3}, TypeError, "."),
]


@pytest.mark.parametrize(("options", "error", "message"), FIT)
def test_fit(options, error, message):
    given = {"svi": svi(), "train": [batch()], "max_epochs": 1, "progress": False} | options
    with pytest.raises(error, match=message):
        bmtl.fit(**given)
    assert not getattr(given["svi"], "steps", 0)


def test_numpys_whole_numbers_are_taken_and_one_callback_alone():
    one = svi()
    bmtl.fit(
        one,
        [batch(), batch()],
        max_epochs=np.int64(2),
        accumulate=np.int32(2),
        seed=np.uint8(3),
        clip=np.float64(1.0),
        callbacks=ConflictProbe([("a", "b")]),
        progress=False,
    )
    assert one.steps == 4


def test_the_lightning_module_checks_the_same():
    with pytest.raises(TypeError, match="svi is a bmtl.BalancedSVI"):
        BalancedTraining(Regressions())
    with pytest.raises(ValueError, match="accumulate"):
        BalancedTraining(svi(), accumulate=0)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"every": 0}, ValueError),
        ({"every": -2}, ValueError),
        ({"every": 1.5}, TypeError),
        ({"every": True}, TypeError),
    ],
)
def test_the_probe(options, error):
    with pytest.raises(error, match="every is a number of steps"):
        ConflictProbe([("a", "b")], **options)
    with pytest.raises(ValueError, match="non-empty string"):
        ConflictProbe([("a", "b")], shadow=[3])
