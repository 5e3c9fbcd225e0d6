"""Programs on every kind of input train, are halved, predict and are saved as on the table that the inputs were made of."""

import functools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal, init_to_mean
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl import inputs
from bmtl.inference.draws import draw
from bmtl.inference.halves import split
from bmtl.inference.loaders import moved, spread
from bmtl.inference.simulation import simulated_ranks
from bmtl.inputs import PerTask
from tests.kinds_of_input import GEOMETRIC, KINDS, WIDTH, Pair, features, table

ROWS, CLASSES = 11, 3
ADAM = functools.partial(torch.optim.Adam, lr=0.02)
OTHERS = [kind for kind in (*KINDS, *GEOMETRIC) if kind != "tensor"]


def made(kind, x):
    if kind in GEOMETRIC:
        pytest.importorskip("torch_geometric")
    return {**KINDS, **GEOMETRIC}[kind](x)


def labels(rows=ROWS):
    generator = torch.Generator().manual_seed(5)
    y = {"a": torch.randn(rows, generator=generator), "c": torch.randint(0, CLASSES, (rows,), generator=generator)}
    y["a"][1], y["c"][0] = torch.nan, -1
    return y


class Program(nn.Module):
    """Two targets on a trunk, the noise of one of them latent; inputs of any kind, or each target's own."""

    def __init__(self, rows=ROWS):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.rows = rows
        self.trunk = nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh())
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 1), "c": nn.Linear(4, CLASSES)})
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(generator=generator)

    def forward(self, x, y=None):
        common = None if isinstance(x, PerTask) else bmtl.shared(self.trunk(features(x)))
        for name, head in self.heads.items():
            h = bmtl.shared(self.trunk(features(x[name]))) if common is None else common
            with bmtl.task(name):
                noise = pyro.sample(f"noise_{name}", dist.LogNormal(-1.0, 0.5))
                with pyro.plate(f"{name}_rows", self.rows, subsample=h):
                    f = head(h)
                    fn = dist.Normal(f.squeeze(-1), noise) if name == "a" else dist.Categorical(logits=f / noise)
                    bmtl.observe(f"y_{name}", fn, None if y is None else y[name])


def trained(batches, epochs=2, balancer="last-layer >> mgda", val=None):
    """A program after some epochs on batches, its guide, and its SVI."""
    model = Program()
    guide = AutoNormal(model, init_loc_fn=init_to_mean)
    svi = bmtl.BalancedSVI(model, guide, ADAM, balancer)
    bmtl.fit(svi, batches, val, max_epochs=epochs, progress=False, accelerator="cpu")
    return model, guide, svi


def batches_of(kind, y):
    x = made(kind, table(ROWS))
    return [
        (inputs.take(x, rows), {name: values[rows] for name, values in y.items()})
        for rows in torch.arange(ROWS).split(4)
    ]


@pytest.fixture(scope="module")
def reference():
    """What comes of the table itself."""
    return trained(batches_of("tensor", labels()))


def assert_alike(one, other):
    """Draws of the same posterior, with the same predictions up to rounding."""
    assert one.targets.keys() == other.targets.keys()
    for name, values in one.posterior.items():
        np.testing.assert_allclose(values, other.posterior[name], rtol=1e-4)
    for name, prediction in one.targets.items():
        for field in ("mean", "probability", "aleatoric", "epistemic", "log_likelihood", "pit"):
            ours, theirs = getattr(prediction, field), getattr(other.targets[name], field)
            assert (ours is None) == (theirs is None)
            if ours is not None:
                np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    for field in ("log_p", "log_q"):
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=1e-4)


@pytest.mark.parametrize("kind", OTHERS)
def test_training_and_prediction_are_those_of_the_table(kind, reference):
    """Through Lightning's loop with validation, then in draws of all rows, and in chunks."""
    y = labels()
    batches = batches_of(kind, y)
    model, guide, svi = trained(batches, val=batches[:1])
    expected_model, expected_guide, expected_svi = reference
    for record, expected in zip(svi.history, expected_svi.history, strict=True):
        assert_close(record.losses, expected.losses, rtol=1e-4, atol=1e-4)
        assert_close(record.gram, expected.gram, rtol=1e-3, atol=1e-4)
    for parameter, expected in zip(model.parameters(), expected_model.parameters(), strict=True):
        assert_close(parameter, expected, rtol=1e-3, atol=1e-4)
    x = made(kind, table(ROWS))
    whole = draw(model, guide, x, y, num_draws=5)
    assert_alike(whole, draw(expected_model, expected_guide, table(ROWS), y, num_draws=5))
    for batch_size in (1, 4):
        assert_alike(whole, draw(model, guide, x, y, num_draws=5, batch_size=batch_size))


@pytest.mark.parametrize("kind", OTHERS)
def test_a_batch_of_any_kind_is_halved(kind):
    """The two-sample Gram matrix is that of the table's halves."""
    y = labels()
    grams = []
    for of in ("tensor", kind):
        model = Program()
        guide = AutoNormal(model, init_loc_fn=init_to_mean, init_scale=1e-4)
        svi = bmtl.BalancedSVI(model, guide, ADAM, "full(cross=True) >> upgrad")
        grams.append(svi.step(made(of, table(ROWS)), y).gram)
    assert_close(*grams, rtol=1e-2, atol=1e-3)  # the noise is drawn, nearly without spread


