"""The record of one batch's negative ELBO, term by term and task by task."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from bmtl.inference.marks import Marks


@dataclass(frozen=True)
class ScoreTerms:
    """Score-function terms of latents that cannot be reparameterised; each is 0 in value and a gradient estimate.

    They never enter a balancer's rows, where they would be noise: the balanced step adds them afterwards, each task's
    multiplied by its weight.
    """

    nll: Tensor  # (K,)
    kl: Tensor  # (K,)
    shared: Tensor  # ()


@dataclass(frozen=True)
class TaskLosses:
    """The negative ELBO of one batch, term by term; nothing is divided.

    Attributes:
        names: The K tasks, in the order in which the model first mentions them.
        nll_rows: Expected negative log-likelihood of each task, K scalars; a task without a labelled row has 0.
        kl_rows: KL divergence of each task's own latents, K scalars.
        shared: KL divergence of the shared latents, ``()``.
        labelled: Labelled rows of each task in this batch ``(K,)``.
        scales: What the plates scale each task's rows up by, ``(K,)``.
        sizes: Number of data of each task that the plates declare, K floats; 0 for a task without an observed site.
        score: Score-function terms, or None where every latent is reparameterised.
        marks: The tensors that the programs marked as shared.
    """

    names: tuple[str, ...]
    nll_rows: tuple[Tensor, ...]
    kl_rows: tuple[Tensor, ...]
    shared: Tensor
    labelled: Tensor
    scales: Tensor
    sizes: tuple[float, ...]
    score: ScoreTerms | None = None
    marks: Marks = field(default_factory=Marks)
    traces: tuple[tuple[Trace, Trace], ...] = ()

    @cached_property
    def nll(self) -> Tensor:
        """Expected negative log-likelihood per task ``(K,)``."""
        return torch.stack(self.nll_rows)

    @cached_property
    def kl(self) -> Tensor:
        """KL divergence of each task's own latents ``(K,)``."""
        return torch.stack(self.kl_rows)

    @property
    def counts(self) -> Tensor:
        """Labelled data of each task in this batch, scaled up by the plates ``(K,)``."""
        return self.labelled * self.scales

    @property
    def total(self) -> Tensor:
        """The negative ELBO ``()``, equal to Pyro's estimator in value and in every gradient."""
        total = self.nll.sum() + self.kl.sum() + self.shared
        if self.score is not None:
            total = total + self.score.nll.sum() + self.score.kl.sum() + self.score.shared
        return total

    def nonfinite_sites(self) -> list[str]:
        """Names of the sites whose terms are NaN or infinite, to say where a loss went wrong."""
        found: dict[str, None] = {}
        for traces in self.traces:
            for trace in traces:
                for name, site in trace.nodes.items():
                    for term in (site.get("log_prob"), site.get("kl")):
                        if isinstance(term, Tensor) and not term.isfinite().all():
                            found[name] = None
        return list(found)
