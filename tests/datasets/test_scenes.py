"""Readers of scenes: real files where they are, written fixtures where they cannot be had."""

import json

import numpy as np
import pytest
from PIL import Image

from bmtl.datasets import load
from bmtl.datasets.camvid import FILE as CAMVID
from bmtl.datasets.camvid import boundary_distance
from bmtl.datasets.cityscapes import BASELINE, FOCAL, LABEL_IDS
from bmtl.datasets.kitchen import FILE as KITCHEN
from bmtl.datasets.kitchen import in_room
from bmtl.datasets.nyuv2 import CLASSES
from bmtl.datasets.scenes import scene_data
from bmtl.targets.instances import instance_numbers

SIZE = (6, 8)


def seen(data, target):
    """Share of pixels that have a label."""
    t = data.targets[target]
    return 1 - t.family.missing_pixels(t.values).mean()


# ---- NYUv2 -----------------------------------------------------------------------------------------------------------


def one_image(folder, number, seed, size=SIZE, **changed):
    """Files of one image as they are distributed, in which some pixels are void or not measured."""
    random = np.random.default_rng(seed)
    label = random.integers(-1, 13, size=size).astype(np.float32)
    depth = random.uniform(0.5, 9, size=(*size, 1)).astype(np.float32)
    depth[0] = 0
    normal = random.normal(size=(*size, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    normal[0, 1] = [np.sqrt(0.5), -np.sqrt(0.5), 0]  # a normal whose components sum to 0 is one
    normal[1] = 0
    arrays = {"image": random.uniform(size=(*size, 3)), "label": label, "depth": depth, "normal": normal, **changed}
    for kind, array in arrays.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        np.save(folder / kind / f"{number}.npy", array)
    return arrays


@pytest.fixture
def nyuv2(tmp_path):
    return {
        (name, i): one_image(tmp_path / name, i, [k, i]) for k, name in enumerate(("train", "val")) for i in (0, 2, 10)
    }


def test_nyuv2_as_it_is_written(tmp_path, nyuv2):
    data = load("nyuv2", root=tmp_path)
    assert {part: rows.tolist() for part, rows in data.rows.items()} == {"train": [0, 1, 2], "test": [3, 4, 5]}
    assert data.targets["semantic"].family.class_names == CLASSES
    for row, arrays in enumerate(nyuv2.values()):
        np.testing.assert_allclose(data.inputs.images[row], 255 * arrays["image"], atol=0.5)
        np.testing.assert_array_equal(data.targets["semantic"].values[row], arrays["label"])
        depth, normal = data.targets["depth"].values[row], data.targets["normal"].values[row]
        assert np.isnan(depth[0]).all()
        np.testing.assert_array_equal(depth[1:], arrays["depth"][1:, :, 0])
        assert np.isnan(normal[1]).all()
        np.testing.assert_allclose(normal[[0, 2, 3]], arrays["normal"][[0, 2, 3]], atol=1e-6)
    assert not np.isnan(data.targets["normal"].values[:, 0, 1]).any()
    assert load("nyuv2", root=tmp_path, limit=1).rows["test"].tolist() == [1]


def test_nyuv2_with_images_for_validation(tmp_path, nyuv2):
    (tmp_path / "list.txt").write_text("10\n\n0\n")
    data = load("nyuv2", root=tmp_path, list_file="list.txt")
    assert {part: rows.tolist() for part, rows in data.rows.items()} == {"train": [0, 1, 2], "val": [3, 5], "test": [4]}
    drawn = load("nyuv2", root=tmp_path, validation=0.34)
    assert [len(drawn.rows[part]) for part in ("train", "val", "test")] == [2, 1, 3]
    (tmp_path / "list.txt").write_text("10\n7\n")
    with pytest.raises(ValueError, match="line 2: '7' is no number of an image"):
        load("nyuv2", root=tmp_path, list_file="list.txt")
    with pytest.raises(FileNotFoundError, match="no list file"):
        load("nyuv2", root=tmp_path, list_file="other.txt")
    one_image(tmp_path / "test", 0, 9)
    data = load("nyuv2", root=tmp_path)
    assert {part: len(rows) for part, rows in data.rows.items()} == {"train": 3, "val": 3, "test": 1}
    with pytest.raises(ValueError, match="leave list_file out"):
        load("nyuv2", root=tmp_path, list_file="list.txt")
    with pytest.raises(ValueError, match="for validation already"):
        load("nyuv2", root=tmp_path, validation=0.5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": np.full(SIZE, 13.0)}, r"2\.npy: a label is a class from 0 to 12, or -1 for void; got 13"),
        ({"label": np.full(SIZE, 1.5)}, "got 1.5"),
        ({"label": np.zeros((6, 7))}, "one size: .* is 6 x 8, and train/2 .label. is 6 x 7"),
        ({"image": np.full((*SIZE, 3), 255.0)}, r"colours are in \[0, 1\]; got 255 to 255"),
        ({"image": np.zeros(SIZE)}, r"\(H, W, 3\); got \(6, 8\)"),
        ({"depth": np.zeros((*SIZE, 2))}, r"\(H, W, 1\); got \(6, 8, 2\)"),
        ({"normal": np.zeros((3, *SIZE))}, r"normals have the shape \(H, W, 3\)"),
        ({"image": np.array([object()])}, r"2\.npy cannot be read"),
    ],
)
def test_nyuv2_files_that_are_wrong_are_named(tmp_path, nyuv2, changed, message):
    one_image(tmp_path / "train", 2, 0, **changed)
    with pytest.raises(ValueError, match=message):
        load("nyuv2", root=tmp_path)


def test_labels_of_another_size_than_images_are_refused(tmp_path):
    for name in ("train", "val"):
        one_image(tmp_path / name, 0, 0, depth=np.ones((5, 8)))
    with pytest.raises(ValueError, match="'depth' is 2 x 5 x 8, and the images are 2 x 6 x 8"):
        load("nyuv2", root=tmp_path)


def test_depth_of_zeros_alone_is_refused(tmp_path):
    for name in ("train", "val"):
        one_image(tmp_path / name, 0, 0, depth=np.zeros(SIZE))
    with pytest.raises(ValueError, match="Target 'depth' has no label in the 1 training rows"):
        load("nyuv2", root=tmp_path)


def test_nyuv2_without_its_files(tmp_path, nyuv2):
    (tmp_path / "val" / "depth" / "2.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"val/image/2.npy has no depth"):
        load("nyuv2", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="nyuv2 needs the file nyuv2/train or train"):
        load("nyuv2", root=tmp_path / "train")


# ---- Cityscapes ------------------------------------------------------------------------------------------------------


def street(root, part, city, number, *, camera=True, size=(8, 16)):
    """Files of one image: road below, a car that is two objects, a group of people, sky above."""
    ids = np.full(size, LABEL_IDS["road"], dtype=np.uint8)
    ids[:2] = LABEL_IDS["sky"]
    ids[4:6, 2:6] = LABEL_IDS["car"]
    ids[4:6, 8:12] = LABEL_IDS["person"]
    ids[-1] = 1  # the car that carries the camera: void
    numbers = ids.astype(np.int32)
    numbers[4:6, 2:4], numbers[4:6, 4:6] = 26000, 26001  # people are a group, without numbers of their own
    disparity = np.full(size, 256 * 20 + 1, dtype=np.uint16)
    disparity[3] = 0
    random = np.random.default_rng(number)
    name = f"{city}_{number:06d}_000019"
    files = {
        f"leftImg8bit/{part}/{city}/{name}_leftImg8bit.png": random.integers(0, 256, (*size, 3), dtype=np.uint8),
        f"gtFine/{part}/{city}/{name}_gtFine_labelIds.png": ids,
        f"gtFine/{part}/{city}/{name}_gtFine_instanceIds.png": numbers.astype(np.uint16),
        f"disparity/{part}/{city}/{name}_disparity.png": disparity,
    }
    for file, array in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / file)
    if camera:
        file = root / f"camera/{part}/{city}/{name}_camera.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"intrinsic": {"fx": 2000.0}, "extrinsic": {"baseline": 0.2}}))


@pytest.fixture
def streets(tmp_path):
    for k, city in enumerate(("aachen", "bochum", "bremen")):
        street(tmp_path, "train", city, k, camera=k > 0)
    street(tmp_path, "val", "ulm", 9)
    return tmp_path


def test_cityscapes_as_it_is_written(streets):
    data = load("cityscapes", root=streets, height=8, width=16)
    assert {part: rows.tolist() for part, rows in data.rows.items()} == {"train": [0, 1, 2], "test": [3]}
    classes = data.targets["semantic"].family.class_names
    assert len(classes) == 19
    semantic, inverse = data.targets["semantic"].values[1], data.targets["inverse_depth"].values
    assert [classes[semantic[y, x]] for y, x in ((0, 0), (4, 2), (4, 8), (6, 0))] == ["sky", "car", "person", "road"]
    assert (semantic[-1] == -1).all()
    assert (inverse[:, :2] == 0).all()  # the sky is infinitely far away
    assert np.isnan(inverse[:, 3]).all()
    np.testing.assert_allclose(inverse[1, 4], 20 / (2000 * 0.2))
    np.testing.assert_allclose(inverse[0, 4], 20 / (FOCAL * BASELINE))  # without a camera file
    numbers = instance_numbers(data.targets["instance"].values[1])
    assert numbers.max() == 2
    assert numbers[4, 2] != numbers[4, 4]
    assert (numbers > 0).sum() == 8  # neither the group nor the road


def test_cityscapes_is_reduced_and_held_out_by_city(streets):
    data = load("cityscapes", root=streets, height=4, width=8, validation=0.4)
    assert sorted(map(len, data.rows.values())) == [1, 1, 2]
    full = load("cityscapes", root=streets, height=8, width=16)
    blocks = full.inputs.images[0].reshape(4, 2, 8, 2, 3).mean((1, 3))
    np.testing.assert_allclose(data.inputs.images[0], blocks, atol=1.01)  # rounded along each axis
    np.testing.assert_array_equal(data.targets["semantic"].values, full.targets["semantic"].values[:, 1::2, 1::2])


def test_cityscapes_files_that_are_wrong_are_named(streets):
    label = next(streets.glob("gtFine/train/aachen/*labelIds.png"))
    Image.fromarray(np.zeros((8, 15), np.uint8)).save(label)
    with pytest.raises(ValueError, match="labelIds.png is 8 x 15, and .*leftImg8bit.png is 8 x 16"):
        load("cityscapes", root=streets)
    Image.fromarray(np.full((8, 16), 200, np.uint8)).save(label)
    with pytest.raises(ValueError, match="Labels of aachen_000000_000019 range from 200 to 200"):
        load("cityscapes", root=streets)
    label.unlink()
    with pytest.raises(FileNotFoundError, match="aachen_000000_000019_leftImg8bit.png has no gtFine"):
        load("cityscapes", root=streets)
    with pytest.raises(FileNotFoundError, match="cityscapes needs the file"):
        load("cityscapes", root=streets / "camera")
    next(streets.glob("camera/val/ulm/*.json")).write_text("{}")
    with pytest.raises((ValueError, FileNotFoundError)):
        load("cityscapes", root=streets)


# ---- CamVid ----------------------------------------------------------------------------------------------------------


def test_camvid_is_what_its_description_says(data_root):
    data = load("camvid", root=data_root(CAMVID))
    assert {part: len(rows) for part, rows in data.rows.items()} == {"train": 367, "val": 101, "test": 233}
    target = data.targets["semantic"]
    shares = np.bincount(target.values[target.values >= 0], minlength=11) / target.values.size
    by_name = dict(zip(target.family.class_names, shares, strict=True))
    assert len(by_name) == 11
    assert "void" not in {name.lower() for name in by_name}
    assert [round(float(by_name[name]), 3) for name in ("sky", "building", "road")] == [0.157, 0.241, 0.294]
    assert 1 - seen(data, "semantic") == pytest.approx(0.036, abs=5e-4)
    assert data.inputs.describe()["shape"] == [3, 90, 120]


def test_boundary_distances_equal_a_loop():
    random = np.random.default_rng(0)
    labels = np.repeat(np.repeat(random.integers(-1, 3, size=(3, 3, 4)), 3, 1), 2, 2)
    labels[1] = 1
    labels[1, 2, 2] = -1
    found = boundary_distance(labels)
    for n, image in enumerate(labels):
        for at in np.ndindex(image.shape):
            others = np.argwhere((image >= 0) & (image != image[at]))
            if image[at] < 0 or not len(others):
                assert np.isnan(found[n][at])
            else:
                assert found[n][at] == pytest.approx(np.linalg.norm(others - at, axis=1).min())


# ---- the kitchen -----------------------------------------------------------------------------------------------------


def test_the_kitchen_is_what_its_description_says(data_root):
    data = load("kitchen", root=data_root(KITCHEN), coordinates=True)
    assert {part: len(rows) for part, rows in data.rows.items()} == {"train": 150, "val": 22, "test": 62}
    assert seen(data, "depth") == pytest.approx(0.888, abs=1e-3)
    assert seen(data, "normal") == pytest.approx(0.775, abs=1e-3)
    depth, normal, place = (data.targets[name].values[:40:8] for name in ("depth", "normal", "coordinates"))
    assert 0.3 < np.nanmin(depth) < np.nanmax(depth) < 4
    np.testing.assert_allclose(np.linalg.norm(normal, axis=-1)[~np.isnan(normal[..., 0])], 1, atol=1e-6)
    assert np.nanmean(normal[..., 2] < 0) > 0.7  # most surfaces face the camera
    np.testing.assert_array_equal(np.isnan(place).all(-1), np.isnan(depth))


def test_places_in_a_room_follow_from_depth_and_pose():
    intrinsics = np.array([[100.0, 0, 2], [0, 100, 1], [0, 0, 1]])
    turned = np.array([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    depth = np.full((1, 3, 4), 2.0)
    depth[0, 0, 0] = np.nan
    found = in_room(depth, intrinsics, turned[None])
    np.testing.assert_allclose(found[0, 1, 2], [5, 6, 9])  # straight ahead
    np.testing.assert_allclose(found[0, 1, 3], [5, 6.02, 9])  # a pixel to the right, which is the room's y
    assert np.isnan(found[0, 0, 0]).all()


def test_a_class_that_is_never_seen_is_a_class_all_the_same():
    labels = np.zeros((2, 4, 5), dtype=int)
    images, rows = np.zeros((2, 4, 5, 3), np.uint8), {"train": [0], "test": [1]}
    data = scene_data("x", images, {"semantic": labels}, rows, classes=("a", "b", "c"))
    assert data.targets["semantic"].family.class_names == ("a", "b", "c")
    assert data.targets["semantic"].values is labels  # kept, and no longer to be written to
    with pytest.raises(ValueError, match="read-only"):
        labels[1, 0, 0] = 3
    other = np.where(np.arange(40).reshape(2, 4, 5) == 25, 3, labels)
    with pytest.raises(
        ValueError, match="Image 1 of target 'semantic'.*row 5.*from 0 to 2|Image 1.*from 0 to 2.*row 5"
    ):
        scene_data("x", images, {"semantic": other}, rows, classes=("a", "b", "c"))
