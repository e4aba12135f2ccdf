"""Folders of small classifiers with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from voxplain.models.network import build_network

OUTPUTS: dict[str, tuple[str, list[str]]] = {
    "one_logit": ("sigmoid", ["abnormal"]),
    "softmax": ("softmax", ["normal", "pneumonia", "effusion"]),
    "multi_label": ("sigmoid", ["nodule", "effusion"]),
}
RGB = ["red", "green", "blue"]


def densenet(rank: int, n_channels: int, n_classes: int) -> dict[str, Any]:
    """A DenseNet (batch norm, in-place ReLU, max pooling) of two blocks, as a card names it."""
    arguments = {
        "spatial_dims": rank, "in_channels": n_channels, "out_channels": n_classes,
        "init_features": 6, "growth_rate": 4, "block_config": [2, 1],
    }  # fmt: skip
    return {"target": "monai.networks.nets.DenseNet", "arguments": arguments}


def write_card(
    folder: Path,
    output: str = "softmax",
    *,
    network: Mapping[str, Any] | None = None,
    channels: list[str] | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Write a card and weights.

    Parameters
    ----------
    folder
        Made here.
    output
        One of `OUTPUTS`.
    network
        Target and arguments; default a small DenseNet for `channels`.
    channels
        Of the image; default one.
    seed
        Draws the weights, batch statistics included.
    settings
        Of ``input``.
    """
    activation, classes = OUTPUTS[output]
    names = channels or ["cxr"]
    rank = settings.get("rank") or len(settings["size"])
    n_channels = settings.get("repeat") or len(names)
    named = dict(network or densenet(rank, n_channels, len(classes)))
    folder.mkdir(parents=True)
    save_file(random_weights(named, folder, seed), folder / "weights.safetensors")
    card = {
        "name": folder.name,
        "kind": "classification",
        "network": named,
        "input": {"channels": names, **settings},
        "activation": activation,
        "classes": classes,
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    return folder


def random_weights(network: Mapping[str, Any], folder: Path, seed: int) -> dict[str, torch.Tensor]:
    """State of the network, with running statistics that are not those of a new one."""
    torch.manual_seed(seed)
    module = build_network(network["target"], network["arguments"], folder)
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm2d, nn.BatchNorm3d)):
            part.running_mean = torch.randn_like(part.running_mean) * 0.2
            part.running_var = torch.rand_like(part.running_var) + 0.5
    return {name: value.contiguous() for name, value in module.state_dict().items()}
