"""Several targets' likelihoods of one kind as one, whose labels are stacked."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bmtl.models.guides import Latent
from bmtl.models.likelihoods.base import Likelihood, Values
from bmtl.models.likelihoods.unknown import Unknown


def together(each: Sequence[Likelihood]) -> Likelihood:
    """A view of the first of K likelihoods whose start is all of theirs, ``(K, 1)``.

    Its distribution is of labels ``(..., K, B)``, given f ``(..., K, B, outputs)`` and unknowns ``(..., K, 1, ...)``.
    """
    view: Likelihood = copy.copy(each[0])
    starts = {name: torch.stack([getattr(of, name) for of in each]).unsqueeze(1) for name in ("location", "unit")}
    view._buffers = {**view._buffers, **starts}

    def stacked_starts() -> dict[str, Tensor]:
        rows = [of._starts() for of in each]
        return {name: torch.stack([row[name] for row in rows]).unsqueeze(1) for name in rows[0]}

    view.__dict__["_starts"] = stacked_starts
    return view


class Stacked:
    """Targets with likelihoods of one kind and as many data, which are one statement on common inputs.

    Args:
        label: Name of their plate.
        likelihoods: By target, two or more with equal `Likelihood.statement`.
    """

    def __init__(self, label: str, likelihoods: Mapping[str, Likelihood]) -> None:
        self.label, self.names = label, tuple(likelihoods)
        self._each = tuple(likelihoods.values())

    def __eq__(self, other: object) -> bool:
        """Whether they are the same targets, of this model or of one of the same architecture."""
        return isinstance(other, Stacked) and (self.label, self.names) == (other.label, other.names)

    def __hash__(self) -> int:
        return hash((self.label, self.names))

    def site(self, name: str) -> str:
        """What a site of all the targets is called."""
        return f"{self.label}/{name}"

    def latents(self) -> dict[str, Latent]:
        """Their likelihoods' latents by site, each of all the targets."""
        found: dict[str, dict[str, Latent]] = {}
        for target, of in zip(self.names, self._each, strict=True):
            for name, unknown in of._unknowns():
                latent = unknown.latent()
                if latent is not None:
                    found.setdefault(self.site(name), {})[target] = latent
        return {site: Latent.stacked(latents, self.label) for site, latents in found.items()}

    def sample(self) -> dict[str, Tensor]:
        """The unknowns' values ``(K, 1, ...)``: the statement inside the plate of the targets."""
        return {
            name: Unknown.together([of.unknowns[name] for of in self._each], self.site(name))  # type: ignore[misc]
            for name in self._each[0].unknowns
        }

    def observe(self, f: Tensor, values: Values, y: Tensor | None) -> None:
        """The statement of the labels ``(K, B)``, inside the plates of targets and rows; see `Likelihood.observe`."""
        together(self._each).observe_at(self.site("y"), f, values, y)

    def gather(self, y: Mapping[str, Tensor]) -> Tensor | None:
        """The labels of a batch ``(K, B)``; None where they are of several types or shapes."""
        each = [y[name] for name in self.names]
        alike = all(of.shape == each[0].shape and of.dtype == each[0].dtype for of in each)
        return torch.stack(each) if alike else None

    def one(self, name: str, f: Tensor, values: Values) -> tuple[Tensor, dict[str, Tensor]]:
        """What belongs to one target of f ``(..., K, B, outputs)`` and of values ``(..., K, 1, ...)``.

        f may be of that target alone, ``(..., 1, B, outputs)``.
        """
        k = self.names.index(name)
        inner = {name: 1 + len(unknown.options[-1]) for name, unknown in self._each[0]._unknowns()}
        return _row(f, k if f.shape[-3] > 1 else 0, 2), {
            name: _row(value, k, inner[name]) for name, value in values.items()
        }


def _row(values: Tensor, k: int, behind: int) -> Tensor:
    """The k-th entry of the dimension before the last `behind`; that dimension stays where particles are before it."""
    dim = values.dim() - behind - 1
    return values.select(dim, k) if not dim else values.narrow(dim, k, 1)


def stacks(likelihoods: Mapping[str, Likelihood], n_data: Mapping[str, int]) -> list[Stacked]:
    """The targets that are one statement, two or more each, by likelihood, outputs and number of data.

    Args:
        likelihoods: By target.
        n_data: Number of data by target.
    """
    found: dict[tuple[object, ...], dict[str, Likelihood]] = {}
    for name, of in likelihoods.items():
        statement = of.statement
        if statement is not None:
            found.setdefault((*statement, n_data[name]), {})[name] = of
    several = [group for group in found.values() if len(group) > 1]
    kinds = [next(iter(group.values())).name for group in several]
    labels = [kind if kinds.count(kind) == 1 else f"{kind}_{kinds[:i].count(kind) + 1}" for i, kind in enumerate(kinds)]
    return [Stacked(label, group) for label, group in zip(labels, several, strict=True)]
