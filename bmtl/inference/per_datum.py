"""From the raw terms of a batch to the losses per datum that a balancer sees."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bmtl.inference.balancing.base import Objective
from bmtl.inference.elbo import TaskELBO
from bmtl.inference.losses import Rows, TaskLosses


@dataclass(frozen=True)
class PerDatum:
    """The terms of one batch, divided by numbers of data. All ``(K,)`` float64 on the host, K the batch's tasks.

    Attributes:
        raw: The terms before.
        by_elbo: A task's own KL goes with its likelihood.
        values: Task losses.
        rest: Sum of the terms of weight 1.
        present: Which tasks have a labelled row, bool.
        divisor: What each task's likelihood is divided by.
        own: What each task's KL is divided by.
        loose: Which absent tasks have a likelihood term all the same (a factor); its weight is 1, bool.
        all_data: What the shared KL is divided by.
    """

    raw: TaskLosses
    by_elbo: bool
    values: Tensor
    rest: float
    present: Tensor
    divisor: Tensor
    own: Tensor
    loose: Tensor
    all_data: float

    @classmethod
    def of(cls, losses: TaskLosses, elbo: TaskELBO, known: Mapping[str, float] | None = None) -> "PerDatum":
        """Divides a batch's terms as `TaskELBO` says; one transfer to the host.

        Args:
            losses: The terms.
            elbo: How they were estimated.
            known: Number of data of each task in an earlier batch, for the tasks of which this batch tells nothing.

        With ``weigh="data"`` one number divides everything (the mean number of data of the tasks), so that equal weights
        give the ELBO's own step. With ``weigh="tasks"`` each likelihood is a mean over its task's labelled rows.
        """
        k = len(losses.names)
        host = torch.cat([losses.nll, losses.kl, losses.shared.reshape(1), losses.counts]).detach().cpu().double()
        nll, kl, shared, counts = host[:k], host[k : 2 * k], host[2 * k].item(), host[2 * k + 1 :]
        numbers = numbers_of_data(losses, elbo.n_data, known)
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
        return cls(losses, by_elbo, values + kl if by_elbo else values, rest, present, divisor, own, loose, all_data)

    def only(self, present: Tensor) -> "PerDatum":
        """The same terms with these tasks present ``(K,)`` at most; what is left out keeps its prior and no likelihood."""
        gone = self.present & ~present
        rest = self.rest
        if self.by_elbo and gone.any():
            rest += (self.raw.kl.detach().cpu().double() / self.own)[gone].sum().item()
        return replace(self, present=self.present & present, rest=rest)

    def objective(self, parameter_names: Mapping[int, str]) -> Objective:
        """The graph of the present tasks' losses and of the terms of weight 1, for a balancer."""
        raw = self.raw
        here = self.present.nonzero().flatten().tolist()
        absent = (~self.present).nonzero().flatten().tolist()
        rows = raw.nll_rows.take(here)
        rest = [raw.shared / self.all_data] if raw.shared.requires_grad else []
        if raw.kl.requires_grad:
            each = (1.0 / self.own).to(raw.kl)
            if not self.by_elbo:
                rest.append(raw.kl @ each)
            else:
                ratio = (self.divisor / self.own).tolist()
                rows = Rows([row + raw.kl_rows.parts[k] * ratio[k] for row, k in zip(rows.parts, here, strict=True)])
                rest += [raw.kl_rows.parts[k] * each[k] for k in absent]
        loose = self.loose.nonzero().flatten().tolist()
        rest += [raw.nll_rows.parts[k] / self.own[k].item() for k in loose]
        scores = None
        if raw.score is not None:
            kl = raw.score.kl / self.own.to(raw.score.kl)
            scores = raw.score.nll[here]
            rest.append(raw.score.shared / self.all_data)
            rest += [raw.score.nll[k] / self.own[k].item() for k in loose]
            if self.by_elbo:
                scores = scores + (kl * self.divisor.to(kl))[here]
                rest.append(kl[absent].sum())
            else:
                rest.append(kl.sum())
        rest = [term for term in rest if term.requires_grad]
        return Objective(
            names=tuple(raw.names[k] for k in here),
            losses=self.values if not absent else self.values[here],
            rows=rows,
            units=1.0 / (self.divisor if not absent else self.divisor[here]),
            rest=torch.stack(rest).sum() if len(rest) > 1 else rest[0] if rest else None,
            scores=scores,
            marks=raw.marks,
            parameter_names=parameter_names,
        )


def numbers_of_data(
    losses: TaskLosses, n_data: int | Mapping[str, int] | None, known: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Number of data of every task: as given, else as the plates declare, else as known from an earlier batch.

    A task of which nothing tells is taken to have as many as the others have on average.
    """
    names = losses.names
    if isinstance(n_data, Mapping):
        missing = [name for name in names if name not in n_data]
        if missing:
            raise ValueError(f"n_data names {sorted(n_data)}, and the model also has the tasks {missing}.")
        return {name: float(n_data[name]) for name in names}
    if n_data is not None:
        return dict.fromkeys(names, float(n_data))
    declared = {name: size for name, size in zip(losses.names, losses.sizes, strict=True) if size}
    found = {**(known or {}), **declared}
    mean = sum(found.values()) / len(found) if found else 1.0
    return {name: found.get(name, mean) for name in names}
