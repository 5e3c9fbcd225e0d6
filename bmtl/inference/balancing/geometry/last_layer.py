"""The exact gradients of the last shared layer, without a pass through the trunk per task."""

import torch
from torch import Tensor

from bmtl.inference import distributed
from bmtl.inference.balancing.base import Measured, Objective
from bmtl.inference.balancing.geometry.at_shared_representation import AtSharedRepresentation
from bmtl.inference.balancing.geometry.layers import layers_gram, own_rows_gram


class LastLayer(AtSharedRepresentation):
    """Compares the gradients of the last shared layer only: the linear or convolutional layer nearest the mark.

    Where the marked tensor is joined from several, such as two networks' outputs next to each other, that is one of each.
    Tasks that each read a part of their own there share no last layer: their gradients are orthogonal. Use 'full'.

    For a linear layer with input a (R, d_in) and output gradients delta_k (R, d_out),
    ``G_kl = sum_rs (delta_kr' delta_ls) (a_r' a_s + 1)``, the 1 for a bias: products of what the heads' backward already
    gives. Other layers form their K weight gradients. Then one ordinary backward through heads and trunk.

    The program must mark its shared representation with `bmtl.shared`.

    Args:
        every: Compare every n-th step and keep the weights in between.
        moved: Keep the weights while no cosine of task gradients has moved by more than this.
        fidelity_every: Every n-th comparison, record the cosine with the update from the full gradients.
        cross: Also measure the Gram matrix between independent samples, which are the examples:
            ``X = R / (R - 1) (G - sum_r (delta_kr' delta_lr) (|a_r|^2 + 1))`` drops the products of each with itself, at no
            further pass. Unbiased for the mean gradients' Gram matrix where the rows are independent examples (no batch
            norm, no neighbours among them) and losses are sums over rows (``normalize="per_datum"``; a row without a label
            counts, with a gradient of 0). Noise that the rows share, such as one draw of a Bayesian layer for the batch,
            stays in: 'full(cross=True)' draws it twice. Needs one linear layer whose rows are the examples.

    Raises:
        ValueError: If nothing is marked, no such layer lies upstream of the mark, or a parameter of the trunk is also
            reached around the mark; under `cross`, if the layer is of another kind or the batch is one example.
    """

    name = "last-layer"
    cost = "1 backward + K heads"
    reads_layers = True

    def gram(self, objective: Objective) -> Tensor:
        return layers_gram(objective.marks.tensors, self.deltas)

    def measure(self, objective: Objective, loss_derivatives: Tensor) -> Measured:
        measured = super().measure(objective, loss_derivatives)
        if self.cross:
            own, here = own_rows_gram(objective.marks.tensors, self.deltas)
            own = distributed.inner_products(own) / objective.scale**2
            rows = int(distributed.sum_(torch.tensor(here)))
            if rows < 2:
                raise ValueError(
                    "'last-layer(cross=True)' compares examples, and the batch has one. Give larger batches."
                )
            measured.cross = rows / (rows - 1) * (measured.G - own)
        return measured
