"""The exact gradients of the last shared layer, without a pass through the trunk per task."""

from torch import Tensor

from bmtl.inference.balancing.base import Objective
from bmtl.inference.balancing.geometry.at_marks import AtMarks
from bmtl.inference.balancing.geometry.layers import layers_gram


class LastLayer(AtMarks):
    """Compares the gradients of the last shared layer only: the linear or convolutional layer nearest the mark.

    For a linear layer with input a (R, d_in) and output gradients delta_k (R, d_out),
    ``G_kl = sum_rs (delta_kr' delta_ls) (a_r' a_s + 1)``, the 1 for a bias: products of what the heads' backward already
    gives. Other layers form their K weight gradients. Then one ordinary backward through heads and trunk.

    The program must mark its shared representation with `bmtl.shared`.

    Args:
        every: Compare every n-th step and keep the weights in between.
        moved: Keep the weights while no cosine of task gradients has moved by more than this.
        fidelity_every: Every n-th comparison, record the cosine with the update from the full gradients.

    Raises:
        ValueError: If nothing is marked, no such layer lies upstream of the mark, or a parameter of the trunk is also
            reached around the mark.
    """

    name = "last-layer"
    cost = "1 backward + K heads"

    def gram(self, objective: Objective) -> Tensor:
        return layers_gram(objective.marks.tensors, self.deltas)
