"""Rooms are what geometry says: depth and normals agree, and a mirrored room is seen as the mirrored image."""

import numpy as np
import pytest

from bmtl.datasets.rooms import CLASSES, Frame, Generator, ray_caster
from bmtl.datasets.rooms.layout import draw_room, draw_view
from bmtl.datasets.rooms.ray_caster import rays, render

SIZE = (48, 64)


def drawn(seed):
    """A room and a camera in it."""
    return draw_room(np.random.default_rng([7, seed])), draw_view(
        draw_room(np.random.default_rng([7, seed])), np.random.default_rng([8, seed])
    )


def flipped(frame: Frame) -> Frame:
    """Left and right exchanged, the normals' x negated."""
    parts = {name: array[:, ::-1] for name, array in frame._asdict().items()}
    return Frame(**{**parts, "normal": parts["normal"] * np.float32([-1, 1, 1])})


@pytest.mark.parametrize("seed", range(6))
def test_a_mirrored_room_is_seen_as_the_mirrored_image(seed):
    room, view = drawn(seed)
    frame = flipped(render(room, view, SIZE))
    other = render(room.mirrored(), view.mirrored(), SIZE)
    # A ray along an edge may be rounded to either side of it.
    same = (other.instance == frame.instance) & (other.semantic == frame.semantic)
    assert same.mean() > 0.999
    for name in ("image", "depth", "normal"):
        np.testing.assert_allclose(getattr(other, name)[same], getattr(frame, name)[same], atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_normals_are_those_of_the_depth(seed):
    room, view = drawn(seed)
    frame = render(room, view, (96, 128))
    points = rays((96, 128)).reshape(96, 128, 3) * frame.depth[..., None].astype(float)
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    normal = np.cross(down, across)  # x right and y down: towards the camera
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    inner = np.ones((94, 126), dtype=bool)  # off the edges of objects
    for rows in (slice(0, -2), slice(2, None)):
        for columns in (slice(0, -2), slice(2, None)):
            inner &= frame.instance[rows, columns] == frame.instance[1:-1, 1:-1]
            inner &= frame.semantic[rows, columns] == frame.semantic[1:-1, 1:-1]
    cosine = (normal * frame.normal[1:-1, 1:-1]).sum(-1)[inner]
    assert np.degrees(np.arccos(np.median(cosine).clip(-1, 1))) < 0.2
    assert np.degrees(np.arccos(np.quantile(cosine, 0.15).clip(-1, 1))) < 2
    lengths = np.linalg.norm(frame.normal, axis=-1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    assert ((frame.normal * rays((96, 128)).reshape(96, 128, 3)).sum(-1) < 0).all()  # they point to the camera


def test_a_room_without_things_has_the_depth_of_its_walls():
    room, view = drawn(0)
    empty = type(room)(size=room.size, things=(), textures=room.textures, lamp=room.lamp)
    frame = render(empty, view, SIZE)
    points = view.position + (rays(SIZE) * frame.depth.reshape(-1, 1)) @ view.axes
    distance = np.minimum(np.abs(points - empty.low), np.abs(points - empty.high))
    assert distance.min(axis=1).max() < 1e-5  # every point is on a wall, the floor or the ceiling
    assert (points >= empty.low - 1e-5).all()
    assert (points <= empty.high + 1e-5).all()
    assert set(np.unique(frame.semantic)) <= {0, 1, 2}
    assert not frame.instance.any()


def test_a_frame_depends_on_its_number_and_the_choices_alone():
    generator = Generator(height=24, width=32, views=2)
    many, one = generator.frames(range(4)), generator.frames([3])
    for name in Frame._fields:
        np.testing.assert_array_equal(getattr(many, name)[3], getattr(one, name)[0])
    # Frames 2 and 3 are two views of one room; another seed is another room.
    assert not np.array_equal(many.depth[2], many.depth[3])
    assert not np.array_equal(Generator(seed=1, height=24, width=32, views=2).frame(3).depth, many.depth[3])
    assert generator.digest(4) != generator.digest(5)
    assert generator.digest(4) != Generator(height=24, width=32, views=1).digest(4)


def test_all_classes_occur_and_are_as_skewed_as_in_real_rooms():
    frames = Generator(height=24, width=32).frames(range(80))
    shares = np.bincount(frames.semantic.ravel(), minlength=len(CLASSES)) / frames.semantic.size
    assert (shares > 0).all()
    assert 0.35 < shares[0] < 0.6  # walls
    assert shares.min() < 0.01
    assert (frames.instance.reshape(80, -1).max(axis=1) > 0).mean() > 0.9
    assert ((frames.instance > 0) == (frames.semantic > 2)).all()
    assert frames.depth.min() > 0.05
    assert frames.depth.max() < 10
    assert frames.image.dtype == np.uint8
    assert frames.image.std() > 25


def test_the_sensors_noise_is_on_the_image_alone():
    room, view = drawn(1)
    clean, noisy = render(room, view, SIZE), render(room, view, SIZE, np.random.default_rng(0))
    for name in ("depth", "normal", "semantic", "instance"):
        np.testing.assert_array_equal(getattr(clean, name), getattr(noisy, name))
    inside = (clean.image > 0.1) & (clean.image < 0.9)
    assert (noisy.image - clean.image)[inside].std() == pytest.approx(view.noise, rel=0.1)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"height": 4}, {"width": 31.5}, {"views": 0}, {"views": True}])
def test_choices_that_draw_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is a whole number from"):
        Generator(**wrong)


def test_the_focal_length_is_that_of_the_rays():
    middle = rays((3, 5)).reshape(3, 5, 3)
    assert middle[1, 2].tolist() == [0, 0, 1]
    assert middle[0, 4].tolist() == pytest.approx([2 / (5 * ray_caster.FOCAL), -1 / (5 * ray_caster.FOCAL), 1])
