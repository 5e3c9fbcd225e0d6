import pytest
import torch
from torch import nn

from bmtl.models.networks import message_passing
from bmtl.models.networks.message_passing import (
    FactorisedNNConv,
    LinearFilterSchNet,
    NNConvNet,
    Set2Set,
    edges_of,
)

SIZES = (5, 1, 8, 2)  # atoms of four molecules; one has no neighbour


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(dtype=torch.float64, sizes=SIZES, longest=None, garbage=0.0):
    """Molecules padded to the longest, or further; `garbage` is what padding holds."""
    longest = longest or max(sizes)
    mask = torch.arange(longest) < torch.tensor(sizes)[:, None]
    nodes = torch.full((len(sizes), longest, 11), garbage, dtype=dtype)
    edges = torch.full((len(sizes), longest, longest, 5), garbage, dtype=dtype)
    for i, n in enumerate(sizes):
        nodes[i, :n] = torch.randn(n, 11, generator=seeded(10 + i), dtype=dtype)
        edges[i, :n, :n] = torch.randn(n, n, 5, generator=seeded(20 + i), dtype=dtype)
    return {"nodes": nodes, "edges": edges, "mask": mask}


def flat(x):
    """The same molecules as PyTorch Geometric has them: node i receives from node j along the column (j, i)."""
    index, features, owner, start = [], [], [], 0
    for b, n in enumerate(x["mask"].sum(1).tolist()):
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
        index += [(start + j, start + i) for i, j in pairs]
        features += [x["edges"][b, i, j] for i, j in pairs]
        owner += [b] * n
        start += n
    nodes = x["nodes"][x["mask"]]
    return nodes, torch.tensor(index).T, torch.stack(features), torch.tensor(owner)


TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_convolution_is_pygs(dtype):
    conv_of = pytest.importorskip("torch_geometric.nn").NNConv
    x = batch(dtype)
    ours = FactorisedNNConv(11, 7, 5, 16).to(dtype)
    theirs = conv_of(11, 7, nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 77)), aggr="mean").to(dtype)
    theirs.load_state_dict(ours.state_dict())
    nodes, index, features, _ = flat(x)
    expected = theirs(nodes, index, features)
    found = ours(x["nodes"], ours.hidden(x["edges"], edges_of(x["mask"])))[x["mask"]]
    scale = expected.abs().max()
    assert (found - expected).abs().max() <= TOLERANCE[dtype] * scale
    weight = torch.randn(found.shape, generator=seeded(3), dtype=dtype)
    for out in (found, expected):
        (out * weight).sum().backward()
    for (name, own), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        other = dict(theirs.named_parameters())[name]
        assert (own.grad - other.grad).abs().max() <= 10 * TOLERANCE[dtype] * other.grad.abs().max(), name


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_set2set_is_pygs(dtype):
    pool_of = pytest.importorskip("torch_geometric.nn").aggr.Set2Set
    x = batch(dtype)
    ours = Set2Set(11).to(dtype)
    theirs = pool_of(11, processing_steps=3).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    nodes, _, _, owner = flat(x)
    expected = theirs(nodes, owner)
    found = ours(x["nodes"], x["mask"])
    assert (found - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()


def test_the_published_network_has_its_number_of_parameters():
    heads = 11 * (64 + 1)
    assert sum(p.numel() for p in NNConvNet(11, 5).parameters()) + heads == 617_675


def molecules(sizes=SIZES, longest=None, garbage=0.0):
    longest = longest or max(sizes)
    numbers = torch.zeros(len(sizes), longest, dtype=torch.long)
    positions = torch.full((len(sizes), longest, 3), garbage, dtype=torch.float64)
    for i, n in enumerate(sizes):
        numbers[i, :n] = torch.tensor([6, 1, 7, 8, 9])[torch.randint(5, (n,), generator=seeded(i))]
        positions[i, :n] = 2 * torch.randn(n, 3, generator=seeded(30 + i), dtype=torch.float64)
    return {"numbers": numbers, "positions": positions}


NETWORKS = {
    "nnconv": (lambda: NNConvNet(11, 5, width=16, hidden=8), batch),
    "schnet": (lambda: LinearFilterSchNet(width=16, radial=6), molecules),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_leaves_nothing_in_any_sum(name):
    """A molecule equals itself alone, whatever padding holds and however much there is, in values and gradients."""
    make, data = NETWORKS[name]
    torch.manual_seed(0)
    net = make().double()
    together = net(data(longest=12, garbage=1e3))
    alone = torch.cat([net({k: v[i : i + 1] for k, v in trimmed(data(), n, i).items()}) for i, n in enumerate(SIZES)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-13)
    grads = [torch.autograd.grad(out.square().sum(), list(net.parameters())) for out in (together, alone)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def trimmed(x, n, i):
    """The batch cut to the atoms of molecule i."""
    cuts = {"nodes": (n,), "edges": (n, n), "mask": (n,), "numbers": (n,), "positions": (n,)}
    return {k: v[(slice(None), *(slice(0, s) for s in cuts[k]))] for k, v in x.items()}


def test_rotated_shifted_and_permuted_molecules_are_the_same():
    torch.manual_seed(0)
    net = LinearFilterSchNet(width=16).double()
    x = molecules()
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=seeded(1), dtype=torch.float64))
    order = torch.randperm(8, generator=seeded(2))
    moved = {"numbers": x["numbers"][:, order], "positions": (x["positions"] @ turn + 3.0)[:, order]}
    torch.testing.assert_close(net(moved), net(x), rtol=1e-9, atol=1e-10)


def test_positions_have_gradients_where_atoms_are_padded_or_alone():
    net = LinearFilterSchNet(width=8).double()
    x = molecules()
    x["positions"].requires_grad_()
    net(x).sum().backward()
    gradient = x["positions"].grad
    assert gradient.isfinite().all()
    assert (gradient[1] == 0).all()  # one atom: nothing to move against
    assert (gradient[0, :5] != 0).any()
    assert (gradient[0, 5:] == 0).all()


def test_filtered_sums_have_the_derivatives_of_their_formula(monkeypatch):
    """First and second ones, a molecule or all at a time, whether positions have gradients or not."""
    drawn = [
        torch.randn(*shape, generator=seeded(i), dtype=torch.float64) for i, shape in enumerate([(2, 3, 6), (2, 3, 2)])
    ]
    radial, h, weight = *drawn, torch.randn(2, 2, generator=seeded(2), dtype=torch.float64, requires_grad=True)
    h.requires_grad_()
    expected = torch.einsum("rd,bijr,bjd->bid", weight, radial.view(2, 3, 3, 2), h)
    for piece in (1, 10**6):
        monkeypatch.setattr(message_passing, "PIECE", piece)
        for positions in (False, True):
            x = radial.clone().requires_grad_(positions)
            torch.testing.assert_close(message_passing._filtered_sums(x, h, weight), expected, rtol=1e-12, atol=1e-12)
            inputs = (x, h, weight)
            assert torch.autograd.gradcheck(message_passing._filtered_sums, inputs)
    assert torch.autograd.gradgradcheck(message_passing._filtered_sums, (radial, h, weight))
