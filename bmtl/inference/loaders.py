"""Batches: how they are spread into arguments, and loaders whose order follows from a seed alone."""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from bmtl import inputs
from bmtl.inference import distributed


def mixed_seed(*numbers: int) -> int:
    """One seed from several numbers."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 12_345) % (2**63 - 1)
    return seed


def seed_random_state(seed: int) -> None:
    """Seeds torch's own generators, as `torch.manual_seed` does.

    Without an accelerator, `torch.manual_seed` records a call for each one that might be set up later, with the stack: a
    millisecond each time, and memory that is never freed.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextmanager
def forked(device: torch.device | None) -> Iterator[None]:
    """Random state that is put back afterwards."""
    cuda = torch.cuda.is_available() and (device is None or device.type == "cuda")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else ()):
        yield


def spread(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A batch as positional and keyword arguments: a tuple's or list's entries, a mapping's, or the batch itself.

    Raises:
        TypeError: If it is none of these, nor inputs that `bmtl.inputs` supports.
    """
    if isinstance(batch, Mapping) and inputs.is_structure(batch):
        return (), dict(batch)
    if isinstance(batch, list) or inputs.is_structure(batch):
        return tuple(batch), {}
    if inputs.countable(batch):
        return (batch,), {}
    raise TypeError(
        f"A batch is a tuple (spread as *batch), a mapping (**batch) or inputs that bmtl.inputs knows, not "
        f"{type(batch).__name__}."
    )


def moved(batch: Any, device: torch.device) -> Any:
    """A batch on a device: everything in it that `bmtl.inputs` supports, or that has a method ``to``."""
    if isinstance(batch, Mapping) and inputs.is_structure(batch):
        return {name: moved(part, device) for name, part in batch.items()}
    if isinstance(batch, list) or inputs.is_structure(batch):
        parts = [moved(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    if inputs.countable(batch):
        return inputs.to(batch, device)
    return batch.to(device) if hasattr(batch, "to") else batch


def first_batch(loader: Iterable[Any]) -> Any:
    """A batch of a loader; of a mapping of loaders, a batch of each.

    Raises:
        ValueError: If there is none.
    """
    if isinstance(loader, Mapping):
        return {name: first_batch(part) for name, part in loader.items()}
    for batch in loader:
        return batch
    raise ValueError("The loader 'train' is empty: it has no batch to give.")


def batch_aside(loader: Iterable[Any]) -> Any:
    """A batch of a loader whose iteration has begun.

    Lightning's sampler for predictions has one place for all iterators: another one would move it.
    """
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        return first_batch(loader)
    rows = next(iter(copy.copy(loader.batch_sampler)))
    return loader.collate_fn([loader.dataset[row] for row in rows])


class SeededLoader:
    """A loader whose order follows from a seed alone; one loader for Lightning, which takes a list for several.

    Args:
        loader: The batches.
        seed: Gives the seed of the next pass.
        divided: Among processes that train together: each takes one of every so many batches, and a rest is left out.
    """

    def __init__(self, loader: Iterable[Any], seed: Callable[[], int], divided: bool = True) -> None:
        self.loader, self.seed, self.divided = loader, seed, divided
        if length_of(loader) is not None:
            self.__class__ = _SizedLoader

    def __iter__(self) -> Iterator[Any]:
        loader: Any = self.loader
        seed = self.seed()
        if isinstance(getattr(loader, "generator", None), torch.Generator):
            loader.generator.manual_seed(seed)
        with forked(None):
            seed_random_state(seed)
            batches = iter(loader)
            opening = list(itertools.islice(batches, 1))  # a loader draws its order when the first batch is requested
        world, rank = (distributed.world_size(), distributed.rank()) if self.divided else (1, 0)
        batches = itertools.chain(opening, batches)
        while len(turn := list(itertools.islice(batches, world))) == world:
            yield turn[rank]


class _SizedLoader(SeededLoader):
    def __len__(self) -> int:
        return len(self.loader) // (distributed.world_size() if self.divided else 1)  # type: ignore[arg-type]


def length_of(loader: Any) -> int | None:
    """Number of batches, where it is known; a DataLoader of an IterableDataset has a length that raises."""
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:
        return None
