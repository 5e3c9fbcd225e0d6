import functools
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference.balancing import Context, Full, LastLayer, balancer
from bmtl.inference.balancing.graph import parameters_by_tensor
from bmtl.inference.errors import NonFinite

WEIGHTS = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)  # of `ew`, so that scaled losses differ from raw ones
EW = "ew(weights={'t0': 2.0, 't1': 0.5, 't2': 3.0})"


@pytest.fixture(autouse=True)
def _double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def heads_on(width, k=3):
    return nn.ModuleList(nn.Linear(width, 1) for _ in range(k))


def losses_of(heads, inputs):
    """Squared errors against a constant of each task's own, over all rows but the features'."""
    return [
        (head(torch.tanh(h)) - k - 1).square().mean() for k, (head, h) in enumerate(zip(heads, inputs, strict=True))
    ]


class Case:
    """A program of three tasks: a trunk, heads, the parameters of the trunk and those of its last layer."""

    def __init__(self, trunk, x, last, width, *, mark=True, own_inputs=False):
        self.heads = heads_on(width)
        self.trunk, self.shared, self.last = trunk, list(trunk.parameters()), last
        self.private = list(self.heads.parameters())
        self.x, self.mark, self.own_inputs = x, mark, own_inputs

    def program(self):
        mark = bmtl.shared if self.mark else (lambda h: h)
        if self.own_inputs:
            return losses_of(self.heads, [mark(self.trunk(x)) for x in self.x])
        h = mark(self.trunk(self.x))
        return losses_of(self.heads, [h] * 3)


def mlp(rows=6, width=5, *, bias=True, after=(), **options):
    last = nn.Linear(7, width, bias=bias)
    trunk = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), last, *after)
    x = [torch.randn(rows + k, 3) for k in range(3)] if options.get("own_inputs") else torch.randn(rows, 3)
    return Case(trunk, x, list(last.parameters()), width, **options)


def rows_of_rows(bias=True):
    """Inputs (B, T, d): sequences."""
    case = mlp(bias=bias)
    case.x = torch.randn(2, 2, 3)
    return case


def convolution(kind, layer, shape, flat):
    last = layer
    trunk = nn.Sequential(kind, nn.Tanh(), last, nn.ReLU(), nn.Flatten())
    return Case(trunk, torch.randn(shape), list(last.parameters()), flat)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.first, self.inner = nn.Linear(3, 5), inner

    def forward(self, x):
        h = self.first(x)
        return self.inner(h) + h


class Gate(nn.Module):
    """Elementwise, by two paths."""

    def forward(self, x):
        return x * torch.sigmoid(x)


class Repeat(nn.Module):
    """A product that repeats entries."""

    def forward(self, x):
        return (x[:, :, None] * torch.tensor([1.0, -2.0])).tanh().sum(2)


def recurrent():
    class Trunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.Linear(8, 5)

        def forward(self, x):
            h = torch.zeros(len(x), 5)
            for _ in range(3):
                h = torch.tanh(self.cell(torch.cat([x, h], dim=1)))
            return h

    trunk = Trunk()
    return Case(trunk, torch.randn(2, 3), list(trunk.parameters()), 5)


def siamese():
    class Trunk(nn.Sequential):
        def forward(self, x):
            return torch.cat([super(Trunk, self).forward(part) for part in x])

    last = nn.Linear(7, 5)
    return Case(Trunk(nn.Linear(3, 7), nn.Tanh(), last), torch.randn(2, 2, 3), list(last.parameters()), 5)


class Graph(nn.Module):
    """Neighbours are summed after the weight."""

    def __init__(self, batched=False):
        super().__init__()
        self.first, self.last = nn.Linear(3, 7), nn.Linear(7, 5)
        self.adjacency = torch.rand(2, 4, 4) if batched else torch.rand(4, 4)

    def forward(self, x):
        return torch.tanh(self.adjacency @ self.last(torch.tanh(self.first(x))))


def graph(batched=False):
    trunk = Graph(batched)
    return Case(trunk, torch.randn(2, 4, 3) if batched else torch.randn(4, 3), list(trunk.last.parameters()), 5)


