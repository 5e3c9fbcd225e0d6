"""Trunks for molecules, from a batch's atomic numbers ``(B, A)`` and positions ``(B, A, 3)`` in Angstrom."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bmtl.models.networks.message_passing import LinearFilterSchNet, NNConvNet, edges_of

# Cordero et al. (2008), "Covalent radii revisited", in Angstrom; by atomic number.
_RADII = {1: 0.31, 5: 0.84, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57, 14: 1.11, 15: 1.07, 16: 1.05, 17: 1.02}
BOND = 1.3
"""Atoms nearer than this times the sum of their covalent radii are bonded."""


def schnet_trunk(
    inputs: Mapping[str, Any],
    *,
    widths: Sequence[int],
    generator: torch.Generator | None = None,
    radial: int = 20,
    cutoff: float = 6.0,
) -> LinearFilterSchNet:
    """The trunk "schnet": `LinearFilterSchNet`, with an interaction for each of `widths`, which are equal.

    Args:
        inputs: Description of molecules.
        widths: Width of each interaction.
        generator: Not used: initial weights are torch's, by the global generator, which comparisons seed.
        radial: Number of radial functions.
        cutoff: In Angstrom.

    Raises:
        ValueError: If the inputs are not dense molecules, or widths differ.
    """
    elements = _elements("schnet", inputs)
    width = _one_width("schnet", widths)
    return LinearFilterSchNet(elements=max(elements) + 1, width=width, radial=radial, cutoff=cutoff, rounds=len(widths))


def nnconv_trunk(
    inputs: Mapping[str, Any], *, widths: Sequence[int], generator: torch.Generator | None = None, hidden: int = 128
) -> "MoleculeNNConv":
    """The trunk "nnconv": the published network for QM9, `NNConvNet`, with a round for each of `widths`, which are equal.

    Args:
        inputs: Description of molecules.
        widths: Width of each round; published are three of 64.
        generator: Not used; see `schnet_trunk`.
        hidden: Width of the edge network.

    Raises:
        ValueError: If the inputs are not dense molecules, or widths differ.
    """
    elements = _elements("nnconv", inputs)
    return MoleculeNNConv(elements, width=_one_width("nnconv", widths), hidden=hidden, rounds=len(widths))


class MoleculeNNConv(nn.Module):
    """`NNConvNet` on features of atoms and of pairs that follow from positions.

    Published features are of the molecules' SMILES, which need rdkit: element, atomic number, aromatic, hybridisation and
    number of hydrogens of atoms; kind of bond and distance of pairs. Here an atom has its element, atomic number, numbers of
    neighbours and of hydrogens bonded to it; a pair whether it is bonded, by distance and covalent radii, and its distance.

    Args:
        elements: Atomic numbers that there are.
        width: Of nodes and of the representation.
        hidden: Of the edge network.
        rounds: Of message passing.

    Attributes:
        width: Width of the representation.

    Raises:
        ValueError: If an element has no covalent radius here.
    """

    def __init__(self, elements: Sequence[int], *, width: int = 64, hidden: int = 128, rounds: int = 3) -> None:
        super().__init__()
        lacking = [number for number in elements if number not in _RADII]
        if lacking:
            raise ValueError(
                f"The trunk 'nnconv' knows no covalent radius of the atomic numbers {lacking}. Use 'schnet'."
            )
        radii = torch.zeros(max(elements) + 1)
        for number in elements:
            radii[number] = _RADII[number]
        self.radii = nn.Buffer(radii)
        self.elements = nn.Buffer(torch.tensor(elements))
        self.network = NNConvNet(len(elements) + 3, 2, width=width, hidden=hidden, rounds=rounds)
        self.width = width

    def features(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``nodes (B, A, F)``, ``edges (B, A, A, 2)`` and ``mask (B, A)`` of molecules."""
        numbers, positions = x["numbers"].long(), x["positions"]
        mask = numbers > 0
        there = edges_of(mask)
        squared = (positions[:, :, None] - positions[:, None]).square().sum(-1)
        distance = torch.where(there, squared, 1.0).sqrt()
        radii = self.radii[numbers].to(positions)
        bonded = there & (distance < BOND * (radii[:, :, None] + radii[:, None]))
        hydrogens = (bonded & (numbers == 1)[:, None]).sum(-1)
        element = numbers[..., None] == self.elements
        whole = torch.stack([numbers, bonded.sum(-1), hydrogens], dim=-1)
        nodes = torch.cat([element.to(positions), whole.to(positions)], dim=-1)
        return {"nodes": nodes, "edges": torch.stack([bonded.to(positions), distance], dim=-1), "mask": mask}

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """The representation ``(B, width)``.

        Args:
            x: ``numbers (B, A)`` (atomic numbers, 0 for padding) and ``positions (B, A, 3)`` in Angstrom.
        """
        found: Tensor = self.network(self.features(x))
        return found


def _elements(trunk: str, inputs: Mapping[str, Any]) -> list[int]:
    if "elements" not in inputs or inputs.get("layout", "dense") != "dense":
        raise ValueError(f"The trunk {trunk!r} takes molecules in dense batches, and these inputs are {dict(inputs)}.")
    return [int(number) for number in inputs["elements"]]


def _one_width(trunk: str, widths: Sequence[int]) -> int:
    if len(set(widths)) != 1 or widths[0] < 1:
        raise ValueError(
            f"The trunk {trunk!r} has one width, once for each round, such as 64,64,64; widths={tuple(widths)} was given."
        )
    return int(widths[0])
