"""From the raw terms of a batch to the losses per datum that a balancer sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from bmtl.inference import ranks
from bmtl.inference.balancing.base import Objective
from bmtl.inference.elbo import TaskELBO
from bmtl.inference.losses import Rows, TaskLosses


@dataclass(frozen=True)
class PerDatum:
    """The terms of one batch, divided by numbers of data. All ``(K,)`` float64 on the host, K the batch's tasks.

    Where several processes train together, values are those of their batches joined, and the graph is of this one's.

    Attributes:
        raw: The terms before.
        by_elbo: A task's own KL goes with its likelihood.
        values: Task losses.
        kl: KL divergences of the tasks' own latents.
        rest: Sum of the terms of weight 1.
        present: Which tasks have a labelled row, bool.
        divisor: What each task's likelihood is divided by.
        own: What each task's KL is divided by.
        loose: Which absent tasks have a likelihood term all the same (a factor); its weight is 1, bool.
        all_data: What the shared KL is divided by.
        share: What this process's terms count in the mean over the processes: 1 for all where batches are equally large.
    """

    raw: TaskLosses
    by_elbo: bool
    values: Tensor
    kl: Tensor
    rest: float
    present: Tensor
    divisor: Tensor
    own: Tensor
    loose: Tensor
    all_data: float
    share: Tensor

    @classmethod
    def of(
        cls, losses: TaskLosses, elbo: TaskELBO, known: Mapping[str, float] | None = None, joined: bool = True
    ) -> "PerDatum":
        """Divides a batch's terms as `TaskELBO` says; one transfer to the host.

        Args:
            losses: The terms.
            elbo: How they were estimated.
            known: Number of data of each task in an earlier batch, for the tasks of which this batch tells nothing.
            joined: Join the batches of all processes that train together; else this one's alone.

        With ``weigh="data"`` one number divides everything (the mean number of data of the tasks), so that equal weights
        give the ELBO's own step. With ``weigh="tasks"`` each likelihood is a mean over its task's labelled rows.
        """
        terms = _joined(losses) if joined and ranks.world() > 1 else _own(losses)
        nll, kl, shared, counts = terms.nll, terms.kl, terms.shared, terms.counts
        numbers = numbers_of_data(losses.names, terms.sizes, elbo.n_data, known)
        sizes = torch.tensor([numbers[name] for name in losses.names], dtype=torch.float64)
        all_data = sum(numbers.values()) / len(numbers)
        present = counts > 0
        if elbo.weigh == "tasks":
            divisor, own = torch.where(present, counts, 1.0), sizes
        else:
            divisor = own = torch.full_like(sizes, all_data)
        values, kl = nll / divisor, kl / own
        by_elbo = elbo.balanced == "elbo"
        # An absent task keeps its prior, and its factors, at weight 1.
        loose = ~present & (nll != 0)
        rest = shared / all_data + ((kl[~present] if by_elbo else kl).sum() + (nll / own)[loose].sum()).item()
        values = values + kl if by_elbo else values
        return cls(losses, by_elbo, values, kl, rest, present, divisor, own, loose, all_data, terms.share)

    def only(self, present: Tensor) -> "PerDatum":
        """The same terms with these tasks present ``(K,)`` at most; what is left out keeps its prior and no likelihood."""
        gone = self.present & ~present
        rest = self.rest
        if self.by_elbo and gone.any():
            rest += self.kl[gone].sum().item()
        return replace(self, present=self.present & present, rest=rest)

    def objective(self, parameter_names: Mapping[int, str], scale: float = 1.0) -> Objective:
        """The graph of the present tasks' losses and of the terms of weight 1, for a balancer.

        Args:
            parameter_names: Names of the model's and guide's parameters by their `id`.
            scale: What the gradients are multiplied by, so that float16 can hold them.
        """
        raw, share = self.raw, self.share * scale
        own = self.own / share
        here = self.present.nonzero().flatten().tolist()
        absent = (~self.present).nonzero().flatten().tolist()
        rows = raw.nll_rows.take(here)
        rest = [raw.shared / (self.all_data / scale)] if raw.shared.requires_grad else []
        if raw.kl.requires_grad:
            each = (1.0 / own).to(raw.kl)
            if not self.by_elbo:
                rest.append(raw.kl @ each)
            else:
                ratio = (self.divisor / self.own).tolist()
                rows = Rows([row + raw.kl_rows.parts[k] * ratio[k] for row, k in zip(rows.parts, here, strict=True)])
                rest += [raw.kl_rows.parts[k] * each[k] for k in absent]
        loose = self.loose.nonzero().flatten().tolist()
        rest += [raw.nll_rows.parts[k] / own[k].item() for k in loose]
        scores = None
        if raw.score is not None:
            kl = raw.score.kl / own.to(raw.score.kl)
            scores = raw.score.nll[here]
            rest.append(raw.score.shared / (self.all_data / scale))
            rest += [raw.score.nll[k] / own[k].item() for k in loose]
            if self.by_elbo:
                scores = scores + (raw.score.kl / self.own.to(kl) * self.divisor.to(kl))[here]
                rest.append(kl[absent].sum())
            else:
                rest.append(kl.sum())
        rest = [term for term in rest if term.requires_grad]
        return Objective(
            names=tuple(raw.names[k] for k in here),
            losses=self.values if not absent else self.values[here],
            rows=rows,
            units=share / self.divisor if not absent else (share / self.divisor)[here],
            rest=torch.stack(rest).sum() if len(rest) > 1 else rest[0] if rest else None,
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
    share: Tensor


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
    total = ranks.sum_(local)
    *parts, rest = total.split([len(nll)] * 6 + [1])
    nll, kl, counts, all_rows, size, declared = parts
    world = ranks.world()
    sizes = (size / declared.clamp_min(1.0)).tolist()
    shares = rows * world / all_rows
    return _Terms(nll / all_rows, kl / all_rows, rest.item() / world, counts / all_rows, sizes, shares)


def declared_sizes(losses: TaskLosses) -> Sequence[float]:
    """Number of data of each task that the plates declare, in any of the processes; 0 where none does."""
    return _joined(losses).sizes if ranks.world() > 1 else losses.sizes


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
