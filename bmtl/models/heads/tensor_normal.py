"""Heads with a tensor-normal prior, which learns how tasks relate: Long et al. (2017)."""

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from bmtl.models.correlation import correlation_factor
from bmtl.models.guides import Latent
from bmtl.models.heads.base import Heads, affine, check_scale, initial_layers
from bmtl.models.likelihoods import Likelihood
from bmtl.models.likelihoods.alike import check_alike


class TensorNormalHeads(Heads):
    """The heads of T tasks stacked as W ``(T, C, width + 1)``, biases in the last column, C outputs each.

        W ~ TensorNormal(0, S_task, S_class, S_feature), that is Cov(vec W) = S_task (x) S_class (x) S_feature

    written as W = Z with the three Cholesky factors applied along its modes, ``Z ~ Normal(0, 1)``. Scale can move between
    the three, so that classes and features have correlations, which are parameters, and the tasks hold the scale:

        S_task = D R D,  R = task_cholesky task_cholesky' ~ LKJ(concentration),  log D ~ Normal(log prior_scale, 1)

    Tasks related by R pull at each other's heads, in the same direction or in opposite ones. The latents
    ``task_cholesky`` ``(T, T)``, ``task_log_scale`` ``(T,)`` and ``heads`` ``(T, C, width + 1)`` (Z) belong to all tasks
    together, and so does their KL. The site ``task_correlation`` is R, for the results tree.

    Args:
        width: Width of the representation.
        likelihoods: By target, two or more, all of one likelihood and as many outputs.
        concentration: Of R's prior: 1 is uniform over correlation matrices, more draws it to the identity.
        prior_scale: Median of the heads' standard deviation under the prior; ``1 / sqrt(width)`` by default.
        generator: Draws the initial weights; None uses torch's global generator.

    Raises:
        ValueError: If there is one target, if likelihoods differ, or a number is not positive.

    Source:
        Long, Cao, Wang & Yu (2017), "Learning Multiple Tasks with Multilinear Relationship Networks". The paper fits W at
        its maximum a posteriori and the three covariances by maximum likelihood in turns; here W and S_task have
        posteriors, and the guide "point" gives points.
    """

    def __init__(
        self,
        width: int,
        likelihoods: Mapping[str, Likelihood],
        *,
        concentration: float = 1.0,
        prior_scale: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(width, likelihoods)
        kinds = {name: f"{of.name!r} with {of.outputs} outputs" for name, of in likelihoods.items()}
        if len(kinds) < 2:
            raise ValueError(f"Stacked heads are those of two or more targets, and {', '.join(kinds)} was given.")
        check_alike(kinds, "Stacked heads have one likelihood and as many outputs each")
        if not 0 < concentration < float("inf"):
            raise ValueError(f"concentration is above 0 and finite, and {concentration} was given.")
        self.concentration, self.prior_scale = concentration, check_scale(prior_scale, width)
        outputs = next(iter(likelihoods.values())).outputs
        rows: dict[str, list[Tensor]] = {name: [] for name in likelihoods}
        for name, layer in initial_layers(width, likelihoods, generator):
            rows[name].append(torch.cat([layer.weight, layer.bias[:, None]], 1).detach())
        self.start = torch.stack([torch.cat(parts) for parts in rows.values()]) / self.prior_scale
        self.feature_factor = nn.Parameter(torch.zeros(width + 1, width + 1))
        # One output has nothing to correlate.
        self.class_factor = nn.Parameter(torch.zeros(outputs, outputs)) if outputs > 1 else None

    def start_near_zero(self, share: float) -> None:
        self.start = share * self.start

    def joint_latents(self) -> dict[str, Latent]:
        count = len(self.targets)
        return {
            "task_cholesky": Latent(torch.eye(count), form="correlation"),
            "task_log_scale": Latent(torch.full((count,), self.prior_scale).log()),
            "heads": Latent(self.start),
        }

    def joint(self) -> Tensor:
        """W, ``(..., T, C, width + 1)``."""
        like = self.feature_factor
        count, outputs = self.start.shape[:2]
        chol = pyro.sample("task_cholesky", dist.LKJCholesky(count, like.new_tensor(self.concentration)))
        median = like.new_tensor(self.prior_scale).log()
        log_scale = pyro.sample("task_log_scale", dist.Normal(median, like.new_ones(())).expand([count]).to_event(1))
        white = dist.Normal(like.new_zeros(()), like.new_ones(())).expand([count, outputs, len(like)]).to_event(3)
        z = pyro.sample("heads", white)
        pyro.deterministic("task_correlation", chol @ chol.mT, event_dim=2)
        z = z @ correlation_factor(self.feature_factor).mT
        if self.class_factor is not None:
            z = correlation_factor(self.class_factor) @ z
        return torch.einsum("...st,...tcf->...scf", log_scale.exp()[..., None] * chol, z)

    def forward(self, target: str, h: Tensor, joint: Tensor) -> Tensor:
        return affine(h, joint[..., self.targets.index(target), :, :])
