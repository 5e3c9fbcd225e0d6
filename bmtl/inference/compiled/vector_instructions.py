"""Which vector instructions inductor's kernels use, asked of the processor alone."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


@contextmanager
def of_processor() -> Iterator[bool]:
    """While kernels are compiled, takes the instructions that the processor has, without trying the C++ compiler.

    Inductor finds out by up to six small libraries that it compiles and loads in other processes, the first time on a
    machine: six seconds, a third of what compiling a step takes. Tile instructions (AMX), which need a set-up by the
    operating system, are not among those taken here. Where inductor already knows, or was told, or on processors of other
    kinds, nothing is changed, and the value is False.
    """
    from torch._inductor import config, cpu_vec_isa

    if (
        platform.machine() not in ("x86_64", "AMD64")
        or config.cpp.vec_isa_ok is not None
        or cpu_vec_isa.valid_vec_isa_list.cache_info().currsize
    ):
        yield False
        return
    has = set(cpu_vec_isa.x86_isa_checker()) - {"amx_tile"}
    found = [_trusted(kind) for kind in cpu_vec_isa.supported_vec_isa_list if has.issuperset(str(kind).split())]
    with mock.patch.object(cpu_vec_isa, "valid_vec_isa_list", return_value=found):
        yield True


def _trusted(kind: Any) -> Any:
    """The same instructions, which are not tried where inductor asks whether there are any."""
    return type(type(kind).__name__, (type(kind),), {"__bool__": lambda _: True})()
