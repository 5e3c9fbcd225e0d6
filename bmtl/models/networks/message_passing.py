"""Graph networks on dense padded batches of molecules: every pair of atoms is an edge, and padding leaves every sum.

A batch is B molecules of at most A atoms: node features ``(B, A, F)``, edge features or distances ``(B, A, A, ...)``, and a
mask ``(B, A)`` that is true where there is an atom. Results of a molecule do not depend on the padding, nor on the others.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def edges_of(mask: Tensor) -> Tensor:
    """Which ordered pairs of atoms are edges ``(B, A, A)`` bool: both atoms are there, and they are not the same one."""
    size = mask.shape[-1]
    return mask[..., :, None] & mask[..., None, :] & ~torch.eye(size, dtype=torch.bool, device=mask.device)


PIECE = 200_000
"""Numbers of an intermediate tensor that a processor's cache holds: larger ones take twice the time."""


def in_cache(x: Tensor, numbers: int) -> int:
    """How many molecules to do at a time, so that intermediate tensors stay in a processor's cache; all on other devices.

    Args:
        x: ``(B, ...)``, on the device.
        numbers: Of the intermediate tensor, for each molecule.
    """
    return max(1, PIECE // max(1, numbers) if x.device.type == "cpu" else len(x))


class FactorisedNNConv(nn.Module):
    """Edge-conditioned convolution with mean aggregation and a root weight, without a weight matrix for each edge.

    ``x_i' = R x_i + b + mean_j x_j W(e_ij)``, with ``W(e) = reshape(V relu(U e + u) + v)``. W is linear in the H hidden
    numbers, so each node is transformed by the H + 1 matrices once, and messages are one batched product a molecule: the
    tensor of E x C x D weights is never made.

    Args:
        inputs: C.
        outputs: D.
        edge_features: Size of e.
        hidden: H.

    Source:
        Gilmer et al. (2017), "Neural Message Passing for Quantum Chemistry"; equal in values and gradients to PyTorch
        Geometric's ``NNConv(C, D, Sequential(Linear, ReLU, Linear), aggr="mean")`` on complete graphs, whose parameters
        have the same names and shapes.
    """

    def __init__(self, inputs: int, outputs: int, edge_features: int, hidden: int = 128) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.nn = nn.Sequential(nn.Linear(edge_features, hidden), nn.ReLU(), nn.Linear(hidden, inputs * outputs))
        self.lin = nn.Linear(inputs, outputs, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))

    @property
    def first(self) -> nn.Linear:
        """U and u."""
        return self.nn[0]  # type: ignore[return-value]

    @property
    def last(self) -> nn.Linear:
        """V and v."""
        return self.nn[2]  # type: ignore[return-value]

    def hidden(self, edges: Tensor, there: Tensor) -> Tensor:
        """The edges' hidden numbers and a constant 1, over the number of neighbours: ``(B, A, A, H + 1)``, 0 for no edge.

        They do not depend on the nodes: rounds that share weights compute them once.

        Args:
            edges: Edge features ``(B, A, A, F)``; what stands where no edge is does not count.
            there: Which pairs are edges ``(B, A, A)``.
        """
        found = F.relu(self.first(edges.masked_fill(~there[..., None], 0.0)))
        found = torch.cat([found, torch.ones_like(found[..., :1])], dim=-1)
        neighbours = there.sum(-1).clamp_min(1)  # a molecule of one atom has none, and its sum is 0
        return found * (there.to(found) / neighbours[..., None].to(found))[..., None]

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """New node features ``(B, A, D)`` from ``(B, A, C)`` and `hidden`."""
        matrices = torch.cat([self.last.weight, self.last.bias[:, None]], dim=1)  # (C D, H + 1)
        # The matrices are put in order, and not the nodes that they transform, which are many more numbers.
        matrices = (
            matrices.view(self.inputs, self.outputs, -1).transpose(1, 2).reshape(self.inputs, -1)
        )  # (C, (H + 1) D)
        b, a, _ = x.shape
        size = in_cache(x, a * matrices.shape[1])
        # One product a molecule: (A, A (H + 1)) times (A (H + 1), D).
        pieces = [
            own @ (part.reshape(-1, self.inputs) @ matrices).view(len(part), -1, self.outputs)
            for own, part in zip(hidden.reshape(b, a, -1).split(size), x.split(size), strict=True)
        ]
        return torch.cat(pieces) + self.lin(x) + self.bias


