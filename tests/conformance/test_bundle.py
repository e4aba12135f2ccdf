"""MONAI bundles pass the conformance suite, whatever their preprocessing does to the geometry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

from voxplain.models import Model, load_model
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume
from voxplain.testing.conformance import check_model
from voxplain.testing.phantoms import oblique_grid

Step = dict[str, Any]


def orientation(letters: str) -> Step:
    return {"_target_": "Orientationd", "keys": "image", "axcodes": letters, "labels": None}


def spacing(*mm: float, mode: str = "bilinear") -> Step:
    return {"_target_": "Spacingd", "keys": "image", "pixdim": list(mm), "mode": mode}


def resize(*size: int) -> Step:
    return {"_target_": "Resized", "keys": "image", "spatial_size": list(size)}


INTENSITY = {
    "_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -700, "a_max": 900, "b_min": 0,
    "b_max": 1,
}  # fmt: skip
GEOMETRIES: dict[str, list[Step]] = {
    "nothing": [],
    "orientation and spacing": [orientation("RAS"), spacing(1.5, 1.2, 2.0)],
    "spacing and orientation": [spacing(2.0, 0.9, 1.1, mode="nearest"), orientation("SPL")],
    "size": [orientation("ASR"), resize(8, 6, 9)],
    "padding and crop": [
        {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [14, 15, 16]},
        {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": [13, 15, 15]},
    ],
    "flip and rotation by a right angle": [
        {"_target_": "Flipd", "keys": "image", "spatial_axis": 1},
        {"_target_": "Rotate90d", "keys": "image", "spatial_axes": [0, 2]},
    ],
}


def bundle(folder: Path, rank: int, steps: list[Step], inferer: Step) -> Model:
    network = {
        "spatial_dims": rank, "in_channels": 1, "out_channels": 3, "channels": [3, 5],
        "strides": [2], "act": "tanh",
    }  # fmt: skip
    config = {
        "network_def": {"_target_": "UNet", **network},
        "preprocessing": {"_target_": "Compose", "transforms": [*steps, INTENSITY]},
        "inferer": inferer,
        "postprocessing": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
    }
    names = {"0": "background", "1": "liver", "2": "spleen"}
    metadata = {
        "network_data_format": {
            "inputs": {"image": {"num_channels": 1, "channel_def": {"0": "ct"}}},
            "outputs": {"pred": {"num_channels": 3, "channel_def": names}},
        }
    }
    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.save(UNet(**network).state_dict(), folder / "models" / "model.pt")
    model = load_model(folder)
    assert isinstance(model, Model)
    return model


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometries(name: str, tmp_path: Path) -> None:
    grid = oblique_grid((10, 12, 14), (0.7, 1.1, 2.3))
    data = np.random.default_rng(2).normal(100, 300, (1, *grid.shape)).astype(np.float32)
    windows = {"_target_": "SlidingWindowInferer", "roi_size": [8, 8, 6], "mode": "gaussian"}
    check_model(bundle(tmp_path, 3, GEOMETRIES[name], windows), Volume(data, grid))


def test_two_dimensions_without_windows(tmp_path: Path) -> None:
    grid = Grid((12, 10), np.array([[0.7, 0.1, 3.0], [0.0, 1.1, -8.0], [0.0, 0.0, 1.0]]))
    data = np.random.default_rng(2).normal(100, 300, (1, *grid.shape)).astype(np.float32)
    read: list[Step] = [{"_target_": "LoadImaged", "keys": "image"}]
    model = bundle(tmp_path, 2, [*read, resize(16, 8)], {"_target_": "SimpleInferer"})
    check_model(model, Volume(data, grid))
