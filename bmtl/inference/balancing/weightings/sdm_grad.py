"""Direction-oriented stochastic multi-objective gradient descent."""

import numpy as np
import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.options import Count, NonNegative
from bmtl.inference.balancing.solvers import onto_simplex
from bmtl.inference.balancing.weightings.stateful import PerTask


class SDMGrad(PerTask):
    """MGDA drawn towards the mean gradient, on gradients of two independent samples (SDMGrad).

    From the last step's w, `iters` projected gradient steps of length ``1 / lambda_max(X)`` on ``w'Xw / 2 + lam w'Xb`` over
    the simplex, ``b = 1 / K``; then ``alpha = K (w + lam b) / (1 + lam)``. X is the Gram matrix between two independent
    samples of the gradients (``cross=True`` of the geometry), without its negative eigenvalues: unbiased, where that of one
    sample is too large on the diagonal. Absent tasks keep their share of w.

    The steps are the method: they are not run to convergence, and no residual is left by definition.

    Source: Xiao, Ban & Ji (2023), "Direction-oriented multi-objective learning". Differs from their code: the two samples
    are independent (theirs are one tensor); the step length follows X instead of being 10 (5 in LibMTL); weights sum to K.
    ``lam`` is LibMTL's and that of their runs; their class says 0.6.

    Args:
        lam: Pull towards the mean gradient, 0 or above.
        iters: Projected steps a step of training.
    """

    name = "sdm-grad"
    paper = "Xiao et al. 2023"
    cost = "2 K backwards (full)"
    needs = "cross"

    w: Tensor

    def __init__(self, lam: NonNegative = 0.3, iters: Count = 20) -> None:
        super().__init__()
        self.lam = lam
        self.iters = iters

    def allocate(self, num_tasks: int) -> None:
        self.register_buffer("w", torch.full((num_tasks,), 1.0 / num_tasks, dtype=torch.float64))

    def forward(self, m: Measured, ctx: Context) -> Solution:
        here = self.present(ctx)
        values, vectors = np.linalg.eigh((m.G if m.cross is None else m.cross).numpy())
        values = np.maximum(values, 0.0) / max(values[-1], 1e-300)  # steps of length 1 on a matrix of norm 1
        share, w = self._shares(here)
        for _ in range(self.iters):
            w = onto_simplex(w - vectors @ (values * (vectors.T @ (w + self.lam / len(w)))))
        weights = torch.from_numpy(w)
        self.w[here] = (share * weights).to(self.w)
        return Solution((len(w) * weights + self.lam) / (1.0 + self.lam), iterations=self.iters)

    def _shares(self, here: Tensor) -> tuple[float, np.ndarray]:
        """The part of w that the present tasks hold, and how it is divided among them."""
        w = self.w[here].cpu()
        share = w.sum().item()
        if share <= 0.0:  # all of it lies with absent tasks: begin again
            return len(w) / len(self.w), np.full(len(w), 1.0 / len(w))
        return share, (w / share).numpy()
