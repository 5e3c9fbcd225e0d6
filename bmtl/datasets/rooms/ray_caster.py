"""Pictures of a room: image, depth, normals, classes and instances of every pixel, exact but for the image's noise."""

from typing import NamedTuple

import numpy as np

from bmtl.datasets.rooms.layout import CEILING, FLOOR, WALL, Room, View
from bmtl.datasets.rooms.solids import Solid

FOCAL = 0.85
"""Focal length over the image's width: the camera sees 61 degrees across."""

SHADOW = 1e-4
"""Of a ray from the light to a point: what it meets in this last part is the point's own surface."""


class Frame(NamedTuple):
    """An image of a room from a camera, with the labels of each pixel.

    Attributes:
        image: Colours ``(H, W, 3)`` as float32 in [0, 1]; of a `Generator` in bytes.
        depth: Distance along the camera's axis ``(H, W)`` in metres, float32.
        normal: Unit normals ``(H, W, 3)`` in the camera's axes (x right, y down, z forward), float32. They point to the
            camera.
        semantic: Class ``(H, W)``, an index of `layout.CLASSES`, int8.
        instance: Number of the object ``(H, W)`` from 1, and 0 for walls, floor and ceiling, int16.
    """

    image: np.ndarray
    depth: np.ndarray
    normal: np.ndarray
    semantic: np.ndarray
    instance: np.ndarray


class _Hits(NamedTuple):
    """Where rays end: how many directions from their origin ``(N,)``, and which solid it is, -1 for the room ``(N,)``."""

    distance: np.ndarray
    solid: np.ndarray


def rays(size: tuple[int, int]) -> np.ndarray:
    """A ray through each pixel's centre in the camera's axes ``(H W, 3)``, its component along the axis 1."""
    height, width = size
    across, down = np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2
    grid = np.ones((height, width, 3))
    grid[..., 0], grid[..., 1] = across / (FOCAL * width), down[:, None] / (FOCAL * width)
    return grid.reshape(-1, 3)


def render(room: Room, view: View, size: tuple[int, int], noise: np.random.Generator | None = None) -> Frame:
    """What a camera sees.

    Args:
        room: What there is.
        view: From where it is seen.
        size: Height and width of the image in pixels.
        noise: Draws the sensor's noise; without one there is none.
    """
    seen = rays(size) @ view.axes  # (N, 3) in world axes
    solids = [solid for thing in room.things for solid in thing.solids]
    owner = np.repeat(np.arange(len(room.things)), [len(thing.solids) for thing in room.things])
    hits = _cast(room, solids, view.position, seen)
    distance, wall, inward = _to_walls(room, view.position, seen)
    solid = np.where(hits.distance < distance, hits.solid, -1)
    distance = np.minimum(distance, hits.distance)
    points = view.position + distance[:, None] * seen

    labels = np.array([thing.label for thing in room.things] or [0])
    semantic = np.where(solid < 0, wall, labels[owner[solid]] if len(solids) else 0)
    instance = np.where(solid < 0, 0, owner[solid] + 1 if len(solids) else 0)
    normals, albedo = inward, np.empty_like(points)
    for label, texture in room.textures.items():
        there = (solid < 0) & (wall == label)
        albedo[there] = texture.at(points[there], room.side)
    for number in np.unique(solid[solid >= 0]):
        there = solid == number
        own, normals[there] = solids[number].surface(points[there])
        albedo[there] = solids[number].texture.at(own, room.side)

    image = albedo * _light(room, solids, points, normals)[:, None]
    image = (view.exposure * image) ** view.gamma * view.tint
    if noise is not None:
        image += noise.normal(scale=view.noise, size=image.shape)
    height, width = size
    return Frame(
        image=image.clip(0, 1).reshape(height, width, 3).astype(np.float32),
        depth=distance.reshape(size).astype(np.float32),
        normal=(normals @ view.axes.T).reshape(height, width, 3).astype(np.float32),
        semantic=semantic.reshape(size).astype(np.int8),
        instance=instance.reshape(size).astype(np.int16),
    )


def _cast(room: Room, solids: list[Solid], origin: np.ndarray, directions: np.ndarray) -> _Hits:
    """The first solid that each ray from one point meets."""
    distance = np.full(len(directions), np.inf)
    which = np.full(len(directions), -1)
    squared = (directions**2).sum(axis=1)
    number = 0
    for thing in room.things:
        # Rays that miss a sphere around the thing meet none of its solids.
        centre, radius = thing.bounds
        to_centre = centre - origin
        along = directions @ to_centre
        outside = to_centre @ to_centre - radius**2
        near = np.flatnonzero((outside <= 0) | (outside * squared <= along * np.abs(along)))
        for solid in thing.solids:
            if len(near):
                found = solid.meet(origin, directions[near])
                closer = found < distance[near]
                distance[near[closer]], which[near[closer]] = found[closer], number
            number += 1
    return _Hits(distance, which)


def _to_walls(room: Room, origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From a point inside: how far the room reaches, the class of what is there, and its normal into the room."""
    with np.errstate(divide="ignore"):
        inverse = 1 / directions
    with np.errstate(invalid="ignore"):
        ends = np.maximum((room.low - origin) * inverse, (room.high - origin) * inverse)
    axis = np.nanargmin(ends, axis=1)
    every = np.arange(len(directions))
    outward = np.sign(directions[every, axis])
    normals = np.zeros_like(directions)
    normals[every, axis] = -outward
    label = np.where(axis < 2, WALL, np.where(outward > 0, CEILING, FLOOR))
    return ends[every, axis], label, normals


def _light(room: Room, solids: list[Solid], points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Brightness of points ``(N,)``: ambient, and that of the lamp where it is not in a shadow."""
    from_lamp = points - room.lamp
    blocked = _cast(room, solids, room.lamp, from_lamp).distance < 1 - SHADOW
    squared = (from_lamp**2).sum(axis=1)
    facing = np.maximum(-(from_lamp * normals).sum(axis=1) / np.sqrt(squared), 0)
    return room.ambient + np.where(blocked, 0, room.power * facing / (1 + squared / room.reach**2))
