"""``voxplain layers``: what it lists, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import typer
import yaml
from monai.networks.nets import DenseNet, UNet
from safetensors.torch import save_file
from typer.testing import CliRunner

from voxplain.cli import layers as verb
from voxplain.cli.faults import PlainFaults
from voxplain.testing import phantoms

UNET = {
    "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2],
}  # fmt: skip
DENSENET = {
    "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "init_features": 4, "growth_rate": 4,
    "block_config": [1, 1],
}  # fmt: skip


@pytest.fixture
def run():
    app = typer.Typer(cls=PlainFaults)
    app.command(epilog=verb.EPILOG)(verb.layers)
    app.command("other")(lambda: None)
    return lambda *words: CliRunner().invoke(app, ["layers", *map(str, words)])


@pytest.fixture
def unet(write_model, tmp_path):
    folder = write_model(
        tmp_path / "unet",
        network={"target": "monai.networks.nets.UNet", "arguments": UNET},
        window={"size": [4, 6, 8], "overlap": 0.5},
    )
    torch.manual_seed(1)
    save_file(UNet(**UNET).state_dict(), folder / "weights.safetensors")
    return folder


@pytest.fixture
def densenet(tmp_path):
    folder = tmp_path / "densenet"
    folder.mkdir()
    torch.manual_seed(1)
    save_file(DenseNet(**DENSENET).state_dict(), folder / "weights.safetensors")
    card = {
        "name": "xray",
        "kind": "classification",
        "network": {"target": "monai.networks.nets.DenseNet", "arguments": DENSENET},
        "input": {"channels": ["x"], "rank": 2},
        "activation": "softmax",
        "classes": ["no", "yes"],
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    return folder


def test_layers_and_words(run, unet):
    done = run(unet)
    assert done.exit_code == 0, done.output
    rows = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("│")}
    assert "auto, bottleneck" in rows["model.1"]
    assert "2 × 3 × 4" in rows["model.1"]
    assert "2 × 2 × 2" in rows["model.1"]
    assert sum("last" in line for line in rows.values()) == 1
    assert "model.2" not in rows  # the logits
    every = run(unet, "--all")
    assert "the logits" in every.stdout
    assert len(every.stdout.splitlines()) > len(done.stdout.splitlines())


def test_a_classifier_needs_a_size(run, densenet):
    refused = run(densenet)
    assert refused.exit_code == 2
    assert "--size" in refused.output
    assert "Traceback" not in refused.output
    done = run(densenet, "--size", "24,32")
    assert done.exit_code == 0, done.output
    row = next(line for line in done.stdout.splitlines() if "auto" in line)
    assert "class_layers.relu" in row
    assert "3 × 4" in row


def test_an_image_gives_the_size(run, densenet, tmp_path):
    image = phantoms.volume(phantoms.oblique_grid((24, 32), (0.7, 1.1)))
    np.save(tmp_path / "x.npy", image.data[0])
    done = run(densenet, "--image", tmp_path / "x.npy")
    assert done.exit_code == 0, done.output
    row = next(line for line in done.stdout.splitlines() if "auto" in line)
    assert "3 × 4" in row


@pytest.mark.parametrize("size", ["24", "a,b", "24,0"])
def test_wrong_sizes(run, densenet, size):
    refused = run(densenet, "--size", size)
    assert refused.exit_code == 2
    assert "size" in refused.output


def test_a_model_with_windows_has_its_size(run, unet):
    refused = run(unet, "--size", "8,8,8")
    assert refused.exit_code == 2
    assert "windows of (4, 6, 8)" in " ".join(refused.output.split())
