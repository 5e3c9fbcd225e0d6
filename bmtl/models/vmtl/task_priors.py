"""The priors of w and z that other tasks' posteriors make."""

from collections.abc import Iterable, Mapping

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from bmtl.models.networks.gaussian import Moments
from bmtl.models.vmtl.mixing import Mixing, Temperature, Weights, mixing
from bmtl.models.vmtl.priors import Components, Level, Rule, combine
from bmtl.models.vmtl.rows import Rows
from bmtl.models.vmtl.support import AttentionWeights, Support


class TaskPriors(nn.Module):
    """Weights of the others, and the rule that combines their posteriors; see `VMTL` for the options.

    Args:
        names: The tasks, from two.
        scales: Standard deviation of the anchor, for each latent that is Gaussian ("w", "z").
        rule: How posteriors are combined.
        anchor: Share of the anchor.
        tight: Bound a mixture's divergence in closed form.
        level: What one choice of a mixture's component covers.
        weights: Kind of weights.
        tie_weights: One set of weights for w and z.
        temperature: Of the weights.
    """

    others: Tensor

    def __init__(
        self,
        names: tuple[str, ...],
        scales: dict[str, float],
        *,
        rule: Rule,
        anchor: float,
        tight: bool,
        level: Level,
        weights: Weights,
        tie_weights: bool,
        temperature: float | Temperature,
    ) -> None:
        super().__init__()
        if not 0 <= anchor < 1:
            raise ValueError(f"anchor is the share of one component, from 0 and below 1, and {anchor} was given.")
        if len(names) < 2:
            raise ValueError(f"prior='tasks' needs another task, and only {names[0]!r} was given. Use 'normal'.")
        self.scales, self.rule, self.anchor, self.tight, self.level = scales, rule, anchor, tight, level
        sites = {"alpha": tuple(scales)} if tie_weights else {f"alpha_{name}": (name,) for name in scales}
        self.mixings = nn.ModuleDict({site: mixing(weights, len(names), temperature) for site in sites})
        self.site = {name: site for site, latents in sites.items() for name in latents}
        tasks = torch.arange(len(names))
        others = torch.stack([tasks[tasks != t] for t in tasks])
        self.register_buffer("others", others, persistent=False)

    def sites(self) -> Iterable[tuple[str, Mixing]]:
        """The weights by the name of their site."""
        return self.mixings.items()  # type: ignore[return-value]

    def w(self, weights: Tensor, posteriors: Moments) -> TorchDistribution:
        """The prior of w, batch ``(T, 1)``.

        Args:
            weights: ``(T, 1, T - 1)``.
            posteriors: Mean and variance ``(T, C, H)``.
        """
        loc, variance = (part[self.others].unsqueeze(1) for part in posteriors if part is not None)
        return self._combined("w", weights, loc, variance, 2)

    def z(self, weights: Tensor, answers: Moments, rows: Rows) -> TorchDistribution:
        """The prior of z, batch ``(T, B)``.

        Args:
            weights: ``(T, 1, T - 1)``.
            answers: Mean and variance of z at what `answers` gives, ``(R, T - 1, H)`` or ``(B, T, H)``.
            rows: The R rows.
        """
        if answers[0].shape[1] == len(self.others):
            loc, variance = (part[:, self.others].transpose(0, 1) for part in answers if part is not None)
        else:
            loc, variance = (
                rows.pad(part.split(rows.sizes), fill)
                for part, fill in zip(answers, (0.0, 1.0), strict=True)
                if part is not None
            )
        return self._combined("z", weights, loc, variance, 1)

    def answers(self, rows: Rows, labels: Tensor, support: Support, by_class: bool) -> AttentionWeights:
        """What each other task answers to each of the R rows; for all tasks once, where they ask about the same B rows.

        Args:
            rows: The rows.
            labels: ``(T, B)``.
            support: The rows that answer.
            by_class: Only rows of the same class answer.
        """
        if rows.common and not by_class:
            every = torch.arange(len(self.others), device=rows.packed.device)
            return support.attention(rows.packed, every.expand(len(rows.packed), -1), None)
        x = torch.cat(list(rows.inputs.values()))
        task = torch.cat([torch.full((size,), t, device=x.device) for t, size in enumerate(rows.sizes)])
        label = torch.cat([row[:n] for row, n in zip(labels, rows.sizes, strict=True)]) if by_class else None
        return support.attention(x, self.others[task], label)

    def _combined(self, name: str, weights: Tensor, loc: Tensor, variance: Tensor, event_dim: int) -> TorchDistribution:
        components = Components(weights, loc, variance, event_dim).with_anchor(self.anchor, self.scales[name])
        return combine(self.rule, components, level=self.level, tight=self.tight)

    def relatedness(self, draws: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """For w and z, the share of each source in each task's prior, ``(T, T + 1)``, the anchor last; rows sum to 1.

        Args:
            draws: Draws of the weights' sites, ``(S, T, 1, T - 1)``, for shares ``(S, T, T + 1)``; None gives those of the
                weights' mean under the guide.
        """
        found = {}
        for name, site in self.site.items():
            mixing: Mixing = self.mixings[site]  # type: ignore[assignment]
            weights = mixing.expected() if draws is None else mixing.from_site(draws[site]).squeeze(-2)
            share = (1 - self.anchor) * weights
            anchor = share.new_full((*share.shape[:-1], 1), self.anchor)
            full = share.new_zeros(*share.shape[:-1], share.shape[-2])
            full = full.scatter(-1, self.others.expand(share.shape), share)
            found[name] = torch.cat([full, anchor], -1)
        return found
