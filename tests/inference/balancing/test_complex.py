"""Complex parameters and marked tensors count as their real and imaginary parts, in every geometry and every product.

The oracle is the same program on real parameters ``(..., 2)``, made complex by `torch.view_as_complex`.
"""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import bmtl
from bmtl.inference import ConflictProbe
from bmtl.inference.balancing import balancer
from tests.inference.programs import nothing

X = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGETS = torch.randn(3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Net:
    """Three losses on a trunk with complex numbers in it; `real` holds them as pairs of real ones.

    Args:
        kind: Where complex numbers are: in a "filter" between real layers, in the last "layer", or there and in the marked
            "representation" too.
        real: Parameters are real ``(..., 2)``.
    """

    def __init__(self, kind, real):
        self.kind, self.real = kind, real
        draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        self.first = nn.Parameter(draw(4, 5))
        pairs = {"filter": draw(3, 2), "weight": draw(5, 6, 2), "bias": draw(6, 2)}
        self.pairs = {n: nn.Parameter(p if real else torch.view_as_complex(p)) for n, p in pairs.items()}
        if kind == "filter":
            del self.pairs["weight"], self.pairs["bias"]
        else:
            del self.pairs["filter"]
        width = 5 if kind == "filter" else 6
        self.heads = [nn.Parameter(draw(width)) for _ in range(3)]

    def number(self, name):
        return torch.view_as_complex(self.pairs[name]) if self.real else self.pairs[name]

    def __call__(self):
        h = torch.tanh(X @ self.first)
        if self.kind == "filter":
            h = bmtl.shared(torch.fft.irfft(torch.fft.rfft(h) * self.number("filter"), n=5))
        else:
            h = torch.addmm(self.number("bias"), h.to(torch.complex128), self.number("weight"))
            if self.kind == "representation":
                h = bmtl.shared(h * (1 + 2j))
                h = torch.stack([h.real, h.imag]).sum(0) + h.abs()
            else:
                h = bmtl.shared(torch.view_as_real(h).mean(-1))
        return [(h @ head - y).square().mean() for head, y in zip(self.heads, TARGETS, strict=True)]

    @property
    def parameters(self):
        return [self.first, *self.pairs.values(), *self.heads]

    def gradients(self):
        """What lies at the parameters now, as real numbers."""
        found = [p.grad for p in self.parameters]
        for p in self.parameters:
            p.grad = None
        return [torch.view_as_real(g) if g.is_complex() else g for g in found]


def twins(kind):
    return Net(kind, real=False), Net(kind, real=True)


each = pytest.mark.parametrize("kind", ["filter", "layer", "representation"])


@each
@pytest.mark.parametrize("geometry", ["full", "last-layer", "representation"])
@pytest.mark.parametrize("rest", ["mgda", "nash-mtl >> norm", "upgrad", "imtl-g"])
def test_a_step_is_that_of_the_real_and_imaginary_parts(step, kind, geometry, rest):
    ours, oracle = twins(kind)
    updates = []
    for net in (ours, oracle):
        updates.append(step(f"{geometry} >> {rest}", net))
    assert_close(updates[0].gram, updates[1].gram, rtol=1e-12, atol=0)
    assert_close(updates[0].weights, updates[1].weights, rtol=1e-9, atol=1e-12)
    for one, other in zip(ours.gradients(), oracle.gradients(), strict=True):
        assert_close(one, other, rtol=1e-9, atol=1e-12)


def real_jacobian(losses, parameters):
    """Gradients (K, P) by K plain backwards, both parts of complex ones."""
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, parameters, retain_graph=True)
        rows.append(torch.cat([(torch.view_as_real(g) if g.is_complex() else g).reshape(-1) for g in found]).double())
    return torch.stack(rows)


@each
@pytest.mark.parametrize("geometry", ["full", "last-layer"])
def test_the_gram_matrix_is_that_of_plain_backwards(step, kind, geometry):
    net = Net(kind, real=False)
    last = [net.first] if kind == "filter" else list(net.pairs.values())
    j = real_jacobian(net(), [net.first, *net.pairs.values()] if geometry == "full" else last)
    assert_close(step(f"{geometry} >> mgda", net).gram, j @ j.T, rtol=1e-12, atol=0)


@each
@pytest.mark.parametrize("spec", ["db-mtl", "moco", "excess-mtl(eta=0.5) >> full >> mgda", "upgrad >> norm"])
def test_methods_on_the_gradients_themselves_see_both_parts(step, kind, spec):
    ours, oracle = twins(kind)
    made = [balancer(spec), balancer(spec)]
    for _ in range(3):
        for net, one in zip((ours, oracle), made, strict=True):
            step(one, net)
        for one, other in zip(ours.gradients(), oracle.gradients(), strict=True):
            assert_close(one, other, rtol=1e-9, atol=1e-12)