@pytest.mark.parametrize("kind", [*KINDS, *GEOMETRIC])
def test_halves_are_the_first_and_second_rows(kind):
    (one, y_one), kwargs = split((made(kind, table(5)), {"a": torch.arange(5), "b": torch.arange(4)}), {"scale": 2.0})[
        0
    ]
    (two, y_two), _ = split((made(kind, table(5)), {"a": torch.arange(5), "b": torch.arange(4)}), {"scale": 2.0})[1]
    assert_close(features(one), table(5)[:3])
    assert_close(features(two), table(5)[3:])
    assert [y_one["a"].tolist(), y_two["a"].tolist()] == [[0, 1, 2], [3, 4]]
    assert [y_one["b"].tolist(), y_two["b"].tolist()] == [[0, 1], [2, 3]]
    assert kwargs == {"scale": 2.0}


def test_each_tasks_own_inputs_are_halved_by_themselves():
    x = PerTask({"a": made("dict", table(5)), "b": made("ragged", table(2))})
    one, two = (half[0][0] for half in split((x,), {}))
    assert (one.counts(), two.counts()) == ({"a": 3, "b": 1}, {"a": 2, "b": 1})
    with pytest.raises(ValueError, match="'PerTask' has fewer than two rows"):
        split((PerTask({"a": table(5), "b": table(1)}),), {})


def test_what_cannot_be_halved_is_refused_by_name():
    """It must not go to both halves whole, with the rows of the other."""
    with pytest.raises(TypeError, match="how to halve ndarray is not known"):
        split((table(4), np.zeros(4)), {})
    with pytest.raises(ValueError, match="'Ragged' has fewer than two rows"):
        split((made("ragged", table(1)),), {})


# ---- Each task its own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [("dict", "ragged"), ("graphs", "named tuple"), ("nested", "tensor")])
def test_each_task_has_inputs_of_its_own_kind(kinds):
    sizes = {"a": 7, "c": 4}
    y = {name: values[: sizes[name]] for name, values in labels().items()}
    tables = PerTask({name: table(size, seed=size) for name, size in sizes.items()})
    x = PerTask({name: made(kind, tables[name]) for kind, name in zip(kinds, sizes, strict=True)})
    found = {}
    for name, given in (("table", tables), ("kinds", x)):
        model, guide, svi = trained([(given, y)] * 3, epochs=1)
        found[name] = draw(model, guide, given, y, num_draws=4)
        assert_alike(found[name], draw(model, guide, given, y, num_draws=4, batch_size=3))
        assert svi.history[-1].losses.isfinite().all()
    assert_alike(found["table"], found["kinds"])
    assert {name: prediction.rows for name, prediction in found["kinds"].targets.items()} == sizes


def test_a_dict_of_tables_that_differ_in_rows_names_the_way_out():
    model, guide, _ = trained(batches_of("tensor", labels()), epochs=1)
    with pytest.raises(ValueError, match="PerTask"):
        draw(model, guide, {"a": table(3), "c": table(2)})


# ---- Batches ---------------------------------------------------------------------------------------------------------


class Frozen:
    """A kind that Lightning can neither rebuild nor move."""

    def __init__(self, x, device="cpu"):
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "device", device)

    def __setattr__(self, name, value):
        raise AttributeError("frozen")


@inputs.parts.register
def _(x: Frozen):
    return {"x": x.x}


@inputs.with_parts.register
def _(x: Frozen, parts):
    return Frozen(parts["x"])


@inputs.to.register
def _(x: Frozen, device=None, dtype=None):
    return Frozen(inputs.to(x.x, device, dtype), device)


@features.register
def _(x: Frozen):
    return x.x


def test_batches_are_moved_by_what_knows_them():
    batch = {"x": Frozen(table(2)), "y": [{"a": torch.ones(2)}, None], "pair": Pair(1, Frozen(table(1)))}
    there = moved(batch, torch.device("meta"))
    assert str(there["x"].device) == str(there["pair"].right.device) == "meta"
    assert there["y"][0]["a"].device.type == "meta"
    assert there["y"][1] is None
    assert isinstance(there["pair"], Pair)
    assert isinstance(moved(PerTask({"a": table(2)}), torch.device("meta")), PerTask)


@pytest.mark.parametrize("batch", [(), {}])
def test_kinds_of_ones_own_train_under_lightning(batch):
    y = labels()
    pair = (Frozen(table(ROWS)), y)
    batch = pair if isinstance(batch, tuple) else {"x": pair[0], "y": y}
    _, _, svi = trained([batch])
    assert svi.steps == 2


def test_a_batch_is_spread_or_is_the_inputs_alone():
    x, graphs = table(2), made("graphs", table(2))
    assert spread((x, 1)) == ((x, 1), {})
    assert spread([x]) == ((x,), {})
    assert spread({"x": x}) == ((), {"x": x})
    for alone in (x, graphs, PerTask({"a": x})):
        assert spread(alone) == ((alone,), {})
    with pytest.raises(TypeError, match="not ndarray"):
        spread(np.zeros(2))


# ---- Simulation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dict", "ragged"])
def test_simulated_data_are_those_of_the_table(kind):
    def fit(seed, x, y):
        assert features(x).shape == (ROWS, WIDTH)
        assert {name: len(values) for name, values in y.items()} == {"a": ROWS, "c": ROWS}
        return pyro.poutine.block(model, hide=["y_a", "y_c"])

    model = Program()
    one, other = (
        simulated_ranks(model, fit, made(of, table(ROWS)), datasets=3, num_draws=9) for of in ("tensor", kind)
    )
    for name in one.truth:
        np.testing.assert_allclose(one.truth[name], other.truth[name])
        np.testing.assert_array_equal(one.ranks[name], other.ranks[name])
