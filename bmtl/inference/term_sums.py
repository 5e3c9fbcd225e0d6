"""Sums of a program's terms by task, and the tasks' vectors that they make."""

from collections.abc import Sequence

from torch import Tensor

from bmtl.inference.losses import TaskTerms
from bmtl.inference.site_tasks import SiteTask


class TermSums:
    """Adds up terms by the task that they belong to. The number 0.0 is an empty sum, so that it costs no tensor."""

    def __init__(self) -> None:
        self.tasks: dict[str, Tensor | float] = {}
        self.plate: Tensor | float = 0.0  # of a task plate's tasks, (K_plate,)
        self.shared: Tensor | float = 0.0

    def add(self, owner: SiteTask, term: Tensor | float) -> None:
        """Adds a term of batch shape; a number counts as a scalar."""
        if owner.dim is not None:
            if isinstance(term, Tensor):
                dims = [d for d in range(-term.dim(), 0) if d != owner.dim]
                term = term.sum(dims) if dims else term
                if term.shape != (len(owner.names),):  # broadcast along the plate: its rows are equal
                    term = term.expand(len(owner.names))
            self.plate = self.plate + term
            return
        if isinstance(term, Tensor) and term.dim():
            term = term.sum()
        if owner.names:
            self.tasks[owner.names[0]] = self.tasks.get(owner.names[0], 0.0) + term
        else:
            self.shared = self.shared + term

    def tensors(self) -> list[Tensor]:
        """The sums that are tensors."""
        return [term for term in (*self.tasks.values(), self.plate, self.shared) if isinstance(term, Tensor)]

    def terms(self, names: tuple[str, ...], plate_names: tuple[str, ...], particles: int, zero: Tensor) -> TaskTerms:
        """The sums of the tasks `names`, means over particles.

        Args:
            names: The K tasks.
            plate_names: Those of the task plate.
            particles: Number of particles added up.
            zero: A scalar of the terms' dtype and device.
        """
        plate = self.plate
        if not self.tasks:
            if not isinstance(plate, Tensor):
                return TaskTerms(zero.expand(len(names)))
            if plate_names == names:
                return TaskTerms(plate / particles if particles > 1 else plate)
        rows: Sequence[Tensor] = plate.unbind() if isinstance(plate, Tensor) else ()
        in_plate = dict(zip(plate_names, rows, strict=bool(rows)))
        terms = []
        for name in names:
            term = self.tasks.get(name, 0.0)
            terms.append(mean(term + in_plate[name] if name in in_plate else term, particles, zero))
        return TaskTerms(terms)

    def shared_term(self, particles: int, zero: Tensor) -> Tensor:
        """The sum of what belongs to no task, a mean over particles."""
        return mean(self.shared, particles, zero)


def mean(term: Tensor | float, particles: int, zero: Tensor) -> Tensor:
    """A sum over particles as a mean, and as a tensor."""
    if not isinstance(term, Tensor):
        return zero + term if term else zero
    return term / particles if particles > 1 else term
