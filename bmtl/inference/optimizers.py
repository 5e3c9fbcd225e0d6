"""The optimizer of a run: made by a factory or given ready, extended by late parameters, saved and compared by name."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

from bmtl.inference.errors import CheckpointError
from bmtl.inference.parameters import NamedParameters

Optimizer = torch.optim.Optimizer
Factory = Callable[[NamedParameters], Optimizer]

_OWN_LR = 0.025  # of parameters that a balancer owns (UW's log-variances)
# What a default says of how a step is computed, and not of the step.
_IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable")


def make(factory: Factory, parameters: NamedParameters) -> Optimizer:
    """The factory's optimizer of all parameters.

    Raises:
        TypeError: If it makes no torch optimizer.
        ValueError: If its optimizer lacks some of the parameters.
    """
    optimizer = factory(parameters)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"The factory gave a {type(optimizer).__name__}, and a torch optimizer is wanted.")
    held = held_by(optimizer)
    missing = [name for name, p in parameters.items() if id(p) not in held]
    if missing:
        raise ValueError(
            f"The optimizer that the factory made lacks parameters: {', '.join(missing)}. Let it take all that it is given "
            "(optim=functools.partial(torch.optim.Adam, lr=1e-3); groups by name: parameters.items() has pairs of name and "
            "tensor), and freeze what is not to be trained: parameter.requires_grad_(False)."
        )
    return optimizer


def needs_closure(optimizer: Optimizer | PyroOptim | None) -> bool:
    """Whether an optimizer evaluates its loss itself, several times a step, as LBFGS does."""
    if not isinstance(optimizer, Optimizer):
        return False
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def check_closure(optimizer: Optimizer, balancer: Any, scaler: Any) -> None:
    """Checks that a balanced step is one function of the parameters, for an optimizer that evaluates it several times.

    Raises:
        ValueError: If trunk and heads have their own weights, the update is not a combination of gradients, the balancer has
            parameters, or losses are scaled.
    """
    name = type(optimizer).__name__
    weighting = balancer.weighting
    if weighting is not None and (balancer.heads != "alpha" or weighting.by_gradients):
        raise ValueError(
            f"{name} minimises one function of all parameters, and {str(balancer)!r} weighs trunk and heads differently. "
            "Use a balancer without a gradient weighting, or bmtl.balancer(..., heads='alpha')."
        )
    if any(p.requires_grad for p in balancer.parameters()) or scaler is not None:
        raise ValueError(
            f"{name} evaluates a step's loss several times, which a balancer with parameters of its own and a gradient "
            "scaler do not allow."
        )


def check_ready(optimizer: Optimizer, parameters: NamedParameters, own: nn.Module) -> None:
    """Checks that a ready optimizer holds all parameters.

    Args:
        optimizer: As given.
        parameters: Of model and guide.
        own: The balancer.

    Raises:
        ValueError: If it lacks some; names them.
    """
    held = held_by(optimizer)
    missing = [name for name, p in parameters.items() if id(p) not in held]
    missing += [f"balancer.{name}" for name, p in own.named_parameters() if id(p) not in held]
    if missing:
        raise ValueError(
            f"The optimizer lacks parameters: {', '.join(missing)}. Some are made at the first batch (an AutoGuide's, a "
            "balancer's own): give a factory, optim=functools.partial(torch.optim.Adam, lr=1e-3). Freeze what is not to be "
            "trained: parameter.requires_grad_(False)."
        )


def add_own(optimizer: Optimizer, own: nn.Module) -> None:
    """Adds a balancer's own parameters as a group: learning rate 0.025, no weight decay."""
    named = [(f"balancer.{name}", p) for name, p in own.named_parameters() if p.requires_grad]
    if not named:
        return
    group: dict[str, Any] = {"params": named if _is_named(optimizer) else [p for _, p in named], "lr": _OWN_LR}
    if "weight_decay" in optimizer.defaults:
        group["weight_decay"] = 0.0
    if "fused" in optimizer.defaults and not optimizer.defaults.get("foreach"):
        group["fused"] = True  # one number per task: the loop over them would cost more than the step
    optimizer.add_param_group(group)


