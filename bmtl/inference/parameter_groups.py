"""An optimizer with a group of parameters for each pattern of names."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch

from bmtl.inference.parameters import NamedParameters


class ParameterGroups:
    """A factory of an optimizer whose parameters have options by their names.

    It is given to `BalancedSVI` as ``optim``. A parameter is in the group of the first pattern that its name matches, and
    otherwise in that of the common options. Parameters that appear late find their groups too.

    Args:
        optimizer: Class of the optimizer, or a function of a list of groups and options.
        groups: Pattern -> options of its group. A pattern is that of file names: ``*`` for anything, ``?`` for a character.
            Names are those of ``svi.module.named_parameters()``, such as ``model.trunk.0.weight`` and ``guide.locs.w``, and
            of `pyro.param` statements.
        **options: Options of all groups that do not have their own.

    Raises:
        TypeError: If `groups` is no mapping of patterns to options.
        ValueError: If there is no pattern; when the optimizer is made, if a pattern matches no parameter.

    Example:
        >>> import torch
        >>> factory = ParameterGroups(torch.optim.SGD, {"trunk.*": {"lr": 0.01}}, lr=0.1)
        >>> parameters = [("trunk.weight", torch.zeros(2)), ("head.weight", torch.zeros(3))]
        >>> [group["lr"] for group in factory(NamedParameters(parameters)).param_groups]
        [0.01, 0.1]
    """

    def __init__(
        self,
        optimizer: Callable[..., torch.optim.Optimizer],
        groups: Mapping[str, Mapping[str, Any]],
        **options: Any,
    ) -> None:
        if not isinstance(groups, Mapping) or not all(
            isinstance(pattern, str) and isinstance(of, Mapping) for pattern, of in groups.items()
        ):
            raise TypeError(
                f"groups maps patterns of names to options, {{'*trunk*': {{'lr': 1e-4}}}}, and got {groups!r}."
            )
        if not groups:
            raise ValueError(
                "groups has no pattern. Without any, a plain factory does: functools.partial(Adam, lr=1e-3)."
            )
        self.optimizer, self.options = optimizer, options
        self.groups = {pattern: dict(of) for pattern, of in groups.items()}
        self._matched: set[str] = set()

    def __call__(self, parameters: NamedParameters) -> torch.optim.Optimizer:
        """The optimizer of all parameters; a group without any is left out."""
        found: dict[str | None, list[torch.Tensor]] = {pattern: [] for pattern in (*self.groups, None)}
        for name, parameter in parameters.items():
            found[next((pattern for pattern in self.groups if fnmatchcase(name, pattern)), None)].append(parameter)
        self._matched |= {pattern for pattern in self.groups if found[pattern]}
        unmatched = [pattern for pattern in self.groups if pattern not in self._matched]
        if unmatched:
            raise ValueError(
                f"The patterns {unmatched} match no parameter that an earlier pattern has left. The parameters are "
                f"{', '.join(parameters.names)}."
            )
        used = [
            {"params": members, **(self.groups[pattern] if pattern is not None else {})}
            for pattern, members in found.items()
            if members
        ]
        made = self.optimizer(used, **self.options)
        for pattern, of in self.groups.items():  # torch takes any key for an option, and never reads it
            unknown = [key for key in of if key not in made.defaults]
            if unknown:
                raise ValueError(
                    f"The group {pattern!r} has the options {unknown}, which {type(made).__name__} does not have; it has "
                    f"{', '.join(made.defaults)}."
                )
        return made
