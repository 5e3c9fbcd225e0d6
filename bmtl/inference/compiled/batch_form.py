"""The form of a batch: what a captured graph depends on besides the numbers in its tensors."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from bmtl import inputs
from bmtl.inference.compiled.refusal import CannotCaptureError
from bmtl.inference.programs import Batch


def form_of(batch: Batch) -> tuple[Hashable, list[Tensor]]:
    """A key that two batches of one form share, and the tensors of this one in a fixed order.

    The key holds the structure with its names, each tensor's shape, type, device and layout, which of them are the same
    tensor, and all numbers, flags and strings by value.

    Raises:
        CannotCaptureError: If part of the batch is of a type whose tensors `bmtl.inputs` does not know.
    """
    tensors: list[Tensor] = []
    key: list[Any] = []
    args, kwargs = batch
    for part in args:
        _add(part, key, tensors)
    if kwargs:
        _add(kwargs, key, tensors)
    ids = [id(tensor) for tensor in tensors]
    if len(set(ids)) < len(ids):
        key.append(tuple(map(ids.index, ids)))
    return tuple(key), tensors


def _add(part: Any, key: list[Any], tensors: list[Tensor]) -> None:
    if isinstance(part, Tensor):
        if part.layout is not torch.strided:
            raise CannotCaptureError(f"the batch holds a sparse tensor {tuple(part.shape)}")
        tensors.append(part)
        key += (part.shape, part.stride(), part.dtype, part.device, part.requires_grad)
    elif part is None or isinstance(part, bool | int | float | str):
        key += (type(part), part)
    elif isinstance(part, dict | tuple | list):
        children = part.items() if isinstance(part, dict) else enumerate(part)
        key += (type(part), len(part))
        for name, child in children:
            key.append(name)
            _add(child, key, tensors)
    else:
        try:
            named: Mapping[str, Tensor] = inputs.parts(part)
        except TypeError as error:
            raise CannotCaptureError(
                f"the batch holds a {type(part).__name__}, whose tensors are not known (register bmtl.inputs.parts)"
            ) from error
        key.append(type(part))
        _add(dict(named), key, tensors)
