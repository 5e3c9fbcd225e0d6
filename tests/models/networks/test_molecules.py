"""Trunks for molecules: rigid motions, permutations, padding, and molecules without neighbours."""

import numpy as np
import pytest
import torch

from bmtl.datasets.molecules import Atoms, Molecules, padded
from bmtl.inputs import take
from bmtl.models.networks.mlp import mlp_trunk
from bmtl.models.networks.molecules import nnconv_trunk, schnet_trunk

DESCRIBED = {"kind": "molecules", "elements": [1, 6, 7, 8, 9], "layout": "dense"}
SIZES = (7, 1, 12, 2)


def molecules(seed=0, dtype=torch.float64):
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), axis=-1).reshape(-1, 3)
    parts = [
        (random.choice(DESCRIBED["elements"], n), 1.1 * random.permutation(grid)[:n] + 0.2 * random.random((n, 3)))
        for n in SIZES
    ]
    return Molecules(*padded(parts)).tensors(np.arange(len(SIZES)), dtype)


@pytest.fixture(params=[schnet_trunk, nnconv_trunk])
def trunk(request):
    torch.manual_seed(0)
    made = request.param(DESCRIBED, widths=(16, 16))
    assert made.width == 16
    return made.double()


def test_rigid_motions_and_permutations_change_nothing(trunk):
    x = molecules()
    expected = trunk(x)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    torch.testing.assert_close(trunk(Atoms(x.numbers, x.positions @ turn + 5.0)), expected)
    order = torch.tensor([11, 3, 0, 7, 1, 10, 2, 9, 4, 8, 5, 6])  # of the longest molecule
    moved = Atoms(x.numbers.clone(), x.positions.clone())
    moved.numbers[2], moved.positions[2] = x.numbers[2, order], x.positions[2, order]
    torch.testing.assert_close(trunk(moved), expected)
    stretched = Atoms(x.numbers, 1.2 * x.positions)
    assert (trunk(stretched) - expected).abs().amax(1)[torch.tensor(SIZES) > 1].min() > 1e-4


def test_in_float32_they_change_little(trunk):
    x, network = molecules(dtype=torch.float32), trunk.float()
    turn = torch.linalg.qr(torch.randn(3, 3))[0]
    torch.testing.assert_close(network(Atoms(x.numbers, x.positions @ turn)), network(x), rtol=1e-5, atol=1e-5)


def test_a_molecule_is_the_same_alone_and_in_a_batch(trunk):
    x = molecules()
    garbage = torch.where((x.numbers > 0)[..., None], x.positions, torch.nan)  # never seen
    longer = Atoms(
        torch.nn.functional.pad(x.numbers, (0, 4)), torch.nn.functional.pad(garbage.nan_to_num(3.0), (0, 0, 0, 4))
    )
    together = trunk(x)
    torch.testing.assert_close(trunk(longer), together)
    for row in range(len(SIZES)):
        alone = take(x, torch.tensor([row]))  # a batch of one, of one atom for row 1
        torch.testing.assert_close(trunk(alone)[0], together[row])


def test_gradients_are_finite_where_an_atom_has_no_neighbour(trunk):
    x = molecules()
    for own in (
        x,
        take(x, torch.tensor([1])),
        Atoms(x.numbers, 100 * x.positions),
    ):  # far apart: no bond, beyond the cutoff
        trunk.zero_grad()
        trunk(own).square().sum().backward()
        grads = [p.grad for p in trunk.parameters() if p.grad is not None]
        assert all(grad.isfinite().all() for grad in grads)
        assert any(grad.any() for grad in grads)


def test_atoms_of_the_published_network_have_bonds_by_distance():
    torch.manual_seed(0)
    water = Molecules(np.array([[8, 1, 1]]), np.array([[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]]))
    found = nnconv_trunk(DESCRIBED, widths=(8,)).features(water.tensors(np.arange(1)))
    element, whole = found["nodes"][0].split([5, 3], dim=1)
    assert element.tolist() == [[0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert whole.tolist() == [[8, 2, 2], [1, 1, 0], [1, 1, 0]]  # atomic number, neighbours, hydrogens
    assert found["edges"][0, ..., 0].tolist() == [[0, 1, 1], [1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("make", [schnet_trunk, nnconv_trunk])
def test_other_inputs_and_widths_are_refused(make):
    for wrong in ({"kind": "table", "width": 3}, DESCRIBED | {"layout": "pyg"}):
        with pytest.raises(ValueError, match="takes molecules in dense batches"):
            make(wrong, widths=(8, 8))
    for widths in ((8, 16), (0,), ()):
        with pytest.raises(ValueError, match="has one width"):
            make(DESCRIBED, widths=widths)
    with pytest.raises(ValueError, match="takes tables"):
        mlp_trunk(DESCRIBED, widths=(8,), generator=torch.Generator())


def test_an_element_without_a_radius_is_named():
    with pytest.raises(ValueError, match=r"no covalent radius of the atomic numbers \[2\]"):
        nnconv_trunk(DESCRIBED | {"elements": [1, 2]}, widths=(8,))
