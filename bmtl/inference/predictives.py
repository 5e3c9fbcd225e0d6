"""What is drawn from fitted models, and draws of several models as one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from bmtl.inference.accumulator import entropy
from bmtl.targets.prediction import Law, Prediction


@dataclass(frozen=True, eq=False)
class Draws:
    """What was drawn, in the model's scaled units: S draws of the posterior, and predictions of each target's rows.

    Without latents one pass gives densities and law, which then have one component, and all draws of y.

    Attributes:
        posterior: Global latents by site ``(S, ...)``, chain after chain; empty for a point-mass model.
        targets: Target -> what is predicted of its rows. Draws, components of the law and densities are in the posterior's
            order. A vector has mean, variances and draws of each component ``(N, d)``, one density a row.
        log_p: Log joint density of each draw's latents and all labels ``(S,)``; None without latents or labels.
        log_q: Log density of the guide at each draw ``(S,)``; None as `log_p`, and where the draws are not a guide's.
        chains: Number of chains that the draws are of, each S / chains one after another: 1 for a guide, whose draws are
            independent.
        sample_stats: What the sampler said of each draw ``(S,)``, such as "diverging" and "energy"; empty for a guide.
    """

    posterior: dict[str, np.ndarray] = field(default_factory=dict)
    targets: dict[str, Prediction] = field(default_factory=dict)
    log_p: np.ndarray | None = None
    log_q: np.ndarray | None = None
    chains: int = 1
    sample_stats: dict[str, np.ndarray] = field(default_factory=dict)

    def without(self, names: Collection[str]) -> Self:
        """The same without some targets."""
        return replace(self, targets={name: of for name, of in self.targets.items() if name not in names})


def concatenated(parts: Sequence[Draws]) -> Draws:
    """Draws for consecutive rows as those for all of them: of one posterior, whose draws each part holds.

    Densities of latents and labels together are those of a part alone, and left out where there are several.
    """
    if len(parts) == 1:
        return parts[0]
    targets = {name: Prediction.concatenate([part.targets[name] for part in parts]) for name in parts[0].targets}
    return replace(parts[0], targets=targets, log_p=None, log_q=None)


def merge_targets(parts: Sequence[Draws], names: Sequence[Sequence[str]] | None = None) -> Draws:
    """Draws of models of different targets as one; densities of all latents together, and sampler statistics, are left out.

    A site that several parts have is named after the part's targets too: ``w`` of a model of "depth" is ``w_depth``.

    Args:
        parts: One or more.
        names: Targets of each part's model, where its draws do not hold all of them.

    Raises:
        ValueError: If two parts predict one target, or they have different numbers of chains.
    """
    targets = [target for part in parts for target in part.targets]
    if len(set(targets)) < len(targets):
        raise ValueError(
            f"Draws that are merged have targets of their own; got {[list(part.targets) for part in parts]}."
        )
    if len({part.chains for part in parts}) > 1:
        raise ValueError(f"Draws that are merged have equally many chains; got {[part.chains for part in parts]}.")
    names = [list(part.targets) for part in parts] if names is None else names
    sites = [site for part in parts for site in part.posterior]
    return Draws(
        posterior={
            site if sites.count(site) == 1 else f"{site}_{'+'.join(of)}": values
            for part, of in zip(parts, names, strict=True)
            for site, values in part.posterior.items()
        },
        targets={name: prediction for part in parts for name, prediction in part.targets.items()},
        chains=parts[0].chains if parts else 1,
    )


def mixture(members: Sequence[Draws]) -> Draws:
    """The equal mixture of several fitted models' predictives for the same rows: a deep ensemble.

    Args:
        members: One or more, with the same targets and numbers of draws.

    Raises:
        ValueError: If there is no member, or their targets differ.
    """
    if not members or any(list(member.targets) != list(members[0].targets) for member in members):
        raise ValueError(f"An ensemble's members predict the same targets; got {[list(m.targets) for m in members]}.")
    if len(members) == 1:
        return members[0]
    return Draws(targets={name: _mixed([member.targets[name] for member in members]) for name in members[0].targets})


def _mixed(members: Sequence[Prediction]) -> Prediction:
    """The equal mixture of predictions of the same rows."""

    def known(name: str) -> list[np.ndarray] | None:
        """A field of all members; None where one lacks it."""
        found = [getattr(member, name) for member in members]
        return None if any(value is None for value in found) else found

    def averaged(name: str) -> np.ndarray | None:
        found = known(name)
        return None if found is None else np.mean(found, axis=0)

    laws = [member.law for member in members if member.law is not None]
    densities = known("log_likelihood")
    means, probability, aleatoric, epistemic = (
        averaged(name) for name in ("mean", "probability", "aleatoric", "epistemic")
    )
    if probability is not None and aleatoric is not None:
        epistemic = np.maximum(entropy(probability) - aleatoric, 0.0)
    elif epistemic is not None and means is not None:
        epistemic = epistemic + np.var(known("mean"), axis=0)  # type: ignore[arg-type]
    return Prediction(
        draws=np.concatenate([member.draws for member in members]),
        mean=means,
        probability=probability,
        law=Law.mixture(laws) if len(laws) == len(members) and len({law.name for law in laws}) == 1 else None,
        aleatoric=aleatoric,
        epistemic=epistemic,
        log_likelihood=None if densities is None else np.concatenate(densities),
        pit=averaged("pit"),
    )
