"""The part of a data set that a method gets: one table of inputs for all targets, or each target's own rows."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmtl import inputs
from bmtl.datasets import Batches, BatchesByTask, MultiTaskData
from bmtl.datasets.augmentation import AugmentedBatches
from bmtl.experiments import registry
from bmtl.experiments.methods import Method
from bmtl.inputs import PerTask
from bmtl.models.spec import DataSpec

Loader = Batches | BatchesByTask | AugmentedBatches

WHOLE = 1024  # rows in a batch that is not trained on
LABELS = 1 << 20  # numbers that the labels of a target have in it at most, where rows are images


def own_rows(data: MultiTaskData, method: Method) -> bool:
    """Whether the method is trained on each target's own rows: its recipe asks for them, and no row has two labels.

    A recipe asks by an attribute `own_rows`: in a table its model would encode every row for every target.
    """
    return bool(getattr(registry.recipe(method.model).value, "own_rows", False)) and data.one_label_a_row


def needs_support(method: Method) -> bool:
    """Whether the method's model looks up training rows, as its recipe says by an attribute `requires_support`."""
    return bool(getattr(registry.recipe(method.model).value, "requires_support", False))


def tensors(
    data: MultiTaskData, method: Method, part: str, dtype: torch.dtype = torch.float32
) -> tuple[Any, dict[str, Tensor]]:
    """Inputs and labels of a part, ``data.tensors`` or ``data.tensors_by_task``, floats in `dtype`.

    A target without a label in the part has no rows there; then all targets have the table.
    """
    if own_rows(data, method) and len(data.rows_by_task(part)) == len(data.tasks):
        return data.tensors_by_task(part, dtype)
    return data.tensors(part, dtype)


def keeps_support(method: Method) -> bool:
    """Whether its fitted model looks up training rows too, as the recipe says by an attribute `keeps_support`."""
    return bool(getattr(registry.recipe(method.model).value, "keeps_support", needs_support(method)))


def spec_of(data: MultiTaskData, method: Method, dtype: torch.dtype = torch.float32) -> DataSpec:
    """The description of the data for the method's recipe; with the training rows in `dtype` if its model needs them."""
    x, y = tensors(data, method, "train", dtype)
    return DataSpec(
        targets={name: target.family for name, target in data.targets.items()},
        n_data={task: len(labels) for task, labels in y.items()} if isinstance(x, PerTask) else inputs.count(x),
        inputs=data.inputs.describe(),
        support=(x, y) if needs_support(method) else None,
        labels=y,
        examples=x,
        others=data.others if method.single_task else {},
    )


def batches(
    x: Any,
    y: Mapping[str, Tensor],
    batch_size: int,
    seed: int,
    blocks: np.ndarray | None = None,
    *,
    whole: bool = False,
) -> Batches | BatchesByTask:
    """Shuffled batches of `batch_size` rows, of all targets together; an epoch is each row once.

    With `whole`, the rows of an epoch that do not fill a batch are left out: under losses that are divided by their size, a
    batch of two rows would count as much as one of sixteen.

    A target with its own rows, and fewer of them than the epoch has batches, has one in every batch nevertheless: its
    rows come again, and batches are larger by them (on School, with batches of 128, by a quarter). Of one table, rows come
    in the `blocks` that its inputs ask for.
    """
    if isinstance(x, PerTask):
        return BatchesByTask(x, y, total=batch_size, seed=seed)
    return Batches(
        x,
        y,
        batch_size,
        seed=seed,
        drop_last=whole and inputs.count(x) >= batch_size,
        blocks=None if blocks is None else torch.as_tensor(blocks),
    )


def augmented(loader: Batches | BatchesByTask, data: MultiTaskData) -> AugmentedBatches:
    """Batches with a random view of each row's inputs and labels.

    Raises:
        ValueError: If inputs of the kind have no random views, targets have their own rows, or it is not known what becomes
            of a target's labels in another view.
    """
    views = data.inputs.views()
    if views is None or not isinstance(loader, Batches):
        kind = f"inputs of the kind {data.inputs.kind!r}, which have no random views"
        raise ValueError(
            f"Augmentation needs inputs with random views, such as images, which all targets have in common; {data.name!r} "
            f"has {kind if views is None else 'inputs of each target by itself'}. Leave it out."
        )
    views.check(data.targets)
    return AugmentedBatches(loader, views)


class Stretches:
    """The same batches in stretches of equally many, pass after pass through the data.

    Args:
        loader: Batches of one pass.
        steps: Number of batches in a stretch.
    """

    def __init__(self, loader: Loader, steps: int) -> None:
        self.loader, self.steps = loader, steps
        self._batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self._batches, self.steps)


def once(x: Any, y: Mapping[str, Tensor], blocks: np.ndarray | None = None) -> Batches | BatchesByTask:
    """Batches of 1,024 rows in which each row comes once, in order; larger ones, if a target has too few rows for all.

    Of one table, the order is that of its `blocks`; of images there are as many in a batch as `rows_in_memory` says.
    """
    if not isinstance(x, PerTask):
        if blocks is not None:
            order = torch.as_tensor(np.argsort(blocks, kind="stable"))
            x, y = inputs.take(x, order), {name: inputs.take(labels, order) for name, labels in y.items()}
        return Batches(x, y, rows_in_memory(y), shuffle=False)
    sizes = list(x.counts().values())
    return BatchesByTask(x, y, total=max(WHOLE, -(-sum(sizes) // min(sizes))), shuffle=False)


def rows_in_memory(y: Mapping[str, Tensor]) -> int:
    """How many rows are looked at together: 1,024, or fewer where a label has many numbers."""
    largest = max(labels[0].numel() for labels in y.values())
    return max(1, min(WHOLE, LABELS // largest))
