"""How many labelled rows a program's tasks have in a batch, what plates scale them up by, and what the plates declare."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from pyro.distributions import MaskedDistribution, Unit
from torch import Tensor

from bmtl.inference.site_tasks import Site, SiteTask, is_derived, labelled_rows
from bmtl.labels import PARTICLE_PLATE
from bmtl.tasks import is_task_plate

Number = Tensor | float


class Counts(NamedTuple):
    """The labels of K tasks in a batch.

    Attributes:
        labelled: Labelled rows of each task ``(K,)``.
        scales: What plates scale each of a task's rows up by, on average over its labelled rows, ``(K,)``.
        sizes: Number of data of each task that plates declare; 0 for a task without an observed site.
        rows: Rows of each task in this batch, labelled or not.
    """

    labelled: Tensor
    scales: Tensor
    sizes: tuple[float, ...]
    rows: tuple[float, ...]


class LabelCounts:
    """Counts the labelled rows of each task over the observed sites of a program.

    A row counts once, however many sites observe something of it: the sites of a task on the same plates are labelled where
    one of them is. Rows of different plates add up; of plates that lie inside one another the larger count is taken. A
    factor is not a datum, unless its task has nothing else.
    """

    def __init__(self) -> None:
        self._sites: dict[tuple[SiteTask, _Plates], dict[str, Site]] = {}
        self._n_data: dict[str, float] = {}  # of each task, where a task plate says it

    def add(self, owner: SiteTask, site: Site) -> None:
        """Adds an observed site. That of another particle is the same one."""
        if not owner.names or is_derived(site):
            return
        if owner.dim is not None and site.get("task_n_data"):
            self._n_data.update(zip(owner.names, map(float, site["task_n_data"]), strict=True))
        self._sites.setdefault((owner, _Plates.of(site)), {}).setdefault(site["name"], site)

    def of(self, names: tuple[str, ...], particles: int, like: Tensor) -> Counts:
        """The counts of the tasks `names`.

        Args:
            names: The K tasks.
            particles: Number of particles that the sites hold side by side.
            like: A tensor of the wanted dtype and device.
        """
        like = like.to(torch.promote_types(like.dtype, torch.float32))  # float16 ends at 65504
        counts = self._of_one_plate(names, like) or self._of_groups(names, like)
        return counts._replace(labelled=counts.labelled / particles) if particles > 1 else counts

    def _of_one_plate(self, names: tuple[str, ...], like: Tensor) -> Counts | None:
        """The counts where all tasks are rows of one plate and have one site, the usual case; otherwise None."""
        if len(self._sites) != 1:
            return None
        (((owner, plates), sites),) = self._sites.items()
        if owner.dim is None or owner.names != names or len(sites) > 1 or plates.turns > 1:
            return None
        labelled, scale = _union(list(sites.values()), owner)
        if isinstance(scale, Tensor):
            return None
        return Counts(
            labelled=labelled.to(like) if isinstance(labelled, Tensor) else like.new_full((len(names),), labelled),
            scales=like.new_full((len(names),), scale),
            sizes=tuple(self._n_data.get(name, plates.size) for name in names),
            rows=(plates.rows,) * len(names),
        )

    def _of_groups(self, names: tuple[str, ...], like: Tensor) -> Counts:
        groups: dict[str, dict[frozenset[str], _Group]] = {name: {} for name in names}
        for (owner, plates), sites in self._sites.items():
            data = [site for site in sites.values() if not isinstance(site["fn"], Unit)]
            labelled, scale = _union(data or list(sites.values()), owner)
            for k, name in enumerate(owner.names):
                group = _Group(bool(data), _at(labelled, k), _at(scale, k), plates.rows, plates.size, 1, plates.turns)
                before = groups[name].get(plates.names)
                if before is not None:
                    group = before.with_turn(group) if plates.turn else before.larger(group)
                groups[name][plates.names] = group
        found = [_of_task(groups[name]) for name in names]
        return Counts(
            labelled=_stack([group.labelled for group in found], like),
            scales=_stack([group.scale for group in found], like),
            sizes=tuple(self._n_data.get(name, group.declared) for name, group in zip(names, found, strict=True)),
            rows=tuple(group.rows for group in found),
        )


class _Plates(NamedTuple):
    """The plates that a site's rows lie in, without those of tasks and of particles.

    Attributes:
        names: Their names.
        turn: Of the plates that the program loops over, which turn it is.
        turns: How many turns there are in this batch.
        rows: Rows of the batch, in this turn.
        size: Number of data that they declare, in all turns.
    """

    names: frozenset[str]
    turn: tuple[int, ...]
    turns: int
    rows: float
    size: float

    @classmethod
    def of(cls, site: Site) -> "_Plates":
        names, turn, turns, rows, size = [], [], 1, 1.0, 1.0
        for frame in site["cond_indep_stack"]:
            if frame.name == PARTICLE_PLATE or is_task_plate(frame.name):
                continue
            names.append(frame.name)
            size *= max(frame.full_size or frame.size, 1)
            if frame.dim is None:
                turn.append(frame.counter)
                turns *= max(frame.size, 1)
            else:
                rows *= max(frame.size, 1)
        return cls(frozenset(names), tuple(turn), turns, rows, size)


@dataclass
class _Group:
    """Labelled rows of one task on the same plates; `scale` is that of a row, on average."""

    data: bool = False
    labelled: Number = 0.0
    scale: Number = 1.0
    rows: float = 0.0
    size: float = 0.0
    seen: int = 1  # turns of a loop
    turns: int = 1

    @property
    def declared(self) -> float:
        """Number of data that the plates declare for the turns seen."""
        return self.size * self.seen / self.turns if self.seen != self.turns else self.size

    def with_turn(self, other: "_Group") -> "_Group":
        """With the rows of another turn of the same loop."""
        if self.data != other.data:
            return self if self.data else other
        size, seen = max(self.size, other.size), self.seen + other.seen
        return _Group(self.data, *self._rows_with(other), self.rows + other.rows, size, seen, self.turns)

    def with_plates(self, other: "_Group") -> "_Group":
        """With the rows of other plates."""
        if self.data != other.data:
            return self if self.data else other
        declared = self.declared + other.declared
        return _Group(self.data, *self._rows_with(other), self.rows + other.rows, declared)

    def larger(self, other: "_Group") -> "_Group":
        """With what may be the same rows, of plates that lie in these or around them: the larger number counts."""
        if self.data != other.data:
            return self if self.data else other
        most, least = (self, other) if self.declared >= other.declared else (other, self)
        labelled = _maximum(most.labelled, least.labelled)
        return _Group(self.data, labelled, most.scale, max(self.rows, other.rows), most.declared)

    def _rows_with(self, other: "_Group") -> tuple[Number, Number]:
        labelled = self.labelled + other.labelled
        if not isinstance(self.scale, Tensor) and not isinstance(other.scale, Tensor) and self.scale == other.scale:
            return labelled, self.scale
        counts = self.labelled * self.scale + other.labelled * other.scale
        if not isinstance(counts, Tensor) and not isinstance(labelled, Tensor):
            return labelled, counts / labelled if labelled else self.scale
        total = torch.as_tensor(labelled)
        return labelled, torch.where(total > 0, counts / total.clamp_min(1.0), self.scale)


def _of_task(groups: Mapping[frozenset[str], _Group]) -> _Group:
    """All of a task's rows."""
    if len(groups) < 2:
        return next(iter(groups.values()), _Group())
    apart: list[tuple[frozenset[str], _Group]] = []
    for names, group in sorted(groups.items(), key=lambda item: -len(item[0])):
        for i, (around, found) in enumerate(apart):
            if names < around:
                apart[i] = (around, found.larger(group))
                break
        else:
            apart.append((names, group))
    return reduce(_Group.with_plates, (group for _, group in apart))


