"""Latent Gaussian processes and their inducing values, in GPyTorch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

try:
    import gpytorch
except ImportError as error:
    raise ImportError("The multi-task Gaussian process needs GPyTorch: pip install 'bmtl[gp]'.") from error


class Processes(gpytorch.models.ApproximateGP):
    """Q latent processes with zero mean and unit variance, and their inducing values.

    Args:
        places: Inducing points ``(M, D)``, one set for all processes.
        count: Number of processes Q.
        lengthscale: Of all features at the start.
        own_kernels: Whether each process has its own lengthscales.
    """

    def __init__(self, places: Tensor, count: int, lengthscale: float, own_kernels: bool) -> None:
        batch = torch.Size([count])
        values = gpytorch.variational.CholeskyVariationalDistribution(len(places), batch_shape=batch)
        strategy = gpytorch.variational.VariationalStrategy(self, places, values, learn_inducing_locations=True)
        # The guide starts at the prior; GPyTorch would add noise from torch's global generator.
        strategy.variational_params_initialized.fill_(1)
        super().__init__(strategy)
        kernel = gpytorch.kernels.RBFKernel(
            ard_num_dims=places.shape[-1], batch_shape=batch if own_kernels else torch.Size()
        )
        kernel.lengthscale = lengthscale
        self.mean_module = gpytorch.means.ZeroMean(batch_shape=batch)
        self.covar_module = kernel

    def forward(self, x: Tensor) -> Any:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    @property
    def places(self) -> Tensor:
        """The inducing points, ``(M, D)``."""
        return self.variational_strategy.inducing_points

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance ``(Q, B)`` of the processes at inputs ``(B, D)``, the inducing values integrated out."""
        with self._fresh():
            f = self(x)
            return f.mean, f.variance

    def inducing_posterior(self) -> Any:
        """The guide's distribution of the whitened inducing values, event ``(Q, M)``."""
        values = self.variational_strategy._variational_distribution
        tril = values.chol_variational_covar.tril()
        # Steps may carry a diagonal entry across 0; with its column's sign the factor is that of the same covariance.
        tril = tril * torch.where(tril.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).unsqueeze(-2)
        return dist.MultivariateNormal(values.variational_mean, scale_tril=tril).to_event(1)

    def inducing_prior(self) -> Any:
        """Their prior."""
        mean = torch.zeros_like(self.variational_strategy._variational_distribution.variational_mean)
        eye = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
        return dist.MultivariateNormal(mean, scale_tril=eye.expand(*mean.shape, -1)).to_event(1)

    @contextmanager
    def _fresh(self) -> Iterator[None]:
        """Without what GPyTorch remembers of other steps: factors of kernels that have changed since, in spent graphs."""
        self.variational_strategy._clear_cache()
        try:
            yield
        finally:
            self.variational_strategy._clear_cache()
