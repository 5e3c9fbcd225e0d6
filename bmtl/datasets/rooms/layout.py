"""The objects in a room and the position of a camera, from a seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from bmtl.datasets.rooms.solids import Box, Solid, Sphere, Texture

CLASSES = (
    "wall",
    "floor",
    "ceiling",
    "table",
    "chair",
    "cabinet",
    "bed",
    "lamp",
    "ball",
    "book",
    "window",
    "picture",
    "rug",
)
"""Of a pixel, in the order of their numbers."""

WALL, FLOOR, CEILING, TABLE, CHAIR, CABINET, BED, LAMP, BALL, BOOK, WINDOW, PICTURE, RUG = range(len(CLASSES))

TRIES = 12
"""How often a place is drawn for a piece of furniture before it is left out."""


@dataclass(frozen=True)
class Thing:
    """One object: its class and what it is made of."""

    label: int
    solids: tuple[Solid, ...]

    @property
    def bounds(self) -> tuple[np.ndarray, float]:
        """Centre ``(3,)`` and radius of a sphere around all of its solids."""
        spheres = [solid.bounds for solid in self.solids]
        centre = np.mean([middle for middle, _ in spheres], axis=0)
        return centre, max(float(np.sqrt(((middle - centre) ** 2).sum())) + radius for middle, radius in spheres)

    def mirrored(self) -> Self:
        return replace(self, solids=tuple(solid.mirrored() for solid in self.solids))


@dataclass(frozen=True)
class Room:
    """A room: from ``-width / 2`` to ``width / 2`` along x, from 0 along y and z.

    Attributes:
        size: Width, length and height ``(3,)`` in metres.
        things: What is in it.
        textures: Class -> texture of walls, floor and ceiling.
        lamp: Where the light is ``(3,)``.
        power: Of the light.
        reach: Distance in metres at which the light is halved.
        ambient: Light that is everywhere.
        side: -1 in a mirrored room, in which textures are mirrored too, else 1.
    """

    size: np.ndarray
    things: tuple[Thing, ...]
    textures: dict[int, Texture]
    lamp: np.ndarray
    power: float = 1.0
    reach: float = 3.0
    ambient: float = 0.3
    side: float = 1.0

    @property
    def low(self) -> np.ndarray:
        return np.array([-self.size[0] / 2, 0.0, 0.0])

    @property
    def high(self) -> np.ndarray:
        return np.array([self.size[0] / 2, self.size[1], self.size[2]])

    def mirrored(self) -> Self:
        """The room in the plane x = 0 as in a mirror."""
        things = tuple(thing.mirrored() for thing in self.things)
        return replace(self, things=things, lamp=self.lamp * _MIRROR, side=-self.side)


@dataclass(frozen=True)
class View:
    """A camera.

    Attributes:
        position: ``(3,)``.
        axes: Its axes right, down and forward, a row each ``(3, 3)``, in world axes.
        exposure: Factor of the light.
        gamma: Exponent between light and what is stored.
        tint: Factor of each colour ``(3,)``.
        noise: Standard deviation of the sensor's noise, colours being in [0, 1].
    """

    position: np.ndarray
    axes: np.ndarray
    exposure: float = 1.0
    gamma: float = 0.7
    tint: np.ndarray = field(default_factory=lambda: np.ones(3))
    noise: float = 0.0

    def mirrored(self) -> Self:
        """The camera in a mirrored room that sees what this one sees, left and right exchanged."""
        axes = self.axes * _MIRROR
        axes[0] = -axes[0]  # to the right of the image again
        return replace(self, position=self.position * _MIRROR, axes=axes)


def draw_room(random: np.random.Generator) -> Room:
    """A furnished room."""
    size = np.array([random.uniform(3, 6), random.uniform(3.5, 7), random.uniform(2.3, 3.1)])
    furniture = _Furniture(size, random)
    return Room(
        size=size,
        things=tuple(furniture.things()),
        textures={
            WALL: _texture(random, bright=0.75, wave=(0.4, 0.4, 0.4), spread=0.03),
            FLOOR: _texture(random, bright=0.45, wave=(2.0, 2.0, 0.0), spread=0.1, product=bool(random.integers(2))),
            CEILING: _texture(random, bright=0.85, wave=(0.3, 0.3, 0.0), spread=0.03, grey=True),
        },
        lamp=np.array(
            [
                random.uniform(-0.3, 0.3) * size[0],
                random.uniform(0.2, 0.8) * size[1],
                size[2] - random.uniform(0.05, 0.4),
            ]
        ),
        power=random.uniform(0.6, 1.1),
        reach=random.uniform(2.5, 4),
        ambient=random.uniform(0.2, 0.4),
    )


def draw_view(room: Room, random: np.random.Generator) -> View:
    """A camera at the height of the eyes that looks across the room, and stands in no object."""
    width, length, _ = room.size
    target = np.array([random.uniform(-0.3, 0.3) * width, random.uniform(0.2, 0.8) * length, random.uniform(0.6, 1.6)])
    blocked = [thing.bounds for thing in room.things if thing.label not in (RUG, WINDOW, PICTURE)]
    places = []
    for _ in range(TRIES):
        place = np.array(
            [random.uniform(-0.5, 0.5) * (width - 0.8), random.uniform(0.4, length - 0.4), random.uniform(1.2, 1.75)]
        )
        free = min((np.hypot(*(place - middle)[:2]) - radius for middle, radius in blocked), default=1.0)
        far = min(float(np.hypot(*(place - target)[:2])), 4.0)
        places.append((min(free, 0.2) * 100 + far, place))  # free places before others, and far ones of these
    position = max(places, key=lambda scored: scored[0])[1]
    return View(
        position=position,
        axes=_axes(target - position, random.normal(scale=np.radians(2.5))),
        exposure=random.uniform(0.8, 1.25),
        gamma=random.uniform(0.6, 0.9),
        tint=random.uniform(0.92, 1.0, size=3),
        noise=random.uniform(0.005, 0.02),
    )


class _Furniture:
    """Draws objects one by one, none of them standing in another."""

    def __init__(self, size: np.ndarray, random: np.random.Generator) -> None:
        self.size, self.random = size, random
        self.taken: list[tuple[float, float, float]] = []  # circles on the floor

    def things(self) -> Iterator[Thing]:
        random = self.random
        makers: list[tuple[float, int, Callable[[], Iterator[Thing]]]] = [
            (0.55, 1, self._bed),
            (0.85, 3, self._cabinet),
            (0.8, 2, self._table),
            (0.5, 2, self._lamp),
            (0.6, 3, self._ball),
            (0.6, 2, self._single_chair),
            (0.8, 2, self._window),
            (0.7, 4, self._picture),
            (0.6, 1, self._rug),
        ]
        for chance, most, make in makers:
            for _ in range(random.binomial(most, chance)):
                yield from make()

    # ---- furniture ----

    def _bed(self) -> Iterator[Thing]:
        wide, long, high = self._uniform((0.9, 1.8), (1.9, 2.1), (0.35, 0.6))
        place = self._at_wall(wide, long)
        if place is None:
            return
        cover, wood = self._coloured(0.6), self._wood()
        yield Thing(
            BED,
            (
                place.box((0, 0, high / 2), (wide, long, high), cover),
                place.box((0, -long / 2 + 0.04, high * 0.9), (wide, 0.08, high * 1.8), wood),
                place.box((0, -long / 2 + 0.35, high + 0.06), (wide * 0.8, 0.4, 0.12), self._coloured(0.85)),
            ),
        )

    def _cabinet(self) -> Iterator[Thing]:
        wide, deep, high = self._uniform((0.5, 1.6), (0.3, 0.6), (0.6, 2.0))
        place = self._at_wall(wide, deep)
        if place is None:
            return
        yield Thing(CABINET, (place.box((0, 0, high / 2), (wide, deep, high), self._wood()),))
        if high < 1.4:
            yield from self._books(place, (wide, deep), high)

    def _table(self) -> Iterator[Thing]:
        wide, deep, high = self._uniform((0.7, 1.8), (0.6, 1.0), (0.6, 0.8))
        place = self._free(0.5 * float(np.hypot(wide, deep)) + 0.15)
        if place is None:
            return
        wood = self._wood()
        legs = [
            place.box(
                (x * (wide / 2 - 0.05), y * (deep / 2 - 0.05), (high - 0.05) / 2), (0.06, 0.06, high - 0.05), wood
            )
            for x in (-1, 1)
            for y in (-1, 1)
        ]
        yield Thing(TABLE, (place.box((0, 0, high - 0.025), (wide, deep, 0.05), wood), *legs))
        yield from self._books(place, (wide, deep), high)
        chair = self._chair_textures()
        for side in (-1, 1):
            if self.random.uniform() < 0.7:
                shift = self.random.uniform(-0.3, 0.3) * wide
                seat = place.moved((shift, side * (deep / 2 + 0.2)), np.pi * (side > 0))
                if self._inside(seat.x, seat.y, 0.3):
                    self.taken.append((seat.x, seat.y, 0.3))
                    yield self._chair(seat, chair)

    def _single_chair(self) -> Iterator[Thing]:
        place = self._free(0.35)
        if place is not None:
            yield self._chair(place, self._chair_textures())

    def _chair(self, place: "_Place", textures: tuple[Texture, Texture]) -> Thing:
        seat, frame = textures
        wide, high, back = self._uniform((0.38, 0.48), (0.42, 0.48), (0.4, 0.5))
        legs = [
            place.box((x * (wide / 2 - 0.03), y * (wide / 2 - 0.03), high / 2), (0.05, 0.05, high), frame)
            for x in (-1, 1)
            for y in (-1, 1)
        ]
        top = place.box((0, 0, high), (wide, wide, 0.05), seat)
        return Thing(CHAIR, (top, place.box((0, -wide / 2 + 0.02, high + back / 2), (wide, 0.04, back), seat), *legs))

    def _lamp(self) -> Iterator[Thing]:
        radius, high = self._uniform((0.12, 0.2), (1.1, 1.7))
        place = self._free(0.25)
        if place is None:
            return
        metal, shade = self._coloured(0.3, grey=True), self._coloured(0.95, grey=True)
        yield Thing(
            LAMP,
            (
                place.box((0, 0, high / 2), (0.05, 0.05, high), metal),
                place.box((0, 0, 0.02), (0.3, 0.3, 0.04), metal),
                place.sphere((0, 0, high), radius, shade),
            ),
        )

    def _ball(self) -> Iterator[Thing]:
        radius = self.random.uniform(0.08, 0.25)
        place = self._free(radius)
        if place is not None:
            yield Thing(BALL, (place.sphere((0, 0, radius), radius, self._coloured(0.55, spread=0.25)),))

    def _books(self, place: "_Place", top: tuple[float, float], high: float) -> Iterator[Thing]:
        for _ in range(self.random.integers(0, 4)):
            wide, deep, thick = self._uniform((0.15, 0.28), (0.2, 0.32), (0.03, 0.12))
            across = self.random.uniform(-0.5, 0.5) * max(top[0] - 0.35, 0)
            along = self.random.uniform(-0.5, 0.5) * max(top[1] - 0.35, 0)
            there = place.moved((across, along), self.random.uniform(-0.6, 0.6))
            yield Thing(BOOK, (there.box((0, 0, high + thick / 2), (wide, deep, thick), self._coloured(0.5)),))

    # ---- on walls and floor ----

    def _window(self) -> Iterator[Thing]:
        wide, high = self._uniform((0.7, 1.8), (0.7, 1.2))
        place = self._on_wall(wide)
        middle = self.random.uniform(1.3, 1.6)
        glass = _texture(self.random, bright=1.0, wave=(0.5, 0.0, 0.8), spread=0.12)
        frame = self._coloured(0.9, grey=True)
        bars = [
            place.box((0, 0.03, middle), (0.05, 0.06, high), frame),
            place.box((0, 0.03, middle), (wide, 0.06, 0.05), frame),
        ]
        yield Thing(WINDOW, (place.box((0, 0.02, middle), (wide, 0.04, high), glass), *bars))

    def _picture(self) -> Iterator[Thing]:
        wide, high = self._uniform((0.3, 0.9), (0.3, 0.7))
        place = self._on_wall(wide)
        middle = self.random.uniform(1.3, 1.8)
        motif = _texture(self.random, bright=0.5, wave=(3.0, 0.0, 3.0), spread=0.3, product=True)
        yield Thing(PICTURE, (place.box((0, 0.015, middle), (wide, 0.03, high), motif),))

    def _rug(self) -> Iterator[Thing]:
        wide, long = self._uniform((1.0, 2.2), (1.0, 2.2))
        place = _Place(
            self.random.uniform(-0.5, 0.5) * max(self.size[0] - wide - 0.6, 0),
            self.size[1] / 2 + self.random.uniform(-0.5, 0.5) * max(self.size[1] - long - 0.6, 0),
            self.random.choice([0.0, np.pi / 2]),
        )
        woven = _texture(self.random, bright=0.45, wave=(2.0, 2.0, 0.0), spread=0.25, product=True)
        yield Thing(RUG, (place.box((0, 0, 0.006), (wide, long, 0.012), woven),))

    # ---- places ----

    def _free(self, radius: float) -> "_Place | None":
        """A free place on the floor, turned at random."""
        for _ in range(TRIES):
            x = self.random.uniform(-0.5, 0.5) * max(self.size[0] - 2 * radius, 0)
            y = self.random.uniform(radius, self.size[1] - radius)
            turn = self.random.uniform(-np.pi, np.pi)
            if self._apart(x, y, radius):
                self.taken.append((x, y, radius))
                return _Place(x, y, turn)
        return None

    def _at_wall(self, wide: float, deep: float) -> "_Place | None":
        """A free place with its back at a wall."""
        radius = 0.5 * float(np.hypot(wide, deep))
        for _ in range(TRIES):
            place = self._along_wall(wide, deep / 2)
            # A long piece is two circles and not one that reaches into the room.
            if self._apart(place.x, place.y, 0.7 * radius):
                self.taken.append((place.x, place.y, 0.7 * radius))
                return place
        return None

    def _on_wall(self, wide: float) -> "_Place":
        return self._along_wall(wide, 0.0)

    def _along_wall(self, wide: float, away: float) -> "_Place":
        """A place at a wall, its own y axis pointing into the room."""
        width, length, _ = self.size
        wall = self.random.integers(4)
        room = length if wall >= 2 else width
        along = self.random.uniform(-0.5, 0.5) * max(room - wide - 0.1, 0)
        x, y, turn = [
            (along, away, 0.0),
            (along, length - away, np.pi),
            (-width / 2 + away, length / 2 + along, -np.pi / 2),
            (width / 2 - away, length / 2 + along, np.pi / 2),
        ][wall]
        return _Place(x, y, turn)

    def _apart(self, x: float, y: float, radius: float) -> bool:
        return all(np.hypot(x - other[0], y - other[1]) > radius + other[2] for other in self.taken)

    def _inside(self, x: float, y: float, margin: float) -> bool:
        return abs(x) < self.size[0] / 2 - margin and margin < y < self.size[1] - margin

    # ---- looks ----

    def _uniform(self, *ranges: tuple[float, float]) -> list[float]:
        return [float(self.random.uniform(*ends)) for ends in ranges]

    def _coloured(self, bright: float, *, spread: float = 0.06, grey: bool = False) -> Texture:
        return _texture(self.random, bright=bright, wave=(1.5, 1.5, 1.5), spread=spread, grey=grey)

    def _wood(self) -> Texture:
        tone = self.random.uniform(0.25, 0.65)
        colours = tone * np.array([[1.0, 0.75, 0.5], [0.8, 0.55, 0.35]])
        return Texture(colours, np.array([0.3, 6.0, 0.3]), self.random.uniform(size=3), 1.0)

    def _chair_textures(self) -> tuple[Texture, Texture]:
        return self._coloured(0.5), self._wood()


@dataclass(frozen=True)
class _Place:
    """A place on the floor with its own axes."""

    x: float
    y: float
    turn: float

    def moved(self, by: tuple[float, float], turn: float) -> "_Place":
        """Another place, given in this one's axes."""
        x, y = self._world(*by)
        return _Place(x, y, self.turn + turn)

    def box(self, middle: tuple[float, float, float], edges: tuple[float, float, float], texture: Texture) -> Box:
        return Box(np.array([*self._world(*middle[:2]), middle[2]]), np.array(edges) / 2, self.turn, texture)

    def sphere(self, middle: tuple[float, float, float], radius: float, texture: Texture) -> Sphere:
        return Sphere(np.array([*self._world(*middle[:2]), middle[2]]), radius, texture)

    def _world(self, x: float, y: float) -> tuple[float, float]:
        c, s = float(np.cos(self.turn)), float(np.sin(self.turn))
        return self.x + c * x - s * y, self.y + s * x + c * y


def _texture(
    random: np.random.Generator,
    *,
    bright: float,
    wave: tuple[float, float, float],
    spread: float,
    grey: bool = False,
    product: bool = False,
) -> Texture:
    """A texture around a random colour of some brightness."""
    hue = np.zeros(3) if grey else random.normal(scale=0.18, size=3)
    middle = bright + hue - hue.mean()
    apart = random.normal(scale=spread, size=3)
    waves = np.array(wave) * random.uniform(0.6, 1.5, size=3)
    colours = np.stack([middle - apart, middle + apart]).clip(0.02, 1)
    return Texture(colours, waves, random.uniform(size=3), random.uniform(0.5, 4), product)


def _axes(forward: np.ndarray, roll: float) -> np.ndarray:
    """A camera's axes right, down and forward, by where it looks and how it is tilted."""
    ahead = forward / np.sqrt((forward**2).sum())
    right = np.cross(ahead, [0.0, 0.0, 1.0])
    right /= np.sqrt((right**2).sum())
    down = np.cross(ahead, right)
    c, s = np.cos(roll), np.sin(roll)
    return np.stack([c * right + s * down, c * down - s * right, ahead])


_MIRROR = np.array([-1.0, 1.0, 1.0])
