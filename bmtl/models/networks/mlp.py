"""Multi-layer perceptron."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bmtl.models.networks.dropout import Dropout
from bmtl.models.networks.layers import linear


class MLP(nn.Sequential):
    """Linear layers, each followed by an activation and, where requested, dropout. See `mlp`.

    Attributes:
        width: Width of the last layer.
    """

    def __init__(self, layers: Sequence[nn.Module], width: int) -> None:
        super().__init__(*layers)
        self.width = width


def mlp(
    inputs: int,
    widths: Sequence[int],
    *,
    activation: type[nn.Module] = nn.ReLU,
    dropout: float = 0.0,
    mc_dropout: float = 0.0,
    input_dropout: float | None = None,
    site: str = "dropout",
    generator: torch.Generator | None = None,
) -> MLP:
    """A trunk of linear layers, each followed by an activation (and dropout).

    Args:
        inputs: Number of features.
        widths: Width of each layer; the last is the width of the representation, and of the trunk (``trunk.width``).
        activation: Class of the activation.
        dropout: Probability of dropping a unit in training, 0 for none.
        mc_dropout: That of dropping a unit in predictions too, see `Dropout`; before every layer, the first and a head on
            top included.
        input_dropout: That of dropping a feature, of the same sort; `mc_dropout` by default, and 0 without it.
        site: What the sites of `mc_dropout` are called, with a number each.
        generator: Draws the initial weights, by PyTorch's own rule for linear layers (uniform within ``1/sqrt(inputs)``
            of the layer); None uses torch's global generator.

    Raises:
        ValueError: If there is no layer, a width is below 1, a rate is not in [0, 1), or both sorts are requested.
    """
    if not widths or min(*widths, inputs) < 1:
        raise ValueError(f"A trunk has one or more layers of width 1 or more; inputs={inputs}, widths={tuple(widths)}.")
    if dropout and mc_dropout:
        raise ValueError(
            f"A trunk has dropout or mc_dropout; dropout={dropout} and mc_dropout={mc_dropout} were given."
        )
    first = mc_dropout if input_dropout is None else input_dropout
    layers: list[nn.Module] = []
    if first:
        layers.append(nn.Dropout(first) if dropout else Dropout(inputs, first, f"{site}_0"))
    for i, (wide, narrow) in enumerate(zip((inputs, *widths), widths, strict=False)):
        layers += [linear(wide, narrow, generator), activation()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        elif mc_dropout:
            layers.append(Dropout(narrow, mc_dropout, f"{site}_{i + 1}"))
    return MLP(layers, widths[-1])


def mlp_trunk(inputs: Mapping[str, Any], *, widths: Sequence[int], generator: torch.Generator, **options: Any) -> MLP:
    """The trunk "mlp" of comparisons: `mlp` on a table.

    Args:
        inputs: The table's description, of which ``"width"`` is its number of columns.
        widths: As for `mlp`.
        generator: As for `mlp`.
        **options: Of `mlp`.

    Raises:
        ValueError: If the inputs are not a table; as `mlp`.
    """
    if "width" not in inputs:
        raise ValueError(f"The trunk 'mlp' takes tables, and these inputs are {dict(inputs)}.")
    return mlp(int(inputs["width"]), widths, generator=generator, **options)
