"""Images as inputs, from arrays and from files."""

import numpy as np
import pytest
import torch
from PIL import Image

from bmtl.datasets import Images
from bmtl.datasets.images import read_image, read_images


def colours(n=3, size=(4, 5)):
    return np.random.default_rng(0).integers(0, 256, size=(n, *size, 3), dtype=np.uint8)


def test_bytes_and_floats_are_seen_alike():
    images = colours()
    rows = np.array([2, 0])
    found = Images(images).tensors(rows)
    assert found.shape == (2, 3, 4, 5)
    assert torch.equal(found, torch.as_tensor(images[rows]).movedim(-1, 1) / 255)
    torch.testing.assert_close(Images(images / 255).tensors(rows), found)
    assert Images(images).tensors(rows, torch.float64).dtype == torch.float64
    assert Images(images).lines() == ["3 images of 4 x 5 pixels, colour"]


def test_images_are_a_copy_that_cannot_change():
    images = colours()
    kept = Images(images)
    images[:] = 0
    assert kept.images.any()
    with pytest.raises(ValueError, match="read-only"):
        kept.images[0] = 0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 4, 5)), "shape .N, H, W, C."),
        (np.zeros((2, 3, 4, 5)), "Move channels to the end"),
        (np.full((1, 4, 5, 3), 200.0), "from 200 to 200. Divide bytes that are stored as floats by 255"),
        (np.full((1, 4, 5, 3), np.nan), "floats in"),
        (np.zeros((1, 4, 5, 3), np.int64), "got int64"),
    ],
)
def test_other_arrays_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        Images(images)


def test_new_images_may_have_another_size_but_not_other_channels():
    kept = Images(colours())
    assert kept.prepare(colours(2, (6, 7))).shape == (2, 3, 6, 7)
    assert kept.prepare(list(colours(2))).shape == (2, 3, 4, 5)
    with pytest.raises(ValueError, match="trained on images of 3 channels, and 1 were given"):
        kept.prepare(np.zeros((1, 4, 5, 1), np.uint8))
    with pytest.raises(ValueError, match="one size: image 0 is 4 x 5 x 3, and image 1 is 6 x 7 x 3"):
        kept.prepare([colours()[0], colours(1, (6, 7))[0]])


@pytest.mark.parametrize("other", [np.float64, np.uint16, bool])
def test_images_of_several_types_are_not_made_alike(other):
    """Floats in [0, 1] among bytes would all be 0."""
    one = colours()[0]
    with pytest.raises(ValueError, match=f"one type: image 0 is uint8, and image 1 is {np.dtype(other)}"):
        Images(colours()).prepare([one, (one / 255).astype(other)])


def test_a_folder_of_images(tmp_path):
    images = colours()
    for name, image in zip(("b.png", "a.png", "c.png"), images, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    found, files = read_images(tmp_path)
    assert [file.name for file in files] == ["a.png", "b.png", "c.png"]
    np.testing.assert_array_equal(found, images[[1, 0, 2]])
    np.testing.assert_array_equal(Images(images).read(tmp_path), found)
    np.testing.assert_array_equal(Images(images).read(tmp_path / "b.png"), images[:1])
    assert read_images(tmp_path, channels=1)[0].shape == (3, 4, 5, 1)


def test_grey_files_of_sixteen_bits_keep_their_numbers(tmp_path):
    depth = np.array([[0, 1, 60_000]], dtype=np.uint16)
    Image.fromarray(depth).save(tmp_path / "depth.png")
    np.testing.assert_array_equal(read_image(tmp_path / "depth.png"), depth)


def test_files_are_seen_as_a_viewer_shows_them(tmp_path):
    deep = np.array([[0, 257, 60_000, 65_535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_images(tmp_path / "deep.png", 1)[0][0, ..., 0], [[0, 1, 233, 255]])
    image = Image.fromarray(colours()[0])
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=turned)
    np.testing.assert_array_equal(read_images(tmp_path / "turned.png")[0][0], np.rot90(colours()[0], -1))
    image.putalpha(255)
    image.save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_images(tmp_path / "opaque.png")[0][0], colours()[0])


def test_files_that_can_be_seen_in_several_ways_are_refused(tmp_path):
    image = Image.fromarray(colours()[0])
    image.save(tmp_path / "pages.tif", save_all=True, append_images=[image])
    image.putalpha(254)
    image.save(tmp_path / "clear.png")
    Image.fromarray(np.array([[0, 255]], dtype=np.int32)).save(tmp_path / "wide.tif")
    for name, message in (("pages.tif", "2 pages"), ("clear.png", "transparent"), ("wide.tif", "32-bit numbers")):
        with pytest.raises(ValueError, match=message):
            read_images(tmp_path / name)
    (tmp_path / "._hidden.png").write_bytes(b"of macOS")
    (tmp_path / "clear.png").unlink(), (tmp_path / "pages.tif").unlink(), (tmp_path / "wide.tif").unlink()
    with pytest.raises(ValueError, match="There is no image in"):
        read_images(tmp_path)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        read_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="There is no image in"):
        read_images(tmp_path)
    Image.fromarray(colours()[0]).save(tmp_path / "a.png")
    Image.fromarray(colours(1, (6, 7))[0]).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"a\.png is 4 x 5 x 3, and .*b\.png is 6 x 7 x 3\. Resize or crop them"):
        read_images(tmp_path)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"b\.png cannot be read as an image"):
        read_images(tmp_path)
