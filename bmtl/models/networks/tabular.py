"""The default trunk of tables: two small networks next to each other, one of which sees each feature piece by piece."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bmtl.models.networks.mlp import mlp

CLIP = 5.0
"""Bound of standardised features: a column that hardly varies may standardise to large numbers on a few rows."""


class PiecewiseLinear(nn.Module):
    """Features ``(..., D)`` as how far each has come through each of its bins: ``clip((x - low) / (high - low), 0, 1)``.

    Args:
        edges: Edges of the bins of each feature, increasing; a feature without any is left out.

    Attributes:
        width: Number of bins of all features.

    Source:
        Gorishniy, Rubachev & Babenko (2022), "On Embeddings for Numerical Features in Tabular Deep Learning", section 3.1;
        there the outer bins have no outer bound.
    """

    def __init__(self, edges: Sequence[Sequence[float]]) -> None:
        super().__init__()
        bins = [(i, *pair) for i, own in enumerate(edges) for pair in itertools.pairwise(own)]
        wide = torch.tensor([(low, high) for _, low, high in bins], dtype=torch.float64).reshape(-1, 2)
        self.column = nn.Buffer(torch.tensor([i for i, *_ in bins], dtype=torch.long))
        self.low = nn.Buffer(wide[:, 0].to(torch.get_default_dtype()))
        self.inverse = nn.Buffer((1 / (wide[:, 1] - wide[:, 0])).to(torch.get_default_dtype()))
        self.width = len(bins)

    def forward(self, x: Tensor) -> Tensor:
        return ((x[..., self.column] - self.low) * self.inverse).clamp(0.0, 1.0)


class Tabular(nn.Module):
    """``h = [relu network of (bins, z), silu network of z]`` of standardised features z, clipped at 5.

    The two make different errors: steps and kinks are easy for the first, smooth functions for the second. So that their
    errors stay different, each may be trained on rows of its own (`apart`). Recipes add a linear part to each target
    (`bmtl.models.linear_part`).

    Args:
        columns: Number of features D.
        widths: Widths of the layers of each of the two networks.
        bins: Edges of the bins of each feature; None where features are not standardised, and then not clipped either.
        activation: Of both networks, instead of their own.
        generator: Draws the initial weights; None uses torch's global generator.
        **options: Of `mlp`, for both.

    Attributes:
        width: Width of h.
        linear_part: Whether recipes are to add a linear part.
        clip: Bound of the features, infinite where they are not standardised.

    Raises:
        ValueError: As `mlp`.
    """

    linear_part = True

    def __init__(
        self,
        columns: int,
        widths: Sequence[int],
        *,
        bins: Sequence[Sequence[float]] | None = None,
        activation: type[nn.Module] | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.clip = float("inf") if bins is None else CLIP
        self.encoding = PiecewiseLinear(bins or [])
        self.by_bins = mlp(
            self.encoding.width + columns,
            widths,
            activation=activation or nn.ReLU,
            site="dropout_bins",
            generator=generator,
            **options,
        )
        self.smooth = mlp(
            columns, widths, activation=activation or nn.SiLU, site="dropout_smooth", generator=generator, **options
        )
        self.width = 2 * widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """The representation ``(B, width)`` of ``x`` ``(B, D)`` or ``(B, ...)`` with D numbers a row."""
        z = features(x, self.clip)
        return torch.cat([self.by_bins(torch.cat([self.encoding(z), z], -1)), self.smooth(z)], -1)

    def apart(self, x: Tensor, mark: Callable[[Tensor], Tensor] = lambda h: h) -> Tensor:
        """The same where rows take turns: twice the first network and 0 in one row, 0 and twice the second in the next.

        Under linear heads the prediction of `forward` is the mean of what the two networks predict alone. A batch of
        shuffled rows then trains each network, with its half of a head, on its own predictions: on average the loss is the
        mean of the two networks' losses, and not the loss of their mean, in which one learns what the other leaves.
        A single row is seen by both.

        Args:
            x: As for `forward`.
            mark: Marks what the networks give as the shared representation, `bmtl.shared`. Its zeros are no part of it: a
                task's gradient there reaches no parameter, and would count in comparisons of tasks' gradients.
        """
        if len(x) < 2:
            return mark(self(x))
        z = features(x, self.clip)
        first, second = z[::2], z[1::2]
        by_bins = mark(2 * self.by_bins(torch.cat([self.encoding(first), first], -1)))
        one = nn.functional.pad(by_bins, (0, self.width // 2))
        other = nn.functional.pad(mark(2 * self.smooth(second)), (self.width // 2, 0))
        h = z.new_empty(len(z), self.width)
        h[::2], h[1::2] = one, other
        return h


def features(x: Tensor, clip: float) -> Tensor:
    """Rows as clipped features ``(B, D)``."""
    flat = x.flatten(1) if x.dim() > 2 else x
    return flat if clip == float("inf") else flat.clamp(-clip, clip)


def tabular_trunk(
    inputs: Mapping[str, Any], *, widths: Sequence[int], generator: torch.Generator, **options: Any
) -> Tabular:
    """The trunk "tabular" of comparisons, the default for tables: `Tabular`.

    Args:
        inputs: The table's description, of which ``"width"`` is its number of columns and ``"bins"`` their bins.
        widths: As for `Tabular`.
        generator: As for `Tabular`.
        **options: Of `Tabular`.

    Raises:
        ValueError: If the inputs are not a table; as `Tabular`.
    """
    if "width" not in inputs:
        raise ValueError(f"The trunk 'tabular' takes tables, and these inputs are {dict(inputs)}.")
    return Tabular(int(inputs["width"]), widths, bins=inputs.get("bins"), generator=generator, **options)
