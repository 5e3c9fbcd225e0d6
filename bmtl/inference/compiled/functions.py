"""Functions with a derivative of their own (`torch.autograd.Function`) in a captured graph: as they are, not looked into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode, track_tensor_tree
from torch.utils import _pytree as pytree

from bmtl.inference.compiled.refusal import current_statement


@contextmanager
def as_they_are() -> Iterator[None]:
    """While a graph is captured, ``apply`` becomes one call in it.

    Capturing sees the operations of ``forward``, and would differentiate those. What ``forward`` does with values is done
    again in every replay, so it may branch on them.
    """
    kept = torch.autograd.Function.__dict__["apply"]
    ordinary: Callable[..., Any] = kept.__func__

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        mode: Any = get_proxy_mode()
        if mode is None:
            return ordinary(cls, *args, **kwargs)
        flat, spec = pytree.tree_flatten((args, kwargs))
        tensors = [part for part in flat if isinstance(part, Tensor)]
        others = [None if isinstance(part, Tensor) else part for part in flat]
        places = [i for i, part in enumerate(flat) if isinstance(part, Tensor)]

        def call(*given: Tensor) -> Any:
            parts = list(others)
            for i, tensor in zip(places, given, strict=True):
                parts[i] = tensor
            args, kwargs = pytree.tree_unflatten(parts, spec)
            return ordinary(cls, *args, **kwargs)

        call.__name__ = call.__qualname__ = cls.__name__
        with disable_proxy_modes_tracing(), torch._C.DisableTorchFunction():
            found = call(*tensors)
        proxies = pytree.tree_map(mode.tracer.unwrap_proxy, tuple(tensors))
        proxy = mode.tracer.create_proxy("call_function", call, proxies, {}, name=cls.__name__.strip("_"))
        proxy.node.meta["statement"] = current_statement()
        return track_tensor_tree(found, proxy, constant=None, tracer=mode.tracer)

    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        torch.autograd.Function.apply = kept  # type: ignore[method-assign]