class Set2Set(nn.Module):
    """Attention pooling of a molecule's atoms by an LSTM's queries: ``(B, 2 width)``.

    Args:
        width: Of the node features.
        steps: Number of queries.

    Source:
        Vinyals, Bengio & Kudlur (2016), "Order Matters"; PyTorch Geometric's ``Set2Set``, with a mask.
    """

    def __init__(self, width: int, steps: int = 3) -> None:
        super().__init__()
        self.width, self.steps = width, steps
        self.lstm = nn.LSTM(2 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Pools node features ``(B, A, width)`` of the atoms in `mask` ``(B, A)``."""
        query = x.new_zeros(len(x), 2 * self.width)
        state = (x.new_zeros(1, len(x), self.width), x.new_zeros(1, len(x), self.width))
        for _ in range(self.steps):
            q, state = self.lstm(query[None], state)
            score = (x @ q[0][:, :, None]).squeeze(-1).masked_fill(~mask, -math.inf)
            read = (score.softmax(-1)[..., None] * x).sum(1)
            query = torch.cat([q[0], read], dim=-1)
        return query


class NNConvNet(nn.Module):
    """The published network for QM9: one edge-conditioned convolution applied three times with a GRU, then Set2Set.

    Args:
        node_features: Size of a node's features.
        edge_features: Size of an edge's features.
        width: Of nodes and of the representation.
        hidden: Of the edge network.
        rounds: How often the convolution is applied, with shared weights.

    Attributes:
        width: Width of the representation.

    Source:
        Dai et al. (2023), appendix; the code of Navon et al. (2022), whose network this equals.
    """

    def __init__(
        self, node_features: int, edge_features: int, *, width: int = 64, hidden: int = 128, rounds: int = 3
    ) -> None:
        super().__init__()
        self.width, self.rounds = width, rounds
        self.lin0 = nn.Linear(node_features, width)
        self.conv = FactorisedNNConv(width, width, edge_features, hidden)
        self.gru = nn.GRUCell(width, width)
        self.set2set = Set2Set(width)
        self.lin1 = nn.Linear(2 * width, width)

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """The representation ``(B, width)``.

        Args:
            x: ``nodes (B, A, F)``, ``edges (B, A, A, F')`` and ``mask (B, A)``.
        """
        mask = x["mask"]
        hidden = self.conv.hidden(x["edges"], edges_of(mask))
        h = F.relu(self.lin0(x["nodes"].masked_fill(~mask[..., None], 0.0)))
        for _ in range(self.rounds):
            message = F.relu(self.conv(h, hidden))
            h = self.gru(message.flatten(0, 1), h.flatten(0, 1)).view_as(h)
            h = h.masked_fill(~mask[..., None], 0.0)
        return F.relu(self.lin1(self.set2set(h, mask)))


class RadialBasis(nn.Module):
    """Gaussians of a distance times a cosine that falls to 0 at the cutoff: ``(..., count)``.

    Args:
        count: Number of Gaussians, their centres evenly spaced from 0 to the cutoff.
        cutoff: In the unit of the distances.
    """

    def __init__(self, count: int = 20, cutoff: float = 6.0) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.centres = nn.Buffer(torch.linspace(0.0, cutoff, count))
        self.inverse_width = count / cutoff

    def forward(self, distance: Tensor) -> Tensor:
        """Functions of distances ``(...)``."""
        bumps = torch.exp(-0.5 * ((distance[..., None] - self.centres) * self.inverse_width).square())
        fall = 0.5 * (torch.cos(math.pi / self.cutoff * distance) + 1.0) * (distance < self.cutoff)
        return bumps * fall[..., None]


class _FilteredSums(torch.autograd.Function):
    """`_filtered_sums` with a backward pass that makes each molecule's products again, while they are in the cache."""

    @staticmethod
    def forward(ctx: Any, radial: Tensor, h: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(radial, h, weight)
        return torch.cat([own @ _products(part, weight) for own, part in _pieces(weight, radial, h)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, Tensor]:
        radial, h, weight = ctx.saved_tensors
        (gradient,) = gradients
        a, (count, width) = h.shape[1], weight.shape
        of_h, of_weight = [], torch.zeros_like(weight)
        for own, part, g in _pieces(weight, radial, h, gradient):
            products = (own.transpose(1, 2) @ g).view(len(part), a, count, width)
            of_h.append((products * weight).sum(2))
            if torch.is_grad_enabled():  # the derivative is differentiated in turn
                of_weight = of_weight + (products * part[:, :, None]).sum((0, 1))
            else:
                of_weight += products.mul_(part[:, :, None]).sum((0, 1))
        return None, torch.cat(of_h), of_weight


def _pieces(weight: Tensor, *tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """A few molecules at a time of ``(B, A, ...)``."""
    size = in_cache(tensors[0], tensors[0].shape[1] * weight.numel())
    return zip(*(x.split(size) for x in tensors), strict=True)


def _products(h: Tensor, weight: Tensor) -> Tensor:
    """``weight_rd h_jd``: ``(B, A R, D)``."""
    return (h[:, :, None] * weight).reshape(len(h), -1, h.shape[-1])


def _filtered_sums(radial: Tensor, h: Tensor, weight: Tensor) -> Tensor:
    """``sum_j (sum_r weight_rd radial_ijr) h_jd``: messages ``(B, A, D)``, h times the weights first.

    No filter ``(B, A, A, D)`` is made, and on a CPU a few molecules are done at a time.

    Args:
        radial: ``(B, A, A R)``.
        h: ``(B, A, D)``.
        weight: ``(R, D)``.
    """
    if radial.requires_grad or torch.is_autocast_enabled(h.device.type):  # forces; two types of numbers
        return torch.cat([own @ _products(part, weight) for own, part in _pieces(weight, radial, h)])
    found: Tensor = _FilteredSums.apply(radial, h, weight)
    return found


class LinearFilterSchNet(nn.Module):
    """A SchNet whose filters are linear in the radial functions: the cheap trunk for molecules.

    A representation is the sum and the mean of the atoms', so that both extensive and intensive targets are near to it. It
    does not change under rotations, translations and permutations of the atoms.

    Args:
        elements: Number of atomic numbers known, from 0, which is padding.
        width: Of atoms and of the representation.
        radial: Number of radial functions.
        cutoff: In Angstrom.
        rounds: Number of interactions.

    Attributes:
        width: Width of the representation.

    Source:
        Schuett et al. (2018), "SchNet"; filter networks of one linear layer instead of two with a nonlinearity.
    """

    def __init__(
        self, *, elements: int = 10, width: int = 64, radial: int = 20, cutoff: float = 6.0, rounds: int = 3
    ) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(elements, width)
        self.basis = RadialBasis(radial, cutoff)
        self.filters = nn.ModuleList([nn.Linear(radial, width, bias=False) for _ in range(rounds)])
        self.inner = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(rounds)])
        self.outer = nn.ModuleList(
            [nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(rounds)]
        )
        self.atom = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.molecule = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU())

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """The representation ``(B, width)``.

        Args:
            x: ``numbers (B, A)`` (atomic numbers, 0 for padding) and ``positions (B, A, 3)`` in Angstrom.
        """
        numbers, positions = x["numbers"].long(), x["positions"]
        mask = numbers > 0
        there = edges_of(mask)
        difference = positions[:, :, None] - positions[:, None]
        # Away from 0 before the root: its gradient is infinite there, and the diagonal and padding are 0.
        distance = torch.where(there, difference.square().sum(-1), 1.0).sqrt()
        b, a = numbers.shape
        radial = (self.basis(distance) * there[..., None]).reshape(b, a, -1)  # (B, A, A R)
        h = self.embedding(numbers)
        for filters, inner, outer in zip(self.filters, self.inner, self.outer, strict=True):
            messages = _filtered_sums(radial, inner(h), cast(nn.Linear, filters).weight.T.contiguous())
            h = h + outer(messages)
        atoms = self.atom(h) * mask[..., None]
        total = atoms.sum(1)
        mean = total / mask.sum(1, keepdim=True).clamp_min(1)
        return self.molecule(torch.cat([total / 10.0, mean], dim=-1))
