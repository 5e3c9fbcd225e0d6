"""Rendered rooms: what is in them, how they are drawn, and the data set that is made of them."""

from bmtl.datasets.rooms.frames import Generator, cached_frames
from bmtl.datasets.rooms.layout import CLASSES
from bmtl.datasets.rooms.ray_caster import Frame
from bmtl.datasets.rooms.reader import labels_of, read
from bmtl.datasets.rooms.stream import DrawnBatches

__all__ = ["CLASSES", "DrawnBatches", "Frame", "Generator", "cached_frames", "labels_of", "read"]
