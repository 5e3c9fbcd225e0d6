"""Collects the tensors that `bmtl.shared` marks while a program runs."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from torch import Tensor


class SharedRepresentation(Messenger):
    """Keeps every marked tensor of the programs run inside.

    Args:
        cut: Hand the program a detached leaf in place of each marked tensor. Backward from the losses then ends at the
            leaves, and the trunk's one backward starts at the marked tensors with whatever gradient a balancer chose.

    Attributes:
        tensors: The marked tensors, in the order of their marks.
        leaves: With `cut`, the detached leaf that stands for each; otherwise empty.
    """

    def __init__(self, cut: bool = False) -> None:
        super().__init__()
        self.cut = cut
        self.tensors: list[Tensor] = []
        self.leaves: list[Tensor] = []

    def _pyro_shared(self, msg: Message) -> None:
        if msg["done"]:
            return
        (h,) = msg["args"]
        self.tensors.append(h)
        if self.cut:
            h = h.detach().requires_grad_()
            self.leaves.append(h)
        msg["value"] = h
        msg["done"] = True


class ReplayFromShared(SharedRepresentation):
    """Runs programs once more from the marked tensors on: each mark gives the leaf of an earlier run.

    No graph is built before the first mark, since nothing there depends on a leaf.

    Args:
        leaves: Of a run with ``SharedRepresentation(cut=True)`` on the same batch.

    Raises:
        ValueError: If the programs mark other tensors than in that run.
    """

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        super().__init__(cut=True)
        self._given = tuple(leaves)
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

    def _pyro_shared(self, msg: Message) -> None:
        if msg["done"]:
            return
        (h,) = msg["args"]
        j = len(self.leaves)
        if j >= len(self._given) or h.shape != self._given[j].shape:
            raise ValueError(
                f"Run again on the same batch, the programs marked a tensor {tuple(h.shape)} that the first run had not "
                f"marked there: {[tuple(leaf.shape) for leaf in self._given]}. Let every run mark the same tensors."
            )
        torch.set_grad_enabled(self._before)
        self.tensors.append(h)
        self.leaves.append(self._given[j].detach().requires_grad_())
        msg["value"] = self.leaves[-1]
        msg["done"] = True
