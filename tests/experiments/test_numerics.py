"""Devices and precisions of runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bmtl.evaluation.attributes import decode_attributes
from bmtl.experiments import Budget, compare, load_fitted, run, runs, training
from bmtl.experiments.numerics import check_device
from tests.experiments.toys import BAYESIAN, BUDGET, EW, toy


@pytest.fixture
def given_to_fit(monkeypatch):
    """The options of each training, and the dtypes of what it was given."""
    seen = []
    fit = training.fit

    def spy(svi, train, val, **options):
        x, y = next(iter(train))
        parameters = {p.dtype for part in (svi.module,) for p in part.parameters()}
        seen.append({**options, "dtypes": parameters | {x.dtype} | {of.dtype for of in y.values()}})
        return fit(svi, train, val, **{**options, "accelerator": "cpu"})

    monkeypatch.setattr(training, "fit", spy)
    return seen


@pytest.mark.parametrize("method", [EW, BAYESIAN], ids=lambda method: method.name)
def test_double_precision_from_inputs_to_the_kept_model(method, given_to_fit, tmp_path):
    data = toy()
    tree = run(data, method, 0, replace(BUDGET, precision="float64"), tmp_path, keep_model=True)
    (seen,) = given_to_fit
    assert seen["dtypes"] == {torch.float64}
    fitted = load_fitted(tmp_path)
    networks = [module for part in fitted.parts for model, _ in part for module in [model]]
    assert all(p.dtype == torch.float64 for network in networks for p in network.parameters() if p.is_floating_point())
    raw = data.inputs.x[data.rows["test"]]
    again = fitted.predictions(raw, num_draws=tree["test/posterior_predictive"].sizes.get("draw"))
    single = run(data, method, 0, BUDGET)
    for name in data.tasks:
        mean = tree["test/predictive_mean"][f"y_{name}"].values
        there = data.has_label(name, "test")
        np.testing.assert_allclose(again[name].mean[there], mean, rtol=1e-12)
        assert not np.array_equal(single["test/predictive_mean"][f"y_{name}"].values, mean)


def test_mixed_precision_trains_in_it_and_predicts_in_single(given_to_fit):
    seen_in_layers = set()

    def note(module, args, output):
        seen_in_layers.add((torch.is_grad_enabled(), output.dtype))

    build = training.build
    with pytest.MonkeyPatch.context() as patch:

        def hooked(*args):
            model, guide = build(*args)
            for layer in model.modules():
                if isinstance(layer, nn.Linear):
                    layer.register_forward_hook(note)
            return model, guide

        patch.setattr(training, "build", hooked)
        tree = run(toy(), EW, 0, replace(BUDGET, precision="bf16-mixed"))
    assert given_to_fit[0]["precision"] == "bf16-mixed"
    assert (True, torch.bfloat16) in seen_in_layers
    assert (False, torch.float32) in seen_in_layers
    assert decode_attributes(tree)["configuration"]["budget"]["precision"] == "bf16-mixed"
    assert all(np.isfinite(values).all() for values in tree["test/predictive_mean"].data_vars.values())


def test_a_gpu_is_asked_for_by_lightnings_name(given_to_fit, monkeypatch):
    monkeypatch.setattr(runs, "check_device", lambda device: None)
    run(toy(), EW, 0, replace(BUDGET, device="cuda"))
    run(toy(), EW, 0, BUDGET)
    assert [options["accelerator"] for options in given_to_fit] == ["gpu", "cpu"]


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(tmp_path, monkeypatch, never_trains):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    budget = replace(BUDGET, device="cuda")
    for call in (
        lambda: run(toy(), EW, 0, budget, tmp_path / "run"),
        lambda: compare(toy(), [EW], [0], budget, tmp_path / "compare", baseline=None),
    ):
        with pytest.raises(ValueError, match="The device cuda was asked for, and torch .* sees no CUDA device here"):
            call()
    assert list(tmp_path.iterdir()) == []
    check_device("cpu")


@pytest.mark.parametrize(("name", "value"), [("device", "tpu"), ("precision", "float16")])
def test_unknown_names_are_refused_with_those_that_there_are(name, value):
    with pytest.raises(ValueError, match=rf"{name} is one of .*, and '{value}' was given"):
        Budget(**{name: value})
