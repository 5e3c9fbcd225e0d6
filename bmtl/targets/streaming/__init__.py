"""Scores that are accumulated batch by batch, for targets whose predictions are too large to keep."""

from bmtl.targets.streaming.angles import AngleSums
from bmtl.targets.streaming.pixels import PixelReducer, Reducer
from bmtl.targets.streaming.subsample import Subsample
from bmtl.targets.streaming.sums import ClassSums, NumberSums, Sums
from bmtl.targets.streaming.vectors import VectorSums

__all__ = ["AngleSums", "ClassSums", "NumberSums", "PixelReducer", "Reducer", "Subsample", "Sums", "VectorSums"]
