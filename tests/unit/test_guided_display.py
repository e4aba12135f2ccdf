"""Guided Grad-CAM as Arun et al. have it: a product of two maps as they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from voxplain.attribution import (
    ClassTarget,
    Everywhere,
    GradCam,
    GuidedBackprop,
    GuidedGradCam,
    explain,
    method_of,
)
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.models import wrap
from voxplain.testing.phantoms import oblique_grid, volume

DOUBLE = Compute("cpu", "float64")


class Net(torch.nn.Module):
    def __init__(self, rank: int) -> None:
        super().__init__()
        torch.manual_seed(rank)
        conv = torch.nn.Conv2d if rank == 2 else torch.nn.Conv3d
        self.one, self.two = conv(2, 5, 3, padding=1), conv(5, 3, 1)
        self.relu = torch.nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.relu(self.one(x)))


def grey(values: np.ndarray) -> np.ndarray:
    summed = np.abs(values).sum(0)
    low, high = summed.min(), np.percentile(summed, 99)
    return np.clip((summed - low) / (high - low), 0, 1)


@pytest.mark.parametrize("shape", [(11, 13), (7, 8, 9)])
def test_product_of_the_two_maps_as_drawn(shape: tuple[int, ...]) -> None:
    spacing = (0.7, 1.1, 2.3)[: len(shape)]
    image = volume(oblique_grid(shape, spacing), 2, seed=4)
    model = wrap(
        Net(len(shape)), classes=["a", "b", "c"], channels=["x", "y"], rank=len(shape),
        window=(6, 7, 8)[: len(shape)], check=False,
    )  # fmt: skip
    target = ClassTarget("b", Everywhere())

    def values(method: object) -> np.ndarray:
        return explain(model, image, target, method, compute=DOUBLE)[target.name].values  # type: ignore[arg-type]

    cam = GradCam(layers="relu", upsampling="tf1")
    wanted = grey(values(GuidedBackprop())) * grey(values(cam))
    found = values(GuidedGradCam("relu", "display", "tf1"))
    assert found.shape == (1, *shape)
    assert wanted.max() > 0
    np.testing.assert_allclose(found[0], wanted, atol=1e-12)


def test_the_preset_and_a_wrong_word() -> None:
    assert method_of("arun-guided_grad_cam") == GuidedGradCam(product="display", upsampling="tf1")
    with pytest.raises(MethodError, match="raw or display"):
        GuidedGradCam(product="grey")  # type: ignore[arg-type]
