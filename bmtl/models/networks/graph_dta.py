"""Drugs as graphs of atoms: a graph isomorphism network, for trunks of pairs. Needs PyTorch Geometric, extra ``graph``."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.networks.deep_dta import KERNELS, SequenceEncoder, joined_layers
from bmtl.models.networks.layers import kaiming, linear
from bmtl.models.networks.mlp import mlp
from bmtl.models.networks.pairwise import Pairwise, VectorEncoder, described


class GraphEncoder(nn.Module):
    """Graph isomorphism layers, each with batch norm, the sum over atoms, and a linear layer: ``(M, width)``.

    Args:
        features: Number of an atom's features.
        width: Of the encoding.
        hidden: Of the layers.
        layers: Number of them.
        generator: Draws the initial weights.

    Raises:
        ImportError: Without PyTorch Geometric.

    Source:
        Xu et al. (2019), "How Powerful are Graph Neural Networks?"; sizes of Nguyen et al. (2021), "GraphDTA", whose atoms
        have other features, and whose protein branch is not this: it convolves over the embedding's axis.
    """

    def __init__(
        self,
        features: int,
        width: int = 128,
        *,
        hidden: int = 32,
        layers: int = 5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        try:
            from torch_geometric.nn import GINConv, global_add_pool
        except ImportError as error:
            raise ImportError(
                "Drugs as graphs need PyTorch Geometric, which is the extra graph: pip install 'bmtl[graph]'."
            ) from error
        self.width, self._pool = width, global_add_pool
        self.convolutions = nn.ModuleList(
            GINConv(nn.Sequential(linear(wide, hidden, generator), nn.ReLU(), linear(hidden, hidden, generator)))
            for wide in (features, *[hidden] * (layers - 1))
        )
        kaiming(self.convolutions, generator)  # a GINConv draws its layers' weights again
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(layers))
        self.out = linear(hidden, width, generator)

    def forward(self, table: Mapping[str, Tensor]) -> Tensor:
        """Encodings of molecules with ``atoms (M, A, F)`` and ``edges (M, E, 2)``, both ways, -1 where there is none.

        An atom has exactly one element, so that a row of zeros is none.
        """
        atoms, edges = table["atoms"], table["edges"].long()
        there = atoms.bool().any(-1)  # (M, A)
        place = torch.cumsum(there.flatten(), 0).view_as(there) - 1  # of each atom among all
        molecule = torch.arange(len(atoms), device=atoms.device)
        of_edge = (edges >= 0).all(-1)
        owner = molecule[:, None].expand_as(of_edge)[of_edge]
        ends = place[owner[:, None], edges[of_edge]].T  # (2, edges)
        h = atoms[there].to(self.out.weight.dtype)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = norm(F.relu(convolution(h, ends)))
        pooled = self._pool(h, molecule[:, None].expand_as(there)[there], size=len(atoms))
        return F.relu(self.out(pooled))


def graph_dta_trunk(
    inputs: Mapping[str, Any],
    *,
    widths: Sequence[int],
    generator: torch.Generator,
    half: bool = False,
    dropout: float = 0.1,
    mc_dropout: float = 0.0,
) -> Pairwise:
    """Drugs as graphs, proteins as in "deep-dta". Needs PyTorch Geometric.

    Args:
        inputs: The description of drug-target pairs.
        widths: Of the layers on the joined encodings (224 wide).
        generator: Draws the initial weights.
        half: Convolutions over sequences in bfloat16.
        dropout: After every layer but the last.
        mc_dropout: As for `bmtl.models.networks.deep_dta.deep_dta_trunk`.

    Raises:
        ImportError: Without PyTorch Geometric.
        ValueError: If the inputs are no such pairs, or an option is out of range.
    """
    drug, protein = described(inputs, "graph-dta")
    encoders = (
        GraphEncoder(int(drug["atom_features"]), generator=generator),
        SequenceEncoder(int(protein["vocabulary"]), KERNELS["protein"], half=half, generator=generator),
    )
    wide = sum(encoder.width for encoder in encoders)
    return Pairwise(*encoders, joined_layers(wide, widths, dropout, mc_dropout, generator))


def graph_composition_trunk(
    inputs: Mapping[str, Any], *, widths: Sequence[int], generator: torch.Generator, **options: Any
) -> Pairwise:
    """Drugs as graphs, proteins by their composition: the cheap trunk with graphs. Needs PyTorch Geometric.

    Args:
        inputs: The description of drug-target pairs.
        widths: The first is that of both encodings; the others are of layers on top, one at least.
        generator: Draws the initial weights.
        **options: Of `bmtl.models.networks.mlp`.

    Raises:
        ImportError: Without PyTorch Geometric.
        ValueError: If the inputs are no such pairs, or there is one width only.
    """
    drug, protein = described(inputs, "graph-composition")
    if len(widths) < 2:
        raise ValueError(f"The trunk 'graph-composition' takes two widths or more; got {tuple(widths)}.")
    encoders = (
        GraphEncoder(int(drug["atom_features"]), widths[0], generator=generator),
        VectorEncoder("composition", int(protein["features"]), widths[0], generator=generator),
    )
    return Pairwise(*encoders, mlp(3 * widths[0], widths[1:], generator=generator, **options), product=True)