def join(optimizer: Optimizer, factory: Factory, parameters: NamedParameters, new: Sequence[Tensor]) -> None:
    """Adds parameters that have appeared late, with the options that the factory gives them.

    The factory is called with all parameters: a new one goes into the group in which its group's others are, or into a new
    group of the factory's options.

    Args:
        optimizer: The optimizer at work; its groups' present options stay.
        factory: What made it.
        parameters: All parameters, the new ones included.
        new: The new ones.

    Raises:
        ValueError: If the factory leaves out some.
    """
    fresh = make(factory, parameters)
    late = {id(p) for p in new}
    for group in fresh.param_groups:
        added = [i for i, p in enumerate(group["params"]) if id(p) in late]
        if not added:
            continue
        others = {id(p) for p in group["params"]} - late
        there = next((g for g in optimizer.param_groups if any(id(p) in others for p in g["params"])), None)
        if there is None:
            options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
            members = [group["params"][i] for i in added]
            named = (
                list(zip((group["param_names"][i] for i in added), members, strict=True)) if _is_named(fresh) else None
            )
            optimizer.add_param_group({**options, "params": named or members})
        else:
            there["params"].extend(group["params"][i] for i in added)
            if "param_names" in there:
                there["param_names"].extend(group["param_names"][i] for i in added)
        for i in added:
            if group["params"][i] in fresh.state:  # some fill it when they are made
                optimizer.state[group["params"][i]] = fresh.state[group["params"][i]]


def drop(optimizer: Optimizer, gone: Sequence[Tensor]) -> None:
    """Removes parameters, and their state."""
    keys = {id(p) for p in gone}
    for group in optimizer.param_groups:
        kept = [i for i, p in enumerate(group["params"]) if id(p) not in keys]
        group["params"][:] = [group["params"][i] for i in kept]
        if "param_names" in group:
            group["param_names"][:] = [group["param_names"][i] for i in kept]
    for p in gone:
        optimizer.state.pop(p, None)


def held_by(optimizer: Optimizer | PyroOptim | None) -> dict[int, tuple[str, Tensor]]:
    """The tensors that a torch optimizer holds, by `id`, with a name each: its own, or their place."""
    found: dict[int, tuple[str, Tensor]] = {}
    for g, group in enumerate(optimizer.param_groups if isinstance(optimizer, Optimizer) else ()):
        names = group.get("param_names") or [f"optimizer.{g}.{i}" for i in range(len(group["params"]))]
        found |= {id(p): (name, p) for name, p in zip(names, group["params"], strict=True)}
    return found


# ---- State -----------------------------------------------------------------------------------------------------------


def state_of(optimizer: Optimizer | PyroOptim, names: Mapping[int, str]) -> dict[str, Any]:
    """An optimizer's state, with what is compared before it is loaded: class, options, names by group.

    Args:
        optimizer: The optimizer.
        names: Names of all tensors that it holds, by `id`.
    """
    if isinstance(optimizer, PyroOptim):
        return {
            "class": _class(optimizer),
            "options": _options(optimizer),
            "groups": [],
            "state": optimizer.get_state(),
        }
    groups = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    return {
        "class": _class(optimizer),
        "options": _options(optimizer),
        "groups": groups,
        "state": optimizer.state_dict(),
    }


