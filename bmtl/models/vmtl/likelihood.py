"""The likelihoods of T tasks as one, whose labels are stacked."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bmtl.models.likelihoods import Likelihood
from bmtl.models.likelihoods.alike import check_alike
from bmtl.models.likelihoods.stacked import together


class StackedLikelihood(nn.Module):
    """One likelihood for labels ``(T, B)``, whose unknowns are each task's own.

    Args:
        likelihoods: By task, all of one kind and as many outputs; their unknowns are fixed or parameters.

    Raises:
        ValueError: If they differ in kind, or have latents or several objectives.
    """

    def __init__(self, likelihoods: Mapping[str, Likelihood]) -> None:
        super().__init__()
        kinds = {name: f"{of.name!r} with {of.outputs} outputs, noise {of.noise!r}" for name, of in likelihoods.items()}
        check_alike(kinds, "VMTL's tasks are each other's priors, which takes one likelihood and as many outputs each")
        first = next(iter(likelihoods.values()))
        if len(first.objectives) > 1 or any(of.latents(name) for name, of in likelihoods.items()):
            raise ValueError(
                f"VMTL takes likelihoods of one objective whose noise is fixed or a parameter; {first.name!r} with "
                f"noise={first.noise!r} and the objectives {first.objectives} was given."
            )
        self.names = tuple(likelihoods)
        # Module names must not hold a dot, tasks may: by position.
        self.each = nn.ModuleList(likelihoods.values())
        self.outputs, self.classes = first.outputs, first.classes

    def __getitem__(self, name: str) -> Likelihood:
        return self.each[self.names.index(name)]  # type: ignore[return-value]

    def observe(self, site: str, f: Tensor, y: Tensor | None, which: int | None = None) -> None:
        """States the labels.

        Args:
            site: Name of the site.
            f: ``(..., T, B, outputs)`` of all tasks, ``(..., B, outputs)`` of one.
            y: ``(T, B)`` or ``(B,)``; None samples.
            which: The one task.
        """
        each: list[Likelihood] = list(self.each)  # type: ignore[arg-type]
        if which is not None:
            each[which].observe_at(site, f, each[which].sample(""), y)
            return
        values = [of.sample("") for of in each]
        stacked = {name: torch.stack([one[name] for one in values]).unsqueeze(1) for name in values[0]}
        together(each).observe_at(site, f, stacked, y)
