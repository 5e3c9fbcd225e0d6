"""Trunks of drug-target pairs: short cuts that change nothing, and encoders in each other's places."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from bmtl import inputs
from bmtl.datasets.drug_target import DrugTargetPairs
from bmtl.experiments import registry
from bmtl.models.networks.deep_dta import SequenceEncoder, deep_dta_trunk
from bmtl.models.networks.dropout import dropout_layers
from bmtl.models.networks.mlp import mlp
from bmtl.models.networks.pairwise import Pairwise, VectorEncoder, fingerprints_trunk

PLAIN = {"distinct": False, "buckets": 1, "folded": False}
TRUNKS = ("fingerprints", "fingerprints-ids", "deep-dta", "deep-dta-half", "graph-dta", "graph-composition")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs():
    """7 drugs and 9 proteins, from far shorter than the limit to longer."""
    rng = np.random.default_rng(0)
    drugs = {
        f"d{i}": text for i, text in enumerate(("O", "CCO", "c1ccccc1", "[Na+].[Cl-]", "CC(C)(C)C", "C" * 22, "C" * 40))
    }
    proteins = {
        f"p{n}": "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWYX"), n)) for n in (1, 7, 30, 31, 55, 70, 99, 100, 140)
    }
    drug, protein = np.divmod(np.arange(63), 9)
    return DrugTargetPairs.fit(drugs, proteins, drug, protein, np.arange(54), limits=(24, 100))


PAIRS = pairs()
ROWS = np.random.default_rng(1).permutation(63)[:40]


def made(name, **options):
    if "graph" in name:
        pytest.importorskip("torch_geometric")
    return registry.trunk(name).value(PAIRS.describe(), widths=(16, 12), generator=seeded(), **options)


def learnt(network, dtype=torch.float32):
    """Values and gradients of a batch."""
    network = network.to(dtype)
    values = network(PAIRS.tensors(ROWS, dtype))
    values.square().mean().backward()
    return values.detach(), [parameter.grad for parameter in network.parameters()]


VARIANTS = [{"buckets": 1, "folded": False}, {"folded": False}, {"folded": False, "buckets": 8, "distinct": False}]


@pytest.mark.parametrize("variant", VARIANTS)
def test_distinct_entities_and_buckets_are_exact(variant):
    """Bit for bit in float32; gradients are sums in another order."""
    values, gradients = learnt(made("deep-dta", dropout=0.0, **variant))
    plain, plain_gradients = learnt(made("deep-dta", dropout=0.0, **PLAIN))
    assert torch.equal(values, plain)
    assert plain.std() > 0.01
    for one, other in zip(gradients, plain_gradients, strict=True):
        assert (one - other).norm() <= 5e-5 * other.norm()


def test_the_folded_convolution_is_the_same():
    values, gradients = learnt(made("deep-dta", dropout=0.0))
    plain, plain_gradients = learnt(made("deep-dta", dropout=0.0, **PLAIN))
    assert (values - plain).abs().max() <= 1e-6 * plain.abs().max()
    for one, other in zip(gradients, plain_gradients, strict=True):
        assert (one - other).norm() <= 5e-5 * other.norm()
    values, gradients = learnt(made("deep-dta", dropout=0.0), torch.float64)
    plain, plain_gradients = learnt(made("deep-dta", dropout=0.0, **PLAIN), torch.float64)
    assert_close(values, plain, rtol=1e-12, atol=1e-12)
    for one, other in zip(gradients, plain_gradients, strict=True):
        assert (one - other).norm() <= 1e-12 * other.norm()


def test_half_precision_is_near_and_gives_the_parameters_precision():
    values, gradients = learnt(made("deep-dta-half", dropout=0.0))
    plain, _ = learnt(made("deep-dta", dropout=0.0, **PLAIN))
    assert values.dtype == torch.float32
    assert 0 < (values - plain).abs().max() < 0.03 * plain.abs().max()
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


def test_an_encoder_by_hand():
    """The convolutions over the whole padded text, as a loop over windows."""
    encoder = SequenceEncoder(22, (3, 2, 2), channels=(4, 5, 3), embedding=6, buckets=2, generator=seeded()).double()
    tokens = torch.zeros(3, 12, dtype=torch.uint8)
    length = torch.tensor([2, 12, 5])
    for row, n in enumerate(length.tolist()):
        tokens[row, :n] = torch.arange(1, n + 1)
    found = encoder({"tokens": tokens, "length": length})
    for row in range(3):
        h = encoder.embedding.weight[tokens[row].long()]  # (L, E)
        for convolution in encoder.convolutions:
            size = convolution.kernel_size[0]
            windows = [
                torch.einsum("ke,oek->o", h[i : i + size], convolution.weight) + convolution.bias
                for i in range(len(h) - size + 1)
            ]
            h = torch.stack(windows).relu()
        assert_close(found[row], h.amax(0))
    assert len(encoder({"tokens": tokens[:1], "length": length[:1]})) == 1
    with pytest.raises(ValueError, match="buckets is a number of parts, from 1, and 0 was given"):
        SequenceEncoder(22, (3, 2, 2), buckets=0)


def test_the_published_size():
    """1.97 million parameters with an evidential head, here without it: counted by hand."""
    sizes = {"drug": {"vocabulary": 65}, "protein": {"vocabulary": 26}}
    network = deep_dta_trunk(sizes, widths=(1024, 1024, 512), generator=seeded())
    windows = sum(128 * 32 * a + 32 * 64 * b + 64 * 96 * c + 192 for a, b, c in ((4, 6, 8), (4, 8, 12)))
    layers = 193 * 1024 + 1025 * 1024 + 1025 * 512
    assert sum(parameter.numel() for parameter in network.parameters()) == 91 * 128 + windows + layers == 1_968_384
    rates = [part.p for part in network.modules() if isinstance(part, torch.nn.Dropout)]
    assert rates == [0.1, 0.1]


@pytest.mark.parametrize("name", TRUNKS)
def test_a_pair_does_not_depend_on_the_others_nor_on_their_order(name):
    network = made(name).eval()
    x = PAIRS.tensors(ROWS)
    whole = network(x)
    assert whole.shape == (40, network.width) == (40, 12)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if name != "deep-dta-half" else {"rtol": 0.03, "atol": 0.03}
    assert_close(network(inputs.take(x, torch.arange(39, -1, -1))).flip(0), whole, **tolerance)
    for row in (0, 17):
        assert_close(network(inputs.take(x, slice(row, row + 1)))[0], whole[row], **tolerance)
    texts = [(PAIRS.drugs.texts[PAIRS.drug[i]], PAIRS.proteins.texts[PAIRS.protein[i]]) for i in ROWS[:5]]
    assert_close(network(PAIRS.prepare(texts)), whole[:5], **tolerance)


@pytest.mark.parametrize("name", TRUNKS)
def test_initial_weights_are_the_generators(name):
    torch.manual_seed(1)
    one = made(name).state_dict()
    torch.manual_seed(2)
    assert all(torch.equal(value, one[key]) for key, value in made(name).state_dict().items())


def test_encoders_take_each_others_places():
    """A fingerprint beside a sequence, with their product: what the layers see of each row by itself."""
    info = PAIRS.describe()
    vector = VectorEncoder("fingerprint", info["drug"]["features"], 96, generator=seeded())
    sequence = SequenceEncoder(26, (4, 8, 12), generator=seeded())
    network = Pairwise(vector, sequence, mlp(3 * 96, (12,)), product=True)
    x = PAIRS.tensors(ROWS)
    found, alone = network(x), (vector(x["drug"].rows()), sequence(x["protein"].rows()))
    assert_close(found, network.layers(torch.cat([alone[1], alone[0], alone[0] * alone[1]], -1)))


def test_an_unknown_entity_has_no_vector_of_its_own():
    network = made("fingerprints-ids")
    known = VectorEncoder("composition", 420, 8, ids=5, generator=seeded())
    plain = torch.relu(known.features(torch.ones(3, 420)))
    found = known({"composition": torch.ones(3, 420), "id": torch.tensor([-1, 0, 4])})
    assert_close(found[0], plain[0])
    assert not torch.equal(found[1], plain[1])
    optimizer = torch.optim.SGD(known.parameters(), 0.1)
    known({"composition": torch.ones(1, 420), "id": torch.tensor([-1])}).sum().backward()
    optimizer.step()
    assert (known.own.weight[-1] == 0).all()
    assert sum(p.numel() for p in network.parameters()) > sum(p.numel() for p in made("fingerprints").parameters())


def test_graphs_do_not_depend_on_the_order_of_atoms_nor_on_padding():
    pytest.importorskip("torch_geometric")
    network = made("graph-dta").eval().double()
    table = inputs.to(PAIRS.tensors(ROWS)["drug"].table, dtype=torch.float64)
    whole = network.drug(table)
    atoms, edges = table["atoms"].clone(), table["edges"].clone()
    order = torch.randperm(6, generator=seeded())  # of benzene
    atoms[2, :6] = atoms[2, :6][order]
    edges[2, :12] = torch.argsort(order)[edges[2, :12].long()].to(edges.dtype)
    wider = torch.cat([atoms, torch.zeros_like(atoms)], dim=1)
    longer = torch.cat([edges, torch.full_like(edges, -1)], dim=1)
    assert_close(network.drug({"atoms": wider, "edges": longer}), whole)
    assert not torch.allclose(whole[2], whole[1])
    assert network.drug({"atoms": atoms[:1], "edges": edges[:1]}).isfinite().all()  # water: an atom without bonds


def test_mc_dropout_has_a_site_for_each_layer():
    for name, count in (("deep-dta", 1), ("fingerprints", 2)):
        layers = dropout_layers(made(name, mc_dropout=0.2))
        assert [layer.rate for layer in layers] == [0.2] * count


def test_a_trunk_that_does_not_fit_says_so():
    table = {"kind": "table", "width": 3}
    for name in ("fingerprints", "deep-dta", "graph-dta", "graph-composition"):
        with pytest.raises(ValueError, match=f"The trunk '{name}' takes pairs of a drug and a protein"):
            registry.trunk(name).value(table, widths=(4, 4), generator=seeded())
    with pytest.raises(ValueError, match="takes two widths or more"):
        fingerprints_trunk(PAIRS.describe(), widths=(4,), generator=seeded())
    with pytest.raises(ValueError, match=r"one or more layers of width 1 or more; widths=\(\)"):
        deep_dta_trunk(PAIRS.describe(), widths=(), generator=seeded())


def test_the_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_geometric.nn", None)
    with pytest.raises(ImportError, match=r"pip install 'bmtl\[graph\]'"):
        registry.trunk("graph-dta").value(PAIRS.describe(), widths=(4, 4), generator=seeded())
