"""Gradients of linear layers by their inputs and output gradients: the same products and the same update."""

import functools

import pyro
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bmtl
from bmtl.inference.balancing.geometry.kernel_layers import kernel_layers

ROWS, WIDE, TASKS = 6, 16, 4
SGD = functools.partial(torch.optim.SGD, lr=0.1)


class Net(nn.Module):
    """Regressions on a trunk of one of the forms below."""

    def __init__(self, trunk, width=WIDE):
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList([nn.Linear(width, 1) for _ in range(TASKS)])

    def forward(self, x, y):
        h = bmtl.shared(self.trunk(x))
        rows = pyro.plate("rows", len(x), dim=-1)
        for k, head in enumerate(self.heads):
            with bmtl.task(f"t{k}"), rows:
                pyro.factor(f"y_{k}", -0.5 * (head(h).squeeze(-1) - y[k]).square())


class Twice(nn.Module):
    """One layer applied twice, and one by a matrix product without a bias."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Linear(WIDE, WIDE), nn.Linear(3 * WIDE, 3 * WIDE)
        self.product = nn.Parameter(0.2 * torch.randn(WIDE, 3 * WIDE))
        self.out = nn.Linear(3 * WIDE, WIDE, bias=False)

    def forward(self, x):
        h = torch.tanh(self.first(x)) @ self.product
        return torch.tanh(self.out(torch.tanh(self.again(torch.tanh(self.again(h))))))


class Tied(nn.Module):
    """A weight that another statement uses too, a bias of two layers, and a scale."""

    def __init__(self):
        super().__init__()
        self.tied, self.plain, self.last = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, WIDE), nn.Linear(WIDE, WIDE)
        self.norm = nn.LayerNorm(WIDE)
        self.last.bias = self.plain.bias

    def forward(self, x):
        h = torch.tanh(self.tied(x)) + self.tied.weight.sum(0)
        h = self.norm(torch.tanh(self.plain(h)))
        return torch.tanh(self.last(h)) + h


TRUNKS = {
    "mlp": lambda: nn.Sequential(nn.Linear(WIDE, WIDE), nn.ReLU(), nn.Linear(WIDE, WIDE), nn.Tanh()),
    "twice": Twice,
    "tied": Tied,
    "narrow": lambda: nn.Sequential(nn.Linear(WIDE, 5), nn.ReLU(), nn.Linear(5, WIDE), nn.Tanh()),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(32, WIDE), nn.Tanh()
    ),
}
"""With how many layers by their inputs."""
LAYERS = {"mlp": 2, "twice": 4, "tied": 0, "narrow": 1, "convolution": 1}


def run(trunk, balancer, formed, steps=2, dtype=torch.float64):
    torch.manual_seed(0)
    net = Net(TRUNKS[trunk]()).to(dtype)
    x, y = torch.randn(ROWS, WIDE, dtype=dtype), torch.randn(TASKS, ROWS, dtype=dtype)
    svi = bmtl.BalancedSVI(net, lambda x, y: None, SGD, balancer, bmtl.TaskELBO(normalize="task_mean"))
    svi.initialise(x, y)
    if formed:
        svi.balancer.geometry.expect(gradients=True)
    records = [svi.step(x, y) for _ in range(steps)]
    return records, [p.detach().clone() for p in svi.parameters], svi, (x, y)


@pytest.mark.parametrize("balancer", ["full >> upgrad", "igb-v1 >> full >> nash-mtl >> norm", "full >> cagrad"])
@pytest.mark.parametrize("trunk", TRUNKS)
def test_gram_and_update_are_those_of_the_gradients(trunk, balancer):
    records, values, *_ = run(trunk, balancer, formed=False)
    expected_records, expected, *_ = run(trunk, balancer, formed=True)
    for one, two in zip(records, expected_records, strict=True):
        assert_close(one.gram, two.gram, rtol=1e-9, atol=1e-12)
        assert_close(one.weights, two.weights, rtol=1e-6, atol=1e-9)
    for one, two in zip(values, expected, strict=True):
        assert_close(one, two, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_which_layers_they_are(trunk):
    """None whose parameters serve anything else, and none with fewer inputs than rows."""
    *_, svi, batch = run(trunk, "full >> upgrad", formed=False, steps=0)
    losses = svi.elbo.task_losses(svi.model, svi.guide, *batch)
    found = kernel_layers(losses.nll_terms, list(svi.model.trunk.parameters()))
    assert len(found) == LAYERS[trunk]
    for layer in found:
        assert layer.inputs.shape == (ROWS * len(layer.nodes), layer.weight.shape[1 if layer.transposed else 0])


def test_who_wants_gradients_has_them():
    for balancer, formed in (("full >> grad-drop", True), ("full >> db-mtl", True), ("full >> mgda", False)):
        *_, svi, _ = run("mlp", balancer, formed=False, steps=1)
        assert svi.balancer.geometry._wanted == formed, balancer


def test_rows_that_cancel_in_float32_keep_their_digits():
    """Two rows of labels that pull a layer in opposite directions, a millionth apart."""
    grams = []
    for dtype, formed in ((torch.float32, False), (torch.float64, True)):
        torch.manual_seed(0)
        net = Net(TRUNKS["mlp"]())
        x = torch.randn(1, WIDE).repeat(2, 1)
        h = net.trunk(x)[0]
        middle = torch.stack([head(h) for head in net.heads]).detach()
        y = middle + torch.tensor([1.0, -1.0 + 1e-5])
        net, x, y = net.to(dtype), x.to(dtype), y.to(dtype)
        svi = bmtl.BalancedSVI(net, lambda x, y: None, SGD, "full >> upgrad", bmtl.TaskELBO(normalize="task_mean"))
        svi.initialise(x, y)
        svi.balancer.geometry.expect(gradients=formed)
        grams.append(svi.backward(x, y).gram)
    found, exact = (gram / gram.diagonal().sqrt()[:, None] / gram.diagonal().sqrt() for gram in grams)
    assert_close(found, exact, rtol=0.05, atol=0.05)
    assert_close(grams[0].diagonal(), grams[1].diagonal(), rtol=0.1, atol=0.0)


def test_inputs_of_three_dimensions_and_sequences():
    """A layer on (B, T, d) counts all B T rows."""

    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.out = nn.Linear(64, 64), nn.Linear(64, WIDE)

        def forward(self, x):
            return torch.tanh(self.out(F.relu(self.layer(x.unflatten(1, (4, 4)).repeat(1, 1, 16))).mean(1)))

    TRUNKS["sequences"] = Sequences
    try:
        records, values, *_ = run("sequences", "full >> upgrad", formed=False)
        expected_records, expected, *_ = run("sequences", "full >> upgrad", formed=True)
    finally:
        del TRUNKS["sequences"]
    assert_close(records[-1].gram, expected_records[-1].gram, rtol=1e-9, atol=1e-12)
    for one, two in zip(values, expected, strict=True):
        assert_close(one, two, rtol=1e-8, atol=1e-10)
