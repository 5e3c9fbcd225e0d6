"""Bayesian aggregation of gradients."""

import torch

from bmtl.inference import distributed
from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.geometry.head_draws import Draws, HeadDraws
from bmtl.inference.balancing.options import NonNegative, Seed
from bmtl.inference.balancing.weightings.base import Weighting

_FLOOR = 1e-8  # of a variance


class BayesAgg(Weighting):
    """Weights each task's gradient by its certainty, example by example and dimension by dimension (BayesAgg-MTL).

    With draws of the heads from the guide, ``g_bkd`` is the gradient of example b's loss of task k in dimension d of the
    marked representation; m and v are its mean and variance over the draws, and its precision is ``v^-power``, v at least
    1e-8. The trunk receives ``K / B sum_k v^-power m / sum_k v^-power``, the K tasks being those with a label at example b;
    the heads follow their own losses. Heads without variance (point guides) give equal weights.

    The update is not a combination of task gradients. The weight reported for a task is the part of its mean gradient that
    passes, as seen at the representation.

    It is geometry and weighting in one: no geometry is chosen with it. The program marks its representation with
    `bmtl.shared`, and nothing downstream of the mark may couple examples (batch norm): a row's gradient is its example's.
    Tasks with their own inputs share no example, and are weighted equally.

    Cost: guide and model run `draws` times, each followed by a pass through the K heads; the trunk runs forward each time,
    since a program cannot be entered in its middle, but builds its graph and goes backward once. Two K x B x d tensors.

    Source: Achituve et al. (2024), "Bayesian uncertainty for gradient aggregation in multi-task learning". Differs
    from it: the posterior over the heads is the guide's, trained along, not one inferred for a last layer afterwards;
    moments are drawn, also where a Gaussian head has them in closed form; the scale is that of the sum of the gradients.

    Args:
        power: How much certainty counts: 0 for equal weights, 1 for the product of Gaussians.
        draws: Draws of the heads, from 2; the step's own is one of them.
        seed: Seeds the generator that the other draws follow; torch's global one stays where it is.

    Raises:
        ValueError: If a geometry is chosen too.
    """

    name = "bayes-agg"
    paper = "Achituve et al. 2024"
    cost = "1 backward + draws x (1 forward + K heads)"
    needs = "own"

    def __init__(self, power: NonNegative = 0.3, draws: Draws = 8, seed: Seed = 0) -> None:
        super().__init__()
        self.power, self.draws, self.seed = power, draws, seed

    def own_geometry(self) -> HeadDraws:
        return HeadDraws(self.draws, self.seed)

    def forward(self, m: Measured, ctx: Context) -> Solution:
        if m.J is None or m.variance is None:
            raise ValueError(f"{self.name!r} works on draws of the gradients, which the geometry that it brings gives.")
        labelled = m.variance.isfinite()  # (K, P)
        variance = m.variance.clamp_min(_FLOOR)
        # Relative to the most certain task, whatever the power: only the tasks' ratios count.
        precision = torch.where(labelled, variance / variance.amin(dim=0), 1.0).pow(-self.power) * labelled
        share = precision / precision.sum(dim=0).clamp_min(1.0) * labelled.sum(dim=0)
        parts = share * m.J
        passed = distributed.inner_products((parts.double() * m.J.double()).sum(dim=1).cpu())
        return Solution(passed / m.G.diagonal(), iterations=1, direction=parts.sum(dim=0))
