"""The terms of importance-weighted bounds (IWAE, Renyi) by task."""

import math
from typing import NamedTuple

import torch
from pyro.distributions.util import is_identically_zero
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from bmtl.inference.losses import TaskLosses
from bmtl.inference.program_warnings import ProgramWarnings
from bmtl.inference.shared_representation import SharedRepresentation
from bmtl.inference.site_tasks import Site, SiteTask
from bmtl.inference.trace_walk import TraceWalk
from bmtl.labels import PARTICLE_PLATE


class ImportanceWalk(TraceWalk):
    """Adds up the terms of the variational Renyi bound (Li and Turner 2016, equation 9).

    Over S particles it is

        L = log(1/S sum_s w_s^(1 - alpha)) / (1 - alpha),    w = p(x, z) / q(z),

    and alpha = 0 is the bound of importance-weighted autoencoders (Burda et al. 2016).

    With normalised weights v_s in proportion to w_s^(1 - alpha), the gradient of L is sum_s v_s grad log w_s. As log w is a
    sum over sites, each task's likelihood is its mean over particles under v, and so are the divergences; the weights have
    no gradient. What remains of L, sum_s v_s log w_s - L, is a number without a gradient, 0 for one particle, and is shared.
    Values and gradients add up to those of Pyro's `RenyiELBO`. As there, rows of a plate that all sites lie in have weights
    of their own, and what a plate scales a density up by is inside log w.

    Args:
        alpha: The order, any number but 1.
        max_plate_nesting: The model's number of nested plates, for shape checks.
        warnings: What is to be said of the programs.
    """

    def __init__(self, alpha: float, max_plate_nesting: float, warnings: ProgramWarnings) -> None:
        super().__init__(False, max_plate_nesting, warnings)
        self.alpha = alpha
        self._particles: list[list[_Term]] = []
        self._common: set[int] = set()  # dimensions of the plates that all sites lie in
        self._particle_dim: int | None = None

    def add(self, model_trace: Trace, guide_trace: Trace) -> None:
        """Adds the terms of a pair of traces.

        Raises:
            ValueError: If a site cannot be taken, with its name.
        """
        self._take(model_trace, guide_trace)
        self._find_common_plates(model_trace)
        owners: dict[str, SiteTask] = {}
        terms: list[_Term] = []
        for name, site in model_trace.nodes.items():
            if site["type"] != "sample" or site_is_subsample(site):
                continue
            owner = owners[name] = self._owner(site)
            terms.append(self._term(owner, site["is_observed"], self._log_prob(model_trace, name, site)))
            if site["is_observed"]:
                self._counts.add(owner, site)
                if not owner.names:
                    self.warnings.outside_tasks(site)
        for name, site in guide_trace.nodes.items():
            if site["type"] != "sample" or site_is_subsample(site):
                continue
            if name not in owners:
                owners[name] = self._owner_of_auxiliary(name, guide_trace, owners)
            terms.append(self._term(owners[name], False, self._log_q(name, site)))
        self._particles.append(terms)

    def losses(self, particles: int, vectorized: bool, marks: SharedRepresentation) -> TaskLosses:
        """All terms, weighted means over particles.

        Args:
            particles: Number of particles.
            vectorized: They lie side by side in one pair of traces.
            marks: What the programs marked as shared.
        """
        log_w = torch.stack(
            torch.broadcast_tensors(*(sum((t.of_units for t in terms), torch.zeros(())) for terms in self._particles))
        )
        dim = 0 if self._particle_dim is None else self._particle_dim
        tempered = (1.0 - self.alpha) * log_w
        weights = tempered.softmax(dim)
        bound = (tempered.logsumexp(dim) - math.log(particles)) / (1.0 - self.alpha)
        self._kl.add(SiteTask(), (weights * log_w).sum() - bound.sum())
        for weight, terms in zip(weights.unbind(), self._particles, strict=True):
            for term in terms:
                (self._nll if term.observed else self._kl).add(term.owner, -(weight * term.value))
        return self._record(1, particles if self._particle_dim is not None else 1, marks)

    def _term(self, owner: SiteTask, observed: bool, value: Tensor) -> "_Term":
        summed = _summed(value, self._common if owner.dim is None else self._common | {owner.dim})
        return _Term(owner, observed, summed, _summed(summed.detach(), self._common))

    def _log_q(self, name: str, site: Site) -> Tensor:
        """A guide's density as it enters log w; of draws that are not reparameterised with the gradient of score terms."""
        parts = self._score_parts(name, site)
        log_q: Tensor = parts.log_prob
        if is_identically_zero(parts.score_function):
            return -log_q
        return -log_q.detach() + self.alpha / (1.0 - self.alpha) * (log_q - log_q.detach())

    def _find_common_plates(self, model_trace: Trace) -> None:
        stacks = [
            {frame for frame in site["cond_indep_stack"] if frame.vectorized}
            for site in model_trace.nodes.values()
            if site["type"] == "sample" and not site_is_subsample(site)
        ]
        common = set.intersection(*stacks) if stacks else set()
        self._common = {frame.dim for frame in common if frame.dim is not None}
        self._particle_dim = next((frame.dim for frame in common if frame.name == PARTICLE_PLATE), None)


class _Term(NamedTuple):
    """A site's part of log w.

    Attributes:
        owner: Its task.
        observed: It is a likelihood.
        value: By rows of the plates that all sites lie in, and by task.
        of_units: By those rows alone, without a gradient.
    """

    owner: SiteTask
    observed: bool
    value: Tensor
    of_units: Tensor


def _summed(value: Tensor, kept: set[int]) -> Tensor:
    """Summed over all dimensions but some, counted from the right, which stay in their places."""
    over = [dim for dim in range(-value.dim(), 0) if dim not in kept]
    return value.sum(over, keepdim=True) if over else value
