"""captum and torchcam agree on one window; where they define something else, it is stated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchcam import methods as torchcam

from voxplain.attribution import ClassTarget, Everywhere, explain
from voxplain.attribution.cam import GradCam, GradCamPlusPlus, HiResCam, LayerCam, XGradCam
from voxplain.attribution.method import Method
from voxplain.attribution.score_cam import ScoreCam
from voxplain.inference.compute import Compute
from voxplain.models import wrap
from voxplain.space.volume import Volume
from voxplain.testing.models import describe
from voxplain.testing.phantoms import oblique_grid, volume

SHAPE3, SHAPE2 = (6, 8, 12), (12, 21)
K = 1
DOUBLE = Compute("cpu", precision="float64")


class Net(nn.Module):
    """Strided features after a rectifier; logits at every voxel, or of the image."""

    def __init__(self, rank: int, *, is_dense: bool) -> None:
        super().__init__()
        conv = nn.Conv3d if rank == 3 else nn.Conv2d
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            self.first = conv(2, 4, 3, stride=3, padding=1)
            self.features = nn.Sequential(conv(4, 6, 3, padding=1), nn.ReLU())
            self.head = conv(6, 5, 3, padding=1)
            self.last = conv(5, 3, 1) if is_dense else nn.Linear(5, 3)
        self.is_dense = is_dense

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.head(self.features(torch.tanh(self.first(x)))))
        if not self.is_dense:
            return torch.as_tensor(self.last(hidden.flatten(2).mean(2)))
        mode = "trilinear" if x.ndim == 5 else "bilinear"
        up = F.interpolate(hidden, size=x.shape[2:], mode=mode, align_corners=False)
        return torch.as_tensor(self.last(up))


def image_of(shape: tuple[int, ...]) -> Volume:
    image = volume(oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)]), n_channels=2, seed=1)
    return image.with_data(image.data.astype(np.float64))


def up(cam: torch.Tensor, shape: tuple[int, ...]) -> np.ndarray:
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    found = F.interpolate(cam, size=shape, mode=mode, align_corners=False)
    return np.asarray(found[0, 0].detach().numpy())


def dense(image: Volume, method: Method) -> np.ndarray:
    rank = image.grid.rank
    model = describe(Net(rank, is_dense=True), rank=rank, n_channels=2, window=image.grid.shape)
    result = explain(model, image, ClassTarget("class_1", Everywhere()), method, compute=DOUBLE)
    (attribution,) = result.attributions.values()
    return np.asarray(attribution.values[0])


def classified(method: Method) -> np.ndarray:
    model = wrap(Net(2, is_dense=False), classes=("a", "b", "c"), channels=["x", "y"], rank=2,
                 kind="classification", activation="softmax", check=False)  # fmt: skip
    result = explain(model, image_of(SHAPE2), ClassTarget("b"), method, compute=DOUBLE)
    (attribution,) = result.attributions.values()
    return np.asarray(attribution.values[0])


def oracle(kind: Callable[..., Any], layers: str = "features") -> torch.Tensor:
    """torchcam's map before it is scaled, (1, 1, *cells)."""
    net = Net(2, is_dense=False).double().eval()
    x = torch.from_numpy(image_of(SHAPE2).data)[None].requires_grad_()
    with kind(net, layers, input_shape=(2, *SHAPE2)) as extractor:
        scores = net(x)
        (cam,) = extractor(K, scores, normalized=False)
    return torch.as_tensor(cam)[:, None]


def logit_sum(net: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: net(x)[:, K].flatten(1).sum(1)


@pytest.mark.parametrize("shape", [SHAPE3, SHAPE2])
@pytest.mark.parametrize("layer", ["first", "features"])
@pytest.mark.parametrize("relu", [True, False])
def test_grad_cam_is_captums(shape: tuple[int, ...], layer: str, relu: bool) -> None:
    image, net = image_of(shape), Net(len(shape), is_dense=True).double()
    x = torch.from_numpy(image.data)[None]
    cam = captum.attr.LayerGradCam(logit_sum(net), getattr(net, layer)).attribute(
        x, relu_attributions=relu
    )
    found = dense(image, GradCam(layers=layer, relu=relu))
    assert relu or np.abs(found).max() > 1e-3
    np.testing.assert_allclose(found, up(cam, shape), atol=1e-10)


@pytest.mark.parametrize("shape", [SHAPE3, SHAPE2])
def test_hires_cam_is_captums_gradient_times_activation(shape: tuple[int, ...]) -> None:
    image, net = image_of(shape), Net(len(shape), is_dense=True).double()
    x = torch.from_numpy(image.data)[None]
    products = captum.attr.LayerGradientXActivation(logit_sum(net), net.features).attribute(x)
    wanted = up(products.sum(1, keepdim=True).relu(), shape)
    assert wanted.max() > 1e-3
    np.testing.assert_allclose(dense(image, HiResCam(layers="features")), wanted, atol=1e-10)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (GradCam(layers="features"), torchcam.GradCAM),
        (LayerCam(layers="features"), torchcam.LayerCAM),
        # torchcam adds 1e-8 to the sum of the activations
        (XGradCam(layers="features"), torchcam.XGradCAM),
        # torchcam scales masks before it interpolates them, the paper and we after that: the same
        # where a cell is an odd number of voxels (3 here), so that its centre is one of them; and
        # it adds 1e-8 to the range that a mask is divided by
        (ScoreCam(layers="features"), torchcam.ScoreCAM),
    ],
    ids=lambda m: getattr(m, "name", ""),
)
def test_torchcam(method: Method, kind: Callable[..., Any]) -> None:
    wanted = up(oracle(kind), SHAPE2)
    assert wanted.max() > 1e-4
    np.testing.assert_allclose(classified(method), wanted, atol=1e-6 * wanted.max())


def test_grad_cam_pp_is_the_papers_where_torchcam_leaves_the_division_out() -> None:
    """torchcam 0.5 divides a copy of G², so its α is G² itself; the rest is the same."""
    net = Net(2, is_dense=False).double()
    kept: list[torch.Tensor] = []
    net.features.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits = net(torch.from_numpy(image_of(SHAPE2).data)[None])
    (A,) = kept
    (G,) = torch.autograd.grad(logits[0, K], A)
    denominator = 2 * G**2 + (A * G**3).sum((2, 3), keepdim=True)
    alpha = torch.where(G == 0, 0, G**2 / denominator)

    def cam(alpha: torch.Tensor) -> torch.Tensor:
        weights = (alpha * G.relu()).sum((2, 3), keepdim=True)
        return (weights * A).sum(1, keepdim=True).relu()

    theirs = oracle(torchcam.GradCAMpp)
    np.testing.assert_allclose(
        theirs.detach().numpy(),
        cam(G**2).detach().numpy(),
        atol=1e-8 * float(theirs.detach().max()),
    )
    wanted = up(cam(alpha), SHAPE2)
    assert wanted.max() > 1e-3
    found = classified(GradCamPlusPlus(layers="features"))
    np.testing.assert_allclose(found, wanted, atol=1e-10 * wanted.max())
