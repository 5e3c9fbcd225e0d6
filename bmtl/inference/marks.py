"""Collects the tensors that `bmtl.shared` marks while a program runs."""

from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from torch import Tensor


class Marks(Messenger):
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
