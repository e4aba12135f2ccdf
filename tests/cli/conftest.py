from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

from voxplain.cli import app
from voxplain.space import write_nifti
from voxplain.testing import phantoms

CLASSES = ["background", "liver", "spleen"]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("VOXPLAIN_TRACEBACK", raising=False)


@dataclass(frozen=True)
class Case:
    """A tiny model and an image in a folder of their own, and what else a test puts there."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def image(self) -> Path:
        return self.folder / "patient_7.nii.gz"

    @property
    def base(self) -> tuple[str, ...]:
        return ("explain", "--model", str(self.model), "--image", str(self.image))

    def quick(self, *arguments: str) -> tuple[str, ...]:
        """Arguments of a run without report."""
        return (*self.base, "--method", "gradient", "--no-report", *arguments)

    def files(self) -> list[str]:
        """Everything below the folder."""
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*"))


def _write_model(folder: Path, n_channels: int = 1, **changes: Any) -> Path:
    """A card with a seeded 3 × 3 × 3 convolution and windows smaller than the image."""
    folder.mkdir(parents=True)
    torch.manual_seed(4)
    network = torch.nn.Conv3d(n_channels, len(CLASSES), 3, padding=1)
    save_file(network.state_dict(), folder / "weights.safetensors")
    card = {
        "name": "tiny",
        "kind": "segmentation",
        "network": {
            "target": "torch.nn.Conv3d",
            "arguments": {
                "in_channels": n_channels, "out_channels": 3, "kernel_size": 3, "padding": 1,
            },
        },
        "input": {"channels": [f"c{i}" for i in range(n_channels)]},
        "window": {"size": [4, 5, 6], "overlap": 0.5},
        "activation": "softmax",
        "classes": CLASSES,
        **changes,
    }  # fmt: skip
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    return folder


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    made = Case(tmp_path)
    _write_model(made.model)
    image = phantoms.volume()
    # around zero, so that every class is predicted somewhere
    write_nifti(made.image, image.data - np.float32(np.median(image.data)), image.grid)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def voxplain() -> Callable[..., Any]:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, list(arguments), prog_name="voxplain")

    return run


@pytest.fixture
def write_model() -> Callable[..., Path]:
    return _write_model
