"""The multi-task Gaussian process as a Pyro program."""

from collections.abc import Mapping
from typing import Any, Literal

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from bmtl.inputs import PerTask
from bmtl.labels import read_labels
from bmtl.models.gaussian_process.processes import Processes
from bmtl.models.gaussian_process.starts import related_coefficients
from bmtl.models.likelihoods import Likelihood
from bmtl.models.likelihoods.base import factor
from bmtl.models.rows import check_labelled, data_by_target, groups
from bmtl.models.tree_variable import TreeVariable
from bmtl.tasks import check_names, observe, shared, task


class MultitaskGP(nn.Module):
    """Real targets whose functions are combinations of latent Gaussian processes.

        g_q ~ GP(0, k_q)    f_t = b_t + sum_q c_tq g_q    y_t ~ Normal(f_t, sigma_t)

    so that ``Cov(f_s(x), f_t(x')) = sum_q c_sq c_tq k_q(x, x')``. With "icm" all k_q are one kernel and this is ``B (x) k``,
    the intrinsic coregionalisation model; with "lmc" each has its own lengthscales, the linear one. Kernels are
    squared exponentials with unit variance and a lengthscale for each feature.

    Each g_q has M inducing values u_q, whitened, whose guide is a normal of full covariance: one for all Q M values, so
    that with inducing points at all rows it can be the exact posterior; or, for many, one for each process. Then its
    means can be exact, but where targets combine several processes the variance of f_t (what is epistemic in
    predictions) is off, in either direction. The site ``u`` is there for its KL, which is shared: the expected log
    density of a label is taken in closed form, with u integrated out, so that losses have no sampling noise. Use
    ``TaskELBO("analytic")``. Means and covariances of the g_q at a batch are marked as shared, and coefficients, offset
    b_t and noise are the task's head: any balancer can be used.

    Predictions integrate u out as well, so that `bmtl.draw` finds no latents: one component, whose epistemic variance is
    that of f_t. The site ``task_correlation`` ``(T, T)`` is ``B_st / sqrt(B_ss B_tt)`` with ``B = c c'``, for the results
    tree.

    Args:
        inputs: Number of features D of the kernels: that of x, or the width of the trunk's output.
        targets: Likelihood of each target: `Gaussian`, with a fixed noise or a parameter.
        n_data: Number of data, for all targets or by target: the size of each plate.
        kernel: "icm" or "lmc".
        latents: Number of latent processes Q, the rank of B; as many as targets by default.
        inducing: Number of inducing points M, which start as rows of the first batch that has labels (where it has fewer,
            the rest are standard normal draws), or their places ``(M, D)``. They are learnt.
        joint: One normal for the inducing values of all processes, or one for each; by default for ``Q M`` up to 1,024. It
            has ``(Q M)^2`` entries.
        lengthscale: All lengthscales at the start; ``sqrt(D)`` by default, the order of distances between
            standardised inputs.
        trunk: Maps x to the kernels' inputs ``(B, D)``, a deep kernel; None takes x as it is.
        labels: Training labels by target, in rows that are all targets' together. The coefficients start at the labels' own
            correlations, where two targets have labels in five rows or more: from a random start one task may be fitted by a
            its own process, and then learns nothing from the others where its labels are missing.
        generator: Draws the initial coefficients and inducing points; None uses torch's global generator.

    Raises:
        ValueError: If an option is unknown, a number is not positive, a likelihood has no closed form, `n_data` lacks a
            target, or inducing points have another width than the inputs.

    Source:
        Alvarez, Rosasco & Lawrence (2012), "Kernels for Vector-Valued Functions: a Review", section 4; Hensman, Matthews
        & Ghahramani (2015), "Scalable Variational Gaussian Process Classification". With ``joint=False`` equal in value to
        GPyTorch's ``VariationalELBO`` over its ``LMCVariationalStrategy`` (less its jitter on f).
    """

    def __init__(
        self,
        inputs: int,
        targets: Mapping[str, Likelihood],
        n_data: int | Mapping[str, int],
        *,
        kernel: Literal["icm", "lmc"] = "icm",
        latents: int | None = None,
        inducing: int | Tensor = 64,
        joint: bool | None = None,
        lengthscale: float | None = None,
        trunk: nn.Module | None = None,
        labels: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.targets = check_names(tuple(targets))
        self.n_data = data_by_target(self.targets, n_data)
        for name, likelihood in targets.items():
            _check_integrates(name, likelihood)
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
        self.processes = Processes(places, latents, lengthscale, own_kernels=kernel == "lmc", joint=joint)
        self.placed = nn.Buffer(torch.tensor(isinstance(inducing, Tensor)))
        # Prior variance 1 on average, as standardised labels have.
        coefficients = torch.randn(len(self.targets), latents, generator=generator) / latents**0.5
        # Module names must not hold a dot, target names may: by position.
        self._likelihoods = nn.ModuleList(targets.values())
        if labels is not None:
            for name, likelihood in targets.items():
                likelihood.start(labels[name])
            coefficients = related_coefficients(coefficients, [labels[name] for name in targets])
        self.coefficients = nn.ParameterList(list(coefficients))
        self.offsets = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in self.targets])

    joint_density = True

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the program's order."""
        return self.targets

    @property
    def noise_from_validation(self) -> bool:
        """Whether noises were fixed in training, to be set on validation rows."""
        return any(likelihood.needs_calibration for likelihood in self.likelihoods.values())

    def set_noise(self, sigma: Mapping[str, float]) -> None:
        """Sets fixed noises by hand, as `TaskModel.set_noise`."""
        for name, value in sigma.items():
            self.likelihoods[name].set_noise(value)

    @property
    def likelihoods(self) -> dict[str, Likelihood]:
        """The likelihoods by target."""
        return dict(zip(self.targets, self._likelihoods, strict=True))  # type: ignore[arg-type]

    def guide(self) -> nn.Module:
        """The guide: normals over the inducing values, whose parameters are the program's."""
        return _Guide(self)

    @torch.no_grad()
    def calibrate(self, guide: Any, x: Any, y: Mapping[str, Tensor], *, num_draws: int = 1, seed: int = 0) -> None:
        """Fits noises that were fixed in training to rows that were not trained on, around the functions' means.

        Args:
            guide: Not used: the inducing values are integrated out.
            x: Inputs, as for the program.
            y: Labels by target.
            num_draws: Not used.
            seed: Not used.
        """
        for rows in groups(x, self.n_data):
            moments = self.processes.moments(self._features(rows.x))
            for name in rows.targets:
                mean, _ = self._function(name, *moments)
                self.likelihoods[name].calibrate(mean[:, None], y[name])

    def task_covariance(self) -> Tensor:
        """``B = c c'``: the prior covariance of the tasks' functions at any one input, ``(T, T)``."""
        c = torch.stack(list(self.coefficients))
        return c @ c.mT

    def elbo(self, x: Any, y: Mapping[str, Tensor]) -> Tensor:
        """The evidence lower bound of a batch, scaled up to all data: a number with a gradient, without Pyro.

        Args:
            x: Inputs, as for the program.
            y: Labels by target.
        """
        kl = torch.distributions.kl_divergence(self.processes.values.posterior(), self.processes.values.prior())
        total = -kl
        for rows in groups(x, self.n_data):
            moments = self.processes.moments(self._features(rows.x))
            for name in rows.targets:
                labels = read_labels(f"y_{name}", self._predictive(name, *moments), y[name])
                expected = torch.where(labels.labelled, self._expected(name, *moments, labels.value), 0.0)
                total = total + expected.sum() * self.n_data[name] / rows.count
        return total

    def means(self, x: Any) -> dict[str, Tensor]:
        """Predictive means ``(B,)`` by target."""
        found: dict[str, Tensor] = {}
        for rows in groups(x, self.n_data):
            moments = self.processes.moments(self._features(rows.x))
            found |= {name: self._predictive(name, *moments).mean for name in rows.targets}
        return found

    def forward(self, x: Any, y: Mapping[str, Tensor] | None = None) -> None:
        """The program.

        Args:
            x: Inputs, ``(B, ...)`` for all targets, or `PerTask`.
            y: Labels ``(B,)`` by name, NaN where one is missing; None predicts.
        """
        if y is not None:
            check_labelled(y, self.targets)
            pyro.sample("u", self.processes.values.prior())
        if len(self.targets) > 1:
            covariance = self.task_covariance()
            spread = covariance.diagonal().clamp_min(torch.finfo(covariance.dtype).tiny).sqrt()
            pyro.deterministic("task_correlation", covariance / torch.outer(spread, spread), event_dim=2)
        for rows in groups(x, self.n_data):
            mean, covariance = self.processes.moments(self._features(rows.x))
            moments = shared(mean), shared(covariance)
            for name in rows.targets:
                with task(name), rows.plates[name]:
                    self._observe(name, *moments, None if y is None else y[name])

    def tree_extras(self, draws: Mapping[str, Any]) -> dict[str, TreeVariable]:
        """The correlation of the tasks' functions, with the dimensions that it has in a results tree."""
        return TreeVariable.correlations(draws, self.targets)

    def _features(self, x: Any) -> Tensor:
        return x if self.trunk is None else self.trunk(x)

    @torch.no_grad()
    def place(self, x: Any) -> None:
        """Puts the inducing points on rows of a batch, once."""
        if self.placed:
            return
        rows = torch.cat([self._features(part) for part in (x.values() if isinstance(x, PerTask) else [x])])
        places = self.processes.places
        count = min(len(rows), len(places))
        evenly = torch.linspace(0, len(rows) - 1, count, device=rows.device).long()
        places[:count] = rows[evenly]
        self.placed.fill_(True)

    def _function(self, name: str, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance ``(B,)`` of a target's function, in units of the likelihood."""
        i = self.targets.index(name)
        c = self.coefficients[i]
        return c @ mean + self.offsets[i], self.processes.values.along(c, covariance)

    def _predictive(self, name: str, mean: Tensor, covariance: Tensor) -> TorchDistribution:
        likelihood = self.likelihoods[name]
        return likelihood.integrated(*self._function(name, mean, covariance), likelihood.sample(name))

    def _expected(self, name: str, mean: Tensor, covariance: Tensor, y: Tensor) -> Tensor:
        likelihood = self.likelihoods[name]
        return likelihood.expected_log_density(*self._function(name, mean, covariance), likelihood.sample(name), y)

    def _observe(self, name: str, mean: Tensor, covariance: Tensor, y: Tensor | None) -> None:
        site, p = f"y_{name}", self._predictive(name, mean, covariance)
        if y is None:
            observe(site, p, None)
            return
        labels = read_labels(site, p, y)
        factor(site, -self._expected(name, mean, covariance, labels.value), labels)


def _check_integrates(name: str, likelihood: Likelihood) -> None:
    if not likelihood.integrates or likelihood.noise == "latent":
        raise ValueError(
            "A Gaussian process takes likelihoods whose expected density has a closed form: Gaussian ones of exact labels, "
            f"with a fixed noise or a parameter. Target {name!r} has {likelihood.name!r} with noise={likelihood.noise!r}."
        )


class _Guide(nn.Module):
    """Samples the inducing values where there are labels.

    Args:
        program: The program, whose parameters stay its own.
    """

    def __init__(self, program: MultitaskGP) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: Any, y: Mapping[str, Tensor] | None = None) -> None:
        if y is not None:
            self.program.place(x)
            pyro.sample("u", self.program.processes.values.posterior())
