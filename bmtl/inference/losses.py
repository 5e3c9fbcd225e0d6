"""The record of one batch's negative ELBO, term by term and task by task."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from bmtl.inference.shared_representation import SharedRepresentation


@dataclass(frozen=True)
class ScoreTerms:
    """Score-function terms of latents that cannot be reparameterised; each is 0 in value and a gradient estimate.

    They never enter a balancer's rows, where they would be noise: the balanced step adds them afterwards, each task's
    multiplied by its weight.
    """

    nll: Tensor  # (K,)
    kl: Tensor  # (K,)
    shared: Tensor  # ()


class TaskTerms:
    """K scalars in the graph, as they came: one by one, or as one vector from a task plate.

    Scalars kept apart have their own graphs, so that one task's gradient touches nothing of the others.

    Args:
        parts: K scalars, or one tensor ``(K,)``.
    """

    def __init__(self, parts: Sequence[Tensor] | Tensor) -> None:
        self._given = parts

    @property
    def joined(self) -> bool:
        """Whether they came as one tensor."""
        return isinstance(self._given, Tensor)

    @cached_property
    def parts(self) -> tuple[Tensor, ...]:
        """K scalars."""
        return self._given.unbind() if isinstance(self._given, Tensor) else tuple(self._given)

    @cached_property
    def vector(self) -> Tensor:
        """One tensor ``(K,)``."""
        return self._given if isinstance(self._given, Tensor) else torch.stack(self.parts)

    def __len__(self) -> int:
        return len(self._given)

    def __getitem__(self, k: int) -> Tensor:
        return self.parts[k]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.parts)

    def take(self, indices: Sequence[int]) -> "TaskTerms":
        """Some of the rows."""
        return self if len(indices) == len(self) else TaskTerms([self.parts[k] for k in indices])


@dataclass(frozen=True)
class TaskLosses:
    """The negative ELBO of one batch, term by term; nothing is divided.

    Attributes:
        names: The K tasks, in the order of the model's attribute `tasks` where it has one, else in that in which it first
            mentions them.
        nll_terms: Expected negative log-likelihood of each task; a task without a labelled row has 0.
        kl_terms: KL divergence of each task's own latents.
        shared: KL divergence of the shared latents, ``()``.
        labelled: Labelled rows of each task in this batch ``(K,)``.
        scales: What the plates scale each task's rows up by, ``(K,)``.
        sizes: Number of data of each task that the plates declare, K floats; 0 for a task without an observed site.
        rows: Rows of each task in this batch, labelled or not, K floats.
        score: Score-function terms, or None where every latent is reparameterised.
        marks: The tensors that the programs marked as shared.
    """

    names: tuple[str, ...]
    nll_terms: TaskTerms
    kl_terms: TaskTerms
    shared: Tensor
    labelled: Tensor
    scales: Tensor
    sizes: tuple[float, ...]
    rows: tuple[float, ...]
    score: ScoreTerms | None = None
    marks: SharedRepresentation = field(default_factory=SharedRepresentation)
    traces: tuple[tuple[Trace, Trace], ...] = ()

    @property
    def nll(self) -> Tensor:
        """Expected negative log-likelihood per task ``(K,)``."""
        return self.nll_terms.vector

    @property
    def kl(self) -> Tensor:
        """KL divergence of each task's own latents ``(K,)``."""
        return self.kl_terms.vector

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

    def arranged(self, names: tuple[str, ...]) -> "TaskLosses":
        """The same terms for these tasks in this order; a task that the batch did not mention is absent.

        Raises:
            ValueError: If the batch has a task that is not among them.
        """
        if self.names == names:
            return self
        unknown = [name for name in self.names if name not in names]
        if unknown:
            raise ValueError(
                f"The model has tasks that the first batch did not show: {unknown}; known are {list(names)}. Let the model "
                "visit every task in its first batch (labels may be missing)."
            )
        where = [self.names.index(name) if name in self.names else None for name in names]

        def rows(given: TaskTerms, fill: float = 0.0) -> TaskTerms:
            return TaskTerms([self.shared.new_full((), fill) if k is None else given[k] for k in where])

        score = self.score and replace(
            self.score, nll=rows(TaskTerms(self.score.nll)).vector, kl=rows(TaskTerms(self.score.kl)).vector
        )
        return replace(
            self,
            names=names,
            nll_terms=rows(self.nll_terms),
            kl_terms=rows(self.kl_terms),
            labelled=rows(TaskTerms(self.labelled)).vector,
            scales=rows(TaskTerms(self.scales), 1.0).vector,
            sizes=tuple(0.0 if k is None else self.sizes[k] for k in where),
            rows=tuple(0.0 if k is None else self.rows[k] for k in where),
            score=score,
        )

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
