"""Augmentation against rooms that are drawn anew: what another view of a label is, exactly."""

import numpy as np
import pytest
import torch

from bmtl.datasets import Batches, load
from bmtl.datasets.augmentation import KINDS, Augmentation, AugmentedBatches, Crop, inverse_depth
from bmtl.datasets.rooms import Frame, labels_of, ray_caster
from bmtl.datasets.rooms.layout import draw_room, draw_view
from bmtl.datasets.rooms.ray_caster import render
from bmtl.targets.instances import instance_numbers

SIZE = (48, 64)


def scene(seed):
    room = draw_room(np.random.default_rng([3, seed]))
    return room, draw_view(room, np.random.default_rng([4, seed]))


def labels(frame: Frame) -> dict[str, torch.Tensor]:
    """Labels of one frame ``(H, W, ...)``."""
    batch = labels_of(Frame(*(array[None] for array in frame)))
    return {name: torch.as_tensor(values[0]) for name, values in batch.items()}


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_room_is_the_flip_of_the_room(seed):
    room, view = scene(seed)
    flipped = {name: KINDS[name](v, Crop(flip=True)) for name, v in labels(render(room, view, SIZE)).items()}
    other = labels(render(room.mirrored(), view.mirrored(), SIZE))
    np.testing.assert_array_equal(flipped["semantic"], other["semantic"])
    np.testing.assert_allclose(flipped["depth"], other["depth"], rtol=1e-6)
    np.testing.assert_allclose(flipped["normal"], other["normal"], atol=1e-6)
    np.testing.assert_array_equal(flipped["instance"], other["instance"])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_an_enlarged_room_is_seen_through_a_longer_lens(seed, flip, monkeypatch):
    room, view = scene(seed)
    crop = Crop(2.0, SIZE[0] // 4, SIZE[1] // 4, flip)  # the middle
    enlarged = {name: KINDS[name](v, crop) for name, v in labels(render(room, view, SIZE)).items()}
    if flip:
        room, view = room.mirrored(), view.mirrored()
    monkeypatch.setattr(ray_caster, "FOCAL", 2 * ray_caster.FOCAL)
    truth = labels(render(room, view, SIZE))
    # Labels are those of the nearest of the old pixels: edges are a pixel off.
    same = (enlarged["semantic"] == truth["semantic"]).numpy()
    assert same.mean() > 0.93
    np.testing.assert_allclose(np.median((2 * enlarged["depth"] / truth["depth"])[same]), 1, atol=0.02)
    cosine = (enlarged["normal"] * truth["normal"]).sum(-1).numpy()
    assert np.median(cosine) > 0.9999
    np.testing.assert_allclose(enlarged["normal"].norm(dim=-1), 1, atol=1e-5)
    both = same & ~enlarged["instance"].isnan().any(-1).numpy() & ~truth["instance"].isnan().any(-1).numpy()
    if both.any():
        apart = (enlarged["instance"] - truth["instance"]).norm(dim=-1).numpy()[both]
        assert np.median(apart) < 2


def test_inverse_depth_is_the_inverse_of_depth():
    depth = torch.rand(12, 16) + 0.5
    crop = Crop(1.5, 2, 3, True)
    torch.testing.assert_close(inverse_depth(1 / depth, crop), 1 / KINDS["depth"](depth, crop))


def test_centroids_are_of_what_is_still_seen():
    vectors = torch.full((8, 8, 2), torch.nan)
    row = torch.arange(8.0)
    vectors[3] = torch.stack([3.5 - row, torch.zeros(8)], -1)  # an object of 8 pixels in one row
    seen = KINDS["instance"](vectors, Crop(2.0, 2, 4))
    assert (instance_numbers(seen.numpy()) > 0).sum() == 16  # two rows of eight
    there = ~seen.isnan().any(-1)
    ends = (seen + torch.stack(torch.meshgrid(row, row, indexing="xy"), -1))[there]
    assert ends.unique(dim=0).tolist() == [[3.5, 2.5]]


def test_pixels_without_a_label_stay_without_one():
    normal = torch.tensor([0.0, 0, -1]).expand(12, 16, 3).clone()
    normal[:, :5] = torch.nan
    depth = torch.where(normal[..., 0].isnan(), torch.nan, torch.ones(12, 16))
    for crop in (Crop(), Crop(1.5, 1, 2), Crop(1.2, 0, 0, True)):
        found, lacks = KINDS["normal"](normal, crop), KINDS["depth"](depth, crop).isnan()
        assert torch.equal(found.isnan().all(-1), lacks)
        assert 0 < lacks.float().mean() < 1
        torch.testing.assert_close(found[~lacks], torch.tensor([0.0, 0, -1]).expand_as(found[~lacks]))
    semantic = torch.full((12, 16), -1)
    assert (KINDS["semantic"](semantic, Crop(1.5, 1, 2)) == -1).all()


def test_the_whole_image_is_itself_bit_by_bit():
    data = load("rooms", train=3, val=0, test=0, height=24, width=32)
    x, y = data.tensors("train")
    images, found = Augmentation((1.0,), flip=False, colour=0)(x, y, torch.Generator().manual_seed(0))
    assert torch.equal(images, x)
    for name in y:
        torch.testing.assert_close(found[name], y[name], rtol=0, atol=0, equal_nan=True)


def test_colours_stay_colours_and_labels_do_not_change():
    data = load("rooms", train=4, val=0, test=0, height=24, width=32)
    x, y = data.tensors("train")
    images, found = Augmentation((1.0,), flip=False, colour=0.5)(x, y, torch.Generator().manual_seed(0))
    assert 0 <= images.min() <= images.max() <= 1
    assert (images - x).abs().amax((1, 2, 3)).min() > 0.01  # every image has other colours
    torch.testing.assert_close(found["depth"], y["depth"], rtol=0, atol=0)


def test_images_and_labels_are_of_one_view():
    """An image whose colour is its class's number, through every crop."""
    y = {"semantic": torch.randint(0, 4, (16, 4, 4), generator=torch.Generator().manual_seed(0))}
    y = {"semantic": y["semantic"].repeat_interleave(8, 1).repeat_interleave(8, 2)}
    x = (y["semantic"] / 4.0)[:, None].expand(-1, 3, -1, -1)
    images, found = Augmentation(colour=0)(x, y, torch.Generator().manual_seed(1))
    agree = ((4 * images[:, 0]).round() == found["semantic"]).float().mean((1, 2))
    assert agree.min() > 0.8  # but for what is interpolated across edges


def test_views_resume_where_they_were():
    data = load("rooms", train=8, val=0, test=0, height=16, width=16)
    x, y = data.tensors("train")

    def loader(seed=3):
        return AugmentedBatches(Batches(x, y, 2, seed=seed), Augmentation())

    whole = loader()
    everything = [images for _ in range(2) for images, _ in whole]
    first = loader()
    epoch = iter(first)
    for _ in range(3):
        next(epoch)
    second = loader()
    second.load_state_dict(first.state_dict())
    rest = [images for images, _ in second] + [images for images, _ in second]
    assert len(whole) == 4
    assert all(torch.equal(a, b) for a, b in zip(rest, everything[3:], strict=True))
    again = loader(seed=0)
    again.generator.manual_seed(3)  # as `fit` does
    assert all(torch.equal(a, b) for a, (b, _) in zip(everything, again, strict=False))


def test_every_batch_and_epoch_has_views_of_its_own():
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))[:1].expand(4, -1, -1, -1)
    loader = AugmentedBatches(Batches(x, {"semantic": torch.zeros(4, 8, 8, dtype=int)}, 1, seed=0), Augmentation())
    views = [images for _ in range(3) for images, _ in loader]
    assert len({tuple(view.flatten().tolist()) for view in views}) == 12


