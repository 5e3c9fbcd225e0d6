"""Boxes and spheres of which a room is furnished, and where rays meet them.

World axes are x and y on the floor and z up, in metres. Boxes are upright: they are rotated about z alone.
"""

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np

NEAREST = 1e-6
"""Of the distance to a ray's end: what is nearer is the surface that the ray starts from."""


@dataclass(frozen=True)
class Texture:
    """Two colours and a wave that mixes them.

    Attributes:
        colours: ``(2, 3)``, reflectances in [0, 1].
        wave: Cycles per metre along the solid's own axes ``(3,)``.
        phase: Of the wave, in cycles ``(3,)``.
        sharp: How sharply the colours part: near 0 a smooth wave, large a pattern of stripes or squares.
        product: Whether the waves of the axes are multiplied (squares, blotches) or added (stripes).
    """

    colours: np.ndarray
    wave: np.ndarray
    phase: np.ndarray
    sharp: float = 0.5
    product: bool = False

    def at(self, points: np.ndarray, side: float) -> np.ndarray:
        """Colours ``(M, 3)`` at points ``(M, 3)`` of the solid's own axes; `side` is -1 in a mirrored room, else 1."""
        turns = points * np.array([side, 1.0, 1.0]) * self.wave + self.phase
        if self.product:
            mixed = np.sin(2 * np.pi * turns).prod(axis=1)
        else:
            mixed = np.sin(2 * np.pi * turns.sum(axis=1))
        share = 0.5 + 0.5 * np.tanh(self.sharp * mixed)
        return self.colours[0] + share[:, None] * (self.colours[1] - self.colours[0])


class Solid(Protocol):
    """What rays meet."""

    @property
    def texture(self) -> Texture: ...

    @property
    def bounds(self) -> tuple[np.ndarray, float]:
        """Centre ``(3,)`` and radius of a sphere around it."""
        ...

    def meet(self, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """How many `directions` ``(M, 3)`` it is from the origin ``(3,)`` to the solid ``(M,)``; inf where it is missed."""
        ...

    def surface(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of points on the surface ``(M, 3)``: where they are in the solid's own axes, and outward normals, ``(M, 3)``."""
        ...

    def mirrored(self) -> Self:
        """The solid in the plane x = 0 as in a mirror."""
        ...


@dataclass(frozen=True)
class Box:
    """An upright box.

    Attributes:
        centre: ``(3,)``.
        half: Half of its edges ``(3,)``.
        turn: Angle about z in radians.
        texture: Of all of its faces.
    """

    centre: np.ndarray
    half: np.ndarray
    turn: float
    texture: Texture

    @property
    def bounds(self) -> tuple[np.ndarray, float]:
        return self.centre, float(np.sqrt((self.half**2).sum()))

    def meet(self, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
        o = _turned(origin - self.centre, -self.turn)
        with np.errstate(divide="ignore", invalid="ignore"):  # rays along a face
            inverse = 1 / _turned(directions, -self.turn)
            low, high = (-self.half - o) * inverse, (self.half - o) * inverse
            near, far = np.minimum(low, high).max(axis=1), np.maximum(low, high).min(axis=1)
            return np.where((near < far) & (near > NEAREST), near, np.inf)

    def surface(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = _turned(points - self.centre, -self.turn)
        relative = own / self.half
        axis = np.abs(relative).argmax(axis=1)  # the face: there a coordinate is that of an end
        every = np.arange(len(own))
        normals = np.zeros_like(own)
        normals[every, axis] = np.sign(relative[every, axis])
        return own, _turned(normals, self.turn)

    def mirrored(self) -> Self:
        return replace(self, centre=self.centre * _MIRROR, turn=-self.turn)


@dataclass(frozen=True)
class Sphere:
    """A sphere.

    Attributes:
        centre: ``(3,)``.
        radius: In metres.
        texture: Of its surface.
    """

    centre: np.ndarray
    radius: float
    texture: Texture

    @property
    def bounds(self) -> tuple[np.ndarray, float]:
        return self.centre, self.radius

    def meet(self, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
        to_centre = self.centre - origin
        squared = (directions**2).sum(axis=1)
        along = directions @ to_centre / squared
        # Of the half chord's square: what is negative misses the sphere.
        chord = (self.radius**2 - ((to_centre - along[:, None] * directions) ** 2).sum(axis=1)) / squared
        near = along - np.sqrt(np.maximum(chord, 0.0))
        return np.where((chord > 0) & (near > NEAREST), near, np.inf)

    def surface(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = points - self.centre
        return own, own / np.sqrt((own**2).sum(axis=1, keepdims=True))

    def mirrored(self) -> Self:
        return replace(self, centre=self.centre * _MIRROR)


_MIRROR = np.array([-1.0, 1.0, 1.0])


def _turned(points: np.ndarray, angle: float) -> np.ndarray:
    """Points ``(..., 3)`` turned about z."""
    c, s = np.cos(angle), np.sin(angle)
    x, y = points[..., 0], points[..., 1]
    return np.stack([c * x - s * y, s * x + c * y, points[..., 2]], axis=-1)