class FromTheLeft(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 7), nn.Parameter(torch.randn(5, 7))

    def forward(self, x):
        return (self.last @ torch.tanh(self.first(x)).T).T


def from_the_left():
    trunk = FromTheLeft()
    return Case(trunk, torch.randn(6, 3), [trunk.last], 5)


def frozen():
    case = mlp(after=[nn.Linear(5, 5)])
    for parameter in case.trunk[-1].parameters():
        parameter.requires_grad_(False)
    case.shared = [p for p in case.shared if p.requires_grad]
    return case


def residual():
    inner = nn.Sequential(nn.Linear(5, 5), nn.Tanh())
    trunk = Residual(inner)
    return Case(trunk, torch.randn(4, 3), list(trunk.first.parameters()), 5)  # the skip is the shorter way


class SideBySide(nn.Module):
    """Two networks of different depth, joined by columns or by rows."""

    def __init__(self, join):
        super().__init__()
        self.left, self.right = nn.Linear(3, 5), nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 5))
        self.join = join

    def forward(self, x):
        left, right = self.left(x), torch.tanh(self.right(x))
        if self.join == "columns":
            return torch.relu(torch.cat([left, right], 1))
        if self.join == "stack":
            return torch.stack([left, right], 1).flatten(1)
        h = torch.zeros(len(x), 10)
        h[::2, :5], h[1::2, 5:] = left[::2], right[1::2]
        return h


def side_by_side(join):
    trunk = SideBySide(join)
    return Case(trunk, torch.randn(6, 3), [*trunk.left.parameters(), *trunk.right[2].parameters()], 10)


CASES = {
    "fewer rows than inputs": lambda: mlp(rows=6),
    "more rows than inputs": lambda: mlp(rows=9),
    "no bias": lambda: mlp(bias=False),
    "no bias, more rows": lambda: mlp(rows=9, bias=False),
    "activation after": lambda: mlp(after=[nn.ReLU()]),
    "gated": lambda: mlp(after=[Gate()]),
    "repeated after": lambda: mlp(after=[Repeat()]),
    "norm and activation after": lambda: mlp(after=[nn.LayerNorm(5), nn.GELU()]),
    "norm, more rows": lambda: mlp(rows=9, after=[nn.LayerNorm(5), nn.GELU()]),
    "three dimensions": rows_of_rows,
    "three dimensions, no bias": lambda: rows_of_rows(bias=False),
    "own inputs": lambda: mlp(rows=1, own_inputs=True),
    "own inputs, many rows": lambda: mlp(rows=9, own_inputs=True),
    "convolution 1d": lambda: convolution(nn.Conv1d(2, 3, 3), nn.Conv1d(3, 2, 2), (4, 2, 6), 6),
    "convolution 2d": lambda: convolution(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 2, bias=False), (2, 1, 5, 5), 8),
    "transposed convolution": lambda: convolution(nn.Conv1d(2, 3, 3), nn.ConvTranspose1d(3, 2, 2), (4, 2, 6), 10),
    "recurrent": recurrent,
    "siamese": siamese,
    "graph": graph,
    "batched graph": lambda: graph(batched=True),
    "weight on the left": from_the_left,
    "frozen last layer": frozen,
    "residual": residual,
    "side by side": lambda: side_by_side("columns"),
    "stacked side by side": lambda: side_by_side("stack"),
    "rows in turn": lambda: side_by_side("rows"),
}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request):
    return CASES[request.param]()


def check_update(case, update, jacobian, written, heads):
    """The trunk got J'alpha, and each head its own loss's gradient at the transform's scale, or times alpha."""
    scaled = WEIGHTS[:, None] * jacobian(case.program, case.shared)
    own = WEIGHTS[:, None] * jacobian(case.program, case.private)
    head_alpha = update.alpha if heads == "alpha" else torch.ones(3)
    assert_close(written(case.shared), update.alpha @ scaled)
    assert_close(written(case.private), head_alpha @ own)
    assert_close(update.weights, update.alpha * WEIGHTS)
    assert_close(update.weights_heads, head_alpha * WEIGHTS)
    assert not torch.allclose(update.alpha, torch.ones(3))