@each
def test_signs_are_those_of_each_part(step, kind):
    ours, oracle = twins(kind)
    for net in (ours, oracle):
        step("grad-drop(seed=3)", net)
    for one, other in zip(ours.gradients(), oracle.gradients(), strict=True):
        assert_close(one, other, rtol=1e-9, atol=1e-12)


@each
@pytest.mark.parametrize("geometry", ["last-layer", "representation"])
def test_fidelity_compares_real_vectors(step, kind, geometry):
    ours, oracle = twins(kind)
    found = [step(f"{geometry}(fidelity_every=1) >> upgrad", net).fidelity for net in (ours, oracle)]
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert 0 < found[0] <= 1


@pytest.mark.parametrize("kind", ["layer", "representation"])
def test_examples_of_a_complex_layer_are_not_taken_apart(step, kind):
    with pytest.raises(ValueError, match=r"its weight is complex. Use 'full\(cross=True\)'"):
        step("last-layer(cross=True) >> sdm-grad", Net(kind, real=False))


# ---- In training -----------------------------------------------------------------------------------------------------


class Fourier(nn.Module):
    """A spectral filter with complex weights between a real layer and two heads."""

    def __init__(self, real):
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(5, 8)
        pairs = torch.randn(5, 2)
        self.filter = nn.Parameter(pairs if real else torch.view_as_complex(pairs))
        self.heads = nn.ModuleDict({name: nn.Linear(8, 1) for name in "ab"})

    def forward(self, x, y):
        weight = self.filter if self.filter.is_complex() else torch.view_as_complex(self.filter)
        h = bmtl.shared(torch.fft.irfft(torch.fft.rfft(self.layer(x)) * weight, n=8))
        for name, head in self.heads.items():
            with bmtl.task(name), pyro.plate(f"{name}_rows", len(x)):
                bmtl.observe(f"y_{name}", dist.Normal(head(h).squeeze(-1), 1.0), y[name])


@pytest.mark.parametrize(
    "spec",
    ["full >> mgda", "last-layer >> nash-mtl", "representation >> upgrad", "full(cross=True) >> sdm-grad", "bayes-agg"],
)
def test_training_takes_the_steps_of_the_real_program(spec):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 5, generator=generator)
    y = {name: torch.randn(16, generator=generator) for name in "ab"}
    runs = []
    for real in (False, True):
        net = Fourier(real)
        svi = bmtl.BalancedSVI(net, nothing, functools.partial(torch.optim.SGD, lr=0.1), spec)
        records = [svi.step(x, y) for _ in range(3)]
        moved = net.filter.detach()
        runs.append((records, moved if real else torch.view_as_real(moved)))
    (ours, found), (oracle, expected) = runs
    for one, other in zip(ours, oracle, strict=True):
        assert_close(one.gram, other.gram, rtol=1e-4, atol=1e-7)
        assert_close(one.weights, other.weights, rtol=1e-4, atol=1e-6)
    assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_gram_of_a_complex_filter_is_that_of_plain_backwards():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 5, generator=generator)
    y = {name: torch.randn(16, generator=generator) for name in "ab"}
    net = Fourier(real=False)
    record = bmtl.BalancedSVI(net, nothing, functools.partial(torch.optim.SGD, lr=0.1), "full >> mgda").backward(x, y)
    h = torch.fft.irfft(torch.fft.rfft(net.layer(x)) * net.filter, n=8)
    losses = [-dist.Normal(head(h).squeeze(-1), 1.0).log_prob(y[name]).mean() for name, head in net.heads.items()]
    j = real_jacobian(losses, [net.layer.weight, net.layer.bias, net.filter])
    assert_close(record.gram, j @ j.T, rtol=1e-5, atol=0)


@pytest.mark.parametrize("spec", ["ew", "representation >> mgda"])
def test_a_probe_measures_cosines_of_real_vectors(spec):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 5, generator=generator)
    y = {name: torch.randn(16, generator=generator) for name in "ab"}
    found = []
    for real in (False, True):
        svi = bmtl.BalancedSVI(Fourier(real), nothing, functools.partial(torch.optim.SGD, lr=0.1), spec)
        svi.probe = ConflictProbe([("a", "b")])
        found.append(svi.step(x, y).probed["a", "b"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
