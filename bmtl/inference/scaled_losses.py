"""From the raw terms of a batch to the losses per datum that a balancer sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from bmtl.inference import distributed
from bmtl.inference.balancing.base import Objective
from bmtl.inference.elbo import TaskELBO
from bmtl.inference.losses import TaskLosses, TaskTerms


@dataclass(frozen=True)
class ScaledLosses:
    """The terms of one batch, divided by numbers of data. All ``(K,)`` float64 on the host, K the batch's tasks.

    Where several processes train together, values are those of their batches joined, and the graph is of this one's.

    Attributes:
        raw: The terms before.
        kl_included: A task's own KL goes with its likelihood.
        values: Task losses.
        kl: KL divergences of the tasks' own latents.
        unweighted_terms: Sum of the terms of weight 1.
        present: Which tasks have a labelled row, bool.
        divisor: What each task's likelihood is divided by.
        kl_divisor: What each task's KL is divided by.
        unlabelled_factors: Which absent tasks have a likelihood term all the same (a factor); its weight is 1, bool.
        n_data: What the shared KL is divided by.
        process_weight: Weight of this process's terms in the mean over processes; 1 where batches are equally large.
    """

    raw: TaskLosses
    kl_included: bool
    values: Tensor
    kl: Tensor
    unweighted_terms: float
    present: Tensor
    divisor: Tensor
    kl_divisor: Tensor
    unlabelled_factors: Tensor
    n_data: float
    process_weight: Tensor

    @classmethod
    def of(
        cls, losses: TaskLosses, elbo: TaskELBO, known: Mapping[str, float] | None = None, joined: bool = True
    ) -> "ScaledLosses":
        """Divides a batch's terms as `TaskELBO` says; one transfer to the host.

        Args:
            losses: The terms.
            elbo: How they were estimated.
            known: Number of data of each task in an earlier batch, for the tasks of which this batch tells nothing.
            joined: Join the batches of all processes that train together; else this one's alone.

        With ``normalize="per_datum"`` one number divides everything (the mean number of data of the tasks), so that equal
        weights give the ELBO's own step. With ``normalize="task_mean"`` each likelihood is a mean over its task's
        labelled rows.
        """
        terms = _joined(losses) if joined and distributed.world_size() > 1 else _own(losses)
        nll, kl, shared, counts = terms.nll, terms.kl, terms.shared, terms.counts
        numbers = numbers_of_data(losses.names, terms.sizes, elbo.n_data, known)
        sizes = torch.tensor([numbers[name] for name in losses.names], dtype=torch.float64)
        n_data = sum(numbers.values()) / len(numbers)
        present = counts > 0
        if elbo.normalize == "task_mean":
            divisor, own = torch.where(present, counts, 1.0), sizes
        else:
            divisor = own = torch.full_like(sizes, n_data)
        values, kl = nll / divisor, kl / own
        kl_included = elbo.balanced == "elbo"
        # An absent task keeps its prior, and its factors, at weight 1.
        loose = ~present & (nll != 0)
        rest = shared / n_data + ((kl[~present] if kl_included else kl).sum() + (nll / own)[loose].sum()).item()
        values = values + kl if kl_included else values
        return cls(losses, kl_included, values, kl, rest, present, divisor, own, loose, n_data, terms.process_weight)

    def only(self, present: Tensor) -> "ScaledLosses":
        """The same terms with these tasks present ``(K,)`` at most; what is left out keeps its prior and no likelihood."""
        gone = self.present & ~present
        rest = self.unweighted_terms
        if self.kl_included and gone.any():
            rest += self.kl[gone].sum().item()
        return replace(self, present=self.present & present, unweighted_terms=rest)

    def objective(self, parameter_names: Mapping[int, str], scale: float = 1.0) -> Objective:
        """The graph of the present tasks' losses and of the terms of weight 1, for a balancer.

        Args:
            parameter_names: Names of the model's and guide's parameters by their `id`.
            scale: What the gradients are multiplied by, so that float16 can hold them.
        """
        raw, share = self.raw, self.process_weight * scale
        own = self.kl_divisor / share
        here = self.present.nonzero().flatten().tolist()
        absent = (~self.present).nonzero().flatten().tolist()
        rows = raw.nll_terms.take(here)
        rest = [raw.shared / (self.n_data / scale)] if raw.shared.requires_grad else []
        if raw.kl.requires_grad:
            each = (1.0 / own).to(raw.kl)
            if not self.kl_included:
                rest.append(raw.kl @ each)
            else:
                ratio = (self.divisor / self.kl_divisor).tolist()
                rows = TaskTerms(
                    [row + raw.kl_terms.parts[k] * ratio[k] for row, k in zip(rows.parts, here, strict=True)]
                )
                rest += [raw.kl_terms.parts[k] * each[k] for k in absent]
        loose = self.unlabelled_factors.nonzero().flatten().tolist()
        rest += [raw.nll_terms.parts[k] / own[k].item() for k in loose]
        scores = None
        if raw.score is not None:
            kl = raw.score.kl / own.to(raw.score.kl)
            scores = raw.score.nll[here]
            rest.append(raw.score.shared / (self.n_data / scale))
            rest += [raw.score.nll[k] / own[k].item() for k in loose]
            if self.kl_included:
                scores = scores + (raw.score.kl / self.kl_divisor.to(kl) * self.divisor.to(kl))[here]
                rest.append(kl[absent].sum())
            else:
                rest.append(kl.sum())
        rest = [term for term in rest if term.requires_grad]
        return Objective(
            names=tuple(raw.names[k] for k in here),
            losses=self.values if not absent else self.values[here],
            rows=rows,
            per_datum_scale=share / self.divisor if not absent else (share / self.divisor)[here],
            unweighted_terms=torch.stack(rest).sum() if len(rest) > 1 else rest[0] if rest else None,
            scores=scores,
            marks=raw.marks,
            parameter_names=parameter_names,
            scale=scale,
        )


class _Terms(NamedTuple):
    """A batch's terms as numbers ``(K,)``, float64 on the host."""

    nll: Tensor
    kl: Tensor
    shared: float
    counts: Tensor
    sizes: Sequence[float]
    process_weight: Tensor


