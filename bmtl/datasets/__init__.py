"""Real data as arrays: readers, scalers, fixed splits, and the loaders that feed a training loop."""

from bmtl.datasets.base import MultiTaskData
from bmtl.datasets.batches import Batches
from bmtl.datasets.batches_by_task import BatchesByTask
from bmtl.datasets.registry import describe, load, names
from bmtl.targets.scaler import Scaler

__all__ = ["Batches", "BatchesByTask", "MultiTaskData", "Scaler", "describe", "load", "names"]