# ---- Full ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", ["transform", "alpha"])
@pytest.mark.parametrize("mark", [True, False])
def test_full_compares_and_writes_exact_gradients(case, step, jacobian, written, mark, heads):
    case.mark = mark
    update = step(f"{EW} >> full >> nash-mtl", case.program, heads=heads)
    scaled = WEIGHTS[:, None] * jacobian(case.program, case.shared)
    assert_close(update.gram, scaled @ scaled.T)
    check_update(case, update, jacobian, written, heads)


def test_without_a_mark_what_two_tasks_reach_is_shared(step, written):
    a, b, c, unused = (nn.Parameter(torch.randn(3)) for _ in range(4))
    x = torch.randn(3, 3)

    def program():
        return [(x[0] @ a).square() + b.sum() ** 2, (x[1] @ a).square() + (x[2] @ c).square()]

    update = step("full >> nash-mtl", program)
    grads = [torch.autograd.grad(row, a)[0] for row in program()]
    assert_close(update.gram, torch.stack(grads) @ torch.stack(grads).T)
    assert unused.grad is None
    assert_close(written([b]), 2 * b.sum().detach() * torch.ones(3))
    assert_close(written([c]), 2 * (x[2] @ c).detach() * x[2])


def test_a_parameter_that_no_task_reaches_is_left_to_the_rest(step, written):
    case = mlp()
    prior, unused = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(1.0))
    step("full >> nash-mtl", lambda: (case.program(), prior.square() + case.shared[0].square().sum() / 2))
    assert_close(written([prior]), torch.tensor([4.0]))
    assert unused.grad is None
    with_rest = case.shared[0].grad.clone()
    written([*case.shared, *case.private])
    step("full >> nash-mtl", case.program)
    assert_close(with_rest - case.shared[0].grad, case.shared[0].detach())


def test_a_stacked_head_is_private_where_the_representation_is_marked(step, jacobian, written):
    trunk, stacked, x = nn.Linear(3, 4), nn.Parameter(torch.randn(3, 4)), torch.randn(5, 3)

    def program(mark=bmtl.shared):
        return list((mark(trunk(x)) @ stacked.T - torch.arange(3)).square().mean(0).unbind())

    shared = list(trunk.parameters())
    update = step("full >> nash-mtl", program)
    assert_close(update.gram, jacobian(program, shared) @ jacobian(program, shared).T)
    assert_close(written([stacked]), jacobian(program, [stacked]).sum(0))
    assert_close(written(shared), update.alpha @ jacobian(program, shared))

    bare = [*shared, stacked]  # without a mark, all tasks reach it
    update = step("full >> nash-mtl", lambda: program(lambda h: h))
    assert_close(update.gram, jacobian(program, bare) @ jacobian(program, bare).T)
    assert_close(written(bare), update.alpha @ jacobian(program, bare))


@pytest.mark.parametrize("geometry", ["full", "last-layer"])
def test_equal_gradients_get_the_plain_sums_direction(step, written, geometry):
    case = mlp()
    update = step(f"{geometry} >> nash-mtl >> norm", lambda: [case.program()[0]] * 3)
    assert_close(update.alpha, torch.ones(3))
    balanced = written([*case.shared, *case.private])
    (3 * case.program()[0]).backward()
    assert_close(balanced, written([*case.shared, *case.private]))


@pytest.mark.parametrize("geometry", ["full", "last-layer"])
def test_parameters_of_one_gradient_do_not_share_its_memory(step, written, geometry):
    trunk, a, b = nn.Linear(3, 4), nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
    x = torch.randn(5, 3)

    def program():
        h = bmtl.shared(trunk(x))
        return [(h + (a + b)).square().mean(), (h - 1).square().mean() + (a * 0 + b).sum()]

    step(f"{geometry} >> nash-mtl", program)
    one, other = a.grad.clone(), b.grad.clone()
    for parameter in (a, b, *trunk.parameters()):
        parameter.grad.mul_(0.5)  # as a clip does
    assert_close(a.grad, one / 2)
    assert_close(b.grad, other / 2)


