"""Gradients of layers by their inputs and output gradients: the same products and the same update."""

import functools

import pyro
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference.balancing.geometry.known_layers import known_layers

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
    "narrow": lambda: nn.Sequential(nn.Linear(WIDE, 2), nn.ReLU(), nn.Linear(2, WIDE), nn.Tanh()),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(32, WIDE), nn.Tanh()
    ),
}
"""With how many layers by their inputs."""
LAYERS = {"mlp": 2, "twice": 4, "tied": 2, "narrow": 1, "convolution": 1}


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
    """None whose weights serve anything else, and none with far fewer inputs than rows."""
    *_, svi, batch = run(trunk, "full >> upgrad", formed=False, steps=0)
    losses = svi.elbo.task_losses(svi.model, svi.guide, *batch)
    found = known_layers(losses.nll_terms, list(svi.model.trunk.parameters()))
    assert len(found) == LAYERS[trunk]
    for layer in found:
        assert layer.inputs.shape == (
            1,
            ROWS * len(layer.use.nodes),
            layer.use.weight.shape[1 if layer.use.transposed else 0],
        )


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


class Applied(nn.Module):
    """Layers on x ``(B, ...)``, then features ``(B, WIDE)``."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.layers, self.last, self.through = nn.ModuleDict(layers), nn.LazyLinear(WIDE), forward

    def forward(self, x):
        return torch.tanh(self.last(self.through(x, **self.layers).flatten(1)))


def numbers(*shape):
    return torch.randn(4, *shape)


def recurrent(x, r):
    return r(x)[0]


class Attention(nn.Module):
    """Attention of a sequence to itself, or to its own reverse by three separate projections."""

    def __init__(self, own):
        super().__init__()
        self.attention, self.own = nn.MultiheadAttention(40, 2, batch_first=True), own

    def forward(self, x):
        return self.attention(x, x if self.own else x.flip(1), x, need_weights=False)[0]


def mixed(x, table, conv, norm, linear, wide, scale):
    """Two integers and an image in one row."""
    tokens, image = x[:, :2].long(), x[:, 2:].unflatten(1, (3, 5, 5))
    h = norm(conv(image)).relu() * scale.weight[0, 0] + scale.weight[0, 1]
    h = linear(h.flatten(1)) + table(tokens).flatten(1).sum(1, keepdim=True)
    return wide(torch.tanh(wide(torch.tanh(h))))


KINDS = {
    "conv2d": (2, numbers(9, 2, 2), lambda: Applied(lambda x, c: c(x), c=nn.Conv2d(9, 7, 3, padding=1))),
    "conv2d strides": (
        *(2, numbers(16, 5, 4)),
        lambda: Applied(
            lambda x, c: c(x), c=nn.Conv2d(16, 6, (3, 2), stride=(3, 2), padding=(1, 0), dilation=(1, 2), groups=2)
        ),
    ),
    "conv1d depthwise": (1, numbers(5, 9), lambda: Applied(lambda x, c: c(x), c=nn.Conv1d(5, 10, 3, groups=5))),
    "conv1d twice": (
        *(2, numbers(16, 4)),
        lambda: Applied(lambda x, c: c(torch.tanh(c(x))), c=nn.Conv1d(16, 16, 5, padding=2, bias=False)),
    ),
    "conv3d": (2, numbers(4, 3, 3, 3), lambda: Applied(lambda x, c: c(x), c=nn.Conv3d(4, 3, 3, padding=0))),
    "conv transposed": (1, numbers(9, 3, 3), lambda: Applied(lambda x, c: c(x), c=nn.ConvTranspose2d(9, 7, 3))),
    "conv with many positions": (1, numbers(3, 8, 8), lambda: Applied(lambda x, c: c(x), c=nn.Conv2d(3, 4, 3))),
    "embedding": (
        *(2, torch.randint(50, (4, 6))),
        lambda: Applied(lambda x, e: e(x) + e(x.flip(1).clamp_max(9)), e=nn.Embedding(50, 3, padding_idx=7)),
    ),
    "embedding by frequency": (
        *(1, torch.randint(50, (4, 6))),
        lambda: Applied(lambda x, e: e(x), e=nn.Embedding(50, 3, scale_grad_by_freq=True)),
    ),
    "layer norm": (2, numbers(40), lambda: Applied(lambda x, n, f: n(f(x)), n=nn.LayerNorm(40), f=nn.Linear(40, 40))),
    "batch norm": (2, numbers(40), lambda: Applied(lambda x, n, f: n(f(x)), n=nn.BatchNorm1d(40), f=nn.Linear(40, 40))),
    "group norm": (1, numbers(6, 5), lambda: Applied(lambda x, n: n(x), n=nn.GroupNorm(2, 6))),
    "gru": (3, numbers(5, 30), lambda: Applied(recurrent, r=nn.GRU(30, 8, batch_first=True))),
    "lstm": (3, numbers(5, 30), lambda: Applied(recurrent, r=nn.LSTM(30, 24, batch_first=True))),
    "attention": (3, numbers(5, 40), lambda: Applied(lambda x, a: a(x), a=Attention(True))),
    "attention by parts": (2, numbers(5, 40), lambda: Applied(lambda x, a: a(x), a=Attention(False))),
    "sequences": (2, numbers(5, 40), lambda: Applied(lambda x, f: f(x), f=nn.Linear(40, 7))),
    "mixed": (
        *(5, torch.cat([torch.randint(30, (4, 2)).float(), torch.randn(4, 75)], 1)),
        lambda: Applied(
            mixed,
            **{
                "table": nn.Embedding(30, 3),
                "conv": nn.Conv2d(3, 4, 5, padding=1, stride=2),
                "norm": nn.BatchNorm2d(4),
            },
            **{"linear": nn.Linear(16, 20), "wide": nn.Linear(20, 20), "scale": nn.Embedding(1, 2)},
        ),
    ),
}
"""With how many layers by their inputs, the last included, of four rows and two tasks."""


def entries(gradients, parameters):
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in pairs])


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_layers_against_one_backward_pass_per_task(kind):
    layers, x, make = KINDS[kind]
    torch.manual_seed(1)
    trunk = make()
    trunk(x)  # a lazy layer takes its size
    trunk = trunk.double()
    x = x.double() if x.is_floating_point() else x
    heads = nn.ModuleList([nn.Linear(WIDE, 1) for _ in range(TASKS)]).double()
    y = torch.randn(TASKS, len(x), dtype=torch.float64)

    def program(x, y):
        h, rows = bmtl.shared(trunk(x)), pyro.plate("rows", len(x), dim=-1)
        for k, head in enumerate(heads):
            with bmtl.task(f"t{k}"), rows:
                pyro.factor(f"y_{k}", -0.5 * (head(h).squeeze(-1) - y[k]).square())

    whole = nn.ModuleList([trunk, heads])
    whole.forward = program
    svi = bmtl.BalancedSVI(whole, lambda x, y: None, SGD, "full >> upgrad", bmtl.TaskELBO(normalize="task_mean"))
    record = svi.backward(x, y)
    parameters = list(trunk.parameters())
    h = trunk(x)
    rows = []
    for k, head in enumerate(heads):
        loss = 0.5 * (head(h).squeeze(-1) - y[k]).square().mean()
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        rows.append(entries(found, parameters))
    jacobian = torch.stack(rows)
    assert_close(record.gram, jacobian @ jacobian.T, rtol=1e-10, atol=1e-10 * float(record.gram.diagonal().min()))
    update = entries([p.grad for p in parameters], parameters)
    assert_close(update, record.weights @ jacobian, rtol=1e-10, atol=1e-12)
    losses = svi.elbo.task_losses(svi.model, svi.guide, x, y)
    found = known_layers(losses.nll_terms, parameters)
    assert len(found) == layers
    tensors = sum(len(layer.parameters) for layer in found)
    shared = sum(g is not None for g in torch.autograd.grad(trunk(x).sum(), parameters, allow_unused=True))
    assert record.gradients == f"{tensors} of {shared} by layer"


def test_how_gradients_were_found_is_kept_in_the_history():
    records, _, svi, _ = run("mlp", "full >> upgrad", formed=False, steps=3)
    assert records[-1].gradients == "4 of 4 by layer"
    svi.history.state_dict()  # packs the records
    assert [record.gradients for record in svi.history] == 3 * ["4 of 4 by layer"]
    assert run("mlp", "full >> grad-drop", formed=False, steps=1)[0][0].gradients == "formed"
    assert run("mlp", "last-layer >> upgrad", formed=False, steps=1)[0][0].gradients == ""


def test_a_task_that_does_not_reach_a_layer_has_a_zero_row_there():
    """Two branches, each behind its own mark, and memory that an earlier step has left."""
    torch.manual_seed(0)

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.ModuleList([nn.Linear(WIDE, WIDE) for _ in range(2)])
            self.heads = nn.ModuleList([nn.Linear(WIDE, 1) for _ in range(4)])

        def forward(self, x, y):
            marked = [bmtl.shared(torch.tanh(layer(x))) for layer in self.trunk]
            rows = pyro.plate("rows", len(x), dim=-1)
            for k, head in enumerate(self.heads):
                with bmtl.task(f"t{k}"), rows:
                    pyro.factor(f"y_{k}", -0.5 * (head(marked[k // 2]).squeeze(-1) - y[k]).square())

    net = Branches().double()
    x, y = torch.randn(5, WIDE).double(), torch.randn(4, 5).double()
    svi = bmtl.BalancedSVI(net, lambda x, y: None, SGD, "full >> mgda", bmtl.TaskELBO(normalize="task_mean"))
    for _ in range(2):
        record = svi.step(x, y)
        assert record.gradients == "4 of 4 by layer"
        assert (record.gram[:2, 2:] == 0).all()
        assert (record.gram[:2, :2] != 0).all()
