"""Train the demo's network on synthetic patients: ``python -m voxplain.demo.train --out DIR``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from monai.inferers import sliding_window_inference
from monai.losses import DiceLoss
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file

from voxplain.demo import model_path
from voxplain.demo.patients import patient
from voxplain.errors import ModelError
from voxplain.models import Model, wrap
from voxplain.models.card import Card
from voxplain.models.card_file import CARD, read_card
from voxplain.models.card_model import load_card
from voxplain.models.network import build_network
from voxplain.space.labelmap import LabelMap
from voxplain.space.resample import best_class
from voxplain.space.volume import Volume

TRAINING_SEEDS = range(100, 136)
UNSEEN_SEEDS = range(900, 910)
_FAST = torch.channels_last_3d  # a third faster on a CPU


@dataclass(frozen=True)
class Recipe:
    """Settings of the training.

    Parameters
    ----------
    steps
        Number of optimiser steps.
    batch
        Windows a step.
    learning_rate
        Highest rate of the one-cycle schedule.
    structure_share
        Share of windows that are centred on a voxel of a structure, drawn in proportion to
        1 / sqrt(its voxels); the others lie anywhere.
    seed
        Seed of the first weights and of the windows.
    """

    steps: int = 1400
    batch: int = 2
    learning_rate: float = 4e-3
    structure_share: float = 0.6
    seed: int = 0


def train(out: Path, recipe: Recipe | None = None, seeds: Sequence[int] = TRAINING_SEEDS) -> None:
    """Train the network of the shipped card and write card and weights.

    Parameters
    ----------
    out
        Folder for ``model.yaml`` and ``weights.safetensors``; made if missing.
    recipe
        Settings; default those of the shipped weights.
    seeds
        Patients to learn from.
    """
    settings = Recipe() if recipe is None else recipe
    card = read_card(model_path() / CARD)
    torch.manual_seed(settings.seed)
    network = build_network(card.network.target, card.network.arguments, model_path())
    cases = [_case(_described(card, network), seed) for seed in track(seeds, "patients")]
    # Rare structures are never learned if windows without them outweigh those that hold them:
    # so a smooth term of one voxel (not 1e-5), and cross entropy weighted by rarity.
    dice_loss = DiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    cross_entropy = torch.nn.CrossEntropyLoss(_rarity(cases, len(card.classes)))
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.2
    )
    rng = np.random.default_rng(settings.seed)
    network.train().to(memory_format=_FAST)  # type: ignore[call-overload]
    for _ in track(range(settings.steps), "training"):
        images, labels = _batch(rng, cases, card, settings)
        optimiser.zero_grad(set_to_none=True)
        logits = network(images)
        loss = dice_loss(logits, labels) + cross_entropy(logits, labels[:, 0].long())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    out.mkdir(parents=True, exist_ok=True)
    if out.resolve() != model_path().resolve():
        shutil.copy(model_path() / CARD, out / CARD)
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, out / "weights.safetensors")


def evaluate(model: Model, seeds: Sequence[int] = UNSEEN_SEEDS) -> dict[str, Any]:
    """Compare a model with the truth of unseen patients, on the patients' own grids.

    Parameters
    ----------
    model
        Model with the demo's classes.
    seeds
        Patients to predict.

    Returns
    -------
    dict[str, Any]
        ``seeds``; ``dice``: mean over the patients that have the structure, by name;
        ``mean``: over the structures.
    """
    each = []
    for seed in track(seeds, "evaluation"):
        image, truth = patient(seed)
        each.append(dice(predict(model, image), truth))
    means = {
        name: round(float(np.mean([scores[name] for scores in each if name in scores])), 4)
        for name in model.info.class_names[1:]
        if any(name in scores for scores in each)
    }
    return {
        "seeds": list(seeds),
        "dice": means,
        "mean": round(float(np.mean([*means.values()])), 4),
    }


def dice(found: NDArray[np.integer[Any]], truth: LabelMap) -> dict[str, float]:
    """Dice of every structure that the truth holds: 2 |A ∩ B| / (|A| + |B|), 0 to 1.

    Parameters
    ----------
    found
        (x, y, z) labels with the numbers of the truth.
    truth
        True structures on the same grid.
    """
    scores = {}
    for label, name in truth.names.items():
        true, given = truth.mask(label), found == label
        if label and true.any():
            both = np.count_nonzero(true & given)
            scores[name] = float(2 * both / (np.count_nonzero(true) + np.count_nonzero(given)))
    return scores


def predict(model: Model, image: Volume) -> NDArray[np.unsignedinteger[Any]]:
    """Labels that the model gives an image, on the image's own grid, (x, y, z)."""
    prepared = model.prepare(image)
    window = model.info.window
    if window is None:
        raise ModelError(f"expected a model with windows, {model.info.name} has none")
    with torch.inference_mode():
        logits = sliding_window_inference(
            torch.from_numpy(prepared.data[None].astype(np.float32)),
            window.size,
            2,
            model.forward,
            overlap=window.overlap,
            mode=window.blend,
            cval=window.pad_value,
        )
    return best_class(torch.as_tensor(logits)[0].numpy(), prepared.grid, image.grid)