def test_full_reads_the_program_anew_in_each_step(step, written):
    x, made = torch.randn(5, 3), balancer("full >> nash-mtl")
    first, second = mlp(), mlp()
    step(made, first.program)
    step(made, second.program)  # one balancer, another model
    assert all(p.grad is not None and p.grad.norm() > 0 for p in [*second.shared, *second.private])
    late, head = nn.Linear(3, 5), heads_on(5)

    def branching(branch):
        h = bmtl.shared(first.trunk(x) + (late(x) if branch else 0.0))
        return losses_of(head if branch else first.heads, [h] * 3)

    step(made, lambda: branching(False))
    step(made, lambda: branching(True))
    assert all(p.grad is not None and p.grad.norm() > 0 for p in [*late.parameters(), *head.parameters()])


@pytest.mark.parametrize("geometry", ["full", "last-layer(fidelity_every=1)"])
@pytest.mark.parametrize("place", ["trunk", "head"])
def test_sparse_gradients_of_embeddings_count_like_dense_ones(step, written, geometry, place):
    inner, own, index = nn.Embedding(9, 3), nn.Embedding(9, 1), torch.tensor([0, 2, 2, 7])
    trunk, heads = nn.Linear(3, 5), heads_on(5)

    def program():
        h = bmtl.shared(trunk(inner(index)))
        losses = losses_of(heads, [h] * 3)
        return [losses[0] + own(index).square().sum(), *losses[1:]]

    def dense(p):
        p.grad = p.grad.to_dense()

    grams, written_to = [], []
    for sparse in (False, True):
        (inner if place == "trunk" else own).sparse = sparse
        update = step(f"{geometry} >> nash-mtl", program)
        for p in (inner.weight, own.weight):
            dense(p)
        grams.append(update.gram)
        written_to.append(written([inner.weight, own.weight, *trunk.parameters(), *heads.parameters()]))
    assert_close(grams[1], grams[0])
    assert_close(written_to[1], written_to[0])


def test_parameters_are_told_apart_by_who_reaches_them():
    a, b, c, d = (nn.Parameter(torch.ones(2)) for _ in range(4))
    both = a * 2
    for _ in range(40):  # every path: 2^40
        both = both + both.tanh()
    tensors = [(both * b).sum(), torch.tensor(1.0), both.sum() + c.sum(), d, c.sum()]
    own, common = parameters_by_tensor(tensors)
    assert [set(parameters) for parameters in own] == [{id(b)}, set(), set(), {id(d)}, set()]
    assert set(common) == {id(a), id(c)}


@pytest.mark.parametrize("geometry", ["full", "last-layer"])
def test_a_failed_step_leaves_nothing_to_the_next(step, written, geometry):
    case, made = mlp(), balancer(f"{geometry} >> nash-mtl")

    def broken():
        *rest, last = case.program()
        return [*rest, torch.sqrt(last * 0)]

    with pytest.raises(NonFinite):
        step(made, broken)
    step(made, case.program, active=[False] * 3)
    assert written([*case.shared, *case.private]).norm() == 0
    step(made, case.program)
    assert written([*case.shared, *case.private]).norm() > 0


# ---- Last layer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", ["transform", "alpha"])
def test_last_layer_compares_the_last_layer_and_writes_all(case, step, jacobian, written, heads):
    update = step(f"{EW} >> last-layer >> nash-mtl", case.program, heads=heads)
    scaled = WEIGHTS[:, None] * jacobian(case.program, case.last)
    assert_close(update.gram, scaled @ scaled.T)
    check_update(case, update, jacobian, written, heads)


@pytest.mark.parametrize("rows", [4, 9])
def test_dropout_between_layer_and_mark_is_that_of_the_forward_pass(step, jacobian, rows):
    case = mlp(rows, after=[nn.ReLU(), nn.Dropout(0.5)])

    def program():
        torch.manual_seed(3)
        return case.program()

    j = jacobian(program, case.last)
    assert_close(step("last-layer >> nash-mtl", program).gram, j @ j.T)


class Bayesian(nn.Module):
    """A linear layer whose weight and bias are drawn anew in each call, or once for all."""

    def __init__(self, d_in, d_out, anew):
        super().__init__()
        self.loc, self.log_scale = nn.Parameter(torch.randn(d_out, d_in)), nn.Parameter(torch.zeros(d_out, d_in))
        self.bias = nn.Parameter(torch.randn(d_out))
        self.eps = torch.randn(8, d_out, d_in)
        self.anew, self.draws = anew, []

    def forward(self, x):
        if self.anew or not self.draws:
            self.draws.append(self.loc + self.log_scale.exp() * self.eps[len(self.draws)])
        return nn.functional.linear(x, self.draws[-1], self.bias)


