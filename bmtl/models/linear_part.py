"""A linear part of each target's prediction, fitted before training and then frozen: the network learns the rest."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bmtl.models.likelihoods import Likelihood
from bmtl.models.linear_fits import WIDEST, ridge
from bmtl.models.networks.tabular import features

_PULL = 5.0  # strength of the pull towards a share of 1, in validation rows


class LinearPart(nn.Module):
    """A linear function of the features that is added to the first outputs of each head.

    It is 0 until `fit`, and frozen: its coefficients are buffers, which are saved with the model. Those of logits of more
    than 256 features are parameters instead, which start at 0 and are trained with the network.

    What the network adds may be shrunk after training: ``share f + linear``, with a share of each target, see `shrink`.

    Attributes:
        shares: By target ``(K,)``; 1 until `shrink`.

    Args:
        columns: Number of features D.
        likelihoods: By target, what the output is for.
        clip: Bound of the features.
    """

    def __init__(self, columns: int, likelihoods: Mapping[str, Likelihood], clip: float) -> None:
        super().__init__()
        self.names, self.columns, self.clip = tuple(likelihoods), columns, clip
        for i, likelihood in enumerate(likelihoods.values()):  # buffers' names must not hold a dot, target names may
            weight = torch.zeros(likelihood.linear_outputs, columns + 1)
            if likelihood.outputs_are_logits and columns > WIDEST:
                self.register_parameter(f"weight_{i}", nn.Parameter(weight))
            else:
                self.register_buffer(f"weight_{i}", weight)
        self.shares = nn.Buffer(torch.ones(len(self.names)))

    def weight(self, target: str) -> Tensor:
        """Coefficients ``(outputs, D + 1)``, the intercept last; no row for a likelihood without a linear part."""
        found: Tensor = getattr(self, f"weight_{self.names.index(target)}")
        return found

    @torch.no_grad()
    def fit(self, x: Tensor, labels: Mapping[str, Tensor], likelihoods: Mapping[str, Likelihood]) -> None:
        """Fits each target's part to training rows, and the unit of its likelihood to what is left.

        Where every row has a label of one target only, as pupils have of their school, targets share a linear function, and
        each has one of its own of what that leaves.

        Args:
            x: Inputs ``(N, ...)`` as the model sees them.
            labels: Labels by target, as the model sees them.
            likelihoods: By target.
        """
        z = features(x, self.clip).double().cpu()
        gathered = {name: likelihood.gather(name, labels) for name, likelihood in likelihoods.items()}
        common = _common(z, gathered, list(likelihoods.values()))
        for name, likelihood in likelihoods.items():
            found = likelihood.start_linear(z, gathered[name], common)
            if found is not None:
                self.weight(name).copy_(found)

    def forward(self, target: str, x: Any, f: Any) -> Any:
        """A head's output ``(..., B, outputs)``, or its blocks, with the linear part of rows ``(B, ...)``."""
        weight = self.weight(target)
        if not len(weight):
            return f
        part = features(x, self.clip) @ weight[:, :-1].mT + weight[:, -1]
        share = self.shares[self.names.index(target)]
        if isinstance(f, tuple):  # blocks with weights of their own stay apart
            return (_added(f[0], part, share), *f[1:])
        return _added(f, part, share)

    def stacked(self, targets: Sequence[str], x: Any, f: Tensor) -> Tensor:
        """The same of K targets of one kind of likelihood, whose outputs are ``(..., K, B, outputs)``."""
        weight = torch.cat([self.weight(target) for target in targets])
        if not len(weight):
            return f
        part = features(x, self.clip) @ weight[:, :-1].mT + weight[:, -1]
        part = part.unflatten(-1, (len(targets), -1)).transpose(-2, -3)
        return _added(f, part, self.shares[[self.names.index(target) for target in targets], None, None])

    @torch.no_grad()
    def shrink(self, target: str, x: Tensor, f: Tensor, r: Tensor) -> None:
        """Sets a target's share to the one with the least squared error in rows that were not trained on.

        A penalty worth five rows pulls it towards 1, since few rows say little and a network is seldom worth nothing. At 0
        the prediction is the linear part's.

        Args:
            target: The target.
            x: Inputs of N rows.
            f: What the target's head and its linear part give together, with a share of 1, ``(N,)``.
            r: Labels on the scale of f ``(N,)``, NaN where missing.
        """
        i, seen = self.names.index(target), ~r.isnan()
        part = self(target, x, f.new_zeros(len(f), 1))[:, 0]
        network = (f - part)[seen].double()
        right = network @ (r - part)[seen].double()
        size = network @ network
        extra = _PULL * size / max(len(network), 1)
        if size > 0:
            self.shares[i] = ((right + extra) / (size + extra)).clamp(0.0, 1.0)


def _added(f: Tensor, part: Tensor, share: Tensor) -> Tensor:
    """``share f + part`` in the first outputs, and f in the rest."""
    count = part.shape[-1]
    if f.shape[-1] == count:
        return share * f + part
    return torch.cat([share * f[..., :count] + part, f[..., count:]], -1)


def _common(z: Tensor, labels: Mapping[str, Tensor], likelihoods: Sequence[Likelihood]) -> Tensor | None:
    """Coefficients ``(D + 1,)`` of one least-squares function of all targets, where no row has labels of two."""
    if len(labels) < 2 or not all(likelihood.least_squares for likelihood in likelihoods):
        return None
    together = torch.stack([y.double().cpu() for y in labels.values()], 1)
    seen = ~together.isnan()
    if int(seen.sum(1).max()) > 1 or int(seen.sum()) < 2:
        return None
    rows, targets = np.nonzero(seen.numpy())
    coefficients, _ = ridge(z.numpy()[rows], together.numpy()[rows, targets])
    return torch.as_tensor(coefficients)
