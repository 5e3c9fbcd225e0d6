"""The content of a saved run: its fields and their types, and how it may differ from the run that loads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bmtl.inference.balancing import Balancer
from bmtl.inference.errors import CheckpointError

# Fields of a run's state, of its optimizer's, its balancer's and its history's.
_RUN: dict[str, type] = {
    "names": list,
    "module": dict,
    "params": dict,
    "numbers": dict,
    "optimizer": dict,
    "balancer": dict,
    "epoch_sums": Tensor,
    "epoch_counts": Tensor,
    **dict.fromkeys(("steps", "epoch", "batch", "skipped"), int),
    "lr0": float,
    "history": dict,
    "scaler": dict,
    "gradients": dict,
}
_OPTIMIZER: dict[str, type] = {"class": str, "options": dict, "groups": list, "state": dict}
_BALANCER: dict[str, type] = {"slots": str, "heads": str, "state": dict}
_HISTORY: dict[str, type] = {
    "names": list,
    "seen": int,
    "every": int,
    **dict.fromkeys(("packed", "seconds", "probed"), dict),
    "words": list,
    "events": dict,
}


def check_structure(state: Any) -> None:
    """Checks that a run's state has its fields, each of its type.

    Raises:
        CheckpointError: If one is missing, unknown or of the wrong type; names it.
    """
    check_fields(state, _RUN, "The saved run")
    check_fields(state["optimizer"], _OPTIMIZER, "The saved optimizer")
    check_fields(state["balancer"], _BALANCER, "The saved balancer")
    _check_history(state["history"], "The saved history")
    for field in ("names", "numbers", "module", "params", "gradients"):
        wrong = [key for key in state[field] if not isinstance(key, str)]
        if wrong:
            raise CheckpointError(f"The saved run's {field!r} has the key {wrong[0]!r}, and names are strings.")
    k = len(state["names"])
    for field in ("epoch_sums", "epoch_counts"):
        if state[field].shape != (k,):
            raise CheckpointError(
                f"The saved run's {field!r} has the shape {tuple(state[field].shape)}, and it has {k} tasks."
            )
    for field in ("steps", "epoch", "batch", "skipped"):
        if state[field] < 0:
            raise CheckpointError(f"The saved run's {field!r} is {state[field]}, and it counts from 0.")
    numbers = state["numbers"]
    if set(numbers) != {"declared", "labelled", "rows"} or not all(isinstance(of, dict) for of in numbers.values()):
        raise CheckpointError(f"The saved run's 'numbers' are of data by task, and are {numbers}.")
    if state["history"]["seen"] and state["history"]["names"] != state["names"]:
        raise CheckpointError(f"The saved history is of the tasks {state['history']['names']}, not {state['names']}.")
    _check_packed_optimizer(state["optimizer"])


def check_fields(state: Any, fields: Mapping[str, type], where: str) -> None:
    """Checks a dict's keys and the types of its values.

    Raises:
        CheckpointError: If a key is missing or unknown, or a value is of the wrong type.
    """
    if not isinstance(state, dict):
        raise CheckpointError(f"{where} is a {type(state).__name__}, and a dict is expected.")
    missing = [key for key in fields if key not in state]
    if missing:
        raise CheckpointError(f"{where} lacks {', '.join(map(repr, missing))}.")
    for key, kind in fields.items():
        value = state[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise CheckpointError(f"{where}'s {key!r} is a {type(value).__name__}, and a {kind.__name__} is expected.")


def _check_history(state: Any, where: str) -> None:
    check_fields(state, _HISTORY, where)
    last = state.get("last")
    if last is not None:
        _check_history(last, f"{where}'s last record")
    columns = {**state["packed"], **state["seconds"], **state["probed"]}
    wrong = [name for name, column in columns.items() if not isinstance(column, Tensor)]
    if wrong:
        raise CheckpointError(
            f"{where}'s {wrong[0]!r} is a {type(columns[wrong[0]]).__name__}, and a tensor is expected."
        )
    if state["every"] < 1 or state["seen"] < 0:
        raise CheckpointError(f"{where} keeps every {state['every']}th of {state['seen']} steps.")
    if state["seen"] > 1 and not state["packed"]:
        raise CheckpointError(f"{where} is of {state['seen']} steps, and holds none.")
    lengths = {name: len(column) for name, column in columns.items() if name != "gram"}
    if len(set(lengths.values())) > 1:
        raise CheckpointError(f"{where}'s columns are of different lengths: {lengths}.")


def _check_packed_optimizer(saved: Mapping[str, Any]) -> None:
    state = saved["state"]
    if not saved["groups"]:  # a PyroOptim's, by parameter
        return
    check_fields(state, {"state": dict, "param_groups": list}, "The saved optimizer's state")
    for i, group in enumerate(state["param_groups"]):
        check_fields(group, {"params": list}, f"The saved optimizer's group {i}")
    sizes = [len(names) for names in saved["groups"]], [len(group["params"]) for group in state["param_groups"]]
    if sizes[0] != sizes[1]:
        raise CheckpointError(f"The saved optimizer names {sizes[0]} parameters by group, and holds {sizes[1]}.")
    for number, moments in state["state"].items():
        if not isinstance(moments, dict):
            raise CheckpointError(
                f"The saved optimizer's moments of parameter {number!r} are a {type(moments).__name__}, and a dict is "
                "expected."
            )


def balancer_state(balancer: Balancer) -> dict[str, Any]:
    """A balancer's state with the choices and options that are compared before it is loaded."""
    return {"slots": str(balancer), "heads": balancer.heads, "state": balancer.state_dict()}


def check_balancer(balancer: Balancer, saved: Mapping[str, Any]) -> None:
    """Compares a saved balancer's choices and options with this one's.

    Raises:
        CheckpointError: If they differ.
    """
    own = balancer_state(balancer)
    if (saved["slots"], saved["heads"]) != (own["slots"], own["heads"]):
        raise CheckpointError(
            f"The saved balancer is {saved['slots']!r} with heads={saved['heads']!r}, and this run's {own['slots']!r} with "
            f"heads={own['heads']!r}. Make it as the saved one was."
        )


def differences(own: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """How two states differ in names, types and shapes."""
    found = [f"{name!r} is only in the saved state" for name in saved if name not in own]
    found += [f"{name!r} is not in the saved state" for name in own if name not in saved]
    for name in own:
        if name not in saved or not isinstance(own[name], Tensor):
            continue
        if not isinstance(saved[name], Tensor):
            found.append(f"{name!r} is a {type(saved[name]).__name__} there")
        elif own[name].shape != saved[name].shape:
            found.append(f"{name!r} has the shape {tuple(saved[name].shape)} there and {tuple(own[name].shape)} here")
        elif own[name].is_complex() != saved[name].is_complex():
            found.append(f"{name!r} is {saved[name].dtype} there and {own[name].dtype} here")
    return found


def on_host(value: Any) -> Any:
    """A copy of a nested state whose tensors are in the host's memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: on_host(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_host(part) for part in value)
    return value
