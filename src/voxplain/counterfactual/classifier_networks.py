"""Networks that can be trained as classifiers, and the model card of a trained one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from voxplain.counterfactual.classifier import ABNORMAL, Window
from voxplain.counterfactual.config import Network
from voxplain.errors import ModelError
from voxplain.models.card_file import CARD
from voxplain.models.card_model import load_card
from voxplain.models.network import build_network
from voxplain.space.write import atomic_folder

WEIGHTS = "weights.safetensors"

NETWORKS: Mapping[Network, Mapping[str, Any]] = {
    "small": {
        "target": "monai.networks.nets.ResNet",
        "arguments": {
            "block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [8, 16, 32, 64],
            "spatial_dims": 2, "n_input_channels": 1, "conv1_t_size": 3, "conv1_t_stride": 2,
            "no_max_pool": True, "num_classes": 1,
        },
    },
    "resnet18": {
        "target": "monai.networks.nets.ResNet",
        "arguments": {
            "block": "basic", "layers": [2, 2, 2, 2], "block_inplanes": [64, 128, 256, 512],
            "spatial_dims": 2, "n_input_channels": 1, "conv1_t_size": 7, "conv1_t_stride": 2,
            "num_classes": 1,
        },
    },
    "efficientnet-b0": {
        "target": "monai.networks.nets.EfficientNetBN",
        "arguments": {
            "model_name": "efficientnet-b0", "pretrained": False, "spatial_dims": 2,
            "in_channels": 1, "num_classes": 1,
        },
    },
    "densenet121": {
        "target": "monai.networks.nets.DenseNet",
        "arguments": {
            "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "init_features": 64,
            "growth_rate": 32, "block_config": [6, 12, 24, 16],
        },
    },
}  # fmt: skip
"""Network of each name, as a card writes it: one channel in [−1, 1], one logit.

The last maps of ``small`` have a 16th of the picture's rows and columns, those of the others a
32nd. None has learned anything before."""


def build(network: Network) -> nn.Module:
    """Make a network with random weights.

    Parameters
    ----------
    network
        One of `NETWORKS`. Weights come from torch's global generator.

    Raises
    ------
    ModelError
        If there is no such network.
    """
    if network not in NETWORKS:
        raise ModelError(
            f"no network {network!r} to train; choose one of {', '.join(get_args(Network))}"
        )
    entry = NETWORKS[network]
    return build_network(entry["target"], entry["arguments"], Path())


def write_card(
    folder: Path, module: nn.Module, network: Network, preparation: Window, name: str
) -> None:
    """Write ``model.yaml`` and weights that `voxplain.load_model` takes.

    The card takes slices in the image's own intensities (e.g. HU), resizes them to the picture,
    clips them to the window and scales it to [−1, 1].

    Parameters
    ----------
    folder
        Made if missing; other files in it stay.
    module
        Of `build`.
    network
        What it was built as.
    preparation
        Size and window of the pictures.
    name
        Of the model, in tables.

    Raises
    ------
    ModelError
        If the card does not load back: weights of another network, or a window without width.
    OutputError
        If the disk refuses.

    Notes
    -----
    A card cannot keep the aspect ratio or pad: slices of another shape than `size` are stretched
    by it, where a run pads them.
    """
    low, high = float(preparation.low), float(preparation.high)
    entry = NETWORKS[network]
    card = {
        "name": name,
        "kind": "classification",
        "network": {"target": entry["target"], "arguments": dict(entry["arguments"])},
        "input": {
            "channels": ["picture"],
            "rank": 2,
            "size": [int(n) for n in preparation.size],
            "intensity": [
                {"clip": [low, high]},
                {"scale": {"from": [low, high], "to": [-1, 1]}},
            ],
        },
        "activation": "sigmoid",
        "classes": [ABNORMAL],
    }
    weights = {key: value.cpu().contiguous() for key, value in module.state_dict().items()}
    with atomic_folder(folder) as place, torch.random.fork_rng(devices=[]):
        (place / CARD).write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
        save_file(weights, place / WEIGHTS)
        load_card(place / CARD)
