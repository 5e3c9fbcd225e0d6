"""A method of a comparison: a model with its options and a balancer, as plain values that travel to other processes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn

from bmtl.experiments import registry
from bmtl.experiments.slots import balancer_of
from bmtl.inference.arguments import choice
from bmtl.inference.compiled import MODES, Mode
from bmtl.inference.compiled.choosing import check_mode
from bmtl.models.spec import DataSpec


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes:
        name: Its name in tables and folders.
        balancer: String form of the balancer; a slot may be an import path.
        model: Name of a recipe, or an import path ``package.module:recipe`` or ``file.py:recipe``.
        options: Options of the recipe.
        trunk: Name or import path of the maker of trunks; by default that of the data's kind of input.
        normalize: What the balancer sees, as for `bmtl.TaskELBO`: "per_datum" is the ELBO per datum, "task_mean" counts all
            tasks equally whatever their number of labels.
        single_task: One network per target, each trained separately (STL).
        ensemble_size: Networks, each from its own seed, whose predictives are mixed: a deep ensemble.
        weight_decay: Of Adam, on all parameters, as the method's paper has it; 0 leaves decay to the budget's schedule.
        compile: How steps run, as for `bmtl.BalancedSVI`: False, "trace", "inductor" or "auto".

    Raises:
        RuntimeError: For ``compile="inductor"`` without a C++ compiler.
        ValueError: If there is no such recipe, trunk or balancer, or a number is out of range.
    """

    name: str
    balancer: str = "ew"
    model: str = "homoscedastic"
    options: Mapping[str, Any] = field(default_factory=dict)
    trunk: str = ""
    normalize: Literal["per_datum", "task_mean"] = "task_mean"
    single_task: bool = False
    ensemble_size: int = 1
    weight_decay: float = 0.0
    compile: Mode = False

    def __post_init__(self) -> None:
        if self.ensemble_size < 1:
            raise ValueError(f"ensemble_size is a number of networks, from 1, and {self.ensemble_size} was given.")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay is 0 or more, and {self.weight_decay} was given.")
        if self.compile is not False:
            choice("compile", self.compile, ("no", *MODES))
            check_mode(self.compile)
        # Absolute paths: worker processes have their own folders.
        object.__setattr__(self, "model", registry.checked_recipe(self.model))
        if self.trunk:
            object.__setattr__(self, "trunk", registry.trunk(self.trunk).path)
        object.__setattr__(self, "balancer", balancer_of(self.balancer).text)

    def balanced_by(self, balancer: str) -> Method:
        """The same method with another balancer, and a name that says so.

        Raises:
            ValueError: If there is no such balancer.
        """
        return replace(self, balancer=balancer, name=f"{self.name} ({balancer})")

    def on_trunk(self, trunk: str) -> Method:
        """The same method on a trunk of this name or import path.

        Raises:
            ValueError: If there is no such trunk.
        """
        return replace(self, trunk=trunk)

    def compiled(self, mode: str) -> Method:
        """The same method with its steps run in this way: "no", "trace", "inductor" or "auto".

        Raises:
            RuntimeError: For "inductor" without a C++ compiler.
            ValueError: If there is no such way.
        """
        return replace(self, compile=False if mode == "no" else mode)  # type: ignore[arg-type]

    def networks(self, targets: int) -> int:
        """How many networks a run on this many targets trains."""
        return (targets if self.single_task else 1) * self.ensemble_size

    def settings(self) -> dict[str, Any]:
        """Everything that was set, as plain values, with the digests of the code that is not bmtl's own."""
        return {**asdict(self), "options": dict(self.options), "code": self.code()}

    def code(self) -> dict[str, str]:
        """Import path -> SHA-256 of the source file, of what is not bmtl's own."""
        found = [registry.recipe(self.model), *([registry.trunk(self.trunk)] if self.trunk else [])]
        return {one.path: one.digest for one in found if one.digest} | balancer_of(self.balancer).code


ModelAndGuide = tuple[nn.Module, Callable[..., None]]


def build(method: Method, spec: DataSpec, widths: tuple[int, ...], seed: int) -> ModelAndGuide:
    """The untrained model of a method and its guide, with initial weights that `seed` decides.

    Raises:
        TypeError: If the recipe has no such option, or returns something else than a model, or a model and a guide.
        ValueError: If an option is not valid, or the model cannot take a target's family.
    """
    recipe = registry.recipe(method.model).value
    generator = torch.Generator().manual_seed(seed)
    maker = registry.trunk(method.trunk or registry.default_trunk(spec.inputs)).value
    given = {"widths": widths, "generator": generator}
    if "targets" in inspect.signature(maker).parameters:  # a trunk with a part for each target
        given["targets"] = tuple(spec.targets)
    offered = {"trunk": partial(maker, spec.inputs, **given), "generator": generator}
    # A recipe of your own may do without either; layers that it makes without the generator are seeded nevertheless.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = recipe(
            spec, **{name: value for name, value in offered.items() if _takes(recipe, name)}, **method.options
        )
    model, guide = made if isinstance(made, tuple) else (made, None)
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"The recipe {method.model} returned {type(made).__name__}; it returns a torch module, or (module, guide)."
        )
    if guide is None:
        guide = model.guide() if callable(getattr(model, "guide", None)) else "auto-normal"  # type: ignore[operator]
    return model, AutoNormal(model) if guide == "auto-normal" else guide


def _takes(function: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)
