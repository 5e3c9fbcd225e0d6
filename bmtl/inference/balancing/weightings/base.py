"""Slot 3: the base class of weightings of the task gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from bmtl.inference.balancing.base import Context, Measured, Solution
from bmtl.inference.balancing.geometry.base import Geometry
from bmtl.inference.balancing.slots import Slot
from bmtl.inference.balancing.solvers.threads import one_thread
from bmtl.inference.errors import SolverFailed


class Weighting(Slot):
    """Slot 3: weights from the Gram matrix of the task gradients.

    Attributes:
        needs: What it works on: the Gram matrix, the two-sample Gram matrix (``cross=True`` of the geometry), the gradients
            themselves (`Full` only), or what its `own_geometry` measures.
        length: Name of the length rule that its paper uses.
        tolerance: Residual above which a solution counts as failed.
    """

    slot = "weighting"
    needs: ClassVar[Literal["gram", "cross", "jacobian", "own"]] = "gram"
    length: ClassVar[str] = "as-is"
    tolerance: ClassVar[float] = 1e-6

    @property
    def by_gradients(self) -> bool:
        """Whether it works on the gradients, K x P numbers, and not on K x K products."""
        return self.needs in ("jacobian", "own")

    def own_geometry(self) -> Geometry | None:
        """The geometry of a weighting that works with no other."""
        return None

    def allowed_residual(self, norms: np.ndarray) -> float:
        """The residual above which a solution counts as failed, for gradients of these norms ``(K,)``."""
        return self.tolerance

    def forward(self, m: Measured, ctx: Context) -> Solution:
        """Weights of K >= 2 gradients, none of them zero."""
        raise NotImplementedError(f"{type(self).__name__} must say how it weighs gradients.")

    def weigh(self, m: Measured, ctx: Context) -> tuple[Solution, Tensor]:
        """Weights of any gradients. A zero gradient has no direction: it is left out and keeps weight 1.

        Returns:
            The solution, and which gradients are zero, bool ``(K,)``.

        Raises:
            SolverFailed: If the residual is above what is allowed although a solution exists.
        """
        norms = np.sqrt(np.maximum(m.G.numpy().diagonal(), 0.0))
        zero = torch.from_numpy(norms == 0.0)
        keep = len(norms) - int(zero.sum())
        alpha = torch.ones(len(norms), dtype=torch.float64)
        if keep < 2:
            solution = Solution(alpha, status="ok" if keep else "stationary")
        elif keep == len(norms):
            solution = self._alone(m, ctx)
        else:
            here = (~zero).nonzero().squeeze(-1)
            if not self.by_gradients:
                m = replace(m, J=None)  # K x P numbers that are not used need no copy
            solution = self._alone(m.only(here), ctx.only(here))
            alpha[here] = solution.alpha
            solution = replace(solution, alpha=alpha)
        if solution.status == "ok":
            allowed = self.allowed_residual(norms[norms > 0.0])
            if not solution.residual <= allowed:
                raise SolverFailed(
                    f"{self.name!r} left a residual of {solution.residual:.2g} after {solution.iterations} rounds, and at "
                    f"most {allowed:g} is allowed; the gradients' norms are {norms.min():.2g} to {norms.max():.2g}. Are "
                    "they finite and of one precision? Scaling the losses (the transform 'si') brings them closer together."
                )
        return solution, zero

    def solve(self, gram: Tensor) -> Solution:
        """Weights for a Gram matrix ``(K, K)``, without a training step around it.

        Raises:
            ValueError: If `gram` is not a square, symmetric, finite, positive semi-definite matrix, or the weighting works
                on the gradients themselves.
            SolverFailed: If no weights within the tolerance were found although they exist.
        """
        if self.by_gradients:
            raise ValueError(f"{self.name!r} works on the gradients themselves, and a Gram matrix was given.")
        gram = torch.as_tensor(gram, dtype=torch.float64).detach().cpu()
        if gram.dim() != 2 or gram.shape[0] != gram.shape[1] or not len(gram):
            raise ValueError(f"A Gram matrix is square, (K, K), and one of shape {tuple(gram.shape)} was given.")
        if not gram.isfinite().all():
            raise ValueError("The Gram matrix has entries that are NaN or infinite.")
        # Relative to the gradients' norms: entries of nearly orthogonal gradients are all rounding error in float32.
        norms = gram.diagonal().clamp_min(0).sqrt()
        scale = norms.clamp_min(1e-150)
        cosine = gram / scale[:, None] / scale
        if ((cosine - cosine.T).abs() > 1e-5).any():
            raise ValueError("A Gram matrix is symmetric, and this one is not. Give J @ J.T for gradients J (K, P).")
        if torch.linalg.eigvalsh((cosine + cosine.T) / 2)[0] < -1e-5 * len(gram):
            raise ValueError(
                "A Gram matrix has no negative eigenvalue, and this one has. Give J @ J.T for gradients J (K, P)."
            )
        return self.weigh(Measured(gram), Context(torch.ones(len(gram), dtype=torch.bool)))[0]

    def _alone(self, m: Measured, ctx: Context) -> Solution:
        """`forward` without a second BLAS thread, which K x K matrices only wait for; products with J may use it."""
        with one_thread(0 if self.by_gradients else len(m.G)):
            return self.forward(m, ctx)