def test_batches_of_one_image():
    data = load("rooms", train=1, val=0, test=0, height=16, width=16)
    x, y = data.tensors("train")
    images, found = Augmentation()(x, y, torch.Generator().manual_seed(0))
    assert images.shape == x.shape
    assert {name: v.shape for name, v in found.items()} == {name: v.shape for name, v in y.items()}


def test_what_cannot_be_augmented_is_refused():
    with pytest.raises(ValueError, match="numbers from 1"):
        Augmentation((0.5, 1.0))
    with pytest.raises(ValueError, match="colour is a proportion"):
        Augmentation(colour=1.0)
    x, labels = torch.zeros(1, 3, 4, 4), {"albedo": torch.zeros(1, 4, 4)}
    with pytest.raises(ValueError, match="labels of 'albedo' in another view; give kinds={'albedo': function}"):
        Augmentation()(x, labels, torch.Generator())
    Augmentation(kinds={"albedo": KINDS["semantic"]})(x, labels, torch.Generator())
    scaled = load("rooms", train=2, val=0, test=0, height=16, width=16, scale="train")
    with pytest.raises(ValueError, match="'depth', 'instance' are scaled.*scale='none'"):
        Augmentation().check(scaled.targets)
    Augmentation().check(load("rooms", train=2, val=0, test=0, height=16, width=16).targets)
