"""The data set of rooms: its form, its options, and its file."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bmtl.datasets import Batches, inputs_from_state, inputs_state, load
from bmtl.datasets.rooms import Generator, cached_frames
from bmtl.targets.instances import pixel_positions

SMALL = {"train": 6, "val": 2, "test": 2, "height": 24, "width": 32}


def of(**options):
    return load("rooms", **{**SMALL, **options})


def test_a_batch_has_the_form_of_all_scenes():
    data = of()
    x, y = data.tensors("train")
    (images, labels), *_ = Batches(x, y, 4, shuffle=False)
    assert images.shape == (4, 3, 24, 32)
    assert images.is_contiguous()
    assert 0 <= images.min() < images.max() <= 1
    assert {name: (tuple(v.shape), v.dtype) for name, v in labels.items()} == {
        "semantic": ((4, 24, 32), torch.int64),
        "depth": ((4, 24, 32), torch.float32),
        "normal": ((4, 24, 32, 3), torch.float32),
        "instance": ((4, 24, 32, 2), torch.float32),
    }
    exact = Generator(height=24, width=32).frames(range(4))
    np.testing.assert_array_equal(labels["depth"], exact.depth)
    np.testing.assert_array_equal(labels["normal"], exact.normal)
    np.testing.assert_array_equal((255 * images).round().movedim(1, -1), exact.image)
    assert {name: target.unit for name, target in data.targets.items()} == {
        "semantic": "1",
        "depth": "m",
        "normal": "1",
        "instance": "px",
    }
    assert {part: len(rows) for part, rows in data.rows.items()} == {"train": 6, "val": 2, "test": 2}


def test_pixel_and_vector_are_the_centroid_exactly():
    data = of()
    frames = Generator(height=24, width=32).frames(range(10))
    _, y = data.tensors("train")
    centroids = y["instance"].numpy() + pixel_positions(24, 32)
    for numbers, found in zip(frames.instance, centroids, strict=False):
        assert np.isnan(found[numbers == 0]).all()
        for k in np.unique(numbers[numbers > 0]):
            own = numbers == k
            assert len(np.unique(found[own], axis=0)) == 1  # not nearly: bit by bit
            np.testing.assert_allclose(found[own][0], pixel_positions(24, 32)[own].mean(axis=0), atol=0.51 / 64)


def test_noise_of_a_known_size_is_on_depth_alone():
    exact, noisy = of(train=8), of(train=8, depth_noise=0.05)
    error = noisy.targets["depth"].values - exact.targets["depth"].values
    assert np.nanstd(error) == pytest.approx(0.05, rel=0.05)
    assert abs(np.nanmean(error)) < 0.002
    for name in ("semantic", "normal", "instance"):
        np.testing.assert_array_equal(exact.targets[name].values, noisy.targets[name].values)
    inverse = of(train=8, inverse=True, depth_noise=0.02).targets["inverse_depth"]
    assert inverse.unit == "1/m"
    assert (inverse.values - 1 / exact.targets["depth"].values).std() == pytest.approx(0.02, rel=0.05)
    # A frame's noise does not depend on how many others there are.
    np.testing.assert_array_equal(noisy.targets["depth"].values[:6], of(depth_noise=0.05).targets["depth"].values[:6])


def test_missing_labels_are_of_each_target_by_itself():
    data = of(train=14, missing=0.3)
    missing = {name: t.family.missing_pixels(t.values) for name, t in data.targets.items()}
    for name in ("semantic", "depth", "normal"):
        assert missing[name].mean() == pytest.approx(0.3, abs=0.1), name
    assert 0.05 < (missing["depth"] & missing["semantic"]).mean() < 0.13  # .09 if they are independent


def test_frames_of_a_room_are_in_one_part():
    with pytest.raises(ValueError, match="val=2 is no multiple of views=3"):
        of(views=3)
    assert len(of(views=2).inputs) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, "train is a whole number of frames; got 0"),
        ({"val": -1}, "val is a whole number"),
        ({"depth_noise": -0.1}, "standard deviation from 0"),
        ({"depth_noise": float("nan")}, "standard deviation from 0"),
        ({"missing": 1.0}, "proportion from 0 to below 1"),
        ({"seed": -1}, "seed is a whole number from 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        of(**options)


def test_parts_without_frames_are_left_out():
    assert set(of(val=0, test=0).rows) == {"train"}


def test_drawn_and_read_frames_are_the_same_data(tmp_path):
    drawn, first = of(), of(root=tmp_path)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    again = of(root=tmp_path)
    assert file.stat().st_mtime_ns == written
    assert drawn.fingerprint == first.fingerprint == again.fingerprint
    of(root=tmp_path, seed=1)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_is_not_read(tmp_path):
    generator = Generator(height=24, width=32)
    frames = cached_frames(generator, 3, tmp_path)
    (file,) = tmp_path.iterdir()
    np.savez(file, digest=np.array("0"), **frames._asdict())
    with pytest.raises(ValueError, match="Delete it, and it is drawn again"):
        cached_frames(generator, 3, tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="npz"):
        cached_frames(generator, 3, tmp_path)


def test_writers_of_the_file_at_once_leave_one_whole_file(tmp_path):
    generator = Generator(height=16, width=16)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: cached_frames(generator, 4, tmp_path), range(3)))
    (file,) = tmp_path.iterdir()  # and no temporary one
    assert file.suffix == ".npz"
    for frames in (*found, cached_frames(generator, 4, tmp_path)):
        np.testing.assert_array_equal(frames.depth, generator.frames(range(4)).depth)


def test_the_inputs_are_read_again_without_their_rows():
    data = of()
    again = inputs_from_state(inputs_state(data.inputs))
    assert len(again) == 0
    assert again.describe() == data.inputs.describe() == {"kind": "images", "shape": [3, 24, 32], "channels": 3}
    images = data.inputs.images[:2]
    assert torch.equal(again.prepare(images), data.inputs.tensors(np.arange(2)))
