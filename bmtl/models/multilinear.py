"""Heads with a tensor-normal prior, which learns how tasks relate: Long et al. (2017) as a Pyro program."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from torch import Tensor, nn
from torch.nn import functional as F

from bmtl.models.guides import MeanField, PointMass
from bmtl.models.homoscedastic import Homoscedastic, Kind, affine
from bmtl.models.rows import rows_by_target
from bmtl.tasks import task

_START = 0.1  # standard deviation of the task correlation's factor in the guide, before the transform


class MultilinearRelationship(Homoscedastic):
    """Regressions, or classifications of equally many classes, on a shared trunk; their heads have one tensor-normal prior.

    The heads of T tasks are stacked as W ``(T, C, width + 1)``, biases in the last column, C = 1 for regressions:

        W ~ TensorNormal(0, S_task, S_class, S_feature), that is Cov(vec W) = S_task (x) S_class (x) S_feature

    written as W = Z with the three Cholesky factors applied along its modes, ``Z ~ Normal(0, 1)``. Scale can move between
    the three, so that classes and features have correlations, which are parameters, and the tasks hold the scale:

        S_task = D R D,  R = task_cholesky task_cholesky' ~ LKJ(concentration),  log D ~ Normal(log prior_scale, 1)

    Tasks related by R pull at each other's heads, in the same direction or in opposite ones. The latents
    ``task_cholesky`` ``(T, T)``, ``task_log_scale`` ``(T,)`` and ``heads`` ``(T, C, width + 1)`` (Z) are everybody's, and so
    is their KL. The site ``task_correlation`` is R, for the results tree.

    Args:
        trunk: Maps x to a representation ``(B, width)``, marked as shared.
        width: Width of the representation.
        targets: Two or more; all "regression", or all of one number of classes. Each is a task of that name.
        n_data: Number of data, for all targets or by target: the size of each plate.
        concentration: Of R's prior: 1 is uniform over correlation matrices, more draws it to the identity.
        prior_scale: Median of the heads' standard deviation under the prior; ``1 / sqrt(width)`` by default.
        generator: Draws the heads' initial weights; None uses torch's global generator.
        **likelihood: ``noise``, ``noise_prior``, ``likelihood`` and ``classification``, as for `Homoscedastic`.

    Raises:
        ValueError: As `Homoscedastic`; if there is one target, if heads have different sizes, or the concentration is not
            positive.

    Source:
        Long, Cao, Wang & Yu (2017), "Learning Multiple Tasks with Multilinear Relationship Networks". The paper fits W at
        its maximum a posteriori and the three covariances by maximum likelihood in turns; here W and S_task have
        posteriors, and ``guide("point")`` gives points.
    """

    def __init__(
        self,
        trunk: Callable[..., Tensor],
        width: int,
        targets: Mapping[str, Kind],
        n_data: int | Mapping[str, int],
        *,
        concentration: float = 1.0,
        prior_scale: float | None = None,
        generator: torch.Generator | None = None,
        **likelihood: Any,
    ) -> None:
        super().__init__(
            trunk,
            width,
            targets,
            n_data,
            head="bayesian",
            prior_scale=prior_scale,
            generator=generator,
            **likelihood,
        )
        if len(targets) < 2 or len(set(targets.values())) > 1:
            raise ValueError(
                "Stacked heads are those of two or more targets, all regressions or all of one number of classes; "
                f"{dict(targets)} was given."
            )
        if not 0 < concentration < float("inf"):
            raise ValueError(f"concentration is above 0 and finite, and {concentration} was given.")
        self.concentration = concentration
        outputs = len(self._head_start[next(iter(targets))])
        self.feature_factor = nn.Parameter(torch.zeros(width + 1, width + 1))
        # One output has nothing to correlate.
        self.class_factor = nn.Parameter(torch.zeros(outputs, outputs)) if outputs > 1 else None

    def guide(self, kind: Literal["normal", "point"] = "normal", scale: float = 0.005) -> nn.Module:  # type: ignore[override]
        """A guide for this program's latents: independent normals (through a transform for R's factor), or point masses.

        Args:
            kind: "normal" or "point".
            scale: Starting standard deviation of the normals.
        """
        given = super().guide(kind, scale)  # for the noises' starts; heads are one latent here
        noises = [name for name in given.latents if name.startswith("log_variance_")]
        start = torch.stack(list(self._head_start.values())) / self.prior_scale
        latents = {
            "task_log_scale": torch.full((len(self.targets),), self.prior_scale).log(),
            "heads": start,
            **{name: torch.full((), float(self.noise_prior[0])) for name in noises},
        }
        lr_multiplier = dict(zip(given.latents, given.lr_multiplier, strict=True))
        if kind == "point":
            return _Guide(len(self.targets), PointMass(latents, lr_multiplier))
        return _Guide(len(self.targets), MeanField(latents, scale, lr_multiplier))

    def forward(self, x: Tensor | Mapping[str, Tensor], y: Mapping[str, Tensor] | None = None) -> None:
        """The program.

        Args:
            x: Inputs, ``(B, ...)`` for all targets, or each target's own.
            y: Targets ``(B,)`` by name, NaN (regression) or -1 (classes) where a label is missing; None predicts.
        """
        w = self._heads()
        for i, (name, h, plate, labels) in enumerate(rows_by_target(self.trunk, self.n_data, x, y)):
            kind = self.targets[name]
            f = affine(h, w[..., i, :, :])
            with task(name):
                s = self._log_variance(i, name)
                with plate:
                    self._observe(name, kind, f.squeeze(-1) if kind == "regression" else f, s, labels)

    def _heads(self) -> Tensor:
        """W, ``(..., T, C, width + 1)``."""
        like = self.feature_factor
        count, outputs = len(self.targets), 1 if self.class_factor is None else len(self.class_factor)
        chol = pyro.sample("task_cholesky", dist.LKJCholesky(count, like.new_tensor(self.concentration)))
        median = like.new_tensor(self.prior_scale).log()
        log_scale = pyro.sample("task_log_scale", dist.Normal(median, like.new_ones(())).expand([count]).to_event(1))
        white = dist.Normal(like.new_zeros(()), like.new_ones(())).expand([count, outputs, len(like)]).to_event(3)
        z = pyro.sample("heads", white)
        pyro.deterministic("task_correlation", chol @ chol.mT, event_dim=2)
        z = z @ _correlation_factor(self.feature_factor).mT
        if self.class_factor is not None:
            z = _correlation_factor(self.class_factor) @ z
        return torch.einsum("...st,...tcf->...scf", log_scale.exp()[..., None] * chol, z)


def _correlation_factor(below: Tensor) -> Tensor:
    """Cholesky factor of a correlation matrix from entries below a diagonal; zeros give the identity.

    Divided by the square root of their number in a row: an optimizer's steps, of one size for each, must not swamp it.
    """
    eye = torch.eye(len(below), dtype=below.dtype, device=below.device)
    return F.normalize(below.tril(-1) / len(below) ** 0.5 + eye, dim=-1)


class _Guide(nn.Module):
    """The factor of the task correlation, then the other latents.

    Args:
        tasks: Number of tasks T.
        others: Guide of the other latents; the factor is a point if they are.
    """

    def __init__(self, tasks: int, others: MeanField | PointMass) -> None:
        super().__init__()
        self.others = others
        size = tasks * (tasks - 1) // 2
        self.loc = nn.Parameter(torch.zeros(size))
        point = isinstance(others, PointMass)
        self.rho = None if point else nn.Parameter(torch.full((size,), _START).expm1().log())

    def forward(self, *args: Any, **kwargs: Any) -> None:
        to_factor = transforms.CorrCholeskyTransform()
        if self.rho is None:
            pyro.sample("task_cholesky", dist.Delta(to_factor(self.loc), event_dim=2))
        else:
            normal = dist.Normal(self.loc, F.softplus(self.rho)).to_event(1)
            pyro.sample("task_cholesky", dist.TransformedDistribution(normal, [to_factor]))
        self.others()
