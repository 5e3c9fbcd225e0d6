"""Task gradients as rows of real numbers: which parameters they are of, their products, and how they are written.

A complex parameter counts as its real and imaginary parts: a gradient's row holds both, side by side as
`torch.view_as_real` has them, so that inner products, lengths and projections are those of the real vectors. (Torch's
gradient of a complex leaf is ``dL/dRe + i dL/dIm``.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from bmtl.inference import distributed
from bmtl.inference.balancing.base import Objective
from bmtl.inference.balancing.graph import parameters_by_tensor, parameters_reached, trained

_BLOCK = 1 << 20


def real_entries(tensor: Tensor) -> Tensor:
    """A tensor's entries in one row ``(P,)``; of a complex one, real and imaginary parts ``(2 P,)``."""
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)


def real_rows(tensor: Tensor) -> Tensor:
    """The rows ``(K, P)`` of a tensor ``(K, ...)``; of a complex one, real and imaginary parts ``(K, 2 P)``."""
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).flatten(1)


def number_of_entries(tensor: Tensor) -> int:
    """Length of `real_entries`."""
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def like(entries: Tensor, tensor: Tensor) -> Tensor:
    """The inverse of `real_entries`: entries ``(P,)`` in a tensor's shape, device and dtype."""
    if not tensor.is_complex():
        return entries.view_as(tensor).to(tensor)
    parts = entries.view(*tensor.shape, 2).to(tensor.device, tensor.real.dtype)
    return torch.view_as_complex(parts.contiguous())


def common_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """The precision for gradients of all these tensors: the widest of their real dtypes, float32 at least."""
    return reduce(torch.promote_types, (t.dtype.to_real() for t in tensors), torch.float32)


@dataclass
class Structure:
    """Which parameters the tasks reach."""

    shared: list[Tensor]
    private: list[list[Tensor]]  # per task
    behind: list[Tensor] = field(default_factory=list)  # which several tasks reach behind the marks: stacked heads

    @property
    def sizes(self) -> list[int]:
        """Number of real entries of each shared parameter."""
        return [number_of_entries(p) for p in self.shared]

    def parts(self, jacobian: Tensor) -> Sequence[Tensor]:
        """Gradients of all shared parameters ``(K, P)`` parameter by parameter, each ``(K, P_i)``."""
        return jacobian.split(self.sizes, dim=1) if self.shared else ()


def read_structure(objective: Objective) -> Structure:
    """Which parameters the tasks reach, from the autograd graph.

    Shared are those upstream of a marked tensor; without a mark, those that two or more tasks reach. What is shared in one
    of the processes that train together is shared in all.
    """
    own, common = parameters_by_tensor(objective.rows)
    own, common = [trained(each, objective.parameters) for each in own], trained(common, objective.parameters)
    shared = common
    if objective.marks.tensors:
        reached = {*common, *(key for parameters in own for key in parameters)}
        shared = {key: p for key, p in parameters_reached(*objective.marks.tensors).items() if key in reached}
    shared = distributed.union(shared, objective.parameters)
    return Structure(
        shared=list(shared.values()),
        private=[[p for key, p in parameters.items() if key not in shared] for parameters in own],
        behind=[p for key, p in common.items() if key not in shared],
    )


def add_gradients(pairs: Sequence[tuple[Tensor, Tensor]], rest: Tensor | None) -> None:
    """Adds to every parameter's ``.grad``, once, by autograd's own engine: hooks run as after an ordinary backward.

    Args:
        pairs: Parameters, possibly more than once, and gradients.
        rest: A scalar whose gradient is added too, or None.
    """
    roots, gradients = [p for p, _ in pairs], [gradient for _, gradient in pairs]
    if rest is not None and rest.requires_grad:
        roots.append(rest)
        gradients.append(torch.ones_like(rest))
    if roots:
        torch.autograd.backward(roots, gradients)


def backward(*totals: Tensor | None) -> None:
    """One backward from the sum of scalars, some of which may be absent or depend on no parameter."""
    present = [total for total in totals if total is not None and total.requires_grad]
    if present:
        torch.autograd.backward(present)


def gram_matrix(parts: Sequence[Tensor], size: int, others: Sequence[Tensor] | None = None) -> Tensor:
    """Gram matrix ``(K, K)`` of K gradients, float64 on the host.

    Args:
        parts: The gradients part by part, each ``(K, ...)``; summed in float64, since parts may differ by decades.
        size: K.
        others: Where products with other gradients are wanted, ``parts others'``: those, in the same parts.
    """
    rows = [real_rows(part) for part in parts]
    columns = rows if others is None else [real_rows(part) for part in others]
    # In blocks of columns, whose copies in another precision are small.
    both = zip(rows, columns, strict=True)
    pairs = [pair for a, b in both for pair in zip(a.split(_BLOCK, dim=1), b.split(_BLOCK, dim=1), strict=True)]
    gram = torch.zeros(size, size, dtype=torch.float64)
    if pairs:
        gram += torch.stack([exact(a) @ exact(b).T for a, b in pairs]).cpu().double().sum(0)
    if pairs and not in_range(gram.diagonal().abs()).all():
        gram = torch.stack([a.cpu().double() @ b.cpu().double().T for a, b in pairs]).sum(0)
    return gram


def exact(gradients: Tensor) -> Tensor:
    """Gradients in the precision that their products need: on a GPU a setting may run those of float32 in TF32."""
    return gradients.double() if gradients.is_cuda or gradients.dtype == torch.float64 else gradients.float()


def in_range(squares: Tensor) -> Tensor:
    """Which squared norms float32 can hold: it ends at norms of 1e-19 and 1e19."""
    return (squares > 1e-30) & (squares < 1e36)
