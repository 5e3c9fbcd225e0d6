"""Collects the tensors that `bmtl.shared` marks while a program runs."""

from types import TracebackType
from typing import Self

import torch
from pyro.ops.provenance import extract_provenance, track_provenance
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from torch import Tensor


class SharedRepresentation(Messenger):
    """Keeps every marked tensor of the programs run inside, each once.

    A tensor that is marked again, itself or as a view of all of its entries in their order, is the one that was marked
    before: its entries are coordinates of one representation, and would count twice in products of gradients.

    Args:
        cut: Hand the program a detached leaf in place of each marked tensor. Backward from the losses then ends at the
            leaves, and the trunk's one backward starts at the marked tensors with whatever gradient a balancer chose.

    Attributes:
        tensors: The marked tensors, in the order of their first marks.
        leaves: With `cut`, the detached leaf in place of each; otherwise empty.
        order: For each mark, which of the tensors it marks.
    """

    def __init__(self, cut: bool = False) -> None:
        super().__init__()
        self.cut = cut
        self.tensors: list[Tensor] = []
        self.leaves: list[Tensor] = []
        self.order: list[int] = []
        self._by_base: dict[int, list[tuple[Tensor, int]]] = {}  # tensors handed on, and which mark they are

    def _pyro_shared(self, msg: Message) -> None:
        if msg["done"]:
            return
        h, draws = extract_provenance(msg["args"][0])  # a tensor that Pyro tracks draws by is one of a class of its own
        assert isinstance(h, Tensor)
        marked = self.mark(h)
        msg["value"] = track_provenance(marked, draws) if draws else marked
        msg["done"] = True

    def mark(self, h: Tensor) -> Tensor:
        """Takes a tensor as marked; returns what the program goes on with."""
        j = self._number(h)
        self.order.append(j)
        return self._handed_on(h, j)

    def _number(self, h: Tensor) -> int:
        """Which tensor is marked: one of those before, or the next."""
        for other, j in self._by_base.get(id(_base(h)), ()):
            if h is other or _has_the_same_entries(h, other):
                return j
        return len(self.tensors)

    def _keep(self, h: Tensor, leaf: Tensor | None) -> None:
        for tensor in (h, leaf):
            if tensor is not None:
                self._by_base.setdefault(id(_base(tensor)), []).append((tensor, len(self.tensors)))
        self.tensors.append(h)
        if leaf is not None:
            self.leaves.append(leaf)

    def _handed_on(self, h: Tensor, j: int) -> Tensor:
        """What the program goes on with in place of the tensor marked as number `j`."""
        if j == len(self.tensors):
            self._keep(h, h.detach().requires_grad_() if self.cut else None)
        return self._leaf(h, j) if self.cut else h

    def _leaf(self, h: Tensor, j: int) -> Tensor:
        """The leaf in place of a marked tensor, in its shape."""
        leaf = self.leaves[j]
        return leaf if leaf.shape == h.shape else leaf.view(h.shape)


class ReplayFromShared(SharedRepresentation):
    """Runs programs once more from the marked tensors on: each mark gives the leaf of an earlier run.

    No graph is built before the first mark, since nothing there depends on a leaf.

    Args:
        first: A run with ``SharedRepresentation(cut=True)`` on the same batch.

    Raises:
        ValueError: If the programs mark other tensors than in that run.
    """

    def __init__(self, first: SharedRepresentation) -> None:
        super().__init__(cut=True)
        self._first = first
        self._before = True

    def __enter__(self) -> Self:
        self._before = torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        torch.set_grad_enabled(self._before)
        super().__exit__(kind, error, traceback)

    def _number(self, h: Tensor) -> int:
        mark, leaves = len(self.order), self._first.leaves
        j = self._first.order[mark] if mark < len(self._first.order) else None
        if j is None or h.numel() != leaves[j].numel() or j > len(self.tensors):
            raise ValueError(
                f"Run again on the same batch, the programs marked a tensor {tuple(h.shape)} that the first run had not "
                f"marked there: {[tuple(leaf.shape) for leaf in leaves]}. Let every run mark the same tensors."
            )
        return j

    def _handed_on(self, h: Tensor, j: int) -> Tensor:
        torch.set_grad_enabled(self._before)
        if j == len(self.tensors):
            self._keep(h, self._first.leaves[j].detach().requires_grad_())
        return self._leaf(h, j)


def _base(h: Tensor) -> Tensor:
    """What a tensor is a view of, or itself."""
    return h if h._base is None else h._base


def _has_the_same_entries(h: Tensor, other: Tensor) -> bool:
    """Whether two tensors with one base have the same entries in the same order, in whatever shape."""
    return (
        h.numel() == other.numel()
        and h.storage_offset() == other.storage_offset()
        and h.dtype == other.dtype
        and h.requires_grad == other.requires_grad
        and ((h.is_contiguous() and other.is_contiguous()) or (h.shape, h.stride()) == (other.shape, other.stride()))
    )
