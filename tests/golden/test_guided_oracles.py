"""captum agrees on guided backpropagation, deconvolution, guided Grad-CAM and DeepLIFT."""

from __future__ import annotations

from collections.abc import Callable

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn

from voxplain.attribution import ClassTarget, Constant, Everywhere, GivenImage, explain
from voxplain.attribution.deep_lift import DeepLift
from voxplain.attribution.guided import Deconvnet, GuidedBackprop, GuidedGradCam
from voxplain.attribution.method import Method
from voxplain.inference.compute import Compute
from voxplain.models import Model, wrap
from voxplain.space.volume import Volume
from voxplain.testing.models import describe
from voxplain.testing.phantoms import oblique_grid, volume

SHAPES = [(8, 12, 6), (12, 14)]
pytestmark = pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks:UserWarning")


def image_of(shape: tuple[int, ...]) -> Volume:
    grid = oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)])
    image = volume(grid, n_channels=2, seed=1)
    return image.with_data(image.data.astype(np.float64) - 1)


def network(rank: int, *, is_classifier: bool) -> nn.Sequential:
    """Rectifiers between strided convolutions; 3D: back to the voxels, 2D classifier: a mean."""
    convolution = nn.Conv3d if rank == 3 else nn.Conv2d
    back = nn.ConvTranspose3d if rank == 3 else nn.ConvTranspose2d
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        layers: list[nn.Module] = [
            convolution(2, 6, 3, padding=1),
            nn.ReLU(),
            convolution(6, 8, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
        ]
        if is_classifier:
            pool = nn.AdaptiveAvgPool3d(1) if rank == 3 else nn.AdaptiveAvgPool2d(1)
            layers += [pool, nn.Flatten(), nn.Linear(8, 3)]
        else:
            layers += [back(8, 4, 2, stride=2), nn.ReLU(), convolution(4, 3, 1)]
        for parameter in nn.Sequential(*layers[4:]).parameters():
            parameter.data += 0.5  # so that more speaks for the class than against it
        return nn.Sequential(*layers)


class Summed(nn.Module):
    """The target: the logit of class 1, summed over the voxels."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.inner(x)[:, 1].reshape(len(x), -1).sum(1))


def model_of(net: nn.Module, shape: tuple[int, ...], *, is_classifier: bool) -> Model:
    if not is_classifier:
        return describe(net, rank=len(shape), n_channels=2, window=shape)
    return wrap(
        net,
        classes=("a", "class_1", "c"),
        channels=("channel_0", "channel_1"),
        rank=len(shape),
        kind="classification",
        check=False,
    )


CASES = [(shape, is_classifier) for shape in SHAPES for is_classifier in (False, True)]


@pytest.mark.parametrize(("shape", "is_classifier"), CASES)
@pytest.mark.parametrize(
    ("method", "oracle"),
    [
        (GuidedBackprop(), lambda net, x: captum.attr.GuidedBackprop(net).attribute(x)),
        (Deconvnet(), lambda net, x: captum.attr.Deconvolution(net).attribute(x)),
        (
            DeepLift(Constant(0.3)),
            lambda net, x: captum.attr.DeepLift(net).attribute(x, torch.full_like(x, 0.3)),
        ),
        (
            GuidedGradCam(layers="3"),
            # linear interpolation between the cells' centres (align_corners=False), as ours is
            lambda net, x: captum.attr.GuidedGradCam(net, net.inner[3]).attribute(
                x, interpolate_mode="trilinear" if x.ndim == 5 else "bilinear"
            ),
        ),
    ],
    ids=["guided_backprop", "deconvnet", "deep_lift", "guided_grad_cam"],
)
def test_on_one_window(
    shape: tuple[int, ...],
    is_classifier: bool,
    method: Method,
    oracle: Callable[[nn.Module, torch.Tensor], torch.Tensor],
) -> None:
    image, net = image_of(shape), network(len(shape), is_classifier=is_classifier)
    model = model_of(net, shape, is_classifier=is_classifier)
    target = ClassTarget("class_1", Everywhere())
    result = explain(model, image, target, method, compute=Compute("cpu", precision="float64"))
    x = torch.from_numpy(image.data)[None].requires_grad_()
    wanted = oracle(Summed(net).double(), x)[0].detach().numpy()
    found = result[target.name].values
    assert np.abs(wanted).max() > 1e-7
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())


class Skip(nn.Module):
    """A rectifier that feeds max pooling and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(8, 3, 1)
        self.activation, self.pool = nn.ReLU(), nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.activation(self.first(x))
        return torch.as_tensor(self.last(torch.cat([hidden, self.up(self.pool(hidden))], 1)))


def test_where_captum_alone_loses_a_path() -> None:
    """Its hooks on the tensor between rectifier, pooling and skip connection disturb each other."""
    image, net, target = image_of((12, 14)), Skip(), ClassTarget("class_1", Everywhere())
    model = model_of(net, (12, 14), is_classifier=False)
    baseline = image.with_data(image.data[:, ::-1, ::-1].copy())
    result = explain(
        model,
        image,
        target,
        DeepLift(GivenImage(baseline)),
        compute=Compute("cpu", precision="float64"),
    )
    gap = result[target.name].gap
    assert gap == pytest.approx(0, abs=1e-9)
    x = torch.from_numpy(image.data)[None].requires_grad_()
    start = torch.from_numpy(baseline.data)[None]
    total = Summed(net).double()
    alone = captum.attr.DeepLift(total).attribute(x, start).sum().detach()
    with torch.no_grad():
        change = total(x) - total(start)
    assert abs(float(alone - change)) > 0.1 * abs(float(change))
