"""Real data as arrays: readers, scalers, fixed splits, and the loader that feeds a training loop."""

from bmtl.datasets.base import MultiTaskData
from bmtl.datasets.batches import Batches
from bmtl.datasets.registry import load, names
from bmtl.datasets.scaler import Scaler

__all__ = ["Batches", "MultiTaskData", "Scaler", "load", "names"]
