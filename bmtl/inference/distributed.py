"""Several processes under torch.distributed, each with its own rows: what their steps add up to.

Everything here does nothing in one process. Quantities that are reduced have the same bits in all processes, so all of them
take the same decisions: which tasks are present, whether a step can be taken, with which weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Number of processes that train together: those of torch.distributed's default group, or 1."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def sum_(tensor: Tensor) -> Tensor:
    """Sums a tensor over the processes, in place."""
    return _reduced(tensor, dist.ReduceOp.SUM) if world_size() > 1 and tensor.numel() else tensor


def mean_(tensor: Tensor) -> Tensor:
    """Averages a tensor over the processes, in place."""
    return sum_(tensor).div_(world_size()) if world_size() > 1 else tensor


def inner_products(local: Tensor) -> Tensor:
    """Inner products of vectors with an entry for each example, such as gradients at the representation.

    The processes' vectors are parts of one long vector: different examples have no product with each other. A step's
    gradient is the mean of the processes', so each entry counts ``1 / world``, and products are the sum over ``world^2``.
    """
    return sum_(local).div_(world_size() ** 2) if world_size() > 1 else local


def gather(item: Any) -> list[Any]:
    """What each process gives, in the order of the processes; for set-up, not for steps."""
    if world_size() == 1:
        return [item]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, item)
    return found


def share_state(tensors: Mapping[str, Tensor], module: nn.Module) -> None:
    """Gives every process the first one's tensors, and the state of a module, generators included.

    Args:
        tensors: Parameters and buffers of the program.
        module: The balancer.

    Raises:
        ValueError: If the processes have tensors of other names or shapes.
    """
    if world_size() > 1:
        share_parameters(tensors)
        module.load_state_dict(gather(module.state_dict() if rank() == 0 else None)[0])


def share_parameters(tensors: Mapping[str, Tensor]) -> None:
    """Gives every process the first one's tensors.

    Raises:
        ValueError: In all processes, if they have tensors of other names or shapes.
    """
    if world_size() == 1:
        return
    own = [(name, tuple(tensor.shape)) for name, tensor in tensors.items()]
    every = gather(own)
    others = [(number, theirs) for number, theirs in enumerate(every) if theirs != own]
    if others:
        number, theirs = others[0]
        differ = sorted({name for name, _ in set(own) ^ set(theirs)})
        raise ValueError(
            f"The processes train together and have different parameters: {differ or 'in another order'} (process "
            f"{rank()} against process {number}). Build one model in all of them, change it in all of them alike, and let "
            "the first batch of each show every task."
        )
    for tensor in tensors.values():
        tensor.detach().copy_(_sent(tensor.detach()))


def union(found: Mapping[int, Tensor], parameters: Sequence[Tensor]) -> dict[int, Tensor]:
    """The parameters that are found in any process, by `id`, in the order of all parameters.

    Args:
        found: Those found here, by `id`.
        parameters: All parameters, in the order that the processes share.

    Raises:
        ValueError: If one of those found is not a parameter of the model or the guide.
    """
    if world_size() == 1:
        return dict(found)
    here = torch.tensor([float(id(p) in found) for p in parameters], dtype=torch.float32)
    if int(here.sum()) < len(found):
        raise ValueError(
            "Tasks share parameters that neither the model nor the guide holds, and processes that train together must know "
            "them all. Register their module in the model."
        )
    flags = sum_(here).tolist()
    return {id(p): p for p, flag in zip(parameters, flags, strict=True) if flag}


def check_same(numbers: Sequence[int], message: str) -> None:
    """Checks that a few whole numbers are the same in all processes.

    Raises:
        ValueError: In all of them, if they are not.
    """
    if world_size() == 1:
        return
    both = torch.tensor([*numbers, *(-number for number in numbers)], dtype=torch.int64)
    largest, negative = _reduced(both, dist.ReduceOp.MAX).chunk(2)
    if not torch.equal(largest, -negative):
        raise ValueError(message)


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Averages every ``.grad`` over the processes, in one flat bucket for each device and dtype.

    A parameter with a gradient in some processes only, such as the head of a task that has no label in the others, counts
    as 0 there; one without a gradient in all of them keeps none.

    Raises:
        ValueError: For a sparse gradient.
    """
    if world_size() == 1:
        return
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            raise ValueError("Processes that train together average dense gradients. Use nn.Embedding(sparse=False).")
        kinds.setdefault((parameter.device, parameter.dtype), []).append(parameter)
    for (device, dtype), same in kinds.items():
        here = torch.tensor([parameter.grad is not None for parameter in same]).to(device, dtype)
        flat = mean_(torch.cat([*_flat_gradients(same), here]))
        *means, somewhere = flat.split([*(parameter.numel() for parameter in same), len(same)])
        for parameter, mean, seen in zip(same, means, somewhere.tolist(), strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(mean.view_as(parameter))
            elif seen:
                parameter.grad = mean.view_as(parameter).clone()


def check_weights(weights: Tensor) -> None:
    """Under ``TORCH_DISTRIBUTED_DEBUG``, checks that all processes have found the same weights, bit for bit.

    Raises:
        RuntimeError: If they have not.
    """
    if world_size() > 1 and dist.get_debug_level() != dist.DebugLevel.OFF:  # type: ignore[attr-defined]
        for number, theirs in enumerate(gather(weights)):
            if not torch.equal(theirs.nan_to_num(), weights.nan_to_num()):
                raise RuntimeError(f"Process {rank()} has the weights {weights}, and process {number} has {theirs}.")


def _flat_gradients(parameters: Sequence[Tensor]) -> Iterator[Tensor]:
    for parameter in parameters:
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        yield gradient.detach().reshape(-1)


def _reduced(tensor: Tensor, operation: Any) -> Tensor:
    reached = _reachable(tensor)
    dist.all_reduce(reached, operation)
    return tensor if reached is tensor else tensor.copy_(reached)


def _sent(tensor: Tensor) -> Tensor:
    """The first process's tensor."""
    reached = _reachable(tensor.clone())
    dist.broadcast(reached, 0)
    return reached.to(tensor.device)


def _reachable(tensor: Tensor) -> Tensor:
    """A tensor where the group can reach it: NCCL has none on the host."""
    on_host = tensor.device.type == "cpu" and dist.get_backend() == "nccl"
    return tensor.cuda() if on_host else tensor.contiguous()
