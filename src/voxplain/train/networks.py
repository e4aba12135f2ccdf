"""The networks that can be trained, as MONAI defines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NETS = "monai.networks.nets"


@dataclass(frozen=True)
class NetworkKind:
    """A class of MONAI and its default arguments.

    Parameters
    ----------
    target
        Name in ``monai.networks.nets``.
    arguments
        Default arguments.
    filled
        Arguments that follow from the data: ``spatial_dims``, channels, classes, crop.
    """

    target: str
    arguments: Mapping[str, Any]
    filled: tuple[str, ...] = ("spatial_dims", "in_channels", "out_channels")


NETWORKS: Mapping[str, NetworkKind] = {
    "swin_unetr": NetworkKind(
        "SwinUNETR", {"feature_size": 48, "use_v2": True, "use_checkpoint": True}
    ),
    "unetr": NetworkKind(
        "UNETR",
        {"feature_size": 16, "hidden_size": 768, "mlp_dim": 3072, "num_heads": 12},
        ("spatial_dims", "in_channels", "out_channels", "img_size"),
    ),
    "unet": NetworkKind(
        "UNet",
        {
            "channels": [32, 64, 128, 256, 512],
            "strides": [2, 2, 2, 2],
            "num_res_units": 0,
            "norm": "batch",
        },
    ),
    "dynunet": NetworkKind(
        "DynUNet",
        {
            "kernel_size": [3, 3, 3],
            "strides": [1, 2, 2],
            "upsample_kernel_size": [2, 2],
            "filters": [16, 32, 64],
            "res_block": True,
            "norm_name": "instance",
            "dropout": 0.1,
        },
    ),
    "basic_unet": NetworkKind("BasicUNet", {"features": [32, 32, 64, 128, 256, 32]}),
}
"""What a recipe can name. The first three and DynUNet are those of the two papers."""


def network_definition(
    name: str, arguments: Mapping[str, Any], n_channels: int, n_classes: int, crop: Sequence[int]
) -> dict[str, Any]:
    """Return a network as a MONAI bundle writes it: ``_target_`` and plain arguments.

    Parameters
    ----------
    name
        One of `NETWORKS`.
    arguments
        Replace or complete the defaults.
    n_channels, n_classes
        Input and output channels.
    crop
        Voxels of a crop along each axis.
    """
    kind = NETWORKS[name]
    follows = {
        "spatial_dims": len(crop),
        "in_channels": n_channels,
        "out_channels": n_classes,
        "img_size": list(crop),
    }
    return {
        "_target_": f"{NETS}.{kind.target}",
        **{key: follows[key] for key in kind.filled},
        **kind.arguments,
        **arguments,
    }
