"""The content of checkpoints: tensors and Python's plain values, converted before they are written, with a digest."""

import enum
import hashlib
import struct
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmtl.inference.errors import CheckpointError

_AS_THEY_ARE = (type(None), bool, int, float, str, bytes, torch.dtype, torch.device)


def plain(value: Any, where: str = "state") -> Any:
    """The same state without any class that ``torch.load(..., weights_only=True)`` refuses.

    Numpy's scalars and enumerations become Python's, arrays become tensors, parameters become tensors, and named tuples
    become tuples.

    Args:
        value: Nested dicts, lists and tuples of tensors and plain values.
        where: What it is, for messages.

    Raises:
        CheckpointError: If something in it is none of these; says where.
    """
    if type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, Tensor):
        return value if type(value) is Tensor else value.detach().as_subclass(Tensor)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic | enum.Enum):
        return plain(value.item() if isinstance(value, np.generic) else value.value, where)
    if isinstance(value, Mapping):
        pairs = [(plain(key, f"{where}'s key"), plain(part, f"{where}[{key!r}]")) for key, part in value.items()]
        if not isinstance(value, OrderedDict):
            return dict(pairs)
        ordered = OrderedDict(pairs)
        if hasattr(value, "_metadata"):  # a module's: versions of its parts
            ordered._metadata = value._metadata  # type: ignore[attr-defined]
        return ordered
    if isinstance(value, list | tuple):
        parts = [plain(part, f"{where}[{i}]") for i, part in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise CheckpointError(
        f"{where} is of type {type(value).__name__}, and a checkpoint holds tensors and plain values only (numbers, "
        "strings, lists, dicts), so that reading one never runs code. Convert it in the state_dict() that gives it."
    )


def digest(value: Any) -> str:
    """A sha256 over a plain state: types, keys in their order, and every bit of every number and tensor.

    Devices and strides do not count.

    Raises:
        CheckpointError: If the state is not plain.
    """
    found = hashlib.sha256()
    _add(found, value)
    return found.hexdigest()


def _add(found: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        found.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        if flat.numel():
            found.update(flat.view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        found.update(f"dict {len(value)};".encode())
        for key, part in value.items():
            _add(found, key)
            _add(found, part)
    elif isinstance(value, list | tuple):
        found.update(f"{type(value).__name__} {len(value)};".encode())
        for part in value:
            _add(found, part)
    elif type(value) is float:
        found.update(b"float " + struct.pack("<d", value))
    elif type(value) in _AS_THEY_ARE:
        text = value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")
        found.update(f"{type(value).__name__} {len(text)};".encode() + text)
    else:
        raise CheckpointError(f"A value of type {type(value).__name__} has no digest: it is not plain.")