def check_state(optimizer: Optimizer | PyroOptim, names: Mapping[int, str], saved: Mapping[str, Any]) -> None:
    """Compares a saved optimizer with this one.

    Raises:
        CheckpointError: If it is of another class, other options or other parameters.
    """
    if saved["class"] != _class(optimizer):
        raise CheckpointError(
            f"The saved optimizer is {saved['class']}, and this run has {_class(optimizer)}. Give the saved one."
        )
    own = _options(optimizer)
    differ = [key for key in own if key in saved["options"] and not _equal(own[key], saved["options"][key])]
    if differ:
        there, here = ({key: options[key] for key in differ} for options in (saved["options"], own))
        raise CheckpointError(
            f"The saved optimizer was made with {there}, and this run's with {here}. Make it as the saved one was; to go on "
            "with other options, change svi.optimizer.param_groups afterwards."
        )
    if isinstance(optimizer, PyroOptim):
        return
    here_, there_ = (
        [set(group) for group in groups] for groups in (state_of(optimizer, names)["groups"], saved["groups"])
    )
    if here_ != there_:
        only = sorted(set().union(*there_) - set().union(*here_)), sorted(set().union(*here_) - set().union(*there_))
        which = "; ".join(
            f"only {where}: {', '.join(found)}" for where, found in zip(("there", "here"), only, strict=True) if found
        )
        raise CheckpointError(
            f"The saved optimizer has {[len(g) for g in there_]} parameters by group, this run's {[len(g) for g in here_]}"
            + (f" ({which})." if which else ", and the groups hold others.")
        )
    _check_moments(optimizer, names, saved)


def take_up(optimizer: Optimizer | PyroOptim, names: Mapping[int, str], saved: Mapping[str, Any]) -> None:
    """Loads a saved state that `check_state` has accepted, each parameter's by its name."""
    state = copy.deepcopy(saved["state"])  # an optimizer would go on in the caller's tensors
    if isinstance(optimizer, PyroOptim):
        optimizer.optim_objs.clear()  # those at work would keep their own
        optimizer.grad_clip.clear()
        optimizer.set_state(state)
        return
    place = _places(saved)
    packed: dict[int, Any] = {}
    groups: list[dict[str, Any]] = []
    start = 0
    for group, stored in zip(optimizer.param_groups, state["param_groups"], strict=True):
        indices = [place[names[id(p)]] for p in group["params"]]
        packed |= {start + i: state["state"][old] for i, old in enumerate(indices) if old in state["state"]}
        renamed = {"param_names": list(group["param_names"])} if "param_names" in group else {}
        groups.append({**stored, **renamed, "params": list(range(start, start + len(indices)))})
        start += len(indices)
    optimizer.load_state_dict({**state, "state": packed, "param_groups": groups})


def _check_moments(optimizer: Optimizer, names: Mapping[int, str], saved: Mapping[str, Any]) -> None:
    """A moment has its parameter's shape, or is a number."""
    place = _places(saved)
    for group in optimizer.param_groups:
        for p in group["params"]:
            for key, value in saved["state"]["state"].get(place[names[id(p)]], {}).items():
                if isinstance(value, Tensor) and value.numel() == p.numel() and value.dim() and value.shape != p.shape:
                    raise CheckpointError(
                        f"The saved optimizer's {key!r} of {names[id(p)]!r} has the shape {tuple(value.shape)}, and the "
                        f"parameter {tuple(p.shape)}."
                    )


def _places(saved: Mapping[str, Any]) -> dict[str, int]:
    """A parameter's number in the saved state, by its name."""
    found: dict[str, int] = {}
    for group, stored in zip(saved["groups"], saved["state"]["param_groups"], strict=True):
        found |= dict(zip(group, stored["params"], strict=True))
    return found


def _is_named(optimizer: Optimizer) -> bool:
    return "param_names" in optimizer.param_groups[0]


def _class(optimizer: Optimizer | PyroOptim) -> str:
    kind = optimizer.pt_optim_constructor if isinstance(optimizer, PyroOptim) else type(optimizer)
    name = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', kind)}"
    return f"pyro.optim.PyroOptim of {name}" if isinstance(optimizer, PyroOptim) else name


def _options(optimizer: Optimizer | PyroOptim) -> dict[str, Any]:
    """The options that an optimizer was made with, as far as they are plain numbers and words."""
    given = optimizer.pt_optim_args if isinstance(optimizer, PyroOptim) else optimizer.defaults
    if callable(given):  # of each parameter its own
        return {}
    kept = {key: value for key, value in given.items() if key not in _IMPLEMENTATION}
    return {
        key: value for key, value in kept.items() if isinstance(value, bool | int | float | str | tuple | Tensor | None)
    }


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return bool((torch.as_tensor(one).cpu() == torch.as_tensor(other).cpu()).all())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
