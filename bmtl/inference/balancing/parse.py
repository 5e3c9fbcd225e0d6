"""The string form of a balancer: ``"igb-v1 >> last-layer >> nash-mtl >> norm"``."""

import ast
import re
from typing import Literal

from bmtl.inference.balancing import geometry, transforms, weightings
from bmtl.inference.balancing.balancer import Balancer
from bmtl.inference.balancing.base import Slot
from bmtl.inference.balancing.lengths import AsIs, Mean, Norm, Sum

SLOTS: dict[str, type[Slot]] = {
    cls.name: cls
    for cls in (
        *(getattr(room, name) for room in (transforms, geometry, weightings) for name in room.__all__),
        *(AsIs, Sum, Mean, Norm),
    )
}
"""Every choice by its name."""

# A task's name, in quotes, may hold ">>".
_JOIN = re.compile(r""">>(?=(?:[^'"]|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")*$)""", re.DOTALL)
_PART = re.compile(r"^([a-z][a-z0-9-]*)\s*(?:\((.*)\))?$", re.DOTALL)


def balancer(spec: str | Slot | Balancer, *, heads: Literal["transform", "alpha"] = "transform") -> Balancer:
    """A balancer from its string form or from slots.

    Args:
        spec: Names joined by ``>>``, each slot at most once and in any order, with options in brackets:
            ``"ew(weights={'a': 2.0}) >> nash-mtl"``. A slot or a balancer is taken as it is.
        heads: As for `Balancer`; for strings and slots.

    Raises:
        ValueError: If a name, an option or the form is not known.
        TypeError: If `spec` is of another type.
    """
    if isinstance(spec, Balancer):
        made = spec
    elif isinstance(spec, Slot):
        made = Balancer.of(spec, heads=heads)
    elif isinstance(spec, str):
        made = Balancer.of(*(_slot(part.strip(), spec) for part in _JOIN.split(spec)), heads=heads)
    else:
        raise TypeError(f"A balancer is a string such as 'igb-v1 >> nash-mtl', or slots, not {type(spec).__name__}.")
    made.check()
    return made


def _slot(part: str, spec: str) -> Slot:
    match = _PART.match(part)
    if match is None:
        raise ValueError(
            f"{part!r} in {spec!r} is not a name with options in brackets; the form is 'igb-v1 >> last-layer >> nash-mtl'."
        )
    name, arguments = match.groups()
    if name not in SLOTS:
        raise ValueError(f"No balancer is called {name!r} (in {spec!r}). There are: {', '.join(sorted(SLOTS))}.")
    try:
        call = ast.parse(f"f({arguments or ''})", mode="eval").body
        # Brackets that close too early, as in "ew() + f()", parse as another expression or call another function.
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("the brackets do not match")
        if call.args or None in {k.arg for k in call.keywords}:
            raise ValueError("options are given by name")
        options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"The options of {name!r} in {spec!r} cannot be read: {error}.") from error
    try:
        return SLOTS[name](**options)
    except TypeError as error:
        raise ValueError(f"{name!r} does not take these options: {error}.") from error
