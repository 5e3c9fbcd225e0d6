"""One loader for each task: its batches joined to one batch of all tasks."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from bmtl import inputs
from bmtl.inference.loaders import length_of
from bmtl.inputs import PerTask


class LoadersByTask:
    """A loader of mappings task -> that task's batch.

    Args:
        loaders: Task -> loader. An epoch is as long as the longest.
        cycle: A loader that is shorter begins again; otherwise its task has None in the batches that are left.

    Raises:
        ValueError: If there is no loader, or one has no batch.
    """

    def __init__(self, loaders: Mapping[str, Iterable[Any]], cycle: bool) -> None:
        if not loaders:
            raise ValueError("A mapping of loaders has one for each task, and this one is empty.")
        self.loaders, self.cycle = dict(loaders), cycle
        if all(length_of(loader) is not None for loader in self.loaders.values()):
            self.__class__ = _SizedLoadersByTask

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for loader in self.loaders.values():  # those that own a generator are seeded from torch's
            if isinstance(generator := getattr(loader, "generator", None), torch.Generator):
                generator.manual_seed(int(torch.randint(2**62, ())))
        turns = {task: iter(loader) for task, loader in self.loaders.items()}
        ended: set[str] = set()
        while True:
            batch: dict[str, Any] = {}
            for task, turn in turns.items():
                batch[task] = next(turn, None)
                if batch[task] is None:
                    ended.add(task)
            if len(ended) == len(turns):
                return
            for task in ended if self.cycle else ():
                if batch[task] is None:
                    turns[task] = iter(self.loaders[task])
                    batch[task] = next(turns[task], None)
                    if batch[task] is None:
                        raise ValueError(f"The loader of task {task!r} is empty: it has no batch to give.")
            yield batch


class _SizedLoadersByTask(LoadersByTask):
    def __len__(self) -> int:
        return max(length_of(loader) or 0 for loader in self.loaders.values())


class TaskBatches:
    """Joins batches of tasks' own loaders, ``{task: (x, y)}``, to ``(PerTask(x), y)``; leaves other batches as they are.

    ``y`` is the task's labels, or a mapping of its targets to labels. A task whose batch is None or absent has one row of an
    earlier batch, without labels: it is absent from the step, and a program that wants inputs of every task has some.

    Args:
        model: A mapping whose keys are arguments of this program is a batch of keyword arguments.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        self._signature: inspect.Signature | None = None
        with suppress(TypeError, ValueError):  # of some callables nothing is known
            self._signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
        self._rows: dict[str, tuple[Any, dict[str, Tensor]]] = {}  # of each task one row without labels

    def joined(self, batch: Any) -> Any:
        """A batch as the program takes it.

        Raises:
            ValueError: If two tasks have labels of one target, or a task's batch is no pair.
        """
        if not self._is_by_task(batch):
            return batch
        parts = {task: _with_names(task, *pair) for task, pair in batch.items() if pair is not None}
        for task, (x, y) in parts.items():
            if task not in self._rows:
                first = {name: torch.full_like(labels[:1], _missing(labels)) for name, labels in y.items()}
                self._rows[task] = inputs.take(x, torch.zeros(1, dtype=torch.long)), first
        parts = {task: parts.get(task, row) for task, row in self._rows.items()}
        labels: dict[str, Tensor] = {}
        for task, (_, y) in parts.items():
            if twice := labels.keys() & y.keys():
                raise ValueError(
                    f"The loader of task {task!r} has labels of {sorted(twice)}, which another one has too."
                )
            labels |= y
        return PerTask({task: x for task, (x, _) in parts.items()}), labels

    def _is_by_task(self, batch: Any) -> bool:
        if self._signature is None or not isinstance(batch, Mapping) or not inputs.is_structure(batch) or not batch:
            return False
        if not all(pair is None or isinstance(pair, tuple | list) for pair in batch.values()):
            return False
        try:
            self._signature.bind(**batch)
        except TypeError:
            self._check_pairs(batch)
            return True
        return False

    @staticmethod
    def _check_pairs(batch: Mapping[str, Any]) -> None:
        for task, pair in batch.items():
            if pair is not None and len(pair) != 2:
                raise ValueError(
                    f"The loader of task {task!r} gives batches of {len(pair)} parts, and a task's batch is a pair (inputs, "
                    "labels). Join what belongs to the inputs to one mapping."
                )


def _with_names(task: str, x: Any, y: Any) -> tuple[Any, dict[str, Tensor]]:
    return x, dict(y) if isinstance(y, Mapping) else {task: y}


def _missing(labels: Tensor) -> float:
    return torch.nan if labels.is_floating_point() else -1
