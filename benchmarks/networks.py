"""The network and volumes that the benchmarks use when no real data is needed."""

from __future__ import annotations

import numpy as np
import torch
from monai.networks.nets import UNet

from voxplain.models import Model, wrap
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings

CLASSES = ("background", "organ", "lesion")


def unet(window: int, overlap: float) -> Model:
    """Return a seeded U-Net of ordinary depth with cubic windows.

    Its activation is smooth: with ReLU single units change sides by rounding, and two exact
    computations in float32 then differ by more than rounding.
    """
    torch.manual_seed(0)
    net = UNet(
        3, 1, len(CLASSES), channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=2,
        norm="instance", act="gelu",
    )  # fmt: skip
    return wrap(
        net,
        classes=CLASSES,
        channels=("ct",),
        window=WindowSettings((window,) * 3, overlap=overlap, blend="gaussian"),
        name="bench_unet",
    )


def noise_volume(side: int) -> Volume:
    """Return a cubic volume of seeded noise."""
    data = np.random.default_rng(0).random((1, side, side, side), dtype=np.float32)
    return Volume(data, Grid((side,) * 3, np.eye(4)), ("ct",), "noise")
