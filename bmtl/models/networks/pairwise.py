"""Trunks of pairs: an encoder for each side, and layers on both encodings. Encoders are interchangeable.

An encoder is a module with an int attribute ``width`` that maps a table of M entities to ``(M, width)``. Which rows of a
batch have which entity it need not know: `Pairwise` has each distinct entity encoded once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.inputs import Entities
from bmtl.models.networks.layers import linear
from bmtl.models.networks.mlp import mlp


class Pairwise(nn.Module):
    """``layers([drug, protein])``, or with the product of the two encodings ``layers([drug, protein, drug * protein])``.

    Args:
        drug: Encoder of drugs.
        protein: Encoder of proteins.
        layers: On the joined encodings, with an int attribute ``width``.
        product: Whether the product is joined too; the encodings are equally wide then.
        distinct: Encode each entity of a batch once; False encodes one for every row, which gives the same and is slower.

    Attributes:
        width: Width of the representation.
    """

    def __init__(
        self, drug: nn.Module, protein: nn.Module, layers: nn.Module, *, product: bool = False, distinct: bool = True
    ) -> None:
        super().__init__()
        self.drug, self.protein, self.layers = drug, protein, layers
        self.product, self.distinct = product, distinct
        self.width: int = layers.width  # type: ignore[assignment]

    def forward(self, x: Mapping[str, Entities]) -> Tensor:
        """The representation ``(B, width)`` of B pairs."""
        drug, protein = self._encoded(self.drug, x["drug"]), self._encoded(self.protein, x["protein"])
        return self.layers(torch.cat([protein, drug, *([protein * drug] if self.product else [])], dim=-1))

    def _encoded(self, encoder: nn.Module, entities: Entities) -> Tensor:
        if self.distinct:
            table, place = entities.distinct()
        else:
            table, place = entities.rows(), torch.arange(len(entities.index), device=entities.index.device)
        encoded: Tensor = encoder(table)
        return encoded.index_select(0, place)


class VectorEncoder(nn.Module):
    """A layer on a vector of features and, where it is requested, a vector of the entity's own: ``(M, width)``.

    The entity's own vector, the product of a one-hot number with a matrix, lets the network remember each drug or protein
    by itself. It helps where test pairs have known ones, and does not apply to new ones, whose vector is 0.

    Args:
        field: Of the table: "fingerprint" or "composition".
        features: Its width.
        width: Of the encoding.
        ids: Number of entities that have a vector of their own, 0 for none.
        generator: Draws the initial weights.
    """

    def __init__(
        self, field: str, features: int, width: int, *, ids: int = 0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.field, self.width = field, width
        self.features = linear(features, width, generator)
        self.own = nn.Embedding(ids + 1, width, padding_idx=ids) if ids else None
        if self.own is not None:
            nn.init.normal_(self.own.weight, std=width**-0.5, generator=generator)
            with torch.no_grad():
                self.own.weight[ids] = 0.0

    def forward(self, table: Mapping[str, Tensor]) -> Tensor:
        """Encodings ``(M, width)``."""
        h = self.features(table[self.field])
        if self.own is not None:
            numbers = table["id"]
            h = h + self.own(torch.where(numbers < 0, len(self.own.weight) - 1, numbers))
        return F.relu(h)


def fingerprints_trunk(
    inputs: Mapping[str, Any],
    *,
    widths: Sequence[int],
    generator: torch.Generator,
    ids: bool = False,
    **options: Any,
) -> Pairwise:
    """Pairs by the drug's fingerprint and the protein's composition: the cheap trunk.

    Args:
        inputs: The description of drug-target pairs.
        widths: The first is that of both encodings, which are joined with their product; the others are of layers on top,
            one at least.
        generator: Draws the initial weights.
        ids: Add a vector of each training drug's and protein's own, see `VectorEncoder`.
        **options: Of `mlp`.

    Raises:
        ValueError: If the inputs are no such pairs, or there is one width only.
    """
    sides = described(inputs, "fingerprints")
    if len(widths) < 2:
        raise ValueError(
            f"The trunk 'fingerprints' takes two widths or more, of the encodings and of the layers on them; got {widths}."
        )
    drug, protein = (
        VectorEncoder(field, int(side["features"]), widths[0], ids=int(side["ids"]) if ids else 0, generator=generator)
        for field, side in zip(("fingerprint", "composition"), sides, strict=True)
    )
    return Pairwise(drug, protein, mlp(3 * widths[0], widths[1:], generator=generator, **options), product=True)


def fingerprints_ids_trunk(
    inputs: Mapping[str, Any], *, widths: Sequence[int], generator: torch.Generator, **options: Any
) -> Pairwise:
    """As "fingerprints", and each training drug and protein has its own vector: a baseline for known ones only."""
    return fingerprints_trunk(inputs, widths=widths, generator=generator, ids=True, **options)


def described(inputs: Mapping[str, Any], trunk: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What the description of pairs says of drugs and of proteins.

    Raises:
        ValueError: If the inputs are no pairs.
    """
    if "drug" not in inputs or "protein" not in inputs:
        raise ValueError(f"The trunk {trunk!r} takes pairs of a drug and a protein; these inputs are {dict(inputs)}.")
    return inputs["drug"], inputs["protein"]