def _union(sites: list[Site], owner: SiteTask) -> tuple[Number, Number]:
    """Number of rows that are not masked at one of the sites at least, and what each is scaled by, on average."""
    first = sites[0]
    if len(sites) == 1:
        return _labelled(first, owner)
    scales = [site["scale"] for site in sites]
    if any(isinstance(scale, Tensor) or scale != scales[0] for scale in scales):
        return _scaled([labelled_rows(site) for site in sites], scales, owner)
    for site in sites:
        if (site["mask"] is None or site["mask"] is True) and not isinstance(site["fn"], MaskedDistribution):
            return _labelled(site, owner)
    return _total(_most([labelled_rows(site) for site in sites]), owner), scales[0]


def _labelled(site: Site, owner: SiteTask) -> tuple[Number, Number]:
    """Number of a site's rows that are not masked and what they are scaled by, on average; by task in a task plate."""
    mask, scale = site["mask"], site["scale"]
    weighted = isinstance(scale, Tensor) and scale.dim() > 0
    if not weighted and not isinstance(site["fn"], MaskedDistribution):
        shape = site["fn"].batch_shape
        if isinstance(mask, Tensor):
            return _total(mask.expand(shape), owner), scale
        tasks = 1 if owner.dim is None or len(shape) < -owner.dim else shape[owner.dim]
        return 0.0 if mask is False else float(math.prod(shape) // max(tasks, 1)), scale
    rows = labelled_rows(site)
    return _scaled([rows], [scale], owner) if weighted else (_total(rows, owner), scale)


def _scaled(rows: list[Tensor], scales: list[Number], owner: SiteTask) -> tuple[Tensor, Tensor]:
    """The same of sites with their own scales, perhaps of each row: a row has the largest of those that observe it."""
    weights = [
        torch.as_tensor(scale, device=row.device).expand_as(row) for row, scale in zip(rows, scales, strict=True)
    ]
    labelled, weight = _total(_most(rows), owner), _most(weights)
    counts = _total(_most([row * scale for row, scale in zip(rows, weights, strict=True)]), owner)
    number = weight.numel() // (1 if owner.dim is None else weight.shape[owner.dim])
    return labelled, torch.where(labelled > 0, counts / labelled.clamp_min(1.0), _total(weight, owner) / number)


def _total(rows: Tensor, owner: SiteTask) -> Tensor:
    """A sum over all rows, or over those of each task in a task plate."""
    dims = [d for d in range(-rows.dim(), 0) if d != owner.dim]
    rows = rows.sum(dims) if dims else rows
    return rows if owner.dim is None else rows.expand(len(owner.names))


def _most(rows: list[Tensor]) -> Tensor:
    """The largest of each row's entries."""
    return reduce(lambda a, b: torch.maximum(*torch.broadcast_tensors(a, b)), rows)


def _maximum(a: Number, b: Number) -> Number:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return torch.maximum(*(torch.as_tensor(value) for value in (a, b)))
    return max(a, b)


def _at(value: Number, k: int) -> Number:
    return value[k] if isinstance(value, Tensor) and value.dim() else value


def _stack(values: list[Number], like: Tensor) -> Tensor:
    """Numbers and scalar tensors as one tensor ``(K,)``, without a copy to the device for each number."""
    if not any(isinstance(value, Tensor) for value in values):
        return torch.tensor(values, dtype=like.dtype, device=like.device)
    return torch.stack([torch.as_tensor(value, device=like.device).to(like.dtype) for value in values])
