"""Real data: readers, what they return, and the loaders that feed a training loop."""

from bmtl.datasets.batches import Batches
from bmtl.datasets.batches_by_task import BatchesByTask
from bmtl.datasets.images import Images
from bmtl.datasets.input_kind import Inputs, inputs_from_state, inputs_state, register_kind
from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.datasets.registry import Reader, describe, load, names, register
from bmtl.datasets.table import Table

__all__ = [
    "Batches",
    "BatchesByTask",
    "Images",
    "Inputs",
    "MultiTaskData",
    "Reader",
    "Table",
    "describe",
    "inputs_from_state",
    "inputs_state",
    "load",
    "names",
    "register",
    "register_kind",
]
