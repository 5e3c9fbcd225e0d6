"""Scores that are accumulated batch by batch, for targets whose predictions are too large to keep."""

from bmtl.targets.streaming.pixels import PixelReducer, Reducer
from bmtl.targets.streaming.subsample import Subsample
from bmtl.targets.streaming.sums import ClassSums, NumberSums, Sums

__all__ = ["ClassSums", "NumberSums", "PixelReducer", "Reducer", "Subsample", "Sums"]