def _described(card: Card, network: torch.nn.Module) -> Model:
    return wrap(
        network,
        classes=card.classes,
        channels=card.input.channels,
        orientation=card.input.orientation,
        spacing=card.input.spacing,
        intensity=card.input.intensity,
        name=card.name,
    )


def _case(model: Model, seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Image as the model sees it and the true labels drawn on the model's grid."""
    image, _ = patient(seed, lesion=True)
    prepared = model.prepare(image)
    _, truth = patient(seed, lesion=True, grid=prepared.grid)
    return prepared.data.astype(np.float32), truth.layers.astype(np.uint8)


def _rarity(
    cases: Sequence[tuple[NDArray[np.float32], NDArray[np.uint8]]], n_classes: int
) -> torch.Tensor:
    """Weight of each class, 1 / sqrt(its voxels in all cases), 1 on average."""
    counts = sum(np.bincount(truth.ravel(), minlength=n_classes) for _, truth in cases)
    weights = 1 / np.sqrt(np.maximum(counts, 1))
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)


def _batch(
    rng: np.random.Generator,
    cases: Sequence[tuple[NDArray[np.float32], NDArray[np.uint8]]],
    card: Card,
    recipe: Recipe,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random windows (batch, 1, *window) and their labels."""
    if card.window is None:
        raise ModelError(f"expected a card with windows, that of {card.name} has none")
    size = np.array(card.window.size)
    images, labels = [], []
    for _ in range(recipe.batch):
        image, truth = cases[int(rng.integers(len(cases)))]
        room = np.array(truth.shape[1:]) - size
        if rng.uniform() < recipe.structure_share:
            present, counts = np.unique(truth[truth > 0], return_counts=True)
            rarity = 1 / np.sqrt(counts)
            chosen = rng.choice(present, p=rarity / rarity.sum())
            voxels = np.argwhere(truth[0] == chosen)
            start = np.clip(voxels[rng.integers(len(voxels))] - size // 2, 0, room)
        else:
            start = rng.integers(room + 1)
        box = (slice(None), *(slice(a, a + n) for a, n in zip(start, size, strict=True)))
        images.append(image[box])
        labels.append(truth[box])
    return (
        torch.from_numpy(np.stack(images)).to(memory_format=_FAST),
        torch.from_numpy(np.stack(labels)),
    )


def main(
    out: Annotated[Path, typer.Option(help="Folder for model.yaml, weights, dice.json.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = Recipe.steps,
) -> None:
    """Train the demo's network and measure it on unseen patients."""
    train(out, Recipe(steps=steps))
    result = evaluate(load_card(out / "model.yaml"))
    (out / "dice.json").write_text(json.dumps(result, indent=2) + "\n")
    console = Console()
    for name, value in result["dice"].items():
        console.print(f"{name:14s} {value:.3f}")
    console.print(f"{'mean':14s} {result['mean']:.3f}")


if __name__ == "__main__":
    typer.run(main)
