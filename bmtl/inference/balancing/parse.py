"""The string form of a balancer: ``"igb-v1 >> last-layer >> nash-mtl >> norm"``."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Literal

from bmtl.inference.balancing.balancer import Balancer
from bmtl.inference.balancing.registry import SLOTS, check_slot_class
from bmtl.inference.balancing.slots import Pipeline, Slot

Resolve = Callable[[str], Any]

# A task's name, in quotes, may hold ">>".
_JOIN = re.compile(r""">>(?=(?:[^'"]|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")*$)""", re.DOTALL)
_PART = re.compile(r"(?P<name>[a-z][a-z0-9-]*|(?P<path>[^()'\"]+:[A-Za-z_]\w*))\s*(?:\((?P<options>.*)\))?", re.DOTALL)


def balancer(
    spec: str | Slot | Pipeline | Balancer,
    *,
    heads: Literal["transform", "alpha"] = "transform",
    resolve: Resolve | None = None,
) -> Balancer:
    """A balancer from its string form or from choices.

    Args:
        spec: Names joined by ``>>``, each slot at most once and in any order, with options in brackets:
            ``"ew(weights={'a': 2.0}) >> nash-mtl"``. A choice, choices joined by ``>>`` or a balancer are taken as they are.
        heads: As for `Balancer`; for all but a balancer, which has its own.
        resolve: Finds the class of a choice that a string names by its path, ``package.module:Name`` or ``file.py:Name``;
            it is called with that path. Without it, a string has only the built-in names and those of `register_slot`:
            reading a string then runs no code of others.

    Raises:
        ValueError: If a name, an option or the form is not known.
        TypeError: If `spec` is of the wrong type, or a path leads to something else than a choice's class.
    """
    if isinstance(spec, Balancer):
        made = spec
    elif isinstance(spec, str):
        made = Balancer.of(*(_slot(part.strip(), spec, resolve) for part in _JOIN.split(spec)), heads=heads)
    elif isinstance(spec, Slot | Pipeline):
        made = Balancer.of(*spec.slots, heads=heads)
    else:
        raise TypeError(f"A balancer is a string such as 'igb-v1 >> nash-mtl', or choices, not {type(spec).__name__}.")
    made.check()
    return made


def _slot(part: str, spec: str, resolve: Resolve | None) -> Slot:
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(
            f"{part!r} in {spec!r} is not a name with options in brackets; the form is 'igb-v1 >> last-layer >> nash-mtl'."
        )
    name = match["name"].strip()
    cls = _class(name, match["path"] is not None, spec, resolve)
    try:
        call = ast.parse(f"f({match['options'] or ''})", mode="eval").body
        # Brackets that close too early, as in "ew() + f()", parse as another expression or call another function.
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("the brackets do not match")
        if call.args or None in {k.arg for k in call.keywords}:
            raise ValueError("options are given by name")
        options = {str(k.arg): _plain(str(k.arg), k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"The options of {name!r} in {spec!r} cannot be read: {error}.") from error
    try:
        slot = cls(**options)
    except TypeError as error:
        parameters = [*inspect.signature(cls.__init__).parameters.values()][1:]
        known = ", ".join(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD or p.kind is p.KEYWORD_ONLY)
        reason = str(error).rstrip(".")
        raise ValueError(
            f"{name!r} does not take these options: {reason}. Its options are: {known or 'none'}."
        ) from error
    slot.called = name
    return slot


def _plain(option: str, value: ast.expr) -> Any:
    """A plain value: a number, a truth value, None, text in quotes, or a list, tuple or mapping of them."""
    try:
        return ast.literal_eval(value)
    except ValueError:
        text = ast.unparse(value)
        hint = f"; text has quotes, {option}={text!r}" if isinstance(value, ast.Name) else ""
        raise ValueError(f"{option}={text} is no number and no other plain value{hint}") from None


def _class(name: str, is_path: bool, spec: str, resolve: Resolve | None) -> type[Slot]:
    if is_path and resolve is not None:
        return check_slot_class(resolve(name))
    if is_path:
        raise ValueError(
            f"{name!r} in {spec!r} is the path of a class, and paths are not followed here. Give the object itself, such as "
            "MyWeighting(); or register the class, bmtl.inference.balancing.register_slot(MyWeighting.name, MyWeighting)."
        )
    if name not in SLOTS:
        alike = get_close_matches(name, SLOTS, n=1) or [other for other in SLOTS if name in other.split("-")][:1]
        hint = f" Did you mean {alike[0]!r}?" if alike else ""
        raise ValueError(f"No balancer is called {name!r} (in {spec!r}).{hint} There are: {', '.join(sorted(SLOTS))}.")
    return SLOTS[name]
