"""Sums of a program's terms by task, and the tasks' vectors that they make."""

from torch import Tensor

from bmtl.inference.losses import TaskTerms
from bmtl.inference.site_tasks import SiteTask


class TermSums:
    """Adds up terms by the task that they belong to. The number 0.0 is an empty sum, so that it costs no tensor."""

    def __init__(self) -> None:
        self.tasks: dict[str, Tensor | float] = {}
        self.plates: dict[tuple[str, ...], Tensor | float] = {}  # of each task plate's tasks, (K_plate,)
        self.shared: Tensor | float = 0.0

    def add(self, owner: SiteTask, term: Tensor | float) -> None:
        """Adds a term of batch shape; a number counts as a scalar."""
        if owner.dim is not None:
            if isinstance(term, Tensor):
                dims = [d for d in range(-term.dim(), 0) if d != owner.dim]
                term = term.sum(dims) if dims else term
                if term.shape != (len(owner.names),):  # broadcast along the plate: its rows are equal
                    term = term.expand(len(owner.names))
            self.plates[owner.names] = plus(self.plates.get(owner.names, 0.0), term)
            return
        if isinstance(term, Tensor) and term.dim():
            term = term.sum()
        if owner.names:
            self.tasks[owner.names[0]] = plus(self.tasks.get(owner.names[0], 0.0), term)
        else:
            self.shared = plus(self.shared, term)

    def tensors(self) -> list[Tensor]:
        """The sums that are tensors."""
        every = (*self.tasks.values(), *self.plates.values(), self.shared)
        return [term for term in every if isinstance(term, Tensor)]

    def terms(self, names: tuple[str, ...], particles: int, zero: Tensor) -> TaskTerms:
        """The sums of the tasks `names`, means over particles.

        Args:
            names: The K tasks.
            particles: Number of particles added up.
            zero: A scalar of the terms' dtype and device.
        """
        plates = {of: plate for of, plate in self.plates.items() if isinstance(plate, Tensor)}
        if not self.tasks:
            if not plates:
                return TaskTerms(zero.expand(len(names)))
            if plates.keys() == {names}:
                plate = plates[names]
                return TaskTerms(plate / particles if particles > 1 else plate)
        found: dict[str, Tensor | float] = dict(self.tasks)
        for of, plate in plates.items():
            for name, row in zip(of, plate.unbind(), strict=True):
                found[name] = found[name] + row if name in found else row
        return TaskTerms([mean(found.get(name, 0.0), particles, zero) for name in names])


def plus(total: Tensor | float, term: Tensor | float) -> Tensor | float:
    """Their sum; the number 0.0 is added to no tensor."""
    for one, other in ((total, term), (term, total)):
        if not isinstance(one, Tensor) and one == 0.0:
            return other
    return total + term


def mean(term: Tensor | float, particles: int, zero: Tensor) -> Tensor:
    """A sum over particles as a mean, and as a tensor."""
    if not isinstance(term, Tensor):
        return zero + term if term else zero
    return term / particles if particles > 1 else term
