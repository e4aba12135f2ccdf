"""Layers of real networks: what is found, which is chosen, where their cells lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.networks import nets
from torch import nn

from voxplain.attribution.choose_layer import WORDS, best_layers, layers
from voxplain.errors import MethodError, ModelError
from voxplain.inference.cells import Arrangement, arrange, upsample
from voxplain.inference.taps import Taps, record_layers
from voxplain.models import Model, wrap
from voxplain.testing.models import SmallNet, describe

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:monai.*")


# -- where the cells lie ---------------------------------------------------------------
@pytest.mark.parametrize(
    ("cells", "size", "hot"),
    [
        ((6, 5, 7), (2, 4, 8), (2, 3, 1)),
        ((5, 7), (3, 2), (2, 5)),
        ((4, 5, 6), (1, 1, 5), (1, 2, 4)),
    ],
)
def test_a_hot_cell_keeps_its_centroid(
    cells: tuple[int, ...], size: tuple[int, ...], hot: tuple[int, ...]
) -> None:
    values = torch.zeros((1, 1, *cells), dtype=torch.float64)
    values[(0, 0, *hot)] = 1.0
    window = [n * s for n, s in zip(cells, size, strict=True)]
    found = upsample(values, window)[0, 0].numpy()
    assert found.shape == tuple(window)
    places = np.indices(window).reshape(len(window), -1)
    centroid = (places * found.reshape(-1)).sum(1) / found.sum()
    # cell i covers the voxels i·s … (i + 1)·s − 1
    centre = [(i + 0.5) * s - 0.5 for i, s in zip(hot, size, strict=True)]
    np.testing.assert_allclose(centroid, centre, atol=1e-6)
    np.testing.assert_allclose(found.sum(), np.prod(size), rtol=1e-12)


@pytest.mark.parametrize("n_voxels", [11, 14, 17, 23])
def test_cells_that_are_no_whole_number_of_voxels_shift_by_little(n_voxels: int) -> None:
    shifts = []
    for hot in range(1, 5):
        values = torch.zeros((1, 1, 6, 1), dtype=torch.float64)
        values[0, 0, hot] = 1.0
        found = upsample(values, (n_voxels, 1))[0, 0, :, 0].numpy()
        centroid = (np.arange(n_voxels) * found).sum() / found.sum()
        shifts.append(abs(centroid - ((hot + 0.5) * n_voxels / 6 - 0.5)))
    assert max(shifts) < 0.1


@pytest.mark.parametrize(
    ("shape", "window", "wanted"),
    [
        ((8, 2, 3, 4), (4, 6, 8), Arrangement(8, (2, 3, 4))),
        ((8, 16, 4, 4), (16, 64, 64), Arrangement(8, (16, 4, 4))),  # anisotropic pooling
        ((8, 3, 4), (6, 8), Arrangement(8, (3, 4))),
        ((8, 3, 4), (1, 6, 8), Arrangement(8, (1, 3, 4))),  # slice by slice
        ((197, 12), (224, 224), Arrangement(12, (14, 14), 1, is_tokens=True)),
        ((196, 12), (224, 224), Arrangement(12, (14, 14), 0, is_tokens=True)),
        ((201, 12), (224, 224), Arrangement(12, (14, 14), 5, is_tokens=True)),
        ((24, 12), (32, 48, 64), Arrangement(12, (2, 3, 4), 0, is_tokens=True)),
        ((12, 12), (1, 48, 64), Arrangement(12, (1, 3, 4), 0, is_tokens=True)),
    ],
)
def test_arrangements(shape: tuple, window: tuple, wanted: Arrangement) -> None:
    assert arrange(shape, window) == wanted


@pytest.mark.parametrize(
    ("shape", "window", "reason"),
    [
        ((48, 48, 48, 24), (96, 96, 96), "channels come last"),
        ((7, 7, 768), (224, 224), "channels come last"),
        ((64,), (8, 8), "no axes"),
        ((26, 64), (8, 8), "26 tokens are no grid"),
        ((8, 100, 100), (8, 8), "no grid of cells"),
    ],
)
def test_what_does_not_lie_on_the_window_is_refused(
    shape: tuple, window: tuple, reason: str
) -> None:
    found = arrange(shape, window)
    assert isinstance(found, str)
    assert reason in found


def test_as_many_channels_as_cells_is_told_by_the_kind_of_layer() -> None:
    assert isinstance(arrange((6, 6, 6, 6), (12, 12, 12)), Arrangement)
    assert isinstance(arrange((6, 6, 6, 6), (12, 12, 12), is_last=True), str)


def test_tokens_are_put_on_the_grid() -> None:
    grid = torch.arange(2 * 5 * 3 * 4).reshape(2, 5, 3, 4)
    tokens = torch.cat([torch.full((2, 1, 5), -1), grid.flatten(2).movedim(1, 2)], 1)
    found = arrange(tokens.shape[1:], (48, 64))
    assert isinstance(found, Arrangement)
    assert torch.equal(found.place(tokens), grid)


# -- taps ------------------------------------------------------------------------------
def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_an_in_place_function_does_not_change_what_was_kept() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1))
    x = torch.randn(2, 1, 5, 6, requires_grad=True)
    with Taps(net, ["0"]) as taps:
        logits = net(x)
    (kept,) = taps.outputs
    torch.testing.assert_close(kept, net[0](x))
    assert (kept < 0).any()
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), kept)
    wanted = net[2].weight[1].reshape(1, 4, 1, 1) * (kept > 0)
    torch.testing.assert_close(gradient, wanted)
    assert hooks(net) == 0


def test_faults_of_taps_leave_no_hook() -> None:
    net = SmallNet(2)
    x = torch.zeros(1, 1, 4, 5)
    with pytest.raises(MethodError, match="no layer 'fist'; did you mean 'first'"), \
            Taps(net, ["last", "fist"]):  # fmt: skip
        pass
    with pytest.raises(RuntimeError, match="on purpose"), Taps(net, ["last"]):
        raise RuntimeError("on purpose")
    twice = nn.Sequential(nn.ReLU())
    twice.append(twice[0])
    with pytest.raises(MethodError, match="more than once"), Taps(twice, ["0"]):
        twice(x)
    with pytest.raises(MethodError, match="does not run"), Taps(net, ["first"]):
        net.last(torch.zeros(1, 4, 4, 5))
    pair = nn.Sequential(nn.Identity())
    pair.add_module("unused", nn.LSTM(5, 3))
    with pytest.raises(MethodError, match="gives a tuple"), Taps(pair, ["unused"]):
        pair.unused(torch.zeros(4, 2, 5))
    assert hooks(net) == hooks(twice) == hooks(pair) == 0


def test_a_record_is_in_the_order_of_the_calls_and_leaves_nothing() -> None:
    relu = nn.ReLU()
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), relu), nn.Conv2d(4, 6, 1), relu,
        nn.Upsample(scale_factor=2), nn.Conv2d(6, 3, 1),
    )  # fmt: skip
    found = record_layers(net, lambda: net(torch.zeros(1, 1, 8, 12)), (8, 12))
    assert [layer.name for layer in found] == ["0.0", "0", "1", "0.1", "3", "4"]
    by_name = {layer.name: layer for layer in found}
    assert by_name["0"].arrangement == Arrangement(4, (4, 6))
    assert by_name["0.1"].fault == "runs more than once in a pass"
    assert [layer.name for layer in found if layer.is_output] == ["4"]
    assert best_layers(found, "bottleneck", is_dense=True)[0] == "1"
    assert best_layers(found, "last", is_dense=True)[0] == "3"
    assert hooks(net) == 0


# -- networks of the field -------------------------------------------------------------
def unet() -> nn.Module:
    return nets.UNet(3, 1, 3, channels=(4, 8, 16), strides=(2, 2), num_res_units=1)


def plain_conv_unet() -> nn.Module:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    return PlainConvUNet(
        1, 3, (4, 8, 16), nn.Conv3d, 3, ((1, 1, 1), (1, 2, 2), (2, 2, 2)), 1, 3, 1,
        conv_bias=True, norm_op=nn.InstanceNorm3d, nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )  # fmt: skip


def residual_encoder_unet() -> nn.Module:
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    return ResidualEncoderUNet(
        1, 3, (4, 8, 16), nn.Conv3d, 3, ((1, 1, 1), (2, 2, 2), (2, 2, 2)), (1, 1, 1), 3, (1, 1),
        conv_bias=True, norm_op=nn.InstanceNorm3d, nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )  # fmt: skip


def dyn_unet() -> nn.Module:
    return nets.DynUNet(3, 1, 3, (3, 3, 3), (1, 2, 2), (2, 2), filters=(4, 8, 16))


Made = Callable[[], nn.Module]
Lengths = tuple[int, ...]

# network, window, cells of the bottleneck, bottleneck, last
SEGMENTERS: dict[str, tuple[Made, Lengths, Lengths, str, str]] = {
    "UNet": (unet, (8, 12, 16), (2, 3, 4), "model.1.submodule.1", "model.1"),
    "BasicUNet": (
        lambda: nets.BasicUNet(3, 1, 3, (4, 4, 8, 8, 16, 4)), (32, 48, 32), (2, 3, 2),
        "down_4", "upcat_1",
    ),
    "DynUNet": (dyn_unet, (8, 12, 16), (2, 3, 4), "bottleneck", "skip_layers"),
    "SegResNet": (
        lambda: nets.SegResNet(3, 8, 1, 3, blocks_down=(1, 1, 1), blocks_up=(1, 1)),
        (8, 12, 16), (2, 3, 4), "down_layers.2", "act_mod",
    ),
    "SwinUNETR": (
        lambda: nets.SwinUNETR(1, 3, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1)),
        (32, 32, 64), (1, 1, 2), "encoder10", "decoder1",
    ),
    "UNETR": (
        lambda: nets.UNETR(1, 3, (32, 48, 32), feature_size=4, hidden_size=24, mlp_dim=32,
                           num_heads=2),
        (32, 48, 32), (2, 3, 2), "vit.norm", "decoder2",
    ),
    "nnU-Net": (plain_conv_unet, (8, 16, 24), (4, 4, 6), "encoder.stages.2", "decoder.stages.1"),
    "nnU-Net ResEnc": (
        residual_encoder_unet, (8, 16, 24), (2, 4, 6), "encoder.stages.2", "decoder.stages.1",
    ),
}  # fmt: skip


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmentation_networks(name: str) -> None:
    make, window, cells, bottleneck, last = SEGMENTERS[name]
    net = seeded(make)
    found, words = layers(describe(net, rank=3, window=window))
    assert words == {"auto": bottleneck, "bottleneck": bottleneck, "last": last}
    by_name = {layer.name: layer for layer in found}
    arrangement = by_name[bottleneck].arrangement
    assert arrangement is not None
    assert arrangement.cells == cells
    assert hooks(net) == 0


def classifier(net: nn.Module, rank: int) -> Model:
    return wrap(
        net, classes=("a", "b", "c"), channels=["c"], kind="classification", activation="softmax",
        rank=rank, check=False,
    )  # fmt: skip


CLASSIFIERS: dict[str, tuple[Made, Lengths, Lengths, str]] = {
    "DenseNet 3D": (
        lambda: nets.DenseNet(3, 1, 3, 4, 4, (1, 1)), (16, 24, 32), (2, 3, 4), "class_layers.relu",
    ),
    "DenseNet 2D": (
        lambda: nets.DenseNet(2, 1, 3, 4, 4, (1, 1)), (24, 32), (3, 4), "class_layers.relu",
    ),
    "ResNet 3D": (
        lambda: nets.ResNet("basic", [1, 1, 1, 1], [4, 4, 8, 8], spatial_dims=3, n_input_channels=1,
                            num_classes=3),
        (32, 48, 64), (2, 3, 4), "layer4",
    ),
    "ResNet 2D": (
        lambda: nets.ResNet("basic", [1, 1, 1, 1], [4, 4, 8, 8], spatial_dims=2, n_input_channels=1,
                            num_classes=3),
        (48, 64), (3, 4), "layer4",
    ),
    "EfficientNet 2D": (
        lambda: nets.EfficientNetBN("efficientnet-b0", False, spatial_dims=2, in_channels=1,
                                    num_classes=3),
        (64, 96), (2, 3), "_bn1",
    ),
    # the class token alone reaches the logits: behind the last block the patches have no gradient
    "ViT 3D": (
        lambda: nets.ViT(1, (16, 24, 32), 8, 16, 24, 3, 2, classification=True, num_classes=3),
        (16, 24, 32), (2, 3, 4), "blocks.1",
    ),
    "ViT 2D": (
        lambda: nets.ViT(1, (24, 32), 8, 16, 24, 3, 2, classification=True, num_classes=3,
                         spatial_dims=2),
        (24, 32), (3, 4), "blocks.1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name: str) -> None:
    make, size, cells, auto = CLASSIFIERS[name]
    found, words = layers(classifier(seeded(make), len(size)), size=size)
    assert words["auto"] == auto
    arrangement = {layer.name: layer for layer in found}[auto].arrangement
    assert arrangement is not None
    assert arrangement.cells == cells


def test_a_model_without_window_needs_a_size() -> None:
    model = classifier(seeded(lambda: nets.DenseNet(2, 1, 3, 4, 4, (1, 1))), 2)
    with pytest.raises(ModelError, match=r"no window.*--size"):
        layers(model)
    with pytest.raises(ModelError, match="needs 2 positive lengths"):
        layers(model, size=(4, 5, 6))
    segmenter = describe(SmallNet(2), rank=2)
    with pytest.raises(ModelError, match="windows of"):
        layers(segmenter, size=(4, 5))


def test_the_network_is_as_it_was() -> None:
    net = SmallNet(3).train()
    before = {name: p.clone() for name, p in net.named_parameters()}
    found, words = layers(describe(net, rank=3))
    assert words == dict.fromkeys(WORDS, "first")
    assert net.training
    assert all(
        torch.equal(p, before[name]) and p.requires_grad for name, p in net.named_parameters()
    )
    assert [replace(layer, arrangement=None).name for layer in found] == ["first", "last"]
