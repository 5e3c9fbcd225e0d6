"""Multi-task Gaussian process with inducing points, through GPyTorch: needs the extra ``gp``.

Import it from here, ``from bmtl.models.gaussian_process import MultitaskGP``: `bmtl.models` does without GPyTorch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

try:
    import gpytorch
except ImportError as error:
    raise ImportError("The multi-task Gaussian process needs GPyTorch: pip install 'bmtl[gp]'.") from error

from bmtl.labels import check_targets
from bmtl.models.rows import data_by_target
from bmtl.tasks import check_names, observe, shared, task

_NOISE_LR_MULTIPLIER = 10.0  # log-variances travel over ten units where other parameters travel over a tenth

Inputs = Tensor | Mapping[str, Tensor]


class MultitaskGP(nn.Module):
    """Regressions whose functions are combinations of latent Gaussian processes.

        g_q ~ GP(0, k_q)    f_t = b_t + sum_q c_tq g_q    y_t ~ Normal(f_t, sigma_t)

    so that ``Cov(f_s(x), f_t(x')) = sum_q c_sq c_tq k_q(x, x')``. With "icm" all k_q are one kernel and this is ``B (x) k``,
    the intrinsic coregionalisation model; with "lmc" each has lengthscales of its own, the linear one. Kernels are
    squared exponentials with unit variance and a lengthscale for each feature.

    Each g_q has M inducing values u_q with the guide ``Normal`` of full covariance, whitened. The site ``u`` ``(Q, M)`` is
    there for its KL, which is everybody's: the expected log density of a label is taken in closed form, with u integrated
    out, so that losses have no sampling noise. Use ``TaskELBO("analytic")``. Means and variances of the g_q at a batch
    are marked as shared, and coefficients, offset b_t and noise are the task's head: any balancer can be used.

    Predictions integrate u out as well, so that `bmtl.draw` finds no latents: one component, whose epistemic variance is
    that of f_t. The site ``task_correlation`` ``(T, T)`` is ``B_st / sqrt(B_ss B_tt)`` with ``B = c c'``, for the results
    tree.

    Args:
        inputs: Number of features D of the kernels: that of x, or the width of the trunk's output.
        targets: Names; labels should be standardised.
        n_data: Number of data, for all targets or by target: the size of each plate.
        kernel: "icm" or "lmc".
        latents: Number of latent processes Q, the rank of B; as many as targets by default.
        inducing: Number of inducing points M, which start as rows of the first batch that has labels (where it has fewer,
            the rest are standard normal draws), or their places ``(M, D)``. They are learnt.
        lengthscale: All lengthscales at the start; ``sqrt(D)`` by default, the order of distances between
            standardised inputs.
        trunk: Maps x to the kernels' inputs ``(B, D)``, a deep kernel; None takes x as it is.
        generator: Draws the initial coefficients and inducing points; None uses torch's global generator.

    Raises:
        ValueError: If an option is unknown, a number is not positive, `n_data` lacks a target, or inducing points have
            another width than the inputs.

    Source:
        Alvarez, Rosasco & Lawrence (2012), "Kernels for Vector-Valued Functions: a Review", section 4; Hensman, Matthews
        & Ghahramani (2015), "Scalable Variational Gaussian Process Classification". Equal in value to GPyTorch's
        ``VariationalELBO`` over its ``LMCVariationalStrategy`` (less its jitter on f).
    """

    def __init__(
        self,
        inputs: int,
        targets: Sequence[str],
        n_data: int | Mapping[str, int],
        *,
        kernel: Literal["icm", "lmc"] = "icm",
        latents: int | None = None,
        inducing: int | Tensor = 64,
        lengthscale: float | None = None,
        trunk: nn.Module | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.targets = check_names(tuple(targets))
        self.n_data = data_by_target(self.targets, n_data)
        if kernel not in ("icm", "lmc"):
            raise ValueError(f"kernel is one of 'icm', 'lmc', and {kernel!r} was given.")
        latents = len(self.targets) if latents is None else latents
        lengthscale = inputs**0.5 if lengthscale is None else lengthscale
        count = inducing if isinstance(inducing, int) else len(inducing)
        for option, value in (("latents", latents), ("inducing", count), ("lengthscale", lengthscale)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{option} is above 0, and {value} was given.")
        if isinstance(inducing, Tensor) and inducing.shape != (count, inputs):
            raise ValueError(f"Inducing points are (M, {inputs}), and {tuple(inducing.shape)} was given.")
        self.trunk = trunk
        places = torch.randn(count, inputs, generator=generator) if isinstance(inducing, int) else inducing
        self.processes = _Processes(places, latents, lengthscale, own_kernels=kernel == "lmc")
        self.placed = nn.Buffer(torch.tensor(isinstance(inducing, Tensor)))
        # Prior variance 1 on average, as standardised labels have.
        coefficients = torch.randn(len(self.targets), latents, generator=generator) / latents**0.5
        self.coefficients = nn.ParameterList(list(coefficients))
        self.offsets = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in self.targets])
        self.scaled_log_variance = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in self.targets])

    def guide(self) -> nn.Module:
        """The guide: normals over the inducing values, whose parameters are the program's."""
        return _Guide(self)

    def task_covariance(self) -> Tensor:
        """``B = c c'``: the prior covariance of the tasks' functions at any one input, ``(T, T)``."""
        c = torch.stack(list(self.coefficients))
        return c @ c.mT

    def forward(self, x: Inputs, y: Mapping[str, Tensor] | None = None) -> None:
        """The program.

        Args:
            x: Inputs, ``(B, ...)`` for all targets, or each target's own.
            y: Labels ``(B,)`` by name, NaN where one is missing; None predicts.
        """
        if y is not None:
            pyro.sample("u", self.processes.inducing_prior())
        if len(self.targets) > 1:
            covariance = self.task_covariance()
            spread = covariance.diagonal().clamp_min(torch.finfo(covariance.dtype).tiny).sqrt()
            pyro.deterministic("task_correlation", covariance / torch.outer(spread, spread), event_dim=2)
        rows: dict[int, pyro.plate] = {}  # targets with common inputs and as many data have one plate
        for i, (name, moments) in enumerate(self._moments(x)):
            if y is not None and name not in y:
                raise ValueError(f"The batch has targets {sorted(y)}, and the program also has {name!r}.")
            n = self.n_data[name]
            if isinstance(x, Mapping) or n not in rows:
                rows[n] = pyro.plate(f"{name}_rows", n, subsample=moments[0].mT)
            with task(name), rows[n]:
                self._observe(i, name, *moments, None if y is None else y[name])

    def _moments(self, x: Inputs) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
        """By target, mean and variance ``(Q, B)`` of the latent processes at its inputs."""
        moments = self._marked(x) if isinstance(x, Tensor) else None
        for name in self.targets:
            if isinstance(x, Mapping):
                if name not in x:
                    raise ValueError(f"x has inputs for {sorted(x)}, and the program also has {name!r}.")
                moments = self._marked(x[name])
            assert moments is not None
            yield name, moments

    def _marked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = self.processes.moments(self._features(x))
        return shared(mean), shared(variance)

    def _features(self, x: Tensor) -> Tensor:
        return x if self.trunk is None else self.trunk(x)

    @torch.no_grad()
    def _place(self, x: Inputs) -> None:
        """Puts the inducing points on rows of a batch, once."""
        if self.placed:
            return
        rows = torch.cat([self._features(part) for part in ([x] if isinstance(x, Tensor) else x.values())])
        places = self.processes.places
        count = min(len(rows), len(places))
        evenly = torch.linspace(0, len(rows) - 1, count, device=rows.device).long()
        places[:count] = rows[evenly]
        self.placed.fill_(True)

    def _observe(self, i: int, name: str, mean: Tensor, variance: Tensor, y: Tensor | None) -> None:
        c = self.coefficients[i]
        f, v = c @ mean + self.offsets[i], c.square() @ variance
        log_noise = self.scaled_log_variance[i] * _NOISE_LR_MULTIPLIER
        site = f"y_{name}"
        if y is None:
            observe(site, _Predictive(f, v, log_noise.exp()), None)
            return
        check_targets(site, f.shape, y, discrete=False)
        seen = ~y.isnan()
        error = torch.where(seen, y, 0.0) - f
        # E log Normal(y; f, sigma) over f ~ Normal(mean, v)
        expected = dist.Normal(0.0, (0.5 * log_noise).exp()).log_prob(error) - 0.5 * v * torch.exp(-log_noise)
        with poutine.mask(mask=seen):  # type: ignore[call-overload]
            pyro.factor(site, expected)


class _Processes(gpytorch.models.ApproximateGP):
    """Q latent processes with zero mean and unit variance, and their inducing values.

    Args:
        places: Inducing points ``(M, D)``, one set for all processes.
        count: Number of processes Q.
        lengthscale: Of all features at the start.
        own_kernels: Whether each process has lengthscales of its own.
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


class _Predictive(dist.Normal):
    """A label's normal, which tells its noise from what is not known of the function.

    Args:
        loc: Mean.
        epistemic: Variance of the function.
        aleatoric: Variance of the noise.
    """

    def __init__(self, loc: Tensor, epistemic: Tensor, aleatoric: Tensor) -> None:
        self.epistemic, self.aleatoric = epistemic, aleatoric
        super().__init__(loc, (epistemic + aleatoric).sqrt())

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_Predictive":
        return _Predictive(*(part.expand(batch_shape) for part in (self.loc, self.epistemic, self.aleatoric)))


class _Guide(nn.Module):
    """Samples the inducing values where there are labels.

    Args:
        program: The program, whose parameters stay its own.
    """

    def __init__(self, program: MultitaskGP) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: Inputs, y: Mapping[str, Tensor] | None = None) -> None:
        if y is not None:
            self.program._place(x)
            pyro.sample("u", self.program.processes.inducing_posterior())
