"""Train small classifiers on synthetic radiographs, of two architectures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import save_file

from voxplain.data import read_data
from voxplain.data.case import Case, Split
from voxplain.demo.xray import CLASSES
from voxplain.errors import DataError, ModelError
from voxplain.models import Model
from voxplain.models.card_file import CARD
from voxplain.models.card_model import load_card
from voxplain.models.network import build_network
from voxplain.space.write import atomic_folder

Architecture = Literal["resnet", "densenet"]

NETWORKS: Mapping[Architecture, Mapping[str, Any]] = {
    "resnet": {
        "target": "monai.networks.nets.ResNet",
        "arguments": {
            "block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [8, 16, 24, 32],
            "spatial_dims": 2, "n_input_channels": 1, "conv1_t_size": 5, "conv1_t_stride": 2,
            "no_max_pool": True, "num_classes": len(CLASSES),
        },
    },
    "densenet": {
        "target": "monai.networks.nets.DenseNet",
        "arguments": {
            "spatial_dims": 2, "in_channels": 1, "out_channels": len(CLASSES),
            "init_features": 16, "growth_rate": 8, "block_config": [3, 3, 3], "bn_size": 2,
        },
    },
}  # fmt: skip
"""Network of each architecture, as a card names it.

Residual and densely connected, both of ReLU, with batch normalisation, average pooling and one
linear layer. MONAI has no inception network, and a card may name no other class unasked."""

_INTENSITY: list[dict[str, Any]] = [{"scale": {"from": [0, 255], "to": [-1, 1]}}]
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class XrayRecipe:
    """Settings of the training.

    Parameters
    ----------
    steps
        Number of optimiser steps.
    batch
        Pictures a step.
    learning_rate
        Highest rate of the one-cycle schedule.
    shift_pixels
        Pictures are moved by up to so many pixels along each axis.
    gain
        Grey values from −1 are multiplied by 1 ± up to this share.
    """

    steps: int = 700
    batch: int = 32
    learning_rate: float = 4e-3
    shift_pixels: int = 4
    gain: float = 0.1


def train_xray_classifier(
    folder: Path | str,
    out: Path | str,
    architecture: Architecture,
    seed: int = 0,
    recipe: XrayRecipe | None = None,
) -> Path:
    """Train a classifier on the cases for training of a folder of radiographs.

    Parameters
    ----------
    folder
        Written by `voxplain.demo.xray.write_xrays`.
    out
        Folder for ``model.yaml`` and ``weights.safetensors``; made if missing.
    architecture
        One of `NETWORKS`.
    seed
        Of the first weights and of the batches; one seed gives one network, on one kind of
        machine and number of threads.
    recipe
        Settings.

    Returns
    -------
    Path
        `out`, for `voxplain.load_model`.

    Raises
    ------
    ModelError
        If there is no such architecture.
    DataError
        If the folder has no cases for training, or one without a finding.
    OutputError
        If the disk refuses.
    """
    if architecture not in NETWORKS:
        raise ModelError(
            f"no architecture {architecture!r}; choose one of {', '.join(get_args(Architecture))}"
        )
    settings = XrayRecipe() if recipe is None else recipe
    out = Path(out)
    network = NETWORKS[architecture]
    card = {
        "name": out.name,
        "kind": "classification",
        "network": {"target": network["target"], "arguments": dict(network["arguments"])},
        "input": {"channels": ["radiograph"], "rank": 2, "intensity": _INTENSITY},
        "activation": "softmax",
        "classes": list(CLASSES),
    }
    with atomic_folder(out) as place, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_network(network["target"], network["arguments"], place)
        _save(module, place)
        (place / CARD).write_text(yaml.safe_dump(card, sort_keys=False))
        model = load_card(place / CARD)
        images, findings = _read(model, folder, "train")
        rng = np.random.default_rng([seed, 35])
        _fit(model.module, _batches(rng, images, findings, settings), settings)
        _save(model.module, place)
    return out


def opacity_scores(
    model: Model, folder: Path | str, split: Split = "test"
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Score the pictures of a split.

    Parameters
    ----------
    model
        With the classes normal and opacity.
    folder
        Written by `voxplain.demo.xray.write_xrays`.
    split
        Whose cases, in the order of the manifest.

    Returns
    -------
    scores
        (n_cases,) logit of opacity less logit of normal.
    truth
        (n_cases,) whether there is an opacity.

    Raises
    ------
    DataError
        If the split has no cases, or one without a finding.
    """
    images, findings = _read(model, folder, split)
    with torch.inference_mode():
        logits = model.forward(torch.from_numpy(images)).double().numpy()
    return logits[:, 1] - logits[:, 0], findings == 1


def _read(
    model: Model, folder: Path | str, split: Split
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pictures as the model takes them, (n, 1, rows, columns), and the number of their class."""
    cases = [case for case in read_data(folder) if case.split == split]
    if not cases:
        raise DataError(f"{folder}: no cases of the split {split}; draw some with write_xrays")
    data = [model.prepare(case.read_image()).data for case in cases]
    return np.stack(data).astype(np.float32), np.array([_class(case) for case in cases])


def _class(case: Case) -> int:
    finding = case.metadata.get("finding")
    if finding not in CLASSES:
        raise DataError(
            f"{case.name}: finding is {finding!r}, expected one of {', '.join(CLASSES)}"
        )
    return CLASSES.index(str(finding))


def _fit(network: torch.nn.Module, batches: Iterator[Batch], settings: XrayRecipe) -> None:
    """Train in place and leave the network in evaluation mode."""
    optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.2
    )
    network.train()
    for images, findings in batches:
        optimiser.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(network(images), findings)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    network.eval()


def _batches(
    rng: np.random.Generator,
    images: NDArray[np.float32],
    findings: NDArray[np.int64],
    settings: XrayRecipe,
) -> Iterator[Batch]:
    """Random pictures, moved a little (edges repeated) and of changed exposure."""
    reach = settings.shift_pixels
    padded = np.pad(images, [(0, 0), (0, 0), (reach, reach), (reach, reach)], mode="edge")
    rows, columns = images.shape[2:]
    for _ in range(settings.steps):
        chosen = rng.choice(len(images), settings.batch)
        starts = rng.integers(0, 2 * reach + 1, (settings.batch, 2))
        moved = np.stack([
            padded[one, :, i : i + rows, j : j + columns]
            for one, (i, j) in zip(chosen, starts, strict=True)
        ])  # fmt: skip
        gain = rng.uniform(1 - settings.gain, 1 + settings.gain, (settings.batch, 1, 1, 1))
        changed = ((moved + 1) * gain - 1).astype(np.float32)
        yield torch.from_numpy(changed), torch.from_numpy(findings[chosen])


def _save(module: torch.nn.Module, folder: Path) -> None:
    weights = {name: value.contiguous() for name, value in module.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")