@pytest.mark.parametrize("rows", [2, 9])
@pytest.mark.parametrize("anew", [True, False])
def test_a_bayesian_layer_is_compared_in_its_draws(step, jacobian, written, rows, anew):
    layer = Bayesian(7, 5, anew)
    trunk = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), layer)
    heads, x = heads_on(5), [torch.randn(rows, 3) for _ in range(3)]

    def program():
        layer.draws = []
        return losses_of(heads, [bmtl.shared(trunk(part)) for part in x])

    update = step("last-layer >> nash-mtl", program)
    shared = [*trunk[0].parameters(), layer.loc, layer.log_scale, layer.bias]
    balanced = written(shared)
    rows_again = program()
    assert len(layer.draws) == (3 if anew else 1)
    j = jacobian(rows_again, [*layer.draws, layer.bias])
    assert_close(update.gram, j @ j.T)
    assert_close(balanced, update.alpha @ jacobian(rows_again, shared))


def test_particles_drawn_at_once_are_compared_in_their_draws(step, jacobian):
    first, loc, x = nn.Linear(3, 7), nn.Parameter(torch.randn(7, 5)), torch.randn(4, 3)
    eps, heads = torch.randn(2, 7, 5), heads_on(5)
    draws = []

    def program():
        draws.append(loc + 0.1 * eps)
        h = bmtl.shared(torch.tanh(first(x)).expand(2, 4, 7) @ draws[-1])
        return losses_of(heads, [h] * 3)

    gram = step("last-layer >> nash-mtl", program).gram
    rows = program()
    j = jacobian(rows, draws[-1:])
    assert_close(gram, j @ j.T)


def test_marks_of_different_layers_add_up(step, jacobian, written):
    trunks = nn.ModuleList(nn.Linear(3, 5) for _ in range(2))
    heads, idle, x = heads_on(10), nn.Linear(3, 5), torch.randn(4, 3)

    def program():
        h = torch.cat([bmtl.shared(trunk(x)) for trunk in trunks], dim=1)
        unused = bmtl.shared(idle(x))  # by the tasks
        return losses_of(heads, [h] * 3), unused.square().sum()

    update = step("last-layer >> nash-mtl", program)
    j = jacobian(program, list(trunks.parameters()))
    assert_close(update.gram, j @ j.T)
    assert_close(written(list(trunks.parameters())), update.alpha @ j)
    assert_close(idle.weight.grad, 2 * idle(x).detach().T @ x)


def test_a_marked_parameter_is_its_own_last_layer(step, jacobian, written):
    table, heads = nn.Parameter(torch.randn(4, 5)), heads_on(5)

    def program():
        return losses_of(heads, [bmtl.shared(table)] * 3)

    update = step("last-layer >> nash-mtl", program)
    j = jacobian(program, [table])
    assert_close(update.gram, j @ j.T)
    assert_close(written([table]), update.alpha @ j)


@pytest.mark.parametrize("geometry", ["full", "last-layer"])
def test_terms_of_weight_1_reach_the_trunk_through_the_mark(step, jacobian, written, geometry):
    case = mlp()
    scale = nn.Parameter(torch.zeros(5))

    def program():
        h = bmtl.shared(case.trunk(case.x))
        z = h + scale.exp() * 0.3  # q(z | h)
        kl = (h.square() / 2 + scale.exp() - scale).mean() + case.shared[0].square().sum()
        return losses_of(case.heads, [z] * 3), kl

    (kl,) = program()[1:]
    everything = [*case.shared, scale]
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(kl, everything)])
    j = jacobian(program, everything)
    update = step(f"{geometry} >> nash-mtl", program)
    trunk = sum(p.numel() for p in case.shared)
    head_alpha = torch.ones(3)
    assert_close(written(case.shared), (update.alpha @ j + expected)[:trunk])
    # Downstream of the mark, what several tasks reach gets the sum at the transform's scale.
    assert_close(written([scale]), (head_alpha @ j + expected)[trunk:])


