"""Pyro's parameter mode while bmtl runs a program: each PyroModule has its own parameters.

In Pyro's default mode the parameters of all PyroModules are in one store, by name, and two models of one class (or two
AutoGuides) share their values without a word. The other mode, ``module_local_params``, is a setting of the whole process
that breaks ordinary Pyro programs. bmtl therefore makes it around its own runs of a program, and puts it back.

`pyro.param` and `pyro.module` statements of plain functions use Pyro's store in either mode.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import distributions, infer, poutine
from pyro.nn import PyroModule
from pyro.nn import module as pyro_module

from bmtl.inference.closed_over import modules_of


@contextmanager
def own_parameters(*programs: Callable[..., Any], validate: bool = True) -> Iterator[None]:
    """Runs what is inside with each PyroModule's own parameters; afterwards Pyro's settings are what they were.

    Args:
        *programs: Models and guides that run inside; their PyroModules are adopted first.
        validate: Keep Pyro's and torch's shape and support checks where they are on: they scan whole tensors.
    """
    if programs:
        adopt(*programs)
    before = (
        pyro_module._MODULE_LOCAL_PARAMS,  # `pyro.settings` takes as long as all the rest
        poutine.util.is_validation_enabled(),
        infer.util.is_validation_enabled(),
        distributions.util.is_validation_enabled(),
        torch.distributions.Distribution._validate_args,
    )
    try:
        pyro_module._MODULE_LOCAL_PARAMS = True
        # It does no more than refuse `pyro.param` statements inside a PyroModule, which have that module's scope.
        poutine.enable_validation(False)
        if not validate:
            infer.enable_validation(False)
            distributions.enable_validation(False)  # torch's too
        yield
    finally:
        pyro_module._MODULE_LOCAL_PARAMS = before[0]
        poutine.enable_validation(before[1])
        if not validate:
            infer.enable_validation(before[2])
            distributions.enable_validation(before[3])
            torch.distributions.Distribution.set_default_validate_args(before[4])


def adopt(*programs: Callable[..., Any]) -> None:
    """Gives the PyroModules that these programs are or use the state that parameters of their own need.

    A module that has run in Pyro's global mode goes on with the values that it has. Run by other code later, in the global
    mode, an adopted module writes its values into Pyro's store, and does not take those of another model of its name.
    """
    for module in modules_of(*programs):
        if isinstance(module, PyroModule) and not isinstance(module._pyro_context, _OwnContext):
            context: Any = module._pyro_context
            if not hasattr(context, "param_state"):
                state: Any = {"params": {}, "constraints": {}}
                if context.used:  # its `pyro.param` statements have gone into the store
                    state = pyro.get_param_store().get_state()
                context.param_state = state
            context.__class__ = _OwnContext
            context.root = module


class _OwnContext(pyro_module._Context):
    """Of a PyroModule that bmtl runs, shared by its parts; `root` is the outermost of them."""

    root: PyroModule

    def __enter__(self) -> None:
        if not self.active and not pyro_module._MODULE_LOCAL_PARAMS:
            self._publish()
        super().__enter__()

    def _publish(self) -> None:
        """Puts the module's own values into Pyro's store, in place of another module's of the same names."""
        store = pyro.get_param_store()
        store.set_state(self.param_state)
        for module in self.root.modules():
            if not isinstance(module, PyroModule) or module._pyro_context is not self:
                continue
            for name in module._pyro_params:
                full = f"{module._pyro_name}.{name}" if module._pyro_name else name
                if full in store and store._params[full] is not module._parameters[f"{name}_unconstrained"]:
                    del store[full]  # the module registers its own when it is read
