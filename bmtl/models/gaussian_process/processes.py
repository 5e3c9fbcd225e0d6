"""Latent Gaussian processes and their inducing values; kernels are GPyTorch's."""

import torch
from torch import Tensor, nn

from bmtl.models.gaussian_process.inducing_values import Independent, Joint

try:
    import gpytorch
    from linear_operator.utils.cholesky import psd_safe_cholesky
except ImportError as error:
    raise ImportError("The multi-task Gaussian process needs GPyTorch: pip install 'bmtl[gp]'.") from error

MOST = 1_024
"""Inducing values of all processes up to which the guide is joint by default."""


class Processes(nn.Module):
    """Q latent processes with zero mean and unit variance, and their inducing values.

    Args:
        places: Inducing points ``(M, D)``, one set for all processes.
        count: Number of processes Q.
        lengthscale: Of all features at the start.
        own_kernels: Whether each process has its own lengthscales.
        joint: Whether the guide has one normal for all processes, or one for each; by default for up to `MOST` inducing
            values.
    """

    def __init__(
        self, places: Tensor, count: int, lengthscale: float, own_kernels: bool, joint: bool | None = None
    ) -> None:
        super().__init__()
        self.places = nn.Parameter(places.clone())
        joint = count * len(places) <= MOST if joint is None else joint
        self.values = (Joint if joint and count > 1 else Independent)(count, len(places))
        batch = torch.Size([count] if own_kernels else [])
        self.kernel = gpytorch.kernels.RBFKernel(ard_num_dims=places.shape[-1], batch_shape=batch)
        self.kernel.lengthscale = lengthscale

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means ``(Q, B)`` and covariance of the processes at inputs ``(B, D)``, the inducing values integrated out."""
        jitter = gpytorch.settings.variational_cholesky_jitter.value(x.dtype)
        among = self.kernel(self.places).to_dense()
        among = among + jitter * torch.eye(len(self.places), dtype=x.dtype, device=x.device)
        across = self.kernel(self.places, x).to_dense()
        # In double precision, as GPyTorch solves it.
        a = torch.linalg.solve_triangular(psd_safe_cholesky(among.double()), across.double(), upper=False).to(x.dtype)
        a = a.expand(*self.values.mean.shape, -1)  # one kernel for all processes has one
        rest = 1.0 + jitter - a.square().sum(-2)
        mean = (self.values.mean.unsqueeze(-2) @ a).squeeze(-2)
        return mean, self.values.covariance(a, rest)
