"""Multi-task Gaussian process with inducing points, through GPyTorch: needs the extra ``gp``.

Import it from here, ``from bmtl.models.gaussian_process import MultitaskGP``: `bmtl.models` does without GPyTorch.
"""

from bmtl.models.gaussian_process.program import MultitaskGP
from bmtl.models.gaussian_process.starts import best_start

__all__ = ["MultitaskGP", "best_start"]