@pytest.mark.parametrize("geometry", ["full", "last-layer"])
def test_two_backwards_add_up(step, written, geometry):
    case, made = mlp(), balancer(f"si >> {geometry} >> nash-mtl")
    everything = [*case.shared, *case.private]
    parts = []
    for seed in (1, 2):
        case.x = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))
        step(made, case.program)
        parts.append(written(everything))
    for seed in (1, 2):
        case.x = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))
        step(made, case.program)
    assert_close(written(everything), parts[0] + parts[1])


@pytest.mark.parametrize("geometry", ["full", "last-layer"])
def test_the_graph_is_freed(objective, geometry):
    case, made = mlp(), balancer(f"{geometry} >> nash-mtl")
    made.bind(["t0", "t1", "t2"])
    seen = objective(case.program, made.cut)
    made.backward(seen, Context(torch.ones(3, dtype=torch.bool)))
    with pytest.raises(RuntimeError, match="second time"):
        seen.rows[2].backward()


def test_a_loss_that_depends_on_nothing_is_a_zero_gradient(step, written):
    for geometry in ("full", "last-layer"):
        case = mlp()
        update = step(f"{geometry} >> nash-mtl", lambda case=case: [*case.program()[:2], torch.tensor(2.0)])
        assert update.events == ["task 't2' has a zero gradient"]
        assert update.alpha[2] == 1
        assert written(case.shared).norm() > 0


def test_what_the_cheap_geometry_cannot_see_is_an_error(step):
    case, x = mlp(), torch.randn(4, 3)
    case.mark = False
    with pytest.raises(ValueError, match=r"the model marks none\. Wrap the trunk's output: h = bmtl\.shared"):
        step("last-layer >> nash-mtl", case.program)

    def around():
        h = bmtl.shared(case.trunk(x))
        return losses_of(case.heads, [h, h, h + case.trunk[0].bias.sum()])

    names = {id(p): f"trunk.{n}" for n, p in case.trunk.named_parameters()}
    with pytest.raises(ValueError, match=r"reached around the mark, not through it: trunk\.0\.bias\. Mark every path"):
        step("last-layer >> nash-mtl", around, parameter_names=names)

    def nested():
        h = bmtl.shared(torch.tanh(bmtl.shared(case.trunk(x))))
        return losses_of(case.heads, [h] * 3)

    with pytest.raises(ValueError, match="computed from another marked tensor"):
        step("last-layer >> nash-mtl", nested)
    step("full >> nash-mtl", nested)

    scale = nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="No linear or convolutional layer with trainable parameters"):
        step("last-layer >> nash-mtl", lambda: losses_of(heads_on(3), [bmtl.shared(x * scale)] * 3))


# ---- Precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", ["full", "last-layer"])
@pytest.mark.parametrize("rows", [6, 9])
@pytest.mark.parametrize("scale", [1e-21, 1.0, 1e21])
def test_float32_gradients_of_any_size(step, jacobian, written, geometry, rows, scale):
    case = mlp(rows)
    exact = jacobian(case.program, case.last if geometry == "last-layer" else case.shared)
    j = jacobian(case.program, case.shared)
    case.trunk, case.heads, case.x = case.trunk.float(), case.heads.float(), case.x.float()
    factors = (scale, 1e-3 * scale, 1e3 * scale)
    update = step(f"{geometry} >> nash-mtl", lambda: [row * c for row, c in zip(case.program(), factors, strict=True)])
    outer = torch.tensor(factors)[:, None] * torch.tensor(factors)
    norms = (exact @ exact.T * outer).diagonal().sqrt()
    assert_close(
        update.gram / norms / norms[:, None], exact @ exact.T * outer / norms / norms[:, None], atol=1e-5, rtol=0
    )
    assert (update.solution.status, update.events) == ("ok", [])
    assert_close(written(case.shared), update.alpha * torch.tensor(factors) @ j, rtol=1e-4, atol=1e-4 * norms.numel())


