"""From the raw terms of a batch to the losses per datum that a balancer sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from bmtl.inference import distributed
from bmtl.inference.balancing.base import Objective
from bmtl.inference.elbo import TaskELBO
from bmtl.inference.losses import TaskLosses, TaskTerms
from bmtl.inference.numbers_of_data import BatchCounts, NumbersOfData

_HOST = torch.device("cpu")


@dataclass(frozen=True)
class ScaledLosses:
    """The terms of one batch, divided by numbers of data; K are the batch's tasks.

    They are Python's numbers, which a step handles faster than tensors of K elements. Where several processes train
    together, values are those of their batches joined, and the graph is of this one's.

    Attributes:
        raw: The terms before.
        kl_included: A task's own KL goes with its likelihood.
        values: Task losses, as transforms and records see them, float64 on the host ``(K,)``.
        kl: KL divergences of the K tasks' own latents.
        unweighted_terms: Sum of the terms of weight 1.
        present: Which tasks have a labelled row, bool ``(K,)``.
        divisors: What each task's likelihood, in the loss whose gradient is taken, and its KL are divided by.
        unlabelled_factors: Absent tasks that have a likelihood term all the same (a factor); its weight is 1.
        n_data: What the shared KL is divided by.
        process_weights: Weight of this process's terms of each task in the mean over processes; 1 where batches are equally
            large.
    """

    raw: TaskLosses
    kl_included: bool
    values: Tensor
    kl: Sequence[float]
    unweighted_terms: float
    present: Tensor
    divisors: Sequence[float]
    unlabelled_factors: Sequence[int]
    n_data: float
    process_weights: Sequence[float]

    @classmethod
    def of(
        cls,
        losses: TaskLosses,
        elbo: TaskELBO,
        numbers: NumbersOfData | None = None,
        *,
        joined: bool = True,
        training: bool = False,
    ) -> "ScaledLosses":
        """Divides a batch's terms as `TaskELBO` says; one transfer to the host.

        With ``normalize="per_datum"`` one number divides everything (the mean number of data of the tasks), so that equal
        weights give the ELBO's own step. With ``normalize="task_mean"`` a loss is a mean over its task's labelled rows: as a
        value that over the batch's, and in the gradient nll_k / M_k, with nll_k scaled up by the plates and M_k the number
        of the task's labelled data. That is unbiased for the mean over all of them, however they fall into batches. A
        task's KL is divided by M_k, the shared KL by the mean of the M_k.

        Args:
            losses: The terms.
            elbo: How they were estimated.
            numbers: Number of data of each task, as known from earlier batches.
            joined: Join the batches of all processes that train together; else this one's alone.
            training: The batch is one of training: its labels are counted, and its plates watched.
        """
        terms = _joined(losses) if joined and distributed.world_size() > 1 else _own(losses)
        numbers = numbers or NumbersOfData()
        nll, kl, counts = terms.nll, terms.kl, terms.counts
        by_task = elbo.normalize == "task_mean"
        if training:
            elbo.watch(losses)
            if by_task:
                numbers.count(losses.names, terms.batch, elbo.n_data)
        if by_task:
            divisors = numbers.labelled(losses.names, terms.batch, elbo.n_data)
            n_data = sum(divisors) / len(divisors)
        else:
            declared = numbers.of_plates(losses.names, terms.batch.sizes, elbo.n_data)
            n_data = sum(declared) / len(declared)
            divisors = [n_data] * len(declared)
        present = [count > 0 for count in counts]
        means = [count if here else 1.0 for count, here in zip(counts, present, strict=True)] if by_task else divisors
        values = [value / number for value, number in zip(nll, means, strict=True)]
        kl = [value / number for value, number in zip(kl, divisors, strict=True)]
        kl_included = elbo.balanced == "elbo"
        # An absent task keeps its prior, and its factors, at weight 1.
        loose = [k for k, here in enumerate(present) if not here and nll[k] != 0]
        rest = terms.shared / n_data
        rest += sum(value for value, here in zip(kl, present, strict=True) if not (kl_included and here))
        rest += sum(nll[k] / divisors[k] for k in loose)
        if kl_included:
            values = [value + own for value, own in zip(values, kl, strict=True)]
        return cls(
            losses,
            kl_included,
            torch.tensor(values, dtype=torch.float64),
            kl,
            rest,
            _constant(tuple(present), torch.bool, _HOST),
            divisors,
            loose,
            n_data,
            terms.process_weights,
        )

    def only(self, present: Tensor) -> "ScaledLosses":
        """The same terms with these tasks present ``(K,)`` at most; what is left out keeps its prior and no likelihood."""
        gone = (self.present & ~present).nonzero().flatten().tolist()
        rest = self.unweighted_terms
        if self.kl_included:
            rest += sum(self.kl[k] for k in gone)
        return replace(self, present=self.present & present, unweighted_terms=rest)

    def objective(self, parameter_names: Mapping[int, str], scale: float = 1.0) -> Objective:
        """The graph of the present tasks' losses and of the terms of weight 1, for a balancer.

        Args:
            parameter_names: Names of the model's and guide's parameters by their `id`.
            scale: What the gradients are multiplied by, so that float16 can hold them.
        """
        raw = self.raw
        shares = [weight * scale / n for weight, n in zip(self.process_weights, self.divisors, strict=True)]
        per_datum = _constant(tuple(shares), torch.float64, _HOST)
        flags = list(enumerate(self.present.tolist()))
        here, absent = [k for k, there in flags if there], [k for k, there in flags if not there]
        rows = raw.nll_terms.take(here)
        rest = [raw.shared / (self.n_data / scale)] if raw.shared.requires_grad else []
        if raw.kl.requires_grad:
            each = _constant(tuple(shares), raw.kl.dtype, raw.kl.device)
            if not self.kl_included:
                rest.append(raw.kl @ each)
            else:
                rows = TaskTerms([row + raw.kl_terms.parts[k] for row, k in zip(rows.parts, here, strict=True)])
                rest += [raw.kl_terms.parts[k] * each[k] for k in absent]
        rest += [raw.nll_terms.parts[k] * shares[k] for k in self.unlabelled_factors]
        scores = None
        if raw.score is not None:
            kl = raw.score.kl * per_datum.to(raw.score.kl)
            scores = raw.score.nll[here]
            rest.append(raw.score.shared / (self.n_data / scale))
            rest += [raw.score.nll[k] * shares[k] for k in self.unlabelled_factors]
            if self.kl_included:
                scores = scores + raw.score.kl[here]
                rest.append(kl[absent].sum())
            else:
                rest.append(kl.sum())
        rest = [term for term in rest if term.requires_grad]
        return Objective(
            names=tuple(raw.names[k] for k in here),
            losses=self.values if not absent else self.values[here],
            rows=rows,
            per_datum_scale=per_datum[here] if absent else per_datum,
            unweighted_terms=torch.stack(rest).sum() if len(rest) > 1 else rest[0] if rest else None,
            scores=scores,
            marks=raw.marks,
            parameter_names=parameter_names,
            scale=scale,
        )


class _Terms(NamedTuple):
    """A batch's terms as numbers of the K tasks."""

    nll: list[float]
    kl: list[float]
    shared: float
    counts: list[float]
    batch: BatchCounts
    process_weights: list[float]


