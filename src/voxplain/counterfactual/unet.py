"""The U-Net of generators with a mask: MONAI's, with group normalisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

TARGET = "monai.networks.nets.BasicUNet"
MULTIPLE = 16
"""Rows and columns are divisible by it: four halvings."""


def unet_arguments(in_channels: int, out_channels: int, width: int) -> dict[str, Any]:
    """Return arguments of `TARGET`, as a card names them.

    Notes
    -----
    Group normalisation keeps no statistics of batches, so training and use are the same
    function, and a picture's result does not depend on its neighbours in the batch.
    """
    return {
        "spatial_dims": 2,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "features": [width, width, 2 * width, 4 * width, 8 * width, width],
        "norm": ["group", {"num_groups": 4}],
        "upsample": "nontrainable",
    }


def build_unet(in_channels: int, out_channels: int, width: int) -> nn.Module:
    """Build the network: (batch, in, rows, columns) to (batch, out, rows, columns)."""
    from monai.networks.nets import BasicUNet

    network: nn.Module = BasicUNet(**unet_arguments(in_channels, out_channels, width))
    return network


def final_layer(unet: nn.Module) -> nn.Conv2d:
    """Return the last convolution, 1 × 1, of a network from `build_unet`."""
    layer = unet.final_conv
    assert isinstance(layer, nn.Conv2d)
    return layer


def begin_at(unet: nn.Module, biases: list[float]) -> None:
    """Make a new network start near constants: a tenth of the last weights, and its biases."""
    layer = final_layer(unet)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.mul_(0.1)
        layer.bias.copy_(torch.tensor(biases))


def smoothed(values: torch.Tensor, pixels: int) -> torch.Tensor:
    """Mean over `pixels` × `pixels`, edges repeated; 1 returns the values."""
    if pixels == 1:
        return values
    before = (pixels - 1) // 2
    padding = (before, pixels - 1 - before) * 2
    return F.avg_pool2d(F.pad(values, padding, mode="replicate"), pixels, stride=1)