def _own(losses: TaskLosses) -> _Terms:
    k = len(losses.names)
    host = torch.cat([losses.nll, losses.kl, losses.shared.reshape(1), losses.counts]).detach().cpu().double()
    share = torch.ones(k, dtype=torch.float64)
    return _Terms(host[:k], host[k : 2 * k], host[2 * k].item(), host[2 * k + 1 :], losses.sizes, share)


def _joined(losses: TaskLosses) -> _Terms:
    """The terms of all processes' batches as one batch.

    A plate scales its B rows up by N / B, and those of all processes together by N / sum B: a process's terms count in
    proportion to its B, which is 1 / scale. A process whose program did not visit a task has no rows of it.
    """
    nll, kl, shared, counts, sizes, _ = _own(losses)
    size = torch.tensor(sizes, dtype=torch.float64)
    scales = losses.scales.detach().cpu().double()
    # Next to nothing in place of 0 rows: where nobody has any, a task's own KL is still the mean over the processes.
    rows = torch.where((size > 0) & (scales > 0), 1.0 / scales, 1e-200)
    local = torch.cat([rows * nll, rows * kl, rows * counts, rows, size, (size > 0).double(), torch.tensor([shared])])
    total = distributed.sum_(local)
    *parts, rest = total.split([len(nll)] * 6 + [1])
    nll, kl, counts, all_rows, size, declared = parts
    world = distributed.world_size()
    sizes = (size / declared.clamp_min(1.0)).tolist()
    shares = rows * world / all_rows
    return _Terms(nll / all_rows, kl / all_rows, rest.item() / world, counts / all_rows, sizes, shares)


def declared_sizes(losses: TaskLosses) -> Sequence[float]:
    """Number of data of each task that the plates declare, in any of the processes; 0 where none does."""
    return _joined(losses).sizes if distributed.world_size() > 1 else losses.sizes


def numbers_of_data(
    names: Sequence[str],
    sizes: Sequence[float],
    n_data: int | Mapping[str, int] | None,
    known: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Number of data of every task: as given, else as the plates declare, else as known from an earlier batch.

    A task of which nothing tells is taken to have as many as the others have on average.

    Args:
        names: The tasks.
        sizes: What the plates declare, 0 for nothing.
        n_data: Number of data of all tasks, or by task.
        known: Number of data of each task in an earlier batch.
    """
    if isinstance(n_data, Mapping):
        missing = [name for name in names if name not in n_data]
        if missing:
            raise ValueError(f"n_data names {sorted(n_data)}, and the model also has the tasks {missing}.")
        return {name: float(n_data[name]) for name in names}
    if n_data is not None:
        return dict.fromkeys(names, float(n_data))
    declared = {name: size for name, size in zip(names, sizes, strict=True) if size}
    found = {**(known or {}), **declared}
    mean = sum(found.values()) / len(found) if found else 1.0
    return {name: found.get(name, mean) for name in names}
