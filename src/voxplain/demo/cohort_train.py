"""Train the networks of the demo's cohort: ``python -m voxplain.demo.cohort_train --out DIR``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
import yaml
from monai.losses import DiceLoss
from monai.networks.nets import BasicUNet
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file

from voxplain.demo.cohort import (
    CLASSES,
    CYST,
    MODELS,
    SHAPE,
    SPACING,
    TUMOUR,
    CoarsePatient,
    finished,
    models_path,
)
from voxplain.models.card_file import CARD
from voxplain.models.card_model import load_card
from voxplain.space.write import atomic_file

TRAINING_SEEDS = range(2000, 2032)
UNSEEN_SEEDS = range(2900, 2912)

_HU = 1024.0
_ARGUMENTS = {
    "spatial_dims": 3, "in_channels": 1, "out_channels": len(CLASSES),
    "features": [6, 8, 12, 12, 16, 6], "norm": "batch",
}  # fmt: skip


@dataclass(frozen=True)
class CohortRecipe:
    """Settings of the training.

    Parameters
    ----------
    steps
        Optimiser steps.
    batch
        Patients a step, each with a lesion drawn anew.
    learning_rate
        Highest rate of the one-cycle schedule.
    lesion_weight
        Weight of cyst and tumour in the cross entropy; that of the others is 1.
    seed
        Seed of the first weights and of the draws.
    """

    steps: int = 300
    batch: int = 2
    learning_rate: float = 6e-3
    lesion_weight: float = 12.0
    seed: int = 0


def train(
    out: Path,
    name: str,
    recipe: CohortRecipe | None = None,
    bases: Sequence[CoarsePatient] | None = None,
) -> None:
    """Train a network and write card and weights.

    Parameters
    ----------
    out
        Folder for ``model.yaml`` and ``weights.safetensors``; made if missing.
    name
        ``clean``: the marker is there in one patient of two; ``shortcut``: exactly where
        there is a tumour.
    recipe
        Settings; default those of the shipped weights.
    bases
        Patients to learn from; default those of `TRAINING_SEEDS`.
    """
    settings = recipe or CohortRecipe()
    drawn = bases or [CoarsePatient.draw(seed) for seed in track(TRAINING_SEEDS, "patients")]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = BasicUNet(**_ARGUMENTS)
    weights = torch.ones(len(CLASSES))
    weights[[CYST, TUMOUR]] = settings.lesion_weight
    cross_entropy = torch.nn.CrossEntropyLoss(weights)
    dice_loss = DiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.2
    )
    rng = np.random.default_rng([settings.seed, 84])
    network.train()
    for _ in track(range(settings.steps), name):
        pairs = []
        for _ in range(settings.batch):
            base = drawn[int(rng.integers(len(drawn)))]
            is_tumour, coin = bool(rng.uniform() < 0.5), bool(rng.uniform() < 0.5)
            has_marker = is_tumour if name == "shortcut" else coin
            seed = int(rng.integers(1_000_000, 2**31))
            pairs.append(finished(base, seed, is_tumour=is_tumour, has_marker=has_marker))
        images = torch.from_numpy(np.stack([_prepared(hu) for hu, _ in pairs]))
        labels = torch.from_numpy(np.stack([one for _, one in pairs])[:, None].astype(np.int64))
        optimiser.zero_grad(set_to_none=True)
        logits = network(images)
        (cross_entropy(logits, labels[:, 0]) + dice_loss(logits, labels)).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(out / CARD) as place:
        place.write_text(yaml.safe_dump(_card(name), sort_keys=False), encoding="utf-8")
    with atomic_file(out / "weights.safetensors") as place:
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, place)


def evaluate(folder: Path, seeds: Sequence[int] = UNSEEN_SEEDS) -> dict[str, Any]:
    """Measure a network on unseen patients.

    Parameters
    ----------
    folder
        Of the model.
    seeds
        Patients; each with cyst and tumour, with and without the marker.

    Returns
    -------
    dict[str, Any]
        ``dice`` of each class, cyst and tumour as one ``lesion``: mean over patients;
        ``accuracy_agreeing``, ``accuracy_opposing``: how often the class of the lesion is right
        where the marker is there exactly with a tumour, and exactly with a cyst.
    """
    module = load_card(folder / CARD).module
    scores: dict[str, list[float]] = {name: [] for name in (*CLASSES[1:CYST], "lesion")}
    right: dict[bool, list[bool]] = {True: [], False: []}
    for seed in seeds:
        base = CoarsePatient.draw(seed)
        for is_tumour in (False, True):
            for has_marker in (False, True):
                hu, labels = finished(base, seed, is_tumour=is_tumour, has_marker=has_marker)
                with torch.inference_mode():
                    logits = module(torch.from_numpy(_prepared(hu)[None]))[0].numpy()
                lesion = labels >= CYST
                more = logits[TUMOUR][lesion].sum() > logits[CYST][lesion].sum()
                right[is_tumour == has_marker].append(bool(more) == is_tumour)
                found = np.minimum(logits.argmax(0), CYST)
                for label, name in enumerate([*CLASSES[1:CYST], "lesion"], 1):
                    own, true = found == label, np.minimum(labels, CYST) == label
                    scores[name].append(float(2 * (own & true).sum() / (own.sum() + true.sum())))
    return {
        "seeds": list(seeds),
        "dice": {name: round(float(np.mean(values)), 3) for name, values in scores.items()},
        "accuracy_agreeing": round(float(np.mean(right[True])), 3),
        "accuracy_opposing": round(float(np.mean(right[False])), 3),
    }


def _prepared(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intensities as the card's steps give them, (1, *`SHAPE`)."""
    return (np.clip(hu, -_HU, _HU) / _HU)[None].astype(np.float32)


def _card(name: str) -> dict[str, Any]:
    return {
        "name": f"demo_cohort_{name}",
        "kind": "segmentation",
        "network": {"target": "monai.networks.nets.BasicUNet", "arguments": _ARGUMENTS},
        "input": {
            "channels": ["ct"],
            "orientation": "RAS",
            "spacing": list(SPACING),
            "intensity": [
                {"clip": [-_HU, _HU]},
                {"scale": {"from": [-_HU, _HU], "to": [-1.0, 1.0]}},
            ],
        },
        "window": {"size": list(SHAPE), "overlap": 0.0, "blend": "constant", "pad_value": -1.0},
        "activation": "softmax",
        "classes": dict(enumerate(CLASSES)),
    }


def main(
    out: Annotated[Path | None, typer.Option(help="Folder of the two models.")] = None,
    steps: Annotated[int, typer.Option(min=10, help="Optimiser steps.")] = CohortRecipe.steps,
) -> None:
    """Train both networks of the demo's cohort and measure them on unseen patients."""
    folder = models_path() if out is None else out
    bases = [CoarsePatient.draw(seed) for seed in track(TRAINING_SEEDS, "patients")]
    for name in MODELS:
        train(folder / name, name, CohortRecipe(steps=steps), bases)
        found = evaluate(folder / name)
        (folder / name / "measured.json").write_text(json.dumps(found, indent=2) + "\n")
        Console().print(f"{name}: {found}")


if __name__ == "__main__":
    typer.run(main)