def test_the_kernel_form_gives_way_where_it_would_cancel(step, jacobian):
    """Near a full-batch optimum a sum of large gradients is nearly 0, and its square is lost in float32."""
    generator = torch.Generator().manual_seed(0)
    x = 2 + torch.randn(40, 3, generator=generator) @ torch.randn(3, 64, generator=generator)
    noise = torch.randn(3, 40, generator=generator)
    trunk = nn.Linear(64, 4)
    heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))

    def program(dtype=torch.float64):
        h = bmtl.shared(trunk(x.to(dtype)))
        return [(head(h).squeeze(-1) - y.to(dtype)).square().mean() for head, y in zip(heads, noise, strict=True)]

    optimizer = torch.optim.LBFGS(
        [*trunk.parameters(), *heads.parameters()], max_iter=300, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        total = sum(program())
        total.backward()
        return total.detach()

    optimizer.step(closure)
    trunk.float(), heads.float()  # rounding leaves gradients of about 1e-6
    gram = step("last-layer >> nash-mtl", lambda: program(torch.float32)).gram
    trunk.double(), heads.double()
    j = jacobian(program, list(trunk.parameters()))
    exact = j @ j.T
    assert exact.diagonal().max() < 1e-6
    assert_close(gram / gram.trace(), exact / exact.trace(), atol=0.05, rtol=0)


def test_parameters_of_several_precisions(step, jacobian, written):
    high, low = nn.Linear(3, 7), nn.Linear(7, 5).bfloat16()
    heads, x = heads_on(5), torch.randn(4, 3)

    def program():
        return losses_of(heads, [bmtl.shared(low(torch.tanh(high(x)).bfloat16()).double())] * 3)

    update = step("full >> nash-mtl", program)
    j = jacobian(program, [*low.parameters(), *high.parameters()])
    assert_close(update.gram, j @ j.T)  # in float64: the coarser parameters do not decide
    assert {p.grad.dtype for p in low.parameters()} == {torch.bfloat16}
    assert_close(written(list(high.parameters())), update.alpha @ jacobian(program, list(high.parameters())))


@pytest.mark.parametrize("rows", [4, 9])
def test_autocast(step, rows):
    case = mlp(rows, after=[nn.ReLU()])
    case.trunk, case.heads, case.x = case.trunk.float(), case.heads.float(), case.x.float()
    exact = step("last-layer >> nash-mtl", case.program).gram

    def program():
        with torch.autocast("cpu", torch.bfloat16):
            h = bmtl.shared(case.trunk(case.x)).float()
        return losses_of(case.heads, [h] * 3)

    gram = step("last-layer >> nash-mtl", program).gram
    assert_close(gram / exact.trace(), exact / exact.trace(), atol=0.02, rtol=0)


def test_gram_matrices_of_all_geometries_are_symmetric_float64_on_the_host(step):
    for geometry in (Full(), LastLayer()):
        case = mlp()
        case.trunk, case.heads, case.x = case.trunk.float(), case.heads.float(), case.x.float()
        gram = step(f"{geometry.name} >> nash-mtl", case.program).gram
        assert (gram.dtype, gram.device.type) == (torch.float64, "cpu")
        assert_close(gram, gram.T, rtol=1e-6, atol=0)
        assert math.isfinite(gram.sum())


@pytest.mark.parametrize(
    ("geometry", "kind", "warned"),
    [
        ("last-layer", "parts", True),
        ("representation", "rows", True),
        ("last-layer", "rows", False),
        ("full", "parts", False),
        ("last-layer", "some", False),
    ],
)
def test_gradients_that_are_always_orthogonal_are_said_to_be(step, caplog, geometry, kind, warned):
    """Where tasks read parts of the representation of their own, a weighting of directions has nothing to compare."""
    net, made = mlp(rows=6, width=6), balancer(f"{geometry} >> upgrad")
    masks = torch.block_diag(*[torch.ones(1, 2)] * 3)

    def program(n):
        h = bmtl.shared(net.trunk(net.x))
        if kind == "rows":
            return losses_of(net.heads, [h[2 * k : 2 * k + 2] for k in range(3)])
        return losses_of(net.heads, [h * mask for mask in (torch.ones(3, 6) if kind == "some" and not n else masks)])

    for n in range(21):
        step(made, functools.partial(program, n))
    assert caplog.text.count("Use the geometry 'full'") == warned