@lru_cache(maxsize=64)
def _constant(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers that are the same in almost every step of a run, as a tensor that is never written to."""
    with torch.inference_mode(False):  # a validation may be the first to need it, and a graph the next
        return torch.tensor(numbers, dtype=dtype, device=device)


def _own(losses: TaskLosses) -> _Terms:
    terms = (losses.nll, losses.kl, losses.labelled, losses.scales, losses.shared.reshape(1))
    found, k = torch.cat([term.detach() for term in terms]).tolist(), len(losses.names)
    nll, kl, labelled, scales = (found[i * k : (i + 1) * k] for i in range(4))
    counts = [number * scale for number, scale in zip(labelled, scales, strict=True)]
    batch = BatchCounts(losses.sizes, labelled, scales, losses.rows)
    return _Terms(nll, kl, found[-1], counts, batch, [1.0] * k)


def _joined(losses: TaskLosses) -> _Terms:
    """The terms of all processes' batches as one batch.

    A plate scales its B rows up by N / B, and those of all processes together by N / sum B: a process's terms count in
    proportion to its B, which is 1 / scale. A process whose program did not visit a task has no rows of it.
    """
    own = _own(losses)
    nll, kl, sizes, labelled, scales, most = (
        torch.tensor(numbers, dtype=torch.float64) for numbers in (own.nll, own.kl, *own.batch)
    )
    # A tiny number in place of 0 rows: where no process has any, a task's own KL is still the mean over the processes.
    rows = torch.where((sizes > 0) & (scales > 0), 1.0 / scales, 1e-200)
    declared = (sizes > 0).double()
    local = [rows * nll, rows * kl, labelled, rows, sizes, declared, most, torch.tensor([own.shared])]
    *parts, rest = distributed.sum_(torch.cat(local)).split([len(nll)] * 7 + [1])
    nll, kl, labelled, all_rows, sizes, declared, most = parts
    world = distributed.world_size()
    batch = (sizes / declared.clamp_min(1.0), labelled, 1.0 / all_rows, most)
    return _Terms(
        (nll / all_rows).tolist(),
        (kl / all_rows).tolist(),
        rest.item() / world,
        (labelled / all_rows).tolist(),
        BatchCounts(*(numbers.tolist() for numbers in batch)),
        (rows * world / all_rows).tolist(),
    )


def declared_sizes(losses: TaskLosses) -> Sequence[float]:
    """Number of data of each task that the plates declare, in any of the processes; 0 where none does."""
    return (_joined if distributed.world_size() > 1 else _own)(losses).batch.sizes
